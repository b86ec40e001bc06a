/*
 * doppel cp: files between this machine and a duplicate that runs, as a tar stream. There, tar(1) of the duplicate packs and unpacks;
 * here libarchive does, which lets nothing out of the destination.
 */
#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "cli/cli.h"
#include "cli/duplicate.h"

struct place {
	const char *vm; /* NULL: this machine */
	const char *path;
};

/* NAME:PATH; a name has no '/'. */
static struct place parse(char *arg)
{
	char *colon = strchr(arg, ':'), *slash = strchr(arg, '/');

	if (!colon || colon == arg || (slash && slash < colon))
		return (struct place){.path = arg};
	*colon = 0;
	return (struct place){.vm = arg, .path = colon + 1};
}

/* "a/b/" and "a/b" are the directory a and the name b. */
static void split(const char *path, char *dir, char *name)
{
	char copy[PATH_MAX];

	snprintf(copy, sizeof(copy), "%s", path);
	snprintf(name, PATH_MAX, "%s", basename(copy));
	snprintf(copy, sizeof(copy), "%s", path);
	snprintf(dir, PATH_MAX, "%s", dirname(copy));
}

/* ---- from the duplicate: a child unpacks what the session brings ---- */
/* The first component of each name becomes `as`: what the copy is to be called. */
static int rename_entry(struct archive_entry *entry, const char *as)
{
	const char *old = archive_entry_pathname(entry), *rest = old ? strchr(old, '/') : NULL;
	char new[2 * PATH_MAX];
	int n = snprintf(new, sizeof(new), "%s%s", as, rest ? rest : "");

	if (!old || n < 0 || (size_t)n >= sizeof(new))
		return -ENAMETOOLONG;
	archive_entry_set_pathname(entry, new);
	return 0;
}

static int rename_link(struct archive_entry *entry, const char *as)
{
	const char *link = archive_entry_hardlink(entry), *rest = link ? strchr(link, '/') : NULL;
	char new[2 * PATH_MAX];

	if (!link)
		return 0;
	if (snprintf(new, sizeof(new), "%s%s", as, rest ? rest : "") >= (int)sizeof(new))
		return -ENAMETOOLONG;
	archive_entry_set_hardlink(entry, new);
	return 0;
}

static int unpack_all(struct archive *from, struct archive *to, const char *as)
{
	struct archive_entry *entry = NULL;
	const void *p = NULL;
	la_int64_t offset = 0;
	size_t n = 0;
	int r = 0, any = 0;

	while ((r = archive_read_next_header(from, &entry)) == ARCHIVE_OK) {
		if (rename_entry(entry, as) < 0 || rename_link(entry, as) < 0 || archive_write_header(to, entry) < ARCHIVE_WARN)
			return log_msg(LOG_ERROR, "cp: %s", archive_error_string(to) ? archive_error_string(to) : "bad name"), -1;
		while ((r = archive_read_data_block(from, &p, &n, &offset)) == ARCHIVE_OK)
			if (archive_write_data_block(to, p, n, offset) < 0)
				return log_msg(LOG_ERROR, "cp: %s", archive_error_string(to)), -1;
		if (r != ARCHIVE_EOF || archive_write_finish_entry(to) < ARCHIVE_WARN)
			return log_msg(LOG_ERROR, "cp: %s", archive_error_string(r == ARCHIVE_EOF ? to : from)), -1;
		any = 1;
	}
	return r == ARCHIVE_EOF && any ? 0 : -1;
}

static int unpack(int fd, const char *dir, const char *as)
{
	struct archive *from = archive_read_new(), *to = archive_write_disk_new();
	int ret = -1, flags = ARCHIVE_EXTRACT_TIME | ARCHIVE_EXTRACT_PERM | ARCHIVE_EXTRACT_SECURE_NODOTDOT |
			      ARCHIVE_EXTRACT_SECURE_SYMLINKS | ARCHIVE_EXTRACT_SECURE_NOABSOLUTEPATHS;

	if (geteuid() == 0)
		flags |= ARCHIVE_EXTRACT_OWNER;
	archive_read_support_format_tar(from);
	archive_write_disk_set_options(to, flags);
	if (chdir(dir) < 0)
		log_msg(LOG_ERROR, "cp: %s: %s", dir, strerror(errno));
	else if (archive_read_open_fd(from, fd, 65536) == ARCHIVE_OK)
		ret = unpack_all(from, to, as);
	archive_write_free(to); /* sets the directories' times */
	archive_read_free(from);
	return ret;
}

