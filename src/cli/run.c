/*
 * doppel run. With a kernel this process becomes the VM; a duplicate's VM is a child of it, and this process has the session with
 * the command (run_duplicate()). The steps of a VM's process: acquire (files, name, machine), drop the authority to acquire more,
 * serve until the VM ends, leave nothing behind.
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
#include "backends/chardev_spool.h"
#include "base/term.h"
#include "cli/cli.h"
#include "cli/detach.h"
#include "cli/disk_opt.h"
#include "cli/duplicate.h"
#include "cli/guest.h"
#include "cli/insight_opts.h"
#include "cli/net_opts.h"
#include "cli/run_trace.h"
#include "cli/share.h"
#include "debug/gdb_address.h"
#include "vmm/console.h"
#include "vmm/debugger.h"
#include "vmm/instance.h"
#include "vmm/machine.h"
#include "vmm/qmp.h"
#include "vmm/sandbox.h"

enum { BUILTIN_DEBUG_EXIT = 0xf4 }; /* a failed self-test writes there */

struct run_options {
	const char *kernel, *initrd, *append, *name, *printer, *gdb;
	u64 memory;
	u32 cpus, debug_exit, ndumps;
	u64 dump[8]; /* guest addresses */
	enum kvm_choice engine;
	u64 code_cache;
	struct machine_disk disk[MACHINE_DISKS_MAX];
	u32 ndisks;
	struct net_options net[MACHINE_NETS_MAX];
	u32 nnets;
	bool net_said; /* --net was given, be it none */
	struct share_option share[SHARES_MAX];
	u32 nshares;
	const char *share_server;
	bool virtio_console, stop_on_enospc;
	bool detach, verbose, quiet, no_reboot, gdb_wait;
	struct insight_options insight;
	struct duplicate_options dup;
	struct run_trace trace;
};

struct run {
	struct run_options o;
	struct instance instance;
	struct machine_config cfg;
	struct loop *loop;
	struct console *console;
	struct machine *machine;
	struct chardev *printer;
	struct qmp *qmp;
	int signal_fd;
	int ready_fd; /* --detach: tells the parent how the start went; else -1 */
	struct guest guest;   /* without --kernel */
	char append[2048];
	struct duplicate *dup; /* NULL: not one */
	bool session_over;
	const char *end_reason;
	int life_fd;           /* a duplicate's VM ends when its other end closes; else -1 */
};

static int parse_engine(void *target, const char *value, struct err *e)
{
	static const struct {
		const char *name;
		enum kvm_choice choice;
	} engines[] = {{"auto", KVM_CHOICE_AUTO}, {"kvm", KVM_CHOICE_KVM}, {"interp", KVM_CHOICE_INTERP},
		       {"translate", KVM_CHOICE_TRANSLATE}, {"direct", KVM_CHOICE_DIRECT}, {"check", KVM_CHOICE_CHECK}};
	struct run_options *o = target;

	for (u32 i = 0; i < ARRAY_SIZE(engines); i++) {
		if (!strcmp(value, engines[i].name)) {
			o->engine = engines[i].choice;
			return 0;
		}
	}
	return err_set(e, EINVAL, "%s: not an engine (auto, kvm, direct, translate, interp, check)", value);
}

static int parse_dump(void *target, const char *value, struct err *e)
{
	struct run_options *o = target;
	char *end = NULL;
	u64 pc = strncmp(value, "translate=", 10) ? 0 : strtoull(value + 10, &end, 0);

	if (!end || end == value + 10 || *end)
		return err_set(e, EINVAL, "%s: not translate=ADDRESS", value);
	if (o->ndumps == ARRAY_SIZE(o->dump))
		return err_set(e, EINVAL, "%s: at most %zu of these", value, ARRAY_SIZE(o->dump));
	o->dump[o->ndumps++] = pc;
	return 0;
}

static int parse_trace(void *target, const char *value, struct err *e)
{
	return run_trace_parse(&((struct run_options *)target)->trace, value, e);
}

static int parse_console(void *target, const char *value, struct err *e)
{
	struct run_options *o = target;

	o->virtio_console = !strcmp(value, "virtio");
	if (!o->virtio_console && strcmp(value, "serial") != 0)
		return err_set(e, EINVAL, "%s: not a console (serial, virtio)", value);
	return 0;
}

