/* doppel debug: gdb on a VM, or a TCP port that leads to its gdb server. */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/paths.h"
#include "cli/cli.h"
#include "debug/gdb_address.h"
#include "vmm/instance.h"

struct debug_options {
	const char *listen, *gdb;
};
static const struct opt debug_opts[] = {
	{"listen", 'l', OPT_STRING, offsetof(struct debug_options, listen), "ADDRESS",
	 "start no gdb: HOST:PORT, :PORT or a path leads to the VM's gdb server", 0, 0, NULL},
	{"gdb", 0, OPT_STRING, offsetof(struct debug_options, gdb), "PROGRAM", "the debugger to start (default gdb)", 0, 0, NULL},
	{NULL, 0, OPT_END, 0, NULL, NULL, 0, 0, NULL},
};

/* ---- --listen ---- */
static bool pass(int from, int to)
{
	u8 buf[16384];
	ssize_t n = read(from, buf, sizeof(buf));

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return true;
	return n > 0 && write_all(to, buf, (u64)n) == 0;
}

static void relay(int a, int b)
{
	struct pollfd p[2] = {{.fd = a, .events = POLLIN}, {.fd = b, .events = POLLIN}};
	bool open = true;

	while (open) {
		if (poll(p, 2, -1) < 0) {
			open = errno == EINTR;
			continue;
		}
		if (p[0].revents)
			open = pass(a, b);
		if (open && p[1].revents)
			open = pass(b, a);
	}
}

/* One debugger after the other, until the VM ends. */
static int serve(const char *name, const char *address, struct err *e)
{
	struct instance_info info;
	char where[300];
	int fd = gdb_address_listen(address, where, sizeof(where), e);

	if (fd < 0)
		return fd;
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	printf("target remote %s\n", where);
	fflush(stdout);
	for (;;) {
		int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC), vm = 0;

		if (client < 0) {
			close(fd);
			return err_set(e, errno, "debug: %s: %s", address, strerror(errno));
		}
		vm = instance_connect(name, "gdb.sock", e);
		if (vm >= 0) {
			relay(client, vm);
			close(vm);
		}
		close(client);
		if (vm < 0 || instance_read_info(name, &info, NULL))
			break;
	}
	close(fd);
	return 0;
}

/* ---- gdb ---- */
static int start_gdb(const char *program, const char *name, int argc, char **argv, struct err *e)
{
	char base[PATHS_MAX], command[PATHS_MAX + 100];
	const char **args = calloc((size_t)argc + 4, sizeof(*args));
	int n = 0, i = 0, ret = path_runtime(base, sizeof(base), false, e);

	if (ret || !args)
		return ret ? ret : err_set(e, ENOMEM, "debug: no memory");
	snprintf(command, sizeof(command), "target remote %s/%s/gdb.sock", base, name);
	args[n++] = program;
	while (i < argc && argv[i][0] != '-') /* files with symbols are read before gdb connects */
		args[n++] = argv[i++];
	args[n++] = "-ex";
	args[n++] = command;
	while (i < argc)
		args[n++] = argv[i++];
	execvp(program, (char **)(uintptr_t)args);
	ret = err_set(e, errno, "debug: %s: %s%s", program, strerror(errno),
		      errno == ENOENT ? " (apt-get install gdb, or --listen and gdb elsewhere)" : "");
	free(args);
	return ret;
}

static int debug_main(const struct command *c, int argc, char **argv)
{
	struct debug_options o = {.gdb = "gdb"};
	struct instance_info info;
	struct err e = {0};
	int ret = opts_parse(c, &o, &argc, argv);

	if (ret)
		return ret == OPTS_DONE ? 0 : EXIT_DOPPEL;
	ret = instance_read_info(argv[1], &info, &e);
	if (!ret && o.listen)
		ret = serve(argv[1], o.listen, &e);
	else if (!ret)
		ret = start_gdb(o.gdb, argv[1], argc - 2, argv + 2, &e);
	return ret ? cli_fail(&e) : 0;
}

const struct command cmd_debug = {
	.name = "debug",
	.args = "[--listen ADDRESS] NAME [-- GDB-ARGUMENT...]",
	.summary = "starts gdb on a VM, or lets one connect",
	.details = "The VM stops while gdb has it, and goes on when gdb detaches or ends. Each vCPU is a thread. doppel run --gdb-wait\n"
		   "starts a VM that waits for gdb. In gdb, `monitor help` tells what else there is.\n",
	.opts = debug_opts,
	.min_args = 1,
	.max_args = 1,
	.rest = true,
	.main = debug_main,
};
