/*
 * The process of a cell. A vCPU's thread makes it with clone() and is so its tracer; the child gives up the fds it does not need, takes a
 * filter, and jumps into the stub: a page of code that makes system calls for the engine. The first ones unmap all but stub and list.
 *
 * The filter allows mmap, munmap and sched_setaffinity, and those only with a random number in the upper halves of two arguments, of
 * which the kernel looks at the lower ones. It is nowhere in the cell's memory or registers while user code runs, so that user code may jump into
 * the stub and do no more than fault. All other system calls end in SIGSYS, before anything is done.
 *
 * Nothing of the engine's memory gets into the child but this code and the stack of the vCPU's thread, until that first list is done.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "engine/cell/cell_int.h"
#include "engine/irqchip/timer.h"

#define VECTORS     0x202 /* NT_X86_XSTATE of <elf.h>, which defines names of ours */
#define STUB_CODE   0xe00 /* in its page; the rest is HLT, so that a jump there faults where it has arrived, and has done nothing */
#define STOP_SIGNAL SIGURG /* asks the cell to stop: ignored where it comes too late */

/*
 * A list: RBX the first one, RBP behind the last; INT3 at the end. Or one system call on the way to user code, its arguments in their registers,
 * RBX at a struct cell_ride. UD2 where one fails.
 */
__asm__(".pushsection .rodata\n"
	"cell_stub:\n"
	"1:	cmp %rbp, %rbx\n"
	"	jae 2f\n"
	"	mov (%rbx), %rax\n"
	"	mov 8(%rbx), %rdi\n"
	"	mov 16(%rbx), %rsi\n"
	"	mov 24(%rbx), %rdx\n"
	"	mov 32(%rbx), %r10\n"
	"	mov 40(%rbx), %r8\n"
	"	mov 48(%rbx), %r9\n"
	"	syscall\n"
	"	add $64, %rbx\n"
	"	cmp $-4096, %rax\n"
	"	jbe 1b\n"
	"	ud2\n"
	"2:	int3\n"
	"cell_stub_ride:\n"
	"	syscall\n"
	"	cmp $-4096, %rax\n"
	"	ja 3f\n"
	"	mov 0(%rbx), %rax\n"
	"	mov 8(%rbx), %rcx\n"
	"	mov 16(%rbx), %rdx\n"
	"	mov 32(%rbx), %rbp\n"
	"	mov 40(%rbx), %rsi\n"
	"	mov 48(%rbx), %rdi\n"
	"	mov 56(%rbx), %r8\n"
	"	mov 64(%rbx), %r9\n"
	"	mov 72(%rbx), %r10\n"
	"	mov 80(%rbx), %r11\n"
	"	lea 88(%rbx), %rsp\n"
	"	mov 24(%rbx), %rbx\n"
	"	iretq\n"
	"3:	ud2\n"
	"cell_stub_end:\n"
	".popsection\n");
extern const u8 cell_stub[], cell_stub_ride[], cell_stub_end[];

/*
 * Waits for the cell unless attention is set, with nothing between looking and waiting: a signal that comes before the system call has
 * begun finds RIP here, and cell_signal() moves it on.
 */
__asm__(".pushsection .text\n"
	"cell_wait:\n" /* rdi pid, rsi status, rdx options, rcx attention */
	"	xor %r10d, %r10d\n"
	"	mov $61, %eax\n" /* wait4 */
	"cell_wait_begin:\n"
	"	cmpl $0, (%rcx)\n"
	"	jne cell_wait_not\n"
	"	syscall\n"
	"cell_wait_end:\n"
	"	ret\n"
	"cell_wait_not:\n"
	"	mov $-4, %eax\n" /* -EINTR */
	"	cltq\n"
	"	ret\n"
	".popsection\n");
long cell_wait(long pid, int *status, long options, const u32 *attention);
extern const u8 cell_wait_begin[], cell_wait_end[], cell_wait_not[];

void cell_signal(u64 *rip)
{
	if (*rip >= (u64)cell_wait_begin && *rip < (u64)cell_wait_end)
		*rip = (u64)cell_wait_not;
}

static u64 list_of(const struct vcpu *cpu, const struct cell *c)
{
	u64 n = eng_vcpu_at((u64)cpu) % ENG_MAX_VCPUS * CELLS + (u64)(c - cpu->cells->cell);

	return STUB_BASE + PAGE_SIZE * (1 + LIST_PAGES * n);
}

