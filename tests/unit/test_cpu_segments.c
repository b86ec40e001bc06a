/* Segment loads and checks, far transfers, call gates, tasks. */
#include "cpu_fake.h"

static void load_faults(void **state)
{
	struct vcpu *cpu = fake_cpu();

	enter_protected(cpu, 3);
	assert_int_equal(RAISED(cpu, cpu_load_sreg(cpu, SEG_DS, SEL(G_KDATA, 3))), EXC_GP);
	assert_int_equal(cpu->exc.error, SEL(G_KDATA, 0));
	assert_int_equal(RAISED(cpu, cpu_load_sreg(cpu, SEG_SS, 0)), EXC_GP);
	assert_int_equal(cpu->exc.error, 0);
	assert_int_equal(RAISED(cpu, cpu_load_sreg(cpu, SEG_DS, G_COUNT * 8)), EXC_GP);
	assert_int_equal(RAISED(cpu, cpu_load_sreg(cpu, SEG_DS, 0x7)), EXC_GP); /* no LDT */
	gdt_set(G_UDATA, 0, 0xfffff, 0x72, 0xc);                                 /* not present */
	assert_int_equal(RAISED(cpu, cpu_load_sreg(cpu, SEG_ES, SEL(G_UDATA, 3))), EXC_NP);
	assert_int_equal(RAISED(cpu, cpu_load_sreg(cpu, SEG_SS, SEL(G_UDATA, 3))), EXC_SS);
	assert_int_equal(cpu->exc.error, SEL(G_UDATA, 0));
	assert_int_equal(RAISED(cpu, cpu_load_sreg(cpu, SEG_DS, 2)), -1); /* null with any RPL */
	assert_int_equal(RAISED(cpu, seg_linear(cpu, SEG_DS, 0, 1, false)), EXC_GP);
}

static void accessed_bit(void **state)
{
	struct vcpu *cpu = fake_cpu();

	enter_protected(cpu, 0);
	assert_int_equal(DESC_TYPE(get(GDT + G_UDATA * 8, 8)), 2);
	cpu_load_sreg(cpu, SEG_DS, SEL(G_UDATA, 3));
	assert_int_equal(DESC_TYPE(get(GDT + G_UDATA * 8, 8)), 3);
	assert_int_equal(cpu->seg[SEG_DS].type, 3);
}

static void limits(void **state)
{
	struct vcpu *cpu = fake_cpu();

	enter_protected(cpu, 0);
	gdt_set(G_UDATA, 0x1000, 0xfff, 0x96, 4); /* expand-down, 32-bit: valid above 0xfff */
	cpu_load_sreg(cpu, SEG_DS, SEL(G_UDATA, 0));
	assert_int_equal(RAISED(cpu, seg_linear(cpu, SEG_DS, 0xfff, 1, true)), EXC_GP);
	assert_int_equal(seg_linear(cpu, SEG_DS, 0x1000, 4, true), 0x2000);
	assert_int_equal(RAISED(cpu, seg_linear(cpu, SEG_DS, 0xfffffffe, 4, true)), EXC_GP);
	gdt_set(G_UDATA, 0, 0xfff, 0x90, 4); /* read-only, expand-up */
	cpu_load_sreg(cpu, SEG_DS, SEL(G_UDATA, 0));
	assert_int_equal(seg_linear(cpu, SEG_DS, 0xffc, 4, false), 0xffc);
	assert_int_equal(RAISED(cpu, seg_linear(cpu, SEG_DS, 0xffd, 4, false)), EXC_GP);
	assert_int_equal(RAISED(cpu, seg_linear(cpu, SEG_DS, 0, 4, true)), EXC_GP);
	assert_false(cpu->mode.flat);
	enter_long(cpu, 3);
	assert_int_equal(RAISED(cpu, seg_linear(cpu, SEG_SS, 0x7ffffffffffc, 8, false)), EXC_SS);
	cpu->seg[SEG_GS].base = 0x10000;
	assert_int_equal(seg_linear(cpu, SEG_GS, 8, 8, false), 0x10008);
	assert_int_equal(seg_linear(cpu, SEG_DS, 8, 8, true), 8);
}

