/* The table of symbols. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "debug/symbols.h"

enum { COUNT_MAX = 1 << 20, STRINGS_MAX = 64 << 20, NEAR = 1 << 20 /* farther from a symbol than that: not its */ };

struct symbols {
	struct symbol *y;
	u32 n, room;
	char *text;
	u32 ntext, text_room;
};

struct symbols *symbols_new(void)
{
	return calloc(1, sizeof(struct symbols));
}

void symbols_free(struct symbols *s)
{
	if (!s)
		return;
	free(s->y);
	free(s->text);
	free(s);
}

static bool make_room(struct symbols *s, size_t n)
{
	void *p = NULL;

	if (s->n == COUNT_MAX || n > STRINGS_MAX - s->ntext)
		return false;
	if (s->n == s->room) {
		p = realloc(s->y, MAX(2 * s->room, 4096u) * sizeof(*s->y));
		if (!p)
			return false;
		s->y = p;
		s->room = MAX(2 * s->room, 4096u);
	}
	if (s->text_room - s->ntext < n) {
		u32 room = MAX(2 * s->text_room, 1u << 16);

		p = realloc(s->text, room);
		if (!p)
			return false;
		s->text = p;
		s->text_room = room;
	}
	return true;
}

void symbols_add(struct symbols *s, u64 addr, char type, const char *name, size_t n)
{
	if (!n || n >= SYMBOL_NAME || !make_room(s, n + 1))
		return;
	s->y[s->n++] = (struct symbol){.addr = addr, .type = type > ' ' && type < 0x7f ? type : '?', .name = s->ntext};
	for (size_t i = 0; i < n; i++)
		s->text[s->ntext++] = name[i] > ' ' && name[i] < 0x7f ? name[i] : '?';
	s->text[s->ntext++] = 0;
}

/* Of several at one address the one that was there first comes first: its text lies before theirs. */
static int by_address(const void *a, const void *b)
{
	const struct symbol *x = a, *y = b;

	if (x->addr != y->addr)
		return x->addr < y->addr ? -1 : 1;
	return x->name < y->name ? -1 : x->name > y->name;
}

void symbols_sort(struct symbols *s)
{
	if (s->n)
		qsort(s->y, s->n, sizeof(*s->y), by_address);
}

/* ---- asking ---- */
u32 symbols_count(const struct symbols *s)
{
	return s ? s->n : 0;
}

const struct symbol *symbols_at(const struct symbols *s, u32 i)
{
	return &s->y[i];
}

const char *symbols_name(const struct symbols *s, const struct symbol *y)
{
	return s->text + y->name;
}

/* Number of symbols at or below the address. */
static u32 below(const struct symbols *s, u64 addr)
{
	u32 lo = 0, hi = s->n;

	while (lo < hi) {
		u32 mid = lo + (hi - lo) / 2;

		if (s->y[mid].addr <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

const struct symbol *symbols_lookup(const struct symbols *s, u64 addr)
{
	u32 i = s ? below(s, addr) : 0;

	if (!i || addr - s->y[i - 1].addr >= NEAR)
		return NULL;
	for (i--; i && s->y[i - 1].addr == s->y[i].addr;)
		i--;
	return &s->y[i];
}

u64 symbols_end(const struct symbols *s, const struct symbol *y)
{
	u32 i = below(s, y->addr);

	return i < s->n ? s->y[i].addr : y->addr + 1;
}

bool symbols_find(const struct symbols *s, const char *name, u64 *addr)
{
	for (u32 i = 0; s && i < s->n; i++) {
		if (!strcmp(s->text + s->y[i].name, name)) {
			*addr = s->y[i].addr;
			return true;
		}
	}
	return false;
}

const char *symbols_text(const struct symbols *s, u64 addr, char *buf, size_t n)
{
	const struct symbol *y = symbols_lookup(s, addr);

	if (!y)
		snprintf(buf, n, "0x%llx", (unsigned long long)addr);
	else
		snprintf(buf, n, "%s+0x%llx", symbols_name(s, y), (unsigned long long)(addr - y->addr));
	return buf;
}
