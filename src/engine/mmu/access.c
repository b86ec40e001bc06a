/* Slow paths of guest memory accesses: TLB miss, page crossing, MMIO, pages with code. */
#include "engine/cpu/breakpoints.h"
#include "engine/interp/interp.h"
#include "engine/mmu/mmu_int.h"
#include "engine/trace/trace.h"

static bool canonical(gva_t a)
{
	return (u64)((s64)(a << 16) >> 16) == a;
}

/* Outside long mode linear addresses wrap at 4 GiB. */
static gva_t linear(const struct vcpu *cpu, gva_t a)
{
	return cpu->efer & EFER_LMA ? a : (u32)a;
}

/* Where an access that begins at a goes on after its first bytes, in the next page: 32-bit code under long mode wraps too. */
static gva_t go_on(const struct vcpu *cpu, gva_t a, unsigned first)
{
	gva_t next = linear(cpu, a + first);

	return next == BIT64(32) && !cpu->mode.long64 ? 0 : next;
}

/* GPA of the byte at a for the access; faults. Fills the TLB if the page is RAM. */
static gpa_t translate(struct vcpu *cpu, gva_t a, enum access_type t, enum mmu_idx idx)
{
	struct walk w;
	u32 r;

	cpu->stats.tlb_misses++;
	if (cpu->efer & EFER_LMA && !canonical(a))
		cpu_raise_gp(cpu, 0);
	r = mmu_walk(cpu, a, t, idx, &w);
	if (r)
		cpu_raise_pf(cpu, a, r & ~PF_FAULT);
	if (phys_is_ram(w.gpa))
		tlb_install(cpu, a, &w, t, idx);
	return w.gpa | (a & ~PAGE_MASK);
}

bool mmu_fill(struct vcpu *cpu, gva_t a, enum access_type t, enum mmu_idx idx, u32 *error)
{
	struct walk w;
	u32 r = 0;

	*error = 0;
	a = linear(cpu, a);
	if (cpu->efer & EFER_LMA && !canonical(a))
		return false;
	cpu->stats.tlb_misses++;
	r = mmu_walk(cpu, a, t, idx, &w);
	*error = r;
	if (r)
		return false;
	if (phys_is_ram(w.gpa))
		tlb_install(cpu, a, &w, t, idx);
	return true;
}

/*
 * SDM 3A 6.15, #AC: CPL 3, CR0.AM and RFLAGS.AC. Pointers of 6 and 10 bytes align like the offset in them. Before #PF, as AMD's
 * processors have it: both are in the last class of SDM 3A table 6-2, whose order it leaves to the implementation.
 */
static void check_alignment(struct vcpu *cpu, gva_t a, unsigned size, enum mmu_idx idx)
{
	unsigned align = size == 6 ? 4 : size == 10 ? 8 : size;

	if (unlikely(idx == MMU_USER_AC) && align <= 8 && a & (align - 1))
		cpu_raise_err(cpu, EXC_AC, 0);
}

static unsigned in_page(gva_t a, unsigned size)
{
	return MIN(size, (unsigned)(PAGE_SIZE - (a & ~PAGE_MASK)));
}

void mmu_note_write(struct vcpu *cpu, gpa_t a, unsigned size)
{
	u8 attr = __atomic_load_n(page_attr(a), __ATOMIC_RELAXED);

	if (attr & PA_LOG && !(attr & PA_DIRTY))
		__atomic_fetch_or(page_attr(a), PA_DIRTY, __ATOMIC_RELAXED);
	if (!(attr & PA_CODE))
		return;
	if (cpu) {
		cpu->stats.smc_invalidations++;
		if (TRACING(cpu, CODE))
			trace_code_store(cpu, a, size);
	}
	code_invalidate(a, size);
}

/* MMIO in naturally aligned pieces of at most 8 bytes. */
static unsigned mmio_piece(gpa_t a, unsigned size)
{
	unsigned n = 8;

	while (n > size || a & (n - 1))
		n >>= 1;
	return n;
}

