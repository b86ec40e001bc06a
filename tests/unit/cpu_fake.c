/* Fakes of the rooms around the CPU: memory, interrupt controller, library. */
#include <stdio.h>
#include <stdlib.h>
#include "engine/translate/tr.h"
#include "cpu_fake.h"
#include "engine/trace/trace.h"
#include "engine/cpu/fpu.h"
#include "engine/irqchip/irqchip.h"
#include "engine/lib/lib.h"

u8 fake_mem[FAKE_SIZE];
struct vm fake_vm;
u64 fake_hole;
static struct vcpu *the_cpu;

/* ---- memory ---- */

static void check(struct vcpu *cpu, gva_t a, unsigned size, enum access_type t, enum mmu_idx idx)
{
	for (gva_t p = a; p < a + size; p++) {
		if (p >= FAKE_SIZE || (fake_hole && (p & PAGE_MASK) == fake_hole))
			cpu_raise_pf(cpu, p, (t == ACC_WRITE ? PF_W : 0) | (idx == MMU_USER ? PF_U : 0));
	}
}

void mmu_read_slow(struct vcpu *cpu, gva_t a, void *buf, unsigned size, enum mmu_idx idx)
{
	check(cpu, a, size, ACC_READ, idx);
	memcpy(buf, fake_mem + a, size);
}

void mmu_write_slow(struct vcpu *cpu, gva_t a, const void *buf, unsigned size, enum mmu_idx idx)
{
	check(cpu, a, size, ACC_WRITE, idx);
	memcpy(fake_mem + a, buf, size);
}

void *mmu_ptr_slow(struct vcpu *cpu, gva_t a, unsigned size, enum access_type t, enum mmu_idx idx)
{
	check(cpu, a, size, t, idx);
	return fake_mem + a;
}

void mmu_probe(struct vcpu *cpu, gva_t a, unsigned size, enum access_type t, enum mmu_idx idx)
{
	check(cpu, a, size, t, idx);
}

unsigned mmu_fetch_bytes(struct vcpu *cpu, gva_t a, u8 *buf, unsigned n)
{
	check(cpu, a, n, ACC_EXEC, MMU_KERNEL);
	memcpy(buf, fake_mem + a, n);
	return n;
}

void mmu_reset(struct vcpu *cpu) {}
unsigned fake_flushes;
void mmu_flush_all(struct vcpu *cpu) { fake_flushes++; }
bool mmu_load_pdptes(struct vcpu *cpu, u64 cr3) { return !(cr3 & 0x1000); }
void mmu_set_cr3(struct vcpu *cpu, u64 cr3, bool noflush) { cpu->cr3 = cr3; }
void mmu_update_paging(struct vcpu *cpu, u64 old_cr0, u64 old_cr4, u64 old_efer) {}

bool phys_read(gpa_t a, void *buf, u64 n)
{
	if (a >= FAKE_SIZE || n > FAKE_SIZE - a)
		return false;
	memcpy(buf, fake_mem + a, n);
	return true;
}

bool phys_write(gpa_t a, const void *buf, u64 n)
{
	if (a >= FAKE_SIZE || n > FAKE_SIZE - a)
		return false;
	memcpy(fake_mem + a, buf, n);
	return true;
}

bool phys_exchange8(gpa_t a, u8 value, u8 *old)
{
	if (a >= FAKE_SIZE)
		return false;
	*old = fake_mem[a];
	fake_mem[a] = value;
	return true;
}

/* ---- other rooms ---- */

u64 fake_now = 5000000000ull, fake_used, fake_sent[4];
unsigned fake_kicks;
void vcpu_kick(struct vcpu *cpu, unsigned attention) { fake_kicks |= attention; }
void lapic_pv_eoi_sync(struct vcpu *cpu) {}
u64 eng_thread_ns(void) { return fake_used; }
int lapic_send_set(struct vcpu *cpu, u64 low, u64 high, u32 min, unsigned span, u32 icr)
{
	memcpy(fake_sent, (u64[]){low, high, (u64)span << 32 | min, icr}, sizeof(fake_sent));
	return 3;
}

bool lapic_msr_read(struct vcpu *cpu, u32 index, u64 *v) { return false; }
bool lapic_msr_write(struct vcpu *cpu, u32 index, u64 v) { return false; }
bool lapic_set_base(struct vcpu *cpu, u64 v, bool host) { return false; }
void lapic_set_tsc_deadline(struct vcpu *cpu, u64 v) {}
u64 lapic_get_tsc_deadline(struct vcpu *cpu) { return 0; }
u8 lapic_get_tpr(struct vcpu *cpu) { return 0; }
void lapic_set_tpr(struct vcpu *cpu, u8 v) {}
void lapic_reset(struct vcpu *cpu, bool init) {}
void lapic_timer_rearm(struct vcpu *cpu) {}
void fpu_reset(struct vcpu *cpu, bool init) {}
u64 xstate_supported(void) { return 7; }
unsigned xstate_size(u64 xcr0, bool compacted) { return xcr0 & 4 ? 832 : 576; }
void eng_lock(u32 *word) {}
void eng_unlock(u32 *word) {}
u64 eng_now_ns(void) { return fake_now; }
u64 eng_tsc_ns(void) { return fake_now; }
u64 eng_realtime_ns(void) { return 1700000000000000000ull; }

/* ---- building a machine ---- */

void put16(u32 a, u16 v) { memcpy(fake_mem + a, &v, sizeof(v)); }
void put32(u32 a, u32 v) { memcpy(fake_mem + a, &v, sizeof(v)); }
void put64(u32 a, u64 v) { memcpy(fake_mem + a, &v, sizeof(v)); }

