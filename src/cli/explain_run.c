/* Runs the guest that doppel explain explains: once traced, then untraced for the translations. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/stat.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/explain.h"

extern char **environ;

enum { RAW_MAX = 256 << 20, TEXT_MAX = 16 << 20, DUMPS = 8 };

/* ---- a process with its output in a memory file ---- */

struct child {
	pid_t pid;
	int out, err; /* memfds */
};

static int start_child(struct child *c, char **argv, struct err *e)
{
	posix_spawn_file_actions_t fa;
	int ret = 0;

	c->out = memfd_create("explain-out", MFD_CLOEXEC);
	c->err = memfd_create("explain-err", MFD_CLOEXEC);
	if (c->out < 0 || c->err < 0)
		return err_set(e, errno, "explain: %s", strerror(errno));
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&fa, c->out, 1);
	posix_spawn_file_actions_adddup2(&fa, c->err, 2);
	ret = posix_spawn(&c->pid, "/proc/self/exe", &fa, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&fa);
	return ret ? err_set(e, ret, "explain: cannot start doppel run: %s", strerror(ret)) : 0;
}

/* True: it had to be ended. */
static bool wait_child(pid_t pid, u32 seconds, int *status)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	bool late = poll(&p, 1, (int)seconds * 1000) == 0;

	if (late)
		kill(pid, SIGTERM);
	while (waitpid(pid, status, 0) < 0 && errno == EINTR)
		;
	close(fd);
	return late;
}

static char *take_text(int fd)
{
	struct stat st;
	size_t n = fstat(fd, &st) == 0 ? (size_t)MIN(st.st_size, (off_t)TEXT_MAX) : 0;
	char *p = malloc(n + 1);
	ssize_t r = p ? pread(fd, p, n, 0) : 0;

	if (p)
		p[r > 0 ? r : 0] = 0;
	close(fd);
	return p;
}

/* ---- the traced run ---- */

static int read_records(const char *path, struct explained *x, struct err *e)
{
	void *data = NULL;
	u64 size = 0;
	int ret = read_file(path, RAW_MAX, &data, &size);

	if (ret)
		return err_set(e, -ret, "explain: the trace: %s%s", strerror(-ret), ret == -EFBIG ? " (--events chooses less)" : "");
	x->rec = data;
	x->nrec = size / sizeof(*x->rec);
	return 0;
}

static int failed(const char *text, struct err *e)
{
	const char *why = strstr(text ? text : "", "doppel: ");

	return err_set(e, EIO, "explain: the guest could not be run: %.*s", why ? (int)strcspn(why + 8, "\n") : 1, why ? why + 8 : "?");
}

static int run_traced(const struct explain_options *o, struct explained *x, const char *file, struct err *e)
{
	char trace[256];
	char *argv[] = {"doppel", "run", "-q", "--no-reboot", "--kernel", (char *)o->path, "--engine", (char *)o->engine, "--trace", trace,
			"--append", (char *)o->append, NULL};
	struct child c = {.out = -1, .err = -1};
	char *text = NULL;
	int ret = 0;

	snprintf(trace, sizeof(trace), "%s,format=raw,wait,events=insn,exception,irq,pt,mmio,exit,code", file);
	ret = start_child(&c, argv, e);
	if (ret)
		return ret;
	x->timed_out = wait_child(c.pid, o->seconds, &x->status);
	x->console = take_text(c.out);
	text = take_text(c.err);
	if (!x->timed_out && WIFEXITED(x->status) && WEXITSTATUS(x->status) == 125)
		ret = failed(text, e);
	free(text);
	return ret ? ret : read_records(file, x, e);
}

int explain_run(const struct explain_options *o, struct explained *x, struct err *e)
{
	const char *tmp = getenv("TMPDIR");
	char dir[128], file[160];
	int ret = 0;

	snprintf(dir, sizeof(dir), "%.80s/doppel-explain-XXXXXX", tmp && *tmp == '/' && !strchr(tmp, ',') ? tmp : "/tmp");
	if (!mkdtemp(dir))
		return err_set(e, errno, "explain: %s: %s", dir, strerror(errno));
	snprintf(file, sizeof(file), "%s/trace", dir);
	ret = run_traced(o, x, file, e);
	unlink(file);
	rmdir(dir);
	return ret;
}

/* ---- translations ---- */

static bool have_block(const struct explained *x, u64 pc, u32 key)
{
	for (u32 i = 0; i < x->nblocks; i++)
		if (x->block[i].pc == pc && x->block[i].key == key)
			return true;
	return false;
}

