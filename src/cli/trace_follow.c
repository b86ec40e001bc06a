/* Follows a trace. */
#include "cli/trace_follow.h"

/* A guest that makes events faster than we write them must not hold us here for good. */
enum { ROUND = 4 * TRACE_SLOTS };

bool trace_follow_some(struct trace_follow *f)
{
	struct trace_event e;
	u32 cpu = 0;

	for (u32 i = 0; i < ROUND; i++) {
		if ((f->limit && f->w->written >= f->limit) || ferror(f->w->out))
			return false;
		if (!trace_reader_next(&f->reader, &e, &cpu))
			break;
		if (trace_choice_wants(f->choice, &e))
			trace_write(f->w, &e, cpu);
	}
	return fflush(f->w->out) == 0;
}

void trace_follow_end(struct trace_follow *f)
{
	f->lost = trace_reader_lost(&f->reader);
	trace_write_end(f->w, f->lost);
}
