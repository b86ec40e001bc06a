/*
 * Server side. Clients are this user's processes, but their bytes are checked as anybody's: a line is at most INPUT_MAX, a client
 * that does not read its answers is dropped at OUTPUT_MAX, there are at most CLIENTS_MAX. Main thread only.
 */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "vmm/qmp_int.h"

enum { CLIENTS_MAX = 16, INPUT_MAX = 64 << 10, OUTPUT_MAX = 1 << 20 };

struct qmp_client {
	struct qmp_client *next;
	struct qmp *q;
	int fd;
	bool ready;      /* has negotiated */
	bool gone;       /* to be closed when the callback is done */
	bool log_only;
	bool has_fd;     /* fd goes with the next byte that is sent */
	int pass_fd;
	void (*closed)(struct machine *m, u64 what);
	u64 closed_what;
	bool to_console; /* becomes a console session when its output is out */
	char *in, *out;
	size_t nin, nout, out_cap;
};

struct qmp {
	struct loop *loop;
	struct qmp_options o;
	struct qmp_client *clients;
	u32 nclients;
};

size_t qmp_frame(const char *p, size_t n)
{
	u32 depth = 0;
	bool in_string = false, started = false;

	for (size_t i = 0; i < n; i++) {
		if (in_string) {
			if (p[i] == '\\')
				i++;
			else if (p[i] == '"')
				in_string = false;
			continue;
		}
		if (p[i] == '"')
			in_string = started = true;
		else if (p[i] == '{' || p[i] == '[') {
			depth++;
			started = true;
		} else if ((p[i] == '}' || p[i] == ']') && depth) {
			depth--;
			if (!depth)
				return i + 1;
		} else if (p[i] == '\n' && !depth && started) {
			return i + 1;
		} else if (p[i] != '\n' && p[i] != '\r' && p[i] != ' ' && p[i] != '\t') {
			started = true;
		}
	}
	return 0;
}

/* ---- output ---- */
static ssize_t send_with_fd(struct qmp_client *c)
{
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = {0};
	struct iovec iov = {c->out, c->nout};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	ssize_t r = 0;

	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(h), &c->pass_fd, sizeof(int));
	r = sendmsg(c->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (r > 0) {
		close(c->pass_fd);
		c->has_fd = false;
	}
	return r;
}

static void client_flush(struct qmp_client *c)
{
	while (c->nout) {
		ssize_t r = c->has_fd ? send_with_fd(c) : send(c->fd, c->out, c->nout, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0) {
			c->gone |= errno != EAGAIN;
			break;
		}
		memmove(c->out, c->out + r, c->nout - (size_t)r);
		c->nout -= (size_t)r;
	}
	loop_mod(c->q->loop, c->fd, EPOLLIN | (c->nout ? EPOLLOUT : 0));
}

static void client_send(struct qmp_client *c, cJSON *j)
{
	char *text = cJSON_PrintUnformatted(j);
	size_t n = text ? strlen(text) + 2 : 0;

	cJSON_Delete(j);
	if (!text || c->nout + n > OUTPUT_MAX) {
		c->gone = true;
	} else if (c->nout + n > c->out_cap) {
		size_t cap = MAX(2 * c->out_cap, c->nout + n);
		char *bigger = realloc(c->out, cap);

		if (bigger) {
			c->out = bigger;
			c->out_cap = cap;
		} else {
			c->gone = true;
		}
	}
	if (!c->gone) {
		memcpy(c->out + c->nout, text, n - 2);
		memcpy(c->out + c->nout + n - 2, "\r\n", 2);
		c->nout += n;
		client_flush(c);
	}
	free(text);
}

static void client_free(struct qmp_client *c)
{
	for (struct qmp_client **p = &c->q->clients; *p; p = &(*p)->next) {
		if (*p == c) {
			*p = c->next;
			c->q->nclients--;
			break;
		}
	}
	if (c->fd >= 0) {
		loop_del(c->q->loop, c->fd);
		close(c->fd);
	}
	if (c->has_fd)
		close(c->pass_fd);
	if (c->closed)
		c->closed(c->q->o.machine, c->closed_what);
	free(c->in);
	free(c->out);
	free(c);
}

