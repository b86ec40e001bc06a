#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cli/changes.h"

static int take_content(struct changes *c, const u8 **p, size_t *n)
{
	size_t now = MIN((u64)*n, c->content_left);
	int ret = 0;

	if (!now)
		return 0;
	c->content_left -= now;
	ret = c->content ? c->content(c->arg, *p, now, !c->content_left) : -EPROTO;
	*p += now;
	*n -= now;
	return ret;
}

/* A record, once it is whole; what is left of the buffer moves up. */
static int take_record(struct changes *c, bool *any)
{
	struct change r;
	long len = change_parse(c->buf, c->n, &r);
	int ret = 0;

	*any = len > 0;
	if (len <= 0)
		return len < 0 ? -EPROTO : 0;
	ret = c->record(c->arg, &r);
	c->content_left = r.content ? r.size : 0;
	if (!ret && r.content && !r.size && c->content)
		ret = c->content(c->arg, NULL, 0, true);
	c->n -= (size_t)len;
	memmove(c->buf, c->buf + len, c->n);
	return ret;
}

int changes_feed(struct changes *c, const u8 *p, size_t n)
{
	int ret = 0;

	if (!c->buf)
		c->buf = malloc(CHANGE_MAX);
	if (!c->buf)
		return -ENOMEM;
	while (!ret && (n || c->n)) {
		bool any = true;
		size_t now = 0;

		if (c->content_left && c->n) { /* it came with the record */
			const u8 *q = c->buf;
			size_t had = c->n;

			ret = take_content(c, &q, &c->n);
			memmove(c->buf, c->buf + (had - c->n), c->n);
			continue;
		}
		if (c->content_left && !n)
			break;
		if (c->content_left) {
			ret = take_content(c, &p, &n);
			continue;
		}
		now = MIN(n, CHANGE_MAX - c->n);
		if (now)
			memcpy(c->buf + c->n, p, now);
		c->n += now;
		p += now;
		n -= now;
		ret = take_record(c, &any);
		if (!any && !n)
			break;
	}
	return ret;
}

bool changes_whole(const struct changes *c)
{
	return !c->n && !c->content_left;
}

void changes_free(struct changes *c)
{
	free(c->buf);
	c->buf = NULL;
}

int changes_sink(void *changes, int fd, const u8 *p, size_t n)
{
	return fd == 1 ? changes_feed(changes, p, n) : 0;
}

/* Three digits are enough to compare by. */
static void size_text(const struct change *c, char *buf, size_t n)
{
	static const char units[] = "KMGTPE";
	double v = (double)c->size;
	int u = -1;

	if (c->kind == 'D' || (c->mode & 0170000) != 0100000) {
		snprintf(buf, n, "-");
		return;
	}
	for (; v >= 1000 && units[u + 1]; u++)
		v /= 1024;
	snprintf(buf, n, u >= 0 && v < 9.95 ? "%.1f%c" : "%.0f%c", v, u < 0 ? 'B' : units[u]);
}

/* Of the guest's file names only what a terminal would not obey. */
int changes_print(void *file, const struct change *c)
{
	char size[32];

	size_text(c, size, sizeof(size));
	fprintf(file, "%c %7s  ", (int)c->kind, size);
	for (u32 i = 0; i < c->n_path; i++) {
		unsigned char ch = (unsigned char)c->path[i];

		if (ch < ' ' || ch == 0x7f || ch == '\\')
			fprintf(file, "\\%03o", ch);
		else
			fputc(ch, file);
	}
	fputs((c->mode & 0170000) == 0040000 ? "/\n" : "\n", file);
	return ferror((FILE *)file) ? -EPIPE : 0;
}
