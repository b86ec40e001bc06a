/* Listening sockets for a debugger. Whoever may connect owns the guest: without a host it is this machine alone. */
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "debug/gdb_address.h"

static int fail(int fd, const char *address, struct err *e)
{
	int ret = err_set(e, errno, "gdb: %s: %s", address, strerror(errno));

	if (fd >= 0)
		close(fd);
	return ret;
}

static int listen_path(const char *path, char *text, size_t n, struct err *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = -1;

	if (strlen(path) >= sizeof(a.sun_path))
		return err_set(e, ENAMETOOLONG, "gdb: %s: too long for a socket address", path);
	strcpy(a.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 1) < 0)
		return fail(fd, path, e);
	snprintf(text, n, "%s", path);
	return fd;
}

static int listen_on(const struct addrinfo *ai, const char *address, struct err *e)
{
	int one = 1, fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return fail(fd, address, e);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* connections inherit it */
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(fd, 1) < 0)
		return fail(fd, address, e);
	return fd;
}

/* Port 0 has become a real one. */
static void describe(int fd, const char *host, char *text, size_t n)
{
	struct sockaddr_storage a;
	socklen_t size = sizeof(a);
	char port[16] = "?";

	if (getsockname(fd, (struct sockaddr *)&a, &size) == 0)
		getnameinfo((struct sockaddr *)&a, size, NULL, 0, port, sizeof(port), NI_NUMERICSERV);
	snprintf(text, n, "%s:%s", host, port);
}

int gdb_address_listen(const char *address, char *text, size_t n, struct err *e)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *ai = NULL;
	const char *colon = strrchr(address, ':');
	char host[256] = "127.0.0.1";
	int ret = 0;

	if (strchr(address, '/'))
		return listen_path(address, text, n, e);
	if (!colon || !colon[1] || (size_t)(colon - address) >= sizeof(host))
		return err_set(e, EINVAL, "gdb: %s: not HOST:PORT, :PORT or a path with a /", address);
	if (colon > address)
		snprintf(host, sizeof(host), "%.*s", (int)(colon - address), address);
	if (host[0] == '[' && strlen(host) > 2 && host[strlen(host) - 1] == ']') { /* [::1]:PORT */
		host[strlen(host) - 1] = 0;
		memmove(host, host + 1, strlen(host));
	}
	ret = getaddrinfo(host, colon + 1, &hints, &ai);
	if (ret)
		return err_set(e, EINVAL, "gdb: %s: %s", address, gai_strerror(ret));
	ret = listen_on(ai, address, e);
	freeaddrinfo(ai);
	if (ret >= 0)
		describe(ret, strchr(host, ':') ? "localhost" : host, text, n);
	return ret;
}
