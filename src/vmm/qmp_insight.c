/* x-doppel-symbols, x-doppel-autopsy, x-doppel-profile, x-doppel-coverage. Answers are below QMP's limit of 1 MiB. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/insight.h"
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
	const struct symbols *s = m->insight->symbols;
	u32 i = (u32)argument(a, "from", 0, UINT32_MAX);
	char *text = NULL;
	size_t used = 0;

	if (!s) {
		bool held = insight_hold(m);

		for (u32 c = 0; c < m->ncpus && !s; c++) {
			struct insight_vcpu v;

			m->insight->retry_ns = 0;
			if (insight_vcpu(&m->cpu[c], &v) == 0)
				s = insight_symbols(m, &v);
		}
		insight_release(m, held);
	}
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
