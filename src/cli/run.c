/*
 * doppel run: this process becomes the VM. The steps are those of every process here: acquire (files, name, machine), drop the
 * authority to acquire more, serve until the VM ends, leave nothing behind.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "base/term.h"
#include "cli/cli.h"
#include "cli/guest.h"
#include "vmm/console.h"
#include "vmm/instance.h"
#include "vmm/machine.h"
#include "vmm/qmp.h"
#include "vmm/sandbox.h"

enum { BUILTIN_DEBUG_EXIT = 0xf4 }; /* a failed self-test writes there */

struct run_options {
	const char *kernel, *initrd, *append, *name;
	u64 memory;
	u32 cpus, debug_exit;
	enum kvm_choice engine;
	struct machine_disk disk[MACHINE_DISKS_MAX];
	u32 ndisks;
	bool virtio_console;
	bool detach, verbose, quiet, no_reboot;
};

struct run {
	struct run_options o;
	struct instance instance;
	struct machine_config cfg;
	struct loop *loop;
	struct console *console;
	struct machine *machine;
	struct qmp *qmp;
	int signal_fd;
	int ready_fd; /* --detach: tells the parent how the start went; else -1 */
	struct guest guest;   /* without --kernel */
	char append[128];
};

static int parse_engine(void *target, const char *value, struct err *e)
{
	static const struct {
		const char *name;
		enum kvm_choice choice;
	} engines[] = {{"auto", KVM_CHOICE_AUTO}, {"kvm", KVM_CHOICE_KVM}, {"interp", KVM_CHOICE_INTERP},
		       {"translate", KVM_CHOICE_TRANSLATE}, {"check", KVM_CHOICE_CHECK}};
	struct run_options *o = target;

	for (u32 i = 0; i < ARRAY_SIZE(engines); i++) {
		if (!strcmp(value, engines[i].name)) {
			o->engine = engines[i].choice;
			return 0;
		}
	}
	return err_set(e, EINVAL, "%s: not an engine (auto, kvm, translate, interp, check)", value);
}

static int parse_console(void *target, const char *value, struct err *e)
{
	struct run_options *o = target;

	o->virtio_console = !strcmp(value, "virtio");
	if (!o->virtio_console && strcmp(value, "serial") != 0)
		return err_set(e, EINVAL, "%s: not a console (serial, virtio)", value);
	return 0;
}

static int disk_option(struct machine_disk *d, const char *opt, struct err *e)
{
	if (!strcmp(opt, "ro"))
		d->readonly = true;
	else if (strcmp(opt, "format=raw") != 0)
		return err_set(e, EINVAL, "%s: not a disk option of this version (ro, format=raw)", opt);
	return 0;
}

static int parse_disk(void *target, const char *value, struct err *e)
{
	struct run_options *o = target;
	struct machine_disk d = {0};
	char *copy = NULL, *path = NULL, *opt = NULL, *save = NULL;
	int ret = 0;

	if (o->ndisks == MACHINE_DISKS_MAX)
		return err_set(e, E2BIG, "more than %d disks", MACHINE_DISKS_MAX);
	if (!*value || *value == ',')
		return err_set(e, EINVAL, "empty (give FILE[,ro])");
	copy = strdup(value); /* begins with the path: free_disks() frees it */
	if (!copy)
		return err_set(e, ENOMEM, "no memory");
	path = strtok_r(copy, ",", &save);
	while (!ret && (opt = strtok_r(NULL, ",", &save)))
		ret = disk_option(&d, opt, e);
	if (ret) {
		free(copy);
		return ret;
	}
	d.path = path;
	o->disk[o->ndisks++] = d;
	return 0;
}

