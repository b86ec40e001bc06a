#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>
#include "backends/dialer.h"
#include "cli/cli.h"
#include "cli/duplicate.h"
#include "cli/last_words.h"
#include "vmm/console.h"

enum { GUEST_CID = 3, CONFIG_MAX = 60 << 10, CONSOLE_TAIL = 32 << 10 };

/* ---- options ---- */
int duplicate_parse_env(struct duplicate_options *o, const char *value, struct err *e)
{
	if (o->n_env == DUPLICATE_ENV_MAX)
		return err_set(e, E2BIG, "more than %d variables", DUPLICATE_ENV_MAX);
	o->env[o->n_env++] = (char *)value;
	return 0;
}

/* ---- configuration: records for src/guest/duplicate.c ---- */
struct config {
	char text[CONFIG_MAX];
	size_t n;
	bool full;
};

static void __attribute__((format(printf, 2, 3))) record(struct config *c, const char *fmt, ...)
{
	va_list ap;
	int n = 0;

	va_start(ap, fmt);
	n = vsnprintf(c->text + c->n, sizeof(c->text) - c->n, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof(c->text) - c->n)
		c->full = true;
	else
		c->n += (size_t)n + 1;
}

static void configure(const struct duplicate *d, struct config *c)
{
	const char *root = getenv("DOPPEL_ROOT_DISK"); /* without virtio-fs: an ext4 image as the second disk */
	char host[256] = "doppel";

	gethostname(host, sizeof(host) - 1);
	record(c, "root=%s", root ? "disk:/dev/vdb" : "virtiofs:doppel-root");
	record(c, "layer=/dev/vda");
	record(c, "hostname=%s", host);
	record(c, "run-user=%u:%u", d->user.uid, d->user.gid);
	if (!d->o->keep)
		record(c, "temporary=1");
	if (d->o->net_user)
		record(c, "net=user");
	for (u32 i = 0; i < d->o->n_shares; i++) {
		const struct share_option *s = &d->o->share[i];
		char *same = s->guest ? NULL : realpath(s->share.path, NULL);

		if (s->guest || same)
			record(c, "share=%s:%s:%s", s->share.tag, s->share.writable ? "rw" : "ro", s->guest ? s->guest : same);
		free(same);
	}
}

static int make_guest(struct duplicate *d, struct err *e)
{
	struct config *c = calloc(1, sizeof(*c));
	int ret = -ENOMEM;

	if (!c)
		return err_set(e, ENOMEM, "run: no memory");
	configure(d, c);
	ret = c->full ? err_set(e, E2BIG, "--share: too long together") : duplicate_guest(&d->guest, c->text, c->n, d->o->net, e);
	free(c);
	return ret;
}

/* ---- preparation ---- */
int duplicate_cwd(const char *workdir, char *buf, size_t n, struct err *e)
{
	if (!workdir)
		return getcwd(buf, n) ? 0 : err_set(e, errno, "working directory: %s (give --workdir)", strerror(errno));
	if (workdir[0] != '/' || strlen(workdir) >= n)
		return err_set(e, EINVAL, "--workdir %s: not an absolute path", workdir);
	snprintf(buf, n, "%s", workdir);
	return 0;
}

int duplicate_prepare(struct duplicate *d, const struct duplicate_options *o, const struct instance *in, struct err *e)
{
	int ret = 0;

	*d = (struct duplicate){.o = o, .layer.fd = -1, .guest.initrd_fd = -1, .listen_fd = -1};
	ret = duplicate_cwd(o->workdir, d->cwd, sizeof(d->cwd), e);
	if (!ret)
		ret = user_resolve(&d->user, o->user, o->env, o->n_env, e);
	if (!ret)
		ret = make_guest(d, e);
	if (!ret)
		ret = o->keep ? layer_kept(&d->layer, o->keep, !o->must_exist, e) : layer_temporary(&d->layer, e);
	if (!ret) {
		d->listen_fd = instance_socket(in, "vsock.sock", e);
		ret = d->listen_fd < 0 ? d->listen_fd : 0;
	}
	if (ret)
		duplicate_free(d);
	return ret;
}

void duplicate_free(struct duplicate *d)
{
	layer_close(&d->layer);
	user_free(&d->user);
	if (d->guest.initrd_fd >= 0)
		close(d->guest.initrd_fd);
	if (d->listen_fd >= 0)
		close(d->listen_fd);
	d->guest.initrd_fd = d->listen_fd = -1;
}

