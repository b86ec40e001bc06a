/*
 * The built-in guest: shows on COM1 the machine as a kernel finds it (memory map, CPU, timer), tests a few things and powers off.
 */
#include <stdarg.h>
#include "guest/builtin.h"

enum { COM1 = 0x3f8, PIC1 = 0x20, PIC2 = 0xa0, PIT = 0x40, DEBUG_EXIT = 0xf4 };
enum { IRQ_BASE = 32, TIMER_TICKS = 10, TIMER_HZ = 100, PIT_HZ = 1193182, SPIN_LIMIT = 100000 };
enum { MULTIBOOT_EAX = 0x2badb002, INFO_CMDLINE = 1 << 2, INFO_MMAP = 1 << 6 };

struct multiboot_info {
	u32 flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4], mmap_length, mmap_addr;
};
struct mmap_entry {
	u32 size;
	u64 addr, len;
	u32 type;
} __attribute__((packed));

extern const u8 stubs[];
static volatile u32 ticks;
static struct {
	u16 low, selector, type, high;
} idt[IRQ_BASE + 1];

/* ---- serial line ---- */
static void put(char c)
{
	if (c == '\n')
		put('\r');
	for (u32 i = 0; i < SPIN_LIMIT && !(inb(COM1 + 5) & 0x20); i++)
		;
	outb(COM1, (u8)c);
}

static void serial_init(void)
{
	outb(COM1 + 1, 0);    /* no interrupts */
	outb(COM1 + 3, 0x80); /* divisor: 115200 baud */
	outb(COM1, 1);
	outb(COM1 + 1, 0);
	outb(COM1 + 3, 3); /* 8n1 */
	outb(COM1 + 2, 7); /* FIFO on and cleared */
	outb(COM1 + 4, 3);
}

static void put_hex(u32 v, u32 digits)
{
	while (digits--)
		put("0123456789abcdef"[v >> 4 * digits & 15]);
}

static void put_dec(u32 v)
{
	char buf[10];
	u32 n = 0;

	do
		buf[n++] = (char)('0' + v % 10);
	while (v /= 10);
	while (n)
		put(buf[--n]);
}

void print(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	for (; *fmt; fmt++) {
		u64 v = 0;

		if (*fmt != '%') {
			put(*fmt);
			continue;
		}
		switch (*++fmt) {
		case 's':
			for (const char *s = va_arg(ap, const char *); *s; s++)
				put(*s);
			break;
		case 'u':
			put_dec(va_arg(ap, u32));
			break;
		case 'x':
			put_hex(va_arg(ap, u32), 8);
			break;
		case 'p':
			v = va_arg(ap, u64);
			put_hex((u32)(v >> 32), 8);
			put_hex((u32)v, 8);
			break;
		default:
			put(*fmt);
		}
	}
	va_end(ap);
}

/* ---- end ---- */
static void __attribute__((noreturn)) power_off(u32 failed)
{
	asm volatile("cli");
	if (failed)
		outb(DEBUG_EXIT, (u8)failed); /* ends with an error, where --debug-exit 0xf4 was given */
	acpi_power_off();
	print("no ACPI power-off; halted\n");
	for (;;)
		asm volatile("hlt");
}

/* ---- interrupts ---- */
void interrupt(u32 vector, u32 error, u32 eip);
void interrupt(u32 vector, u32 error, u32 eip)
{
	if (vector == IRQ_BASE) {
		ticks++;
		outb(PIC1, 0x20);
		return;
	}
	print("exception %u, error code 0x%x, at 0x%x\n", vector, error, eip);
	power_off(1);
}