static void take_block(struct explained *x, const char *p, size_t n)
{
	unsigned long long pc = 0;
	unsigned key = 0, number = 0;
	const char *k = memmem(p, n, "key ", 4);

	if (sscanf(p, "block %u: guest %llx", &number, &pc) != 2 || !k || sscanf(k, "key %x", &key) != 1)
		return;
	if (x->nblocks == EXPLAIN_BLOCKS || have_block(x, pc, key))
		return;
	x->block[x->nblocks++] = (struct explain_block){.pc = pc, .key = key, .text = strndup(p, n)};
}

/* Blocks begin with a line "block N: ..."; other lines of the output are not ours. */
static void take_blocks(struct explained *x, const char *text)
{
	const char *p = text ? strstr(text, "block ") : NULL;

	while (p) {
		const char *next = strstr(p, "\nblock "), *end = strstr(p, "\ndoppel: ");

		if (!end || (next && next < end))
			end = next;
		take_block(x, p, end ? (size_t)(end + 1 - p) : strlen(p));
		p = next ? next + 1 : NULL;
	}
}

static int dump_some(const struct explain_options *o, struct explained *x, const u64 *pc, u32 n, struct err *e)
{
	char dump[DUMPS][40];
	char *argv[12 + 2 * DUMPS] = {"doppel", "run", "-q", "--no-reboot", "--kernel", (char *)o->path, "--engine", "translate", "--append",
				      (char *)o->append};
	struct child c = {.out = -1, .err = -1};
	char *text = NULL;
	int ret = 0, status = 0;

	for (u32 i = 0; i < n; i++) {
		snprintf(dump[i], sizeof(dump[i]), "translate=0x%llx", (unsigned long long)pc[i]);
		argv[10 + 2 * i] = "--dump";
		argv[11 + 2 * i] = dump[i];
	}
	argv[10 + 2 * n] = NULL;
	setenv("DOPPEL_TR_STRESS", "hot", 1); /* at the first execution */
	ret = start_child(&c, argv, e);
	unsetenv("DOPPEL_TR_STRESS");
	if (ret)
		return ret;
	wait_child(c.pid, o->seconds, &status);
	close(c.out);
	text = take_text(c.err);
	take_blocks(x, text);
	free(text);
	return 0;
}

int explain_translate(const struct explain_options *o, struct explained *x, const u64 *pc, u32 n, struct err *e)
{
	int ret = 0;

	for (u32 i = 0; i < n && !ret; i += DUMPS)
		ret = dump_some(o, x, pc + i, MIN(n - i, (u32)DUMPS), e);
	return ret;
}

/* The beginning of the line that p is in. */
static const char *line_of(const char *text, const char *p)
{
	while (p > text && p[-1] != '\n')
		p--;
	return p;
}

/*
 * The way to the handler lies behind a test in the block's text: the code that names the site lies apart, and a jump there is right
 * behind one over it.
 */
static bool guarded(const char *text, const char *site_line)
{
	char mov[40], jump[40];
	const char *line = NULL, *before = NULL;

	snprintf(mov, sizeof(mov), "mov r15d, 0x%lx ", strtoul(site_line, NULL, 16));
	line = strstr(text, mov);
	if (!line)
		return false;
	snprintf(jump, sizeof(jump), "jmp 0x%lx ", strtoul(line_of(text, line), NULL, 16));
	line = strstr(text, jump);
	if (!line)
		return false;
	line = line_of(text, line);
	before = line > text ? line_of(text, line - 1) : line;
	return memmem(before, (size_t)(line - before), "jrcxz", 5);
}

enum explain_way explain_way_of(const struct explained *x, u64 pc)
{
	char guest[40], *p = NULL;

	for (u32 i = 0; i < x->nblocks; i++) {
		const char *text = x->block[i].text;

		snprintf(guest, sizeof(guest), "\n  %016llx  ", (unsigned long long)pc);
		if (!strstr(text, guest))
			continue;
		snprintf(guest, sizeof(guest), "guest %016llx  ", (unsigned long long)pc);
		for (p = strstr(text, guest); p; p = strstr(p + 1, guest)) {
			const char *line = p + strcspn(p, "\n");

			if (line - p > 8 && !strncmp(line - 7, "handler", 7))
				return guarded(text, p - 10) ? WAY_BOTH : WAY_HANDLER;
		}
		return WAY_IN_LINE;
	}
	return WAY_NONE;
}

void explain_free(struct explained *x)
{
	for (u32 i = 0; i < x->nblocks; i++)
		free(x->block[i].text);
	free(x->rec);
	free(x->console);
}
