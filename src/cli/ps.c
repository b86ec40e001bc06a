/* doppel ps: the VMs of this user. */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "cli/cli.h"
#include "cli/client.h"
#include "vmm/instance.h"

struct ps_options {
	bool json;
};
static const struct opt ps_opts[] = {
	{"json", 0, OPT_FLAG, offsetof(struct ps_options, json), NULL, "print JSON", 0, 0, NULL},
	{NULL, 0, OPT_END, 0, NULL, NULL, 0, 0, NULL},
};

static void status_of(const char *name, char *buf, size_t n)
{
	cJSON *j = NULL;
	const char *s = NULL;

	client_do(name, "query-status", &j, NULL);
	s = cJSON_GetStringValue(cJSON_GetObjectItem(j, "status"));
	snprintf(buf, n, "%s", s ? s : "unknown");
	cJSON_Delete(j);
}

static void print_row(void *arg, const struct instance_info *i)
{
	char status[20];
	long up = (long)time(NULL) - (long)i->started;

	status_of(i->name, status, sizeof(status));
	printf("%-20s %8d %-9s %4u %6lluM %-7s %5ld:%02ld  %s%s%s\n", i->name, i->pid, status, i->cpus,
	       (unsigned long long)(i->memory >> 20), i->engine, up / 60, up % 60, i->kernel, *i->ports ? "  " : "", i->ports);
}

static void add_json(void *arg, const struct instance_info *i)
{
	cJSON *j = cJSON_CreateObject();
	char status[20];

	status_of(i->name, status, sizeof(status));
	cJSON_AddStringToObject(j, "name", i->name);
	cJSON_AddNumberToObject(j, "pid", i->pid);
	cJSON_AddStringToObject(j, "status", status);
	cJSON_AddNumberToObject(j, "cpus", i->cpus);
	cJSON_AddNumberToObject(j, "memory", (double)i->memory);
	cJSON_AddStringToObject(j, "engine", i->engine);
	cJSON_AddNumberToObject(j, "started", (double)i->started);
	cJSON_AddStringToObject(j, "kernel", i->kernel);
	cJSON_AddStringToObject(j, "ports", i->ports);
	cJSON_AddItemToArray(arg, j);
}

static int ps_main(const struct command *c, int argc, char **argv)
{
	struct ps_options o = {0};
	struct err e = {0};
	cJSON *list = NULL;
	char *text = NULL;
	int ret = opts_parse(c, &o, &argc, argv);

	if (ret)
		return ret == OPTS_DONE ? 0 : EXIT_DOPPEL;
	if (!o.json) {
		printf("%-20s %8s %-9s %4s %7s %-7s %8s  %s\n", "NAME", "PID", "STATUS", "CPUS", "MEMORY", "ENGINE", "UP",
		       "KERNEL  PORTS");
		return instance_each(print_row, NULL, &e) < 0 ? cli_fail(&e) : 0;
	}
	list = cJSON_CreateArray();
	ret = instance_each(add_json, list, &e);
	text = cJSON_Print(list);
	if (!ret && text)
		puts(text);
	free(text);
	cJSON_Delete(list);
	return ret < 0 ? cli_fail(&e) : 0;
}

const struct command cmd_ps = {
	.name = "ps", .args = "[--json]", .summary = "lists running VMs", .opts = ps_opts, .main = ps_main};
