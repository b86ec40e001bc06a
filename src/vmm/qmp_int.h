/* Between the QMP server (framing, clients) and its commands. */
#ifndef VMM_QMP_INT_H
#define VMM_QMP_INT_H

#include <cjson/cJSON.h>
#include "vmm/console.h"
#include "vmm/qmp.h"

struct qmp_answer {
	const cJSON *args;  /* the request's "arguments"; NULL: none */
	cJSON *result;      /* NULL: {} */
	const char *error;  /* GenericError: a constant, or error_text */
	char error_text[200];
	bool has_fd;        /* fd goes with the answer, and is closed here */
	int fd;
	void (*closed)(struct machine *m, u64 what); /* when this client is gone */
	u64 closed_what;
	bool to_console;    /* the connection becomes a console */
	bool log_only;      /* and ends when what was there to replay is out */
	void (*then)(struct machine *m); /* once the answer is on its way */
};
struct qmp_command {
	const char *name;
	void (*run)(const struct qmp_options *o, struct qmp_answer *a);
};
const struct qmp_command *qmp_command_find(const char *name);
/* trace.c */
void qmp_trace_start(const struct qmp_options *o, struct qmp_answer *a);
void qmp_trace_stop(const struct qmp_options *o, struct qmp_answer *a);
void qmp_top(const struct qmp_options *o, struct qmp_answer *a);
/* qmp_inspect.c */
void qmp_registers(const struct qmp_options *o, struct qmp_answer *a);
void qmp_memory(const struct qmp_options *o, struct qmp_answer *a);

cJSON *qmp_version_json(const char *version);


struct machine;
void qmp_add_device_stats(struct machine *m, cJSON *result); /* qmp_devices.c */

#endif
