/* Running user code in a cell: registers there and back, and what its stops mean. */
#include <sys/syscall.h>
#include <sys/wait.h>

#include "engine/cell/cell_int.h"
#include "engine/cpu/breakpoints.h"
#include "engine/cpu/fpu.h"
#include "engine/cpu/run.h"
#include "engine/mmu/mmu_int.h"

#define TRIES 32 /* pages that are mapped for one instruction before the interpreter does it */

/* Flags that user code changes, and those that the host's ptrace() cannot set or that would mean something else there. */
#define FL_USER (FL_ARITH | FL_TF | FL_DF | FL_NT | FL_AC | FL_ID)
#define FL_NEVER (FL_NT | FL_ID) /* of these, what user code has set there by POPF: nothing clears it again */
#define FL_NOT  (FL_TF | FL_IOPL | FL_NT | FL_VM | FL_VIF | FL_VIP | FL_ID)

/* Whether user code would see there what it sees here: selectors as the host has them, the same registers enabled, nobody looking. */
static bool fits(const struct vcpu *cpu)
{
	const struct cpu_mode *m = &cpu->mode;
	const struct segment *s = cpu->seg;

	if (m->cpl != 3 || !m->long64 || m->mmu_idx != MMU_USER || !m->sse_ok || !m->fpu_ok || m->avx_ok != ((const struct vec_state *)cpu->vecexec)->has_avx)
		return false;
	if (s[SEG_CS].sel != USER_CS || s[SEG_SS].sel != USER_SS || s[SEG_DS].sel | s[SEG_ES].sel | s[SEG_FS].sel | s[SEG_GS].sel)
		return false;
	if ((cpu->rflags & (FL_NOT | FL_IF)) != FL_IF || cpu->shadow || !(m->key & MODE_KEY_FSGSBASE) || mmu_paging_kind(cpu) != PAGING_4)
		return false;
	if (m->key & (MODE_KEY_COUNT | MODE_KEY_TRACE | MODE_KEY_ARRIVALS | MODE_KEY_COVERAGE) || cpu->trace.kinds || cpu->guest_debug || dbg_armed(cpu))
		return false;
	return cpu->rip < USER_END && s[SEG_FS].base < USER_END && s[SEG_GS].base < USER_END;
}

/* False: what was queued was refused. That cannot be twice: there is nothing to map then. */
static bool give_registers(struct cell *c, const struct host_regs *r)
{
	if (process_set(c, r))
		return true;
	space_reset(c);
	if (!process_set(c, r))
		eng_panic("doppel-engine: process %d does not take registers", c->pid);
	return false;
}

static void give(struct vcpu *cpu, struct cell *c)
{
	const u64 *g = cpu->gpr;
	struct host_regs r = {.rax = g[R_AX], .rcx = g[R_CX], .rdx = g[R_DX], .rbx = g[R_BX], .rsp = g[R_SP], .rbp = g[R_BP],
				     .rsi = g[R_SI], .rdi = g[R_DI], .r8 = g[R_8], .r9 = g[R_9], .r10 = g[R_10], .r11 = g[R_11],
				     .r12 = g[R_12], .r13 = g[R_13], .r14 = g[R_14], .r15 = g[R_15], .rip = cpu->rip, .orig_rax = ~0ull,
				     .eflags = (cpu->rflags & FL_USER) | FL_IF | FL_ONE, .cs = USER_CS, .ss = USER_SS,
				     .fs_base = cpu->seg[SEG_FS].base, .gs_base = cpu->seg[SEG_GS].base};

	give_registers(c, &r);
}

/* Vector state goes there only if it is not what came from there. */
static void give_vector(struct vcpu *cpu, struct cell *c)
{
	struct cells *cs = cpu->cells;
	struct xsave_area *there = (struct xsave_area *)cs->xstate;
	struct xsave_area *here = (struct xsave_area *)cpu->xsave;

	if (!cs->xstate_size)
		process_get_vector(cs, c);
	if (cs->xstate_of == c && !memcmp(there, here, sizeof(*here)))
		return;
	memset(cs->xstate, 0, cs->xstate_size);
	memcpy(there, here, sizeof(*here));
	there->fx.mxcsr_mask = 0;
	there->xcomp_bv = 0;
	cs->xstate_of = NULL;
	if (!process_set_vector(cs, c))
		eng_panic("doppel-engine: process %d does not take vector state", c->pid);
}

