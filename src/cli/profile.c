/* doppel profile: where a running guest spends its time. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "cli/cli.h"
#include "cli/insight.h"

enum { GRACE_MS = 60000 }; /* the VM stops sampling by itself if we are not there to say so */

struct profile_options {
	u32 hz, seconds;
	const char *output;
};
static const struct opt profile_opts[] = {
	{"frequency", 'F', OPT_UINT, offsetof(struct profile_options, hz), "HZ", "samples per second (default 99)", 1, 1000, NULL},
	{"duration", 'd', OPT_UINT, offsetof(struct profile_options, seconds), "SECONDS", "how long (default 10); Ctrl-C ends it too", 1, 3600,
	 NULL},
	{"output", 'o', OPT_STRING, offsetof(struct profile_options, output), "FILE", "write there, not to stdout", 0, 0, NULL},
	{NULL, 0, OPT_END, 0, NULL, NULL, 0, 0, NULL},
};

static int start(struct client *c, const struct profile_options *o, struct err *e)
{
	cJSON *args = cJSON_CreateObject();

	cJSON_AddStringToObject(args, "do", "start");
	cJSON_AddNumberToObject(args, "hz", o->hz);
	cJSON_AddNumberToObject(args, "ms", o->seconds * 1000.0 + GRACE_MS);
	return client_call_with(c, "x-doppel-profile", args, NULL, e);
}

/* Sleeps; SIGINT and SIGTERM end that early, the VM's end too. */
static int wait_until(struct client *c, u32 seconds, struct err *e)
{
	struct timespec step = {.tv_nsec = 200000000}, now, begin;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	do {
		cJSON *j = NULL;
		int ret = client_message(c, 0, &j);

		cJSON_Delete(j); /* an event */
		if (ret && ret != -ETIMEDOUT)
			return err_set(e, -ret, "%s: the VM ended", c->name);
		if (sigtimedwait(&set, NULL, &step) > 0)
			break;
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while ((u64)(now.tv_sec - begin.tv_sec) < seconds || (now.tv_sec - begin.tv_sec == seconds && now.tv_nsec < begin.tv_nsec));
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	return 0;
}

static int print(void *arg, const char *text)
{
	return fputs(text, arg) < 0 ? -errno : 0;
}

static int take(struct client *c, const struct profile_options *o, FILE *out, struct err *e)
{
	cJSON *j = NULL;
	int ret = start(c, o, e);

	if (!ret)
		ret = wait_until(c, o->seconds, e);
	if (!ret)
		ret = insight_do(c, "x-doppel-profile", "stop", &j, e);
	if (!ret)
		ret = insight_read(c, "x-doppel-profile", NULL, print, out, e);
	if (!ret)
		fprintf(stderr, "doppel: profile: %.0f samples of %.0f stacks; the vCPUs were held for %.1f us per tick\n",
			cJSON_GetNumberValue(cJSON_GetObjectItem(j, "samples")), cJSON_GetNumberValue(cJSON_GetObjectItem(j, "stacks")),
			cJSON_GetNumberValue(cJSON_GetObjectItem(j, "held-ns")) / 1000 /
			    MAX(cJSON_GetNumberValue(cJSON_GetObjectItem(j, "ticks")), 1.0));
	cJSON_Delete(j);
	return ret;
}

static int profile_main(const struct command *c, int argc, char **argv)
{
	struct profile_options o = {.hz = 99, .seconds = 10};
	struct client client;
	struct err e = {0};
	FILE *out = stdout;
	int ret = opts_parse(c, &o, &argc, argv);

	if (ret)
		return ret == OPTS_DONE ? 0 : EXIT_DOPPEL;
	if (client_open(&client, argv[1], &e) < 0)
		return cli_fail(&e);
	if (o.output)
		out = fopen(o.output, "we");
	ret = out ? take(&client, &o, out, &e) : err_set(&e, errno, "%s: %s", o.output, strerror(errno));
	client_close(&client);
	if (out && o.output && fclose(out) && !ret)
		ret = err_set(&e, errno, "%s: %s", o.output, strerror(errno));
	return ret ? cli_fail(&e) : 0;
}

const struct command cmd_profile = {.name = "profile", .args = "[-F HZ] [-d SECONDS] [-o FILE] NAME",
				    .summary = "samples a guest's stacks, folded as flame graphs want them", .opts = profile_opts,
				    .min_args = 1, .max_args = 1, .main = profile_main};
