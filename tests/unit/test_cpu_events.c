/* Exceptions, interrupts, IRET, SYSCALL: what the guest's handlers find on their stacks. */
#include "cpu_fake.h"

#define INT_GATE  0x8e
#define TRAP_GATE 0x8f
#define USER_GATE 0xee

static void raise_now(struct vcpu *cpu, unsigned vector, bool has_error, u32 error)
{
	cpu->exc = (struct exception){.vector = vector, .has_error = has_error, .error = error, .pending = true};
}

static void long_fault_from_user(void **state)
{
	struct vcpu *cpu = fake_cpu();

	enter_long(cpu, 3);
	put64(TSS + 4, STACK0 + 8); /* RSP0 unaligned: the frame is aligned all the same */
	gate_set64(EXC_GP, SEL(G_CODE64, 0), 0xffffffff81000000ull, INT_GATE, 0);
	raise_now(cpu, EXC_GP, true, 0x50);
	assert_true(exception_deliver(cpu));
	assert_int_equal(cpu->rip, 0xffffffff81000000ull);
	assert_int_equal(cpu_cpl(cpu), 0);
	assert_int_equal(cpu->seg[SEG_CS].sel, SEL(G_CODE64, 0));
	assert_int_equal(cpu->seg[SEG_SS].sel, 0);
	assert_true(cpu->seg[SEG_SS].unusable);
	assert_int_equal(cpu->gpr[R_SP], STACK0 - 48);
	assert_int_equal(get(STACK0 - 48, 8), 0x50);
	assert_int_equal(get(STACK0 - 40, 8), 0x8000);
	assert_int_equal(get(STACK0 - 32, 8), SEL(G_UCODE64, 3));
	assert_int_equal(get(STACK0 - 24, 8), FL_ONE | FL_IF | FL_RF);
	assert_int_equal(get(STACK0 - 16, 8), STACK3);
	assert_int_equal(get(STACK0 - 8, 8), SEL(G_UDATA, 3));
	assert_int_equal(cpu->rflags & FL_IF, 0);

	/* and back */
	cpu->gpr[R_SP] += 8;
	cpu_iret(cpu, 8);
	assert_int_equal(cpu_cpl(cpu), 3);
	assert_int_equal(cpu->rip, 0x8000);
	assert_int_equal(cpu->gpr[R_SP], STACK3);
	assert_true(cpu->rflags & FL_IF);
}

static void long_ist_and_nmi(void **state)
{
	struct vcpu *cpu = fake_cpu();

	enter_long(cpu, 0);
	gate_set64(EXC_NMI, SEL(G_CODE64, 0), 0x9000, INT_GATE, 1);
	assert_true(interrupt_deliver(cpu, 0, true));
	assert_true(cpu->nmi_masked);
	assert_int_equal(cpu->gpr[R_SP], 0x28000 - 40);
	assert_int_equal(get(0x28000 - 8, 8), SEL(G_KDATA, 0));
	cpu_iret(cpu, 8);
	assert_false(cpu->nmi_masked);
	assert_int_equal(cpu->gpr[R_SP], STACK0);
}

static void long_software_gate_privilege(void **state)
{
	struct vcpu *cpu = fake_cpu();

	enter_long(cpu, 3);
	gate_set64(0x80, SEL(G_CODE64, 0), 0x9000, INT_GATE, 0);
	assert_int_equal(RAISED(cpu, cpu_interrupt(cpu, 0x80, INT_SOFT, false, 0, 0x8002)), EXC_GP);
	assert_int_equal(cpu->exc.error, 0x80 * 8 + 2);
	assert_int_equal(cpu->gpr[R_SP], STACK3);
	gate_set64(0x80, SEL(G_CODE64, 0), 0x9000, USER_GATE, 0);
	assert_int_equal(RAISED(cpu, cpu_interrupt(cpu, 0x80, INT_SOFT, false, 0, 0x8002)), -1);
	assert_int_equal(get(STACK0 - 40, 8), 0x8002);
	assert_int_equal(get(STACK0 - 24, 8) & FL_RF, 0);
}

static void double_and_triple_fault(void **state)
{
	struct vcpu *cpu = fake_cpu();

	enter_long(cpu, 0);
	gate_set64(EXC_DF, SEL(G_CODE64, 0), 0xa000, INT_GATE, 1);
	raise_now(cpu, EXC_GP, true, 0); /* its gate is empty: #NP or #GP on the way, both contributory */
	assert_true(exception_deliver(cpu));
	assert_int_equal(cpu->rip, 0xa000);
	assert_int_equal(get(cpu->gpr[R_SP], 8), 0); /* error code of #DF */

	enter_long(cpu, 0);
	memset(fake_mem + IDT, 0, 0x1000);
	raise_now(cpu, EXC_PF, true, 2);
	assert_false(exception_deliver(cpu));
	assert_false(cpu->exc.pending);
}