static void interrupts_init(void)
{
	static const u8 words[][3] = {/* ICW1 to ICW4 of both controllers, then their masks: the timer only */
				      {PIC1, 0x11, 0}, {PIC2, 0x11, 0}, {PIC1 + 1, IRQ_BASE, 0}, {PIC2 + 1, IRQ_BASE + 8, 0},
				      {PIC1 + 1, 4, 0}, {PIC2 + 1, 2, 0}, {PIC1 + 1, 1, 0}, {PIC2 + 1, 1, 0},
				      {PIC1 + 1, 0xfe, 0}, {PIC2 + 1, 0xff, 0}};
	struct {
		u16 limit;
		u32 base;
	} __attribute__((packed)) idtr = {sizeof(idt) - 1, (u32)idt};

	for (u32 i = 0; i <= IRQ_BASE; i++) {
		u32 at = (u32)stubs + 16 * i;

		idt[i].low = (u16)at;
		idt[i].high = (u16)(at >> 16);
		idt[i].selector = 8;
		idt[i].type = 0x8e00; /* 32-bit interrupt gate, present */
	}
	asm volatile("lidt %0" : : "m"(idtr));
	for (u32 i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		outb(words[i][0], words[i][1]);
}

static void wait_ticks(u32 n)
{
	while (ticks < n)
		asm volatile("sti; hlt; cli" : : : "memory");
}

static void timer(void)
{
	u32 divisor = PIT_HZ / TIMER_HZ, khz = 0;
	u64 start = 0, cycles = 0;

	outb(PIT + 3, 0x34); /* channel 0, rate generator */
	outb(PIT, (u8)divisor);
	outb(PIT, (u8)(divisor >> 8));
	wait_ticks(1);
	start = rdtsc();
	wait_ticks(1 + TIMER_TICKS);
	cycles = rdtsc() - start;
	outb(PIC1 + 1, 0xff);
	khz = div64(cycles, TIMER_TICKS * 1000 / TIMER_HZ);
	print("timer    %u ticks at %u Hz; TSC %u.%u%u%u MHz\n", (u32)TIMER_TICKS, (u32)TIMER_HZ, khz / 1000, khz / 100 % 10,
	      khz / 10 % 10, khz % 10);
}

/* ---- what there is ---- */
static void memory(const struct multiboot_info *info)
{
	u32 at = 0, kib = 0;

	if (!(info->flags & INFO_MMAP)) {
		print("memory   %u KiB low, %u KiB high\n", info->mem_lower, info->mem_upper);
		return;
	}
	while (at + sizeof(struct mmap_entry) <= info->mmap_length) {
		const struct mmap_entry *m = (const struct mmap_entry *)(info->mmap_addr + at);

		print("%s %p - %p  %s\n", at ? "        " : "memory  ", m->addr, m->addr + m->len - 1,
		      m->type == 1 ? "RAM" : "reserved");
		if (m->type == 1)
			kib += (u32)(m->len >> 10);
		at += m->size + 4;
	}
	print("         %u KiB of RAM\n", kib);
}

static void feature_names(u32 bits, const char *const *names)
{
	for (u32 i = 0; i < 32; i++)
		if ((bits & 1u << i) && names[i])
			print(" %s", names[i]);
}

static void cpu(void)
{
	static const char *const d1[32] = {[0] = "fpu", [4] = "tsc", [5] = "msr", [6] = "pae", [8] = "cx8", [9] = "apic",
					   [15] = "cmov", [23] = "mmx", [25] = "sse", [26] = "sse2"};
	static const char *const c1[32] = {[0] = "sse3", [1] = "pclmulqdq", [9] = "ssse3", [12] = "fma", [13] = "cx16",
					   [17] = "pcid", [19] = "sse4.1", [20] = "sse4.2", [21] = "x2apic", [22] = "movbe",
					   [23] = "popcnt", [24] = "tsc-deadline", [25] = "aes", [26] = "xsave", [28] = "avx",
					   [29] = "f16c", [30] = "rdrand", [31] = "hypervisor"};
	static const char *const b7[32] = {[0] = "fsgsbase", [3] = "bmi1", [5] = "avx2", [7] = "smep", [8] = "bmi2",
					   [9] = "erms", [10] = "invpcid", [18] = "rdseed", [19] = "adx", [20] = "smap",
					   [29] = "sha"};
	static const char *const d81[32] = {[11] = "syscall", [20] = "nx", [26] = "1g-pages", [27] = "rdtscp", [29] = "long-mode"};
	struct regs r = cpuid(0);
	u32 top = r.a, family = 0, brand[13] = {0};
	char *b = (char *)brand;

	if (cpuid(0x80000000).a >= 0x80000004) {
		for (u32 i = 0; i < 3; i++) {
			r = cpuid(0x80000002 + i);
			brand[4 * i] = r.a;
			brand[4 * i + 1] = r.b;
			brand[4 * i + 2] = r.c;
			brand[4 * i + 3] = r.d;
		}
	}
	while (*b == ' ')
		b++;
	r = cpuid(1);
	family = (r.a >> 8 & 15) == 15 ? 15 + (r.a >> 20 & 255) : r.a >> 8 & 15;
	print("CPU      %s\n         family %u model %u stepping %u, CPUID to leaf %u\nfeatures", b, family,
	      (r.a >> 4 & 15) | (r.a >> 12 & 0xf0), r.a & 15, top);
	feature_names(r.d, d1);
	feature_names(r.c, c1);
	if (top >= 7)
		feature_names(cpuid(7).b, b7);
	feature_names(cpuid(0x80000001).d, d81);
	print("\n");
}

void builtin_main(u32 magic, const struct multiboot_info *info);
void builtin_main(u32 magic, const struct multiboot_info *info)
{
	u32 failed = 0;

	serial_init();
	print("doppel built-in guest: 32-bit protected mode, loaded as multiboot\n");
	if (magic != MULTIBOOT_EAX) {
		print("not started by a multiboot loader (EAX 0x%x)\n", magic);
		power_off(1);
	}
	if (info->flags & INFO_CMDLINE && *(const char *)info->cmdline)
		print("cmdline  %s\n", (const char *)info->cmdline);
	memory(info);
	cpu();
	interrupts_init();
	timer();
	failed = self_test();
	print("powering off\n");
	power_off(failed);
}
