/* A vCPU's registers as words and text. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
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

#define REG(name) {#name, offsetof(struct cpu_state, r.name)}
#define SREG(name) {#name, offsetof(struct cpu_state, s.name)}
static const struct {
	const char *name;
	u32 at;
} registers[] = {
	REG(rax), REG(rbx), REG(rcx), REG(rdx), REG(rsi), REG(rdi), REG(rbp), REG(rsp), REG(r8), REG(r9), REG(r10), REG(r11),
	REG(r12), REG(r13), REG(r14), REG(r15), REG(rip), REG(rflags), SREG(cr0), SREG(cr2), SREG(cr3), SREG(cr4), SREG(cr8),
	SREG(efer), SREG(apic_base), {"kernel_gs_base", offsetof(struct cpu_state, kernel_gs_base)},
}, segments[] = {SREG(cs), SREG(ss), SREG(ds), SREG(es), SREG(fs), SREG(gs), SREG(tr), SREG(ldt)};

enum { GPRS = 16 };

bool cpu_state_register(const struct cpu_state *c, u32 n, const char **name, u64 *v)
{
	if (n >= ARRAY_SIZE(registers))
		return false;
	*name = registers[n].name;
	memcpy(v, (const u8 *)c + registers[n].at, sizeof(*v));
	return true;
}

bool cpu_state_segment(const struct cpu_state *c, u32 n, const char **name, const struct kvm_segment **s)
{
	if (n >= ARRAY_SIZE(segments))
		return false;
	*name = segments[n].name;
	*s = (const void *)((const u8 *)c + segments[n].at);
	return true;
}

int cpu_state_address(const struct cpu_state *c, const char *text, u64 *v)
{
	const char *name = NULL;
	char *end = NULL;

	text += *text == '$';
	if (!strcmp(text, "pc")) {
		*v = cpu_state_pc(c);
		return 0;
	}
	for (u32 i = 0; cpu_state_register(c, i, &name, v); i++)
		if (!strcmp(text, name))
			return 0;
	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	*v = strtoull(text, &end, 0);
	return *end || errno ? -EINVAL : 0;
}

static void segment(FILE *out, const char *name, const struct kvm_segment *s)
{
	fprintf(out, "%-4s %04x base %016" PRIx64 " limit %08x type %2u dpl %u%s%s%s%s%s\n", name, s->selector, (u64)s->base, s->limit,
		s->type, s->dpl, s->s ? "" : " system", s->present ? "" : " absent", s->l ? " 64-bit" : s->db ? " 32-bit" : "",
		s->g ? " pages" : "", s->unusable ? " unusable" : "");
}

void cpu_state_print(const struct cpu_state *c, FILE *out)
{
	static const char flags[] = "CF PF AF ZF SF TF IF DF OF ";
	static const u8 bits[] = {0, 2, 4, 6, 7, 8, 9, 10, 11};
	const struct kvm_sregs *s = &c->s;
	const struct kvm_segment *seg = NULL;
	const char *name = NULL;
	u64 v = 0;

	fprintf(out, "%s, %s, ring %u\n", cpu_state_activity(c), cpu_state_mode(c), s->ss.dpl);
	for (u32 i = 0; i < GPRS && cpu_state_register(c, i, &name, &v); i++)
		fprintf(out, "%-3s %016" PRIx64 "%s", name, v, i % 4 == 3 ? "\n" : "  ");
	fprintf(out, "rip %016" PRIx64 "  rflags %08" PRIx64, (u64)c->r.rip, (u64)c->r.rflags);
	for (u32 i = 0; i < ARRAY_SIZE(bits); i++)
		if (c->r.rflags >> bits[i] & 1)
			fprintf(out, " %.2s", flags + 3 * i);
	fprintf(out, "\n");
	for (u32 i = 0; cpu_state_segment(c, i, &name, &seg); i++)
		segment(out, name, seg);
	fprintf(out, "gdt  base %016" PRIx64 " limit %04x  idt base %016" PRIx64 " limit %04x  kernel_gs %016" PRIx64 "\n",
		(u64)s->gdt.base, s->gdt.limit, (u64)s->idt.base, s->idt.limit, c->kernel_gs_base);
	fprintf(out, "cr0 %016" PRIx64 "  cr2 %016" PRIx64 "  cr3 %016" PRIx64 "  cr4 %016" PRIx64 "\n", (u64)s->cr0, (u64)s->cr2,
		(u64)s->cr3, (u64)s->cr4);
	fprintf(out, "cr8 %016" PRIx64 "  efer %04" PRIx64 "  apic_base %08" PRIx64 "\n", (u64)s->cr8, (u64)s->efer, (u64)s->apic_base);
}
