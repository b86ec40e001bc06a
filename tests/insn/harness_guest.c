/* The interpreter's side: a vCPU in 64-bit or compatibility mode at CPL 3, real page tables. Built like the engine. */
#include <signal.h>
#include <sys/mman.h>
#include <stdio.h>
#include <stdlib.h>

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
#include "tests/insn/harness_guest.h"

#define RAM_SIZE  0x800000ull
#define CODE_GPA  0x100000ull
#define DATA_GPA  0x200000ull
#define TABLE_GPA 0x10000ull
#define GDT_GPA   0x20000ull
#define GDT_VA    0xffff800000000000ull

static struct vcpu *the_vcpu(void)
{
	return (struct vcpu *)ENG_VCPU_LOW;
}

u8 *harness_guest_data(void)
{
	return gpa_to_hva(DATA_GPA);
}

u8 *guest_code(void)
{
	return gpa_to_hva(CODE_GPA);
}

static bool map(u64 at, u64 size)
{
	return mmap((void *)at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE,
		    -1, 0) == (void *)at;
}

static bool map_arenas(void)
{
	return map(ENG_VM_BASE, 0x10000000) && map(ENG_VCPU_LOW, ENG_VCPU_SIZE) && map(ENG_ICACHE_BASE, ENG_ICACHE_SIZE) &&
	       map(ENG_TCACHE_BASE, ENG_TCACHE_SIZE) &&
	       map(ENG_ATTR_BASE, ENG_ATTR_SIZE) && map(ENG_RAM_BASE, RAM_SIZE);
}

static u64 *table(unsigned n)
{
	return (u64 *)gpa_to_hva(TABLE_GPA + n * PAGE_SIZE);
}

/* 4 KiB pages with user rights; tables 0 to 3 serve the code's 2 MiB, 4 the data's. */
static void map_page(u64 va, u64 gpa)
{
	unsigned leaf = va < T_DATA_VA ? 3 : 4;
	unsigned dir = va < T_DATA_VA ? 2 : 2;

	table(0)[va >> 39 & 511] = (TABLE_GPA + 1 * PAGE_SIZE) | 0x67;
	table(1)[va >> 30 & 511] = (TABLE_GPA + 2 * PAGE_SIZE) | 0x67;
	table(dir)[va >> 21 & 511] = (TABLE_GPA + leaf * PAGE_SIZE) | 0x67;
	table(leaf)[va >> 12 & 511] = gpa | 0x67 | (va >= T_DATA_VA ? BIT64(63) : 0);
}

/* As of a Linux host, as far as selectors of tests go. */
static const u64 descriptors[16] = {
	[1] = 0x00cf9b000000ffff, [2] = 0x00af9b000000ffff, [3] = 0x00cf93000000ffff,
	[4] = 0x00cffb000000ffff, [5] = 0x00cff3000000ffff, [6] = 0x00affb000000ffff,
	[15] = 0x0040f50000000000, /* GDT_ENTRY_CPUNODE */
};

/* Supervisor only; tables 5 to 7. */
static void map_gdt(struct vcpu *cpu)
{
	memcpy(gpa_to_hva(GDT_GPA), descriptors, sizeof(descriptors));
	table(0)[256] = (TABLE_GPA + 5 * PAGE_SIZE) | 0x63;
	table(5)[0] = (TABLE_GPA + 6 * PAGE_SIZE) | 0x63;
	table(6)[0] = (TABLE_GPA + 7 * PAGE_SIZE) | 0x63;
	table(7)[0] = GDT_GPA | 0x63;
	cpu->gdt = (struct dtable){GDT_VA, sizeof(descriptors) - 1};
	cpu->seg[SEG_LDTR].unusable = true;
}

static void set_segment(struct segment *s, u16 sel, u8 type)
{
	*s = (struct segment){.limit = 0xffffffff, .sel = sel, .type = type, .dpl = 3, .s = true, .present = true,
			      .l = sel == T_CS64, .db = sel != T_CS64, .g = true};
}

static void load_segments(struct vcpu *cpu, const struct insn_case *c)
{
	for (unsigned i = SEG_ES; i <= SEG_GS; i++)
		set_segment(&cpu->seg[i], T_DS, 3);
	set_segment(&cpu->seg[SEG_CS], c && c->compat ? T_CS32 : T_CS64, 0xb);
	if (!c)
		return;
	cpu->seg[SEG_FS].base = c->before.fs_base;
	cpu->seg[SEG_GS].base = c->before.gs_base;
}

static void long_mode_user(struct vcpu *cpu)
{
	load_segments(cpu, NULL);
	cpu->cr0 = 0x8005003b; /* TS: a program that changed itself into vector instructions ends there */
	cpu->cr3 = TABLE_GPA;
	cpu->cr4 = 0x106e0; /* FSGSBASE: as the host */
	cpu->efer = 0xd01;
	cpu->rflags = FL_ONE | FL_IF;
	for (unsigned i = 0; i < 4; i++)
		cpu->feature_bits[i] = ~0ull;
}