static int into_pipe(void *arg, int fd, const u8 *p, size_t n)
{
	const int *pipe = arg;

	return write_all(fd == 1 ? *pipe : STDERR_FILENO, p, n);
}

/* Where it goes: into a directory that is there, else under that name. */
static int destination(const char *path, const char *source_name, char *dir, char *as)
{
	struct stat st;

	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
		snprintf(dir, PATH_MAX, "%s", path);
		snprintf(as, PATH_MAX, "%s", source_name);
		return 0;
	}
	split(path, dir, as);
	return !*path || path[strlen(path) - 1] == '/' ? -ENOENT : 0;
}

static int session_ok(const struct session_result *r)
{
	return r->end == SESSION_STATUS && r->value == 0;
}

static int copy_out(const struct place *from, const struct place *to, struct err *e)
{
	char source_dir[PATH_MAX], source[PATH_MAX], dir[PATH_MAX], as[PATH_MAX];
	char *argv[] = {"tar", "-C", source_dir, "-cf", "-", "--", source, NULL};
	int pipe[2], status = 0, ret = 0;
	struct session_result result = {0};
	struct user user;
	pid_t pid = 0;

	split(from->path, source_dir, source);
	if (destination(to->path, source, dir, as) < 0)
		return err_set(e, ENOENT, "cp: %s: no such directory", to->path);
	ret = user_resolve(&user, "0:0", NULL, 0, e);
	if (ret)
		return ret;
	if (pipe2(pipe, O_CLOEXEC) < 0 || (pid = fork()) < 0)
		return err_set(e, errno, "cp: %s", strerror(errno));
	if (!pid) {
		close(pipe[1]);
		_exit(unpack(pipe[0], dir, as) < 0 ? 1 : 0);
	}
	close(pipe[0]);
	const struct duplicate_command c = {.argv = argv, .no_input = true, .sink = into_pipe, .arg = &pipe[1]};

	ret = duplicate_session(&user, "/", from->vm, &c, NULL, &result, e);
	close(pipe[1]);
	waitpid(pid, &status, 0);
	user_free(&user);
	if (!ret && (!session_ok(&result) || status))
		ret = err_set(e, EIO, "cp: %s:%s: not copied whole", from->vm, from->path);
	return ret;
}

/* ---- into the duplicate: a child packs, its output is the session's input ---- */
static int pack_entry(struct archive *disk, struct archive *to, struct archive_entry *entry, size_t skip, const char *as)
{
	char name[2 * PATH_MAX], buf[65536];
	ssize_t n = 0;
	int fd = -1;

	snprintf(name, sizeof(name), "%s%s", as, archive_entry_pathname(entry) + skip);
	if (S_ISREG(archive_entry_mode(entry)) && !archive_entry_hardlink(entry))
		fd = open(archive_entry_sourcepath(entry), O_RDONLY | O_CLOEXEC);
	archive_entry_set_pathname(entry, name);
	if (archive_write_header(to, entry) < ARCHIVE_WARN)
		return log_msg(LOG_ERROR, "cp: %s", archive_error_string(to)), -1;
	while (fd >= 0 && (n = read(fd, buf, sizeof(buf))) > 0)
		if (archive_write_data(to, buf, (size_t)n) < 0)
			n = -1;
	if (fd >= 0)
		close(fd);
	return n < 0 || archive_write_finish_entry(to) < ARCHIVE_WARN ? -1 : 0;
}

