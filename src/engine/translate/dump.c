/*
 * Translated blocks as text: guest code, host code, and the places in it that may fault or leave. Not while the guest runs: the
 * C library is used.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "engine/translate/dump.h"
#include "engine/translate/tr_int.h"

/* Text from `skip` on goes to p. */
struct sink {
	char *p;
	unsigned room, n, skip;
};

static void say(struct sink *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct sink *o, const char *fmt, ...)
{
	char line[300];
	va_list ap;
	int n = 0;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	for (int i = 0; i < MIN(n, (int)sizeof(line) - 1); i++) {
		if (o->skip)
			o->skip--;
		else if (o->n < o->room)
			o->p[o->n++] = line[i];
	}
}

static void say_insn(struct sink *o, const struct insn *in, u64 at, unsigned len)
{
	char text[100], bytes[3 * 16 + 1] = "";

	insn_format(in, at, text, sizeof(text));
	for (unsigned k = 0; k < len; k++)
		snprintf(bytes + 3 * k, 4, "%02x ", in->bytes[k]);
	say(o, "  %016lx  %-46s %s\n", at, text, bytes);
}

static void say_code(struct sink *o, const u8 *p, unsigned n, u64 at, enum insn_mode mode)
{
	struct insn in;

	for (unsigned i = 0; i < n; i += in.len) {
		if (insn_decode(p + i, MIN(n - i, INSN_MAX_LEN), mode, &in) != INSN_OK) {
			say(o, "  %016lx  (byte)                                         %02x\n", at + i, p[i]);
			in.len = 1;
			continue;
		}
		say_insn(o, &in, at + i, in.len);
	}
}

static void say_sites(struct sink *o, const struct tblock *b, u64 page)
{
	static const char *const kinds[] = {
		[SITE_MEM] = "address not in the table", [SITE_EMU] = "handler", [SITE_EXIT] = "jump to chain",
		[SITE_STOP] = "attention", [SITE_STALE] = "code changed", [SITE_DEAD] = "block is dead",
		[SITE_JUMP] = "indirect jump", [SITE_FAR] = "jump to another page", [SITE_CROSS] = "second page elsewhere",
		[SITE_FAULT] = "host fault",
	};

	for (u32 i = 0; i < b->nsites; i++) {
		const struct tr_site *s = site_at(b->first_site + i);

		say(o, "  %8x  guest %016lx  fault at %08x  on to %08x  %s", b->first_site + i, page + s->goff, s->at, s->resume,
		    kinds[s->kind]);
		if (s->kind == SITE_MEM)
			say(o, ", %s of %u", s->write ? "write" : "read", s->size);
		if (s->kind == SITE_EXIT || s->kind == SITE_STOP || s->kind == SITE_FAR)
			say(o, ", target %016lx", page + (u64)(s64)s->target);
		say(o, "\n");
	}
}

/* The block's code in one piece. */
static const u8 *guest_bytes(const struct tblock *b, u8 room[2 * INSN_MAX_LEN])
{
	unsigned here = (unsigned)(PAGE_SIZE - (b->gpa & ~PAGE_MASK));

	if (!b->cross)
		return gpa_to_hva(b->gpa);
	memcpy(room, gpa_to_hva(b->gpa), MIN(here, (unsigned)INSN_MAX_LEN));
	memcpy(room + MIN(here, (unsigned)INSN_MAX_LEN), gpa_to_hva((gpa_t)b->cross << 12), INSN_MAX_LEN);
	return room;
}

/* The block's ways out, which lie apart (build_leave_apart()), in a row; the last is that of its end. */
static void say_apart(struct sink *o, const struct tblock *b)
{
	u64 at = b->dead_stub;
	u32 site = 0;

	do {
		at -= LEAVE_BYTES;
		memcpy(&site, (const u8 *)at + 2, sizeof(site)); /* mov r15d, site */
	} while (((const u8 *)at)[0] == 0x41 && ((const u8 *)at)[1] == 0xbf && site - b->first_site < b->nsites);
	at += LEAVE_BYTES;
	say(o, "ways out, apart from it:\n");
	say_code(o, (const u8 *)at, (unsigned)(b->dead_stub + LEAVE_BYTES - at), at, INSN_MODE_64);
}

static void say_block(struct sink *o, u32 n, u64 page)
{
	const struct tblock *b = tb_at(n);
	u8 bytes[2 * INSN_MAX_LEN];
	enum insn_mode mode = (b->key & 3) == INSN_MODE_64 ? INSN_MODE_64 : INSN_MODE_32;

	say(o, "block %u%s: guest %016lx, physical %010lx, %u instructions, %u bytes, key %x\n", n, b->dead ? " (dead)" : "",
	    (u64)(page + (b->gpa & ~PAGE_MASK)), (u64)b->gpa, b->ninsns, b->bytes, b->key);
	say_code(o, guest_bytes(b, bytes), b->bytes, page + (b->gpa & ~PAGE_MASK), mode);
	say(o, "host code, entered at %08x, from the same page at %08x:\n", b->enter, b->body);
	say_code(o, (const u8 *)(u64)b->begin, b->end - b->begin, b->begin, INSN_MODE_64);
	say_apart(o, b);
	say(o, "places that leave:\n");
	say_sites(o, b, page);
}

u32 tr_dump(gpa_t gpa, u64 pc, u32 skip, char *text, u32 room)
{
	struct sink o = {.p = text, .room = room, .skip = skip};
	u32 last = tr_available() ? tb_count() : 0;

	for (u32 n = 1; n < last; n++)
		if (tb_at(n)->gpa <= gpa && gpa < tb_at(n)->gpa + tb_at(n)->bytes)
			say_block(&o, n, pc & PAGE_MASK);
	return o.n;
}
