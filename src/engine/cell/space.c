/*
 * What a cell has mapped, and the guest's page tables. A page is mapped when user code has faulted there, with those around it that the
 * guest's tables have marked as accessed: neither A nor D is set here, so a page is writable only where D is set already; an access that
 * needs more is done by the interpreter, which sets them as the processor would.
 *
 * Like a TLB's entries, mappings end when the guest says so. What the TLB is told while the cell stands is queued, and done before it goes on.
 * After a flush of the whole address space each mapping is compared with the tables: as a rule, most of them still hold.
 */
#include <sys/mman.h>
#include <sys/syscall.h>

#include "engine/cell/cell_int.h"
#include "engine/mmu/mmu_int.h"

#define AROUND   32     /* pages that are mapped with one that has faulted */
#define MAX_MAPS 40000  /* calls of mmap since all was unmapped: the host allows 65,530 mappings */

static u32 bucket_of(u64 number)
{
	return (u32)(number ^ number >> 12) % CELL_BUCKETS;
}

static struct cell_chunk *chunk_find(struct cell_space *s, u64 number, bool make)
{
	u16 *head = &s->bucket[bucket_of(number)];
	struct cell_chunk *k = NULL;

	for (u32 i = *head; i; i = s->chunk[i - 1].next)
		if (s->chunk[i - 1].number == number)
			return &s->chunk[i - 1];
	if (!make || s->nchunks == CELL_CHUNKS)
		return NULL;
	k = &s->chunk[s->nchunks++];
	memset(k, 0, sizeof(*k));
	k->number = number;
	k->next = *head;
	*head = (u16)s->nchunks;
	return k;
}

u64 *space_find(struct cell *c, gva_t a)
{
	struct cell_chunk *k = chunk_find(c->space, a >> 21, false);

	return k ? &k->page[(a >> PAGE_SHIFT) % CHUNK_PAGES] : NULL;
}

static gva_t page_at(const struct cell_chunk *k, unsigned i)
{
	return k->number << 21 | (u64)i << PAGE_SHIFT;
}

/* ---- unmapping ---- */

static void forget_all(struct cell *c)
{
	memset(c->space->bucket, 0, sizeof(c->space->bucket));
	c->space->nchunks = 0;
	c->maps = 0;
}

/* Where the list is full, all goes. */
static void queue_unmap(struct cell *c, gva_t a, u64 size)
{
	if (c->nops == CELL_OPS)
		c->reset = true;
	if (!c->reset)
		cell_queue(c, SYS_munmap, a, size, 0, 0, 0, 0);
}

void space_unmap(struct cell *c, gva_t a)
{
	u64 *e = space_find(c, a);

	if (!e || !*e)
		return;
	*e = 0;
	queue_unmap(c, a & PAGE_MASK, PAGE_SIZE);
}

void space_drop_writes(struct cell *c, gpa_t gpa)
{
	struct cell_space *s = c->space;

	for (u32 n = 0; n < s->nchunks; n++) {
		struct cell_chunk *k = &s->chunk[n];

		for (unsigned i = 0; i < CHUNK_PAGES; i++) {
			if (!(k->page[i] & M_W) || (gpa != ~0ull && (k->page[i] & PAGE_MASK) != (gpa & PAGE_MASK)))
				continue;
			k->page[i] = 0;
			queue_unmap(c, page_at(k, i), PAGE_SIZE);
		}
	}
}

/* ---- what the guest's tables allow ---- */

static const struct vm_slot *slot_of(const struct vm *vm, gpa_t gpa)
{
	for (u32 i = 0; i < VM_MAX_SLOTS; i++)
		if (vm->slots[i].used && gpa - vm->slots[i].gpa < vm->slots[i].size)
			return &vm->slots[i];
	return NULL;
}

