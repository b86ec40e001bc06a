/* doppel stop, pause, resume. */
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include "cli/cli.h"
#include "cli/client.h"
#include "vmm/instance.h"

struct stop_options {
	bool kill;
	u32 timeout;
};
static const struct opt stop_opts[] = {
	{"kill", 0, OPT_FLAG, offsetof(struct stop_options, kill), NULL, "end the VM at once", 0, 0, NULL},
	{"timeout", 't', OPT_UINT, offsetof(struct stop_options, timeout), "SECONDS", "how long to wait (default 30)", 1, 86400,
	 NULL},
	{NULL, 0, OPT_END, 0, NULL, NULL, 0, 0, NULL},
};

/* Waits for the control socket to close; then the process is about to leave. */
static int wait_end(struct client *c, u32 seconds)
{
	struct timespec ts, end;
	cJSON *j = NULL;
	int ret = 0;

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += seconds;
	do {
		clock_gettime(CLOCK_MONOTONIC, &ts);
		if (ts.tv_sec >= end.tv_sec)
			return -ETIMEDOUT;
		ret = client_message(c, (int)(end.tv_sec - ts.tv_sec) * 1000, &j);
		cJSON_Delete(j);
		j = NULL;
	} while (!ret);
	return ret == -ECONNRESET ? 0 : ret;
}

static int stop_main(const struct command *c, int argc, char **argv)
{
	struct stop_options o = {.timeout = 30};
	struct client cl;
	struct err e = {0};
	int ret = opts_parse(c, &o, &argc, argv);

	if (ret)
		return ret == OPTS_DONE ? 0 : EXIT_DOPPEL;
	ret = client_open(&cl, argv[1], &e);
	if (ret)
		return cli_fail(&e);
	ret = client_call(&cl, o.kill ? "quit" : "system_powerdown", NULL, &e);
	if (!ret)
		ret = wait_end(&cl, o.timeout);
	client_close(&cl);
	if (ret == -ETIMEDOUT)
		err_set(&e, ETIMEDOUT, "%s: the guest did not power off within %u s (doppel stop --kill %s ends it)", argv[1],
			o.timeout, argv[1]);
	return ret ? cli_fail(&e) : 0;
}

const struct command cmd_stop = {
	.name = "stop",
	.args = "[--kill] NAME",
	.summary = "presses the power button of a VM and waits; --kill ends it",
	.opts = stop_opts,
	.min_args = 1,
	.max_args = 1,
	.main = stop_main,
};

static int simple(const struct command *c, int argc, char **argv, const char *command)
{
	struct err e = {0};
	int ret = opts_parse(c, NULL, &argc, argv);

	if (ret)
		return ret == OPTS_DONE ? 0 : EXIT_DOPPEL;
	return client_do(argv[1], command, NULL, &e) < 0 ? cli_fail(&e) : 0;
}

static int pause_main(const struct command *c, int argc, char **argv)
{
	return simple(c, argc, argv, "stop");
}

static int resume_main(const struct command *c, int argc, char **argv)
{
	return simple(c, argc, argv, "cont");
}

const struct command cmd_pause = {.name = "pause", .args = "NAME", .summary = "stops a VM's processors", .min_args = 1,
				  .max_args = 1, .main = pause_main};
const struct command cmd_resume = {.name = "resume", .args = "NAME", .summary = "lets a paused VM go on", .min_args = 1,
				   .max_args = 1, .main = resume_main};
