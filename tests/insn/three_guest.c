/* The guest's side: one vCPU with real page tables, in every mode that is translated. Built like the engine. */
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "engine/cpu/cpu.h"
#include "engine/cpu/fpu.h"
#include "engine/cpu/run.h"
#include "engine/interp/interp.h"
#include "engine/lib/lib.h"
#include "engine/main.h"
#include "engine/translate/stress.h"
#include "engine/translate/tr.h"
#include "engine/vm.h"
#include "kvm/chan.h"
#include "tests/insn/three.h"

#define RAM_SIZE  0x800000ull
#define CODE_GPA  0x100000ull
#define DATA_GPA  0x200000ull
#define COUNT_GPA 0x300000ull
#define TABLE_GPA 0x10000ull

enum { T_PML4, T_PDPT, T_PD, T_CODE, T_DATA, T_COUNT, T_PAE };

static struct {
	enum world world;
	bool expired;
} guest;

static struct vcpu *the_vcpu(void)
{
	return (struct vcpu *)ENG_VCPU_LOW;
}

static bool map(u64 at, u64 size)
{
	return mmap((void *)at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE,
		    -1, 0) == (void *)at;
}

static bool map_arenas(void)
{
	return eng_arena_init() == 0 && map(ENG_VCPU_LOW, ENG_VCPU_SIZE) && map(ENG_ICACHE_BASE, ENG_ICACHE_SIZE) &&
	       map(ENG_TCACHE_BASE, ENG_TCACHE_SIZE) && map(ENG_ATTR_BASE, ENG_ATTR_SIZE) && map(ENG_RAM_BASE, RAM_SIZE);
}

static u64 *table(unsigned n)
{
	return (u64 *)gpa_to_hva(TABLE_GPA + n * PAGE_SIZE);
}

static u64 table_entry(unsigned n)
{
	return (TABLE_GPA + n * PAGE_SIZE) | 0x67;
}

#define NX    BIT64(63)
#define RW    0x67ull
#define RO    0x65ull

static void make_tables(void)
{
	table(T_PML4)[0] = table_entry(T_PDPT);
	table(T_PDPT)[0] = table_entry(T_PD);
	table(T_PAE)[0] = (TABLE_GPA + T_PD * PAGE_SIZE) | 1;
	table(T_PD)[W_CODE_VA >> 21] = table_entry(T_CODE);
	table(T_PD)[W_DATA_VA >> 21] = table_entry(T_DATA);
	table(T_PD)[W_COUNT_VA >> 21] = table_entry(T_COUNT);
	table(T_CODE)[0] = CODE_GPA | RW;
	table(T_CODE)[1] = (CODE_GPA + PAGE_SIZE) | RW;
	table(T_DATA)[0] = DATA_GPA | RW | NX;
	table(T_DATA)[1] = (DATA_GPA + PAGE_SIZE) | RW | NX;
	table(T_DATA)[2] = (DATA_GPA + 2 * PAGE_SIZE) | RO | NX;
	table(T_COUNT)[0] = COUNT_GPA | RW | NX;
}

static void set_segments(struct vcpu *cpu, const struct world_facts *w)
{
	u16 cs = w->cpl3 ? (w->mode64 ? 0x33 : 0x23) : 0x10;

	for (unsigned i = SEG_ES; i <= SEG_GS; i++)
		cpu->seg[i] = (struct segment){.limit = 0xffffffff, .sel = w->cpl3 ? 0x2b : 0x18, .type = 3, .s = true,
					       .dpl = w->cpl3 ? 3 : 0, .present = true, .db = true, .g = true};
	cpu->seg[SEG_CS].sel = cs;
	cpu->seg[SEG_CS].type = 0xb;
	cpu->seg[SEG_CS].l = w->mode64;
	cpu->seg[SEG_CS].db = !w->mode64;
	cpu->seg[SEG_LDTR].unusable = true;
}

