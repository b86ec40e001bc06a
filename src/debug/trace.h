/* The reading side of a trace: takes events out of the rings in order of time, names what they hold. Trusts no byte of the rings. */
#ifndef DEBUG_TRACE_H
#define DEBUG_TRACE_H

#include <stdio.h>

#include "base/base.h"
#include "kvm/trace.h"

struct trace_reader {
	struct trace_header h; /* checked copy */
	struct trace_ring *ring;
	void *map;
	size_t size;
	u64 next[TRACE_CPUS];  /* what we have read: not the shared word */
	u64 lost[TRACE_CPUS];
};

/* Maps the rings; keeps no descriptor. 0 or -errno (EPROTO: not a trace). */
int trace_reader_open(struct trace_reader *r, int fd);
void trace_reader_close(struct trace_reader *r);
/*
 * The oldest event there is, and its vCPU; false: none. Events of one vCPU come in order; those of several by their times, as far as
 * they are there yet.
 */
bool trace_reader_next(struct trace_reader *r, struct trace_event *e, u32 *cpu);
u64 trace_reader_lost(struct trace_reader *r); /* events for which there was no room, so far */

/* ---- words ---- */
const char *trace_kind_word(unsigned kind);
const char *trace_insn_word(unsigned what);
const char *trace_exception_word(unsigned vector); /* "#PF"; NULL: none has that number */
const char *trace_exit_word(u32 reason);
const char *trace_who_word(u64 who);
/* "insn,exit" or "all", "-irq" without; also names of instructions ("cpuid"), which then are the only ones told. */
struct trace_choice {
	u32 kinds;
	bool some;            /* only insns[] */
	bool insns[TI_COUNT];
};
int trace_choice_parse(struct trace_choice *c, const char *list, struct err *e);
bool trace_choice_wants(const struct trace_choice *c, const struct trace_event *e);

/* ---- formats ---- */
/* TRACE_RAW: a file of these. */
struct trace_record {
	u64 cpu, ns;
	struct trace_event e;
};
struct trace_writer {
	FILE *out;
	enum trace_format { TRACE_TEXT, TRACE_JSON, TRACE_CHROME, TRACE_RAW } format;
	u64 khz, base; /* TSC that is time 0 */
	u64 written;
	u32 ncpus;
};
void trace_write_begin(struct trace_writer *w, const struct trace_header *h);
void trace_write(struct trace_writer *w, const struct trace_event *e, u32 cpu);
void trace_write_end(struct trace_writer *w, u64 lost);
/* What the event says, without time and place: "cpuid leaf 0x1.0x0 -> ...". */
void trace_describe(const struct trace_event *e, char *buf, size_t n);

#endif
