#include "guest/request.h"

#include <stdlib.h>
#include <string.h>

static char *text(struct request *r, const struct frame *f)
{
	char *s;

	if (r->bytes + f->n + 1 > REQUEST_MAX || (f->n && memchr(f->p, 0, f->n)))
		return NULL;
	s = malloc((size_t)f->n + 1);
	if (!s)
		return NULL;
	memcpy(s, f->p, f->n);
	s[f->n] = 0;
	r->bytes += f->n + 1;
	return s;
}

static int add(struct request *r, struct strings *a, const struct frame *f)
{
	char *s;

	if (a->n + 2 > a->room) {
		unsigned room = a->room ? a->room * 2 : 64;
		char **v;

		if (room > REQUEST_STRINGS)
			return -1;
		v = realloc(a->v, room * sizeof(*v));
		if (!v)
			return -1;
		a->v = v;
		a->room = room;
	}
	s = text(r, f);
	if (!s)
		return -1;
	a->v[a->n++] = s;
	a->v[a->n] = NULL;
	return 0;
}

static int set_cwd(struct request *r, const struct frame *f)
{
	char *s = r->cwd || !f->n ? NULL : text(r, f);

	if (!s)
		return -1;
	r->cwd = s;
	return 0;
}

static int set_ids(struct request *r, const struct frame *f)
{
	unsigned words = f->n / 4;

	if (f->n % 4 || words < 3 || words > 3 + REQUEST_GROUPS)
		return -1;
	r->uid = frame_u32(f, 0);
	r->gid = frame_u32(f, 1);
	r->umask = frame_u32(f, 2) & 0777;
	r->n_groups = words - 3;
	for (unsigned i = 0; i < r->n_groups; i++)
		r->groups[i] = frame_u32(f, 3 + i);
	return 0;
}

int request_frame(struct request *r, const struct frame *f)
{
	switch (f->type) {
	case F_OPERATION:
		r->operation = frame_u32(f, 0);
		return f->n == 4 ? 0 : -1;
	case F_ARG:
		return add(r, &r->argv, f);
	case F_ENV:
		return memchr(f->p, '=', f->n) ? add(r, &r->env, f) : -1;
	case F_CWD:
		return set_cwd(r, f);
	case F_IDS:
		return set_ids(r, f);
	case F_TTY:
		r->tty = frame_u32(f, 0);
		r->rows = frame_u32(f, 1);
		r->columns = frame_u32(f, 2);
		return f->n == 12 ? 0 : -1;
	case F_START:
		r->complete = r->operation != OP_RUN || r->argv.n > 0;
		return r->complete ? 0 : -1;
	default:
		return -1;
	}
}

static void strings_free(struct strings *a)
{
	for (unsigned i = 0; i < a->n; i++)
		free(a->v[i]);
	free(a->v);
}

void request_free(struct request *r)
{
	strings_free(&r->argv);
	strings_free(&r->env);
	free(r->cwd);
}