static int pack(const char *path, const char *as)
{
	struct archive *disk = archive_read_disk_new(), *to = archive_write_new();
	struct archive_entry *entry = archive_entry_new();
	int r = ARCHIVE_OK, ret = 0;

	archive_write_set_format_pax_restricted(to);
	archive_read_disk_set_symlink_physical(disk);
	archive_read_disk_set_standard_lookup(disk);
	if (archive_write_open_fd(to, STDOUT_FILENO) != ARCHIVE_OK || archive_read_disk_open(disk, path) != ARCHIVE_OK) {
		log_msg(LOG_ERROR, "cp: %s: %s", path, archive_error_string(disk) ? archive_error_string(disk) : "?");
		return -1;
	}
	while (!ret && (r = archive_read_next_header2(disk, entry)) >= ARCHIVE_WARN && r != ARCHIVE_EOF) {
		archive_read_disk_descend(disk);
		ret = pack_entry(disk, to, entry, strlen(path), as);
		archive_entry_clear(entry);
	}
	if (r != ARCHIVE_EOF)
		ret = -1;
	archive_entry_free(entry);
	archive_read_free(disk);
	return archive_write_close(to) != ARCHIVE_OK ? -1 : ret;
}

static int copy_in(const struct place *from, const struct place *to, struct err *e)
{
	/* into a directory that is there, else under that name: only the duplicate knows */
	static char script[] = "if [ -d \"$1\" ]; then tar -C \"$1\" -xpf -; else d=$(mktemp -d \"$(dirname -- \"$1\")/.doppel-XXXXXX\") && "
			       "tar -C \"$d\" -xpf - && mv -T -- \"$d/$2\" \"$1\"; s=$?; rm -rf \"$d\"; exit $s; fi";
	char dir[PATH_MAX], name[PATH_MAX], source[PATH_MAX];
	char *argv[] = {"sh", "-c", script, "sh", (char *)to->path, name, NULL};
	const struct duplicate_command c = {.argv = argv};
	struct session_result result = {0};
	struct user user;
	int pipe[2], status = 0, ret = 0;
	pid_t pid = 0;

	if (!realpath(from->path, source))
		return err_set(e, errno, "cp: %s: %s", from->path, strerror(errno));
	split(source, dir, name);
	ret = user_resolve(&user, "0:0", NULL, 0, e);
	if (ret)
		return ret;
	if (pipe2(pipe, O_CLOEXEC) < 0 || (pid = fork()) < 0)
		return err_set(e, errno, "cp: %s", strerror(errno));
	if (!pid) {
		dup2(pipe[1], STDOUT_FILENO);
		close(pipe[0]);
		_exit(pack(source, name) < 0 ? 1 : 0);
	}
	close(pipe[1]);
	dup2(pipe[0], STDIN_FILENO);
	close(pipe[0]);
	ret = duplicate_session(&user, "/", to->vm, &c, NULL, &result, e);
	waitpid(pid, &status, 0);
	user_free(&user);
	if (!ret && (!session_ok(&result) || status))
		ret = err_set(e, EIO, "cp: %s: not copied whole to %s:%s", from->path, to->vm, to->path);
	return ret;
}

static int cp_main(const struct command *c, int argc, char **argv)
{
	struct err e = {0};
	int ret = opts_parse(c, NULL, &argc, argv);
	struct place from, to;

	if (ret)
		return ret == OPTS_DONE ? 0 : EXIT_DOPPEL;
	from = parse(argv[1]);
	to = parse(argv[2]);
	if (!from.vm == !to.vm) {
		log_msg(LOG_ERROR, "cp: one of the two is NAME:PATH, in a duplicate that runs");
		return EXIT_DOPPEL;
	}
	if ((from.vm && from.path[0] != '/') || (to.vm && to.path[0] != '/')) {
		log_msg(LOG_ERROR, "cp: %s: the path in a duplicate is to be absolute", from.vm ? from.path : to.path);
		return EXIT_DOPPEL;
	}
	ret = from.vm ? copy_out(&from, &to, &e) : copy_in(&from, &to, &e);
	return ret < 0 ? cli_fail(&e) : 0;
}

const struct command cmd_cp = {
	.name = "cp",
	.args = "NAME:PATH PATH | PATH NAME:PATH",
	.summary = "copies files and folders between this machine and a duplicate",
	.min_args = 2,
	.max_args = 2,
	.main = cp_main,
};
