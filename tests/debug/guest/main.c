/* What a debugger finds in the guest: calls, variables, system calls, a second processor, timer interrupts, an INT3 of its own. */
typedef unsigned long u64;
typedef unsigned int u32;

extern char idt[], gdt_tss[], ap_start[], ap_start_end[], syscall_stack_end[], user_code[];
extern void timer_entry(void), breakpoint_entry(void), soft_entry(void), syscall_entry(void), own_int3(void);
extern void enter_user(void *rip, void *rsp), leave_user(void);

volatile u64 counter, watched, ticks, breakpoints, syscalls, soft_interrupts, ap_rounds, rounds, stop_now, limited;
volatile u32 neighbour[4];
static char user_stack[4096] __attribute__((aligned(16)));
static u64 tss[13];

static void out16(unsigned short port, unsigned short v)
{
	__asm__ volatile("outw %0, %1" ::"a"(v), "Nd"(port));
}

static volatile u32 *apic(u32 reg)
{
	return (volatile u32 *)(0xfee00000ul + reg);
}

static void gate(unsigned vector, void (*fn)(void), unsigned dpl)
{
	u64 a = (u64)fn, *g = (u64 *)(idt + 16 * vector);

	g[0] = (a & 0xffff) | 8 << 16 | (u64)(0x8e00 | dpl << 13) << 32 | (a >> 16 & 0xffff) << 48;
	g[1] = a >> 32;
}

static void wrmsr(u32 msr, u64 v)
{
	__asm__ volatile("wrmsr" ::"c"(msr), "a"((u32)v), "d"((u32)(v >> 32)));
}

void on_timer(void)
{
	ticks++;
	*apic(0xb0) = 0;
}

void on_breakpoint(void)
{
	breakpoints++;
}

void on_soft_interrupt(void)
{
	soft_interrupts++;
}

void do_syscall(void)
{
	u64 nr;

	__asm__ volatile("mov %%rax, %0" : "=r"(nr));
	syscalls++;
	if (syscalls % 2 == 0)
		leave_user();
}

__attribute__((noinline)) u64 factorial(u64 n)
{
	if (n <= 1)
		return 1;
	return n * factorial(n - 1);
}

__attribute__((noinline)) void bump(u64 by)
{
	counter += by;
}

__attribute__((noinline)) void touch_watched(u64 v)
{
	neighbour[0]++;
	watched = v;
	neighbour[1]++;
}

__attribute__((noinline)) u64 ap_work(u64 n)
{
	return n * 3 + 1;
}

void ap_main(void)
{
	for (u64 n = 1;; n++)
		ap_rounds += ap_work(n) & 1;
}

static void start_ap(void)
{
	for (u64 i = 0; i < (u64)(ap_start_end - ap_start); i++)
		((volatile char *)0x8000)[i] = ap_start[i];
	*apic(0x310) = 1u << 24;
	*apic(0x300) = 0x4500;
	*apic(0x310) = 1u << 24;
	*apic(0x300) = 0x4608;
}

static void init(void)
{
	u64 base = (u64)tss;

	tss[0] = 0;
	*(u64 *)((char *)tss + 4) = (u64)syscall_stack_end - 2048;
	((u64 *)gdt_tss)[0] = 0x67 | (base & 0xffffff) << 16 | 0x89ul << 40;
	((u64 *)gdt_tss)[1] = 0;
	__asm__ volatile("ltr %w0" ::"r"(0x28));
	gate(3, breakpoint_entry, 0);
	gate(0x40, timer_entry, 0);
	gate(0x80, soft_entry, 3);
	wrmsr(0xc0000081, 0x0010000800000000ul); /* STAR: kernel 08, user 10 + 8, 10 + 16 */
	wrmsr(0xc0000082, (u64)syscall_entry);
	wrmsr(0xc0000084, 0x200);
	*apic(0xf0) = 0x1ff;
	*apic(0x3e0) = 3;
	*apic(0x320) = 0x20040; /* periodic */
	*apic(0x380) = 1000000;
}

void guest_main(void)
{
	init();
	start_ap();
	__asm__ volatile("sti");
	while (!stop_now) {
		rounds++;
		counter += factorial(5) == 120;
		bump(2);
		touch_watched(rounds);
		if (limited) /* a KVM that emulates may not know what follows */
			continue;
		own_int3();
		enter_user(user_code, user_stack + sizeof(user_stack));
	}
	out16(0x604, 0x3400); /* power off */
	for (;;)
		__asm__ volatile("hlt");
}
