/* doppel explain: the run that is explained, and what the translator made of it. */
#ifndef CLI_EXPLAIN_H
#define CLI_EXPLAIN_H

#include "debug/trace.h"

#define EXPLAIN_BLOCKS 64

struct explain_options {
	const char *engine, *append;
	const char *guest;     /* as it was named */
	char path[4096];
	u32 seconds, limit;
	bool json, brief, list, all;
};

/* What the translator made of the code at a guest address. */
struct explain_block {
	u64 pc;
	u32 key;   /* mode, as in its text */
	char *text;
};

struct explained {
	struct trace_record *rec;
	size_t nrec;
	u64 lost;
	char *console;         /* what the guest printed */
	int status;            /* of the VM's process, as waitpid() has it */
	bool timed_out;
	struct explain_block block[EXPLAIN_BLOCKS];
	u32 nblocks;
};

/* Runs the guest, traced; takes the events in. */
int explain_run(const struct explain_options *o, struct explained *x, struct err *e);
/* Runs it again, untraced, each block translated at once; takes the blocks that hold the addresses. */
int explain_translate(const struct explain_options *o, struct explained *x, const u64 *pc, u32 n, struct err *e);
/* How the translator does the instruction at pc. NONE: no block holds it; BOTH: in line, or by its handler when a test says so. */
enum explain_way { WAY_NONE, WAY_IN_LINE, WAY_BOTH, WAY_HANDLER };
enum explain_way explain_way_of(const struct explained *x, u64 pc);
void explain_free(struct explained *x);

/* ---- explain_print.c ---- */
void explain_print(const struct explain_options *o, struct explained *x);
void explain_print_json(const struct explain_options *o, struct explained *x);

#endif
