/* doppel logs: what the kernel said on the console, and what a detached command said. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "cli/cli.h"
#include "cli/client.h"
#include "vmm/instance.h"

struct logs_options {
	bool kernel, output;
};
static const struct opt logs_opts[] = {
	{"kernel", 'k', OPT_FLAG, offsetof(struct logs_options, kernel), NULL, "only the console: kernel and init", 0, 0, NULL},
	{"output", 'o', OPT_FLAG, offsetof(struct logs_options, output), NULL, "only the output of a detached command", 0, 0, NULL},
	{NULL, 0, OPT_END, 0, NULL, NULL, 0, 0, NULL},
};

static int copy(int fd)
{
	char buf[16384];
	ssize_t n = 0;

	while ((n = read(fd, buf, sizeof(buf))) > 0 || (n < 0 && errno == EINTR))
		if (n > 0 && write_all(STDOUT_FILENO, buf, (u64)n) < 0)
			return -EIO;
	return 0;
}

static int show_console(const char *name, struct err *e)
{
	u8 line_end[2]; /* still the protocol's */
	struct client c;
	int ret = client_open(&c, name, e);

	if (ret)
		return ret;
	ret = client_call(&c, "x-doppel-log", NULL, e);
	if (!ret && (read_all(c.fd, line_end, sizeof(line_end)) < 0 || copy(c.fd) < 0))
		ret = err_set(e, EIO, "%s: the VM ended, or the output is closed", name);
	client_close(&c);
	return ret;
}

static int show_file(const char *name, const char *file)
{
	struct err e = {0};
	int fd = instance_open(name, file, &e);

	if (fd < 0)
		return 0; /* it has said nothing */
	copy(fd);
	close(fd);
	return 0;
}

static int logs_main(const struct command *c, int argc, char **argv)
{
	struct logs_options o = {0};
	struct err e = {0};
	int ret = opts_parse(c, &o, &argc, argv);

	if (ret)
		return ret == OPTS_DONE ? 0 : EXIT_DOPPEL;
	if (!o.output && show_console(argv[1], &e) < 0)
		return cli_fail(&e);
	if (!o.kernel) {
		show_file(argv[1], "log");
		show_file(argv[1], "output");
	}
	return 0;
}

const struct command cmd_logs = {.name = "logs", .args = "[--kernel | --output] NAME",
				 .summary = "shows what a VM's console and a detached command have said", .opts = logs_opts,
				 .min_args = 1, .max_args = 1, .main = logs_main};