bool guest_init(void)
{
	struct vcpu *cpu = the_vcpu();
	struct vm *vm = the_vm();

	if (!map_arenas())
		return false;
	cpu->vm = vm;
	cpu->chan = (struct vcpu_chan *)(ENG_VCPU_LOW + ENG_VCPU_CHAN);
	vm->vcpus[0] = cpu;
	vm->nvcpus = 1;
	for (u64 a = 0; a < RAM_SIZE; a += PAGE_SIZE)
		*page_attr(a) = PA_RAM;
	map_page(T_CODE_VA, CODE_GPA);
	map_page(T_CODE_VA + PAGE_SIZE, CODE_GPA + PAGE_SIZE);
	for (unsigned i = 0; i < T_DATA_PAGES; i++)
		map_page(T_DATA_VA + i * PAGE_SIZE, DATA_GPA + i * PAGE_SIZE);
	map_gdt(cpu);
	mmu_reset(cpu);
	long_mode_user(cpu);
	cpu_update_mode(cpu);
	mmu_set_cr3(cpu, cpu->cr3, false);
	if (!tr_stress_parse(getenv("DOPPEL_TR_STRESS")) || stub_init() < 0 || !tr_init() || !tr_vcpu_start(cpu)) {
		printf("harness: the translator does not start\n");
		return false;
	}
	return true;
}

bool guest_signal(int sig, void *ucontext)
{
	struct vcpu *cpu = the_vcpu();

	return (sig == SIGFPE && cpu->vecexec && vec_handle_sigfpe(cpu, ucontext)) || tr_handle_fault(cpu, ucontext);
}

static __attribute__((noinline)) void execute(struct vcpu *cpu, enum harness_mode mode, u64 start)
{
	if (mode == HARNESS_STEP) {
		/* A repeated string instruction takes one step per element. */
		for (unsigned n = 0; n < 1000; n++) {
			interp_step(cpu);
			if (cpu->rip != start)
				return;
		}
		return;
	}
	/* Runs into the HLT after the code, which faults at CPL 3; MOV SS and the like leave the loop before. */
	for (;;) {
		cpu->shadow = SHADOW_NONE;
		cpu->chan->attention = 0;
		cpu->chan->calm = CHAN_CALM;
		if (cpu->late_size)
			code_invalidate(cpu->late_gpa, cpu->late_size);
		cpu->late_size = 0;
		if (mode == HARNESS_TRANSLATE)
			tr_run(cpu);
		else
			interp_run(cpu);
	}
}

static __attribute__((noinline)) bool execute_guarded(struct vcpu *cpu, enum harness_mode mode, u64 start)
{
	if (__builtin_setjmp(cpu->unwind) == 0) {
		execute(cpu, mode, start);
		return true;
	}
	return false;
}

static void load_case(struct vcpu *cpu, const struct insn_case *c, bool block)
{
	memset(guest_code(), block ? 0xf4 : 0xcc, PAGE_SIZE);
	memcpy(guest_code() + c->at, c->bytes, c->len);
	if (block)
		code_invalidate(CODE_GPA, PAGE_SIZE);
	memcpy(cpu->gpr, c->before.gpr, sizeof(cpu->gpr));
	cpu->rip = c->before.rip;
	cpu->rflags = c->before.rflags | FL_ONE | FL_IF;
	load_segments(cpu, c);
	cpu_update_mode(cpu);
	cpu->exc.pending = false;
	cpu->chan->attention = 0;
	cpu->shadow = 0;
}

static void save_result(const struct vcpu *cpu, struct insn_result *r)
{
	memcpy(r->after.gpr, cpu->gpr, sizeof(cpu->gpr));
	for (unsigned i = SEG_ES; i <= SEG_GS; i++)
		r->after.sel[i] = cpu->seg[i].sel;
	r->after.fs_base = cpu->seg[SEG_FS].base;
	r->after.gs_base = cpu->seg[SEG_GS].base;
	r->after.rip = cpu->rip;
	r->after.rflags = cpu->rflags;
	r->vector = cpu->exc.pending ? cpu->exc.vector : -1;
	r->error = cpu->exc.has_error ? cpu->exc.error : 0;
	r->cr2 = cpu->exc.cr2;
}

static bool is_filled(const u8 *p, const u8 *end, u64 fill)
{
	for (; p < end; p += 8)
		if (*(const u64 *)p != fill)
			return false;
	return true;
}

/* Into the code pages: what a repeated instruction over its own bytes does depends on when it was interrupted. */
static bool wrote_code(const struct insn_case *c)
{
	u8 *code = guest_code(), *mine = code + (c->at & ~7u), *end = code + ALIGN_UP(c->at + c->len, 8);

	if (is_filled(code, mine, 0xf4f4f4f4f4f4f4f4) && is_filled(end, code + PAGE_SIZE, 0xf4f4f4f4f4f4f4f4) &&
	    is_filled(code + PAGE_SIZE, code + T_CODE_SIZE, 0) && !memcmp(code + c->at, c->bytes, c->len))
		return false;
	memset(code + PAGE_SIZE, 0, PAGE_SIZE);
	return true;
}

void harness_run_interp(const struct insn_case *c, struct insn_result *r, enum harness_mode mode)
{
	struct vcpu *cpu = the_vcpu();
	u64 end = c->before.rip + c->len;
	bool block = mode != HARNESS_STEP;

	load_case(cpu, c, block);
	if (mode == HARNESS_TRANSLATE)
		__asm__ volatile("wrgsbase %0" : : "r"(cpu)); /* host cases leave it 0 */
	execute_guarded(cpu, mode, c->before.rip);
	save_result(cpu, r);
	r->wrote_code = c->count > 1 && wrote_code(c);
	/* the HLT after it, or a fetch at a branch target: the instruction itself completed */
	if (block && r->vector >= 0 && (c->count <= 1 ? r->after.rip != c->before.rip : r->after.rip == end))
		r->vector = -1;
}
