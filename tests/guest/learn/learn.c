/* Descriptors, the IDT, and a line of text. */
#include "learn.h"

extern char learn_entries[], tss[];
extern u64 gdt_tss[2];
void learn_setup(void);
void learn_trap(struct frame *f);
void learn_back(void) __attribute__((noreturn));

static u64 idt[64][2];
static struct {
	u16 limit;
	u64 base;
} __attribute__((packed)) idt_pointer;

void say(const char *text)
{
	while (*text)
		out8(0x3f8, (u8)*text++);
}

void say_hex(const char *text, u64 v)
{
	char digits[20];
	int n = 19;

	digits[n] = 0;
	do {
		digits[--n] = "0123456789abcdef"[v & 15];
		v >>= 4;
	} while (v);
	say(text);
	say(" 0x");
	say(digits + n);
	say("\n");
}

void learn_setup(void)
{
	u64 t = (u64)tss;

	gdt_tss[0] = 0x0000890000000067 | (t & 0xffffff) << 16 | (t >> 24 & 0xff) << 56;
	gdt_tss[1] = t >> 32;
	*(u16 *)(tss + 102) = 104; /* no I/O bitmap: ring 3 has no ports */
	for (u64 i = 0; i < 64; i++) {
		u64 at = (u64)learn_entries + 16 * i, dpl = i == 3 || i >= 0x30 ? 3 : 0;

		idt[i][0] = (at & 0xffff) | 0x08 << 16 | (0x8e00 | dpl << 13) << 32 | (at >> 16 & 0xffff) << 48;
		idt[i][1] = at >> 32;
	}
	idt_pointer.limit = sizeof(idt) - 1;
	idt_pointer.base = (u64)idt;
	__asm__ volatile("lidt %0" : : "m"(idt_pointer));
	__asm__ volatile("ltr %w0" : : "r"(0x28));
}

void learn_trap(struct frame *f)
{
	if (f->vector == 0x30 && (f->cs & 3) == 3)
		learn_back();
	learn_on_trap(f);
}
