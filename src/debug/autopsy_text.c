/* The report as text. It may come from another process: what is missing is left out. */
#include <string.h>
#include "debug/autopsy.h"

static const char *text(const cJSON *j, const char *key)
{
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItem(j, key));

	return s ? s : "";
}

static int number(const cJSON *j, const char *key)
{
	const cJSON *v = cJSON_GetObjectItem(j, key);

	return cJSON_IsNumber(v) ? v->valueint : 0;
}

/* The first of a list, with a title before it. */
static const cJSON *first(const cJSON *j, const char *key, const char *title, FILE *out)
{
	const cJSON *l = cJSON_GetObjectItem(j, key);

	if (l && l->child)
		fprintf(out, "%s:\n", title);
	return l ? l->child : NULL;
}

/* An address and its symbol. */
static void place(const cJSON *j, const char *addr, const char *symbol, FILE *out)
{
	const char *name = text(j, symbol);

	fprintf(out, "%s%s%s", text(j, addr), *name ? " " : "", name);
}

static void print_code(const cJSON *v, FILE *out)
{
	const cJSON *l = NULL;

	for (l = first(v, "code", "code", out); l; l = l->next)
		fprintf(out, "%s %-18s %-24s %s\n", cJSON_IsTrue(cJSON_GetObjectItem(l, "here")) ? "=>" : "  ", text(l, "address"),
			text(l, "bytes"), text(l, "text"));
}

static void print_registers(const cJSON *v, FILE *out)
{
	const cJSON *r = NULL;
	u32 i = 0;

	for (r = first(v, "registers", "registers", out); r; r = r->next) {
		const char *value = cJSON_GetStringValue(r);

		fprintf(out, "  %9s %-18s%s", r->string ? r->string : "", value ? value : "", ++i % 4 && r->next ? "" : "\n");
	}
}

static void print_exceptions(const cJSON *v, FILE *out)
{
	const cJSON *e = NULL;

	for (e = first(v, "exceptions", "exceptions, the last one last", out); e; e = e->next) {
		const char *name = text(e, "name"), *error = text(e, "error"), *what = text(e, "error_text");

		fprintf(out, "  %s%s (%d)", cJSON_IsTrue(cJSON_GetObjectItem(e, "nested")) ? "on its delivery: " : "",
			*name ? name : "exception", number(e, "vector"));
		if (*error)
			fprintf(out, " error %s", error);
		if (*what)
			fprintf(out, " (%s)", what);
		if (*text(e, "cr2"))
			fprintf(out, " cr2 %s", text(e, "cr2"));
		fputs(" at ", out);
		place(e, "rip", "symbol", out);
		fputs(cJSON_IsTrue(cJSON_GetObjectItem(e, "shutdown")) ? ": triple fault\n" : "\n", out);
	}
}

static void print_walks(const cJSON *v, FILE *out)
{
	const cJSON *w = NULL, *e = NULL;

	cJSON_ArrayForEach(w, cJSON_GetObjectItem(v, "walks")) {
		fprintf(out, "page walk of %s ", text(w, "of"));
		place(w, "address", "symbol", out);
		fputs(":\n", out);
		cJSON_ArrayForEach(e, cJSON_GetObjectItem(w, "entries"))
			fprintf(out, *text(e, "symbol") ? "  %-5s at %-12s = %-18s %s (looks like %s)\n" : "  %-5s at %-12s = %-18s %s\n",
				text(e, "level"), text(e, "at"), text(e, "value"), text(e, "flags"), text(e, "symbol"));
		fprintf(out, "  %s", text(w, "end"));
		if (*text(w, "physical"))
			fprintf(out, ": physical %s", text(w, "physical"));
		if (*text(w, "page_size"))
			fprintf(out, ", page of %s", text(w, "page_size"));
		fputs("\n", out);
	}
}

static void print_branches(const cJSON *v, FILE *out)
{
	const cJSON *b = NULL;

	for (b = first(v, "branches", "branches, the last one last", out); b; b = b->next) {
		fputs("  ", out);
		place(b, "from", "from_symbol", out);
		fputs(" -> ", out);
		place(b, "to", "to_symbol", out);
		if (number(b, "times") > 1)
			fprintf(out, " (%s, %d times)\n", text(b, "kind"), number(b, "times"));
		else
			fprintf(out, " (%s)\n", text(b, "kind"));
	}
}

static void print_stack(const cJSON *v, FILE *out)
{
	const cJSON *w = NULL;

	for (w = first(v, "stack", "stack", out); w; w = w->next)
		fprintf(out, "  %-18s %-18s %s\n", text(w, "address"), text(w, "value"), text(w, "symbol"));
}

static void print_backtrace(const cJSON *v, FILE *out)
{
	const cJSON *f = NULL;

	for (f = first(v, "backtrace", "backtrace", out); f; f = f->next) {
		fprintf(out, "  %s ", strcmp(text(f, "how"), "found on the stack") ? " " : "?");
		place(f, "address", "symbol", out);
		fputs("\n", out);
	}
}

void autopsy_print(const cJSON *report, FILE *out)
{
	const cJSON *v = NULL, *note = cJSON_GetObjectItem(report, "note");

	cJSON_ArrayForEach(v, cJSON_GetObjectItem(report, "vcpus")) {
		const char *task = text(v, "task");

		fprintf(out, "---- autopsy: %s: vCPU %d, %d-bit code, CPL %d%s%s%s, at ", text(report, "reason"), number(v, "cpu"),
			number(v, "bits"), number(v, "cpl"), cJSON_IsTrue(cJSON_GetObjectItem(v, "halted")) ? ", halted" : "",
			*task ? ", task " : "", task);
		place(v, "rip", "symbol", out);
		fputs(" ----\n", out);
		print_exceptions(v, out);
		print_code(v, out);
		print_registers(v, out);
		print_walks(v, out);
		print_branches(v, out);
		print_stack(v, out);
		print_backtrace(v, out);
	}
	if (cJSON_IsString(note))
		fprintf(out, "(%s)\n", note->valuestring);
	fputs("---- end of autopsy ----\n", out);
}