static void system_segments(void **state)
{
	struct vcpu *cpu = fake_cpu();
	u32 v = 0;

	enter_protected(cpu, 0);
	cpu_lldt(cpu, SEL(G_LDT, 0));
	assert_int_equal(cpu->seg[SEG_LDTR].base, LDT);
	put64(LDT + 8, get(GDT + G_KDATA * 8, 8));
	cpu_load_sreg(cpu, SEG_ES, 0xc);
	assert_int_equal(cpu->seg[SEG_ES].sel, 0xc);
	assert_int_equal(RAISED(cpu, cpu_lldt(cpu, SEL(G_KDATA, 0))), EXC_GP);
	cpu_ltr(cpu, SEL(G_TSS2, 0));
	assert_int_equal(DESC_TYPE(get(GDT + G_TSS2 * 8, 8)), DT_TSS32_BUSY);
	assert_int_equal(RAISED(cpu, cpu_ltr(cpu, SEL(G_TSS2, 0))), EXC_GP);
	assert_true(cpu_lsl(cpu, SEL(G_LDT, 0), &v));
	assert_int_equal(v, 0xff);
	assert_true(cpu_lar(cpu, SEL(G_KCODE, 0), &v));
	assert_int_equal(v & 0xf0ff00, 0xc09a00);
	assert_false(cpu_lar(cpu, 0, &v));
	assert_false(cpu_verify(cpu, SEL(G_KCODE, 0), true));
	assert_true(cpu_verify(cpu, SEL(G_KCODE, 0), false));
	assert_false(cpu_verify(cpu, SEL(G_KDATA, 3), false));
}

static void real_to_long(void **state)
{
	struct vcpu *cpu = fake_cpu();

	enter_protected(cpu, 0); /* for its tables; then back to the reset state, as an AP's trampoline has it */
	cpu_reset(cpu, true);
	cpu->gdt = (struct dtable){GDT, G_COUNT * 8 - 1};
	cpu_set_cr(cpu, 0, CR0_ET | CR0_PE);
	assert_int_equal(cpu->mode.code, INSN_MODE_16);
	cpu_far_jump(cpu, SEL(G_KCODE, 0), 0x8000, 4, 0);
	assert_int_equal(cpu->mode.code, INSN_MODE_32);
	cpu_load_sreg(cpu, SEG_SS, SEL(G_KDATA, 0));
	assert_int_equal(RAISED(cpu, cpu_set_cr(cpu, 4, CR4_PAE | CR4_PCIDE)), EXC_GP);
	cpu_set_cr(cpu, 4, CR4_PAE);
	cpu_set_cr(cpu, 3, 0x3000);
	cpu_set_efer(cpu, EFER_LME | EFER_SCE);
	cpu_set_cr(cpu, 0, CR0_ET | CR0_PE | CR0_PG);
	assert_true(cpu->mode.lma);
	assert_false(cpu->mode.long64);
	cpu_far_jump(cpu, SEL(G_CODE64, 0), 0x9000, 4, 0);
	assert_true(cpu->mode.long64);
	assert_int_equal(cpu->mode.stack, 8);
	assert_int_equal(RAISED(cpu, cpu_set_cr(cpu, 0, CR0_ET | CR0_PE)), EXC_GP);
	assert_int_equal(RAISED(cpu, cpu_set_cr(cpu, 4, 0)), EXC_GP);
}

static void far_call_and_ret(void **state)
{
	struct vcpu *cpu = fake_cpu();

	enter_protected(cpu, 0);
	cpu_far_call(cpu, SEL(G_CONF, 0), 0x9000, 4, 0x8007);
	assert_int_equal(cpu->seg[SEG_CS].sel, SEL(G_CONF, 0));
	assert_int_equal(cpu->gpr[R_SP], STACK0 - 8);
	cpu_far_ret(cpu, 4, 0);
	assert_int_equal(cpu->rip, 0x8007);
	assert_int_equal(cpu->gpr[R_SP], STACK0);
	assert_int_equal(RAISED(cpu, cpu_far_jump(cpu, SEL(G_UCODE, 0), 0x9000, 4, 0)), EXC_GP);
	assert_int_equal(RAISED(cpu, cpu_far_jump(cpu, 0, 0x9000, 4, 0)), EXC_GP);
	assert_int_equal(RAISED(cpu, cpu_far_jump(cpu, SEL(G_CODE16, 0), 0x12345, 4, 0)), EXC_GP); /* limit */
}

