/* doppel screenshot: what a person in front of a VM's console would see, as text. */
#include <cjson/cJSON.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cli/cli.h"
#include "cli/client.h"
#include "debug/screen.h"

struct screenshot_options {
	const char *output;
	bool json;
};
static const struct opt screenshot_opts[] = {
	{"output", 'o', OPT_STRING, offsetof(struct screenshot_options, output), "FILE", "write there, not to standard output", 0, 0, NULL},
	{"json", 0, OPT_FLAG, offsetof(struct screenshot_options, json), NULL, "print JSON, with the cursor's place", 0, 0, NULL},
	{NULL, 0, OPT_END, 0, NULL, NULL, 0, 0, NULL},
};

static int take(const char *name, struct screen *s, struct err *e)
{
	u8 buf[16384];
	struct client c;
	ssize_t n = 0;
	int ret = client_open(&c, name, e);

	if (ret)
		return ret;
	ret = client_call(&c, "x-doppel-log", NULL, e);
	if (!ret && read_all(c.fd, buf, 2) < 0) /* the answer's line end */
		ret = err_set(e, EIO, "%s: the VM ended", name);
	while (!ret && ((n = read(c.fd, buf, sizeof(buf))) > 0 || (n < 0 && errno == EINTR)))
		if (n > 0)
			screen_feed(s, buf, (size_t)n);
	client_close(&c);
	return ret;
}

static void print_text(const struct screen *s, FILE *out)
{
	char line[4 * SCREEN_COLUMNS + 1];

	for (u32 i = 0; i < SCREEN_ROWS; i++) {
		screen_line(s, i, line);
		fprintf(out, "%s\n", line);
	}
}

static void print_json(const struct screen *s, FILE *out)
{
	cJSON *j = cJSON_CreateObject(), *lines = NULL, *cursor = NULL;
	char line[4 * SCREEN_COLUMNS + 1], *text = NULL;

	cJSON_AddNumberToObject(j, "rows", SCREEN_ROWS);
	cJSON_AddNumberToObject(j, "columns", SCREEN_COLUMNS);
	cursor = cJSON_AddObjectToObject(j, "cursor");
	cJSON_AddNumberToObject(cursor, "row", s->row);
	cJSON_AddNumberToObject(cursor, "column", s->column);
	lines = cJSON_AddArrayToObject(j, "lines");
	for (u32 i = 0; i < SCREEN_ROWS; i++) {
		screen_line(s, i, line);
		cJSON_AddItemToArray(lines, cJSON_CreateString(line));
	}
	text = cJSON_Print(j);
	fprintf(out, "%s\n", text ? text : "{}");
	free(text);
	cJSON_Delete(j);
}

static int screenshot_main(const struct command *c, int argc, char **argv)
{
	struct screenshot_options o = {0};
	struct err e = {0};
	struct screen s;
	FILE *out = stdout;
	int ret = opts_parse(c, &o, &argc, argv);

	if (ret)
		return ret == OPTS_DONE ? 0 : EXIT_DOPPEL;
	screen_init(&s);
	if (take(argv[1], &s, &e) < 0)
		return cli_fail(&e);
	if (o.output && !(out = fopen(o.output, "we"))) {
		err_set(&e, errno, "screenshot: %s: %s", o.output, strerror(errno));
		return cli_fail(&e);
	}
	(o.json ? print_json : print_text)(&s, out);
	if ((o.output ? fclose(out) : fflush(out)) == 0)
		return 0;
	err_set(&e, errno, "screenshot: %s: %s", o.output ? o.output : "standard output", strerror(errno));
	return cli_fail(&e);
}

const struct command cmd_screenshot = {
	.name = "screenshot",
	.args = "[-o FILE] [--json] NAME",
	.summary = "shows what is on a VM's text console",
	.details = "The last 256 KiB of output as a terminal of 80 columns and 25 lines shows them; colours are left out.\n",
	.opts = screenshot_opts,
	.min_args = 1,
	.max_args = 1,
	.main = screenshot_main,
};
