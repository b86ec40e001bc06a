/* Tables of doppel top. */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/top.h"

static const char *const sample_heads[] = {"%usr", "%krn", "%mon", "%idl"};
static const struct {
	const char *head;
	int width;
} columns[TOP_COUNTERS] = {
#define X(field, group, key, head, width) [TOP_##field] = {head, width},
	TOP_COLUMNS(X)
#undef X
};

/* The same VM at the earlier moment; NULL: it was not there, or is another one of that name. */
static const struct top_vm *before(const struct top *old, const struct top_vm *v)
{
	for (u32 i = 0; i < old->n; i++)
		if (!strcmp(old->vm[i].name, v->name) && old->vm[i].up_ms <= v->up_ms && old->vm[i].ncpus == v->ncpus)
			return &old->vm[i];
	return NULL;
}

static double rate(const struct top *old, const struct top *now, double a, double b)
{
	double s = now->ms > old->ms ? (double)(now->ms - old->ms) / 1000 : 1;

	return b > a ? (b - a) / s : 0;
}

/* Share of kind k in the samples since then; -1: there are none. */
static double share(const struct top_cpu *a, const struct top_cpu *b, u32 k)
{
	double sum = 0;

	for (u32 i = 0; i < ARRAY_SIZE(b->sample); i++)
		sum += b->sample[i] - a->sample[i];
	return b->sampled && sum > 0 ? 100 * (b->sample[k] - a->sample[k]) / sum : -1;
}

/* "999", "12.3k", "4.5M" */
static void short_number(double v, char *buf, size_t n)
{
	static const char units[] = " kMGT";
	u32 u = 0;

	while (v >= 10000 && u < 4) {
		v /= 1000;
		u++;
	}
	if (u)
		snprintf(buf, n, "%.*f%c", v < 100 ? 1 : 0, v, units[u]);
	else
		snprintf(buf, n, "%.0f", v);
}

/* Lines go through here: cut to the width, at most so many. */
struct page {
	u16 cols, rows, used; /* cols 0: no bounds */
};

static void put_line(struct page *p, const char *line)
{
	if (!p->cols) {
		puts(line);
		return;
	}
	if (p->used + 1 >= p->rows)
		return;
	printf("%.*s\033[K\r\n", p->cols, line);
	p->used++;
}

static void put_heads(struct page *p)
{
	char line[200];
	size_t n = (size_t)snprintf(line, sizeof(line), "  vCPU");

	for (u32 i = 0; i < ARRAY_SIZE(sample_heads); i++)
		n += (size_t)snprintf(line + n, sizeof(line) - n, " %5s", sample_heads[i]);
	for (u32 i = 0; i < TOP_COUNTERS; i++)
		n += (size_t)snprintf(line + n, sizeof(line) - n, " %*s", columns[i].width, columns[i].head);
	put_line(p, line);
}

static void put_cpu(struct page *p, const struct top *old, const struct top *now, const struct top_cpu *a, const struct top_cpu *b, u32 i,
		    const char *engine)
{
	char line[200], num[32];
	size_t n = (size_t)snprintf(line, sizeof(line), "  %4u", i);

	for (u32 k = 0; k < ARRAY_SIZE(sample_heads); k++) {
		double s = share(a, b, k);

		if (s < 0)
			n += (size_t)snprintf(line + n, sizeof(line) - n, " %5s", "-");
		else
			n += (size_t)snprintf(line + n, sizeof(line) - n, " %5.1f", s);
	}
	for (u32 k = 0; k < TOP_COUNTERS; k++) {
		if (k == TOP_INSNS && !now->insns && strcmp(engine, "interp") != 0) {
			n += (size_t)snprintf(line + n, sizeof(line) - n, " %*s", columns[k].width, "-");
			continue;
		}
		short_number(rate(old, now, a->counter[k], b->counter[k]), num, sizeof(num));
		n += (size_t)snprintf(line + n, sizeof(line) - n, " %*s", columns[k].width, num);
	}
	put_line(p, line);
}