#define AT(field) offsetof(struct run_options, field)
static const struct opt run_opts[] = {
	{"kernel", 'k', OPT_STRING, AT(kernel), "FILE", "kernel: bzImage, ELF vmlinux or multiboot; or builtin", 0, 0, NULL},
	{"initrd", 'i', OPT_STRING, AT(initrd), "FILE", "initial RAM disk", 0, 0, NULL},
	{"append", 'a', OPT_STRING, AT(append), "STRING", "kernel command line", 0, 0, NULL},
	{"memory", 'm', OPT_SIZE, AT(memory), "SIZE", "RAM, as 512M or 2G (default 512M)", MEM_MIN, MEM_MAX, NULL},
	{"cpus", 'c', OPT_UINT, AT(cpus), "N", "virtual CPUs (default 1)", 1, MACHINE_CPUS_MAX, NULL},
	{"engine", 'e', OPT_CALL, 0, "ENGINE", "auto, kvm, translate, interp or check (default auto)", 0, 0, parse_engine},
	{"disk", 'd', OPT_CALL, 0, "FILE[,ro]", "raw disk image or block device; may be repeated", 0, 0, parse_disk},
	{"console", 0, OPT_CALL, 0, "DEVICE", "serial (ttyS0) or virtio (hvc0; needs its driver) (default serial)", 0, 0,
	 parse_console},
	{"name", 'n', OPT_STRING, AT(name), "NAME", "name for the other commands (default vm-PID)", 0, 0, NULL},
	{"detach", 0, OPT_FLAG, AT(detach), NULL, "run in the background; doppel console NAME attaches", 0, 0, NULL},
	{"no-reboot", 0, OPT_FLAG, AT(no_reboot), NULL, "a reboot of the guest ends the VM", 0, 0, NULL},
	{"debug-exit", 0, OPT_UINT, AT(debug_exit), "PORT", "a byte V written there ends with status 2V+1", 1, 0xffff, NULL},
	{"verbose", 'v', OPT_FLAG, AT(verbose), NULL, "say what is done and why", 0, 0, NULL},
	{"quiet", 'q', OPT_FLAG, AT(quiet), NULL, "say nothing but errors", 0, 0, NULL},
	{NULL, 0, OPT_END, 0, NULL, NULL, 0, 0, NULL},
};

/* ---- acquire ---- */
static int open_image(const char *what, const char *path, struct err *e)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hold us */

	if (fd < 0)
		return err_set(e, errno, "--%s %s: %s", what, path, strerror(errno));
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		return fd;
	close(fd);
	return err_set(e, EINVAL, "--%s %s: not a regular file", what, path);
}

/* A shell on a terminal; without one the guest shows itself and powers off. */
static const char *default_append(struct run *r)
{
	snprintf(r->append, sizeof(r->append), "console=%s quiet doppel.engine=%s%s",
		 r->o.virtio_console ? "hvc0" : "ttyS0",
		 kvm_kind(r->machine->sys) == KVM_KIND_ENGINE ? "interp" : "kvm",
		 r->o.detach || isatty(STDIN_FILENO) ? "" : " doppel.show");
	return r->append;
}

static int open_files(struct run *r, struct err *e)
{
	const struct run_options *o = &r->o;
	int fd = -1, ret = 0;

	r->cfg = (struct machine_config){.name = r->instance.name, .append = o->append, .kernel_fd = -1, .initrd_fd = -1,
					 .kernel_name = o->kernel, .initrd_name = o->initrd, .memory = o->memory,
					 .cpus = o->cpus, .engine = o->engine, .ndisks = o->ndisks, .no_reboot = o->no_reboot,
					 .debug_exit_port = (u16)o->debug_exit};
	memcpy(r->cfg.disk, o->disk, sizeof(r->cfg.disk));
	if (!o->kernel) {
		ret = default_guest(&r->guest, o->initrd == NULL, e);
		if (ret)
			return ret;
		r->o.kernel = r->cfg.kernel_name = r->guest.kernel;
		r->cfg.initrd_fd = r->guest.initrd_fd;
		r->cfg.initrd_name = "built-in";
	} else if (!strcmp(o->kernel, "builtin")) {
		ret = builtin_guest(&r->guest, e);
		if (ret)
			return ret;
		r->o.kernel = r->cfg.kernel_name = r->guest.kernel;
		r->cfg.append = o->append ? o->append : "";
		if (!o->debug_exit)
			r->cfg.debug_exit_port = BUILTIN_DEBUG_EXIT;
	} else if (!o->append) {
		r->cfg.append = r->o.virtio_console ? "console=hvc0" : "console=ttyS0";
	}
	fd = open_image("kernel", o->kernel, e);
	if (fd < 0)
		return fd;
	r->cfg.kernel_fd = fd;
	if (!o->initrd)
		return 0;
	fd = open_image("initrd", o->initrd, e);
	if (fd < 0)
		return fd;
	r->cfg.initrd_fd = fd;
	return 0;
}

static void on_notice(void *arg, enum machine_notice n, const char *reason)
{
	struct run *r = arg;

	qmp_notice(r->qmp, n, reason);
}

static void on_signal(void *arg, u32 events)
{
	struct run *r = arg;
	struct signalfd_siginfo si;

	if (read(r->signal_fd, &si, sizeof(si)) != sizeof(si))
		return;
	machine_end(r->machine, 128 + (int)si.ssi_signo, "host-signal");
}

