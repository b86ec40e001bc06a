/* doppel coverage: which code of a guest's kernel has run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cli/cli.h"
#include "cli/insight.h"
#include "debug/symbols.h"

struct coverage_options {
	bool start, stop, list;
	const char *output;
};
#define AT(field) offsetof(struct coverage_options, field)
static const struct opt coverage_opts[] = {
	{"start", 0, OPT_FLAG, AT(start), NULL, "begin: nothing has run", 0, 0, NULL},
	{"stop", 0, OPT_FLAG, AT(stop), NULL, "end, and print what has run since", 0, 0, NULL},
	{"list", 0, OPT_FLAG, AT(list), NULL, "print pieces of code (begin, end, place), not functions in lcov's format", 0, 0, NULL},
	{"output", 'o', OPT_STRING, AT(output), "FILE", "write there, not to stdout", 0, 0, NULL},
	{NULL, 0, OPT_END, 0, NULL, NULL, 0, 0, NULL},
};

struct piece {
	u64 begin, end;
};
struct pieces {
	struct piece *p;
	size_t n, room;
};

static int take(void *arg, const char *text)
{
	struct pieces *s = arg;

	while (*text) {
		char *end = NULL;
		u64 addr = strtoull(text, &end, 16), len = strtoull(end, &end, 10);

		if (*end != '\n')
			return -EPROTO;
		text = end + 1;
		if (s->n == s->room) {
			struct piece *more = realloc(s->p, MAX(2 * s->room, (size_t)4096) * sizeof(*more));

			if (!more)
				return -ENOMEM;
			s->p = more;
			s->room = MAX(2 * s->room, (size_t)4096);
		}
		s->p[s->n++] = (struct piece){addr, addr + len};
	}
	return 0;
}

static int by_begin(const void *a, const void *b)
{
	const struct piece *x = a, *y = b;

	if (x->begin != y->begin)
		return x->begin < y->begin ? -1 : 1;
	return x->end < y->end ? -1 : x->end > y->end;
}

/* Sorted; those that touch become one. */
static void merge(struct pieces *s)
{
	size_t n = 0;

	if (s->n)
		qsort(s->p, s->n, sizeof(*s->p), by_begin);
	for (size_t i = 0; i < s->n; i++) {
		if (n && s->p[i].begin <= s->p[n - 1].end)
			s->p[n - 1].end = MAX(s->p[n - 1].end, s->p[i].end);
		else
			s->p[n++] = s->p[i];
	}
	s->n = n;
}

static void print_list(const struct pieces *s, const struct symbols *y, FILE *out)
{
	char text[SYMBOL_TEXT];

	for (size_t i = 0; i < s->n; i++)
		fprintf(out, "%016llx %016llx %s\n", (unsigned long long)s->p[i].begin, (unsigned long long)s->p[i].end,
			symbols_text(y, s->p[i].begin, text, sizeof(text)));
}

static bool is_function(const struct symbol *y)
{
	return strchr("TtWw", y->type) && y->addr >> 63;
}

/* The bytes of [begin, end) that have run; *at is the first piece that may matter, and moves along. */
static u64 bytes_run(const struct pieces *s, size_t *at, u64 begin, u64 end)
{
	u64 sum = 0;

	while (*at < s->n && s->p[*at].end <= begin)
		++*at;
	for (size_t i = *at; i < s->n && s->p[i].begin < end; i++)
		sum += MIN(s->p[i].end, end) - MAX(s->p[i].begin, begin);
	return sum;
}

/*
 * geninfo(1). There are no lines to speak of: a function's "line" is its number by address, and what it is said to have run are bytes. 0: it
 * has not.
 */
static void print_lcov(const struct pieces *s, const struct symbols *y, const char *name, FILE *out)
{
	u32 found = 0, hit = 0;
	size_t at = 0;

	fprintf(out, "TN:doppel\nSF:%s\n", name);
	for (int pass = 0; pass < 2; pass++, at = 0) {
		u64 last = 0;
		u32 line = 0;

		for (u32 i = 0; i < symbols_count(y); i++) {
			const struct symbol *f = symbols_at(y, i);
			u64 run = 0;

			if (!is_function(f) || f->addr == last)
				continue;
			last = f->addr;
			if (!pass) {
				fprintf(out, "FN:%u,%s\n", ++line, symbols_name(y, f));
				continue;
			}
			run = bytes_run(s, &at, f->addr, symbols_end(y, f));
			fprintf(out, "FNDA:%llu,%s\n", (unsigned long long)run, symbols_name(y, f));
			found++;
			hit += run > 0;
		}
	}
	fprintf(out, "FNF:%u\nFNH:%u\nend_of_record\n", found, hit);
}

static int stop(struct client *c, const struct coverage_options *o, FILE *out, struct err *e)
{
	struct symbols *y = symbols_new();
	struct pieces s = {0};
	struct err none = {0};
	cJSON *last = NULL;
	int ret = insight_do(c, "x-doppel-coverage", "stop", NULL, e);

	if (!ret)
		ret = insight_read(c, "x-doppel-coverage", &last, take, &s, e);
	if (!ret && y) {
		merge(&s);
		/* without symbols the list of addresses is what there is */
		if (symbols_fetch(c, y, &none) == 0)
			symbols_sort(y);
		if (o->list || !symbols_count(y))
			print_list(&s, y, out);
		else
			print_lcov(&s, y, c->name, out);
		fprintf(stderr, "doppel: coverage: %.0f pieces of code have run%s\n", cJSON_GetNumberValue(cJSON_GetObjectItem(last, "total")),
			cJSON_GetNumberValue(cJSON_GetObjectItem(last, "lost")) ? ", and more that were not noted" : "");
	}
	cJSON_Delete(last);
	symbols_free(y);
	free(s.p);
	return ret;
}

static int coverage_main(const struct command *c, int argc, char **argv)
{
	struct coverage_options o = {0};
	struct client client;
	struct err e = {0};
	FILE *out = stdout;
	int ret = opts_parse(c, &o, &argc, argv);

	if (ret)
		return ret == OPTS_DONE ? 0 : EXIT_DOPPEL;
	if (o.start == o.stop) {
		err_set(&e, EINVAL, "coverage: either --start or --stop");
		return cli_fail(&e);
	}
	if (client_open(&client, argv[1], &e) < 0)
		return cli_fail(&e);
	if (o.stop && o.output)
		out = fopen(o.output, "we");
	if (!out)
		ret = err_set(&e, errno, "%s: %s", o.output, strerror(errno));
	else
		ret = o.start ? insight_do(&client, "x-doppel-coverage", "start", NULL, &e) : stop(&client, &o, out, &e);
	client_close(&client);
	if (out && out != stdout && fclose(out) && !ret)
		ret = err_set(&e, errno, "%s: %s", o.output, strerror(errno));
	return ret ? cli_fail(&e) : 0;
}

const struct command cmd_coverage = {.name = "coverage", .args = "--start | --stop [--list] [-o FILE] NAME",
				     .summary = "tells which code of a guest's kernel has run", .opts = coverage_opts,
				     .min_args = 1, .max_args = 1, .main = coverage_main};