static void read_part(struct vcpu *cpu, gpa_t a, u8 *buf, unsigned size)
{
	if (phys_is_ram(a)) {
		memcpy(buf, gpa_to_hva(a), size);
		return;
	}
	while (size) {
		unsigned n = mmio_piece(a, size);

		cpu_mmio_read(cpu, a, buf, n);
		a += n, buf += n, size -= n;
	}
}

/* A store of a power of two must not be torn: other vCPUs and devices read. */
static void store(u8 *p, const u8 *buf, unsigned size)
{
	switch (size) {
	case 2:
		*(volatile u16 *)p = *(const u16 *)buf;
		break;
	case 4:
		*(volatile u32 *)p = *(const u32 *)buf;
		break;
	case 8:
		*(volatile u64 *)p = *(const u64 *)buf;
		break;
	default:
		memcpy(p, buf, size);
	}
}

static void store_to_table(struct vcpu *cpu, gpa_t a, const u8 *buf, unsigned size)
{
	u64 old = 0, new = 0;

	memcpy(&old, gpa_to_hva(a), MIN(size, 8u));
	memcpy(&new, buf, MIN(size, 8u));
	store(gpa_to_hva(a), buf, size);
	trace_table_store(cpu, a, old, new, size, false);
}

static void write_part(struct vcpu *cpu, gpa_t a, const u8 *buf, unsigned size)
{
	u8 attr = a < ENG_GPA_LIMIT ? __atomic_load_n(page_attr(a), __ATOMIC_RELAXED) : 0;

	if (attr & PA_RAM && !(attr & PA_RO)) {
		if (unlikely(attr & PA_TABLE))
			store_to_table(cpu, a, buf, size);
		else
			store(gpa_to_hva(a), buf, size);
		/* after the store: a decode in between read the new bytes, or is dropped here */
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		mmu_note_write(cpu, a, size);
		return;
	}
	while (size) {
		unsigned n = mmio_piece(a, size);

		cpu_mmio_write(cpu, a, buf, n);
		a += n, buf += n, size -= n;
	}
}

void mmu_read_slow(struct vcpu *cpu, gva_t a, void *buf, unsigned size, enum mmu_idx idx)
{
	unsigned first;
	gpa_t g0, g1 = 0;
	u8 tmp[64];

	a = linear(cpu, a);
	check_alignment(cpu, a, size, idx);
	first = in_page(a, size);
	g0 = translate(cpu, a, ACC_READ, idx);
	if (first < size)
		g1 = translate(cpu, go_on(cpu, a, first), ACC_READ, idx);
	dbg_data_before(cpu, a, size, false);
	read_part(cpu, g0, tmp, first);
	if (first < size)
		read_part(cpu, g1, tmp + first, size - first);
	dbg_data_access(cpu, a, size, false);
	memcpy(buf, tmp, size);
}

void mmu_write_slow(struct vcpu *cpu, gva_t a, const void *buf, unsigned size, enum mmu_idx idx)
{
	unsigned first;
	gpa_t g0, g1 = 0;

	a = linear(cpu, a);
	check_alignment(cpu, a, size, idx);
	first = in_page(a, size);
	g0 = translate(cpu, a, ACC_WRITE, idx);
	if (first < size)
		g1 = translate(cpu, go_on(cpu, a, first), ACC_WRITE, idx);
	dbg_data_before(cpu, a, size, true);
	write_part(cpu, g0, buf, first);
	if (first < size)
		write_part(cpu, g1, (const u8 *)buf + first, size - first);
	dbg_data_access(cpu, a, size, true);
}

void mmu_probe(struct vcpu *cpu, gva_t a, unsigned size, enum access_type t, enum mmu_idx idx)
{
	unsigned first;

	a = linear(cpu, a);
	check_alignment(cpu, a, size, idx);
	first = in_page(a, size);
	translate(cpu, a, t, idx);
	if (first < size)
		translate(cpu, go_on(cpu, a, first), t, idx);
	dbg_data_before(cpu, a, size, t == ACC_WRITE); /* what follows a probe may have changed state before it writes */
}

