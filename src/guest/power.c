/* The power button: the kernel's ACPI core tells it to a generic netlink group (drivers/acpi/event.c). */
#include <errno.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest/init.h"

struct genl_message {
	struct nlmsghdr h;
	struct genlmsghdr g;
	char attrs[4096];
};
struct acpi_event { /* drivers/acpi/event.c: struct acpi_genl_event */
	char device_class[20], bus_id[15];
	unsigned type, data;
};

/* The attribute of that type among those at p, or NULL. */
static const struct nlattr *attribute(const void *p, size_t n, unsigned type)
{
	const struct nlattr *a = p;

	while (n >= sizeof(*a) && a->nla_len >= sizeof(*a) && a->nla_len <= n) {
		size_t step = NLA_ALIGN(a->nla_len);

		if ((a->nla_type & NLA_TYPE_MASK) == type)
			return a;
		if (step >= n)
			break;
		n -= step;
		a = (const void *)((const char *)a + step);
	}
	return NULL;
}

/* Asks the kernel for the number of the ACPI event group; -1: none. */
static int acpi_group(int fd)
{
	static const char family[] = "acpi_event";
	struct genl_message m = {.h = {.nlmsg_type = GENL_ID_CTRL, .nlmsg_flags = NLM_F_REQUEST},
				 .g = {.cmd = CTRL_CMD_GETFAMILY, .version = 1}};
	struct nlattr *name = (void *)m.attrs;
	const struct nlattr *a;
	ssize_t n;

	*name = (struct nlattr){.nla_len = NLA_HDRLEN + sizeof(family), .nla_type = CTRL_ATTR_FAMILY_NAME};
	memcpy(m.attrs + NLA_HDRLEN, family, sizeof(family));
	m.h.nlmsg_len = offsetof(struct genl_message, attrs) + NLA_ALIGN(name->nla_len);
	if (send(fd, &m, m.h.nlmsg_len, 0) < 0)
		return -1;
	n = recv(fd, &m, sizeof(m), 0);
	if (n < (ssize_t)offsetof(struct genl_message, attrs) || m.h.nlmsg_type != GENL_ID_CTRL)
		return -1;
	a = attribute(m.attrs, (size_t)n - offsetof(struct genl_message, attrs), CTRL_ATTR_MCAST_GROUPS);
	if (a) /* its first and only group */
		a = attribute(a + 1, a->nla_len - NLA_HDRLEN, 1);
	if (a)
		a = attribute(a + 1, a->nla_len - NLA_HDRLEN, CTRL_ATTR_MCAST_GRP_ID);
	return a && a->nla_len >= NLA_HDRLEN + sizeof(int) ? *(const int *)(a + 1) : -1;
}

static bool is_power_button(const struct genl_message *m, ssize_t n)
{
	const struct nlattr *a = NULL;
	const struct acpi_event *e;

	if (n > (ssize_t)offsetof(struct genl_message, attrs))
		a = attribute(m->attrs, (size_t)n - offsetof(struct genl_message, attrs), 1 /* ACPI_GENL_ATTR_EVENT */);
	if (!a || a->nla_len < NLA_HDRLEN + sizeof(*e))
		return false;
	e = (const void *)(a + 1);
	return !strncmp(e->device_class, "button/power", sizeof(e->device_class));
}

int power_button_open(void)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
	int group = fd >= 0 ? acpi_group(fd) : -1;

	if (group >= 0 && setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

int power_button_read(int fd)
{
	struct genl_message m;
	ssize_t n = recv(fd, &m, sizeof(m), 0);

	if (n < 0)
		return errno == EINTR || errno == ENOBUFS ? 0 : -errno;
	return is_power_button(&m, n);
}
