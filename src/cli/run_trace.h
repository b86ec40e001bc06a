/* doppel run --trace FILE: a process beside the VM's writes its events from the first instruction on. */
#ifndef CLI_RUN_TRACE_H
#define CLI_RUN_TRACE_H

#include <sys/types.h>
#include "debug/trace.h"

struct machine;
struct run_trace {
	char *path; /* NULL: no trace */
	struct trace_choice choice;
	enum trace_format format;
	bool wait;
	int sock;   /* to the writing process; -1 */
	pid_t pid;
};
/* "FILE[,format=text|json|chrome|raw][,wait][,events=LIST]" */
int run_trace_parse(struct run_trace *t, const char *value, struct err *e);
int run_trace_fork(struct run_trace *t, struct err *e);  /* before there are threads */
int run_trace_begin(struct run_trace *t, struct machine *m, struct err *e);
void run_trace_end(struct run_trace *t);                 /* waits until all is written */

#endif
