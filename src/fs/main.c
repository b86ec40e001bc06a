/*
 * doppel-fs: shares a directory with a guest. Acquire (the directory, the front-end's socket), drop
 * authority, serve. The options are those that virtiofsd, which can take its place, has too.
 */
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/version.h"
#include "fs/fs.h"
#include "fs/sandbox.h"
#include "fs/vhost.h"

enum { STATUS_FAILED = 125 };

struct options {
	const char *dir, *socket;
	int fd; /* a listening socket; -1: none */
	struct fs_options fs;
	enum fs_sandbox sandbox;
};

static const char usage[] =
    "usage: doppel-fs --socket-path PATH | --fd N  [options] --shared-dir DIR\n"
    "Shares DIR with the guest of one virtual machine, by virtio-fs: a vhost-user back-end for doppel or "
    "QEMU.\n"
    "\n"
    "  --shared-dir DIR     what is shared\n"
    "  --socket-path PATH   makes this Unix socket and waits for the virtual machine there\n"
    "  --fd N               the same with a listening socket that is there\n"
    "  --readonly           nothing can be changed\n"
    "  --cache POLICY       auto: the guest asks anew after a second; always: the guest is the only one "
    "that\n"
    "                       changes DIR; never: the guest keeps nothing (default auto)\n"
    "  --no-xattr           no extended attributes\n"
    "  --sandbox KIND       auto: a mount namespace for root, Landlock for others; namespace: a mount "
    "namespace,\n"
    "                       for others than root with a user namespace (files of other users then belong to\n"
    "                       nobody); none (default auto)\n"
    "  --help, --version\n";

/* ---- options ---- */
static int parse_word(const char *value, const char *const *words, const char *what, struct err *e)
{
	for (int i = 0; words[i]; i++)
		if (!strcmp(value, words[i]))
			return i;
	return err_set(e, EINVAL, "--%s %s: not known (see doppel-fs --help)", what, value);
}

/* -o source=DIR, as callers of virtiofsd say it */
static int parse_o(struct options *o, const char *value, struct err *e)
{
	if (!strncmp(value, "source=", 7))
		o->dir = value + 7;
	else
		return err_set(e, EINVAL, "-o %s: not known (see doppel-fs --help)", value);
	return 0;
}

enum {
	OPT_DIR = 256,
	OPT_SOCKET,
	OPT_FD,
	OPT_READONLY,
	OPT_CACHE,
	OPT_NO_XATTR,
	OPT_SANDBOX,
	OPT_HELP,
	OPT_VERSION
};
static const struct option long_options[] = {
    {"shared-dir", required_argument, NULL, OPT_DIR},  {"socket-path", required_argument, NULL, OPT_SOCKET},
    {"fd", required_argument, NULL, OPT_FD},           {"readonly", no_argument, NULL, OPT_READONLY},
    {"cache", required_argument, NULL, OPT_CACHE},     {"no-xattr", no_argument, NULL, OPT_NO_XATTR},
    {"sandbox", required_argument, NULL, OPT_SANDBOX}, {"help", no_argument, NULL, OPT_HELP},
    {"version", no_argument, NULL, OPT_VERSION},       {NULL, 0, NULL, 0},
};

static int parse_one(struct options *o, int c, const char *said, struct err *e)
{
	static const char *const caches[] = {"auto", "always", "never", NULL}, *const kinds[] = {
										   "auto", "namespace",
										   "none", NULL};
	int n = 0;

	switch (c) {
	case OPT_DIR:
		o->dir = optarg;
		return 0;
	case OPT_SOCKET:
		o->socket = optarg;
		return 0;
	case OPT_FD:
		o->fd = atoi(optarg);
		return 0;
	case OPT_READONLY:
		o->fs.readonly = true;
		return 0;
	case OPT_NO_XATTR:
		o->fs.xattr = false;
		return 0;
	case OPT_CACHE:
		n = parse_word(optarg, caches, "cache", e);
		o->fs.cache = (enum fs_cache)MAX(n, 0);
		return MIN(n, 0);
	case OPT_SANDBOX:
		n = parse_word(optarg, kinds, "sandbox", e);
		o->sandbox = (enum fs_sandbox)MAX(n, 0);
		return MIN(n, 0);
	case 'o':
		return parse_o(o, optarg, e);
	default:
		return err_set(e, EINVAL, "%s: not an option, or without its value (see doppel-fs --help)",
			       said);
	}
}

