/* --net: from text to struct net_options. Nothing is opened here. */
#include "cli/net_opts.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <limits.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/paths.h"

#define ANY_KIND  0xffu
#define LOOPBACK4 "127.0.0.1"
#define NAME_CHARS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
enum { MTU_MIN = 576, MTU_MAX = 65520 };

static int parse_port(const char *text, u16 *port, struct err *e)
{
	char *end = NULL;
	unsigned long v = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || *end || v < 1 || v > 65535)
		return err_set(e, EINVAL, "%s: not a port (1 to 65535)", text);
	*port = (u16)v;
	return 0;
}

/* tcp:[ADDRESS:]HOSTPORT:GUESTPORT */
static int set_hostfwd(struct net_options *o, char *value, struct err *e)
{
	static const char usage[] = "tcp:[ADDRESS:]HOSTPORT:GUESTPORT or udp:...";
	struct net_forward f = {.address = LOOPBACK4};
	char *save = NULL, *part[4] = {NULL}, copy[64];
	struct in_addr a;
	unsigned n = 0;
	int ret = 0;

	if (o->n_forwards == NET_FORWARDS_MAX)
		return err_set(e, E2BIG, "more than %d forwarded ports", NET_FORWARDS_MAX);
	snprintf(copy, sizeof(copy), "%s", value);
	for (char *p = strtok_r(value, ":", &save); p; p = strtok_r(NULL, ":", &save)) {
		if (n == ARRAY_SIZE(part))
			return err_set(e, EINVAL, "hostfwd=%s: too many parts (%s)", copy, usage);
		part[n++] = p;
	}
	if (n < 3 || (strcmp(part[0], "tcp") != 0 && strcmp(part[0], "udp") != 0))
		return err_set(e, EINVAL, "hostfwd=%s: not understood (%s)", copy, usage);
	f.udp = part[0][0] == 'u';
	if (n == 4 && inet_pton(AF_INET, part[1], &a) != 1)
		return err_set(e, EINVAL, "hostfwd=%s: %s: not an IPv4 address of this machine", copy, part[1]);
	if (n == 4)
		snprintf(f.address, sizeof(f.address), "%s", part[1]);
	ret = parse_port(part[n - 2], &f.host_port, e);
	if (!ret)
		ret = parse_port(part[n - 1], &f.guest_port, e);
	if (!ret)
		o->forward[o->n_forwards++] = f;
	return ret;
}

static int set_hostloopback(struct net_options *o, char *value, struct err *e)
{
	o->host_loopback = !strcmp(value, "on");
	return o->host_loopback || !strcmp(value, "off") ? 0 : err_set(e, EINVAL, "hostloopback=%s: on or off", value);
}

static int set_mac(struct net_options *o, char *value, struct err *e)
{
	int end = 0;
	u8 *m = o->mac;

	if (sscanf(value, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &m[0], &m[1], &m[2], &m[3], &m[4], &m[5], &end) != 6 || value[end])
		return err_set(e, EINVAL, "mac=%s: not an address such as 52:54:00:12:34:56", value);
	if (m[0] & 1)
		return err_set(e, EINVAL, "mac=%s: a group's address (the first number must be even)", value);
	o->mac_given = true;
	return 0;
}

static int set_mtu(struct net_options *o, char *value, struct err *e)
{
	char *end = NULL;
	unsigned long v = strtoul(value, &end, 10);

	if (*value < '0' || *value > '9' || *end || v < MTU_MIN || v > MTU_MAX)
		return err_set(e, EINVAL, "mtu=%s: out of range (%d to %d)", value, MTU_MIN, MTU_MAX);
	o->mtu = (u16)v;
	return 0;
}

static int set_queues(struct net_options *o, char *value, struct err *e)
{
	if (value[0] < '1' || value[0] > '0' + NET_PAIRS_MAX || value[1])
		return err_set(e, EINVAL, "queues=%s: out of range (1 to %d)", value, NET_PAIRS_MAX);
	o->queues = (unsigned)(value[0] - '0');
	return 0;
}

static int set_text(struct net_options *o, char *value, struct err *e)
{
	size_t most = o->kind == NET_TAP ? 15 : o->kind == NET_LAN ? NET_NAME_MAX : sizeof(o->text) - 1;

	if (!*value || strlen(value) > most)
		return err_set(e, EINVAL, "%s: empty or longer than %zu characters", value, most);
	if (o->kind == NET_LAN && strspn(value, NAME_CHARS) != strlen(value))
		return err_set(e, EINVAL, "%s: not a LAN's name (letters, digits, '-', '_')", value);
	snprintf(o->text, sizeof(o->text), "%s", value);
	return 0;
}

