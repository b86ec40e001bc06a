/* --net */
#ifndef CLI_NET_OPTS_H
#define CLI_NET_OPTS_H

#include "backends/net.h"

/* KIND[,OPTION...]; e names the value and why. */
int net_options_parse(const char *value, struct net_options *out, struct err *e);
/* What a duplicate has when nothing is said: user, if this machine has a network. False: none. */
bool net_options_default(struct net_options *out);
/* The forwarded ports of all, as "tcp 127.0.0.1:8080->80, ..." (as many as fit); empty: none */
void net_options_ports(const struct net_options *o, unsigned count, char *buf, size_t n);

#endif