/* 0, 1: the answer was --help or --version, or -errno */
static int parse(struct options *o, int argc, char **argv, struct err *e)
{
	int c = 0, ret = 0;

	opterr = 0;
	while (!ret && (c = getopt_long(argc, argv, "o:", long_options, NULL)) != -1) {
		if (c == OPT_HELP || c == OPT_VERSION) {
			fputs(c == OPT_HELP ? usage : "doppel-fs " DOPPEL_VERSION "\n", stdout);
			return 1;
		}
		ret = parse_one(o, c, argv[optind - 1], e);
	}
	if (!ret && optind < argc)
		ret = err_set(e, EINVAL, "%s: not an option (see doppel-fs --help)", argv[optind]);
	if (!ret && (!o->dir || (!o->socket == (o->fd < 0))))
		ret =
		    err_set(e, EINVAL,
			    "give --shared-dir DIR, and --socket-path PATH or --fd N (see doppel-fs --help)");
	return ret;
}

/* ---- acquire ---- */
static int listen_at(const char *path, struct err *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct stat st;
	int fd = -1;

	if (strlen(path) >= sizeof(a.sun_path))
		return err_set(e, ENAMETOOLONG, "--socket-path %s: too long (at most %zu bytes)", path,
			       sizeof(a.sun_path) - 1);
	strcpy(a.sun_path, path);
	if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
		unlink(path);
	mode_t old = umask(0077);

	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 1) < 0)
		fd = err_set(e, errno, "--socket-path %s: %s", path, strerror(errno));
	umask(old);
	return fd;
}

static int wait_for_front_end(const struct options *o, struct err *e)
{
	int listener = o->socket ? listen_at(o->socket, e) : o->fd, fd = -1;

	if (listener < 0)
		return listener;
	do
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	while (fd < 0 && errno == EINTR);
	if (fd < 0)
		err_set(e, errno, "the virtual machine's socket: %s", strerror(errno));
	close(listener);
	if (o->socket)
		unlink(o->socket);
	return fd;
}

static void raise_limits(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) == 0) {
		l.rlim_cur = l.rlim_max;
		setrlimit(RLIMIT_NOFILE, &l);
	}
	umask(0); /* the guest's has been applied */
}

static int serve(struct options *o, struct err *e)
{
	char dir[PATH_MAX];
	struct fs_confine c = {.dir = dir, .readonly = o->fs.readonly, .kind = o->sandbox};
	struct fs fs;

	if (!realpath(o->dir, dir))
		return err_set(e, errno, "%s: %s", o->dir, strerror(errno));
	int sock = wait_for_front_end(o, e);

	if (sock < 0)
		return sock;
	raise_limits();
	int root = sandbox_files(&c, e);
	int ret = root < 0 ? root : fs_open(&fs, &o->fs, root, e);

	if (!ret)
		ret = sandbox_calls(e);
	if (!ret) {
		ret = vhost_serve(&fs, sock, e);
		fs_close(&fs);
	}
	return ret;
}

int main(int argc, char **argv)
{
	struct options o = {.fd = -1, .fs = {.xattr = true}};
	struct err e = {0};
	int ret = parse(&o, argc, argv, &e);

	signal(SIGPIPE, SIG_IGN);
	if (!ret)
		ret = serve(&o, &e);
	if (ret < 0)
		log_msg(LOG_ERROR, "doppel-fs: %s", e.text);
	return ret < 0 ? STATUS_FAILED : 0;
}