static int parse_disk(void *target, const char *value, struct err *e)
{
	struct run_options *o = target;
	int ret = 0;

	if (o->ndisks == MACHINE_DISKS_MAX)
		return err_set(e, E2BIG, "more than %d disks", MACHINE_DISKS_MAX);
	ret = disk_opt_parse(value, &o->disk[o->ndisks], e);
	if (!ret)
		o->ndisks++;
	return ret;
}

static int parse_spool(void *target, const char *value, struct err *e)
{
	struct run_options *o = target;

	if (strncmp(value, "printer=", 8) != 0 || !value[8])
		return err_set(e, EINVAL, "%s: not a spooled device (printer=DIR)", value);
	o->printer = value + 8;
	return 0;
}

static int parse_enospc(void *target, const char *value, struct err *e)
{
	struct run_options *o = target;

	o->stop_on_enospc = !strcmp(value, "stop");
	if (!o->stop_on_enospc && strcmp(value, "report") != 0)
		return err_set(e, EINVAL, "%s: not an answer to a full disk (stop, report)", value);
	return 0;
}

static int parse_net(void *target, const char *value, struct err *e)
{
	struct run_options *o = target;
	struct net_options n;
	int ret = 0;

	if (o->nnets == MACHINE_NETS_MAX)
		return err_set(e, E2BIG, "more than %d networks", MACHINE_NETS_MAX);
	ret = net_options_parse(value, &n, e);
	o->net_said = true;
	if (!ret && n.kind != NET_NONE)
		o->net[o->nnets++] = n;
	return ret;
}

static int parse_share(void *target, const char *value, struct err *e)
{
	struct run_options *o = target;

	if (o->nshares == SHARES_MAX)
		return err_set(e, E2BIG, "more than %d shared folders", SHARES_MAX);
	int ret = share_parse(&o->share[o->nshares], value, o->nshares, e);

	o->nshares += !ret;
	return ret;
}

static int parse_env(void *target, const char *value, struct err *e)
{
	return duplicate_parse_env(&((struct run_options *)target)->dup, value, e);
}

