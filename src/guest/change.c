#include "guest/change.h"

#include <string.h>
#include <sys/stat.h>

#include "guest/proto.h"

static void put_u64(uint8_t *p, uint64_t v)
{
	put_u32(p, (uint32_t)v);
	put_u32(p + 4, (uint32_t)(v >> 32));
}

static uint64_t get_u64(const uint8_t *p)
{
	return get_u32(p) | (uint64_t)get_u32(p + 4) << 32;
}

void change_header(uint8_t out[CHANGE_HEADER], const struct change *c)
{
	put_u32(out, c->kind);
	put_u32(out + 4, c->mode);
	put_u32(out + 8, c->uid);
	put_u32(out + 12, c->gid);
	put_u64(out + 16, c->mtime_s);
	put_u64(out + 24, c->size);
	put_u64(out + 32, c->rdev);
	put_u32(out + 40, c->mtime_ns);
	put_u32(out + 44, c->content);
	put_u32(out + 48, c->n_path);
	put_u32(out + 52, c->n_link);
	put_u32(out + 56, c->n_xattrs);
}

/* "/a/b": nothing that would lead elsewhere. */
static bool path_ok(const char *p, size_t n)
{
	size_t start = 1;

	if (n < 2 || n >= CHANGE_PATH_MAX || p[0] != '/' || memchr(p, 0, n))
		return false;
	for (size_t i = 1; i <= n; i++) {
		size_t len = i - start;

		if (i < n && p[i] != '/')
			continue;
		if (!len || len > 255 || (len == 1 && p[start] == '.') || (len == 2 && p[start] == '.' && p[start + 1] == '.'))
			return false;
		start = i + 1;
	}
	return true;
}

bool change_xattr(const struct change *c, size_t *at, struct change_xattr *x)
{
	const uint8_t *p = c->xattrs + *at;
	size_t left = c->n_xattrs - *at;

	if (left < 8)
		return false;
	x->n_name = get_u32(p);
	x->n_value = get_u32(p + 4);
	left -= 8;
	if (x->n_name > left || x->n_value > left - x->n_name)
		return false;
	x->name = (const char *)p + 8;
	x->value = p + 8 + x->n_name;
	*at += 8 + (size_t)x->n_name + x->n_value;
	return true;
}

static bool xattrs_ok(const struct change *c)
{
	struct change_xattr x;
	size_t at = 0;

	while (change_xattr(c, &at, &x))
		if (!x.n_name || x.n_name > 255 || memchr(x.name, 0, x.n_name))
			return false;
	return at == c->n_xattrs;
}

static bool change_ok(const struct change *c)
{
	bool regular = S_ISREG(c->mode), link = S_ISLNK(c->mode);

	if (c->kind != 'A' && c->kind != 'C' && c->kind != 'D')
		return false;
	if ((c->kind == 'D') != (c->mode == 0) || (c->size && !regular) || (c->content && !regular) || c->content > 1)
		return false;
	if (c->size > INT64_MAX || c->mtime_ns >= 1000000000 || c->mtime_s > INT64_MAX)
		return false;
	if (regular && c->n_link && (c->content || !path_ok(c->link, c->n_link)))
		return false;
	if (!regular && link != (c->n_link > 0))
		return false;
	return !(link && memchr(c->link, 0, c->n_link)) && path_ok(c->path, c->n_path) && xattrs_ok(c);
}

long change_parse(const void *record, size_t n, struct change *c)
{
	const uint8_t *p = record;
	size_t all;

	if (n < CHANGE_HEADER)
		return 0;
	*c = (struct change){.kind = get_u32(p), .mode = get_u32(p + 4), .uid = get_u32(p + 8), .gid = get_u32(p + 12),
			     .mtime_s = get_u64(p + 16), .size = get_u64(p + 24), .rdev = get_u64(p + 32),
			     .mtime_ns = get_u32(p + 40), .content = get_u32(p + 44), .n_path = get_u32(p + 48),
			     .n_link = get_u32(p + 52), .n_xattrs = get_u32(p + 56)};
	if (c->n_path >= CHANGE_PATH_MAX || c->n_link >= CHANGE_PATH_MAX || c->n_xattrs > CHANGE_XATTRS_MAX)
		return -1;
	all = CHANGE_HEADER + (size_t)c->n_path + c->n_link + c->n_xattrs;
	if (n < all)
		return 0;
	c->path = (const char *)p + CHANGE_HEADER;
	c->link = c->path + c->n_path;
	c->xattrs = (const uint8_t *)c->link + c->n_link;
	return change_ok(c) ? (long)all : -1;
}