int duplicate_machine(struct duplicate *d, const struct instance *in, struct machine_config *cfg, struct err *e)
{
	const char *root = getenv("DOPPEL_ROOT_DISK");
	char path[sizeof(in->dir) + 16];
	u32 extra = root ? 2 : 1;
	int ret = 0;

	if (cfg->ndisks + extra > MACHINE_DISKS_MAX)
		return err_set(e, E2BIG, "--disk: more than %u with a duplicate", MACHINE_DISKS_MAX - extra);
	memmove(cfg->disk + extra, cfg->disk, cfg->ndisks * sizeof(cfg->disk[0]));
	/* a guest may have written anything at its start: raw it is; and what nobody keeps needs no flushes */
	cfg->disk[0] = (struct machine_disk){.disk = {.path = d->layer.path, .format = DISK_FORMAT_RAW,
						      .cache = d->o->keep ? DISK_CACHE_WRITEBACK : DISK_CACHE_UNSAFE}};
	if (root)
		cfg->disk[1] = (struct machine_disk){.disk = {.path = root, .format = DISK_FORMAT_RAW, .read_only = true}};
	cfg->ndisks += extra;
	if (cfg->nshares == SHARES_MAX)
		return err_set(e, E2BIG, "--share: more than %d with a duplicate", SHARES_MAX - 1);
	if (!root)
		cfg->share[cfg->nshares++] = (struct machine_share){.path = "/", .tag = "doppel-root", .cache = "always"};
	cfg->no_reboot = true;
	snprintf(path, sizeof(path), "%s/vsock.sock", in->dir);
	cfg->vsock = (struct virtio_vsock_options){.cid = GUEST_CID, .listen_fd = d->listen_fd};
	ret = dialer_start(path, &cfg->vsock.dialer, e);
	d->listen_fd = -1;
	return ret;
}

/* ---- sessions ---- */
static int session(const char *name, const struct session_request *q, const struct session_vm *vm, session_sink *sink,
		   void *arg, struct session_result *out, struct err *e)
{
	int sock = instance_connect(name, "vsock.sock", e), ret = sock;

	if (sock < 0)
		return ret;
	ret = session_run(sock, q, vm, sink, arg, out, e);
	close(sock);
	return ret;
}

int duplicate_session(const struct user *u, const char *cwd, const char *name, const struct duplicate_command *c,
		      const struct session_vm *vm, struct session_result *out, struct err *e)
{
	char *shell[] = {u->shell, NULL};
	mode_t mask = umask(0);
	struct session_request q = {.operation = OP_RUN, .argv = c->argv ? c->argv : shell, .env = u->env, .cwd = cwd, .uid = u->uid,
				    .gid = u->gid, .umask = mask, .groups = (u32 *)u->groups, .n_groups = u->n_groups,
				    .no_input = c->no_input};

	umask(mask);
	return session(name, &q, vm, c->sink, c->arg, out, e);
}

static int no_output(void *arg, int fd, const u8 *p, size_t n)
{
	return 0;
}

int duplicate_operation(const char *name, u32 operation, char **args, session_sink *sink, void *arg, struct err *e)
{
	struct session_request q = {.operation = operation, .argv = args, .no_input = true};
	struct session_result r;
	int ret = session(name, &q, NULL, sink ? sink : no_output, arg, &r, e);

	if (ret)
		return ret;
	if (r.end == SESSION_STATUS && r.value == 0)
		return 0;
	return err_set(e, EIO, "%s: the agent in the duplicate: %s", name,
		       r.end == SESSION_FAILED ? (r.text[0] ? r.text : strerror(r.value)) : "no answer");
}

/* A duplicate that ends by itself has said why on its console: init in a line of its own, the kernel in its last lines. */
void duplicate_tell_end(struct console *c, const char *reason)
{
	char *tail = malloc(CONSOLE_TAIL + 1), words[600];
	size_t n = tail ? console_tail(c, tail, CONSOLE_TAIL) : 0;

	words[0] = 0;
	if (tail) {
		for (size_t i = 0; i < n; i++)
			tail[i] = tail[i] ? tail[i] : ' ';
		tail[n] = 0;
		last_words(tail, words, sizeof(words));
	}
	free(tail);
	log_msg(LOG_ERROR, "guest: it ended (%s)%s%s", reason ? reason : "?", words[0] ? ": " : "", words);
}

/* What a duplicate does not touch costs nothing; what it reads stays in its page cache. */
u64 run_default_memory(bool duplicate)
{
	struct sysinfo si;
	u64 half = sysinfo(&si) == 0 ? (u64)si.totalram * si.mem_unit / 2 & PAGE_MASK : 0;

	return duplicate ? MIN(MAX(half, 512ull << 20), 2ull << 30) : 512ull << 20;
}
