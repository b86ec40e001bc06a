/*
 * $XDG_RUNTIME_DIR/doppel, /run/user/UID/doppel, else /tmp/doppel-UID. Whoever can write there controls our VMs, so the directory must
 * be ours alone; in /tmp somebody else may have made it first.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/paths.h"

static bool own_dir(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid();
}

/* The parent may be shared (XDG says it is not); our directory may not. */
static int check_private(const char *path, struct err *e)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return -errno;
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077))
		return err_set(e, EPERM, "%s: not a private directory of yours (remove it, or set XDG_RUNTIME_DIR)", path);
	return 0;
}

int path_runtime(char *buf, size_t n, bool create, struct err *e)
{
	const char *xdg = getenv("XDG_RUNTIME_DIR");
	char run[64];
	int len = 0;

	snprintf(run, sizeof(run), "/run/user/%u", (unsigned)geteuid());
	if (xdg && xdg[0] == '/' && own_dir(xdg))
		len = snprintf(buf, n, "%s/doppel", xdg);
	else if (own_dir(run))
		len = snprintf(buf, n, "%s/doppel", run);
	else
		len = snprintf(buf, n, "/tmp/doppel-%u", (unsigned)geteuid());
	if (len >= (int)n || len >= (int)sizeof(run) + 16)
		return err_set(e, ENAMETOOLONG, "XDG_RUNTIME_DIR: too long for socket addresses (set a shorter one)");
	if (create && mkdir(buf, 0700) < 0 && errno != EEXIST)
		return err_set(e, errno, "%s: %s (set XDG_RUNTIME_DIR)", buf, strerror(errno));
	return check_private(buf, e);
}

static int in_home(const char *variable, const char *below, char *buf, size_t n, struct err *e)
{
	const char *xdg = getenv(variable), *home = getenv("HOME");
	int len = 0;

	if (xdg && xdg[0] == '/')
		len = snprintf(buf, n, "%s/doppel", xdg);
	else if (home && home[0] == '/')
		len = snprintf(buf, n, "%s/%s/doppel", home, below);
	else
		return err_set(e, ENOENT, "HOME: not set (set HOME or %s)", variable);
	return len >= (int)n ? err_set(e, ENAMETOOLONG, "%s: too long", variable) : 0;
}

int path_cache(char *buf, size_t n, struct err *e)
{
	return in_home("XDG_CACHE_HOME", ".cache", buf, n, e);
}

int path_state(char *buf, size_t n, struct err *e)
{
	return in_home("XDG_STATE_HOME", ".local/state", buf, n, e);
}

int path_part(const char *part, const char *variable, int mode, char *buf, size_t n, struct err *e)
{
	static const char *const places[] = {"", "../libexec/", "../share/doppel/"};
	const char *env = variable ? getenv(variable) : NULL;
	char self[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash = NULL;

	if (env && *env) {
		snprintf(buf, n, "%s", env);
		return 0;
	}
	self[len > 0 ? len : 0] = 0;
	slash = strrchr(self, '/');
	for (u32 i = 0; slash && i < ARRAY_SIZE(places); i++) {
		int need = snprintf(buf, n, "%.*s/%s%s", (int)(slash - self), self, places[i], part);

		if (need < (int)n && access(buf, mode) == 0)
			return 0;
	}
	return err_set(e, ENOENT, "%s: not found beside doppel (build or install it)", part);
}