static void call_gate_with_parameters(void **state)
{
	struct vcpu *cpu = fake_cpu();

	enter_protected(cpu, 3);
	put64(GDT + G_GATE * 8, 0x9000 | (u64)SEL(G_KCODE, 0) << 16 | 2ull << 32 | 0xecull << 40); /* DPL 3, 2 words */
	cpu_push(cpu, 0x1111, 4);
	cpu_push(cpu, 0x2222, 4);
	cpu_far_call(cpu, SEL(G_GATE, 3), 0xdead, 4, 0x8007);
	assert_int_equal(cpu_cpl(cpu), 0);
	assert_int_equal(cpu->rip, 0x9000);
	assert_int_equal(cpu->gpr[R_SP], STACK0 - 24);
	assert_int_equal(get(STACK0 - 4, 4), SEL(G_UDATA, 3));
	assert_int_equal(get(STACK0 - 8, 4), STACK3 - 8);
	assert_int_equal(get(STACK0 - 12, 4), 0x1111);
	assert_int_equal(get(STACK0 - 16, 4), 0x2222);
	assert_int_equal(get(STACK0 - 20, 4), SEL(G_UCODE, 3));
	cpu_far_ret(cpu, 4, 8);
	assert_int_equal(cpu_cpl(cpu), 3);
	assert_int_equal(cpu->gpr[R_SP], STACK3);
	assert_int_equal(cpu->rip, 0x8007);
	/* a JMP cannot raise privilege through it */
	assert_int_equal(RAISED(cpu, cpu_far_jump(cpu, SEL(G_GATE, 3), 0, 4, 0)), EXC_GP);
	/* a bad inner stack: #TS with its selector */
	put32(TSS + 8, SEL(G_UDATA, 0));
	assert_int_equal(RAISED(cpu, cpu_far_call(cpu, SEL(G_GATE, 3), 0, 4, 0)), EXC_TS);
	assert_int_equal(cpu->exc.error, SEL(G_UDATA, 0));
}

static void call_gate_long(void **state)
{
	struct vcpu *cpu = fake_cpu();

	enter_long(cpu, 3);
	put64(GDT + G_GATE * 8, 0x9000 | (u64)SEL(G_CODE64, 0) << 16 | 0xecull << 40);
	put64(GDT + G_GATE_HIGH * 8, 0);
	cpu_far_call(cpu, SEL(G_GATE, 3), 0, 4, 0x8007);
	assert_int_equal(cpu_cpl(cpu), 0);
	assert_int_equal(cpu->gpr[R_SP], STACK0 - 32);
	assert_int_equal(get(STACK0 - 16, 8), STACK3);
	cpu_far_ret(cpu, 8, 0);
	assert_int_equal(cpu_cpl(cpu), 3);
	assert_int_equal(cpu->gpr[R_SP], STACK3);
}

/* A second task at TSS2: code at 0xa000, its own stack. */
static void build_task(void)
{
	put32(TSS2 + 28, 0);
	put32(TSS2 + 32, 0xa000);
	put32(TSS2 + 36, FL_ONE);
	put32(TSS2 + 40 + 4 * R_SP, 0x38000);
	put32(TSS2 + 40 + 4 * R_BX, 0xbbbb);
	put32(TSS2 + 72, SEL(G_KDATA, 0));
	put32(TSS2 + 76, SEL(G_KCODE, 0));
	put32(TSS2 + 80, SEL(G_KDATA, 0));
	put32(TSS2 + 84, SEL(G_KDATA, 0));
}

static void task_call_and_iret(void **state)
{
	struct vcpu *cpu = fake_cpu();

	enter_protected(cpu, 0);
	cpu->seg[SEG_TR].limit = 0x67;
	build_task();
	cpu->gpr[R_AX] = 0x1234;
	cpu_far_call(cpu, SEL(G_TSS2, 0), 0, 4, 0x8007);
	assert_int_equal(cpu->rip, 0xa000);
	assert_int_equal(cpu->gpr[R_BX], 0xbbbb);
	assert_int_equal(cpu->gpr[R_SP], 0x38000);
	assert_int_equal(cpu->seg[SEG_TR].sel, SEL(G_TSS2, 0));
	assert_true(cpu->rflags & FL_NT);
	assert_true(cpu->cr0 & CR0_TS);
	assert_int_equal(get(TSS2, 2), SEL(G_TSS, 0));
	assert_int_equal(get(TSS + 32, 4), 0x8007);
	assert_int_equal(DESC_TYPE(get(GDT + G_TSS2 * 8, 8)), DT_TSS32_BUSY);
	assert_int_equal(DESC_TYPE(get(GDT + G_TSS * 8, 8)), DT_TSS32_BUSY);
	fake_mem[0xa000] = 0xcf; /* IRET */
	cpu_iret(cpu, 4);
	assert_int_equal(cpu->rip, 0x8007);
	assert_int_equal(cpu->gpr[R_AX], 0x1234);
	assert_int_equal(cpu->rflags & FL_NT, 0);
	assert_int_equal(get(TSS2 + 32, 4), 0xa001);
	assert_int_equal(get(TSS2 + 36, 4) & FL_NT, 0);
	assert_int_equal(DESC_TYPE(get(GDT + G_TSS2 * 8, 8)), DT_TSS32);
}