void *mmu_ptr_slow(struct vcpu *cpu, gva_t a, unsigned size, enum access_type t, enum mmu_idx idx)
{
	gpa_t g;
	u8 attr;

	a = linear(cpu, a);
	check_alignment(cpu, a, size, idx);
	if (in_page(a, size) < size) {
		mmu_probe(cpu, a, size, t, idx);
		return NULL;
	}
	g = translate(cpu, a, t, idx);
	dbg_data_before(cpu, a, size, t == ACC_WRITE);
	attr = g < ENG_GPA_LIMIT ? __atomic_load_n(page_attr(g), __ATOMIC_RELAXED) : 0;
	if (!(attr & PA_RAM) || (t == ACC_WRITE && attr & PA_RO))
		return NULL;
	if (t == ACC_WRITE) {
		mmu_note_write(cpu, g, size);
		if (unlikely(attr & PA_TABLE))
			trace_table_pointer(cpu, g, size);
		if (attr & PA_CODE) {
			/* another vCPU may decode the old bytes before the caller has written: once more afterwards */
			if (cpu->late_size) /* an earlier instruction of this block: its write is done */
				code_invalidate(cpu->late_gpa, cpu->late_size);
			cpu->late_gpa = g;
			cpu->late_size = size;
			vcpu_kick(cpu, ATT_IRQ);
		}
	}
	dbg_data_access(cpu, a, size, t == ACC_WRITE);
	return gpa_to_hva(g);
}

gpa_t mmu_fetch_page(struct vcpu *cpu, gva_t a)
{
	enum mmu_idx idx = cpu->mode.cpl == 3 ? MMU_USER : MMU_KERNEL;
	const struct tlb_entry *e;
	gpa_t g;

	a = linear(cpu, a);
	e = &cpu->tlb.e[idx][tlb_index(a)];
	if (e->tag_x == ((a & PAGE_MASK) | cpu->tlb.ctx[a >> 63]))
		return (a & PAGE_MASK) + e->addend - ENG_RAM_BASE;
	g = translate(cpu, a, ACC_EXEC, idx);
	if (!phys_is_ram(g))
		cpu_exit_emulation(cpu);
	return g & PAGE_MASK;
}

/* Like mmu_fetch_page, but tells instead of raising. */
static bool fetchable(struct vcpu *cpu, gva_t a, gpa_t *page)
{
	enum mmu_idx idx = cpu->mode.cpl == 3 ? MMU_USER : MMU_KERNEL;
	const struct tlb_entry *e = &cpu->tlb.e[idx][tlb_index(a)];
	struct walk w;

	if (e->tag_x == ((a & PAGE_MASK) | cpu->tlb.ctx[a >> 63])) {
		*page = (a & PAGE_MASK) + e->addend - ENG_RAM_BASE;
		return true;
	}
	if (cpu->efer & EFER_LMA && !canonical(a))
		return false;
	if (mmu_walk(cpu, a, ACC_EXEC, idx, &w) || !phys_is_ram(w.gpa))
		return false;
	tlb_install(cpu, a, &w, ACC_EXEC, idx);
	*page = w.gpa;
	return true;
}

unsigned mmu_fetch_bytes(struct vcpu *cpu, gva_t a, u8 *buf, unsigned n)
{
	unsigned first;
	gpa_t g;

	a = linear(cpu, a);
	first = in_page(a, n);
	g = mmu_fetch_page(cpu, a);
	memcpy(buf, gpa_to_hva(g | (a & ~PAGE_MASK)), first);
	if (first == n)
		return n;
	if (!fetchable(cpu, go_on(cpu, a, first), &g))
		return first;
	memcpy(buf + first, gpa_to_hva(g), n - first);
	return n;
}
