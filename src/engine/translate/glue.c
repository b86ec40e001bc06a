/* Into translated code and out of it. */
#include "engine/translate/tr_int.h"

/*
 * C side: a call that returns the site's number, or SITE_JUMPED. Translated side: tr_leave with the number in R15d; all guest registers
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
		"mov %[jumped], %%r15d\n"
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
		  [target] "i"(offsetof(struct vcpu, tr.target)), [jumped] "i"(SITE_JUMPED),
		  [flags] "i"(offsetof(struct vcpu, tr.flags_ax)), [gpr] "i"(offsetof(struct vcpu, gpr)));
}

/*
 * The second place of a target (state.h). While somebody asks for attention the mask is 0, and so is the index. PEXT only: where
 * it is slow, nothing leads here.
 */
#define JUMP_AGAIN(name, segment, table)                                                                               \
	__attribute__((naked, used)) static void name(void)                                                            \
	{                                                                                                              \
		__asm__ volatile("rorx $12, %%r15, %%rcx\n\t"                                                          \
				 "lea (%%rcx, %%r15), %%ecx\n\t"                                                      \
				 "pext %%gs:%c[calm], %%ecx, %%ecx\n\t"                                               \
				 "jrcxz 2f\n\t"                                                                        \
				 "mov %%" segment ":%c[negated](,%%rcx,8), %%rcx\n\t"                                    \
				 "lea (%%rcx, %%r15), %%rcx\n\t"                                                      \
				 "jrcxz 1f\n"                                                                          \
				 "2:\tjmp tr_jump_miss\n"                                                             \
				 "1:\trorx $12, %%r15, %%rcx\n\t"                                                     \
				 "lea (%%rcx, %%r15), %%ecx\n\t"                                                      \
				 "pext %%gs:%c[calm], %%ecx, %%ecx\n\t"                                               \
				 "jrcxz 2b\n\t"                                                                        \
				 "jmp *%%" segment ":%c[host](,%%rcx,8)"                                                  \
				 :                                                                                     \
				 : [calm] "i"(GS_CALM), [negated] "i"((s64)(table) + offsetof(struct jc_table, negated)), \
				   [host] "i"((s64)(table) + offsetof(struct jc_table, host)));                        \
	}

/*
 * A direct jump that does not find its page where it was when it was chained: the place of its target is in its site. No
 * arithmetic here may touch the flags.
 */
#define FAR_JUMP(name, segment, table, target_reg)                                                                     \
	__attribute__((naked, used)) static void name(void)                                                            \
	{                                                                                                              \
		__asm__ volatile("mov %%r15d, %%gs:%c[from]\n\t"                                                       \
				 "rorx $58, %%r15, %%r15\n\t"                                                          \
				 "movabs %[sites], %%rcx\n\t"                                                          \
				 "movslq (%%rcx, %%r15), %%rcx\n\t"                                                    \
				 "mov %%gs:%c[page_va], %%r15\n\t"                                                     \
				 "lea (%%r15, %%rcx), %%" target_reg "\n\t"                                             \
				 "pext %%gs:%c[calm], %%r15d, %%ecx\n\t"                                               \
				 "jmp *%%" segment ":%c[host](,%%rcx,8)"                                                  \
				 :                                                                                     \
				 : [calm] "i"(GS_CALM), [from] "i"(offsetof(struct vcpu, tr.from)),                      \
				   [page_va] "i"(offsetof(struct vcpu, tr.page_va)), [sites] "i"(TR_SITES_AT + offsetof(struct tr_site, target)), \
				   [host] "i"((s64)(table) + offsetof(struct jc_table, host)));                        \
	}
_Static_assert(sizeof(struct tr_site) == 64, "the rotation by 58 is a multiplication by it");
#define FROM_FS(table) ((table) - ENG_JC_USER_FS)
#define FROM_GS(table) (ENG_VCPU_JC - ENG_VCPU_STATE + (table))
JUMP_AGAIN(user64_again, "fs", FROM_FS(ENG_JC_USER64))
JUMP_AGAIN(user32_again, "fs", FROM_FS(ENG_JC_USER32))
JUMP_AGAIN(kernel64_again, "gs", FROM_GS(ENG_JC_KERNEL64))
JUMP_AGAIN(kernel64_ac_again, "gs", FROM_GS(ENG_JC_KERNEL64_AC))
JUMP_AGAIN(kernel32_again, "gs", FROM_GS(ENG_JC_KERNEL32))

const char *const tr_jump_again[JC_COUNT] = {
	[JC_USER64] = (const char *)user64_again,	  [JC_USER32] = (const char *)user32_again,
	[JC_KERNEL64] = (const char *)kernel64_again,	  [JC_KERNEL64_AC] = (const char *)kernel64_ac_again,
	[JC_KERNEL32] = (const char *)kernel32_again,
};

FAR_JUMP(user64_far, "fs", FROM_FS(ENG_JC_USER64), "r15")
FAR_JUMP(user32_far, "fs", FROM_FS(ENG_JC_USER32), "r15d")
FAR_JUMP(kernel64_far, "gs", FROM_GS(ENG_JC_KERNEL64), "r15")
FAR_JUMP(kernel64_ac_far, "gs", FROM_GS(ENG_JC_KERNEL64_AC), "r15")
FAR_JUMP(kernel32_far, "gs", FROM_GS(ENG_JC_KERNEL32), "r15d")

const char *const tr_far_jump[JC_COUNT] = {
	[JC_USER64] = (const char *)user64_far,	      [JC_USER32] = (const char *)user32_far,
	[JC_KERNEL64] = (const char *)kernel64_far,   [JC_KERNEL64_AC] = (const char *)kernel64_ac_far,
	[JC_KERNEL32] = (const char *)kernel32_far,
};
