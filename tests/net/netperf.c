/*
 * Measures TCP between a guest and its host, at either end of it:
 *   netperf serve ADDRESS PORT            prints "serving" when it does; serves one connection after the other
 *   netperf send|recv ADDRESS PORT MIB    prints MiB/s; recv checks the bytes
 *   netperf http ADDRESS PORT COUNT       that many short HTTP requests, a connection each; prints how many were answered rightly
 *   netperf udp ADDRESS PORT COUNT        datagrams of 1 to 9000 bytes, each to be echoed; prints how many were
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 256 << 10, BODY = 1000 };
static unsigned char chunk[CHUNK];

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct sockaddr_in address(const char *host, const char *port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port))};

	if (inet_pton(AF_INET, host, &a.sin_addr) != 1)
		exit(2);
	return a;
}

static int write_all(int fd, const void *p, size_t n)
{
	const char *at = p;

	while (n) {
		ssize_t r = write(fd, at, n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return -1;
		at += r;
		n -= (size_t)r;
	}
	return 0;
}

static int push(int fd, unsigned long long n)
{
	while (n) {
		size_t now_n = n < CHUNK ? (size_t)n : CHUNK;

		if (write_all(fd, chunk, now_n))
			return -1;
		n -= now_n;
	}
	return 0;
}

/* The stream repeats chunk, so that each byte's value is known from its place. */
static int pull(int fd, unsigned long long n)
{
	static unsigned char buf[CHUNK];
	unsigned long long at = 0;

	while (at < n) {
		size_t off = at % CHUNK, want = CHUNK - off;
		ssize_t r = read(fd, buf, n - at < want ? (size_t)(n - at) : want);

		if (r <= 0)
			return -1;
		if (memcmp(buf, chunk + off, (size_t)r) != 0) {
			fprintf(stderr, "netperf: wrong bytes at %llu\n", at);
			return -1;
		}
		at += (unsigned long long)r;
	}
	return 0;
}

static int read_line(int fd, char *line, size_t n)
{
	size_t at = 0;

	while (at + 1 < n && read(fd, line + at, 1) == 1 && line[at] != '\n')
		at++;
	line[at] = 0;
	return at ? 0 : -1;
}

static void serve_one(int fd)
{
	char line[200], head[200];
	unsigned long long n = 0;

	if (read_line(fd, line, sizeof(line)))
		return;
	if (sscanf(line, "SEND %llu", &n) == 1) {
		if (!pull(fd, n))
			write_all(fd, "OK\n", 3);
	} else if (sscanf(line, "RECV %llu", &n) == 1) {
		push(fd, n);
		read_line(fd, line, sizeof(line)); /* the other end closes first */
	} else if (!strncmp(line, "GET ", 4)) {
		while (!read_line(fd, line, sizeof(line)) && line[0] != '\r')
			;
		snprintf(head, sizeof(head), "HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n", BODY);
		write_all(fd, head, strlen(head));
		write_all(fd, chunk, BODY);
	}
}

static void echo(int u)
{
	static char buf[65536];
	struct sockaddr_in from;
	socklen_t n = sizeof(from);
	ssize_t r = recvfrom(u, buf, sizeof(buf), 0, (struct sockaddr *)&from, &n);

	if (r >= 0 && sendto(u, buf, (size_t)r, 0, (struct sockaddr *)&from, n) < 0)
		perror("netperf: echo");
}

static int serve(const struct sockaddr_in *a)
{
	int on = 1, s = socket(AF_INET, SOCK_STREAM, 0), u = socket(AF_INET, SOCK_DGRAM, 0);

	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(s, (const struct sockaddr *)a, sizeof(*a)) || listen(s, 128) ||
	    bind(u, (const struct sockaddr *)a, sizeof(*a))) {
		perror("netperf: bind");
		return 1;
	}
	puts("serving");
	fflush(stdout);
	for (;;) {
		struct pollfd p[2] = {{.fd = s, .events = POLLIN}, {.fd = u, .events = POLLIN}};
		int fd = -1;

		poll(p, 2, -1);
		if (p[1].revents)
			echo(u);
		if (p[0].revents)
			fd = accept(s, NULL, NULL);
		if (fd < 0)
			continue;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		serve_one(fd);
		close(fd);
	}
}

