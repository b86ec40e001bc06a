#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cli/user.h"

extern char **environ;

/* ---- environment ---- */
static int set_var(struct user *u, const char *var)
{
	size_t name = strcspn(var, "="), n = 0;
	char **v = NULL, *copy = strdup(var);

	if (!copy)
		return -ENOMEM;
	for (; u->env && u->env[n]; n++) {
		if (!strncmp(u->env[n], var, name) && u->env[n][name] == '=') {
			free(u->env[n]);
			u->env[n] = copy;
			return 0;
		}
	}
	v = realloc(u->env, (n + 2) * sizeof(*v));
	if (!v) {
		free(copy);
		return -ENOMEM;
	}
	v[n] = copy;
	v[n + 1] = NULL;
	u->env = v;
	return 0;
}

static int set_pair(struct user *u, const char *name, const char *value)
{
	char *text = NULL;
	int ret = asprintf(&text, "%s=%s", name, value) < 0 ? -ENOMEM : set_var(u, text);

	free(text);
	return ret;
}

/* What is no variable (no name, no '=') stays here. */
static int copy_environment(struct user *u)
{
	size_t n = 0, k = 0;

	while (environ[n])
		n++;
	u->env = calloc(n + 1, sizeof(*u->env));
	for (size_t i = 0; u->env && i < n; i++) {
		if (!strchr(environ[i], '=') || environ[i][0] == '=')
			continue;
		u->env[k] = strdup(environ[i]);
		if (!u->env[k++])
			return -ENOMEM;
	}
	return u->env ? 0 : -ENOMEM;
}

static int set_vars(struct user *u, char *const *vars, u32 n, struct err *e)
{
	int ret = 0;

	for (u32 i = 0; i < n && !ret; i++) {
		const char *value = getenv(vars[i]);

		if (!vars[i][0] || vars[i][0] == '=')
			return err_set(e, EINVAL, "--env %s: no name", vars[i]);
		if (strchr(vars[i], '='))
			ret = set_var(u, vars[i]);
		else if (value)
			ret = set_pair(u, vars[i], value);
		else
			return err_set(e, EINVAL, "--env %s: not set here (give %s=VALUE)", vars[i], vars[i]);
	}
	return ret ? err_set(e, -ret, "environment: %s", strerror(-ret)) : 0;
}

/* ---- identity ---- */
static bool number(const char *s, u32 *out)
{
	char *end = NULL;
	unsigned long v = strtoul(s, &end, 10);

	*out = (u32)v;
	return *s >= '0' && *s <= '9' && !*end && v < UINT32_MAX;
}

static int ourselves(struct user *u)
{
	gid_t groups[REQUEST_GROUPS];
	int n = getgroups(REQUEST_GROUPS, groups);
	const struct passwd *p = getpwuid(getuid());
	const char *shell = getenv("SHELL");

	u->uid = getuid();
	u->gid = getgid();
	for (int i = 0; i < n; i++)
		u->groups[i] = groups[i];
	u->n_groups = n > 0 ? (u32)n : 0;
	if (!shell || shell[0] != '/')
		shell = p && p->pw_shell && p->pw_shell[0] ? p->pw_shell : "/bin/sh";
	u->shell = strdup(shell);
	return u->shell ? 0 : -ENOMEM;
}

static void groups_of(struct user *u, const char *name)
{
	gid_t groups[REQUEST_GROUPS];
	int n = REQUEST_GROUPS;

	if (getgrouplist(name, u->gid, groups, &n) < 0)
		n = 0;
	for (int i = 0; i < n; i++)
		u->groups[i] = groups[i];
	u->n_groups = (u32)n;
}

static int set_group(struct user *u, const char *name, struct err *e)
{
	const struct group *g = NULL;

	if (number(name, &u->gid))
		return 0;
	g = getgrnam(name);
	if (!g)
		return err_set(e, ENOENT, "--user: %s: no such group here (give its number)", name);
	u->gid = g->gr_gid;
	return 0;
}

static int someone(struct user *u, const char *text, struct err *e)
{
	char name[256], *group = NULL;
	const struct passwd *p = NULL;
	int ret = 0;

	snprintf(name, sizeof(name), "%s", text);
	group = strchr(name, ':');
	if (group)
		*group++ = 0;
	p = number(name, &u->uid) ? getpwuid(u->uid) : getpwnam(name);
	if (!p && !number(name, &u->uid))
		return err_set(e, ENOENT, "--user %s: no such user here (give a number)", name);
	u->shell = strdup(p && p->pw_shell && p->pw_shell[0] ? p->pw_shell : "/bin/sh");
	if (!u->shell)
		return err_set(e, ENOMEM, "--user: no memory");
	if (p) {
		u->uid = p->pw_uid;
		u->gid = p->pw_gid;
		groups_of(u, p->pw_name);
		ret = set_pair(u, "HOME", p->pw_dir);
		if (!ret)
			ret = set_pair(u, "USER", p->pw_name);
		if (!ret)
			ret = set_pair(u, "LOGNAME", p->pw_name);
		if (!ret)
			ret = set_pair(u, "SHELL", u->shell);
	} else {
		u->gid = u->uid;
	}
	if (ret)
		return err_set(e, -ret, "--user: %s", strerror(-ret));
	return group ? set_group(u, group, e) : 0;
}

int user_resolve(struct user *u, const char *name, char *const *vars, u32 n, struct err *e)
{
	int ret = 0;

	*u = (struct user){0};
	ret = copy_environment(u);
	if (!ret && !name)
		ret = ourselves(u);
	if (ret)
		ret = err_set(e, -ret, "environment: %s", strerror(-ret));
	else if (name)
		ret = someone(u, name, e);
	if (!ret)
		ret = set_vars(u, vars, n, e);
	if (ret)
		user_free(u);
	return ret;
}

void user_free(struct user *u)
{
	for (char **v = u->env; v && *v; v++)
		free(*v);
	free(u->env);
	free(u->shell);
	*u = (struct user){0};
}