bool cell_init(void)
{
	u64 size = STUB_END - STUB_BASE;
	long fd = sys_call(SYS_memfd_create, "doppel-cells", MFD_CLOEXEC), r = fd;

	if (r >= 0)
		r = sys_call(SYS_ftruncate, fd, size);
	if (r >= 0)
		r = sys_call(SYS_mmap, ENG_CELL_BASE, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
	if (r == (long)ENG_CELL_BASE) {
		memset((void *)ENG_CELL_BASE, 0xf4, PAGE_SIZE);
		memcpy((void *)(ENG_CELL_BASE + STUB_CODE), cell_stub, (size_t)(cell_stub_end - cell_stub));
		r = sys_call(SYS_mmap, STUB_BASE, PAGE_SIZE, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
	}
	if (r == (long)STUB_BASE)
		r = sys_call(SYS_mmap, STUB_BASE + PAGE_SIZE, size - PAGE_SIZE, PROT_READ, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, PAGE_SIZE);
	if (fd >= 0)
		sys_call(SYS_close, fd);
	return r == (long)(STUB_BASE + PAGE_SIZE);
}

/* ---- the child: raw system calls only, and of the engine's memory its stack only ---- */

struct birth {
	u64 first, last;        /* of the list */
	u64 secret;
	u32 nfds;
	int fd[VM_MAX_SLOTS];   /* those it keeps, ascending */
};

/* All fds but those of guest memory. */
static void close_fds(const struct birth *b)
{
	unsigned from = 0;

	for (u32 i = 0; i < b->nfds; i++) {
		if ((unsigned)b->fd[i] > from)
			sys_call(SYS_close_range, from, b->fd[i] - 1, 0);
		from = (unsigned)b->fd[i] + 1;
	}
	sys_call(SYS_close_range, from, ~0u, 0);
}

#define ARG_HI(n) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[n]) + 4)

static long take_filter(u64 secret)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 8),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_munmap, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sched_setaffinity, 0, 4),
		ARG_HI(3),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (u32)secret, 0, 2),
		ARG_HI(4),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (u32)(secret >> 32), 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = ARRAY_SIZE(f), .filter = f};

	return sys_call(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog, 0, 0);
}

