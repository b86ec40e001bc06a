/* Option parsing: --name VALUE, --name=VALUE, -n VALUE; "--" ends the options. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cli/opts.h"

static int fail(const struct command *c, const char *what, const char *why)
{
	log_msg(LOG_ERROR, "%s: %s (see doppel %s --help)", what, why, c->name);
	return -EINVAL;
}

static const struct opt *find(const struct command *c, const char *arg, const char **value)
{
	const char *eq = strchr(arg, '=');

	*value = NULL;
	for (const struct opt *o = c->opts; o && o->kind != OPT_END; o++) {
		size_t n = strlen(o->name);

		if (arg[1] != '-') {
			if (o->letter && arg[1] == o->letter && !arg[2])
				return o;
			continue;
		}
		if (strcmp(arg + 2, o->name) == 0)
			return o;
		if (eq && (size_t)(eq - arg - 2) == n && !strncmp(arg + 2, o->name, n)) {
			*value = eq + 1;
			return o;
		}
	}
	return NULL;
}

static int set_uint(const struct command *c, const struct opt *o, void *field, const char *value, const char *arg)
{
	char why[120];
	char *end = NULL;
	u64 v = 0;

	errno = 0;
	v = strtoull(value, &end, 0);
	if (end == value || *end || *value == '-' || errno == EINVAL)
		return fail(c, arg, "not a number");
	if (errno == ERANGE || v < o->min || v > (o->max ? o->max : UINT32_MAX)) {
		snprintf(why, sizeof(why), "%s is out of range (%llu to %llu)", value, (unsigned long long)o->min,
			 (unsigned long long)(o->max ? o->max : UINT32_MAX));
		return fail(c, arg, why);
	}
	*(u32 *)field = (u32)v;
	return 0;
}

static int set_size(const struct command *c, const struct opt *o, void *field, const char *value, const char *arg)
{
	char why[120];
	int ret = parse_size(value, field);

	if (ret == -EINVAL)
		return fail(c, arg, "not a size such as 512M or 2G");
	if (ret || *(u64 *)field < o->min || (o->max && *(u64 *)field > o->max)) {
		snprintf(why, sizeof(why), "%s is out of range (%lluM to %lluM)", value, (unsigned long long)(o->min >> 20),
			 (unsigned long long)(o->max >> 20));
		return fail(c, arg, why);
	}
	return 0;
}

static int set(const struct command *c, const struct opt *o, void *target, const char *value, const char *arg)
{
	void *field = (char *)target + o->offset;
	struct err e = {0};

	switch (o->kind) {
	case OPT_FLAG:
		*(bool *)field = true;
		return 0;
	case OPT_STRING:
		*(const char **)field = value;
		return 0;
	case OPT_UINT:
		return set_uint(c, o, field, value, arg);
	case OPT_SIZE:
		return set_size(c, o, field, value, arg);
	default:
		return o->parse(target, value, &e) < 0 ? fail(c, arg, e.text) : 0;
	}
}

void opts_help(const struct command *c)
{
	printf("doppel %s%s%s\n  %s\n", c->name, *c->args ? " " : "", c->args, c->summary);
	if (c->opts && c->opts->kind != OPT_END)
		printf("\nOptions:\n");
	for (const struct opt *o = c->opts; o && o->kind != OPT_END; o++) {
		char left[64];

		snprintf(left, sizeof(left), "--%s%s%s", o->name, o->arg ? " " : "", o->arg ? o->arg : "");
		if (o->letter)
			printf("  -%c, %-26s %s\n", o->letter, left, o->help);
		else
			printf("      %-26s %s\n", left, o->help);
	}
	if (c->details)
		printf("\n%s", c->details);
}

int opts_parse(const struct command *c, void *target, int *argc, char **argv)
{
	int n = 1, i = 1, counted = -1;

	for (; i < *argc; i++) {
		const char *arg = argv[i], *value = NULL;
		const struct opt *o = NULL;

		if (!strcmp(arg, "--")) {
			counted = c->rest ? n : -1;
			i++;
			break;
		}
		if (arg[0] != '-' || !arg[1]) {
			argv[n++] = argv[i];
			continue;
		}
		if (!strcmp(arg, "--help") || !strcmp(arg, "-h")) {
			opts_help(c);
			return OPTS_DONE;
		}
		o = find(c, arg, &value);
		if (!o)
			return fail(c, arg, "no such option");
		if (o->kind == OPT_FLAG && value)
			return fail(c, arg, "takes no value");
		if (o->kind != OPT_FLAG && !value) {
			if (i + 1 >= *argc)
				return fail(c, arg, "wants a value");
			value = argv[++i];
		}
		if (set(c, o, target, value, arg) < 0)
			return -EINVAL;
	}
	for (; i < *argc; i++)
		argv[n++] = argv[i];
	argv[n] = NULL;
	*argc = n;
	if (counted < 0)
		counted = n;
	if (counted - 1 < c->min_args)
		return fail(c, c->args, "missing");
	if (counted - 1 > c->max_args)
		return fail(c, argv[c->max_args + 1], "unexpected argument");
	return OPTS_OK;
}
