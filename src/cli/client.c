/* QMP client: one request at a time, answers of bounded size. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/socket.h>
#include <unistd.h>
#include "cli/client.h"
#include "vmm/instance.h"
#include "vmm/qmp.h"

enum { MESSAGE_MAX = 1 << 20, ANSWER_MS = 10000 };

void client_close(struct client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	if (c->has_fd)
		close(c->passed);
	free(c->buf);
	*c = (struct client){.fd = -1};
}

static ssize_t receive(struct client *c, size_t n)
{
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
	struct iovec iov = {c->buf + c->n, n};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	ssize_t r = recvmsg(c->fd, &m, MSG_CMSG_CLOEXEC);
	struct cmsghdr *h = r > 0 ? CMSG_FIRSTHDR(&m) : NULL;

	if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS && h->cmsg_len == CMSG_LEN(sizeof(int))) {
		if (c->has_fd)
			close(c->passed);
		memcpy(&c->passed, CMSG_DATA(h), sizeof(int));
		c->has_fd = true;
	}
	return r;
}

/* One byte more than the message is never read: what follows the console command's answer is the console's. */
static size_t next_part(struct client *c)
{
	size_t n = 0;
	ssize_t r = recv(c->fd, c->buf + c->n, MESSAGE_MAX - c->n, MSG_PEEK);

	if (r <= 0)
		return 0;
	n = qmp_frame(c->buf, c->n + (size_t)r);
	n = n ? n - c->n : (size_t)r;
	return receive(c, n) == (ssize_t)n ? n : 0;
}

int client_message(struct client *c, int timeout_ms, cJSON **out)
{
	s64 end = (s64)now_ms() + timeout_ms;

	for (;;) {
		struct pollfd pfd = {.fd = c->fd, .events = POLLIN};
		size_t n = qmp_frame(c->buf, c->n);
		int left = timeout_ms < 0 ? -1 : (int)MAX(end - (s64)now_ms(), (s64)0);

		if (n) {
			*out = cJSON_ParseWithLength(c->buf, n);
			memmove(c->buf, c->buf + n, c->n - n);
			c->n -= n;
			return *out ? 0 : -EPROTO;
		}
		if (c->n == MESSAGE_MAX)
			return -EPROTO;
		if (poll(&pfd, 1, left) == 0)
			return -ETIMEDOUT;
		n = next_part(c);
		if (!n)
			return -ECONNRESET;
		c->n += n;
	}
}

int client_open(struct client *c, const char *name, struct err *e)
{
	cJSON *greeting = NULL;
	int ret = instance_connect(name, "qmp.sock", e);

	*c = (struct client){.fd = ret, .name = name};
	if (ret < 0)
		return ret;
	c->buf = malloc(MESSAGE_MAX);
	ret = c->buf ? client_message(c, ANSWER_MS, &greeting) : -ENOMEM;
	cJSON_Delete(greeting);
	if (ret)
		ret = err_set(e, -ret, "%s: the VM does not answer: %s", name, strerror(-ret));
	else
		ret = client_call(c, "qmp_capabilities", NULL, e);
	if (ret)
		client_close(c);
	return ret;
}

static int send_request(struct client *c, const char *command, cJSON *args)
{
	cJSON *j = cJSON_CreateObject();
	char *text = NULL, *line = NULL;
	int ret = -ENOMEM;

	cJSON_AddStringToObject(j, "execute", command);
	if (args)
		cJSON_AddItemToObject(j, "arguments", args);
	text = cJSON_PrintUnformatted(j);
	cJSON_Delete(j);
	if (text && asprintf(&line, "%s\r\n", text) > 0) {
		ret = write_all(c->fd, line, strlen(line));
		free(line);
	}
	free(text);
	return ret;
}

int client_call(struct client *c, const char *command, cJSON **result, struct err *e)
{
	return client_call_with(c, command, NULL, result, e);
}

int client_call_with(struct client *c, const char *command, cJSON *args, cJSON **result, struct err *e)
{
	cJSON *j = NULL, *value = NULL;
	int ret = send_request(c, command, args);

	do {
		cJSON_Delete(j);
		j = NULL;
		if (!ret)
			ret = client_message(c, ANSWER_MS, &j);
	} while (!ret && cJSON_HasObjectItem(j, "event"));
	if (ret)
		return err_set(e, -ret, "%s: the VM does not answer: %s", c->name, strerror(-ret));
	value = cJSON_DetachItemFromObject(j, "return");
	if (!value) {
		const cJSON *desc = cJSON_GetObjectItem(cJSON_GetObjectItem(j, "error"), "desc");

		ret = err_set(e, EPROTO, "%s: %s: %s", c->name, command,
			      cJSON_IsString(desc) ? desc->valuestring : "unexpected answer");
	}
	if (result && value)
		*result = value;
	else
		cJSON_Delete(value);
	cJSON_Delete(j);
	return ret;
}

int client_do(const char *name, const char *command, cJSON **result, struct err *e)
{
	return client_do_with(name, command, NULL, result, e);
}

int client_do_with(const char *name, const char *command, cJSON *args, cJSON **result, struct err *e)
{
	struct client c;
	int ret = client_open(&c, name, e);

	if (ret) {
		cJSON_Delete(args);
		return ret;
	}
	ret = client_call_with(&c, command, args, result, e);
	client_close(&c);
	return ret;
}
