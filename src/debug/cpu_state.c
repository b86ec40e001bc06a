/* A vCPU's registers as words and text. */
#include <inttypes.h>
#include "debug/cpu_state.h"
#include "debug/inspect.h"

#define CR0_PE    BIT64(0)
#define RFLAGS_VM BIT64(17)
#define EFER_LMA  BIT64(10)

u64 cpu_state_pc(const struct cpu_state *c)
{
	if (c->s.efer & EFER_LMA && c->s.cs.l)
		return c->r.rip;
	return (u32)(c->s.cs.base + c->r.rip);
}

const char *cpu_state_mode(const struct cpu_state *c)
{
	if (!(c->s.cr0 & CR0_PE))
		return "real mode";
	if (c->r.rflags & RFLAGS_VM)
		return "V86";
	switch (inspect_code_bits(&c->s)) {
	case 64:
		return "64-bit";
	case 32:
		return "32-bit";
	default:
		return "16-bit";
	}
}

const char *cpu_state_activity(const struct cpu_state *c)
{
	switch (c->mp_state) {
	case KVM_MP_STATE_RUNNABLE:
		return "running";
	case KVM_MP_STATE_HALTED:
		return "halted";
	case KVM_MP_STATE_UNINITIALIZED:
	case KVM_MP_STATE_INIT_RECEIVED:
		return "waits for SIPI";
	default:
		return "stopped";
	}
}

static void segment(FILE *out, const char *name, const struct kvm_segment *s)
{
	fprintf(out, "%-4s %04x base %016" PRIx64 " limit %08x type %2u dpl %u%s%s%s%s%s\n", name, s->selector, (u64)s->base, s->limit,
		s->type, s->dpl, s->s ? "" : " system", s->present ? "" : " absent", s->l ? " 64-bit" : s->db ? " 32-bit" : "",
		s->g ? " pages" : "", s->unusable ? " unusable" : "");
}

void cpu_state_print(const struct cpu_state *c, FILE *out)
{
	const struct kvm_regs *r = &c->r;
	const struct kvm_sregs *s = &c->s;
	static const char names[] = "CF PF AF ZF SF TF IF DF OF ";
	static const u8 bits[] = {0, 2, 4, 6, 7, 8, 9, 10, 11};
	const struct {
		const char *name;
		u64 v;
	} gpr[] = {{"rax", r->rax}, {"rbx", r->rbx}, {"rcx", r->rcx}, {"rdx", r->rdx}, {"rsi", r->rsi}, {"rdi", r->rdi},
		   {"rbp", r->rbp}, {"rsp", r->rsp}, {"r8", r->r8}, {"r9", r->r9}, {"r10", r->r10}, {"r11", r->r11},
		   {"r12", r->r12}, {"r13", r->r13}, {"r14", r->r14}, {"r15", r->r15}};

	fprintf(out, "%s, %s, ring %u\n", cpu_state_activity(c), cpu_state_mode(c), s->ss.dpl);
	for (u32 i = 0; i < ARRAY_SIZE(gpr); i++)
		fprintf(out, "%-3s %016" PRIx64 "%s", gpr[i].name, gpr[i].v, i % 4 == 3 ? "\n" : "  ");
	fprintf(out, "rip %016" PRIx64 "  rflags %08" PRIx64, (u64)r->rip, (u64)r->rflags);
	for (u32 i = 0; i < ARRAY_SIZE(bits); i++)
		if (r->rflags >> bits[i] & 1)
			fprintf(out, " %.2s", names + 3 * i);
	fprintf(out, "\n");
	segment(out, "cs", &s->cs);
	segment(out, "ss", &s->ss);
	segment(out, "ds", &s->ds);
	segment(out, "es", &s->es);
	segment(out, "fs", &s->fs);
	segment(out, "gs", &s->gs);
	segment(out, "tr", &s->tr);
	segment(out, "ldt", &s->ldt);
	fprintf(out, "gdt  base %016" PRIx64 " limit %04x  idt base %016" PRIx64 " limit %04x  kernel_gs %016" PRIx64 "\n",
		(u64)s->gdt.base, s->gdt.limit, (u64)s->idt.base, s->idt.limit, c->kernel_gs_base);
	fprintf(out, "cr0 %016" PRIx64 "  cr2 %016" PRIx64 "  cr3 %016" PRIx64 "  cr4 %016" PRIx64 "\n", (u64)s->cr0, (u64)s->cr2,
		(u64)s->cr3, (u64)s->cr4);
	fprintf(out, "cr8 %016" PRIx64 "  efer %04" PRIx64 "  apic_base %08" PRIx64 "\n", (u64)s->cr8, (u64)s->efer, (u64)s->apic_base);
}