static void take_vector(struct vcpu *cpu, struct cell *c)
{
	struct cells *cs = cpu->cells;
	struct xsave_area *there = (struct xsave_area *)cs->xstate;

	process_get_vector(cs, c);
	there->xstate_bv &= XS_X87 | XS_SSE | XS_AVX;
	memset(there->fx.unused, 0, sizeof(there->fx.unused));
	memcpy(cpu->xsave, there, sizeof(*there));
	vcpu_fpu_load(cpu);
	vcpu_fpu_save(cpu); /* as give_vector() will see it */
	memcpy(there, cpu->xsave, sizeof(*there));
	vcpu_fpu_load(cpu);
}

/* User code may load selectors that the host knows: they are those of every Linux. */
static void take_segment(struct vcpu *cpu, unsigned n, u16 sel)
{
	struct segment *s = &cpu->seg[n];

	if (s->sel == sel)
		return;
	*s = (struct segment){.sel = sel, .base = n >= SEG_FS ? s->base : 0, .unusable = !(sel & ~3)};
	if (s->unusable)
		return;
	s->limit = 0xffffffff;
	s->type = n == SEG_CS ? 0xb : 3;
	s->dpl = 3;
	s->s = s->present = s->g = true;
	s->l = sel == USER_CS;
	s->db = sel != USER_CS;
}

static void take(struct vcpu *cpu, const struct host_regs *r)
{
	u64 *g = cpu->gpr, old = cpu->rflags;

	g[R_AX] = r->rax, g[R_CX] = r->rcx, g[R_DX] = r->rdx, g[R_BX] = r->rbx, g[R_SP] = r->rsp, g[R_BP] = r->rbp, g[R_SI] = r->rsi;
	g[R_DI] = r->rdi, g[R_8] = r->r8, g[R_9] = r->r9, g[R_10] = r->r10, g[R_11] = r->r11, g[R_12] = r->r12, g[R_13] = r->r13;
	g[R_14] = r->r14, g[R_15] = r->r15;
	cpu->rip = r->rip;
	cpu->rflags = (cpu->rflags & ~(u64)(FL_USER | FL_RF)) | (r->eflags & FL_USER) | FL_ONE;
	cpu->seg[SEG_FS].base = r->fs_base;
	cpu->seg[SEG_GS].base = r->gs_base;
	take_segment(cpu, SEG_CS, (u16)r->cs);
	take_segment(cpu, SEG_SS, (u16)r->ss);
	take_segment(cpu, SEG_DS, (u16)r->ds);
	take_segment(cpu, SEG_ES, (u16)r->es);
	take_segment(cpu, SEG_FS, (u16)r->fs);
	take_segment(cpu, SEG_GS, (u16)r->gs);
	if (r->cs != USER_CS || (old ^ cpu->rflags) & FL_AC)
		cpu_update_mode(cpu);
}

static u8 byte_at(struct vcpu *cpu, gva_t a)
{
	bool writable = false, user = false;
	gpa_t gpa = 0;
	u8 b = 0;

	return mmu_translate_debug(cpu, a, &gpa, &writable, &user) && phys_read(gpa, &b, 1) ? b : 0;
}

/* The host emulates a call into the vsyscall page, up to its return: back to its beginning. */
static void take_back_vsyscall(struct vcpu *cpu, int number)
{
	cpu->gpr[R_SP] -= 8;
	cpu->rip = 0xffffffffff600000ull + (number == SYS_getcpu ? 0x800 : number == SYS_time ? 0x400 : 0);
}

/* A system call or INT3 and its like: back to the instruction, which the interpreter does as the guest's processor would. */
static void take_back(struct vcpu *cpu, struct cell *c, int signal)
{
	u8 last = byte_at(cpu, cpu->rip - 1);
	siginfo_t si;

	process_signal(c, &si);
	if (signal == SIGSYS && (last == 0x05 || last == 0x80)) { /* RCX and R11 are what SYSCALL makes of them */
		cpu->rip -= 2;
	} else if (signal == SIGSYS) {
		take_back_vsyscall(cpu, si.si_syscall);
	} else if (si.si_code == TRAP_TRACE) { /* POPF has set TF, and one instruction was executed since */
		cpu_raise_db(cpu, BIT(14));
	} else if (si.si_code == TRAP_BRKPT && last != 0xf1) {
		/* INT1 under a hypervisor that lets it trap too early: RIP is there still */
	} else {
		cpu->rip -= last == 3 ? 2 : 1; /* INT 3 in two bytes; INT3, INT1 */
	}
}

/* A page was mapped; code that is to be interpreted; memory that a cell cannot have; what the interpreter has to look at. */
enum found { FOUND_MAPPED, FOUND_UNFIT, FOUND_BEYOND, FOUND_OTHER };

/* In a page that the instruction at rip may have bytes in. */
static bool near(gva_t a, u64 rip)
{
	return a >> PAGE_SHIFT == rip >> PAGE_SHIFT || a >> PAGE_SHIFT == (rip + INSN_MAX_LEN - 1) >> PAGE_SHIFT;
}