/* The control registers of the program's world. */
static void enter_world(struct vcpu *cpu, enum world world)
{
	const struct world_facts *w = &world_facts[world];

	table(T_PML4)[256] = world == WORLD_HIGH ? table_entry(T_PDPT) : 0;
	cpu->cr0 = 0x80050033;
	cpu->cr4 = 0x506e0 | (world == WORLD_SMAP ? BIT(21) : 0);
	cpu->xcr0 = 7;
	cpu->efer = w->lma ? 0xd01 : 0x801;
	cpu->cr3 = w->lma ? TABLE_GPA : TABLE_GPA + T_PAE * PAGE_SIZE;
	cpu->pdpte[0] = table(T_PAE)[0];
	cpu->rflags = FL_ONE | FL_IF | (world == WORLD_SMAP ? FL_AC : 0);
	set_segments(cpu, w);
	cpu_update_mode(cpu);
	mmu_flush_all(cpu);
}

static void set_features(struct vcpu *cpu)
{
	struct kvm_cpuid_entry2 e[VCPU_MAX_CPUID];
	unsigned n = cpuid_supported(e, VCPU_MAX_CPUID);

	cpuid_set(cpu, e, n);
}

bool three_guest_init(void)
{
	struct vcpu *cpu = the_vcpu();
	struct vm *vm = the_vm();

	if (!map_arenas())
		return false;
	cpu->vm = vm;
	cpu->chan = (struct vcpu_chan *)(ENG_VCPU_LOW + ENG_VCPU_CHAN);
	cpu->chan->calm = CHAN_CALM;
	vm->vcpus[0] = cpu;
	vm->nvcpus = 1;
	for (u64 a = 0; a < RAM_SIZE; a += PAGE_SIZE)
		*page_attr(a) = PA_RAM;
	make_tables();
	mmu_reset(cpu);
	fpu_reset(cpu, false);
	set_features(cpu);
	enter_world(cpu, WORLD_USER64);
	return stub_init() == 0 && tr_init() && tr_vcpu_start(cpu);
}

bool three_guest_has(unsigned feature)
{
	return cpu_has(the_vcpu(), feature);
}

u64 three_guest_blocks(void)
{
	return the_vcpu()->stats.tr_blocks;
}

bool three_guest_signal(int sig, void *ucontext)
{
	struct vcpu *cpu = the_vcpu();

	return (sig == SIGFPE && cpu->vecexec && vec_handle_sigfpe(cpu, ucontext)) || tr_handle_fault(cpu, ucontext);
}

static void want_attention(struct vcpu *cpu, bool yes)
{
	__atomic_store_n(&cpu->chan->attention, yes ? ATT_IRQ : 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&cpu->chan->calm, yes ? 0 : CHAN_CALM, __ATOMIC_SEQ_CST);
}

void three_guest_expire(void)
{
	/* the first tick in a case may be its beginning */
	if (guest.expired)
		want_attention(the_vcpu(), true);
	guest.expired = true;
}

void three_guest_flush(void)
{
	mmu_flush_all(the_vcpu());
}

void three_guest_load(const struct program *p)
{
	u8 *code = gpa_to_hva(CODE_GPA);

	memset(code, W_FILL, W_CODE_SIZE);
	memcpy(code + p->at, p->bytes, p->len);
	code_invalidate(CODE_GPA, W_CODE_SIZE);
	if (guest.world != p->world)
		enter_world(the_vcpu(), p->world);
	guest.world = p->world;
}

static __attribute__((noinline)) void execute(struct vcpu *cpu, bool translate)
{
	unsigned stops = 0;

	/* runs into the invalid opcodes behind the code */
	for (;;) {
		cpu->shadow = SHADOW_NONE;
		if (cpu->chan->attention && guest.expired && ++stops > 2)
			return;
		want_attention(cpu, false);
		if (cpu->late_size)
			code_invalidate(cpu->late_gpa, cpu->late_size);
		cpu->late_size = 0;
		if (translate)
			tr_run(cpu);
		else
			interp_run(cpu);
	}
}

static __attribute__((noinline)) bool execute_guarded(struct vcpu *cpu, bool translate)
{
	if (__builtin_setjmp(cpu->unwind) == 0) {
		execute(cpu, translate);
		return false;
	}
	return true;
}