u64 get(u32 a, unsigned size)
{
	u64 v = 0;

	memcpy(&v, fake_mem + a, size);
	return v;
}

void gdt_set(unsigned index, u32 base, u32 limit, u8 access, u8 flags)
{
	u64 d = (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)access << 40 | (u64)(limit >> 16 & 15) << 48 |
		(u64)flags << 52 | (u64)(base >> 24) << 56;

	put64(GDT + index * 8, d);
}

void gate_set32(unsigned vector, u16 sel, u32 off, u8 access)
{
	put64(IDT + vector * 8, (off & 0xffff) | (u64)sel << 16 | (u64)access << 40 | (u64)(off >> 16) << 48);
}

void gate_set64(unsigned vector, u16 sel, u64 off, u8 access, u8 ist)
{
	put64(IDT + vector * 16,
	      (off & 0xffff) | (u64)sel << 16 | (u64)ist << 32 | (u64)access << 40 | (off >> 16 & 0xffff) << 48);
	put64(IDT + vector * 16 + 8, off >> 32);
}

struct vcpu *fake_cpu(void)
{
	if (!the_cpu)
		the_cpu = aligned_alloc(64, ALIGN_UP(sizeof(*the_cpu), 64ul));
	memset(the_cpu, 0, sizeof(*the_cpu));
	memset(&the_cpu->tlb.e, 0xff, sizeof(the_cpu->tlb.e)); /* no tag ever matches */
	memset(fake_mem, 0, sizeof(fake_mem));
	memset(&fake_vm, 0, sizeof(fake_vm));
	fake_hole = 0;
	fake_flushes = 0;
	fake_vm.tsc_khz = 2600000;
	fake_vm.vcpus[0] = the_cpu;
	the_cpu->vm = &fake_vm;
	the_cpu->is_bsp = true;
	cpuid_set(the_cpu, NULL, 0);
	cpu_reset(the_cpu, false);
	return the_cpu;
}

static void build_gdt(struct vcpu *cpu)
{
	gdt_set(G_KCODE, 0, 0xfffff, 0x9a, 0xc);
	gdt_set(G_KDATA, 0, 0xfffff, 0x92, 0xc);
	gdt_set(G_UCODE, 0, 0xfffff, 0xfa, 0xc);
	gdt_set(G_UDATA, 0, 0xfffff, 0xf2, 0xc);
	gdt_set(G_CODE64, 0, 0xfffff, 0x9a, 0xa);
	gdt_set(G_UCODE64, 0, 0xfffff, 0xfa, 0xa);
	gdt_set(G_TSS, TSS, 0x1ff, 0x89, 0);
	gdt_set(G_TSS2, TSS2, 0x67, 0x89, 0);
	gdt_set(G_LDT, LDT, 0xff, 0x82, 0);
	gdt_set(G_CONF, 0, 0xfffff, 0x9e, 0xc);
	gdt_set(G_CODE16, 0, 0xffff, 0x9a, 0);
	gdt_set(G_TSS16, TSS2, 0x2b, 0x81, 0);
	cpu->gdt = (struct dtable){GDT, G_COUNT * 8 - 1};
	cpu->idt = (struct dtable){IDT, 0xfff};
}

static void load(struct vcpu *cpu, unsigned seg, unsigned index, unsigned rpl)
{
	seg_from_descriptor(&cpu->seg[seg], SEL(index, rpl), get(GDT + index * 8, 8) | BIT64(40));
}

static void load_flat(struct vcpu *cpu, unsigned code, unsigned cpl)
{
	unsigned data = cpl ? G_UDATA : G_KDATA;

	load(cpu, SEG_CS, code, cpl);
	load(cpu, SEG_SS, data, cpl);
	load(cpu, SEG_DS, data, cpl);
	load(cpu, SEG_ES, data, cpl);
	load(cpu, SEG_FS, data, cpl);
	load(cpu, SEG_GS, data, cpl);
	cpu->rip = 0x8000;
	cpu->gpr[R_SP] = cpl ? STACK3 : STACK0;
	cpu->rflags = FL_ONE | FL_IF;
	cpu_update_mode(cpu);
}

void enter_protected(struct vcpu *cpu, unsigned cpl)
{
	build_gdt(cpu);
	cpu->cr0 = CR0_PE | CR0_ET | CR0_NE;
	load(cpu, SEG_TR, G_TSS, 0);
	cpu->seg[SEG_TR].type = DT_TSS32_BUSY;
	gdt_set(G_TSS, TSS, 0x1ff, 0x8b, 0);
	seg_set_null(&cpu->seg[SEG_LDTR], 0, 0);
	put32(TSS + 4, STACK0);
	put32(TSS + 8, SEL(G_KDATA, 0));
	load_flat(cpu, cpl ? G_UCODE : G_KCODE, cpl);
}

void enter_long(struct vcpu *cpu, unsigned cpl)
{
	build_gdt(cpu);
	cpu->cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG | CR0_WP;
	cpu->cr4 = CR4_PAE;
	cpu->efer = EFER_LME | EFER_LMA | EFER_SCE | EFER_NX;
	load(cpu, SEG_TR, G_TSS, 0);
	cpu->seg[SEG_TR].type = DT_TSS32_BUSY;
	put64(TSS + 4, STACK0);
	put64(TSS + 0x24, 0x28008); /* IST1, unaligned on purpose */
	load_flat(cpu, cpl ? G_UCODE64 : G_CODE64, cpl);
}

void tr_forget_targets(struct vcpu *cpu)
{
	(void)cpu;
}

void trace_exception(struct vcpu *cpu, const struct exception *e)
{
}