static _Noreturn void child(const struct birth *b)
{
	u64 none = 0;
	long r = sys_call(SYS_ptrace, PTRACE_TRACEME, 0, 0, 0);

	sys_call(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	sys_call(SYS_prctl, PR_SET_NAME, "doppel-cell", 0, 0, 0);
	if (r == 0)
		r = sys_call(SYS_prctl, PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0);
	if (r == 0)
		r = sys_call(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, 8);
	close_fds(b);
	if (r == 0)
		r = take_filter(b->secret);
	if (r == 0)
		__asm__ volatile("mov %2, %%rbp\n\tjmp *%0" : : "r"(STUB_BASE + STUB_CODE), "b"(b->first), "r"(b->last) : "memory");
	sys_call(SYS_exit_group, 1);
	__builtin_unreachable();
}

/* ---- the tracer ---- */

static long trace(long request, const struct cell *c, u64 addr, u64 data)
{
	return sys_call(SYS_ptrace, request, c->pid, addr, data);
}

static int wait_for_stop(const struct cell *c)
{
	int status = 0;
	long r = 0;

	do
		r = sys_call(SYS_wait4, c->pid, &status, __WALL, NULL);
	while (r == -EINTR);
	return r == c->pid ? status : 0;
}

/* Until the stub's INT3; signals from outside are not for it. */
static bool wait_for_stub(struct cell *c)
{
	for (;;) {
		int status = wait_for_stop(c);

		if (!WIFSTOPPED(status))
			return false;
		if (WSTOPSIG(status) == SIGTRAP)
			return true;
		if (WSTOPSIG(status) == SIGSEGV || WSTOPSIG(status) == SIGILL || trace(PTRACE_CONT, c, 0, 0) < 0)
			return false;
	}
}

void cell_queue(struct cell *c, u64 nr, u64 a0, u64 a1, u64 a2, u64 a3, u64 a4, u64 a5)
{
	c->list->op[c->nops++] = (struct cell_op){.nr = nr, .arg = {a0, a1, a2, a3 | c->secret << 32, a4 | (c->secret >> 32) << 32, a5}};
}

/* User code could read it, and the number in it. */
static bool forget_list(struct cell *c, bool good)
{
	memset(c->list->op, 0, c->nops * sizeof(struct cell_op));
	c->nops = 0;
	return good;
}

bool process_flush(struct cell *c)
{
	u64 first = STUB_BASE + ((u64)c->list - ENG_CELL_BASE);
	struct host_regs r = {.rip = STUB_BASE + STUB_CODE, .rbx = first, .rbp = first + c->nops * sizeof(struct cell_op), .cs = USER_CS,
				     .ss = USER_SS, .eflags = FL_ONE | FL_IF, .orig_rax = ~0ull};
	bool good = trace(PTRACE_SETREGS, c, 0, (u64)&r) == 0 && trace(PTRACE_CONT, c, 0, 0) == 0 && wait_for_stub(c);

	return forget_list(c, good);
}

static void forget_rest(struct cell *c, u64 list)
{
	c->nops = 0;
	cell_queue(c, SYS_munmap, 0, STUB_BASE, 0, 0, 0, 0);
	if (list > STUB_BASE + PAGE_SIZE)
		cell_queue(c, SYS_munmap, STUB_BASE + PAGE_SIZE, list - STUB_BASE - PAGE_SIZE, 0, 0, 0, 0);
	cell_queue(c, SYS_munmap, list + LIST_PAGES * PAGE_SIZE, USER_END - list - LIST_PAGES * PAGE_SIZE, 0, 0, 0, 0);
}

/* Not copied: nearly all. A copy would cost time, and each page that is written while there are two. */
static void fork_little(const struct vm *vm)
{
	static const struct {
		u64 at, size;
	} areas[] = {{ENG_VM_BASE, ENG_VCPU_SMALL - ENG_VM_BASE}, {ENG_ICACHE_BASE, ENG_ICACHE_SIZE}, {ENG_TCACHE_BASE, ENG_TCACHE_SIZE}};

	for (unsigned i = 0; i < ARRAY_SIZE(areas); i++)
		sys_call(SYS_madvise, areas[i].at, areas[i].size, MADV_DONTFORK);
	for (u32 i = 0; i < vm->nvcpus; i++) {
		u64 at = eng_vcpu_base(i), behind = ENG_VCPU_STACK + ENG_VCPU_STACK_SIZE;

		sys_call(SYS_madvise, at, ENG_VCPU_STACK - PAGE_SIZE, MADV_DONTFORK);
		sys_call(SYS_madvise, at + behind, (i < ENG_VCPU_NTABLES ? ENG_VCPU_SPACE : ENG_VCPU_SIZE) - behind, MADV_DONTFORK);
	}
}

static void keep_fds(struct birth *b, const struct vm *vm)
{
	for (u32 i = 0; i < VM_MAX_SLOTS; i++) {
		u32 n = b->nfds;

		if (!vm->slots[i].used)
			continue;
		for (; n && b->fd[n - 1] > vm->slots[i].fd; n--)
			b->fd[n] = b->fd[n - 1];
		b->fd[n] = vm->slots[i].fd;
		b->nfds++;
	}
}

bool process_make(struct vcpu *cpu, struct cell *c)
{
	u64 list = list_of(cpu, c);
	struct birth b = {.first = list};
	long pid = 0;

	c->list = (struct cell_list *)(ENG_CELL_BASE + (list - STUB_BASE));
	if (sys_call(SYS_getrandom, &c->secret, sizeof(c->secret), 0) != sizeof(c->secret))
		return false;
	b.secret = c->secret;
	forget_rest(c, list);
	b.last = list + c->nops * sizeof(struct cell_op);
	keep_fds(&b, cpu->vm);
	fork_little(cpu->vm);
	pid = sys_call(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (pid == 0)
		child(&b);
	if (pid < 0)
		return false;
	c->pid = (int)pid;
	if (forget_list(c, wait_for_stub(c)) && trace(PTRACE_SETOPTIONS, c, 0, PTRACE_O_EXITKILL) == 0)
		return true;
	process_end(c);
	return false;
}

void process_end(struct cell *c)
{
	if (!c->pid)
		return;
	sys_call(SYS_tgkill, c->pid, c->pid, SIGKILL);
	while (WIFSTOPPED(wait_for_stop(c)))
		;
	c->pid = 0;
}

/* With the one system call that is queued on the way: that spares a stop. */
static bool set_ride(struct cell *c, const struct host_regs *r)
{
	const struct cell_op *op = &c->list->op[0];
	struct cell_ride *ride = &c->list->ride;
	struct host_regs on = *r;

	*ride = (struct cell_ride){r->rax, r->rcx, r->rdx, r->rbx, r->rbp, r->rsi, r->rdi, r->r8, r->r9, r->r10, r->r11,
				   r->rip, r->cs, r->eflags, r->rsp, r->ss};
	c->user = *r;
	c->riding = true;
	c->ridden = *op;
	on.rip = STUB_BASE + STUB_CODE + (u64)(cell_stub_ride - cell_stub);
	on.rbx = STUB_BASE + ((u64)ride - ENG_CELL_BASE);
	on.rax = op->nr;
	on.rdi = op->arg[0], on.rsi = op->arg[1], on.rdx = op->arg[2], on.r10 = op->arg[3], on.r8 = op->arg[4], on.r9 = op->arg[5];
	memset(c->list->op, 0, sizeof(*op));
	c->nops = 0;
	return trace(PTRACE_SETREGS, c, 0, (u64)&on) == 0;
}

bool process_set(struct cell *c, const struct host_regs *r)
{
	c->riding = false;
	if (c->nops == 1)
		return set_ride(c, r);
	return (!c->nops || process_flush(c)) && trace(PTRACE_SETREGS, c, 0, (u64)r) == 0;
}

static _Noreturn void lost(const struct cell *c)
{
	eng_panic("doppel-engine: process %d, which ran user code of the guest, is gone", c->pid);
}

enum ride process_get(struct cell *c, struct host_regs *r, int signal)
{
	bool riding = c->riding;

	if (trace(PTRACE_GETREGS, c, 0, (u64)r) < 0)
		lost(c);
	c->riding = false;
	if (!riding || r->rip < STUB_BASE || r->rip >= STUB_END || signal == SIGSYS || signal == SIGTRAP || signal == SIGSEGV)
		return RIDE_OVER; /* the last three: user code has jumped there */
	*r = c->user;
	if (signal == SIGILL)
		return RIDE_FAILED;
	c->list->op[0] = c->ridden;
	c->nops = 1;
	return RIDE_STOPPED;
}

void process_signal(const struct cell *c, siginfo_t *si)
{
	if (trace(PTRACE_GETSIGINFO, c, 0, (u64)si) < 0)
		lost(c);
}

int process_run(struct vcpu *cpu, struct cell *c)
{
	for (;;) {
		int status = 0;
		long r = 0;

		if (trace(PTRACE_CONT, c, 0, 0) < 0)
			lost(c);
		__atomic_store_n(&cpu->chan->in_cell, 1, __ATOMIC_SEQ_CST);
		r = cell_wait(c->pid, &status, __WALL, &cpu->chan->attention);
		if (r == -EINTR) {
			sys_call(SYS_tgkill, c->pid, c->pid, STOP_SIGNAL);
			status = wait_for_stop(c);
		}
		__atomic_store_n(&cpu->chan->in_cell, 0, __ATOMIC_SEQ_CST);
		if (!WIFSTOPPED(status))
			lost(c);
		switch (WSTOPSIG(status)) {
		case SIGSEGV:
		case SIGBUS:
		case SIGILL:
		case SIGFPE:
		case SIGTRAP:
		case SIGSYS:
			return status;
		}
		if (c->riding || __atomic_load_n(&cpu->chan->attention, __ATOMIC_SEQ_CST))
			return status;
		/* a signal from outside, or asked for when it had stopped for something else: not the guest's business */
	}
}

void cell_kick(struct vcpu *cpu)
{
	if (likely(!__atomic_load_n(&cpu->chan->in_cell, __ATOMIC_SEQ_CST)))
		return;
	long self = sys_call(SYS_getpid);

	sys_call(SYS_tgkill, self, cpu->tid, ENG_SIG_TIMER);
}

/* ---- vector state ---- */

void process_get_vector(struct cells *cs, struct cell *c)
{
	struct iovec v = {cs->xstate, sizeof(cs->xstate)};

	if (trace(PTRACE_GETREGSET, c, VECTORS, (u64)&v) < 0)
		lost(c);
	cs->xstate_size = (u32)v.iov_len;
	cs->xstate_of = c;
}

bool process_set_vector(struct cells *cs, struct cell *c)
{
	struct iovec v = {cs->xstate, cs->xstate_size};

	return trace(PTRACE_SETREGSET, c, VECTORS, (u64)&v) == 0;
}
