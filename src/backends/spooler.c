/*
 * Makes files of jobs. It holds a socket and a directory, and can, where the kernel has Landlock, reach nothing
 * outside that directory. A job grows under a name that begins with a dot, is synced, and then gets its own:
 * VM-TIME-NUMBER.job; the order of the names is that of the jobs. What is not complete is removed.
 */
#include "backends/spooler.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"

struct spooler {
	int socket, dir;
	const char *vm;
	int fd; /* of the job, -1: none */
	unsigned number;
	bool spoilt; /* could not be written; said so */
	char part[80];
	u8 packet[1 + SPOOL_DATA_MAX];
};

/* ---- authority ---- */
static void close_others(const struct spooler *s)
{
	int lo = MIN(s->socket, s->dir), hi = MAX(s->socket, s->dir);
	close_range(STDERR_FILENO + 1, (unsigned)lo - 1, 0);
	if (hi > lo + 1)
		close_range((unsigned)lo + 1, (unsigned)hi - 1, 0);
	close_range((unsigned)hi + 1, ~0u, 0);
}

/* Where there is no Landlock, the filter below has to do. */
static void only_this_directory(int dir)
{
	const u64 here = LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_REMOVE_FILE;
	struct landlock_ruleset_attr all = {.handled_access_fs = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1};
	struct landlock_path_beneath_attr rule = {.allowed_access = here, .parent_fd = dir};
	int fd = (int)syscall(SYS_landlock_create_ruleset, &all, sizeof(all), 0);
	if (fd < 0)
		return;
	if (!syscall(SYS_landlock_add_rule, fd, LANDLOCK_RULE_PATH_BENEATH, &rule, 0))
		syscall(SYS_landlock_restrict_self, fd, 0);
	close(fd);
}

static bool drop_authority(int dir)
{
	static const int allowed[] = {SCMP_SYS(recvfrom), SCMP_SYS(write),	SCMP_SYS(openat),	SCMP_SYS(close),
				      SCMP_SYS(fsync),	  SCMP_SYS(renameat),	SCMP_SYS(renameat2),	SCMP_SYS(unlinkat),	SCMP_SYS(clock_gettime),
				      SCMP_SYS(futex),	  SCMP_SYS(exit_group), SCMP_SYS(rt_sigreturn), SCMP_SYS(brk)};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return false;
	only_this_directory(dir);
#if defined(__SANITIZE_ADDRESS__)
	return true;
#endif
	scmp_filter_ctx f = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int r = f ? 0 : -ENOMEM;
	for (size_t i = 0; i < ARRAY_SIZE(allowed) && !r; i++)
		r = seccomp_rule_add(f, SCMP_ACT_ALLOW, allowed[i], 0);
	if (!r)
		r = seccomp_load(f);
	seccomp_release(f);
	return !r;
}

/* ---- jobs ---- */
static void complain(struct spooler *s, const char *what)
{
	if (!s->spoilt)
		log_msg(LOG_ERROR, "spool: a job of %s is lost: %s: %s", s->vm, what, strerror(errno));
	s->spoilt = true;
}

static void begin(struct spooler *s)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	s->number++;
	/* seconds since 1970 sort as text until 2286 */
	snprintf(s->part, sizeof(s->part), ".%s-%010lld.%06ld-%06u.job", s->vm, (long long)t.tv_sec, t.tv_nsec / 1000, s->number);
	s->spoilt = false;
	s->fd = openat(s->dir, s->part, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (s->fd < 0)
		complain(s, "cannot be begun");
}

static void add(struct spooler *s, const u8 *p, size_t n)
{
	while (n && !s->spoilt) {
		ssize_t put = write(s->fd, p, n);
		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0) {
			complain(s, "cannot be written");
			break;
		}
		p += put;
		n -= (size_t)put;
	}
}

static void end(struct spooler *s, bool complete)
{
	if (s->fd < 0)
		return;
	if (complete && !s->spoilt && fsync(s->fd))
		complain(s, "cannot be written");
	close(s->fd);
	s->fd = -1;
	if (complete && !s->spoilt && renameat2(s->dir, s->part, s->dir, s->part + 1, 0))
		complain(s, "cannot be named");
	if (!complete || s->spoilt)
		unlinkat(s->dir, s->part, 0);
}

void spooler_main(int socket, int dir, const char *vm)
{
	struct spooler s = {.socket = socket, .dir = dir, .vm = vm, .fd = -1};
	ssize_t n;
	signal(SIGINT, SIG_IGN); /* the end comes by the socket, after the last job */
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	prctl(PR_SET_NAME, "doppel-spool");
	close_others(&s);
	if (!drop_authority(dir)) {
		log_msg(LOG_ERROR, "spool: cannot enter its sandbox");
		_exit(1);
	}
	while ((n = recv(socket, s.packet, sizeof(s.packet), 0)) > 0 || (n < 0 && errno == EINTR)) {
		if (n <= 0)
			continue;
		if (s.packet[0] == SPOOL_DATA && s.fd < 0 && n > 1)
			begin(&s);
		if (s.packet[0] == SPOOL_DATA && s.fd >= 0)
			add(&s, s.packet + 1, (size_t)n - 1);
		else if (s.packet[0] != SPOOL_DATA)
			end(&s, s.packet[0] == SPOOL_END);
	}
	end(&s, false);
	_exit(0);
}