#define AT(field) offsetof(struct run_options, field)
static const struct opt run_opts[] = {
	{"kernel", 'k', OPT_STRING, AT(kernel), "FILE", "kernel: bzImage, ELF vmlinux or multiboot; or builtin", 0, 0, NULL},
	{"initrd", 'i', OPT_STRING, AT(initrd), "FILE", "initial RAM disk", 0, 0, NULL},
	{"append", 'a', OPT_STRING, AT(append), "STRING", "kernel command line", 0, 0, NULL},
	{"memory", 'm', OPT_SIZE, AT(memory), "SIZE", "RAM, as 512M or 2G (default 512M; of a duplicate 2G)", MEM_MIN, MEM_MAX, NULL},
	{"cpus", 'c', OPT_UINT, AT(cpus), "N", "virtual CPUs (default 1)", 1, MACHINE_CPUS_MAX, NULL},
	{"engine", 'e', OPT_CALL, 0, "ENGINE", "auto, kvm, translate, interp or check (default auto)", 0, 0, parse_engine},
	{"code-cache", 0, OPT_SIZE, AT(code_cache), "SIZE", "memory for translated code, 1M to 96M (default 64M)", 1 << 20, 96 << 20,
	 NULL},
	{"disk", 'd', OPT_CALL, 0, "FILE[,OPTION...]", "disk image or block device; may be repeated (see doppel(1))", 0, 0,
	 parse_disk},
	{"on-enospc", 0, OPT_CALL, 0, "WHAT", "the host's disk is full: stop the VM, or report an I/O error to the guest (default)",
	 0, 0, parse_enospc},
	{"spool", 0, OPT_CALL, 0, "printer=DIR", "a printer: each job of the guest becomes a file in DIR", 0, 0, parse_spool},
	{"net", 0, OPT_CALL, 0, "NETWORK", "none, user[,hostfwd=tcp:HOSTPORT:GUESTPORT], and others; see doppel(1) (default none; of a duplicate user)", 0, 0,
	 parse_net},
	{"share", 0, OPT_CALL, 0, "HOST[:GUEST][:rw]", "folder of this machine for the guest, read-only unless rw; may be repeated",
	 0, 0, parse_share},
	{"share-server", 0, OPT_STRING, AT(share_server), "PROGRAM", "a virtiofsd that serves the folders (default doppel-fs)", 0, 0,
	 NULL},
	{"env", 0, OPT_CALL, 0, "NAME[=VALUE]", "variable for the command, besides those here", 0, 0, parse_env},
	{"workdir", 'w', OPT_STRING, AT(dup.workdir), "DIR", "the command's directory (default: this one)", 0, 0, NULL},
	{"user", 'u', OPT_STRING, AT(dup.user), "USER[:GROUP]", "who the command is (default: you)", 0, 0, NULL},
	{"keep", 0, OPT_STRING, AT(dup.keep), "NAME", "keep what it writes, for the next run and for doppel diff", 0, 0, NULL},
	{"diff", 0, OPT_FLAG, AT(dup.diff), NULL, "print what the command changed, when it ends", 0, 0, NULL},
	{"bare", 0, OPT_FLAG, AT(dup.bare), NULL, "no duplicate: a small root of busybox in memory", 0, 0, NULL},
	{"dump", 0, OPT_CALL, 0, "translate=PC", "when the VM ends, print the translated code of a guest address", 0, 0, parse_dump},
	{"trace", 0, OPT_CALL, 0, "FILE[,OPTION...]", "write what doppel trace shows, from the first instruction on; see doppel(1)", 0, 0,
	 parse_trace},
	{"symbols", 0, OPT_STRING, AT(insight.symbols), "FILE", "the kernel's symbols: ELF file or System.map", 0, 0, NULL},
	{"panic", 0, OPT_STRING, AT(insight.panic), "WHAT", "a guest panic: exit (default), or autopsy, which reports first", 0, 0, NULL},
	{"autopsy", 0, OPT_STRING, AT(insight.autopsy), "FILE", "the report on a crash as JSON too", 0, 0, NULL},
	{"branches", 0, OPT_FLAG, AT(insight.branches), NULL, "record jumps for doppel autopsy (--panic=autopsy does)", 0, 0, NULL},
	{"console", 0, OPT_CALL, 0, "DEVICE", "serial (ttyS0) or virtio (hvc0; needs its driver) (default serial)", 0, 0,
	 parse_console},
	{"name", 'n', OPT_STRING, AT(name), "NAME", "name for the other commands (default vm-PID)", 0, 0, NULL},
	{"detach", 0, OPT_FLAG, AT(detach), NULL, "run in the background; doppel console NAME attaches", 0, 0, NULL},
	{"gdb", 0, OPT_STRING, AT(gdb), "ADDRESS", "gdb may connect there too: HOST:PORT, :PORT or a path (see doppel debug)", 0, 0, NULL},
	{"gdb-wait", 'S', OPT_FLAG, AT(gdb_wait), NULL, "the guest does not start before a debugger lets it", 0, 0, NULL},
	{"no-reboot", 0, OPT_FLAG, AT(no_reboot), NULL, "a reboot of the guest ends the VM", 0, 0, NULL},
	{"debug-exit", 0, OPT_UINT, AT(debug_exit), "PORT", "a byte V written there ends with status 2V+1", 1, 0xffff, NULL},
	{"verbose", 'v', OPT_FLAG, AT(verbose), NULL, "say what is done and why", 0, 0, NULL},
	{"quiet", 'q', OPT_FLAG, AT(quiet), NULL, "say nothing but errors", 0, 0, NULL},
	{NULL, 0, OPT_END, 0, NULL, NULL, 0, 0, NULL},
};

/* ---- acquire ---- */
/* No self-tests of ciphers: they are half of the boot. A panic ends the VM, by pvpanic or by its reboot. What the guest's
 * kernel takes for itself is not cleared first (Debian's does by default): its page cache would be written twice. */
#define DUPLICATE_APPEND "console=%s quiet panic=-1 cryptomgr.notests random.trust_cpu=on init_on_alloc=0 %s"

/* A shell on a terminal; without one the guest shows itself and powers off. */
static const char *default_append(struct run *r)
{
	if (r->dup) {
		snprintf(r->append, sizeof(r->append), DUPLICATE_APPEND, r->o.virtio_console ? "hvc0" : "ttyS0",
			 r->o.append ? r->o.append : "");
		return r->append;
	}
	snprintf(r->append, sizeof(r->append), "console=%s quiet doppel.engine=%s%s",
		 r->o.virtio_console ? "hvc0" : "ttyS0",
		 kvm_engine_name(r->machine->sys),
		 r->o.detach || isatty(STDIN_FILENO) ? "" : " doppel.show");
	return r->append;
}

