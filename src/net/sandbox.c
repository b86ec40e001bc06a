/*
 * The seccomp filter of doppel-net, which parses what a hostile guest and hostile peers send. It can use Internet sockets and the
 * descriptors it has; it cannot open a file, start a process or get executable memory, and has no capabilities.
 *
 * libslirp looks into /etc/resolv.conf from time to time. The handler of forbidden calls answers that with the file that was opened
 * before. Other sockets are refused; at any other call the process ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "net/net.h"

#define RESOLV "/etc/resolv.conf"

static const int common[] = {
	SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(writev), SCMP_SYS(close), SCMP_SYS(fcntl), SCMP_SYS(lseek), SCMP_SYS(fstat),
	SCMP_SYS(dup), SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(recvmsg), SCMP_SYS(sendmsg), SCMP_SYS(recvmmsg), SCMP_SYS(sendmmsg),
	SCMP_SYS(recvfrom), SCMP_SYS(sendto), SCMP_SYS(shutdown), SCMP_SYS(accept), SCMP_SYS(accept4), SCMP_SYS(getsockopt),
	SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(brk), SCMP_SYS(futex), SCMP_SYS(clock_gettime),
	SCMP_SYS(gettimeofday), SCMP_SYS(restart_syscall), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigreturn),
	SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(getrandom), SCMP_SYS(exit), SCMP_SYS(exit_group),
};
static const int user_only[] = {SCMP_SYS(bind), SCMP_SYS(connect), SCMP_SYS(listen), SCMP_SYS(setsockopt), SCMP_SYS(getsockname),
				SCMP_SYS(getpeername)};
/* The switch: removes its socket and lock when its last VM has gone. */
static const int switch_only[] = {SCMP_SYS(unlink), SCMP_SYS(rmdir), SCMP_SYS(flock), SCMP_SYS(setsockopt)};

/* The one piece of file-scope state: signal handlers have no argument. */
static int resolv_fd = -1;

static bool is_resolv(const greg_t *r)
{
	return (int)r[REG_RDI] == AT_FDCWD && !strcmp((const char *)r[REG_RSI], RESOLV);
}

static void forbidden(int nr)
{
	static const char text[] = "doppel: network: forbidden system call ";
	char line[sizeof(text) + 16], digits[12];
	size_t n = sizeof(text) - 1, nd = 0;

	memcpy(line, text, n);
	for (unsigned v = (unsigned)nr; nd == 0 || v; v /= 10)
		digits[nd++] = (char)('0' + v % 10);
	while (nd)
		line[n++] = digits[--nd];
	line[n++] = '\n';
	if (write(STDERR_FILENO, line, n) < 0)
		n = 0;
	signal(SIGSYS, SIG_DFL);
	raise(SIGSYS);
}

/* Async-signal-safe. The call was not made; its result is what the handler leaves in RAX. */
static void on_sigsys(int sig, siginfo_t *si, void *context)
{
	greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
	int nr = si->si_syscall, fd = -1;

	if (nr == SYS_openat && is_resolv(r)) {
		fd = resolv_fd >= 0 && lseek(resolv_fd, 0, SEEK_SET) == 0 ? dup(resolv_fd) : -1;
		r[REG_RAX] = fd >= 0 ? fd : -ENOENT;
	} else if (nr == SYS_newfstatat && (is_resolv(r) || !*(const char *)r[REG_RSI])) {
		fd = is_resolv(r) ? resolv_fd : (int)r[REG_RDI];
		r[REG_RAX] = syscall(SYS_fstat, fd, (struct stat *)r[REG_RDX]) == 0 ? 0 : -errno;
	} else if (nr == SYS_socket || nr == SYS_ioctl) {
		r[REG_RAX] = -EACCES; /* libslirp tries a raw socket where ICMP echo is not for everybody */
	} else {
		forbidden(nr);
	}
}

static int allow(scmp_filter_ctx f, const int *nr, size_t n)
{
	int ret = 0;

	for (size_t i = 0; i < n && !ret; i++)
		ret = seccomp_rule_add(f, SCMP_ACT_ALLOW, nr[i], 0);
	return ret;
}

static int allow_masked(scmp_filter_ctx f, int nr, unsigned arg, u64 mask, u64 value)
{
	return seccomp_rule_add(f, SCMP_ACT_ALLOW, nr, 1, SCMP_CMP(arg, SCMP_CMP_MASKED_EQ, mask, value));
}

/* Internet sockets, streams and datagrams (ICMP echo is one of these). */
static int allow_sockets(scmp_filter_ctx f)
{
	static const int domains[] = {AF_INET, AF_INET6}, types[] = {SOCK_STREAM, SOCK_DGRAM};
	int ret = 0;

	for (unsigned i = 0; i < 4 && !ret; i++)
		ret = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(socket), 2,
				       SCMP_A0(SCMP_CMP_MASKED_EQ, UINT32_MAX, (u64)domains[i & 1]),
				       SCMP_A1(SCMP_CMP_MASKED_EQ, 0xf, (u64)types[i >> 1]));
	return ret ? ret : allow_masked(f, SCMP_SYS(ioctl), 1, UINT32_MAX, FIONREAD);
}

static int fill(scmp_filter_ctx f, enum net_role role)
{
	int ret = allow(f, common, ARRAY_SIZE(common));

	if (!ret)
		ret = allow_masked(f, SCMP_SYS(mmap), 2, PROT_EXEC, 0);
	if (!ret)
		ret = allow_masked(f, SCMP_SYS(mprotect), 2, PROT_EXEC, 0);
	if (!ret)
		ret = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, SCMP_A0(SCMP_CMP_EQ, (u64)getpid(), 0));
	if (!ret)
		ret = role == ROLE_USER ? allow(f, user_only, ARRAY_SIZE(user_only)) : allow(f, switch_only, ARRAY_SIZE(switch_only));
	return ret || role != ROLE_USER ? ret : allow_sockets(f);
}

static void drop_capabilities(void)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	const struct __user_cap_data_struct none[2] = {{0}};

	syscall(SYS_capset, &h, none); /* giving up is always allowed */
}

int sandbox_enter(enum net_role role)
{
	struct sigaction sa = {.sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO};
	scmp_filter_ctx f = NULL;
	int ret = 0;

	drop_capabilities();
	if (role == ROLE_USER)
		resolv_fd = open(RESOLV, O_RDONLY | O_CLOEXEC);
#if defined(__SANITIZE_ADDRESS__)
	return 0; /* the sanitizers' own calls know no bounds */
#endif
	tzset(); /* the C library reads a file for it */
	f = seccomp_init(SCMP_ACT_TRAP);
	if (!f)
		return -ENOMEM;
	seccomp_attr_set(f, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a tree, not a chain */
	ret = seccomp_attr_set(f, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (!ret)
		ret = fill(f, role);
	if (!ret && sigaction(SIGSYS, &sa, NULL) < 0)
		ret = -errno;
	if (!ret)
		ret = seccomp_load(f);
	seccomp_release(f);
	return ret;
}
