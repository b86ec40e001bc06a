/* The worked examples of docs/learn: what they share. Each is one learn_main() in 64-bit mode, ring 0, interrupts off. */
#ifndef LEARN_H
#define LEARN_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

/* What an entry of the IDT pushes. */
struct frame {
	u64 rbp, rbx, r11, r10, r9, r8, rdi, rsi, rdx, rcx, rax;
	u64 vector, error, rip, cs, rflags, rsp, ss;
};

extern u64 pml4[512], pdpt[512], pd[512], pt[1024], gdt[];

void learn_main(void);
void learn_on_trap(struct frame *f); /* the example's own; vector 0x30 from ring 3 ends learn_user() before it is asked */
void learn_user(void (*f)(void));    /* until it does int $0x30 */

void say(const char *text);
void say_hex(const char *text, u64 v);

#define READ_CR(n) ({ u64 v_; __asm__ volatile("mov %%cr" #n ", %0" : "=r"(v_)); v_; })
static inline u64 flags(void)
{
	u64 v;

	__asm__ volatile("pushfq; pop %0" : "=r"(v));
	return v;
}
static inline void out8(u16 port, u8 v)
{
	__asm__ volatile("out %0, %1" : : "a"(v), "Nd"(port));
}
static inline void mmio_write(u64 a, u32 v)
{
	*(volatile u32 *)a = v;
}
static inline u32 mmio_read(u64 a)
{
	return *(volatile u32 *)a;
}

#endif
