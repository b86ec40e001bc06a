/* A running VM's control socket, from another process. */
#ifndef CLI_CLIENT_H
#define CLI_CLIENT_H

#include <cjson/cJSON.h>
#include "base/base.h"

struct client {
	int fd;
	const char *name;
	char *buf;
	size_t n;
	bool has_fd; /* a descriptor came with an answer: passed, to be closed by who takes it */
	int passed;
};
int client_open(struct client *c, const char *name, struct err *e);
void client_close(struct client *c);
/* Runs one command; *result (may be NULL) is the answer's "return", to be deleted. Events are skipped. */
int client_call(struct client *c, const char *command, cJSON **result, struct err *e);
/* The same with arguments (NULL: none), which it deletes. */
int client_call_with(struct client *c, const char *command, cJSON *args, cJSON **result, struct err *e);
/* Next message of any kind within timeout_ms (-1: none): -ETIMEDOUT, -ECONNRESET at the end. */
int client_message(struct client *c, int timeout_ms, cJSON **out);
/* Opens, runs one command, closes. */
int client_do(const char *name, const char *command, cJSON **result, struct err *e);
int client_do_with(const char *name, const char *command, cJSON *args, cJSON **result, struct err *e);

#endif