static void load(struct vcpu *cpu, const struct state *s)
{
	struct xsave_area *x = (struct xsave_area *)cpu->xsave;

	memcpy(cpu->gpr, s->gpr, sizeof(cpu->gpr));
	cpu->rip = s->rip;
	cpu->rflags = s->rflags | FL_ONE | FL_IF | (guest.world == WORLD_SMAP ? FL_AC : 0);
	cpu_update_mode(cpu); /* the program before may have set AC */
	cpu->seg[SEG_FS].base = world_facts[guest.world].mode64 ? s->fs_base : (u32)s->fs_base;
	cpu->seg[SEG_GS].base = world_facts[guest.world].mode64 ? s->gs_base : (u32)s->gs_base;
	memcpy(x->fx.xmm, s->vec.xmm, sizeof(x->fx.xmm));
	memcpy(x->ymm_high, s->vec.ymm_high, sizeof(x->ymm_high));
	x->fx.mxcsr = s->vec.mxcsr;
	memcpy(&x->fx, s->vec.x87, sizeof(s->vec.x87));
	memcpy(x->fx.st, s->vec.st, sizeof(x->fx.st));
	x->xstate_bv |= XS_X87 | XS_SSE | XS_AVX;
	vec_state(cpu)->fcs = vec_state(cpu)->fds = 0;
	cpu->exc.pending = cpu->exc.has_error = false;
	cpu->exc.error = 0;
	want_attention(cpu, false);
}

static void save(const struct vcpu *cpu, struct result *r)
{
	const struct xsave_area *x = (const struct xsave_area *)cpu->xsave;

	memcpy(r->after.gpr, cpu->gpr, sizeof(cpu->gpr));
	r->after.rip = cpu->rip;
	r->after.rflags = cpu->rflags;
	memset(&r->after.vec, 0, sizeof(r->after.vec));
	if (x->xstate_bv & XS_SSE)
		memcpy(r->after.vec.xmm, x->fx.xmm, sizeof(x->fx.xmm));
	if (x->xstate_bv & XS_AVX)
		memcpy(r->after.vec.ymm_high, x->ymm_high, sizeof(x->ymm_high));
	if (x->xstate_bv & XS_X87) {
		memcpy(r->after.vec.x87, &x->fx, sizeof(r->after.vec.x87));
		memcpy(r->after.vec.st, x->fx.st, sizeof(x->fx.st));
	}
	r->after.vec.mxcsr = x->fx.mxcsr;
	r->vector = cpu->exc.pending ? cpu->exc.vector : -1;
	r->error = cpu->exc.has_error ? cpu->exc.error : 0;
	r->cr2 = cpu->exc.cr2;
}

static bool is_fill(const u8 *p, const u8 *end)
{
	while (p < end && (u64)p & 7)
		if (*p++ != W_FILL)
			return false;
	for (; p + 8 <= end; p += 8)
		if (*(const u64 *)p != W_FILL * 0x0101010101010101ull)
			return false;
	while (p < end)
		if (*p++ != W_FILL)
			return false;
	return true;
}

static bool code_is(const struct program *p)
{
	const u8 *code = gpa_to_hva(CODE_GPA);

	return is_fill(code, code + p->at) && is_fill(code + p->at + p->len, code + W_CODE_SIZE) &&
	       !memcmp(code + p->at, p->bytes, p->len);
}

void three_run_guest(const struct program *p, const struct state *s, const struct memory *m, struct result *r, bool translate)
{
	struct vcpu *cpu = the_vcpu();

	memcpy(gpa_to_hva(DATA_GPA), m->data, W_DATA_SIZE);
	memcpy(gpa_to_hva(COUNT_GPA), m->count, W_COUNT_SIZE);
	load(cpu, s);
	guest.expired = false;
	__asm__ volatile("wrgsbase %0" : : "r"(cpu)); /* the host's cases leave it 0 */
	vcpu_fpu_load(cpu);
	r->late = !execute_guarded(cpu, translate);
	vcpu_fpu_save(cpu);
	save(cpu, r);
	memcpy(r->mem.data, gpa_to_hva(DATA_GPA), W_DATA_SIZE);
	memcpy(r->mem.count, gpa_to_hva(COUNT_GPA), W_COUNT_SIZE);
	r->wrote_code = !code_is(p);
	if (r->vector == 6 && r->after.rip == s->rip + p->len)
		r->vector = -1;
}
