/* A processor over a flat buffer: linear = physical, [0, FAKE_SIZE) mapped, all else a page fault. */
#ifndef TESTS_CPU_FAKE_H
#define TESTS_CPU_FAKE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "engine/cpu/cpu_int.h"
#include "engine/vm.h"

#define FAKE_SIZE 0x100000u

#define GDT 0x1000u
#define IDT 0x2000u
#define TSS 0x4000u
#define TSS2 0x5000u
#define LDT 0x6000u
#define STACK0 0x20000u
#define STACK3 0x30000u

extern u8 fake_mem[FAKE_SIZE];
extern struct vm fake_vm;
extern u64 fake_hole; /* page that faults */
extern u64 fake_now, fake_used; /* clock and processor time, ns */
extern u64 fake_sent[4];        /* KVM_HC_SEND_IPI: low, high, span << 32 | min, ICR */
extern unsigned fake_kicks, fake_flushes;

struct vcpu *fake_cpu(void);
void put16(u32 a, u16 v);
void put32(u32 a, u32 v);
void put64(u32 a, u64 v);
u64 get(u32 a, unsigned size);
/* GDT entries. access: P DPL S type byte; flags: G DB L AVL nibble. */
void gdt_set(unsigned index, u32 base, u32 limit, u8 access, u8 flags);
void gate_set32(unsigned vector, u16 sel, u32 off, u8 access);
void gate_set64(unsigned vector, u16 sel, u64 off, u8 access, u8 ist);
/* Protected mode (or long mode) at this CPL with flat segments: selectors below. */
void enter_protected(struct vcpu *cpu, unsigned cpl);
void enter_long(struct vcpu *cpu, unsigned cpl);

/* GDT indices */
enum { G_KCODE = 1, G_KDATA, G_UCODE, G_UDATA, G_CODE64, G_UCODE64, G_TSS, G_TSS_HIGH, G_TSS2, G_GATE, G_GATE_HIGH, G_LDT, G_TASKGATE,
       G_CONF, G_CODE16, G_TSS16, G_COUNT };
#define SEL(i, rpl) ((u16)((i) * 8 + (rpl)))

/* Vector of the exception the statement raises, or -1. */
#define RAISED(cpu, stmt)                                                                                        \
	({                                                                                                       \
		volatile int vector_ = -1;                                                                       \
		(cpu)->exc.pending = false;                                                                      \
		if (__builtin_setjmp((cpu)->unwind) == 0) {                                                      \
			stmt;                                                                                    \
		} else {                                                                                         \
			vector_ = (cpu)->exc.vector;                                                             \
			(cpu)->exc.pending = false;                                                              \
		}                                                                                                \
		vector_;                                                                                         \
	})

#endif