static void page_fault_in_delivery(void **state)
{
	struct vcpu *cpu = fake_cpu();

	/* #GP whose push hits a hole: contributory then #PF: the #PF is delivered (IST), CR2 set */
	enter_long(cpu, 0);
	gate_set64(EXC_GP, SEL(G_CODE64, 0), 0x9000, INT_GATE, 0);
	gate_set64(EXC_PF, SEL(G_CODE64, 0), 0x9100, INT_GATE, 1);
	gate_set64(EXC_DF, SEL(G_CODE64, 0), 0x9200, INT_GATE, 1);
	fake_hole = STACK0 - 0x1000;
	raise_now(cpu, EXC_GP, true, 0);
	assert_true(exception_deliver(cpu));
	assert_int_equal(cpu->rip, 0x9100);
	assert_int_equal(cpu->cr2, STACK0 - 8);
	assert_int_equal(get(cpu->gpr[R_SP], 8), PF_W);

	/* #PF whose push faults: #DF */
	enter_long(cpu, 0);
	gate_set64(EXC_PF, SEL(G_CODE64, 0), 0x9100, INT_GATE, 0);
	raise_now(cpu, EXC_PF, true, 0);
	assert_true(exception_deliver(cpu));
	assert_int_equal(cpu->rip, 0x9200);
}

static void external_bit(void **state)
{
	struct vcpu *cpu = fake_cpu();

	enter_long(cpu, 0);
	gate_set64(EXC_GP, SEL(G_CODE64, 0), 0x9000, INT_GATE, 0);
	gate_set64(0x30, SEL(G_CODE64, 0), 0x9000, INT_GATE | 1 << 7, 0);
	cpu->idt.limit = 0x2ff; /* vector 0x30 lies beyond */
	assert_true(interrupt_deliver(cpu, 0x30, false));
	assert_int_equal(cpu->rip, 0x9000);
	assert_int_equal(get(cpu->gpr[R_SP], 8), 0x30 * 8 + 2 + 1);
}

static void debug_exception_state(void **state)
{
	struct vcpu *cpu = fake_cpu();

	enter_long(cpu, 0);
	gate_set64(EXC_DB, SEL(G_CODE64, 0), 0x9000, INT_GATE, 0);
	cpu->dr7 = DR7_FIXED | DR7_GD;
	assert_int_equal(RAISED(cpu, cpu_get_dr(cpu, 7)), EXC_DB);
	cpu->exc.pending = true;
	assert_true(exception_deliver(cpu));
	assert_int_equal(cpu->dr6, DR6_FIXED | DR6_BD);
	assert_int_equal(cpu->dr7, DR7_FIXED);
}

static void real_mode(void **state)
{
	struct vcpu *cpu = fake_cpu();

	assert_int_equal(cpu->seg[SEG_CS].base + cpu->rip, 0xfffffff0u);
	cpu_far_jump(cpu, 0x1000, 0x20, 2, 0);
	assert_int_equal(cpu->seg[SEG_CS].base, 0x10000);
	cpu->gpr[R_SP] = 0x0000;
	put32(0x21 * 4, 0x00500006);
	cpu_load_sreg(cpu, SEG_SS, 0x300);
	cpu_interrupt(cpu, 0x21, INT_SOFT, false, 0, 0x22);
	assert_int_equal(cpu->gpr[R_SP], 0xfffa); /* SP wraps */
	assert_int_equal(get(0x3000 + 0xfffa, 2), 0x22);
	assert_int_equal(cpu->seg[SEG_CS].base, 0x500);
	assert_int_equal(cpu->rip, 6);
	cpu_iret(cpu, 2);
	assert_int_equal(cpu->rip, 0x22);
	assert_int_equal(cpu->seg[SEG_CS].sel, 0x1000);
}

