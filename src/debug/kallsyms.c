/*
 * The symbols that a Linux kernel carries for its own oops messages (scripts/kallsyms.c of its sources), found in its memory by what
 * they look like; nothing says where they are. In order of finding:
 *
 *   token_table   256 strings; each character that occurs in names is a token of its own, at the place of its code
 *   token_index   offsets of these strings
 *   markers       offset of every 256th name in names; before token_table
 *   num_syms, names   before markers; each name is a length and so many tokens, the first character is the type
 *   offsets, relative_base   before num_syms (Linux up to 6.3) or behind token_index (from 6.4 on)
 *
 * Each one proves the former: a wrong guess does not survive.
 */
#include <stdlib.h>
#include <string.h>
#include "debug/kallsyms.h"

enum {
	TOKENS = 256, TOKEN_MAX = 64, NAME_MAX_TOKENS = 512, SYMS_MIN = 512, SYMS_MAX = 600000, PER_MARKER = 256,
	MARKER_STEP = PER_MARKER * NAME_MAX_TOKENS, REACH = 24 << 20,
	WORK_MAX = 100000000, /* names and markers looked at: what a malicious guest can make us do */
};

struct kallsyms {
	const struct kimage *k;
	u32 work;
	u64 token_table, token_index, token_end; /* offsets in the image */
	u32 token[TOKENS];                       /* of each string from token_table */
	u64 markers;
	u32 nmarkers, marker_size;
	u64 num_syms, names;
	u32 count;
	u64 offsets, base;
	bool percpu; /* CONFIG_KALLSYMS_ABSOLUTE_PERCPU */
};

/* ---- tokens ---- */
static bool next_string(const struct kimage *k, u64 *at)
{
	u64 room = kimage_has(k, *at, 1) ? MIN(k->n - *at, (u64)TOKEN_MAX) : 0;
	size_t n = room ? strnlen((const char *)k->p + *at, room) : 0;

	if (n == room)
		return false;
	*at += n + 1;
	return true;
}

static bool check_index(struct kallsyms *t, u64 zero, u64 at)
{
	u16 index[TOKENS];
	u64 p = 0;

	if (!kimage_has(t->k, at, sizeof(index)))
		return false;
	memcpy(index, t->k->p + at, sizeof(index));
	if (index['0'] > zero)
		return false;
	p = t->token_table = zero - index['0'];
	for (u32 i = 0; i < TOKENS; i++) {
		if (index[i] != p - t->token_table || !next_string(t->k, &p))
			return false;
		t->token[i] = index[i];
	}
	t->token_index = at;
	t->token_end = at + sizeof(index);
	return true;
}

/* zero: where the token "0" seems to be. The index is behind the last token, aligned. */
static bool find_index(struct kallsyms *t, u64 zero)
{
	u64 end = zero;

	for (u32 i = '0'; i < TOKENS; i++)
		if (!next_string(t->k, &end))
			return false;
	for (u64 at = ALIGN_UP(end, 2); at < end + 32; at += 2)
		if (check_index(t, zero, at))
			return true;
	return false;
}

/* ---- markers ---- */
static bool marker(const struct kallsyms *t, u64 at, u32 i, u64 *v)
{
	u32 low = 0;

	if (t->marker_size == 8)
		return kimage_u64(t->k, at + 8ull * i, v);
	if (!kimage_u32(t->k, at + 4ull * i, &low))
		return false;
	*v = low;
	return true;
}

/* Number of values from there on that could be markers. */
static u32 run_of_markers(struct kallsyms *t, u64 at)
{
	u64 last = 0, v = 0;
	u32 n = 0;

	if (t->work++ >= WORK_MAX || !marker(t, at, 0, &v) || v)
		return 0;
	for (n = 1; n <= SYMS_MAX / PER_MARKER && at + (u64)n * t->marker_size < t->token_table; n++) {
		if (!marker(t, at, n, &v) || v < last + 2 * PER_MARKER || v > last + MARKER_STEP)
			break;
		last = v;
	}
	t->work += n;
	return n;
}

/* ---- names ---- */
/* The name at *at: its tokens, and *at behind it. */
static bool next_name(const struct kallsyms *t, u64 *at, const u8 **tokens, u32 *n)
{
	if (!kimage_has(t->k, *at, 2))
		return false;
	*n = t->k->p[(*at)++];
	if (*n & 0x80) /* from Linux 6.1 on: two bytes, low one first */
		*n = (*n & 0x7f) | (u32)t->k->p[(*at)++] << 7;
	if (!*n || *n > NAME_MAX_TOKENS || !kimage_has(t->k, *at, *n))
		return false;
	*tokens = t->k->p + *at;
	*at += *n;
	return true;
}

/* Do count names from there on agree with the markers, and end where those begin? */
static bool check_names(struct kallsyms *t, u64 names, u32 count)
{
	const u8 *tokens = NULL;
	u64 at = names, v = 0;
	u32 n = 0;

	for (u32 i = 0; i < count; i++) {
		if (t->work++ >= WORK_MAX)
			return false;
		if (i % PER_MARKER == 0 && (!marker(t, t->markers, i / PER_MARKER, &v) || v != at - names))
			return false;
		if (!next_name(t, &at, &tokens, &n))
			return false;
	}
	return at <= t->markers && t->markers - at < 16;
}

