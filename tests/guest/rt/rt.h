/*
 * What the bare-metal test guests stand on. A guest starts in 64-bit mode, CPL 0, with the low 4 GiB mapped one to one by 2 MiB pages
 * and calls guest_main(). It prints its answers through port 0xE9 and ends through port 0xF4; the runner compares the answers of two
 * KVMs, and each check also knows what the manual says.
 */
#ifndef RT_H
#define RT_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

static inline void outb(u16 p, u8 v) { __asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(p)); }
static inline void outl(u16 p, u32 v) { __asm__ volatile("outl %0, %1" ::"a"(v), "Nd"(p)); }
static inline u8 inb(u16 p)
{
	u8 v;

	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(p));
	return v;
}
static inline u64 rdmsr(u32 i)
{
	u32 lo, hi;

	__asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(i));
	return (u64)hi << 32 | lo;
}
static inline void wrmsr(u32 i, u64 v) { __asm__ volatile("wrmsr" ::"c"(i), "a"((u32)v), "d"((u32)(v >> 32)) : "memory"); }
#define READ_CR(n)     ({ u64 v_; __asm__ volatile("mov %%cr" #n ", %0" : "=r"(v_)); v_; })
#define WRITE_CR(n, v) __asm__ volatile("mov %0, %%cr" #n ::"r"((u64)(v)) : "memory")
static inline u64 rdtsc(void)
{
	u32 lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return (u64)hi << 32 | lo;
}
struct cpuid_regs { u32 a, b, c, d; };
static inline struct cpuid_regs cpuid(u32 leaf, u32 sub)
{
	struct cpuid_regs r;

	__asm__ volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(sub));
	return r;
}

void put(const char *s);
void put_hex(u64 v);
_Noreturn void guest_exit(u8 status);
/* One answer: the transcript gets "name value"; a wrong one also "FAIL". */
void check(const char *name, u64 got, u64 want);
void note(const char *name, u64 value); /* compared between KVMs only */

/*
 * Runs code that may fault. TRAP(asm) gives the vector (or 0xff: none); then trap.error, trap.cr2, trap.rip say more. rip is relative to the
 * faulting code's start. The code may clobber rax rcx rdx.
 */
struct trap {
	u64 vector, error, cr2, rip, rflags, cs, ss, rsp, count;
	u64 recover; /* where the handler goes: rip; 0: the trap is unexpected */
};
extern volatile struct trap trap;
#define TRAP(code, ...)                                                                                          \
	({                                                                                                       \
		trap.vector = 0xff, trap.error = 0xdead, trap.count = 0;                                         \
		__asm__ volatile("lea 9f(%%rip), %%rbx\n\tmov %%rbx, %0\n\tmov %%rsp, %1\n\t"                    \
				 "8:\n\t" code "\n\t9:\n\t"                                                      \
				 : "=m"(trap.recover), "=m"(rt_saved_rsp)                                        \
				 : __VA_ARGS__                                                                   \
				 : "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r11", "memory", "cc");             \
		trap.recover = 0;                                                                                \
		trap.vector;                                                                                     \
	})
extern u64 rt_saved_rsp;
extern u64 rt_arg; /* an operand for TRAP code: mov rt_arg(%rip), ... */

/* Handlers may be replaced: fn gets the frame and decides; return true to go on at frame->rip. */
struct frame {
	u64 r[15]; /* r15..rax */
	u64 vector, error, rip, cs, rflags, rsp, ss;
};
typedef int handler_fn(struct frame *f);
extern handler_fn *handlers[256];
struct idt_entry {
	u16 off0, sel;
	u8 ist, type;
	u16 off1;
	u32 off2, zero;
};
extern struct idt_entry idt[256];
struct tss64 {
	u32 pad0;
	u64 rsp[3], pad1, ist[7], pad2;
	u16 pad3, iomap;
	u8 bitmap[8193];
} __attribute__((packed));
extern struct tss64 tss;
extern u64 gdt[32];
enum { SEL_CODE = 8, SEL_DATA = 16, SEL_UCODE32 = 24 + 3, SEL_UDATA = 32 + 3, SEL_UCODE = 40 + 3, SEL_TSS = 48, SEL_FREE = 64 };

/* The guest leaves something out because CPUID does not offer it: transcripts are then compared by names both have. */
static inline void lacks(const char *what)
{
	put("lacks ");
	put(what);
	put("\n");
}

/*
 * USER(name, asm) defines code for CPL 3; user(name) runs it: the vector it trapped with, or 0xff, and its rax is in rt_ret. It must keep
 * rbx, rbp and r12 to r15, and may begin with flags other than 2 through user_flags().
 */
#define USER(name, code)                                                                                         \
	extern void name(void);                                                                                  \
	__asm__(".text\n" #name ":\n" code "\nint $0x81\n")
extern u64 rt_ret, rt_user_flags;
#define user(fn)                                                                                                 \
	(rt_arg = (u64)(fn), TRAP("mov rt_arg(%%rip), %%rdi; xor %%esi, %%esi; call run_user; mov %%rax, rt_ret(%%rip)", \
				  "i"(0)))

/* Runs fn(arg) at CPL 3; it returns by rt_user_return(v) or by a trap that TRAP() around it records. */
u64 run_user(void (*fn)(u64), u64 arg);
void rt_user_return(u64 v);

/* Page tables: pml4 of the guest; pte(address) splits the 2 MiB page around it if need be. */
u64 *pte_of(u64 address);
static inline void invlpg(u64 a) { __asm__ volatile("invlpg (%0)" ::"r"(a) : "memory"); }
extern u64 rt_pml4[512];
#define PAGE_OF_TESTS 0x800000ul /* 2 MiB of memory for tests */

/* The local APIC, as MMIO. */
#define APIC 0xfee00000ul
static inline u32 apic_read(u32 reg) { return *(volatile u32 *)(APIC + reg); }
static inline void apic_write(u32 reg, u32 v) { *(volatile u32 *)(APIC + reg) = v; }
enum { APIC_ID = 0x20, APIC_TPR = 0x80, APIC_PPR = 0xa0, APIC_EOI = 0xb0, APIC_SVR = 0xf0, APIC_ISR = 0x100, APIC_IRR = 0x200,
       APIC_ESR = 0x280, APIC_ICR = 0x300, APIC_ICR2 = 0x310, APIC_LVTT = 0x320, APIC_LVT0 = 0x350, APIC_LVT1 = 0x360,
       APIC_TMICT = 0x380, APIC_TMCCT = 0x390, APIC_TDCR = 0x3e0 };
#define sti_nop() __asm__ volatile("sti; nop; nop" ::: "memory")
#define cli()     __asm__ volatile("cli" ::: "memory")
#define pause()   __asm__ volatile("pause" ::: "memory")

/* Starts all other processors; each runs ap_main(its number from 1). Returns how many run. */
u32 start_aps(void (*ap_main)(u64 index));

void guest_main(void);

#endif
