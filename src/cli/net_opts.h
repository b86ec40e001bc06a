/* --net */
#ifndef CLI_NET_OPTS_H
#define CLI_NET_OPTS_H

#include "backends/net.h"

/* KIND[,OPTION...]; e names the value and why. */
int net_options_parse(const char *value, struct net_options *out, struct err *e);
/* The forwarded ports, as "tcp 127.0.0.1:8080->80, ..."; empty: none */
void net_options_ports(const struct net_options *o, char *buf, size_t n);

#endif
