/* doppel stats: counters of a running VM. */
#include <stdio.h>
#include <stdlib.h>
#include "cli/cli.h"
#include "cli/client.h"

struct stats_options {
	bool json;
};
static const struct opt stats_opts[] = {
	{"json", 0, OPT_FLAG, offsetof(struct stats_options, json), NULL, "print JSON", 0, 0, NULL},
	{NULL, 0, OPT_END, 0, NULL, NULL, 0, 0, NULL},
};

static void print_table(const cJSON *cpu, const char *group)
{
	const cJSON *v = NULL;

	cJSON_ArrayForEach(v, cJSON_GetObjectItem(cpu, group))
		printf("  %-6s %-20s %16.0f\n", group, v->string, v->valuedouble);
}

static double number(const cJSON *j, const char *key)
{
	const cJSON *v = cJSON_GetObjectItem(j, key);

	return cJSON_IsNumber(v) ? v->valuedouble : 0;
}

/* A line for each device: its name, then its counters. */
static void print_devices(const cJSON *j, const char *group, const char *title, const char *name)
{
	const cJSON *d = NULL, *v = NULL;

	cJSON_ArrayForEach(d, cJSON_GetObjectItem(j, group)) {
		const char *s = cJSON_GetStringValue(cJSON_GetObjectItem(d, name));

		printf("%s %s\n ", title, s ? s : "?");
		cJSON_ArrayForEach(v, d)
			if (cJSON_IsNumber(v))
				printf(" %s %.0f", v->string, v->valuedouble);
		putchar('\n');
	}
}

static void print_text(const cJSON *j)
{
	const char *engine = cJSON_GetStringValue(cJSON_GetObjectItem(j, "engine"));
	const cJSON *cpu = NULL;

	printf("engine %s, up %.1f s, memory %.0f MiB, resets %.0f\n", engine ? engine : "?", number(j, "uptime-ms") / 1000,
	       number(j, "memory") / (1 << 20), number(j, "resets"));
	cJSON_ArrayForEach(cpu, cJSON_GetObjectItem(j, "cpus")) {
		printf("vCPU %.0f\n", number(cpu, "cpu"));
		print_table(cpu, "exits");
		print_table(cpu, "engine");
	}
	print_devices(j, "disks", "disk", "path");
	print_devices(j, "networks", "network", "kind");
}

static int stats_main(const struct command *c, int argc, char **argv)
{
	struct stats_options o = {0};
	struct err e = {0};
	cJSON *j = NULL;
	char *text = NULL;
	int ret = opts_parse(c, &o, &argc, argv);

	if (ret)
		return ret == OPTS_DONE ? 0 : EXIT_DOPPEL;
	if (client_do(argv[1], "x-doppel-stats", &j, &e) < 0)
		return cli_fail(&e);
	if (o.json) {
		text = cJSON_Print(j);
		puts(text ? text : "{}");
		free(text);
	} else {
		print_text(j);
	}
	cJSON_Delete(j);
	return 0;
}

const struct command cmd_stats = {.name = "stats", .args = "[--json] NAME",
				  .summary = "shows exits, instructions, caches, disks and networks of a VM", .opts = stats_opts,
				  .min_args = 1, .max_args = 1, .main = stats_main};