/* GPA and rights of page i of the span, as a mapping may have them now; 0: none. */
static u64 allowed(const struct vcpu *cpu, const struct mmu_span *s, unsigned i)
{
	struct walk w;
	u64 m = 0;
	u8 attr = 0;

	if (!mmu_span_page(cpu, s, i, &w) || !w.user || !w.accessed || w.gpa >= ENG_GPA_LIMIT)
		return 0;
	attr = __atomic_load_n(page_attr(w.gpa), __ATOMIC_RELAXED);
	if (!(attr & PA_RAM) || (attr & PA_RO && !slot_of(cpu->vm, w.gpa)))
		return 0; /* a device, or a window onto a file */
	m = w.gpa | M_R;
	if (w.writable && w.dirty && !(attr & (PA_RO | PA_CODE | PA_TABLE)) && (!(attr & PA_LOG) || attr & PA_DIRTY))
		m |= M_W;
	return m | (w.nx ? 0 : M_X);
}

static const u8 *neighbour(const struct vcpu *cpu, gva_t a)
{
	struct mmu_span s;
	struct walk w;

	if (a >= USER_END || !mmu_span_find(cpu, a, &s) || !mmu_span_page(cpu, &s, (a >> PAGE_SHIFT) % CHUNK_PAGES, &w) || !w.user ||
	    w.gpa >= ENG_GPA_LIMIT || !(__atomic_load_n(page_attr(w.gpa), __ATOMIC_RELAXED) & PA_RAM))
		return NULL;
	return gpa_to_hva(w.gpa);
}

/* A page is writable or executable, not both: which, the fault says. */
static u64 choose(const struct vcpu *cpu, gva_t a, u64 m, bool fetch)
{
	if (m & M_X && m & M_W && !fetch)
		return m & ~(u64)M_X;
	if (!(m & M_X))
		return m;
	m &= ~(u64)M_W;
	if (!scan_fit(gpa_to_hva(m & PAGE_MASK), neighbour(cpu, a - PAGE_SIZE), neighbour(cpu, a + PAGE_SIZE)))
		m = (m & ~(u64)M_X) | M_UNFIT;
	return m;
}

/* ---- mapping ---- */

struct run {
	gva_t at;
	u64 first; /* GPA and rights of the first page */
	u64 pages;
};

/* False: there is no room, or the memory is no slot's. */
static bool map_run(struct vcpu *cpu, struct cell *c, const struct run *r)
{
	const struct vm_slot *s = slot_of(cpu->vm, r->first & PAGE_MASK);
	u64 size = r->pages << PAGE_SHIFT, rights = r->first & (M_R | M_W | M_X);
	long prot = PROT_READ | (rights & M_W ? PROT_WRITE : 0) | (rights & M_X ? PROT_EXEC : 0);

	if (!r->pages)
		return true;
	if (!s || (r->first & PAGE_MASK) - s->gpa + size > s->size || c->nops == CELL_OPS || c->maps >= MAX_MAPS)
		return false;
	c->maps++;
	cell_queue(c, SYS_mmap, r->at, size, (u64)prot, MAP_SHARED | MAP_FIXED | MAP_POPULATE, (u64)s->fd,
		   s->fd_offset + ((r->first & PAGE_MASK) - s->gpa));
	return true;
}

static void note(struct vcpu *cpu, u64 *e, u64 m)
{
	*e = m;
	if (m & M_W)
		tlb_note_writable(cpu, m & PAGE_MASK); /* tlb_drop_writes() has to look here */
}

/* Pages [from, to) of the chunk; those that are mapped keep what they have. False: there was no room, and all is unmapped first. */
static bool map_range(struct vcpu *cpu, struct cell *c, struct cell_chunk *k, const struct mmu_span *s, unsigned from, unsigned to)
{
	struct run r = {0};

	for (unsigned i = from; i < to; i++) {
		u64 m = k->page[i] || page_at(k, i) < USER_BEGIN ? 0 : allowed(cpu, s, i);

		if (m) {
			m = choose(cpu, page_at(k, i), m, false);
			note(cpu, &k->page[i], m);
		}
		if (r.pages && m == r.first + (r.pages << PAGE_SHIFT)) {
			r.pages++;
			continue;
		}
		if (!map_run(cpu, c, &r))
			return false;
		r = (struct run){page_at(k, i), m, m ? 1 : 0};
	}
	return map_run(cpu, c, &r);
}

