/* --disk FILE[,OPTION...]: a comma in the name is written twice. */
#include "cli/disk_opt.h"

#include <stdlib.h>
#include <string.h>

struct word {
	const char *name;
	int value;
};
static const struct word formats[] = {{"raw", DISK_FORMAT_RAW}, {"qcow2", DISK_FORMAT_QCOW2}, {NULL, 0}};
static const struct word caches[] = {{"writeback", DISK_CACHE_WRITEBACK},
				     {"none", DISK_CACHE_NONE},
				     {"directsync", DISK_CACHE_DIRECTSYNC},
				     {"unsafe", DISK_CACHE_UNSAFE},
				     {NULL, 0}};
static const struct word switches[] = {{"on", true}, {"off", false}, {NULL, 0}};

static int word(const struct word *w, const char *v, int *out)
{
	for (; w->name; w++) {
		if (v && !strcmp(v, w->name)) {
			*out = w->value;
			return 0;
		}
	}
	return -EINVAL;
}

static int flag(const char *v, bool *out)
{
	int n = 0, r = word(switches, v, &n);
	*out = n;
	return r;
}

static int size(const char *v, u64 *out, bool positive)
{
	int r = v ? parse_size(v, out) : -EINVAL;
	return r ? r : positive && !*out ? -EINVAL : 0;
}

static int opt_ro(struct machine_disk *d, const char *v)
{
	d->disk.read_only = true;
	return v ? -EINVAL : 0;
}

static int opt_format(struct machine_disk *d, const char *v)
{
	int n = 0, r = word(formats, v, &n);
	d->disk.format = (enum disk_format)n;
	return r;
}

static int opt_cache(struct machine_disk *d, const char *v)
{
	int n = 0, r = word(caches, v, &n);
	d->disk.cache = (enum disk_cache)n;
	return r;
}

static int opt_overlay(struct machine_disk *d, const char *v)
{
	return flag(v, &d->disk.overlay);
}

static int opt_discard(struct machine_disk *d, const char *v)
{
	bool on = false;
	int r = flag(v, &on);
	d->disk.no_discard = !on;
	return r;
}

static int opt_offset(struct machine_disk *d, const char *v)
{
	return size(v, &d->disk.offset, false);
}

static int opt_size(struct machine_disk *d, const char *v)
{
	return size(v, &d->disk.size, true);
}

static int opt_iops(struct machine_disk *d, const char *v)
{
	return size(v, &d->disk.iops, true);
}

static int opt_bps(struct machine_disk *d, const char *v)
{
	return size(v, &d->disk.bps, true);
}

static int opt_serial(struct machine_disk *d, const char *v)
{
	if (!v || strlen(v) >= sizeof(d->serial))
		return -EINVAL;
	for (const char *p = v; *p; p++)
		if (*p <= ' ' || *p > '~')
			return -EINVAL;
	strcpy(d->serial, v);
	return 0;
}

static const struct {
	const char *name, *wants;
	int (*set)(struct machine_disk *d, const char *value);
} options[] = {
	{"ro", "no value", opt_ro},
	{"format", "raw or qcow2", opt_format},
	{"overlay", "on or off", opt_overlay},
	{"offset", "bytes", opt_offset},
	{"size", "bytes", opt_size},
	{"serial", "1 to 20 printable characters", opt_serial},
	{"cache", "writeback, none, directsync or unsafe", opt_cache},
	{"iops", "a number", opt_iops},
	{"bps", "bytes per second", opt_bps},
	{"discard", "on or off", opt_discard},
};

static int set(struct machine_disk *d, char *opt, struct err *e)
{
	char *value = strchr(opt, '=');

	if (value)
		*value++ = '\0';
	for (u32 i = 0; i < ARRAY_SIZE(options); i++) {
		if (strcmp(opt, options[i].name) != 0)
			continue;
		if (!options[i].set(d, value))
			return 0;
		return err_set(e, EINVAL, "%s%s%s: wants %s", opt, value ? "=" : "", value ? value : "", options[i].wants);
	}
	return err_set(e, EINVAL, "%s: not a disk option (ro format overlay offset size serial cache iops bps discard)", opt);
}

/* Cuts at the next single comma; two become one. The rest, or NULL. */
static char *cut(char *s)
{
	char *to = s;

	for (; *s; s++) {
		if (*s == ',' && s[1] != ',') {
			*to = '\0';
			return s + 1;
		}
		s += *s == ',';
		*to++ = *s;
	}
	*to = '\0';
	return NULL;
}

int disk_opt_parse(const char *value, struct machine_disk *d, struct err *e)
{
	char *copy = NULL, *opt = NULL;
	int ret = 0;

	*d = (struct machine_disk){0};
	if (!*value || (*value == ',' && value[1] != ','))
		return err_set(e, EINVAL, "empty (give FILE[,ro])");
	copy = strdup(value); /* begins with the path, and is freed as it */
	if (!copy)
		return err_set(e, ENOMEM, "no memory");
	for (opt = cut(copy); opt && !ret;) {
		char *next = cut(opt);

		ret = set(d, opt, e);
		opt = next;
	}
	if (!ret && d->disk.read_only && d->disk.overlay)
		ret = err_set(e, EINVAL, "%s: ro and overlay=on contradict each other", copy);
	if (ret)
		free(copy);
	else
		d->disk.path = copy;
	return ret;
}