/* What ends the request's line is not for the guest, even when it comes late. */
static bool line_is_over(const struct qmp_client *c)
{
	return c->nin && memchr(c->in, '\n', c->nin);
}

/* The connection is a console from here on. */
static void client_to_console(struct qmp_client *c)
{
	struct console_session_options o = {.in = c->fd, .out = c->fd, .owned = true, .replay = true, .once = c->log_only};

	loop_del(c->q->loop, c->fd);
	if (console_session_add(c->q->o.console, &o) == 0)
		c->fd = -1;
	client_free(c);
}

/* ---- requests ---- */
static cJSON *error_of(const char *class, const char *desc)
{
	cJSON *j = cJSON_CreateObject(), *e = cJSON_AddObjectToObject(j, "error");

	cJSON_AddStringToObject(e, "class", class);
	cJSON_AddStringToObject(e, "desc", desc);
	return j;
}

static cJSON *run_command(struct qmp_client *c, const char *name, struct qmp_answer *a)
{
	const struct qmp_command *cmd = qmp_command_find(name);
	char text[160];
	cJSON *j = NULL;

	if (!strcmp(name, "qmp_capabilities")) {
		if (c->ready)
			return error_of("CommandNotFound", "Capabilities negotiation is already complete, command ignored");
		c->ready = true;
		a->result = cJSON_CreateObject();
	} else if (!c->ready) {
		return error_of("CommandNotFound", "Expecting capabilities negotiation with 'qmp_capabilities'");
	} else if (!cmd) {
		snprintf(text, sizeof(text), "The command %.80s has not been found", name);
		return error_of("CommandNotFound", text);
	} else {
		cmd->run(&c->q->o, a);
		if (a->error)
			return error_of("GenericError", a->error);
	}
	j = cJSON_CreateObject();
	cJSON_AddItemToObject(j, "return", a->result ? a->result : cJSON_CreateObject());
	return j;
}

static void handle_request(struct qmp_client *c, const char *p, size_t n)
{
	cJSON *req = cJSON_ParseWithLength(p, n), *reply = NULL;
	const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(req, "execute"));
	struct qmp_answer a = {.args = cJSON_GetObjectItemCaseSensitive(req, "arguments")};

	if (!req)
		reply = error_of("GenericError", "Invalid JSON syntax");
	else if (!cJSON_IsObject(req))
		reply = error_of("GenericError", "QMP input must be a JSON object");
	else if (!name)
		reply = error_of("GenericError", "QMP input lacks member 'execute'");
	else
		reply = run_command(c, name, &a);
	if (cJSON_GetObjectItemCaseSensitive(req, "id"))
		cJSON_AddItemToObject(reply, "id", cJSON_Duplicate(cJSON_GetObjectItemCaseSensitive(req, "id"), true));
	cJSON_Delete(req);
	c->to_console |= a.to_console;
	c->log_only |= a.log_only;
	if (a.closed) {
		c->closed = a.closed;
		c->closed_what = a.closed_what;
	}
	if (a.has_fd && c->has_fd) { /* one at a time: the last has not left yet */
		close(a.fd);
	} else if (a.has_fd) {
		c->has_fd = true;
		c->pass_fd = a.fd;
	}
	client_send(c, reply);
	if (a.then)
		a.then(c->q->o.machine);
}