static void protected_inner(void **state)
{
	struct vcpu *cpu = fake_cpu();

	enter_protected(cpu, 3);
	cpu_load_sreg(cpu, SEG_FS, 0);
	gate_set32(0x20, SEL(G_KCODE, 0), 0x9000, INT_GATE);
	assert_true(interrupt_deliver(cpu, 0x20, false));
	assert_int_equal(cpu_cpl(cpu), 0);
	assert_int_equal(cpu->gpr[R_SP], STACK0 - 20);
	assert_int_equal(get(STACK0 - 4, 4), SEL(G_UDATA, 3));
	assert_int_equal(get(STACK0 - 8, 4), STACK3);
	cpu_load_sreg(cpu, SEG_ES, SEL(G_KDATA, 0));
	cpu_iret(cpu, 4);
	assert_int_equal(cpu_cpl(cpu), 3);
	assert_true(cpu->seg[SEG_ES].unusable); /* kernel data does not leak to ring 3 */
	assert_false(cpu->seg[SEG_DS].unusable);
	assert_int_equal(cpu->gpr[R_SP], STACK3);
}

static void iret_refusals(void **state)
{
	struct vcpu *cpu = fake_cpu();

	enter_long(cpu, 0);
	cpu_push(cpu, SEL(G_UDATA, 3), 8);
	cpu_push(cpu, STACK3, 8);
	cpu_push(cpu, FL_ONE, 8);
	cpu_push(cpu, SEL(G_UCODE64, 3), 8);
	cpu_push(cpu, 0x800000000000ull, 8); /* non-canonical */
	assert_int_equal(RAISED(cpu, cpu_iret(cpu, 8)), EXC_GP);
	assert_int_equal(cpu_cpl(cpu), 0);
	assert_int_equal(cpu->gpr[R_SP], STACK0 - 40);
	put64(STACK0 - 40, 0x8000);
	put64(STACK0 - 8, 0); /* null SS to CPL 3 */
	assert_int_equal(RAISED(cpu, cpu_iret(cpu, 8)), EXC_GP);
	put64(STACK0 - 32, SEL(G_CODE64, 0)); /* null SS, same CPL 0 */
	assert_int_equal(RAISED(cpu, cpu_iret(cpu, 8)), -1);
	assert_int_equal(cpu->gpr[R_SP], STACK3);
	cpu->rflags |= FL_NT;
	assert_int_equal(RAISED(cpu, cpu_iret(cpu, 8)), EXC_GP);
}

static void v86_out_and_back(void **state)
{
	struct vcpu *cpu = fake_cpu();
	u32 sp = STACK0;

	enter_protected(cpu, 0);
	gate_set32(EXC_GP, SEL(G_KCODE, 0), 0x9000, INT_GATE);
	static const u32 frame[] = {0x100, 0x7000, FL_ONE | FL_VM | FL_IF, 0xff0, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000};

	sp -= sizeof(frame);
	memcpy(fake_mem + sp, frame, sizeof(frame));
	cpu->gpr[R_SP] = sp;
	cpu_iret(cpu, 4);
	assert_true(cpu->mode.vm86);
	assert_int_equal(cpu_cpl(cpu), 3);
	assert_int_equal(cpu->seg[SEG_CS].base, 0x70000);
	assert_int_equal(cpu->seg[SEG_SS].base, 0x20000);
	assert_int_equal(cpu->seg[SEG_GS].sel, 0x6000);
	assert_int_equal(RAISED(cpu, cpu_cli(cpu)), EXC_GP);
	assert_int_equal(RAISED(cpu, cpu_interrupt(cpu, 0x21, INT_SOFT, false, 0, 0x102)), EXC_GP);
	cpu->exc = (struct exception){.vector = EXC_GP, .has_error = true, .pending = true};
	assert_true(exception_deliver(cpu));
	assert_false(cpu->mode.vm86);
	assert_int_equal(cpu_cpl(cpu), 0);
	assert_true(cpu->seg[SEG_DS].unusable);
	assert_int_equal(cpu->gpr[R_SP], STACK0 - 40);
	assert_int_equal(get(STACK0 - 4, 4), 0x6000);
	assert_int_equal(get(STACK0 - 16, 4), 0x3000);
	assert_int_equal(get(STACK0 - 28, 4), FL_ONE | FL_VM | FL_IF | FL_RF);
	cpu->gpr[R_SP] += 4;
	cpu_iret(cpu, 4);
	assert_true(cpu->mode.vm86);
	assert_int_equal(cpu->gpr[R_SP], 0xff0);
}

