/* doppel autopsy: what the vCPUs of a running VM are doing. */
#include <stdio.h>
#include <stdlib.h>
#include "cli/cli.h"
#include "cli/client.h"
#include "debug/autopsy.h"

struct autopsy_options {
	bool json;
	u32 cpu;
};
static const struct opt autopsy_opts[] = {
	{"json", 0, OPT_FLAG, offsetof(struct autopsy_options, json), NULL, "print JSON", 0, 0, NULL},
	{"cpu", 'c', OPT_UINT, offsetof(struct autopsy_options, cpu), "N", "this vCPU in full, the others in brief", 0, 63, NULL},
	{NULL, 0, OPT_END, 0, NULL, NULL, 0, 0, NULL},
};

static int autopsy_main(const struct command *c, int argc, char **argv)
{
	struct autopsy_options o = {.cpu = UINT32_MAX};
	struct err e = {0};
	cJSON *j = NULL, *args = cJSON_CreateObject();
	char *text = NULL;
	int ret = opts_parse(c, &o, &argc, argv);

	if (ret) {
		cJSON_Delete(args);
		return ret == OPTS_DONE ? 0 : EXIT_DOPPEL;
	}
	if (o.cpu != UINT32_MAX)
		cJSON_AddNumberToObject(args, "cpu", o.cpu);
	if (client_do_with(argv[1], "x-doppel-autopsy", args, &j, &e) < 0)
		return cli_fail(&e);
	if (o.json) {
		text = cJSON_Print(j);
		puts(text ? text : "{}");
		free(text);
	} else {
		autopsy_print(j, stdout);
	}
	cJSON_Delete(j);
	return 0;
}

const struct command cmd_autopsy = {.name = "autopsy", .args = "[--json] [--cpu N] NAME",
				    .summary = "shows what a VM's vCPUs are doing: code, registers, page tables, stacks",
				    .opts = autopsy_opts, .min_args = 1, .max_args = 1, .main = autopsy_main};