static void put_vm(struct page *p, const struct top *old, const struct top *now, const struct top_vm *v)
{
	const struct top_vm *o = before(old, v);
	char line[200];

	snprintf(line, sizeof(line), "%s: %s, %s, up %llu s, RAM %llu of %llu MiB touched, monitor %llu MiB", v->name, v->state, v->engine,
		 (unsigned long long)v->up_ms / 1000, (unsigned long long)v->touched >> 20, (unsigned long long)v->memory >> 20,
		 (unsigned long long)v->own >> 20);
	put_line(p, line);
	for (u32 i = 0; o && i < v->ncpus; i++)
		put_cpu(p, old, now, &o->cpu[i], &v->cpu[i], i, v->engine);
}

static void put_all(struct page *p, const struct top *old, const struct top *now)
{
	char line[80];
	time_t t = time(NULL);
	struct tm tm;

	strftime(line, sizeof(line), "doppel top  %H:%M:%S", localtime_r(&t, &tm));
	put_line(p, line);
	put_heads(p);
	for (u32 i = 0; i < now->n; i++)
		put_vm(p, old, now, &now->vm[i]);
	if (!now->n)
		put_line(p, "no VM runs");
}

void top_table(const struct top *old, const struct top *now)
{
	struct page p = {0};

	put_all(&p, old, now);
	put_line(&p, "");
}

void top_screen(const struct top *old, const struct top *now, u16 cols, u16 rows)
{
	struct page p = {.cols = cols, .rows = rows};

	fputs("\033[H", stdout);
	put_all(&p, old, now);
	fputs("\033[J", stdout);
}

static cJSON *cpu_json(const struct top *old, const struct top *now, const struct top_cpu *a, const struct top_cpu *b)
{
	static const char *const kinds[] = {"user", "kernel", "monitor", "idle"};
	static const char *const names[TOP_COUNTERS] = {
#define X(field, group, key, head, width) [TOP_##field] = group "." key,
		TOP_COLUMNS(X)
#undef X
	};
	cJSON *j = cJSON_CreateObject(), *time = cJSON_AddObjectToObject(j, "time-percent"), *rates = NULL;

	for (u32 k = 0; k < ARRAY_SIZE(kinds) && share(a, b, k) >= 0; k++)
		cJSON_AddNumberToObject(time, kinds[k], share(a, b, k));
	rates = cJSON_AddObjectToObject(j, "per-second");
	for (u32 k = 0; k < TOP_COUNTERS; k++)
		cJSON_AddNumberToObject(rates, names[k], rate(old, now, a->counter[k], b->counter[k]));
	return j;
}

void top_json(const struct top *old, const struct top *now)
{
	cJSON *list = cJSON_CreateArray();
	char *line = NULL;

	for (u32 i = 0; i < now->n; i++) {
		const struct top_vm *v = &now->vm[i], *o = before(old, v);
		cJSON *j = cJSON_CreateObject(), *cpus = NULL;

		cJSON_AddStringToObject(j, "name", v->name);
		cJSON_AddStringToObject(j, "state", v->state);
		cJSON_AddStringToObject(j, "engine", v->engine);
		cJSON_AddNumberToObject(j, "uptime-ms", (double)v->up_ms);
		cJSON_AddNumberToObject(j, "memory", (double)v->memory);
		cJSON_AddNumberToObject(j, "memory-touched", (double)v->touched);
		cJSON_AddNumberToObject(j, "monitor-memory", (double)v->own);
		cpus = cJSON_AddArrayToObject(j, "cpus");
		for (u32 k = 0; o && k < v->ncpus; k++)
			cJSON_AddItemToArray(cpus, cpu_json(old, now, &o->cpu[k], &v->cpu[k]));
		cJSON_AddItemToArray(list, j);
	}
	line = cJSON_PrintUnformatted(list);
	puts(line ? line : "[]");
	free(line);
	cJSON_Delete(list);
}
