/* doppel-net: a VM's user-mode network, or the switch between VMs. One socket to its VM each; no files, no processes. */
#ifndef NET_NET_H
#define NET_NET_H

#include "backends/net_proto.h"

enum { NET_FD = 3 }; /* the link to the VM; the switch's listening socket */

/* Each acquires, drops authority, says LINK_READY (or LINK_FAILED), serves until its VM or VMs are gone. */
int user_main(int argc, char **argv);
int switch_main(int argc, char **argv);

/* ---- the VM's end of the link ---- */
struct link_in {
	u8 *slots;
	u32 len[NET_BATCH]; /* of each message; 0: not to be used */
	unsigned n;
};
int link_in_init(struct link_in *in);
u8 *link_message(const struct link_in *in, unsigned i);
/* Fills in->n messages; 0, -EAGAIN: none now, -EPIPE: the VM is gone */
int link_receive(struct link_in *in, int fd);
void link_say(int fd, enum link_type type, const char *text);

/* ---- authority ---- */
enum net_role { ROLE_USER, ROLE_SWITCH };
/* For good. ROLE_USER: /etc/resolv.conf stays readable under its name, and nothing else. */
int sandbox_enter(enum net_role role);

#endif
