/* doppel console: attaches this terminal to a VM's serial console. */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/term.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "vmm/console.h"

/* Copies both ways until the VM ends, the input of a pipe ends and the VM hangs up, or Ctrl-] q. */
static int copy(int sock, bool escapes)
{
	struct escape esc = {0};
	u8 buf[4096];
	struct pollfd p[2] = {{.fd = sock, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
	bool quit = false;

	while (!quit) {
		ssize_t n = 0;

		if (poll(p, 2, -1) < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (p[0].revents) {
			n = read(sock, buf, sizeof(buf));
			if (n <= 0)
				return 0;
			if (write_all(STDOUT_FILENO, buf, (u64)n) < 0)
				return -EIO;
		}
		if (p[1].revents) {
			n = read(STDIN_FILENO, buf, sizeof(buf));
			if (n <= 0) {
				p[1].fd = -1; /* still shows what the guest prints */
				continue;
			}
			if (escapes)
				n = (ssize_t)escape_filter(&esc, buf, (size_t)n, &quit);
			if (n && write_all(sock, buf, (u64)n) < 0)
				return 0;
		}
	}
	return 0;
}

static int console_main(const struct command *c, int argc, char **argv)
{
	struct client cl;
	struct err e = {0};
	bool raw = false;
	u8 line_end[2];
	int ret = opts_parse(c, NULL, &argc, argv);

	if (ret)
		return ret == OPTS_DONE ? 0 : EXIT_DOPPEL;
	if (client_open(&cl, argv[1], &e) < 0)
		return cli_fail(&e);
	/* the answer's line end still belongs to the protocol, what follows to the console */
	if (client_call(&cl, "x-doppel-console", NULL, &e) < 0 || read_all(cl.fd, line_end, sizeof(line_end)) < 0) {
		client_close(&cl);
		err_set(&e, EIO, "%s: the VM ended", argv[1]);
		return cli_fail(&e);
	}
	if (isatty(STDIN_FILENO)) {
		fprintf(stderr, "doppel: console of %s; Ctrl-] q leaves it\n", argv[1]);
		raw = term_raw(STDIN_FILENO) == 0;
	}
	ret = copy(cl.fd, raw);
	term_restore();
	client_close(&cl);
	if (ret)
		err_set(&e, -ret, "console: %s", strerror(-ret));
	return ret ? cli_fail(&e) : 0;
}

const struct command cmd_console = {.name = "console", .args = "NAME",
				    .summary = "attaches to a VM's console; Ctrl-] q leaves it, the VM runs on", .min_args = 1,
				    .max_args = 1, .main = console_main};