static int dial(const struct sockaddr_in *a)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (fd >= 0 && connect(fd, (const struct sockaddr *)a, sizeof(*a)) == 0)
		return fd;
	perror("netperf: connect");
	close(fd);
	return -1;
}

static int stream(const struct sockaddr_in *a, int sending, unsigned long long mib)
{
	char line[80];
	int fd = dial(a), bad = 0;
	double start = now();

	if (fd < 0)
		return 1;
	snprintf(line, sizeof(line), "%s %llu\n", sending ? "SEND" : "RECV", mib << 20);
	bad = write_all(fd, line, strlen(line)) || (sending ? push(fd, mib << 20) : pull(fd, mib << 20));
	if (!bad && sending)
		bad = read_line(fd, line, sizeof(line)) || strcmp(line, "OK") != 0;
	printf("netperf %s %llu MiB: %s %.1f MiB/s\n", sending ? "send" : "recv", mib, bad ? "FAILED" : "ok",
	       (double)mib / (now() - start));
	close(fd);
	return bad;
}

static int get(const struct sockaddr_in *a)
{
	static const char request[] = "GET /x HTTP/1.0\r\nHost: x\r\n\r\n";
	unsigned char reply[4096];
	size_t n = 0;
	ssize_t r = 0;
	int fd = dial(a);

	if (fd < 0)
		return 1;
	if (write_all(fd, request, sizeof(request) - 1) == 0)
		while (n < sizeof(reply) && (r = read(fd, reply + n, sizeof(reply) - n)) > 0)
			n += (size_t)r;
	close(fd);
	return n < BODY || memcmp(reply + n - BODY, chunk, BODY) != 0;
}

static int http(const struct sockaddr_in *a, unsigned long count)
{
	unsigned long good = 0;
	double start = now();

	for (unsigned long i = 0; i < count; i++)
		good += !get(a);
	printf("netperf http %lu of %lu answered, %.0f/s\n", good, count, (double)count / (now() - start));
	return good != count;
}

static int udp(const struct sockaddr_in *a, unsigned long count)
{
	static unsigned char reply[65536];
	struct timeval wait = {.tv_sec = 1};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	unsigned long good = 0;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	if (connect(fd, (const struct sockaddr *)a, sizeof(*a)))
		return 1;
	for (unsigned long i = 0; i < count; i++) {
		ssize_t n = 1 + (ssize_t)(i * 7919 % 9000), r = 0;

		if (send(fd, chunk + i, (size_t)n, 0) != n)
			continue;
		do
			r = recv(fd, reply, sizeof(reply), 0);
		while (r >= 0 && (r != n || memcmp(reply, chunk + i, (size_t)n) != 0)); /* one that is late */
		good += r == n;
	}
	printf("netperf udp %lu of %lu echoed\n", good, count);
	return good != count;
}

int main(int argc, char **argv)
{
	struct sockaddr_in a;

	signal(SIGPIPE, SIG_IGN);
	for (unsigned i = 0; i < CHUNK; i++)
		chunk[i] = (unsigned char)(i * 2654435761u >> 13);
	if (argc < 4)
		return 2;
	a = address(argv[2], argv[3]);
	if (!strcmp(argv[1], "serve"))
		return serve(&a);
	if (argc < 5)
		return 2;
	if (!strcmp(argv[1], "http"))
		return http(&a, strtoul(argv[4], NULL, 0));
	if (!strcmp(argv[1], "udp"))
		return udp(&a, strtoul(argv[4], NULL, 0));
	return stream(&a, !strcmp(argv[1], "send"), strtoull(argv[4], NULL, 0));
}
