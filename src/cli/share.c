/* --share HOST[:GUEST][:rw][:cache=POLICY] */
#include "cli/share.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int cache_word(struct machine_share *s, const char *word, struct err *e)
{
	static const char *const words[] = {"auto", "always", "never"};

	for (u32 i = 0; i < ARRAY_SIZE(words); i++) {
		if (!strcmp(word, words[i])) {
			s->cache = words[i];
			return 0;
		}
	}
	return err_set(e, EINVAL, "cache=%s: not a caching policy (auto, always, never)", word);
}

static int part(struct share_option *o, const char *p, struct err *e)
{
	if (!strcmp(p, "rw") || !strcmp(p, "ro"))
		o->share.writable = p[1] == 'w';
	else if (!strncmp(p, "cache=", 6))
		return cache_word(&o->share, p + 6, e);
	else if (p[0] == '/' && !o->guest)
		o->guest = p;
	else
		return err_set(e, EINVAL,
			       "%s: neither an absolute path in the guest nor rw, ro or cache=POLICY", p);
	return 0;
}

int share_parse(struct share_option *o, const char *value, u32 index, struct err *e)
{
	char *copy = NULL, *save = NULL, *p = NULL;
	int ret = 0;

	if (!*value || *value == ':')
		return err_set(e, EINVAL, "empty (give HOST[:GUEST][:rw])");
	copy = strdup(value); /* begins with the path */
	if (!copy)
		return err_set(e, ENOMEM, "no memory");
	*o = (struct share_option){.share.path = strtok_r(copy, ":", &save)};
	snprintf(o->share.tag, sizeof(o->share.tag), "doppel%u", index);
	while (!ret && (p = strtok_r(NULL, ":", &save)))
		ret = part(o, p, e);
	if (ret)
		free(copy);
	return ret;
}