static void client_input(struct qmp_client *c)
{
	ssize_t r = recv(c->fd, c->in + c->nin, INPUT_MAX - c->nin, MSG_DONTWAIT);
	size_t n = 0;

	if (r < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (r <= 0) {
		c->gone = true;
		return;
	}
	c->nin += (size_t)r;
	while (!c->gone && !c->to_console && (n = qmp_frame(c->in, c->nin))) {
		handle_request(c, c->in, n);
		memmove(c->in, c->in + n, c->nin - n);
		c->nin -= n;
	}
	if (c->nin == INPUT_MAX) {
		client_send(c, error_of("GenericError", "JSON token size limit exceeded"));
		c->gone = true;
	}
}

static void client_event(void *arg, u32 events)
{
	struct qmp_client *c = arg;

	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		client_input(c);
	if (!c->gone && (events & EPOLLOUT))
		client_flush(c);
	if (c->gone)
		client_free(c);
	else if (c->to_console && !c->nout && line_is_over(c))
		client_to_console(c);
}

/* ---- events ---- */
static const struct {
	const char *name;
	bool has_reason;
} notices[] = {
	[NOTICE_STOP] = {"STOP", false},	 [NOTICE_RESUME] = {"RESUME", false},
	[NOTICE_SHUTDOWN] = {"SHUTDOWN", true},	 [NOTICE_RESET] = {"RESET", true},
	[NOTICE_POWERDOWN] = {"POWERDOWN", false}, [NOTICE_PANIC] = {"GUEST_PANICKED", false},
};

static cJSON *notice_json(enum machine_notice n, const char *reason)
{
	cJSON *j = cJSON_CreateObject(), *t = NULL, *data = NULL;
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	t = cJSON_AddObjectToObject(j, "timestamp");
	cJSON_AddNumberToObject(t, "seconds", (double)ts.tv_sec);
	cJSON_AddNumberToObject(t, "microseconds", (double)(ts.tv_nsec / 1000));
	cJSON_AddStringToObject(j, "event", notices[n].name);
	if (notices[n].has_reason) {
		reason = reason ? reason : "guest-reset";
		data = cJSON_AddObjectToObject(j, "data");
		cJSON_AddBoolToObject(data, "guest", !strncmp(reason, "guest", 5));
		cJSON_AddStringToObject(data, "reason", reason);
	} else if (n == NOTICE_PANIC) {
		data = cJSON_AddObjectToObject(j, "data");
		cJSON_AddStringToObject(data, "action", "poweroff");
	}
	return j;
}

/* Clients are only marked here: this may run inside one's own callback. */
void qmp_notice(struct qmp *q, enum machine_notice n, const char *reason)
{
	for (struct qmp_client *c = q ? q->clients : NULL; c; c = c->next)
		if (c->ready && !c->gone && !c->to_console)
			client_send(c, notice_json(n, reason));
}

/* ---- connections ---- */
static cJSON *greeting(const struct qmp *q)
{
	cJSON *j = cJSON_CreateObject(), *g = cJSON_AddObjectToObject(j, "QMP");

	cJSON_AddItemToObject(g, "version", qmp_version_json(q->o.version));
	cJSON_AddArrayToObject(g, "capabilities");
	return j;
}

static void accept_client(void *arg, u32 events)
{
	struct qmp *q = arg;
	int fd = accept4(q->o.listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct qmp_client *c = NULL;

	if (fd < 0)
		return;
	c = q->nclients < CLIENTS_MAX ? calloc(1, sizeof(*c)) : NULL;
	if (!c) {
		close(fd);
		return;
	}
	*c = (struct qmp_client){.q = q, .fd = fd, .in = malloc(INPUT_MAX), .next = q->clients};
	q->clients = c;
	q->nclients++;
	if (!c->in || loop_add(q->loop, fd, EPOLLIN, client_event, c) < 0)
		c->gone = true;
	else
		client_send(c, greeting(q));
	if (c->gone)
		client_free(c);
}

int qmp_start(const struct qmp_options *o, struct qmp **out)
{
	struct qmp *q = calloc(1, sizeof(*q));
	int ret = 0;

	if (!q)
		return -ENOMEM;
	q->o = *o;
	q->loop = machine_loop(o->machine);
	ret = loop_add(q->loop, o->listen_fd, EPOLLIN, accept_client, q);
	if (ret) {
		free(q);
		return ret;
	}
	*out = q;
	return 0;
}

void qmp_machine_ends(struct qmp *q)
{
	for (struct qmp_client *c = q ? q->clients : NULL; c; c = c->next)
		c->closed = NULL;
}

void qmp_stop(struct qmp *q)
{
	if (!q)
		return;
	while (q->clients)
		client_free(q->clients);
	loop_del(q->loop, q->o.listen_fd);
	close(q->o.listen_fd);
	free(q);
}
