/* The built-in guest: a bare-metal multiboot program in 32-bit protected mode, for when there is no Linux kernel to boot. */
#ifndef GUEST_BUILTIN_H
#define GUEST_BUILTIN_H

#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

static inline void outb(u16 port, u8 v)
{
	asm volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}

static inline void outw(u16 port, u16 v)
{
	asm volatile("outw %0, %1" : : "a"(v), "Nd"(port));
}

static inline u8 inb(u16 port)
{
	u8 v;

	asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

struct regs {
	u32 a, b, c, d;
};

static inline struct regs cpuid(u32 leaf)
{
	struct regs r;

	asm volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(0));
	return r;
}

static inline u64 rdtsc(void)
{
	u32 lo, hi;

	asm volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return (u64)hi << 32 | lo;
}

/* 64 by 32 bits without libgcc; the quotient must fit in 32 bits */
static inline u32 div64(u64 n, u32 d)
{
	u32 q, r;

	asm("divl %4" : "=a"(q), "=d"(r) : "0"((u32)n), "1"((u32)(n >> 32)), "rm"(d) : "cc");
	return q;
}

/* builtin.c */
void print(const char *fmt, ...); /* %s %u %x (u32), %p (u64, 16 digits), %% */

/* builtin_test.c: prints one line, returns how many checks failed */
u32 self_test(void);

/* builtin_acpi.c: returns only if the machine has no ACPI power-off */
void acpi_power_off(void);

#endif
