/* Page-table walks and memory of a stopped guest (SDM 3A 4.3 to 4.5). */
#include <stdio.h>
#include <string.h>
#include "base/base.h"
#include "debug/inspect.h"

#define CR0_PE   BIT64(0)
#define CR0_PG   BIT64(31)
#define CR4_PSE  BIT64(4)
#define CR4_PAE  BIT64(5)
#define EFER_LMA BIT64(10)
#define EFER_NXE BIT64(11)
#define PTE_P    BIT64(0)
#define PTE_RW   BIT64(1)
#define PTE_US   BIT64(2)
#define PTE_PS   BIT64(7)
#define PTE_NX   BIT64(63)
#define ADDRESS_BITS 0x000ffffffffff000ull

/* ---- physical ---- */
static u8 *host_of(const struct guestmem *ram, gpa_t a, u64 n)
{
	for (u32 i = 0; i < ram->nslots; i++)
		if (a >= ram->slot[i].gpa && a - ram->slot[i].gpa < ram->slot[i].size &&
		    n <= ram->slot[i].size - (a - ram->slot[i].gpa))
			return ram->slot[i].host + (a - ram->slot[i].gpa);
	return NULL;
}

bool inspect_read_physical(const struct guestmem *ram, gpa_t a, void *buf, u64 n)
{
	const u8 *p = host_of(ram, a, n);

	if (p)
		memcpy(buf, p, n);
	return p;
}

bool inspect_write_physical(const struct guestmem *ram, gpa_t a, const void *buf, u64 n)
{
	u8 *p = host_of(ram, a, n);

	if (!p)
		return false;
	memcpy(p, buf, n);
	if (ram->written)
		ram->written(ram->arg, a, n);
	return true;
}

/* ---- walk ---- */
/* A paging mode: its levels from the root down, how many address bits each takes, and the size of entries. */
struct paging {
	u8 levels, index_bits, entry_size;
	u64 root;
};

static struct paging paging_of(const struct kvm_sregs *s)
{
	if (s->efer & EFER_LMA)
		return (struct paging){4, 9, 8, s->cr3 & ADDRESS_BITS};
	if (s->cr4 & CR4_PAE)
		return (struct paging){3, 9, 8, s->cr3 & 0xffffffe0u};
	return (struct paging){2, 10, 4, s->cr3 & 0xfffff000u};
}

static bool canonical(u64 a)
{
	return (u64)((s64)(a << 16) >> 16) == a;
}

/* Is the entry the last one of the walk? 1 GiB pages only in long mode; 4 MiB pages need CR4.PSE. */
static bool is_leaf(const struct kvm_sregs *s, const struct paging *p, unsigned level, u64 entry)
{
	if (level == 1)
		return true;
	if (!(entry & PTE_PS) || level > 3 || (level == 3 && p->levels == 3))
		return false;
	return p->entry_size == 8 || s->cr4 & CR4_PSE;
}

static u64 leaf_base(const struct paging *p, unsigned level, u64 entry, u64 size)
{
	if (p->entry_size == 4 && level == 2) /* PSE-36: bits 39:32 are bits 20:13 of the entry (SDM 3A 4.3) */
		return (entry & 0xffc00000u) | (entry >> 13 & 0xff) << 32;
	return entry & (p->entry_size == 4 ? 0xfffff000u : ADDRESS_BITS) & ~(size - 1);
}

/* PAE's top entries have no permission bits (SDM 3A 4.4.1). */
static void permissions(const struct inspect *in, const struct paging *p, unsigned level, u64 entry, struct inspect_walk *w)
{
	if (p->levels == 3 && level == 3)
		return;
	w->writable &= !!(entry & PTE_RW);
	w->user &= !!(entry & PTE_US);
	w->nx |= p->entry_size == 8 && in->s.efer & EFER_NXE && entry & PTE_NX;
}

static enum inspect_end descend(const struct inspect *in, struct inspect_walk *w)
{
	struct paging p = paging_of(&in->s);
	u64 table = p.root;