static void task_gate_with_error(void **state)
{
	struct vcpu *cpu = fake_cpu();

	enter_protected(cpu, 0);
	build_task();
	put64(IDT + EXC_GP * 8, (u64)SEL(G_TSS2, 0) << 16 | 0x85ull << 40);
	cpu->exc = (struct exception){.vector = EXC_GP, .has_error = true, .error = 0x77, .pending = true};
	assert_true(exception_deliver(cpu));
	assert_int_equal(cpu->rip, 0xa000);
	assert_int_equal(cpu->gpr[R_SP], 0x38000 - 4);
	assert_int_equal(get(0x38000 - 4, 4), 0x77);
	assert_int_equal(get(TSS + 32, 4), 0x8000);
}

static void task_refusals(void **state)
{
	struct vcpu *cpu = fake_cpu();

	enter_protected(cpu, 0);
	build_task();
	assert_int_equal(RAISED(cpu, cpu_far_jump(cpu, SEL(G_TSS, 0), 0, 4, 0)), EXC_GP); /* busy */
	gdt_set(G_TSS2, TSS2, 0x66, 0x89, 0);
	assert_int_equal(RAISED(cpu, cpu_far_jump(cpu, SEL(G_TSS2, 0), 0, 4, 0)), EXC_TS);
	assert_int_equal(cpu->seg[SEG_TR].sel, SEL(G_TSS, 0));
	gdt_set(G_TSS2, TSS2, 0x67, 0x89, 0);
	put32(TSS2 + 80, SEL(G_UDATA, 0)); /* bad SS: #TS, in the new task */
	assert_int_equal(RAISED(cpu, cpu_far_jump(cpu, SEL(G_TSS2, 0), 0, 4, 0)), EXC_TS);
	assert_int_equal(cpu->seg[SEG_TR].sel, SEL(G_TSS2, 0));
	assert_int_equal(cpu->rip, 0xa000);
	enter_protected(cpu, 0);
	build_task();
	put16(TSS2 + 100, 1); /* T */
	assert_int_equal(RAISED(cpu, cpu_far_jump(cpu, SEL(G_TSS2, 0), 0, 4, 0)), EXC_DB);
	assert_int_equal(cpu->exc.dr6, DR6_BT);
}

static void io_permission(void **state)
{
	struct vcpu *cpu = fake_cpu();

	enter_long(cpu, 3);
	put16(TSS + 102, 0x80);
	assert_int_equal(RAISED(cpu, cpu_check_io(cpu, 0x60, 1)), -1);
	fake_mem[TSS + 0x80 + 0x60 / 8 + 1] = 1; /* port 0x68 */
	assert_int_equal(RAISED(cpu, cpu_check_io(cpu, 0x67, 1)), -1);
	assert_int_equal(RAISED(cpu, cpu_check_io(cpu, 0x67, 2)), EXC_GP);
	assert_int_equal(RAISED(cpu, cpu_check_io(cpu, 0xffff, 1)), EXC_GP); /* beyond the TSS */
	cpu->rflags |= FL_IOPL;
	assert_int_equal(RAISED(cpu, cpu_check_io(cpu, 0xffff, 1)), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(load_faults),
		cmocka_unit_test(accessed_bit),
		cmocka_unit_test(limits),
		cmocka_unit_test(system_segments),
		cmocka_unit_test(real_to_long),
		cmocka_unit_test(far_call_and_ret),
		cmocka_unit_test(call_gate_with_parameters),
		cmocka_unit_test(call_gate_long),
		cmocka_unit_test(task_call_and_iret),
		cmocka_unit_test(task_gate_with_error),
		cmocka_unit_test(task_refusals),
		cmocka_unit_test(io_permission),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
