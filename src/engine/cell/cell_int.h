/* Inside the room of cells. */
#ifndef ENGINE_CELL_CELL_INT_H
#define ENGINE_CELL_CELL_INT_H

#include <signal.h>

#include "engine/cell/cell.h"
#include "engine/cpu/cpu.h"
#include "engine/lib/lib.h"
#include "engine/mmu/mmu.h"
#include "engine/vm.h"

#define CELLS        4    /* of a vCPU */
#define CELL_CHUNKS  2048 /* pieces of 2 MiB with pages in them */
#define CELL_BUCKETS 4096
#define CHUNK_PAGES  512
#define CELL_OPS     250  /* system calls that a list holds */
#define CELL_CPUS    1024
#define CELL_HOPES   16
#define CELL_XSTATE  16384

/* Selectors of user code, as each Linux has them. */
#define USER_CS 0x33
#define USER_SS 0x2b

/* Addresses that guests' user code can have, and where the cell itself lies among them: at 112 TiB, away from where kernels put things.
 * A cell cannot run an address space that has something there. */
#define USER_BEGIN   0x10000 /* hosts refuse to map what is lower: vm.mmap_min_addr, and security modules of their own */
#define USER_END     0x7ffffffff000ull
#define STUB_BASE    ENG_CELL_STUB
#define LIST_PAGES   4
#define STUB_END     (STUB_BASE + PAGE_SIZE * (1 + LIST_PAGES * CELLS * ENG_MAX_VCPUS))

/* What the stub does. */
struct cell_op {
	u64 nr, arg[6], unused;
};

struct cell_list {
	struct cell_op op[CELL_OPS];
	u64 cpus[CELL_CPUS / 64]; /* a mask for sched_setaffinity() */
	struct cell_ride {        /* what a system call on the way to user code has to restore; the last five as IRETQ takes them */
		u64 rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, rip, cs, eflags, rsp, ss;
	} ride;
};
_Static_assert(sizeof(struct cell_list) <= LIST_PAGES * PAGE_SIZE, "a list fits");

/* What is mapped: of each page its GPA | M_*; 0: nothing. */
#define M_R 1u
#define M_W 2u
#define M_X 4u
#define M_UNFIT 8u /* executable for the guest, but it has instructions that must not run as they are */

struct cell_chunk {
	u64 number; /* address / 2 MiB */
	u32 next;   /* in the bucket, + 1 */
	u64 page[CHUNK_PAGES];
};

struct cell_space {
	u16 bucket[CELL_BUCKETS]; /* index + 1 */
	u32 nchunks;
	struct cell_chunk chunk[CELL_CHUNKS];
};

/* As PTRACE_GETREGS has them (<sys/user.h> defines names of ours). */
struct host_regs {
	u64 r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, orig_rax, rip, cs, eflags, rsp, ss, fs_base, gs_base, ds,
	    es, fs, gs;
};

/* Process and list of system calls. */
struct cell {
	int pid;           /* 0: none */
	u64 cr3;           /* whose user half it has */
	u32 ctx;           /* of the TLB when the mappings were last known to be right; 0: never */
	bool unsure;       /* pages may have changed: each is to be looked at again */
	bool reset;        /* all is to be unmapped */
	gva_t wanted;      /* user code faulted there, and the guest's kernel was asked: 0 none */
	bool wanted_fetch;
	u64 tried;         /* RIP of the last page fault that was met here */
	u32 tries;         /* since RIP was another */
	bool riding;       /* user is where it goes on after system call ridden, which may not have been done yet */
	struct cell_op ridden;
	struct host_regs user;
	u64 secret;        /* process.c */
	bool hot;          /* the address space runs here, not in translated code */
	s64 balance;       /* ns won so far, and lost: policy.c */
	u64 not_before;    /* it is not tried again earlier */
	u64 penalty;       /* ns: the next such pause */
	u64 used;          /* when it last ran */
	u32 host_cpu;      /* where it is bound to, + 1 */
	u32 nops;
	u32 maps;          /* since the last reset */
	struct cell_space *space;
	struct cell_list *list; /* writable view */
};