static const struct {
	const char *name;
	unsigned kinds; /* bits of enum net_kind */
	int (*set)(struct net_options *o, char *value, struct err *e);
} options[] = {
	{"hostfwd", BIT(NET_USER), set_hostfwd},
	{"hostloopback", BIT(NET_USER), set_hostloopback},
	{"path", BIT(NET_PASST) | BIT(NET_SOCKET) | BIT(NET_VHOST_USER), set_text},
	{"ifname", BIT(NET_TAP), set_text},
	{"queues", BIT(NET_TAP), set_queues},
	{"mac", ANY_KIND, set_mac},
	{"mtu", ANY_KIND, set_mtu},
};

static int set_option(struct net_options *o, const char *kind, char *text, struct err *e)
{
	char *eq = strchr(text, '=');

	for (unsigned i = 0; eq && i < ARRAY_SIZE(options); i++) {
		size_t n = strlen(options[i].name);

		if ((size_t)(eq - text) == n && !strncmp(text, options[i].name, n) && (options[i].kinds & BIT(o->kind)))
			return options[i].set(o, eq + 1, e);
	}
	return err_set(e, EINVAL, "%s: not an option of --net %s (see doppel(1))", text, kind);
}

static const struct {
	const char *name;
	enum net_kind kind;
	const char *needs; /* the option that says which */
} kinds[] = {
	{"none", NET_NONE, NULL},	   {"user", NET_USER, NULL},	     {"lan", NET_LAN, "lan=NAME"},
	{"passt", NET_PASST, "path=PATH"}, {"socket", NET_SOCKET, "path=PATH"}, {"tap", NET_TAP, "ifname=NAME"},
	{"vhost-user", NET_VHOST_USER, "path=PATH"},
};

/* KIND, or lan=NAME */
static int set_kind(struct net_options *o, char *text, struct err *e)
{
	char *eq = strchr(text, '=');

	if (eq)
		*eq++ = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (strcmp(text, kinds[i].name) != 0 || (eq && kinds[i].kind != NET_LAN))
			continue;
		o->kind = kinds[i].kind;
		return eq ? set_text(o, eq, e) : 0;
	}
	return err_set(e, EINVAL, "%s: not a network (none, user, lan=NAME, passt, socket, vhost-user, tap)", text);
}

static int check_complete(const struct net_options *o, struct err *e)
{
	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
		if (kinds[i].kind == o->kind && kinds[i].needs && !o->text[0])
			return err_set(e, EINVAL, "%s: needs %s", kinds[i].name, kinds[i].needs);
	return 0;
}

int net_options_parse(const char *value, struct net_options *out, struct err *e)
{
	char *copy = strdup(value), *save = NULL, *kind = NULL, *text = NULL;
	int ret = 0;

	*out = (struct net_options){.queues = 1};
	if (!copy)
		return err_set(e, ENOMEM, "no memory");
	kind = *value && *value != ',' ? strtok_r(copy, ",", &save) : NULL;
	ret = kind ? set_kind(out, kind, e) : err_set(e, EINVAL, "empty (give none, user[,...], lan=NAME, ...)");
	while (!ret && (text = strtok_r(NULL, ",", &save)))
		ret = set_option(out, kind, text, e);
	if (!ret)
		ret = check_complete(out, e);
	free(copy);
	return ret;
}

static bool is_usable(const struct ifaddrs *i)
{
	int family = i->ifa_addr ? i->ifa_addr->sa_family : AF_UNSPEC;

	return (family == AF_INET || family == AF_INET6) && i->ifa_flags & IFF_UP && !(i->ifa_flags & IFF_LOOPBACK);
}

bool net_options_default(struct net_options *out)
{
	struct ifaddrs *all = NULL;
	char path[PATH_MAX];
	struct err e = {0};
	bool found = false;

	if (path_part("doppel-net", "DOPPEL_NET", X_OK, path, sizeof(path), &e) < 0 || getifaddrs(&all) < 0)
		return false;
	for (const struct ifaddrs *i = all; i && !found; i = i->ifa_next)
		found = is_usable(i);
	freeifaddrs(all);
	*out = (struct net_options){.kind = NET_USER, .queues = 1, .by_default = true};
	return found;
}

void net_options_ports(const struct net_options *o, unsigned count, char *buf, size_t n)
{
	char one[64];
	size_t at = 0;

	buf[0] = 0;
	for (unsigned i = 0; i < count; i++) {
		for (unsigned k = 0; k < o[i].n_forwards; k++) {
			const struct net_forward *f = &o[i].forward[k];

			snprintf(one, sizeof(one), "%s%s %s:%u->%u", at ? ", " : "", f->udp ? "udp" : "tcp", f->address, f->host_port,
				 f->guest_port);
			if (at + strlen(one) >= n)
				return;
			memcpy(buf + at, one, strlen(one) + 1);
			at += strlen(one);
		}
	}
}
