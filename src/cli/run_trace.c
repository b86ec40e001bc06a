/* The process that writes a trace: it gets the rings' memfd through a socket, whose end is the VM's end. */
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/run_trace.h"
#include "cli/trace_follow.h"
#include "kvm/chan.h"
#include "vmm/machine.h"

static const char *const formats[] = {[TRACE_TEXT] = "text", [TRACE_JSON] = "json", [TRACE_CHROME] = "chrome", [TRACE_RAW] = "raw"};

static int parse_format(struct run_trace *t, const char *p, size_t n)
{
	for (u32 i = 0; i < ARRAY_SIZE(formats); i++) {
		if (strlen(formats[i]) == n && !strncmp(formats[i], p, n)) {
			t->format = (enum trace_format)i;
			return 0;
		}
	}
	return -EINVAL;
}

int run_trace_parse(struct run_trace *t, const char *value, struct err *e)
{
	size_t n = strcspn(value, ",");
	const char *p = value + n;

	free(t->path);
	*t = (struct run_trace){.path = strndup(value, n), .choice.kinds = TRACE_ALL, .sock = -1};
	if (!n || !t->path)
		return err_set(e, EINVAL, "%s: no file (FILE[,format=text|json|chrome][,wait][,events=LIST])", value);
	while (*p) {
		n = strcspn(++p, ",");
		if (!strncmp(p, "events=", 7))
			return trace_choice_parse(&t->choice, p + 7, e);
		if (n == 4 && !strncmp(p, "wait", 4))
			t->wait = true;
		else if (strncmp(p, "format=", 7) != 0 || parse_format(t, p + 7, n - 7))
			return err_set(e, EINVAL, "%.*s: not an option of --trace (format=text|json|chrome, wait, events=LIST)",
				       (int)MIN(n, (size_t)60), p);
		p += n;
	}
	return 0;
}

static int receive_fd(int sock)
{
	char byte, control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
	struct iovec iov = {&byte, 1};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *h = NULL;
	int fd = -1;

	if (recvmsg(sock, &m, MSG_CMSG_CLOEXEC) <= 0)
		return -1;
	h = CMSG_FIRSTHDR(&m);
	if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS && h->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(&fd, CMSG_DATA(h), sizeof(int));
	return fd;
}

static int write_all_events(const struct run_trace *t, FILE *out, int fd, int sock)
{
	struct trace_writer w = {.out = out, .format = t->format};
	struct trace_follow f = {.choice = &t->choice, .w = &w};
	struct pollfd p = {.fd = sock, .events = POLLIN};

	if (trace_reader_open(&f.reader, fd) < 0)
		return 1;
	trace_write_begin(&w, &f.reader.h);
	while (trace_follow_some(&f) && poll(&p, 1, TRACE_PERIOD_MS) == 0)
		;
	trace_follow_some(&f);
	trace_follow_end(&f);
	if (f.lost)
		log_msg(LOG_WARN, "--trace %s: %llu events were lost: the ring was full (with wait the guest is held instead)", t->path,
			(unsigned long long)f.lost);
	if (ferror(out))
		log_msg(LOG_ERROR, "--trace %s: cannot be written", t->path);
	trace_reader_close(&f.reader);
	return ferror(out) ? 1 : 0;
}

/* Ends when the VM does, whatever signals the terminal sends to us all. */
static _Noreturn void writer(const struct run_trace *t, FILE *out, int sock)
{
	int fd = -1, status = 0;

	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	fd = receive_fd(sock);
	if (fd >= 0)
		status = write_all_events(t, out, fd, sock);
	fclose(out);
	_exit(status);
}

int run_trace_fork(struct run_trace *t, struct err *e)
{
	int pair[2];
	FILE *out = NULL;

	if (!t->path)
		return 0;
	out = fopen(t->path, "we");
	if (!out)
		return err_set(e, errno, "--trace %s: %s", t->path, strerror(errno));
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0 || (t->pid = fork()) < 0) {
		fclose(out);
		return err_set(e, errno, "--trace: cannot start a process: %s", strerror(errno));
	}
	if (!t->pid) {
		close(pair[0]);
		writer(t, out, pair[1]);
	}
	close(pair[1]);
	fclose(out);
	t->sock = pair[0];
	return 0;
}

int run_trace_begin(struct run_trace *t, struct machine *m, struct err *e)
{
	struct doppel_trace q = {.kinds = t->choice.kinds, .cpus = ~0ull, .hi = ~0ull, .cpls = 15, .wait = t->wait};
	char byte = 0, control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = {0};
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *h = CMSG_FIRSTHDR(&msg);
	int fd = t->path ? machine_trace_start(m, &q, e) : -1;
	ssize_t r = 0;

	if (!t->path || fd < 0)
		return t->path ? fd : 0;
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(h), &fd, sizeof(int));
	r = sendmsg(t->sock, &msg, MSG_NOSIGNAL);
	close(fd);
	return r == 1 ? 0 : err_set(e, EPIPE, "--trace %s: the writing process is gone", t->path);
}

void run_trace_end(struct run_trace *t)
{
	if (t->path && t->sock >= 0) {
		close(t->sock);
		while (waitpid(t->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	free(t->path);
	t->path = NULL;
}