static bool find_names(struct kallsyms *t, u32 run)
{
	u64 last = 0, from = 0, to = 0;

	/* the run may have taken in a value too many from what follows */
	for (t->nmarkers = run; t->nmarkers + 2 > run && t->nmarkers > SYMS_MIN / PER_MARKER; t->nmarkers--) {
		if (!marker(t, t->markers, t->nmarkers - 1, &last) || last + 16 > t->markers)
			continue;
		from = (t->markers - last - MIN(t->markers - last, (u64)MARKER_STEP)) & ~7ull;
		to = t->markers - last;
		for (u64 at = from; at + 8 < to; at += 8) {
			u32 n = 0;

			if (!kimage_u32(t->k, at, &n) || n < SYMS_MIN || n > SYMS_MAX ||
			    (n + PER_MARKER - 1) / PER_MARKER != t->nmarkers || !check_names(t, at + 8, n))
				continue;
			t->num_syms = at;
			t->names = at + 8;
			t->count = n;
			return true;
		}
	}
	return false;
}

static bool find_markers(struct kallsyms *t)
{
	u64 lowest = t->token_table > REACH ? t->token_table - REACH : 0;

	for (t->marker_size = 4; t->marker_size <= 8; t->marker_size += 4) {
		u64 at = t->token_table & ~7ull;

		while (at >= lowest + 8) {
			u32 n = 0;

			at -= t->marker_size;
			n = run_of_markers(t, t->markers = at);
			if (n >= SYMS_MIN / PER_MARKER && find_names(t, n))
				return true;
		}
	}
	return false;
}

/* ---- addresses ---- */
static u64 address(const struct kallsyms *t, u32 i)
{
	u32 off = 0;

	kimage_u32(t->k, t->offsets + 4ull * i, &off);
	if (!t->percpu)
		return t->base + off;
	return (s32)off >= 0 ? off : t->base - 1 - (u64)(s64)(s32)off;
}

static bool ascending(const struct kallsyms *t)
{
	for (u32 i = 1; i < t->count; i++)
		if (address(t, i) < address(t, i - 1))
			return false;
	return address(t, t->count - 1) >= KERNEL_LOWEST;
}

/* offsets here, relative_base there? With per-CPU symbols kept absolute all others are negative. */
static bool try_offsets(struct kallsyms *t, u64 offsets, u64 base)
{
	if (!kimage_has(t->k, offsets, 4ull * t->count) || !kimage_u64(t->k, base, &t->base) || t->base < KERNEL_LOWEST)
		return false;
	t->offsets = offsets;
	for (int percpu = 1; percpu >= 0; percpu--) {
		t->percpu = percpu;
		if (ascending(t))
			return true;
	}
	return false;
}

static bool find_addresses(struct kallsyms *t)
{
	u64 size = ALIGN_UP(4ull * t->count, 8), behind = ALIGN_UP(t->token_end, 8);

	if (t->num_syms >= size + 8 && try_offsets(t, t->num_syms - 8 - size, t->num_syms - 8))
		return true;
	return try_offsets(t, behind, behind + size);
}

/* ---- all of it ---- */
static size_t expand(const struct kallsyms *t, const u8 *tokens, u32 n, char *buf, size_t size)
{
	size_t used = 0;

	for (u32 i = 0; i < n; i++) {
		const char *s = (const char *)t->k->p + t->token_table + t->token[tokens[i]];

		while (*s && used < size)
			buf[used++] = *s++;
	}
	return used;
}

static void take(const struct kallsyms *t, struct symbols *s)
{
	const u8 *tokens = NULL;
	char name[SYMBOL_NAME + 1];
	u64 at = t->names;
	u32 n = 0;

	for (u32 i = 0; i < t->count && next_name(t, &at, &tokens, &n); i++) {
		size_t len = expand(t, tokens, n, name, sizeof(name));

		if (len > 1)
			symbols_add(s, address(t, i), name[0], name + 1, len - 1);
	}
}

bool kallsyms_read(struct symbols *s, const struct kimage *k)
{
	static const char digits[] = "0\0001\0002\0003\0004\0005\0006\0007\0008\0009";
	struct kallsyms t = {.k = k};
	const u8 *p = k->p, *hit = NULL;

	while ((hit = memmem(p, (size_t)(k->p + k->n - p), digits, sizeof(digits)))) {
		p = hit + 1;
		if (find_index(&t, (u64)(hit - k->p)) && find_markers(&t) && find_addresses(&t)) {
			take(&t, s);
			return true;
		}
	}
	return false;
}

/* With page-table isolation user mode's root lies one page above the kernel's and maps next to nothing of it. */
static bool read_through(struct symbols *s, const struct inspect *in)
{
	u64 from = KERNEL_LOWEST;
	struct kimage k;
	bool done = false;

	while (!done && kimage_copy(in, from, &k)) {
		done = kallsyms_read(s, &k);
		from = k.base + KIMAGE_MAX / 2;
		kimage_free(&k);
	}
	return done;
}

int symbols_from_guest(struct symbols *s, const struct inspect *in, struct err *e)
{
	struct inspect kernel = *in;

	kernel.s.cr3 &= ~4096ull;
	if (read_through(s, in) || (kernel.s.cr3 != in->s.cr3 && read_through(s, &kernel)))
		return 0;
	return err_set(e, ENOENT, "no symbols found in the guest (it is no Linux for x86-64, or has not started yet; try --symbols)");
}
