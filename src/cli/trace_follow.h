/* Out of the rings of a trace and into a file, for doppel trace and doppel run --trace. */
#ifndef CLI_TRACE_FOLLOW_H
#define CLI_TRACE_FOLLOW_H

#include "debug/trace.h"

#define TRACE_PERIOD_MS 20

struct trace_follow {
	struct trace_reader reader;
	const struct trace_choice *choice;
	struct trace_writer *w;
	u64 limit; /* 0: none */
	u64 lost;  /* told by trace_follow_end() */
};
/* All that is there now. False: the limit is reached, or the output is broken. */
bool trace_follow_some(struct trace_follow *f);
void trace_follow_end(struct trace_follow *f);

#endif
