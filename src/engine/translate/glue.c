/* Into translated code and out of it. */
#include "engine/translate/tr_int.h"

/*
 * C side: a call that returns the site's number. Translated side: tr_leave with the number in R15d; all guest registers
 * and flags are as the site says, and are saved. See tr_int.h for which register is where.
 */
__attribute__((naked, used)) u32 tr_enter(struct vcpu *cpu, u64 host)
{
	__asm__ volatile(
		"push %%rbx\n\tpush %%rbp\n\tpush %%r12\n\tpush %%r13\n\tpush %%r14\n\tpush %%r15\n\t"
		"mov %%rsp, %%gs:%c[sp]\n\t"
		"mov %%rsi, %%gs:%c[entry]\n\t"
		"movzwl %%gs:%c[flags], %%eax\n\t"
		"add $0x7f, %%al\n\t"
		"sahf\n\t"
		"mov %%gs:%c[gpr]+0, %%rax\n\t"
		"mov %%gs:%c[gpr]+8, %%r14\n\t"
		"mov %%gs:%c[gpr]+16, %%rdx\n\t"
		"mov %%gs:%c[gpr]+24, %%rbx\n\t"
		"mov %%gs:%c[gpr]+32, %%rsp\n\t"
		"mov %%gs:%c[gpr]+40, %%rbp\n\t"
		"mov %%gs:%c[gpr]+48, %%rsi\n\t"
		"mov %%gs:%c[gpr]+56, %%rdi\n\t"
		"mov %%gs:%c[gpr]+64, %%r8\n\t"
		"mov %%gs:%c[gpr]+72, %%r9\n\t"
		"mov %%gs:%c[gpr]+80, %%r10\n\t"
		"mov %%gs:%c[gpr]+88, %%r11\n\t"
		"mov %%gs:%c[gpr]+96, %%r12\n\t"
		"mov %%gs:%c[gpr]+104, %%r13\n\t"
		"jmp *%%gs:%c[entry]\n"
		".globl tr_leave, tr_jump_miss\n"
		"tr_jump_miss:\n\t"
		"mov %%r15, %%gs:%c[target]\n\t"
		"mov %%gs:%c[from], %%r15d\n"
		"tr_leave:\n\t"
		"mov %%rax, %%gs:%c[gpr]+0\n\t"
		"seto %%al\n\t"
		"lahf\n\t"
		"mov %%ax, %%gs:%c[flags]\n\t"
		"mov %%r14, %%gs:%c[gpr]+8\n\t"
		"mov %%rdx, %%gs:%c[gpr]+16\n\t"
		"mov %%rbx, %%gs:%c[gpr]+24\n\t"
		"mov %%rsp, %%gs:%c[gpr]+32\n\t"
		"mov %%rbp, %%gs:%c[gpr]+40\n\t"
		"mov %%rsi, %%gs:%c[gpr]+48\n\t"
		"mov %%rdi, %%gs:%c[gpr]+56\n\t"
		"mov %%r8, %%gs:%c[gpr]+64\n\t"
		"mov %%r9, %%gs:%c[gpr]+72\n\t"
		"mov %%r10, %%gs:%c[gpr]+80\n\t"
		"mov %%r11, %%gs:%c[gpr]+88\n\t"
		"mov %%r12, %%gs:%c[gpr]+96\n\t"
		"mov %%r13, %%gs:%c[gpr]+104\n\t"
		"mov %%r15d, %%eax\n\t"
		"mov %%gs:%c[sp], %%rsp\n\t"
		"pop %%r15\n\tpop %%r14\n\tpop %%r13\n\tpop %%r12\n\tpop %%rbp\n\tpop %%rbx\n\t"
		"ret"
		:
		: [sp] "i"(offsetof(struct vcpu, tr.host_sp)), [entry] "i"(offsetof(struct vcpu, tr.entry)),
		  [target] "i"(offsetof(struct vcpu, tr.target)), [from] "i"(offsetof(struct vcpu, tr.from)),
		  [flags] "i"(offsetof(struct vcpu, tr.flags_ax)), [gpr] "i"(offsetof(struct vcpu, gpr)));
}

/* Entry 0 of a jump cache while jumps find theirs by PDEP (state.h): the address's next 16 bits, if nobody asks for attention. */
#define ENTRY0(name, table)                                                                                            \
	__attribute__((naked, used)) static void name(void)                                                            \
	{                                                                                                              \
		__asm__ volatile("rorx $16, %%r15, %%rcx\n\t"                                                          \
				 "pdep %%gs:%c[calm], %%ecx, %%ecx\n\t"                                               \
				 "jrcxz 1f\n\t"                                                                        \
				 "jmp *%%gs:%c[host](%%rcx)\n"                                                         \
				 "1:\tjmp tr_jump_miss"                                                                \
				 :                                                                                     \
				 : [calm] "i"(GS_CALM), [host] "i"((table) + offsetof(struct jc_entry, host)));        \
	}
ENTRY0(user64_entry0, ENG_VCPU_JC_USER64)
ENTRY0(kernel64_entry0, ENG_VCPU_JC_KERNEL64)
ENTRY0(kernel64_ac_entry0, ENG_VCPU_JC_KERNEL64_AC)
ENTRY0(user32_entry0, ENG_VCPU_JC_USER32)
ENTRY0(kernel32_entry0, ENG_VCPU_JC_KERNEL32)

const char *const tr_jump_entry0[JC_COUNT] = {(const char *)user64_entry0, (const char *)kernel64_entry0,
					      (const char *)kernel64_ac_entry0, (const char *)user32_entry0,
					      (const char *)kernel32_entry0};
