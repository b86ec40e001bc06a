/*
 * Bounded fuzzing of what host and agent take from each other: frames, requests, the stream of changes. Usage: fuzz_agent [SEED
 * [ROUNDS]]. Correct is: no crash, no report, and everything that is accepted keeps what the headers promise.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/changes.h"
#include "guest/request.h"

static u64 state = 88172645463325252ull;

static u64 below(u64 n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % n;
}

static void fail(const char *what)
{
	printf("not ok: %s\n0 passed, 1 failed\n", what);
	exit(1);
}

/* ---- frames and requests ---- */
static size_t make_frames(u8 *p, size_t room)
{
	size_t n = 0;
	while (n + FRAME_HEADER + 300 < room) {
		u32 type = below(8) ? 1 + (u32)below(8) : (u32)below(100), len = (u32)below(300);
		if (!below(200))
			len = below(2) ? (u32)state : FRAME_MAX + 1;
		frame_header(p + n, type, len);
		if (len > 300)
			return n + FRAME_HEADER;
		for (u32 i = 0; i < len; i++)
			p[n + FRAME_HEADER + i] = below(6) ? 'a' + (u8)below(26) : below(3) ? '=' : (u8)state;
		n += FRAME_HEADER + len;
	}
	return n;
}

static void requests(void)
{
	static u8 buf[20000];
	size_t n = make_frames(buf, 1 + below(sizeof(buf))), at = 0;
	struct request r = {0};
	struct frame f;
	long len = 0;
	while ((len = frame_parse(buf + at, n - at, &f)) > 0) {
		if (f.p < buf || f.p + f.n > buf + n || (size_t)len != FRAME_HEADER + (size_t)f.n)
			fail("a frame beyond its buffer");
		frame_u32(&f, (unsigned)below(100));
		if (request_frame(&r, &f) == 0 && r.complete)
			break;
		at += (size_t)len;
	}
	if (r.bytes > REQUEST_MAX || r.n_groups > REQUEST_GROUPS || (r.complete && !r.operation && !r.argv.v[0]))
		fail("a request beyond its bounds");
	for (unsigned i = 0; i < r.env.n; i++)
		if (!strchr(r.env.v[i], '='))
			fail("a variable without =");
	request_free(&r);
}

/* ---- changes ---- */
struct seen {
	unsigned records;
	u64 content;
	bool open;
};

static int on_record(void *arg, const struct change *c)
{
	struct seen *s = arg;
	char path[CHANGE_PATH_MAX + 2];
	struct change_xattr x;
	size_t at = 0;
	snprintf(path, sizeof(path), "%.*s/", (int)c->n_path, c->path);
	if (path[0] != '/' || strstr(path, "//") || strstr(path, "/../") || strstr(path, "/./"))
		fail("a path that leads elsewhere");
	while (change_xattr(c, &at, &x))
		s->content += x.n_name + (x.n_value ? x.value[0] : 0);
	s->records++;
	s->open = c->content;
	return below(500) ? 0 : -EIO;
}

static int on_content(void *arg, const u8 *p, size_t n, bool last)
{
	struct seen *s = arg;
	if (!s->open)
		fail("content of nothing");
	for (size_t i = 0; i < n; i++)
		s->content += p[i];
	s->open = !last;
	return 0;
}

static size_t make_record(u8 *p)
{
	static const char *const paths[] = {"/a", "/usr/lib/x", "/../etc/passwd", "a", "/", "", "//", "/a/./b", "/a/..", "/..."};
	static const u32 modes[] = {0, 0100644, 0040755, 0120777, 0010600, 0020600, 0170000, 0140755};
	const char *path = below(3) ? paths[below(2)] : paths[below(ARRAY_SIZE(paths))];
	struct change c = {.kind = below(20) ? (u32)"ACD"[below(3)] : (u32)state, .n_path = (u32)strlen(path)};
	c.mode = c.kind == 'D' ? 0 : modes[below(ARRAY_SIZE(modes))];
	bool regular = (c.mode & 0170000) == 0100000;
	c.size = regular ? below(3000) : below(30) ? 0 : state;
	c.content = regular && below(2);
	c.n_link = (c.mode & 0170000) == 0120000 ? 3 : below(40) ? 0 : 5;
	c.n_xattrs = below(3) ? 0 : 8 + (u32)below(30);
	if (!below(60))
		c.n_xattrs = (u32)state;
	if (!below(60))
		c.mtime_ns = (u32)state;
	size_t n = CHANGE_HEADER, xattrs = MIN(c.n_xattrs, 64u);
	change_header(p, &c);
	memcpy(p + n, path, c.n_path);
	n += c.n_path;
	memset(p + n, 'l', c.n_link);
	n += c.n_link;
	memset(p + n, 0, xattrs);
	if (xattrs >= 8) {
		put_u32(p + n, below(5) ? 3 : (u32)state);
		put_u32(p + n + 4, below(5) ? (u32)xattrs - 11 : (u32)below(40));
		memset(p + n + 8, 'x', xattrs - 8);
	}
	n += xattrs;
	if (c.content) {
		memset(p + n, 'c', c.size);
		n += c.size;
	}
	return n;
}

static void changes(void)
{
	static u8 buf[60000];
	struct seen s = {0};
	struct changes c = {.record = on_record, .content = below(8) ? on_content : NULL, .arg = &s};
	size_t n = 0, at = 0;
	while (n < 40000 && below(20))
		n += make_record(buf + n);
	while (at < n) {
		size_t now = MIN(1 + below(below(2) ? 100 : 40000), n - at);
		if (changes_feed(&c, buf + at, now) < 0)
			break;
		at += now;
	}
	changes_whole(&c);
	changes_free(&c);
}

int main(int argc, char **argv)
{
	unsigned rounds = argc > 2 ? (unsigned)atoi(argv[2]) : 20000;
	if (argc > 1)
		state ^= (u64)strtoull(argv[1], NULL, 0) * 0x9e3779b97f4a7c15ull;
	for (unsigned i = 0; i < rounds; i++) {
		requests();
		changes();
	}
	printf("%u passed, 0 failed\n", rounds);
	return 0;
}
