/*
 * Each share has a server process of its own, so that none reaches into another's folder. It is given a
 * listening socket whose name only we can reach, and that is gone once we are connected; the command line is
 * one that virtiofsd understands too.
 */
#include "vmm/share.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/paths.h"

enum { SERVER_FD = 3, ARGS_MAX = 12, REAP_MS = 2000 };

/* As the environment says, beside this executable (build tree), or in ../libexec (installed). */
static int server_path(const struct machine_share *s, char *path, size_t size, struct err *e)
{
	const char *env = getenv("DOPPEL_FS");

	if (s->server || (env && *env)) {
		snprintf(path, size, "%s", s->server ? s->server : env);
	} else {
		ssize_t n = readlink("/proc/self/exe", path, size - 32);
		char *slash = NULL;

		path[n > 0 ? n : 0] = 0;
		slash = strrchr(path, '/');
		strcpy(slash ? slash + 1 : path, "doppel-fs");
		if (access(path, X_OK) < 0 && slash)
			strcpy(slash + 1, "../libexec/doppel-fs");
	}
	if (access(path, X_OK) < 0)
		return err_set(e, errno, "%s: %s (the program that serves shared folders)", path,
			       strerror(errno));
	return 0;
}

bool share_is_untrusted(const struct machine_share *s)
{
	const char *env = getenv("DOPPEL_FS");

	return !s->server && !(env && *env) && !s->no_xattr;
}

static int make_listener(struct sockaddr_un *a, struct err *e)
{
	char dir[PATHS_MAX];
	int ret = path_runtime(dir, sizeof(dir), true, e);

	if (ret)
		return ret;
	*a = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (snprintf(a->sun_path, sizeof(a->sun_path), "%s/.share-%d", dir, getpid()) >=
	    (int)sizeof(a->sun_path))
		return err_set(e, ENAMETOOLONG,
			       "%s: too long for socket addresses (set a shorter XDG_RUNTIME_DIR)", dir);
	unlink(a->sun_path); /* left by a process of that number that was killed */
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd >= 0 && bind(fd, (struct sockaddr *)a, sizeof(*a)) == 0 && listen(fd, 1) == 0)
		return fd;
	ret = err_set(e, errno, "%s: %s", a->sun_path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return ret;
}

static void make_args(const struct machine_share *s, const char *dir, char *source, size_t size,
		      const char *args[ARGS_MAX])
{
	unsigned n = 0;

	snprintf(source, size, "source=%s", dir);
	args[n++] = s->server ? "virtiofsd" : "doppel-fs";
	args[n++] = "--fd=3";
	args[n++] = "-o";
	args[n++] = source;
	if (!s->writable)
		args[n++] = "--readonly";
	if (s->no_xattr && !s->server)
		args[n++] = "--no-xattr";
	if (s->cache && s->server)
		args[n++] = "-o";
	else if (s->cache)
		args[n++] = "--cache";
	if (s->cache)
		args[n++] = s->cache;
	args[n] = NULL;
}

/* In the child of a process with threads: only what a signal handler may do. */
static void child(const char *path, const char *const *args, int listener, pid_t parent)
{
	static const char text[] = "doppel: shared folder: the server cannot be started\n";

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(127);
	if (listener == SERVER_FD ? fcntl(SERVER_FD, F_SETFD, 0) : dup2(listener, SERVER_FD) < 0)
		_exit(127);
	execv(path, (char *const *)args);
	_exit(write(STDERR_FILENO, text, sizeof(text) - 1) < 0 ? 126 : 127);
}

static int check_dir(const struct machine_share *s, char *dir, struct err *e)
{
	struct stat st;

	if (!realpath(s->path, dir) || stat(dir, &st) < 0)
		return err_set(e, errno, "--share %s: %s", s->path, strerror(errno));
	return S_ISDIR(st.st_mode) ? 0 : err_set(e, ENOTDIR, "--share %s: not a directory", s->path);
}

int share_start(const struct machine_share *s, int *sock, pid_t *pid, struct err *e)
{
	char path[PATH_MAX], dir[PATH_MAX], source[PATH_MAX + 16];
	const char *args[ARGS_MAX];
	struct sockaddr_un a;
	pid_t self = getpid();
	int listener = -1, ret = check_dir(s, dir, e);

	if (!ret)
		ret = server_path(s, path, sizeof(path), e);
	if (ret)
		return ret;
	make_args(s, dir, source, sizeof(source), args);
	listener = make_listener(&a, e);
	if (listener < 0)
		return listener;
	*sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (*sock < 0 || connect(*sock, (struct sockaddr *)&a, sizeof(a)) < 0)
		ret = err_set(e, errno, "%s: %s", a.sun_path, strerror(errno));
	unlink(a.sun_path);
	if (!ret) {
		*pid = fork();
		if (*pid == 0)
			child(path, args, listener, self);
		if (*pid < 0)
			ret = err_set(e, errno, "--share %s: cannot start a process: %s", s->path,
				      strerror(errno));
	}
	close(listener);
	if (ret && *sock >= 0)
		close(*sock);
	return ret;
}

void share_reap(pid_t pid)
{
	const struct timespec ms = {.tv_nsec = 1000000};

	for (unsigned i = 0; i < REAP_MS; i++) {
		if (waitpid(pid, NULL, WNOHANG))
			return;
		nanosleep(&ms, NULL);
	}
	/* it dies with us: PR_SET_PDEATHSIG */
}
