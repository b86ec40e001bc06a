/*
 * The network of a duplicate with --net user: the addresses that `doppel-net` gives out are always the same, so no DHCP client is
 * needed. Other networks' cards are the user's to set up.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest/init.h"

#define CARD     "eth0"
#define ADDRESS  "10.0.2.15"
#define MASK     "255.255.255.0"
#define ROUTER   "10.0.2.2"
#define RESOLVER "nameserver 10.0.2.3\n"

static struct sockaddr address(const char *text)
{
	struct sockaddr_in in = {.sin_family = AF_INET};
	struct sockaddr out;

	inet_pton(AF_INET, text, &in.sin_addr);
	memcpy(&out, &in, sizeof(out));
	return out;
}

static int bring_up(int fd, const char *name)
{
	struct ifreq r = {0};

	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
	if (ioctl(fd, SIOCGIFFLAGS, &r) < 0)
		return -errno;
	r.ifr_flags |= IFF_UP;
	return ioctl(fd, SIOCSIFFLAGS, &r) < 0 ? -errno : 0;
}

static int set_address(int fd)
{
	struct ifreq r = {.ifr_name = CARD, .ifr_addr = address(ADDRESS)};

	if (ioctl(fd, SIOCSIFADDR, &r) < 0)
		return -errno;
	r.ifr_netmask = address(MASK);
	return ioctl(fd, SIOCSIFNETMASK, &r) < 0 ? -errno : 0;
}

static int set_route(int fd)
{
	char card[] = CARD;
	struct rtentry r = {.rt_dst = address("0.0.0.0"), .rt_genmask = address("0.0.0.0"), .rt_gateway = address(ROUTER),
			    .rt_flags = RTF_UP | RTF_GATEWAY, .rt_dev = card};

	return ioctl(fd, SIOCADDRT, &r) < 0 ? -errno : 0;
}

static int write_resolver(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	ssize_t n = fd < 0 ? -1 : write(fd, RESOLVER, sizeof(RESOLVER) - 1);

	if (fd >= 0)
		close(fd);
	return n < 0 || chmod(path, 0644) < 0 ? -errno : 0;
}

/* systemd-resolved and others have a link into /run there, and ours is empty: what it leads to is made. */
static int make_link_target(void)
{
	char link[256], path[sizeof(link) + 8];
	ssize_t n = readlink("/etc/resolv.conf", link, sizeof(link) - 1);
	const char *run = NULL;

	link[n > 0 ? n : 0] = 0;
	run = !strncmp(link, "../run/", 7) ? link + 2 : link;
	if (strncmp(run, "/run/", 5) != 0 || strstr(run, ".."))
		return -ENOENT;
	snprintf(path, sizeof(path), "%s", run);
	for (char *s = strchr(path + 5, '/'); s; s = strchr(s + 1, '/')) {
		*s = 0;
		mkdir(path, 0755);
		*s = '/';
	}
	return write_resolver(path);
}

/* Over the machine's own file, not into it: it is no change of the duplicate's. */
static int set_resolver(void)
{
	int e = write_resolver("/run/resolv.conf");

	if (e)
		return e;
	e = mount("/run/resolv.conf", "/etc/resolv.conf", NULL, MS_BIND, NULL) < 0 ? -errno : 0;
	return e == -ENOENT ? make_link_target() : e;
}

void network_up(bool user)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), e = fd < 0 ? -errno : bring_up(fd, "lo");

	if (!e && user) {
		e = set_address(fd);
		if (!e)
			e = bring_up(fd, CARD);
		if (!e)
			e = set_route(fd);
		if (!e)
			e = set_resolver();
	}
	if (e)
		printf("init: network: %s\n", strerror(-e));
	if (fd >= 0)
		close(fd);
}