	for (unsigned level = p.levels; level; level--) {
		struct inspect_step *st = &w->step[w->nsteps];
		unsigned shift = 12 + (level - 1) * p.index_bits;

		*st = (struct inspect_step){.level = (u8)level, .size = p.entry_size};
		st->at = table + (w->linear >> shift & (BIT64(p.index_bits) - 1)) * p.entry_size;
		if (!inspect_read_physical(in->ram, st->at, &st->entry, p.entry_size))
			return WALK_NO_RAM;
		w->nsteps++;
		if (!(st->entry & PTE_P))
			return WALK_NOT_PRESENT;
		if (p.entry_size == 8 && !(in->s.efer & EFER_NXE) && st->entry & PTE_NX)
			return WALK_RESERVED;
		permissions(in, &p, level, st->entry, w);
		st->leaf = is_leaf(&in->s, &p, level, st->entry);
		if (st->leaf) {
			w->page_size = BIT64(shift);
			w->gpa = leaf_base(&p, level, st->entry, w->page_size) | (w->linear & (w->page_size - 1));
			return WALK_MAPPED;
		}
		table = st->entry & (p.entry_size == 4 ? 0xfffff000u : ADDRESS_BITS);
	}
	return WALK_RESERVED;
}

void inspect_walk(const struct inspect *in, u64 linear, struct inspect_walk *w)
{
	*w = (struct inspect_walk){.linear = linear, .writable = true, .user = true};
	if (in->s.efer & EFER_LMA ? !canonical(linear) : linear >> 32) {
		w->end = WALK_NOT_CANONICAL; /* outside long mode linear addresses have 32 bits */
	} else if (!(in->s.cr0 & CR0_PG)) {
		w->gpa = linear;
		w->end = WALK_MAPPED;
	} else {
		w->end = descend(in, w);
	}
}

const char *inspect_end_text(enum inspect_end end)
{
	static const char *const text[] = {
		[WALK_MAPPED] = "mapped", [WALK_NOT_PRESENT] = "not present", [WALK_RESERVED] = "a reserved bit is set",
		[WALK_NO_RAM] = "the table is not in RAM", [WALK_NOT_CANONICAL] = "not canonical",
	};

	return text[end];
}

const char *inspect_entry_text(const struct inspect_step *s, char *buf, size_t n)
{
	static const struct {
		u8 bit;
		bool leaf; /* means something in the last entry only */
		const char *name;
	} bits[] = {{0, false, "P"}, {1, false, "RW"}, {2, false, "US"}, {3, false, "PWT"}, {4, false, "PCD"},
		    {5, false, "A"}, {6, true, "D"}, {7, true, "PS"}, {8, true, "G"}, {63, false, "NX"}};
	size_t used = 0;

	if (n)
		buf[0] = 0;
	for (u32 i = 0; i < ARRAY_SIZE(bits); i++) {
		const char *name = bits[i].bit == 7 && s->level == 1 ? "PAT" : bits[i].name;

		if (!(s->entry >> bits[i].bit & 1) || (bits[i].leaf && !s->leaf) || used >= n)
			continue;
		used += (size_t)snprintf(buf + used, n - used, "%s%s", used ? " " : "", name);
	}
	return buf;
}

/* ---- linear ---- */
static u64 each_page(const struct inspect *in, u64 linear, u8 *buf, u64 n, bool write)
{
	u64 done = 0;

	while (done < n) {
		u64 a = linear + done, part = MIN(n - done, 4096 - (a & 4095));
		struct inspect_walk w;

		inspect_walk(in, a, &w);
		if (w.end != WALK_MAPPED)
			break;
		if (!(write ? inspect_write_physical(in->ram, w.gpa, buf + done, part)
			    : inspect_read_physical(in->ram, w.gpa, buf + done, part)))
			break;
		done += part;
	}
	return done;
}

u64 inspect_read(const struct inspect *in, u64 linear, void *buf, u64 n)
{
	return each_page(in, linear, buf, n, false);
}

u64 inspect_write(const struct inspect *in, u64 linear, const void *buf, u64 n)
{
	return each_page(in, linear, (u8 *)(uintptr_t)buf, n, true);
}

unsigned inspect_code_bits(const struct kvm_sregs *s)
{
	if (s->efer & EFER_LMA && s->cs.l)
		return 64;
	return s->cr0 & CR0_PE && s->cs.db ? 32 : 16;
}