/* The one page, anew: it may have been mapped with less. */
static bool map_one(struct vcpu *cpu, struct cell *c, struct cell_chunk *k, unsigned i, u64 m)
{
	struct run r = {page_at(k, i), m, 1};

	note(cpu, &k->page[i], m);
	return map_run(cpu, c, &r);
}

bool space_beyond(const struct vcpu *cpu, gva_t a)
{
	struct mmu_span s;
	struct walk w;

	return a < USER_END && mmu_span_find(cpu, a, &s) && mmu_span_page(cpu, &s, (a >> PAGE_SHIFT) % CHUNK_PAGES, &w) && w.user && w.accessed &&
	       !allowed(cpu, &s, (a >> PAGE_SHIFT) % CHUNK_PAGES);
}

bool space_fault(struct vcpu *cpu, struct cell *c, gva_t a, bool fetch)
{
	unsigned i = (a >> PAGE_SHIFT) % CHUNK_PAGES, from = i & ~(AROUND - 1u);
	struct mmu_span s;
	struct cell_chunk *k = NULL;
	u64 m = 0, old = 0;

	if (a < USER_BEGIN || a >= USER_END || (a >= STUB_BASE && a < STUB_END) || !mmu_span_find(cpu, a, &s))
		return false;
	m = allowed(cpu, &s, i);
	if (!m)
		return false;
	k = chunk_find(c->space, a >> 21, true);
	if (!k) {
		c->reset = true;
		return true;
	}
	old = k->page[i];
	m = choose(cpu, page_at(k, i), m, fetch);
	if (m == old || (old && (old & PAGE_MASK) == (m & PAGE_MASK) && !(m & ~old & (M_W | M_X))))
		return false;
	if (!map_one(cpu, c, k, i, m) || (!old && !map_range(cpu, c, k, &s, from, from + AROUND)))
		c->reset = true;
	return true;
}

/* ---- before the cell goes on ---- */

/* Still as the tables have it? */
static bool holds(const struct vcpu *cpu, const struct mmu_span *s, unsigned i, u64 m)
{
	u64 now = allowed(cpu, s, i);

	return now && (now & PAGE_MASK) == (m & PAGE_MASK) && !(m & ~now & (M_W | M_X));
}

static void compare(struct vcpu *cpu, struct cell *c)
{
	struct cell_space *sp = c->space;

	for (u32 n = 0; n < sp->nchunks && !c->reset; n++) {
		struct cell_chunk *k = &sp->chunk[n];
		struct mmu_span s;
		bool there = mmu_span_find(cpu, page_at(k, 0), &s);
		unsigned from = 0, run = 0;

		for (unsigned i = 0; i <= CHUNK_PAGES; i++) {
			bool gone = i < CHUNK_PAGES && k->page[i] && !(there && holds(cpu, &s, i, k->page[i]));

			if (gone) {
				k->page[i] = 0;
				from = run++ ? from : i;
			} else if (run) {
				queue_unmap(c, page_at(k, from), (u64)run << PAGE_SHIFT);
				run = 0;
			}
		}
	}
}

void space_reset(struct cell *c)
{
	c->nops = 0;
	c->reset = false;
	forget_all(c);
	cell_queue(c, SYS_munmap, 0, STUB_BASE, 0, 0, 0, 0);
	cell_queue(c, SYS_munmap, STUB_END, USER_END - STUB_END, 0, 0, 0, 0);
}

void space_settle(struct vcpu *cpu, struct cell *c)
{
	if (c->unsure)
		compare(cpu, c);
	c->unsure = false;
	if (c->wanted && !c->reset)
		space_fault(cpu, c, c->wanted, c->wanted_fetch);
	c->wanted = 0;
	if (c->reset)
		space_reset(c);
}
