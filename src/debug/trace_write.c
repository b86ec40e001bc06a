/*
 * Events as lines of text, lines of JSON, or the JSON array of the Trace Event Format that chrome://tracing and Perfetto open: a
 * track for each vCPU; exits and HLT are slices, all else are instants.
 */
#include <inttypes.h>

#include "debug/trace.h"

static u64 ns_of(const struct trace_writer *w, u64 tsc)
{
	u64 d = tsc > w->base ? tsc - w->base : 0;

	return d / w->khz * 1000000 + d % w->khz * 1000000 / w->khz;
}

/* Exits and sleeps have an end; 0: none. */
static u64 duration_ns(const struct trace_writer *w, const struct trace_event *e)
{
	if ((e->kind != TRACE_EXIT && e->kind != TRACE_HALT) || e->data[0] <= e->tsc)
		return 0;
	return ns_of(w, e->data[0]) - ns_of(w, e->tsc);
}

void trace_write_begin(struct trace_writer *w, const struct trace_header *h)
{
	w->khz = h->tsc_khz;
	w->base = h->start_tsc;
	w->ncpus = h->ncpus;
	if (w->format != TRACE_CHROME)
		return;
	fputs("[{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":1,\"args\":{\"name\":\"guest\"}}", w->out);
	for (u32 i = 0; i < w->ncpus; i++)
		fprintf(w->out, ",\n{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":1,\"tid\":%u,\"args\":{\"name\":\"vCPU %u\"}}", i + 1, i);
}

static void text(struct trace_writer *w, const struct trace_event *e, u32 cpu, const char *what)
{
	u64 ns = ns_of(w, e->tsc), took = duration_ns(w, e);

	fprintf(w->out, "%6" PRIu64 ".%09" PRIu64 " cpu%u %016" PRIx64 " ring%u %-9s %s", ns / 1000000000, ns % 1000000000, cpu,
		e->rip, e->cpl & 3, trace_kind_word(e->kind), what);
	if (took)
		fprintf(w->out, " for %" PRIu64 ".%03" PRIu64 " us", took / 1000, took % 1000);
	putc('\n', w->out);
}

static void json_args(struct trace_writer *w, const struct trace_event *e, const char *what)
{
	fprintf(w->out, "\"rip\":\"0x%" PRIx64 "\",\"cpl\":%u,\"bits\":%u,\"what\":%u,\"fault\":%s,\"data\":[", e->rip, e->cpl & 3,
		e->bits, e->what, e->kind == TRACE_INSN && e->flags & TEV_FAULT ? "true" : "false");
	for (u32 i = 0; i < ARRAY_SIZE(e->data); i++)
		fprintf(w->out, "%s\"0x%" PRIx64 "\"", i ? "," : "", e->data[i]);
	fprintf(w->out, "],\"text\":\"%s\"", what);
}

static void json(struct trace_writer *w, const struct trace_event *e, u32 cpu, const char *what)
{
	u64 ns = ns_of(w, e->tsc);

	fprintf(w->out, "{\"time\":%" PRIu64 ".%09" PRIu64 ",\"cpu\":%u,\"kind\":\"%s\",", ns / 1000000000, ns % 1000000000, cpu,
		trace_kind_word(e->kind));
	if (e->kind == TRACE_INSN)
		fprintf(w->out, "\"insn\":\"%s\",", trace_insn_word(e->what));
	if (duration_ns(w, e))
		fprintf(w->out, "\"ns\":%" PRIu64 ",", duration_ns(w, e));
	json_args(w, e, what);
	fputs("}\n", w->out);
}

static const char *chrome_name(const struct trace_event *e)
{
	const char *name = NULL;

	switch (e->kind) {
	case TRACE_INSN:
		return trace_insn_word(e->what);
	case TRACE_EXIT:
		return trace_exit_word(e->what);
	case TRACE_EXC:
		name = trace_exception_word(e->what);
		return name ? name : "exception";
	default:
		return trace_kind_word(e->kind);
	}
}

static void chrome(struct trace_writer *w, const struct trace_event *e, u32 cpu, const char *what)
{
	u64 ns = ns_of(w, e->tsc), took = duration_ns(w, e);

	fprintf(w->out, ",\n{\"name\":\"%s\",\"cat\":\"%s\",\"pid\":1,\"tid\":%u,\"ts\":%" PRIu64 ".%03" PRIu64 ",", chrome_name(e),
		trace_kind_word(e->kind), cpu + 1, ns / 1000, ns % 1000);
	if (took)
		fprintf(w->out, "\"ph\":\"X\",\"dur\":%" PRIu64 ".%03" PRIu64 ",\"args\":{", took / 1000, took % 1000);
	else
		fputs("\"ph\":\"i\",\"s\":\"t\",\"args\":{", w->out);
	json_args(w, e, what);
	fputs("}}", w->out);
}

static void raw(struct trace_writer *w, const struct trace_event *e, u32 cpu)
{
	const struct trace_record r = {.cpu = cpu, .ns = ns_of(w, e->tsc), .e = *e};

	fwrite(&r, sizeof(r), 1, w->out);
	w->written++;
}

void trace_write(struct trace_writer *w, const struct trace_event *e, u32 cpu)
{
	char what[300];

	if (w->format == TRACE_RAW) {
		raw(w, e, cpu);
		return;
	}

	trace_describe(e, what, sizeof(what));
	if (w->format == TRACE_JSON)
		json(w, e, cpu, what);
	else if (w->format == TRACE_CHROME)
		chrome(w, e, cpu, what);
	else
		text(w, e, cpu, what);
	w->written++;
}

void trace_write_end(struct trace_writer *w, u64 lost)
{
	if (w->format == TRACE_CHROME)
		fputs("\n]\n", w->out);
	else if (w->format == TRACE_JSON)
		fprintf(w->out, "{\"kind\":\"end\",\"events\":%" PRIu64 ",\"lost\":%" PRIu64 "}\n", w->written, lost);
	fflush(w->out);
}
