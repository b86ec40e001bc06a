/* doppel symbols: the names of a running guest kernel's addresses. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/insight.h"
#include "debug/symbols.h"

struct symbols_options {
	const char *output;
};
static const struct opt symbols_opts[] = {
	{"output", 'o', OPT_STRING, offsetof(struct symbols_options, output), "FILE", "write an ELF file that gdb loads", 0, 0, NULL},
	{NULL, 0, OPT_END, 0, NULL, NULL, 0, 0, NULL},
};

/* Piece after piece: to stdout, or into s. */
int symbols_fetch(struct client *c, struct symbols *s, struct err *e)
{
	double from = 0, count = 1;

	while (from < count) {
		cJSON *j = NULL, *args = cJSON_CreateObject();
		const char *text = NULL;
		double next = 0;
		int ret = 0;

		cJSON_AddNumberToObject(args, "from", from);
		ret = client_call_with(c, "x-doppel-symbols", args, &j, e);
		if (ret < 0)
			return ret;
		text = cJSON_GetStringValue(cJSON_GetObjectItem(j, "text"));
		next = cJSON_GetNumberValue(cJSON_GetObjectItem(j, "next"));
		count = cJSON_GetNumberValue(cJSON_GetObjectItem(j, "count"));
		if (!text || !(next > from))
			ret = err_set(e, EPROTO, "%s: unexpected answer", c->name);
		else if (s)
			symbols_from_file(s, text, strlen(text), 0);
		else
			fputs(text, stdout);
		cJSON_Delete(j);
		if (ret < 0)
			return ret;
		from = next;
	}
	return 0;
}

static int write_elf(const char *path, struct symbols *s, struct err *e)
{
	void *data = NULL;
	size_t n = 0;
	int ret = symbols_elf(s, &data, &n), fd = -1;

	if (!ret) {
		fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
		ret = fd < 0 ? -errno : write_all(fd, data, n);
	}
	if (fd >= 0 && close(fd) < 0 && !ret)
		ret = -errno;
	free(data);
	return ret ? err_set(e, -ret, "%s: %s", path, strerror(-ret)) : 0;
}

static int symbols_main(const struct command *c, int argc, char **argv)
{
	struct symbols_options o = {0};
	struct symbols *s = NULL;
	struct client client;
	struct err e = {0};
	int ret = opts_parse(c, &o, &argc, argv);

	if (ret)
		return ret == OPTS_DONE ? 0 : EXIT_DOPPEL;
	if (client_open(&client, argv[1], &e) < 0)
		return cli_fail(&e);
	s = o.output ? symbols_new() : NULL;
	ret = symbols_fetch(&client, s, &e);
	if (!ret && o.output) {
		symbols_sort(s);
		ret = write_elf(o.output, s, &e);
	}
	symbols_free(s);
	client_close(&client);
	return ret ? cli_fail(&e) : 0;
}

const struct command cmd_symbols = {.name = "symbols", .args = "[-o FILE] NAME",
				    .summary = "lists the guest kernel's symbols, or writes them for gdb", .opts = symbols_opts,
				    .min_args = 1, .max_args = 1, .main = symbols_main};