static enum found look_at_fault(struct vcpu *cpu, struct cell *c, const struct host_regs *r)
{
	siginfo_t si;
	u64 a = 0, *e = NULL;
	bool fetch = false;

	process_signal(c, &si);
	if (si.si_code != SEGV_MAPERR && si.si_code != SEGV_ACCERR)
		return FOUND_OTHER;
	a = (u64)si.si_addr;
	fetch = a - r->rip < INSN_MAX_LEN && (a == r->rip || !(a & ~PAGE_MASK));
	e = space_find(c, a);
	if (e && *e & M_R && fetch && *e & M_UNFIT)
		return FOUND_UNFIT;
	if (!fetch && e && *e & M_X && near(a, r->rip))
		return FOUND_UNFIT; /* it writes to its own page, which is never both writable and executable */
	c->tries = r->rip == c->tried ? c->tries + 1 : 0;
	c->tried = r->rip;
	if (c->tries > TRIES || !space_fault(cpu, c, a, fetch)) {
		c->wanted = a;
		c->wanted_fetch = fetch;
		return space_beyond(cpu, a) ? FOUND_BEYOND : FOUND_OTHER;
	}
	e = space_find(c, a);
	return fetch && e && *e & M_UNFIT ? FOUND_UNFIT : FOUND_MAPPED;
}

/* Until something is not the cell's own business. */
static int run_user(struct vcpu *cpu, struct cell *c, struct host_regs *r, enum found *found)
{
	for (;;) {
		u64 begin = eng_tsc_ns(), in = 0;
		int status = process_run(cpu, c), signal = WSTOPSIG(status);
		enum found f = FOUND_OTHER;
		enum ride ride = process_get(c, r, signal);

		in = eng_tsc_ns() - begin;
		cpu->steal.wall += in; /* the vCPU ran, if not on this thread */
		if (ride == RIDE_FAILED) { /* it would be again: one instruction without */
			c->reset = true;
			signal = SIGSEGV;
		} else if (ride == RIDE_STOPPED) {
			f = FOUND_MAPPED;
			signal = 0;
		} else if (signal == SIGSEGV)
			f = look_at_fault(cpu, c, r);
		c->used = begin;
		cpu->stats.cell_stops++;
		cpu->stats.cell_us += in / 1000;
		policy_note(cpu, c, in, f == FOUND_MAPPED ? STOP_MAP : STOP_KERNEL);
		*found = f;
		cpu->stats.cell_unfit += f == FOUND_UNFIT || f == FOUND_BEYOND;
		if (f != FOUND_MAPPED)
			return signal;
		cpu->stats.cell_faults++;
		if (!c->hot || __atomic_load_n(&cpu->chan->attention, __ATOMIC_SEQ_CST))
			return 0;
		if (c->reset)
			space_reset(c);
		if (!give_registers(c, r))
			return SIGSEGV; /* as above */
	}
}

/* The cell's mappings are those of the address space. */
static void settle(struct vcpu *cpu, struct cell *c)
{
	c->unsure |= c->ctx != cpu->tlb.ctx[0];
	c->ctx = (u32)cpu->tlb.ctx[0];
	place_together(cpu, c);
	space_settle(cpu, c);
}

bool cell_run(struct vcpu *cpu)
{
	struct cells *cs = cpu->cells;
	struct cell *c = NULL;
	struct host_regs r;
	enum found found = FOUND_OTHER;
	int signal = 0;

	cpu->cell_stop = false;
	if (!fits(cpu))
		return false;
	if (unlikely(!cs->now))
		policy_warm(cpu);
	c = cs->now;
	if (!c)
		return false;
	vcpu_fpu_save(cpu);
	settle(cpu, c);
	give_vector(cpu, c);
	give(cpu, c);
	signal = run_user(cpu, c, &r, &found);
	take_vector(cpu, c);
	take(cpu, &r);
	if (signal == SIGTRAP || signal == SIGSYS)
		take_back(cpu, c, signal);
	if (r.eflags & FL_NEVER)
		policy_end(cpu, c);
	cpu->cell_stop = false;
	if (found == FOUND_BEYOND)
		return false;
	if (found == FOUND_UNFIT) {
		gva_t page = cpu->rip & PAGE_MASK;

		interp_page(cpu);
		return (cpu->rip & PAGE_MASK) != page;
	}
	cpu->step_once = signal == SIGSEGV || signal == SIGBUS || signal == SIGILL || signal == SIGFPE || signal == SIGTRAP || signal == SIGSYS;
	return true;
}
