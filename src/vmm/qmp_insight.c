/* x-doppel-symbols, x-doppel-autopsy, x-doppel-profile, x-doppel-coverage. Answers are below QMP's limit of 1 MiB. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/insight.h"
#include "vmm/profile.h"
#include "vmm/qmp_insight.h"

enum { TEXT_MAX = 400 << 10 };

/* A number between 0 and most; absent: the default. */
static u64 argument(const struct qmp_answer *a, const char *key, u64 otherwise, u64 most)
{
	const cJSON *v = cJSON_GetObjectItem(a->args, key);

	return cJSON_IsNumber(v) && v->valuedouble >= 0 ? (u64)MIN(v->valuedouble, (double)most) : otherwise;
}

/* The symbols as text, in pieces: {"from": N} gives those from number N on, and "next". */
void qmp_symbols(const struct qmp_options *o, struct qmp_answer *a)
{
	struct machine *m = o->machine;
	const struct symbols *s = NULL;
	u32 i = (u32)argument(a, "from", 0, UINT32_MAX);
	char *text = NULL;
	size_t used = 0;

	if (!i || !m->insight->symbols) {
		bool held = insight_hold(m);

		insight_find(m, 0);
		insight_release(m, held);
	}
	s = m->insight->symbols;
	text = malloc(TEXT_MAX);
	if (!s || !text) {
		a->error = s ? "no memory" : m->insight->why.text;
		free(text);
		return;
	}
	text[0] = 0;
	for (; i < symbols_count(s) && TEXT_MAX - used > SYMBOL_TEXT; i++) {
		const struct symbol *y = symbols_at(s, i);

		used += (size_t)snprintf(text + used, TEXT_MAX - used, "%016llx %c %s\n", (unsigned long long)y->addr, y->type,
					 symbols_name(s, y));
	}
	a->result = cJSON_CreateObject();
	cJSON_AddNumberToObject(a->result, "count", symbols_count(s));
	cJSON_AddNumberToObject(a->result, "next", i);
	cJSON_AddStringToObject(a->result, "text", text);
	free(text);
}

void qmp_autopsy(const struct qmp_options *o, struct qmp_answer *a)
{
	struct machine *m = o->machine;
	u64 cpu = argument(a, "cpu", UINT32_MAX, UINT32_MAX);
	bool held = false;

	if (cpu != UINT32_MAX && cpu >= m->ncpus) {
		a->error = "no such vCPU";
		return;
	}
	held = insight_hold(m);
	a->result = machine_autopsy(m, "on demand", cpu == UINT32_MAX ? -1 : (int)cpu);
	insight_release(m, held);
}

/* ---- profile, coverage: "do" is start, stop or read ---- */
static bool asked_to(const struct qmp_answer *a, const char *what)
{
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItem(a->args, "do"));

	return s && !strcmp(s, what);
}

static void answer_text(struct qmp_answer *a, char *text, u32 next)
{
	if (!a->result)
		a->result = cJSON_CreateObject();
	cJSON_AddNumberToObject(a->result, "next", next);
	cJSON_AddStringToObject(a->result, "text", text);
	free(text);
}

static void profile_result(struct machine *m, struct qmp_answer *a)
{
	struct profile_figures f;

	profile_figures(m, &f);
	a->result = cJSON_CreateObject();
	cJSON_AddBoolToObject(a->result, "running", f.running);
	cJSON_AddNumberToObject(a->result, "ticks", (double)f.ticks);
	cJSON_AddNumberToObject(a->result, "samples", (double)f.samples);
	cJSON_AddNumberToObject(a->result, "stacks", f.stacks);
	cJSON_AddNumberToObject(a->result, "lost", (double)f.lost);
	cJSON_AddNumberToObject(a->result, "held-ns", (double)f.held_ns);
}

void qmp_profile(const struct qmp_options *o, struct qmp_answer *a)
{
	struct machine *m = o->machine;
	u32 next = (u32)argument(a, "from", 0, UINT32_MAX);
	char *text = NULL;

	if (asked_to(a, "start")) {
		struct profile_figures f;

		profile_figures(m, &f);
		insight_forget(m); /* modules may have come since */
		if (f.running)
			a->error = "a profile is being taken";
		else if (profile_start(m, (u32)MAX(argument(a, "hz", 99, 1000), 1ull), argument(a, "ms", 10000, 86400000)) < 0)
			a->error = "cannot start the timer";
	} else if (asked_to(a, "stop")) {
		profile_stop(m);
		profile_result(m, a);
	} else if (asked_to(a, "read")) {
		text = malloc(TEXT_MAX);
		if (!text) {
			a->error = "no memory";
			return;
		}
		profile_result(m, a);
		profile_read(m, &next, text, TEXT_MAX);
		answer_text(a, text, next);
	} else {
		a->error = "\"do\" is none of start, stop, read";
	}
}

static void coverage_text(struct machine *m, struct qmp_answer *a)
{
	struct coverage_piece c = {.next = (u32)argument(a, "from", 0, UINT32_MAX)};
	char *text = malloc(TEXT_MAX);
	int ret = text ? coverage_read(m, &c, text, TEXT_MAX) : -ENOMEM;

	if (ret < 0) {
		a->error = ret == -ENOTTY ? "needs doppel's own engine" : "cannot read the coverage";
		free(text);
		return;
	}
	a->result = cJSON_CreateObject();
	cJSON_AddNumberToObject(a->result, "total", c.total);
	cJSON_AddNumberToObject(a->result, "lost", c.lost);
	answer_text(a, text, c.next);
}

void qmp_coverage(const struct qmp_options *o, struct qmp_answer *a)
{
	int ret = 0;

	if (asked_to(a, "read")) {
		coverage_text(o->machine, a);
		return;
	}
	if (!asked_to(a, "start") && !asked_to(a, "stop")) {
		a->error = "\"do\" is none of start, stop, read";
		return;
	}
	ret = coverage_switch(o->machine, asked_to(a, "start"));
	if (ret < 0)
		a->error = ret == -ENOTTY ? "needs doppel's own engine" : "the engine refuses";
}
