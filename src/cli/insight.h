/* What the commands that look into a guest share. */
#ifndef CLI_INSIGHT_H
#define CLI_INSIGHT_H

#include "cli/client.h"

struct symbols;
/* A running guest's symbols, to be sorted; s NULL: printed. */
int symbols_fetch(struct client *c, struct symbols *s, struct err *e);
/* The text of a command that answers {"do": "read", "from": N} with "text" and "next", piece by piece, into f. */
int insight_read(struct client *c, const char *command, cJSON **last, int (*take)(void *arg, const char *text), void *arg, struct err *e);
int insight_do(struct client *c, const char *command, const char *what, cJSON **result, struct err *e);

#endif