/* Signals that end us come through the loop, so that they find everything in order and leave nothing behind. */
static int catch_signals(struct run *r)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	r->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return r->signal_fd < 0 ? -errno : loop_add(r->loop, r->signal_fd, EPOLLIN, on_signal, r);
}

static int start_control(struct run *r, struct err *e)
{
	struct qmp_options q = {.machine = r->machine, .console = r->console, .name = r->instance.name,
				.version = DOPPEL_VERSION};
	struct instance_info info = {.pid = getpid(), .memory = r->o.memory, .cpus = r->o.cpus, .started = (u64)time(NULL)};
	int ret = instance_socket(&r->instance, "qmp.sock", e);

	if (ret < 0)
		return ret;
	q.listen_fd = ret;
	ret = qmp_start(&q, &r->qmp);
	if (ret) {
		close(q.listen_fd);
		return err_set(e, -ret, "control socket: %s", strerror(-ret));
	}
	snprintf(info.name, sizeof(info.name), "%s", r->instance.name);
	snprintf(info.engine, sizeof(info.engine), "%s", kvm_kind(r->machine->sys) == KVM_KIND_ENGINE ? "interp" : "kvm");
	snprintf(info.kernel, sizeof(info.kernel), "%s", r->o.kernel);
	ret = instance_write_info(&r->instance, &info);
	return ret ? err_set(e, -ret, "%s: %s", r->instance.dir, strerror(-ret)) : 0;
}

static int acquire(struct run *r, struct err *e)
{
	int ret = open_files(r, e);

	if (ret)
		return ret;
	r->loop = loop_new();
	r->console = r->loop ? console_new(r->loop) : NULL;
	if (!r->console)
		return err_set(e, ENOMEM, "run: no memory");
	*(r->o.virtio_console ? &r->cfg.virtio_console : &r->cfg.serial) = console_chardev(r->console);
	ret = catch_signals(r);
	if (ret)
		return err_set(e, -ret, "run: signals: %s", strerror(-ret));
	ret = machine_create(&r->cfg, r->loop, &r->machine, e);
	if (ret)
		return ret;
	if (!r->cfg.append)
		r->machine->cfg.append = default_append(r);
	r->machine->notify = on_notice;
	r->machine->notify_arg = r;
	return start_control(r, e);
}

/* Empty with --quiet, else one line. */
static const char *engine_line(const struct run *r, char *buf, size_t n)
{
	bool engine = kvm_kind(r->machine->sys) == KVM_KIND_ENGINE, why = r->o.verbose && r->machine->opened.why[0];

	snprintf(buf, n, "doppel: engine: %s%s%s\n", engine ? "interp (KVM in user space)" : "kvm (/dev/kvm)", why ? ": " : "",
		 why ? r->machine->opened.why : "");
	return r->o.quiet ? "" : buf;
}

/* ---- foreground, background ---- */
static void foreground_ended(void *arg)
{
	struct run *r = arg;

	term_restore();
	machine_end(r->machine, 0, "host-ui");
}

static int attach_stdio(struct run *r, struct err *e)
{
	struct console_session_options o = {.in = STDIN_FILENO, .out = STDOUT_FILENO, .replay = true, .ended = foreground_ended,
					    .arg = r};
	int ret = 0;

	if (isatty(STDIN_FILENO) && term_raw(STDIN_FILENO) == 0) {
		o.escapes = true;
		if (!r->o.quiet)
			fprintf(stderr, "doppel: Ctrl-] q ends the VM\r\n");
	}
	ret = console_session_add(r->console, &o);
	return ret ? err_set(e, -ret, "console: %s", strerror(-ret)) : 0;
}

/* The parent waits for one message: "+" and what to say if the VM runs, else why not. */
static int wait_for_child(int fd, const char *name)
{
	char text[sizeof(((struct err *)0)->text) + 1] = "";
	size_t n = 0;
	ssize_t got = 0;

	while (n < sizeof(text) - 1 && (got = read(fd, text + n, sizeof(text) - 1 - n)) > 0)
		n += (size_t)got;
	if (n && text[0] == '+') {
		fputs(text + 1, stderr);
		printf("%s\n", name);
		return 0;
	}
	log_msg(LOG_ERROR, "%s", n ? text : "run: the VM's process died while it started");
	return EXIT_DOPPEL;
}