/* Of a vCPU. */
struct cells {
	struct cell cell[CELLS];
	struct cell *now;  /* that of the current address space; NULL: none */
	bool failed;       /* no process can be made here */
	u32 xstate_size;
	u8 xstate[CELL_XSTATE] __attribute__((aligned(64))); /* as last given to, or taken from, a cell */
	struct cell *xstate_of;
	u32 host_cpu;      /* where the vCPU's thread is bound to, + 1; 0: nowhere. Any thread reads */
	u64 cpus[CELL_CPUS / 64]; /* where it may run */
	struct {           /* place.c */
		u64 begin, used;
		bool open;
	} watch;
	u64 stop_cost;     /* ns: a stop, registers, and going on */
	struct cell_hope { /* of translated code: policy.c */
		u64 cr3, busy;
	} hope[CELL_HOPES];
	struct {           /* since the last interrupt */
		u64 cr3, since, events;
	} judge;
};

/* ---- process.c ---- */
bool process_make(struct vcpu *cpu, struct cell *c);      /* c->pid, stopped, with nothing mapped; false: not possible */
void process_end(struct cell *c);
/* Does what is queued, and has the cell go on with these registers; false: something was refused. */
bool process_set(struct cell *c, const struct host_regs *r);
enum ride { RIDE_OVER, RIDE_STOPPED, RIDE_FAILED }; /* before user code was reached: the call is queued again; it was refused */
enum ride process_get(struct cell *c, struct host_regs *r, int signal);
/* User code until a stop: the status, as of wait4(); attention ends the wait. */
int process_run(struct vcpu *cpu, struct cell *c);
void process_signal(const struct cell *c, siginfo_t *si); /* what has stopped it */
bool process_flush(struct cell *c);                       /* has the stub do the list; regs are lost */
void process_get_vector(struct cells *cs, struct cell *c);
bool process_set_vector(struct cells *cs, struct cell *c);
void cell_queue(struct cell *c, u64 nr, u64 a0, u64 a1, u64 a2, u64 a3, u64 a4, u64 a5);

/* ---- space.c: what is mapped ---- */
u64 *space_find(struct cell *c, gva_t a);                 /* the page's entry; NULL: none */
/* Queues that page a is in the cell as the guest's tables have it, with more rights than before; false: it was already, or cannot be. */
bool space_fault(struct vcpu *cpu, struct cell *c, gva_t a, bool fetch);
/* The guest has something there that a cell cannot have: a device, or a window onto a file. */
bool space_beyond(const struct vcpu *cpu, gva_t a);
/* Queues what changes of the TLB left to do, and what the guest's kernel was asked for. */
void space_settle(struct vcpu *cpu, struct cell *c);
void space_reset(struct cell *c);  /* queues that all is unmapped */
void space_unmap(struct cell *c, gva_t a);
void space_drop_writes(struct cell *c, gpa_t gpa);

/* ---- place.c: on which of the host's processors ---- */
/* The cell runs where the vCPU's thread does, which stays there: what wakes the other then needs no other processor. */
void place_together(struct vcpu *cpu, struct cell *c);

/* ---- scan.c ---- */
/* Whether the page has instructions that answer otherwise than the guest's CPU would: before, after are its neighbours' bytes, or NULL. */
bool scan_fit(const u8 *page, const u8 *before, const u8 *after);

/* ---- policy.c ---- */
enum cell_stop { STOP_KERNEL, STOP_MAP }; /* the guest's kernel is to run; a page was mapped */
void policy_note(struct vcpu *cpu, struct cell *c, u64 in, enum cell_stop why); /* in: ns of user code */
void policy_warm(struct vcpu *cpu); /* the current address space gets a cell, if it can */
void policy_end(struct vcpu *cpu, struct cell *c);  /* its process is of no use any more */
void policy_cold(struct vcpu *cpu, struct cell *c);

static inline u64 cell_key(const struct vcpu *cpu)
{
	return cpu->cr3 & ~BIT64(63);
}

#endif