static void on_life_end(void *arg, u32 events)
{
	struct run *r = arg;

	loop_del(r->loop, r->life_fd);
	r->session_over = true;
	machine_end(r->machine, 0, "host-ui");
}

static int open_files(struct run *r, struct err *e)
{
	const struct run_options *o = &r->o;
	int fd = -1, ret = 0;

	r->cfg = (struct machine_config){.name = r->instance.name, .append = o->append, .kernel_fd = -1, .initrd_fd = -1,
					 .kernel_name = o->kernel, .initrd_name = o->initrd, .memory = o->memory,
					 .cpus = o->cpus, .engine = o->engine, .code_cache = o->code_cache, .ndisks = o->ndisks, .nnets = o->nnets,
					 .stop_on_enospc = o->stop_on_enospc, .no_reboot = o->no_reboot,
					 .debug_exit_port = (u16)o->debug_exit};
	memcpy(r->cfg.disk, o->disk, sizeof(r->cfg.disk));
	memcpy(r->cfg.net, o->net, sizeof(r->cfg.net));
	for (u32 i = 0; i < o->nshares; i++) {
		r->cfg.share[i] = o->share[i].share;
		r->cfg.share[i].server = o->share_server;
	}
	r->cfg.nshares = o->nshares;
	if (r->dup) {
		ret = duplicate_machine(r->dup, &r->instance, &r->cfg, e);
		if (ret)
			return ret;
		r->o.kernel = r->cfg.kernel_name = r->dup->guest.kernel;
		r->cfg.initrd_fd = r->dup->guest.initrd_fd;
		r->dup->guest.initrd_fd = -1;
		r->cfg.initrd_name = "built-in";
	} else if (!o->kernel) {
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
	fd = guest_open_image("kernel", o->kernel, e);
	if (fd < 0)
		return fd;
	r->cfg.kernel_fd = fd;
	if (!o->initrd)
		return 0;
	fd = guest_open_image("initrd", o->initrd, e);
	if (fd < 0)
		return fd;
	r->cfg.initrd_fd = fd;
	return 0;
}

static void on_notice(void *arg, enum machine_notice n, const char *reason)
{
	struct run *r = arg;

	if (n == NOTICE_SHUTDOWN)
		r->end_reason = reason;
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

/* gdb may attach at any time, as doppel debug does; it costs nothing until then. */
static int start_debugger(struct run *r, struct err *e)
{
	int fd = instance_socket(&r->instance, "gdb.sock", e), ret = fd < 0 ? fd : debugger_start(r->machine, fd, r->o.gdb_wait, e);
	char where[300];

	if (ret || !r->o.gdb)
		return ret;
	fd = gdb_address_listen(r->o.gdb, where, sizeof(where), e);
	if (fd >= 0 && !r->o.quiet)
		fprintf(stderr, "doppel: gdb: target remote %s\n", where);
	return fd < 0 ? fd : debugger_listen(r->machine, fd, e);
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
	snprintf(info.engine, sizeof(info.engine), "%s", kvm_engine_name(r->machine->sys));
	snprintf(info.kernel, sizeof(info.kernel), "%s", r->o.kernel);
	net_options_ports(r->o.net, r->o.nnets, info.ports, sizeof(info.ports));
	ret = instance_write_info(&r->instance, &info);
	return ret ? err_set(e, -ret, "%s: %s", r->instance.dir, strerror(-ret)) : 0;
}

/* Before there are threads: it is a process. */
static int open_spool(struct run *r, struct err *e)
{
	int ret = 0;

	if (!r->o.printer)
		return 0;
	ret = chardev_spool_create(r->loop, r->o.printer, r->instance.name, &r->printer, e);
	if (!ret)
		r->cfg.port[r->cfg.nports++] = (struct machine_port){"printer", r->printer};
	return ret;
}

static int acquire(struct run *r, struct err *e)
{
	int ret = open_files(r, e);

	if (!ret)
		ret = insight_options_open(&r->o.insight, &r->cfg, e);
	if (ret)
		return ret;
	r->loop = loop_new();
	r->console = r->loop ? console_new(r->loop) : NULL;
	if (!r->console)
		return err_set(e, ENOMEM, "run: no memory");
	ret = open_spool(r, e);
	if (!ret)
		ret = run_trace_fork(&r->o.trace, e);
	if (ret)
		return ret;
	*(r->o.virtio_console ? &r->cfg.virtio_console : &r->cfg.serial) = console_chardev(r->console);
	ret = catch_signals(r);
	if (ret)
		return err_set(e, -ret, "run: signals: %s", strerror(-ret));
	ret = machine_create(&r->cfg, r->loop, &r->machine, e);
	if (!ret)
		ret = run_trace_begin(&r->o.trace, r->machine, e);
	if (ret)
		return ret;
	if (!r->cfg.append || r->dup)
		r->machine->cfg.append = default_append(r);
	r->machine->notify = on_notice;
	r->machine->notify_arg = r;
	ret = insight_options_start(&r->o.insight, r->machine, e);
	if (ret)
		return ret;
	if (r->life_fd >= 0)
		ret = loop_add(r->loop, r->life_fd, EPOLLIN, on_life_end, r);
	if (!ret)
		ret = start_debugger(r, e);
	return ret ? err_set(e, -ret, "run: %s", strerror(-ret)) : start_control(r, e);
}

/* Empty with --quiet, else one line. */
static const char *engine_line(const struct run *r, char *buf, size_t n)
{
	bool engine = kvm_kind(r->machine->sys) == KVM_KIND_ENGINE, why = r->o.verbose && r->machine->opened.why[0];

	snprintf(buf, n, "doppel: engine: %s (%s)%s%s\n", kvm_engine_name(r->machine->sys),
		 engine ? "KVM in user space" : "/dev/kvm", why ? ": " : "", why ? r->machine->opened.why : "");
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

static void free_options(struct run_options *o)
{
	free(o->trace.path);
	for (u32 i = 0; i < o->ndisks; i++)
		free((char *)o->disk[i].disk.path);
	for (u32 i = 0; i < o->nshares; i++)
		free((char *)o->share[i].share.path);
}

static void release(struct run *r)
{
	for (u32 i = 0; r->machine && i < r->o.ndumps; i++)
		machine_dump_code(r->machine, r->o.dump[i], stderr);
	qmp_machine_ends(r->qmp);
	machine_destroy(r->machine);
	run_trace_end(&r->o.trace);
	chardev_destroy(r->printer);
	console_free(r->console);
	if (r->cfg.kernel_fd >= 0)
		close(r->cfg.kernel_fd);
	if (r->cfg.initrd_fd >= 0)
		close(r->cfg.initrd_fd);
	instance_release(&r->instance);
	qmp_stop(r->qmp); /* whoever sees its end finds the name free */
	if (r->signal_fd >= 0)
		close(r->signal_fd);
	loop_free(r->loop);
	insight_options_free(&r->o.insight);
	free_options(&r->o);
}

/* The VM's process, foreground or detached; the name is claimed. */
static int vm_process(struct run *r)
{
	struct err e = {0};
	char line[300];
	int ret = 0, status = EXIT_DOPPEL;

	if (r->o.detach && !r->dup)
		leave_terminal(&r->instance);
	ret = acquire(r, &e);
	if (!ret)
		ret = machine_start(r->machine, &e);
	if (!ret && !r->o.detach) {
		fputs(engine_line(r, line, sizeof(line)), stderr);
		ret = r->dup ? 0 : attach_stdio(r, &e);
	}
	if (!ret)
		ret = sandbox_enter(kvm_kind(r->machine->sys) == KVM_KIND_DEVICE, kvm_engine_pid(r->machine->sys), &e);
	if (!ret) {
		if (r->o.detach) {
			tell_parent(r, "+");
			tell_parent(r, engine_line(r, line, sizeof(line)));
		}
		tell_done(r);
		status = machine_run(r->machine);
		if (r->dup && !r->session_over)
			duplicate_tell_end(r->console, r->end_reason);
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
	return wait_for_vm(fds[0], r->instance.name);
}

/* ---- a duplicate: its VM is a child of this process (cli/run_duplicate.c) ---- */
static int duplicate_vm(void *arg, struct duplicate *d, int life_fd, int ready_fd)
{
	struct run *r = arg;

	r->dup = d;
	r->life_fd = life_fd;
	r->ready_fd = ready_fd;
	return vm_process(r);
}

static int run_a_duplicate(struct run *r, char **command)
{
	struct duplicate_run x = {.in = &r->instance, .o = &r->o.dup, .command = command, .detach = r->o.detach,
				  .vm = duplicate_vm, .arg = r};
	int ret = 0;

	if (!r->o.net_said && net_options_default(&r->o.net[0]))
		r->o.nnets = 1;
	r->o.dup.share = r->o.share;
	r->o.dup.n_shares = r->o.nshares;
	r->o.dup.net = r->o.nnets > 0;
	r->o.dup.net_user = r->o.nnets && r->o.net[0].kind == NET_USER;
	ret = duplicate_run(&x);
	free_options(&r->o);
	return ret;
}

/* What does not go together; NULL: all does. */
static const char *contradiction(const struct run_options *o, bool command)
{
	const struct duplicate_options *d = &o->dup;
	bool other = o->kernel || o->initrd || d->bare;

	if (!other)
		return NULL;
	if (command || d->n_env || d->workdir || d->user || d->keep || d->diff)
		return "a command, --env, --workdir, --user, --keep and --diff are for duplicates "
		       "(leave out --kernel, --initrd and --bare)";
	return NULL;
}

static struct run new_run(void)
{
	return (struct run){.o = {.cpus = 1}, .instance.lock_fd = -1,
			    .cfg = {.kernel_fd = -1, .initrd_fd = -1}, .signal_fd = -1, .ready_fd = -1, .life_fd = -1};
}

int run_on_layer(const char *keep, int (*work)(void *arg, const char *vm, struct err *e), void *arg)
{
	struct run r = new_run();
	struct duplicate_run x = {.in = &r.instance, .o = &r.o.dup, .work = work, .work_arg = arg, .vm = duplicate_vm, .arg = &r};
	struct err e = {0};

	r.o.memory = run_default_memory(true);
	r.o.dup.keep = keep;
	r.o.dup.must_exist = r.o.quiet = true;
	if (instance_claim(&r.instance, keep, &e) < 0)
		return cli_fail(&e);
	return duplicate_run(&x);
}

static int run_main(const struct command *c, int argc, char **argv)
{
	struct run r = new_run();
	struct err e = {0};
	char name[INSTANCE_NAME_MAX];
	bool duplicate = false;
	int ret = opts_parse(c, &r.o, &argc, argv);
	const char *wrong = ret ? NULL : contradiction(&r.o, argc > 1);

	if (wrong) {
		log_msg(LOG_ERROR, "run: %s", wrong);
		ret = -EINVAL;
	}
	if (ret) {
		free_options(&r.o);
		return ret == OPTS_DONE ? 0 : EXIT_DOPPEL;
	}
	duplicate = !r.o.kernel && !r.o.initrd && !r.o.dup.bare;
	if (!r.o.memory)
		r.o.memory = run_default_memory(duplicate);
	log_set_level(r.o.verbose ? LOG_INFO : r.o.quiet ? LOG_ERROR : LOG_WARN);
	snprintf(name, sizeof(name), "vm-%d", getpid());
	if (instance_claim(&r.instance, r.o.name ? r.o.name : duplicate && r.o.dup.keep ? r.o.dup.keep : name, &e) < 0) {
		free_options(&r.o);
		return cli_fail(&e);
	}
	if (duplicate)
		return run_a_duplicate(&r, argc > 1 ? argv + 1 : NULL);
	return r.o.detach ? detach(&r) : vm_process(&r);
}

const struct command cmd_run = {
	.name = "run",
	.args = "[options] [-- COMMAND ARG...]",
	.summary = "runs a command in a duplicate of this machine, or starts a VM with a kernel of yours",
	.details = "Without --kernel: an unmodified Debian kernel, this machine's files copy-on-write, the command's terminal, input,\n"
		   "output, signals and exit status as if it ran here; without a command a shell. With --kernel: the VM's console is\n"
		   "this terminal; Ctrl-] q ends it. Exit status: the command's (128+N: it died by signal N; 126, 127: it cannot be\n"
		   "executed, does not exist); 0 after power-off (or reboot with --no-reboot), 120 guest panic, 121 triple fault,\n"
		   "125 doppel failed, 128+N ended by signal N.\n",
	.opts = run_opts,
	.rest = true,
	.main = run_main,
};
