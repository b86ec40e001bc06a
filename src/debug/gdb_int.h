/* Inside the gdb server: the session, and what its files share. */
#ifndef DEBUG_GDB_INT_H
#define DEBUG_GDB_INT_H

#include "debug/gdb.h"
#include "debug/inspect.h"

#define GDB_PACKET_MAX 0x4000
#define GDB_OUTPUT_MAX (1u << 20) /* a debugger that does not read is hung up on */
#define GDB_BREAKS_MAX 1024
#define GDB_HW_MAX     4

enum gdb_z { Z_SOFT, Z_HARD, Z_WRITE, Z_READ, Z_ACCESS };

/* A software breakpoint: INT3 in place of the byte that was there. By physical address: the linear one may mean something else in
 * another address space. */
struct gdb_break {
	u64 linear;
	gpa_t gpa;
	u8 old;
};
/* A debug register; several may serve one watchpoint. */
struct gdb_hw {
	bool used;
	enum gdb_z type;
	u64 addr, len;      /* as gdb asked for */
	u64 at;
	u8 bytes;           /* 1 2 4 8 */
};
enum gdb_action { ACT_STAY, ACT_RUN, ACT_STEP, ACT_RANGE };

struct gdb {
	struct gdb_target t;
	bool connected, running, no_ack, close_wanted, swbreak, hwbreak, physical, ended;
	bool told; /* a stop, since the packet came: it is the answer */
	enum { DESC_X86_64, DESC_I386, DESC_I8086, DESC_COUNT } description;

	enum { IN_IDLE, IN_DATA, IN_ESCAPE, IN_SUM1, IN_SUM2 } state;
	u8 in[GDB_PACKET_MAX + 1];
	size_t nin;
	u8 sum, sent_sum;
	bool too_long;

	char *out;
	size_t nout, out_cap, last_len; /* the last packet is at the output's end until it is acknowledged */
	char last[2 * GDB_PACKET_MAX + 8];

	char reply[2 * GDB_PACKET_MAX];
	size_t nreply;

	u32 cpu;                /* Hg, and the thread of the last stop */
	u32 run_cpu;            /* Hc; GDB_CPUS_MAX: all */
	u32 list_at;            /* qsThreadInfo */
	char stop[160];         /* last stop reply: what ? answers */

	struct cpu_state known; /* of the stopped vCPU known_cpu; GDB_CPUS_MAX: none */
	u32 known_cpu;

	struct gdb_break brk[GDB_BREAKS_MAX];
	u32 nbrk;
	struct gdb_hw hw[GDB_HW_MAX];
	struct {
		enum gdb_action action;
		u64 from, to;           /* ACT_RANGE */
		struct gdb_exit exit;   /* not told yet */
		u32 inject;             /* KVM_GUESTDBG_INJECT_*, once */
		struct kvm_guest_debug set; /* what the KVM was told */
	} c[GDB_CPUS_MAX];
};

/* ---- gdb_packet.c ---- */
void reply_reset(struct gdb *g);
void reply_text(struct gdb *g, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void reply_hex(struct gdb *g, const void *p, size_t n);
void reply_binary(struct gdb *g, const void *p, size_t n); /* escaped */
void reply_send(struct gdb *g);
void reply_console(struct gdb *g, const char *text, size_t n); /* O packets, outside of the reply */

/* A packet being read: [p, end). */
struct scan {
	const char *p, *end;
};
bool scan_char(struct scan *s, char c);
bool scan_word(struct scan *s, const char *word); /* if it stands there */
bool scan_hex(struct scan *s, u64 *v);            /* at least one digit, at most 64 bits */
bool scan_bytes(struct scan *s, u8 *buf, size_t n); /* 2n hex digits */
bool scan_thread(struct scan *s, s64 *id);        /* [pPID.]TID; -1 all, 0 any */

/* ---- gdb_command.c ---- */
void gdb_packet(struct gdb *g, const char *p, size_t n);
/* Registers of a stopped vCPU, which are read once for each stop. */
int gdb_get(struct gdb *g, u32 cpu, struct cpu_state *c);
int gdb_put(struct gdb *g, u32 cpu, const struct cpu_state *c, u32 parts);
int gdb_cpu_of(const struct gdb *g, s64 id); /* -1: none */

/* ---- gdb_query.c ---- */
void gdb_query(struct gdb *g, struct scan *s);
void gdb_set(struct gdb *g, struct scan *s);

/* ---- gdb_regs.c ---- */
void gdb_read_all(struct gdb *g);
void gdb_write_all(struct gdb *g, struct scan *s);
void gdb_read_one(struct gdb *g, struct scan *s);
void gdb_write_one(struct gdb *g, struct scan *s);
/* The target description in XML: malloc'd. */
char *gdb_description(const struct gdb *g, size_t *n);

/* ---- gdb_memory.c ---- */
u64 gdb_mem_read(struct gdb *g, u64 addr, u8 *buf, u64 n);
u64 gdb_mem_write(struct gdb *g, u64 addr, const u8 *buf, u64 n);

/* ---- gdb_break.c ---- */
int break_insert(struct gdb *g, enum gdb_z type, u64 addr, u64 kind);
int break_remove(struct gdb *g, enum gdb_z type, u64 addr, u64 kind);
void break_remove_all(struct gdb *g);
void break_forget_soft(struct gdb *g); /* memory is new */
bool break_at(struct gdb *g, u32 cpu, u64 pc);
/* Debug registers for KVM_SET_GUEST_DEBUG; false: none in use. */
bool break_registers(const struct gdb *g, u64 dr[8]);

/* ---- gdb_run.c ---- */
void gdb_resume(struct gdb *g);             /* as c[].action says */
void gdb_interrupt(struct gdb *g);
void gdb_vcont(struct gdb *g, struct scan *s);
void gdb_step_or_continue(struct gdb *g, struct scan *s, bool step, bool with_signal);
void gdb_report(struct gdb *g, u32 cpu, unsigned sig, const char *why);

/* ---- gdb_monitor.c ---- */
void gdb_monitor(struct gdb *g, struct scan *s);

#endif