/* In the child, before it has children of its own: a session, no terminal, messages into the log file of the VM. */
static void leave_terminal(const struct run *r)
{
	char path[PATHS_MAX + 64];
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), log = -1;

	snprintf(path, sizeof(path), "%s/log", r->instance.dir);
	log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	setsid();
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	dup2(log >= 0 ? log : null, STDERR_FILENO);
	close(null);
	if (log >= 0)
		close(log);
}

static void tell_parent(struct run *r, const char *text)
{
	if (r->ready_fd < 0)
		return;
	write_all(r->ready_fd, text, strlen(text));
}

static void tell_done(struct run *r)
{
	if (r->ready_fd >= 0)
		close(r->ready_fd);
	r->ready_fd = -1;
}

static void free_disks(struct run_options *o)
{
	for (u32 i = 0; i < o->ndisks; i++)
		free((char *)o->disk[i].path);
}

static void release(struct run *r)
{
	machine_destroy(r->machine);
	console_free(r->console);
	if (r->cfg.kernel_fd >= 0)
		close(r->cfg.kernel_fd);
	if (r->cfg.initrd_fd >= 0)
		close(r->cfg.initrd_fd);
	instance_release(&r->instance);
	qmp_stop(r->qmp);
	if (r->signal_fd >= 0)
		close(r->signal_fd);
	loop_free(r->loop);
	free_disks(&r->o);
}

/* The VM's process, foreground or detached; the name is claimed. */
static int vm_process(struct run *r)
{
	struct err e = {0};
	char line[300];
	int ret = 0, status = EXIT_DOPPEL;

	if (r->o.detach)
		leave_terminal(r);
	ret = acquire(r, &e);
	if (!ret)
		ret = machine_start(r->machine, &e);
	if (!ret && !r->o.detach) {
		fputs(engine_line(r, line, sizeof(line)), stderr);
		ret = attach_stdio(r, &e);
	}
	if (!ret)
		ret = sandbox_enter(kvm_kind(r->machine->sys) == KVM_KIND_DEVICE, &e);
	if (!ret) {
		if (r->o.detach) {
			tell_parent(r, "+");
			tell_parent(r, engine_line(r, line, sizeof(line)));
		}
		tell_done(r);
		status = machine_run(r->machine);
	}
	term_restore();
	if (ret && r->ready_fd >= 0)
		tell_parent(r, e.text);
	else if (ret)
		log_msg(LOG_ERROR, "%s", e.text);
	release(r);
	return status;
}

static int detach(struct run *r)
{
	int fds[2];
	pid_t pid = 0;

	if (pipe2(fds, O_CLOEXEC) < 0 || (pid = fork()) < 0) {
		log_msg(LOG_ERROR, "run: cannot start a process: %s", strerror(errno));
		instance_release(&r->instance);
		return EXIT_DOPPEL;
	}
	if (!pid) {
		close(fds[0]);
		r->ready_fd = fds[1];
		exit(vm_process(r));
	}
	close(fds[1]);
	return wait_for_child(fds[0], r->instance.name);
}

static int run_main(const struct command *c, int argc, char **argv)
{
	struct run r = {.o = {.memory = 512ull << 20, .cpus = 1}, .instance.lock_fd = -1,
			.cfg = {.kernel_fd = -1, .initrd_fd = -1}, .signal_fd = -1, .ready_fd = -1};
	struct err e = {0};
	char name[INSTANCE_NAME_MAX];
	int ret = opts_parse(c, &r.o, &argc, argv);

	if (ret) {
		free_disks(&r.o);
		return ret == OPTS_DONE ? 0 : EXIT_DOPPEL;
	}
	log_set_level(r.o.verbose ? LOG_INFO : r.o.quiet ? LOG_ERROR : LOG_WARN);
	snprintf(name, sizeof(name), "vm-%d", getpid());
	if (instance_claim(&r.instance, r.o.name ? r.o.name : name, &e) < 0) {
		free_disks(&r.o);
		return cli_fail(&e);
	}
	return r.o.detach ? detach(&r) : vm_process(&r);
}

const struct command cmd_run = {
	.name = "run",
	.args = "[options]",
	.summary = "starts a VM; its console is this terminal",
	.details = "Ctrl-] q on a terminal ends the VM. Exit status: 0 after power-off (or reboot with --no-reboot),\n"
		   "120 guest panic, 121 triple fault, 125 doppel failed, 128+N ended by signal N.\n",
	.opts = run_opts,
	.main = run_main,
};