static void vme(void **state)
{
	struct vcpu *cpu = fake_cpu();

	enter_protected(cpu, 3);
	cpu->cr4 = CR4_VME;
	cpu->rflags |= FL_VM | FL_VIF;
	for (unsigned i = 0; i <= SEG_GS; i++)
		seg_load_v86(cpu, i, 0x3000);
	cpu->gpr[R_SP] = 0x100;
	cpu_update_mode(cpu);
	put16(TSS + 102, 0x90); /* I/O bitmap; the redirection bitmap lies below, all zero */
	put32(0x21 * 4, 0x40000010);
	cpu_interrupt(cpu, 0x21, INT_SOFT, false, 0, 0x102);
	assert_true(cpu->mode.vm86);
	assert_int_equal(cpu->rip, 0x10);
	assert_int_equal(cpu->rflags & FL_VIF, 0);
	assert_int_equal(get(0x30000 + 0xfe, 2) & (FL_IF | FL_IOPL), FL_IF | FL_IOPL);
	cpu_iret(cpu, 2);
	assert_true(cpu->rflags & FL_VIF);
	assert_int_equal(cpu_iopl(cpu), 0);
	cpu_cli(cpu);
	assert_int_equal(cpu->rflags & (FL_VIF | FL_IF), FL_IF);
	fake_mem[TSS + 0x90 - 32 + 4] = 2; /* vector 0x21 is not redirected */
	assert_int_equal(RAISED(cpu, cpu_interrupt(cpu, 0x21, INT_SOFT, false, 0, 0x102)), EXC_GP);
}

static void syscall_and_back(void **state)
{
	struct vcpu *cpu = fake_cpu();

	enter_long(cpu, 3);
	cpu->star = (u64)0x10 << 32 | (u64)0x23 << 48;
	cpu->lstar = 0xffffffff81000000ull;
	cpu->sfmask = FL_IF | FL_TF;
	cpu_syscall(cpu, 0x8002);
	assert_int_equal(cpu_cpl(cpu), 0);
	assert_int_equal(cpu->rip, cpu->lstar);
	assert_int_equal(cpu->gpr[R_CX], 0x8002);
	assert_int_equal(cpu->seg[SEG_SS].sel, 0x18);
	assert_int_equal(cpu->rflags & FL_IF, 0);
	assert_true(cpu->mode.long64);
	cpu_sysret(cpu, 8);
	assert_int_equal(cpu_cpl(cpu), 3);
	assert_int_equal(cpu->rip, 0x8002);
	assert_int_equal(cpu->seg[SEG_CS].sel, 0x33);
	assert_int_equal(cpu->seg[SEG_SS].sel, 0x2b);
	assert_true(cpu->rflags & FL_IF);
	assert_int_equal(RAISED(cpu, cpu_sysret(cpu, 8)), EXC_GP);
	cpu->efer &= ~(u64)EFER_SCE;
	assert_int_equal(RAISED(cpu, cpu_syscall(cpu, 0)), EXC_UD);
}

static void flags_by_privilege(void **state)
{
	struct vcpu *cpu = fake_cpu();

	enter_long(cpu, 3);
	cpu_push(cpu, FL_ONE | FL_IOPL | FL_AC | FL_CF | FL_VM | FL_RF, 8);
	cpu_popf(cpu, 8);
	assert_int_equal(cpu->rflags, FL_ONE | FL_IF | FL_AC | FL_CF);
	assert_int_equal(RAISED(cpu, cpu_cli(cpu)), EXC_GP);
	enter_long(cpu, 0);
	cpu_cli(cpu);
	cpu_sti(cpu);
	assert_int_equal(cpu->shadow, SHADOW_STI);
	cpu->shadow = SHADOW_NONE;
	cpu_sti(cpu);
	assert_int_equal(cpu->shadow, SHADOW_NONE);
}

/* INIT and the start-up IPI may be taken from the LAPIC together: the reset must not swallow the second. */
static void init_keeps_sipi(void **state)
{
	struct vcpu *cpu = fake_cpu();

	cpu->sipi_pending = 1;
	cpu->sipi_vector = 0x9a;
	cpu_reset(cpu, true);
	assert_int_equal(cpu->sipi_pending, 1);
	assert_int_equal(cpu->sipi_vector, 0x9a);
	cpu_reset(cpu, false);
	assert_int_equal(cpu->sipi_pending, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(long_fault_from_user),
		cmocka_unit_test(long_ist_and_nmi),
		cmocka_unit_test(long_software_gate_privilege),
		cmocka_unit_test(double_and_triple_fault),
		cmocka_unit_test(page_fault_in_delivery),
		cmocka_unit_test(external_bit),
		cmocka_unit_test(debug_exception_state),
		cmocka_unit_test(real_mode),
		cmocka_unit_test(protected_inner),
		cmocka_unit_test(iret_refusals),
		cmocka_unit_test(v86_out_and_back),
		cmocka_unit_test(vme),
		cmocka_unit_test(syscall_and_back),
		cmocka_unit_test(flags_by_privilege),
		cmocka_unit_test(init_keeps_sipi),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
