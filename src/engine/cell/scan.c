/*
 * Instructions that do not fault in user mode and answer otherwise than the guest's processor would: CPUID, XGETBV, XSAVE with the host's
 * components, LSL and others. A page that has one is run in translated code. (RDTSC faults, as the cell asks for it; SYSCALL and INT3
 * stop the cell.) INT 80h stops it too, but by then the host's kernel has cut RAX to 32 bits; INT 4 stops it behind the instruction, as
 * if the next one had faulted.
 *
 * The bytes of such an instruction may also be part of others: then a disassembly that begins a little before passes over them. It
 * need not be right about where instructions begin: x86 code falls into step within a few of them.
 *
 * Not among them are SLDT, STR, VERR and VERW, which see the host's tables: as each Linux has them.
 */
#include "engine/cell/cell_int.h"
#include "engine/isa/insn.h"

#define BEHIND 2  /* bytes after the first that decide */
#define BACK   48 /* where disassemblies begin */
#define STARTS 16

static bool sensitive(const u8 *p)
{
	unsigned reg = p[2] >> 3 & 7;
	bool memory = p[2] >> 6 != 3;

	if (p[0] == 0xcd)
		return p[1] == 0x04 || p[1] == 0x80;
	if (p[0] != 0x0f)
		return false;
	switch (p[1]) {
	case 0xa2: /* CPUID */
		return true;
	case 0x01: /* SGDT, SIDT, SMSW; XGETBV, RDPKRU, WRPKRU, VMCALL, VMMCALL; what else there is faults */
		return (memory ? reg <= 1 : p[2] == 0xd0 || p[2] == 0xee || p[2] == 0xef || p[2] == 0xc1 || p[2] == 0xd9) || reg == 4;
	case 0x02: /* LAR */
	case 0x03: /* LSL */
	case 0x34: /* SYSENTER */
		return true;
	case 0xae: /* XSAVE, XRSTOR, XSAVEOPT */
		return memory && reg >= 4 && reg <= 6;
	case 0xc7: /* XRSTORS, XSAVEC, XSAVES; RDPID */
		return memory ? reg >= 3 && reg <= 5 : reg == 7;
	}
	return false;
}

/* Whether a disassembly finds an instruction with its opcode at n: what is before may be prefixes. */
static bool meets(const u8 *b, unsigned from, unsigned n, unsigned size)
{
	struct insn in;

	while (from < n) {
		unsigned len = insn_decode(b + from, size - from, INSN_MODE_64, &in) ? 1 : in.len;
		unsigned p = from;

		if (from + len > n) {
			while (p < n && (b[p] == 0x66 || b[p] == 0xf2 || b[p] == 0xf3 || (b[p] & 0xf0) == 0x40 || b[p] == 0x2e || b[p] == 0x3e ||
					 b[p] == 0x64 || b[p] == 0x65))
				p++;
			return p == n;
		}
		from += len;
	}
	return true;
}

/* The opcode is at n, and what follows is there. Most disassemblies say so: each alone may have begun in the middle of something. */
static bool is_instruction(const u8 *b, unsigned n, unsigned size)
{
	unsigned first = n > BACK ? n - BACK : 0, last = MIN(first + STARTS, n ? n - 1 : 0), met = 0;

	for (unsigned from = first; from <= last; from++)
		met += meets(b, from, n, size);
	return met * 2 > last - first;
}

/* A byte of v is n. */
static bool has(u64 v, u8 n)
{
	v ^= n * 0x0101010101010101ull;
	return (v - 0x0101010101010101ull) & ~v & 0x8080808080808080ull;
}

#define EDGE 64 /* more than BACK and an instruction */

#define LAST 16 /* where an instruction at a page's end may begin */

/* Around the end of a page, from and to counted from there. Without a second page an instruction may still end there. */
static bool border_fit(const u8 *one, const u8 *two, int from, int to)
{
	u8 b[2 * EDGE] = {0};

	memcpy(b, one + PAGE_SIZE - EDGE, EDGE);
	if (two)
		memcpy(b + EDGE, two, EDGE);
	for (int n = EDGE + from; n < EDGE + to; n++)
		if (sensitive(b + n) && is_instruction(b, (unsigned)n, sizeof(b)))
			return false;
	return true;
}

bool scan_fit(const u8 *page, const u8 *before, const u8 *after)
{
	/* where the page begins, what is before decides what is an instruction */
	for (unsigned i = before ? BACK : 0; i < PAGE_SIZE - LAST; i += 8) {
		u64 v;

		memcpy(&v, page + i, 8);
		if (likely(!has(v, 0x0f) && !has(v, 0xcd)))
			continue;
		for (unsigned n = i; n < i + 8; n++)
			if (sensitive(page + n) && is_instruction(page, n, PAGE_SIZE))
				return false;
	}
	return (!before || border_fit(before, page, -BEHIND, BACK)) && border_fit(page, after, -LAST, 0);
}
