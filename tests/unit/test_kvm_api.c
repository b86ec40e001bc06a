/*
 * The KVM API as a client sees it: exits, memory slots, events, state, errors, deaths. All of it against the engine; what does not
 * depend on the engine also against /dev/kvm, if the machine has one that can run the probe.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/base.h"
#include "base/wake.h"
#include "kvm/chan.h"
#include "kvm_vm.h"

#define HIGH     0x100000 /* first byte after RAM: DS = 0xffff, offset 0x10 */
#define RUN(v)   kvm_ioctl((v)->vcpu, KVM_RUN, 0)

#define START(v, ...)                                                                                            \
	do {                                                                                                     \
		static const u8 code_[] = {__VA_ARGS__};                                                         \
		start_with(v, code_, sizeof(code_), false);                                                      \
	} while (0)

static void set_handler(struct vm *v, u8 vector, u16 ip)
{
	const u16 entry[2] = {ip, 0};

	memcpy(v->ram + vector * 4, entry, 4);
}

static void assert_io(struct vm *v, u16 port, bool in)
{
	assert_int_equal(RUN(v), 0);
	assert_int_equal(v->run->exit_reason, KVM_EXIT_IO);
	assert_int_equal(v->run->io.port, port);
	assert_int_equal(v->run->io.direction, in ? KVM_EXIT_IO_IN : KVM_EXIT_IO_OUT);
}

static void assert_hlt(struct vm *v)
{
	assert_int_equal(RUN(v), 0);
	assert_int_equal(v->run->exit_reason, KVM_EXIT_HLT);
}

static u8 *io_data(struct vm *v)
{
	return (u8 *)v->run + v->run->io.data_offset;
}

/* ---- exits ---- */

static void string_io(void **state)
{
	u8 out[16], n = 0;
	struct vm v;

	(void)state;
	/* cld; mov dx,0x10; mov cx,5; mov si,0x2000; rep outsb; mov cx,4; mov di,0x3000; rep insw; hlt */
	START(&v, 0xfc, 0xba, 0x10, 0, 0xb9, 5, 0, 0xbe, 0, 0x20, 0xf3, 0x6e, 0xb9, 4, 0, 0xbf, 0, 0x30, 0xf3, 0x6d, 0xf4);
	memcpy(v.ram + 0x2000, "hello", 5);
	while (n < 5) {
		assert_io(&v, 0x10, false);
		assert_int_equal(v.run->io.size, 1);
		assert_true(v.run->io.count >= 1 && n + v.run->io.count <= 5);
		memcpy(out + n, io_data(&v), v.run->io.count);
		n += v.run->io.count;
	}
	assert_memory_equal(out, "hello", 5);
	for (n = 0; n < 4;) {
		assert_io(&v, 0x10, true);
		assert_int_equal(v.run->io.size, 2);
		assert_true(v.run->io.count >= 1 && n + v.run->io.count <= 4);
		for (u32 i = 0; i < v.run->io.count; i++, n++)
			((u16 *)(void *)io_data(&v))[i] = 0x4100 + n;
	}
	assert_hlt(&v);
	for (u16 i = 0; i < 4; i++)
		assert_int_equal(((u16 *)(void *)(v.ram + 0x3000))[i], 0x4100 + i);
	stop(&v);
}

/* Answers MMIO from and to mem until another exit. Returns the bytes moved. */
static u32 serve_mmio(struct vm *v, u8 *mem, u32 size)
{
	u32 moved = 0;

	for (;;) {
		assert_int_equal(RUN(v), 0);
		if (v->run->exit_reason != KVM_EXIT_MMIO)
			return moved;
		assert_true(v->run->mmio.phys_addr >= HIGH && v->run->mmio.len <= 8);
		if (v->run->mmio.phys_addr - HIGH + v->run->mmio.len > size)
			fail_msg("MMIO at %llx, %u bytes, write %u", v->run->mmio.phys_addr, v->run->mmio.len, v->run->mmio.is_write);
		if (v->run->mmio.is_write)
			memcpy(mem + (v->run->mmio.phys_addr - HIGH), v->run->mmio.data, v->run->mmio.len);
		else
			memcpy(v->run->mmio.data, mem + (v->run->mmio.phys_addr - HIGH), v->run->mmio.len);
		moved += v->run->mmio.len;
	}
}

static void mmio_shapes(void **state)
{
	u8 mem[64] = {0};
	struct kvm_regs r;
	struct vm v;

	(void)state;
	/* mov ax,0xffff; mov ds,ax; fninit; fild qword [0x10]; fistp qword [0x1b]; mov ax,[0x11]; push word [0x12];
	 * add dword [0x14],1; pop word [0x30]; xchg [0x32],ax; hlt */
	START(&v, 0xb8, 0xff, 0xff, 0x8e, 0xd8, 0xdb, 0xe3, 0xdf, 0x2e, 0x10, 0, 0xdf, 0x3e, 0x1b, 0, 0xa1, 0x11, 0, 0xff, 0x36, 0x12, 0,
	      0x66, 0x83, 0x06, 0x14, 0, 1, 0x8f, 0x06, 0x30, 0, 0x87, 0x06, 0x32, 0, 0xf4);
	for (u8 i = 0; i < 8; i++)
		mem[i] = i + 1;
	mem[0x22] = 0x77;
	assert_int_equal(serve_mmio(&v, mem, sizeof(mem)), 8 + 8 + 2 + 2 + 8 + 2 + 4);
	assert_int_equal(v.run->exit_reason, KVM_EXIT_HLT);
	for (u8 i = 0; i < 8; i++)
		assert_int_equal(mem[0xb + i], i + 1);
	assert_int_equal(mem[4], 6);
	assert_int_equal(mem[0x20], 3);
	assert_int_equal(mem[0x21], 4);
	assert_int_equal(mem[0x22], 2);
	assert_int_equal(mem[0x23], 3);
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_GET_REGS, &r), 0);
	assert_int_equal(r.rax & 0xffff, 0x77);
	assert_int_equal(r.rsp, 0x8000);
	stop(&v);
}

/* Stack and vectors where the VMM answers: an event is delivered all the same, once. */
static void event_in_mmio(void **state)
{
	u8 mem[64] = {0};
	struct kvm_interrupt irq = {.irq = 3};
	struct kvm_vcpu_events ev;
	struct kvm_sregs s;
	struct kvm_regs r;
	struct vm v;

	(void)state;
	/* mov ax,0xffff; mov ss,ax; mov sp,0x40; ud2 ; at 0x1010 the handler: out 0x31,al; pop ax; pop ax; pop ax; sti; nop; nop */
	START(&v, 0xb8, 0xff, 0xff, 0x8e, 0xd0, 0xbc, 0x40, 0, 0x0f, 0x0b, 0, 0, 0, 0, 0, 0, 0xe6, 0x31, 0x58, 0x58, 0x58, 0xfb, 0x90,
	      0xeb, 0xfe);
	set_handler(&v, 6, 0x1010);
	assert_int_equal(RUN(&v), 0);
	assert_int_equal(v.run->exit_reason, KVM_EXIT_MMIO); /* the first push */
	assert_int_equal(v.run->mmio.phys_addr, HIGH + 0x2e);
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_GET_VCPU_EVENTS, &ev), 0);
	assert_true(ev.exception.injected && ev.exception.nr == 6);
	memcpy(mem + 0x2e, v.run->mmio.data, 2);
	assert_int_equal(serve_mmio(&v, mem, sizeof(mem)), 4);
	assert_int_equal(v.run->exit_reason, KVM_EXIT_IO);
	assert_int_equal(v.run->io.port, 0x31);
	assert_int_equal(*(u16 *)(void *)(mem + 0x2a), 0x1008);
	assert_int_equal(*(u16 *)(void *)(mem + 0x2c), 0);
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_GET_REGS, &r), 0);
	assert_int_equal(r.rsp, 0x3a);
	/* the three pops, then an interrupt whose vector lies in MMIO too */
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_GET_SREGS, &s), 0);
	s.idt.base = HIGH;
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_SET_SREGS, &s), 0);
	*(u32 *)(void *)(mem + 12) = 0x1010;
	memset(mem + 0x20, 0, 0x20);
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_INTERRUPT, &irq), 0);
	assert_int_equal(serve_mmio(&v, mem, sizeof(mem)), 6 + 4 + 6);
	assert_int_equal(v.run->exit_reason, KVM_EXIT_IO);
	assert_int_equal(v.run->io.port, 0x31);
	assert_in_range(*(u16 *)(void *)(mem + 0x2a), 0x1016, 0x1017);
	assert_int_equal(*(u16 *)(void *)(mem + 0x2e) & 0x200, 0x200);
	stop(&v);
}

/* Instructions with more pieces than any other: FXSAVE, FNSAVE, masked bytes. */
static void wide_mmio(void **state)
{
	u8 mem[0x2a0];
	struct kvm_sregs s;
	struct kvm_fpu fpu;
	struct vm v;

	(void)state;
	memset(mem, 0xee, sizeof(mem));
	/* mov ax,0xffff; mov ds,ax; mov di,0x290; fninit; fld1; fxsave [0x10]; fnsave [0x213]; fnstcw [cs:0x2000];
	 * movdqu xmm0,[cs:0x3000]; maskmovdqu xmm0,xmm0; hlt */
	START(&v, 0xb8, 0xff, 0xff, 0x8e, 0xd8, 0xbf, 0x90, 0x02, 0xdb, 0xe3, 0xd9, 0xe8, 0x0f, 0xae, 0x06, 0x10, 0, 0xdd, 0x36, 0x13,
	      0x02, 0x2e, 0xd9, 0x3e, 0, 0x20, 0xf3, 0x2e, 0x0f, 0x6f, 0x06, 0, 0x30, 0x66, 0x0f, 0xf7, 0xc0, 0xf4);
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_GET_SREGS, &s), 0);
	s.cr4 |= 0x200; /* OSFXSR */
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_SET_SREGS, &s), 0);
	for (u8 i = 0; i < 16; i++)
		v.ram[0x3000 + i] = i == 5 ? 5 : 0x80 | i;
	assert_true(serve_mmio(&v, mem, sizeof(mem)) >= 288 + 94 + 15);
	assert_int_equal(v.run->exit_reason, KVM_EXIT_HLT);
	assert_int_equal(mem[1] << 8 | mem[0], 0x37f);
	assert_int_equal(mem[2] | mem[3] << 8, 0x3800); /* TOP 7: FNSAVE had not come yet */
	assert_int_equal(mem[32 + 9] << 8 | mem[32 + 8], 0x3fff);
	assert_int_equal(mem[0x206] << 8 | mem[0x205], 0x3800); /* 16-bit form */
	assert_int_equal(mem[0x203 + 14 + 9] << 8 | mem[0x203 + 14 + 8], 0x3fff);
	assert_int_equal(*(u16 *)(void *)(v.ram + 0x2000), 0x37f);
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_GET_FPU, &fpu), 0);
	assert_int_equal(fpu.fsw, 0); /* and it ended with FNINIT */
	assert_int_equal(mem[0x280], 0x80);
	assert_int_equal(mem[0x285], 0xee); /* left alone */
	assert_int_equal(mem[0x28f], 0x8f);
	stop(&v);
}

static void halt_with_irqchip(void **state)
{
	static const u8 code[] = {0xf4, 0xe6, 0x33};
	struct kvm_mp_state mp = {.mp_state = KVM_MP_STATE_RUNNABLE};
	struct vm v;

	(void)state;
	start_with(&v, code, sizeof(code), true);
	kvm_vcpu_kick(v.vcpu);
	assert_int_equal(RUN(&v), -EINTR);
	for (int i = 0; i < 1000 && mp.mp_state != KVM_MP_STATE_HALTED; i++) {
		v.run->immediate_exit = 0;
		kvm_vcpu_kick(v.vcpu);
		RUN(&v);
		assert_int_equal(kvm_ioctl(v.vcpu, KVM_GET_MP_STATE, &mp), 0);
		if (mp.mp_state == KVM_MP_STATE_RUNNABLE) /* a kick may come before the first instruction */
			break;
	}
	mp.mp_state = KVM_MP_STATE_HALTED;
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_SET_MP_STATE, &mp), 0);
	kvm_vcpu_kick(v.vcpu);
	assert_int_equal(RUN(&v), -EINTR);
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_GET_MP_STATE, &mp), 0);
	assert_int_equal(mp.mp_state, KVM_MP_STATE_HALTED);
	stop(&v);
}

static void shutdown(void **state)
{
	struct kvm_sregs s;
	struct vm v;

	(void)state;
	START(&v, 0x0f, 0x0b);
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_GET_SREGS, &s), 0);
	s.idt.limit = 0;
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_SET_SREGS, &s), 0);
	assert_int_equal(RUN(&v), 0);
	assert_int_equal(v.run->exit_reason, KVM_EXIT_SHUTDOWN);
	stop(&v);
}

static void *killer(void *sys)
{
	const struct timespec t = {.tv_nsec = 50000000};

	nanosleep(&t, NULL);
	kill(kvm_engine_pid(sys), SIGKILL);
	return NULL;
}

static void *kicker(void *vcpu)
{
	const struct timespec t = {.tv_nsec = 30000000};

	nanosleep(&t, NULL);
	kvm_vcpu_kick(vcpu);
	return NULL;
}

static void kick_running(void **state)
{
	pthread_t t;
	struct vm v;

	(void)state;
	START(&v, 0xeb, 0xfe);
	pthread_create(&t, NULL, kicker, v.vcpu);
	assert_int_equal(RUN(&v), -EINTR);
	assert_int_equal(v.run->exit_reason, KVM_EXIT_INTR);
	pthread_join(t, NULL);
	v.run->immediate_exit = 1;
	assert_int_equal(RUN(&v), -EINTR);
	stop(&v);
}

static void *signaller(void *thread)
{
	const struct timespec t = {.tv_nsec = 30000000};

	nanosleep(&t, NULL);
	pthread_kill(*(pthread_t *)thread, SIGUSR2);
	return NULL;
}

/* A signal blocked outside KVM_RUN and open in it: ends it and stays pending. By default SIGUSR2 would kill. */
static void signal_mask(void **state)
{
	struct {
		struct kvm_signal_mask m;
		u64 set;
	} __attribute__((packed)) mask = {.m.len = 8, .set = ~(BIT64(SIGUSR2 - 1) | BIT64(SIGUSR1 - 1) | BIT64(SIGALRM - 1))}; /* SIGUSR1: kicks */
	const struct timespec now = {0};
	pthread_t t, me = pthread_self();
	sigset_t usr2, pending;
	struct vm v;

	(void)state;
	sigemptyset(&usr2);
	sigaddset(&usr2, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &usr2, NULL);
	START(&v, 0xeb, 0xfe);
	mask.m.len = 4;
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_SET_SIGNAL_MASK, &mask), -EINVAL);
	mask.m.len = 8;
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_SET_SIGNAL_MASK, &mask), 0);
	pthread_create(&t, NULL, signaller, &me);
	for (int i = 0; i < 3; i++) { /* it is there all the time */
		v.run->exit_reason = 0;
		assert_int_equal(RUN(&v), -EINTR);
		assert_int_equal(v.run->exit_reason, KVM_EXIT_INTR);
		sigpending(&pending);
		assert_true(sigismember(&pending, SIGUSR2));
	}
	pthread_join(t, NULL);
	assert_int_equal(sigtimedwait(&usr2, NULL, &now), SIGUSR2);
	pthread_create(&t, NULL, kicker, v.vcpu);
	assert_int_equal(RUN(&v), -EINTR);
	pthread_join(t, NULL);
	/* without a mask a blocked signal does not matter */
	v.run->immediate_exit = 0;
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_SET_SIGNAL_MASK, NULL), 0);
	pthread_kill(me, SIGUSR2);
	pthread_create(&t, NULL, kicker, v.vcpu);
	assert_int_equal(RUN(&v), -EINTR);
	pthread_join(t, NULL);
	assert_int_equal(sigtimedwait(&usr2, NULL, &now), SIGUSR2);
	stop(&v);
}

/* The same as a process that dies while such a wait is on. */
static void signal_mask_death(void **state)
{
	struct {
		struct kvm_signal_mask m;
		u64 set;
	} __attribute__((packed)) mask = {.m.len = 8};
	pthread_t t;
	struct vm v;

	(void)state;
	START(&v, 0xeb, 0xfe);
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_SET_SIGNAL_MASK, &mask), 0);
	pthread_create(&t, NULL, killer, v.sys);
	assert_int_equal(RUN(&v), -EIO);
	pthread_join(t, NULL);
	stop(&v);
}

static void inject_and_window(void **state)
{
	struct kvm_interrupt irq = {.irq = 0x21};
	struct vm v;

	(void)state;
	/* out 0x31,al; nop; sti; nop; nop; jmp $ ; at 0x1010 the handler: out 0x32,al; iret */
	START(&v, 0xe6, 0x31, 0x90, 0xfb, 0x90, 0x90, 0xeb, 0xfe, 0, 0, 0, 0, 0, 0, 0, 0, 0xe6, 0x32, 0xcf);
	set_handler(&v, 0x21, 0x1010);
	assert_io(&v, 0x31, false);
	assert_int_equal(v.run->ready_for_interrupt_injection, 0);
	assert_int_equal(v.run->if_flag, 0);
	v.run->request_interrupt_window = 1;
	assert_int_equal(RUN(&v), 0);
	assert_int_equal(v.run->exit_reason, KVM_EXIT_IRQ_WINDOW_OPEN);
	assert_int_equal(v.run->ready_for_interrupt_injection, 1);
	v.run->request_interrupt_window = 0;
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_INTERRUPT, &irq), 0);
	assert_io(&v, 0x32, false);
	irq.irq = 256;
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_INTERRUPT, &irq), -EINVAL);
	stop(&v);
}

/* ---- memory ---- */

static void dirty_log(void **state)
{
	struct kvm_userspace_memory_region r = {.memory_size = RAM_SIZE, .flags = KVM_MEM_LOG_DIRTY_PAGES};
	u64 bitmap[RAM_SIZE / 4096 / 64];
	struct kvm_dirty_log log = {.dirty_bitmap = bitmap};
	struct vm v;

	(void)state;
	/* 1: mov [0x5000],al; mov [0x9fff],ax; hlt; jmp 1b */
	START(&v, 0xa2, 0, 0x50, 0xa3, 0xff, 0x9f, 0xf4, 0xeb, 0xf7);
	assert_int_equal(kvm_ioctl(v.vm, KVM_GET_DIRTY_LOG, &log), -ENOENT); /* not logged */
	r.userspace_addr = (u64)v.ram;
	assert_int_equal(kvm_ioctl(v.vm, KVM_SET_USER_MEMORY_REGION, &r), 0);
	for (int i = 0; i < 2; i++) {
		assert_hlt(&v);
		assert_true(kvm_ioctl(v.vm, KVM_GET_DIRTY_LOG, &log) >= 0);
		assert_int_equal(bitmap[0], BIT64(5) | BIT64(9) | BIT64(10));
		assert_int_equal(bitmap[1], 0);
	}
	assert_true(kvm_ioctl(v.vm, KVM_GET_DIRTY_LOG, &log) >= 0);
	assert_int_equal(bitmap[0], 0);
	log.slot = 9;
	assert_int_equal(kvm_ioctl(v.vm, KVM_GET_DIRTY_LOG, &log), -ENOENT);
	stop(&v);
}

static void slots(void **state)
{
	struct kvm_userspace_memory_region r = {.slot = 1, .guest_phys_addr = HIGH, .memory_size = 0x4000, .flags = KVM_MEM_READONLY};
	struct kvm_regs regs;
	struct vm v;
	u8 *extra = kvm_ram_alloc(0x8000, NULL);

	(void)state;
	/* mov ax,0xffff; mov ds,ax; 1: mov al,[0x10]; mov [0x11],al; hlt; jmp 1b */
	START(&v, 0xb8, 0xff, 0xff, 0x8e, 0xd8, 0xa0, 0x10, 0, 0xa2, 0x11, 0, 0xf4, 0xeb, 0xf7);
	r.userspace_addr = (u64)extra;
	extra[0] = 0x61;
	extra[0x4000] = 0x62;
	assert_int_equal(kvm_ioctl(v.vm, KVM_SET_USER_MEMORY_REGION, &r), 0);
	assert_int_equal(RUN(&v), 0); /* read-only: reads work, the write is MMIO */
	assert_int_equal(v.run->exit_reason, KVM_EXIT_MMIO);
	assert_true(v.run->mmio.is_write);
	assert_int_equal(v.run->mmio.phys_addr, HIGH + 1);
	assert_int_equal(v.run->mmio.data[0], 0x61);
	assert_hlt(&v);
	assert_int_equal(extra[1], 0);
	r.memory_size = 0; /* delete; then other memory, writable */
	assert_int_equal(kvm_ioctl(v.vm, KVM_SET_USER_MEMORY_REGION, &r), 0);
	r.memory_size = 0x4000;
	r.flags = 0;
	r.userspace_addr = (u64)extra + 0x4000;
	assert_int_equal(kvm_ioctl(v.vm, KVM_SET_USER_MEMORY_REGION, &r), 0);
	assert_hlt(&v);
	assert_int_equal(extra[0x4001], 0x62);
	r.guest_phys_addr = HIGH + 0x4000; /* move away: now a hole */
	assert_int_equal(kvm_ioctl(v.vm, KVM_SET_USER_MEMORY_REGION, &r), 0);
	assert_int_equal(RUN(&v), 0);
	assert_int_equal(v.run->exit_reason, KVM_EXIT_MMIO);
	assert_false(v.run->mmio.is_write);
	v.run->mmio.data[0] = 0x63;
	assert_int_equal(RUN(&v), 0);
	assert_true(v.run->exit_reason == KVM_EXIT_MMIO && v.run->mmio.is_write);
	r.guest_phys_addr = HIGH; /* and back */
	assert_int_equal(kvm_ioctl(v.vm, KVM_SET_USER_MEMORY_REGION, &r), 0);
	assert_hlt(&v);
	assert_hlt(&v);
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_GET_REGS, &regs), 0);
	assert_int_equal(regs.rax & 0xff, 0x62);
	stop(&v);
	kvm_ram_free(extra, 0x8000);
}

static void bad_slots(void **state)
{
	struct kvm_userspace_memory_region ok = {.slot = 1, .guest_phys_addr = HIGH, .memory_size = 0x4000}, r;
	struct vm v;
	u8 *extra = kvm_ram_alloc(0x8000, NULL);
	const struct {
		u64 gpa, size, addr;
		u32 slot, flags;
		int err;
	} t[] = {
		{HIGH - 0x1000, 0x2000, 0, 2, 0, -EEXIST},	{0, 0x1000, 0, 2, 0, -EEXIST},
		{HIGH + 0x800, 0x1000, 0, 2, 0, -EINVAL},	{HIGH + 0x8000, 0x1800, 0, 2, 0, -EINVAL},
		{HIGH + 0x8000, 0x1000, 0x10, 2, 0, -EINVAL},	{HIGH + 0x8000, 0x1000, 0, 2, 0x1000, -EINVAL},
		{~0xfffull, 0x2000, 0, 2, 0, -EINVAL},		{HIGH, 0x2000, 0, 1, 0, -EINVAL},
		{HIGH + 0x8000, 0, 0, 3, 0, -EINVAL},		{HIGH, 0x4000, 0, 1, KVM_MEM_READONLY, -EINVAL},
		{HIGH, 0x4000, 0x4000, 1, 0, -EINVAL},		{HIGH, 0x4000, 0, 1, 0, 0},
	};

	(void)state;
	START(&v, 0xf4);
	ok.userspace_addr = (u64)extra;
	assert_int_equal(kvm_ioctl(v.vm, KVM_SET_USER_MEMORY_REGION, &ok), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		long ret;

		r = (struct kvm_userspace_memory_region){.slot = t[i].slot, .flags = t[i].flags, .guest_phys_addr = t[i].gpa,
							 .memory_size = t[i].size, .userspace_addr = (u64)extra + t[i].addr};
		ret = kvm_ioctl(v.vm, KVM_SET_USER_MEMORY_REGION, &r);
		if (ret != t[i].err)
			fail_msg("bad slot %u: %ld, want %d", i, ret, t[i].err);
	}
	/* memory of ours alone */
	r = (struct kvm_userspace_memory_region){.slot = 2, .guest_phys_addr = HIGH + 0x8000, .memory_size = 0x4000};
	r.userspace_addr = (u64)mmap(NULL, 0x4000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_int_equal(kvm_ioctl(v.vm, KVM_SET_USER_MEMORY_REGION, &r), choice == KVM_CHOICE_KVM ? 0 : -EOPNOTSUPP);
	assert_hlt(&v);
	stop(&v);
	munmap((void *)r.userspace_addr, 0x4000);
	kvm_ram_free(extra, 0x8000);
}

/* ---- event descriptors ---- */

static bool fired(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	u64 n = 0;

	return poll(&p, 1, 20000) == 1 && read(fd, &n, sizeof(n)) == sizeof(n) && n;
}

static void ioeventfds(void **state)
{
	int fd[4];
	struct vm v;
	struct kvm_ioeventfd e[4] = {
		{.addr = 0x40, .len = 1, .datamatch = 7, .flags = KVM_IOEVENTFD_FLAG_PIO | KVM_IOEVENTFD_FLAG_DATAMATCH},
		{.addr = HIGH, .len = 2},
		{.addr = HIGH + 0x10},
		{.addr = 0x50, .flags = KVM_IOEVENTFD_FLAG_PIO},
	};

	(void)state;
	/* mov ax,0xffff; mov ds,ax; mov al,7; out 0x40,al; mov al,8; out 0x40,al (exit); mov [0x10],ax; mov [0x10],al (exit);
	 * mov [0x20],al; mov [0x20],ax; out 0x50,ax; hlt; then again mov al,7; out 0x40,al (exit) */
	START(&v, 0xb8, 0xff, 0xff, 0x8e, 0xd8, 0xb0, 7, 0xe6, 0x40, 0xb0, 8, 0xe6, 0x40, 0xa3, 0x10, 0, 0xa2, 0x10, 0, 0xa2, 0x20, 0,
	      0xa3, 0x20, 0, 0xe7, 0x50, 0xf4, 0xb0, 7, 0xe6, 0x40);
	for (int i = 0; i < 4; i++) {
		fd[i] = eventfd(0, EFD_NONBLOCK);
		e[i].fd = fd[i];
		assert_int_equal(kvm_ioctl(v.vm, KVM_IOEVENTFD, &e[i]), 0);
	}
	assert_int_equal(kvm_ioctl(v.vm, KVM_IOEVENTFD, &e[0]), -EEXIST);
	assert_io(&v, 0x40, false);
	assert_int_equal(io_data(&v)[0], 8);
	assert_true(fired(fd[0]));
	assert_int_equal(RUN(&v), 0);
	assert_int_equal(v.run->exit_reason, KVM_EXIT_MMIO);
	assert_int_equal(v.run->mmio.len, 1);
	assert_true(fired(fd[1]));
	assert_hlt(&v);
	assert_true(fired(fd[2]));
	assert_true(fired(fd[3]));
	e[0].flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
	assert_int_equal(kvm_ioctl(v.vm, KVM_IOEVENTFD, &e[0]), 0);
	assert_int_equal(kvm_ioctl(v.vm, KVM_IOEVENTFD, &e[0]), -ENOENT);
	assert_io(&v, 0x40, false);
	e[1].len = 3;
	assert_int_equal(kvm_ioctl(v.vm, KVM_IOEVENTFD, &e[1]), -EINVAL);
	stop(&v);
	for (int i = 0; i < 4; i++)
		close(fd[i]);
}

/* Ports of which the client has said that nobody decodes them: no exit, unless something of the engine's or an ioeventfd is there. */
static void open_ports(void **state)
{
	struct doppel_ports p;
	struct kvm_ioeventfd e = {.addr = 0x80, .len = 1, .flags = KVM_IOEVENTFD_FLAG_PIO};
	struct vm v;
	/* in al,0x80; out 0x54,al (exit); out 0x80,al; in eax,0x53 (touches 0x54: exit); in eax,0x50; out 0x54,eax (exit); in al,0x21
	 * (the PIC); out 0x54,al (exit); mov di,0x800; mov cx,3; mov dx,0x80; rep insb; out 0x80,al; mov cx,2; rep outsw; mov
	 * al,[0x802]; out 0x54,al (exit); in al,0x80 (exit: closed again) */
	static const u8 code[] = {0xe4, 0x80, 0xe6, 0x54, 0xe6, 0x80, 0x66, 0xe5, 0x53, 0x66, 0xe5, 0x50, 0x66, 0xe7, 0x54, 0xe4,
				  0x21, 0xe6, 0x54, 0xbf, 0,	8,    0xb9, 3,	  0,	0xba, 0x80, 0,	  0xf3, 0x6c, 0xe6, 0x80,
				  0xb9, 2,    0,    0xf3, 0x6f, 0xa0, 2,    8,	  0xe6, 0x54, 0xe4, 0x80};

	(void)state;
	if (choice == KVM_CHOICE_KVM)
		skip();
	start_with(&v, code, sizeof(code), true);
	memset(&p, 0xff, sizeof(p));
	p.open[0x54 / 8] &= (u8)~BIT(0x54 % 8);
	assert_int_equal(kvm_ioctl(v.vm, DOPPEL_SET_OPEN_PORTS, &p), 0);
	assert_io(&v, 0x54, false);
	assert_int_equal(io_data(&v)[0], 0xff);
	assert_io(&v, 0x53, true);
	memset(io_data(&v), 0, 4);
	assert_io(&v, 0x54, false);
	assert_memory_equal(io_data(&v), "\xff\xff\xff\xff", 4);
	assert_io(&v, 0x54, false);
	assert_int_equal(io_data(&v)[0], 0); /* the PIC's mask */
	e.fd = eventfd(0, EFD_NONBLOCK);
	assert_int_equal(kvm_ioctl(v.vm, KVM_IOEVENTFD, &e), 0);
	assert_io(&v, 0x54, false);
	assert_int_equal(io_data(&v)[0], 0xff);
	assert_true(fired(e.fd));
	memset(&p, 0, sizeof(p));
	assert_int_equal(kvm_ioctl(v.vm, DOPPEL_SET_OPEN_PORTS, &p), 0);
	assert_io(&v, 0x80, true);
	stop(&v);
	close(e.fd);
}

/* The PIC's interrupt 5 is open, and handled at 0x1010. */
static void start_with_irq5(struct vm *v, const u8 *code, size_t n)
{
	struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_PIC_MASTER};

	start_with(v, code, n, true);
	set_handler(v, 0x25, 0x1010);
	assert_int_equal(kvm_ioctl(v->vm, KVM_GET_IRQCHIP, &chip), 0);
	chip.chip.pic.irq_base = 0x20;
	chip.chip.pic.imr = 0;
	assert_int_equal(kvm_ioctl(v->vm, KVM_SET_IRQCHIP, &chip), 0);
}

static void irqfds(void **state)
{
	/* sti; 1: hlt; jmp 1b; at 0x1010: out 0x51,al; mov al,0x20; out 0x20,al; out 0x52,al; iret */
	static const u8 code[] = {0xfb, 0xf4, 0xeb, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xe6, 0x51, 0xb0, 0x20, 0xe6, 0x20, 0xe6,
				  0x52, 0xcf};
	struct kvm_irqfd q = {.gsi = 5};
	int fd = eventfd(0, EFD_NONBLOCK), resample = eventfd(0, EFD_NONBLOCK);
	u64 one = 1;
	struct vm v;

	(void)state;
	start_with_irq5(&v, code, sizeof(code));
	q.fd = (u32)fd;
	assert_int_equal(kvm_ioctl(v.vm, KVM_IRQFD, &q), 0);
	assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
	assert_io(&v, 0x51, false);
	assert_io(&v, 0x52, false);
	q.flags = KVM_IRQFD_FLAG_DEASSIGN;
	assert_int_equal(kvm_ioctl(v.vm, KVM_IRQFD, &q), 0);
	q.flags = KVM_IRQFD_FLAG_RESAMPLE;
	q.resamplefd = (u32)resample;
	assert_int_equal(kvm_ioctl(v.vm, KVM_IRQFD, &q), 0);
	assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
	assert_io(&v, 0x51, false);
	assert_io(&v, 0x52, false); /* the EOI lies between */
	assert_true(fired(resample));
	stop(&v);
	close(fd);
	close(resample);
}

static void *ring_when_asleep(void *page)
{
	while (!wake_ring(page, 0))
		usleep(100);
	return NULL;
}

/* Another process interrupts a vCPU that sleeps. */
static void woken_by_page(void **state)
{
	/* sti; 1: hlt; jmp 1b; at 0x1010: out 0x51,al; mov al,0x20; out 0x20,al; iret */
	static const u8 code[] = {0xfb, 0xf4, 0xeb, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xe6, 0x51, 0xb0, 0x20, 0xe6, 0x20, 0xcf};
	int fd = memfd_create("wake", MFD_CLOEXEC);
	struct wake_page *page = NULL;
	pthread_t t;
	struct vm v;
	long ret = 0;

	(void)state;
	assert_int_equal(ftruncate(fd, sizeof(*page)), 0);
	page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(page != MAP_FAILED);
	start_with_irq5(&v, code, sizeof(code));
	ret = kvm_ioctl(v.vm, DOPPEL_SET_WAKE_PAGE, (long)fd);
	if (!ret) {
		assert_int_equal(kvm_ioctl(v.vm, DOPPEL_SET_WAKE_PAGE, (long)fd), -EEXIST);
		page->sources = 1;
		wake_bind(page, 0, 5);
		for (int i = 0; i < 3; i++) {
			pthread_create(&t, NULL, ring_when_asleep, page);
			assert_io(&v, 0x51, false);
			pthread_join(t, NULL);
		}
	}
	stop(&v);
	munmap(page, sizeof(*page));
	close(fd);
	if (ret)
		assert_int_equal(ret, -ENOSYS); /* the kernel's age */
}

/* ---- state ---- */

#define ROUND_TRIP(obj, get, set, type)                                                                          \
	do {                                                                                                     \
		type *a_ = calloc(1, sizeof(type)), *b_ = calloc(1, sizeof(type));                               \
		if (kvm_ioctl(obj, get, a_) < 0 || kvm_ioctl(obj, set, a_) < 0 || kvm_ioctl(obj, get, b_) < 0)   \
			fail_msg("%s or %s failed", #get, #set);                                                 \
		assert_memory_equal(a_, b_, sizeof(type));                                                       \
		free(a_);                                                                                        \
		free(b_);                                                                                        \
	} while (0)

static void give_all_cpuid(struct vm *v)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 e[100];
	} q = {.head.nent = 100};

	assert_int_equal(kvm_ioctl(v->sys, KVM_GET_SUPPORTED_CPUID, &q), 0);
	assert_int_equal(kvm_ioctl(v->vcpu, KVM_SET_CPUID2, &q), 0);
}

static void round_trips(void **state)
{
	static const u8 code[] = {0xf4};
	struct kvm_regs r = {.rax = 1, .rbx = 2, .r15 = ~0ull, .rip = 0x123456789, .rflags = 0xed7}, r2;
	struct kvm_debugregs d = {.db = {1, 2, 3, 4}, .dr6 = 0xffff0ff1, .dr7 = 0x401}, d2;
	struct kvm_fpu f, f2;
	struct vm v;

	(void)state;
	start_with(&v, code, sizeof(code), true);
	give_all_cpuid(&v);
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_SET_REGS, &r), 0);
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_GET_REGS, &r2), 0);
	assert_memory_equal(&r, &r2, sizeof(r));
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_SET_DEBUGREGS, &d), 0);
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_GET_DEBUGREGS, &d2), 0);
	assert_memory_equal(&d, &d2, sizeof(d));
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_GET_FPU, &f), 0);
	f.xmm[5][3] = 0x5a;
	f.fpr[2][1] = 0xa5;
	f.mxcsr = 0x1f00;
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_SET_FPU, &f), 0);
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_GET_FPU, &f2), 0);
	assert_memory_equal(f.xmm, f2.xmm, sizeof(f.xmm));
	assert_memory_equal(f.fpr, f2.fpr, sizeof(f.fpr));
	assert_int_equal(f2.mxcsr, 0x1f00);
	ROUND_TRIP(v.vcpu, KVM_GET_SREGS, KVM_SET_SREGS, struct kvm_sregs);
	ROUND_TRIP(v.vcpu, KVM_GET_XSAVE, KVM_SET_XSAVE, struct kvm_xsave);
	ROUND_TRIP(v.vcpu, KVM_GET_XCRS, KVM_SET_XCRS, struct kvm_xcrs);
	ROUND_TRIP(v.vcpu, KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, struct kvm_vcpu_events);
	ROUND_TRIP(v.vcpu, KVM_GET_MP_STATE, KVM_SET_MP_STATE, struct kvm_mp_state);
	ROUND_TRIP(v.vcpu, KVM_GET_LAPIC, KVM_SET_LAPIC, struct kvm_lapic_state);
	stop(&v);
}

static void chip_round_trips(void **state)
{
	static const u8 code[] = {0xf4};
	struct kvm_pit_config config = {0};
	struct kvm_pit_state2 pit = {0}, pit2 = {0};
	struct kvm_clock_data c = {.clock = 1000000000}, c2;
	struct vm v;

	(void)state;
	start_with(&v, code, sizeof(code), true);
	assert_int_equal(kvm_ioctl(v.vm, KVM_CREATE_PIT2, &config), 0);
	assert_int_equal(kvm_ioctl(v.vm, KVM_CREATE_PIT2, &config), -EEXIST);
	for (u32 id = 0; id < 3; id++) {
		struct kvm_irqchip a = {.chip_id = id}, b = {.chip_id = id};

		assert_int_equal(kvm_ioctl(v.vm, KVM_GET_IRQCHIP, &a), 0);
		if (id == KVM_IRQCHIP_IOAPIC)
			a.chip.ioapic.redirtbl[7].bits = 0x0100000000010039;
		else
			a.chip.pic.imr = 0x5a;
		assert_int_equal(kvm_ioctl(v.vm, KVM_SET_IRQCHIP, &a), 0);
		assert_int_equal(kvm_ioctl(v.vm, KVM_GET_IRQCHIP, &b), 0);
		if (id == KVM_IRQCHIP_IOAPIC)
			assert_int_equal(b.chip.ioapic.redirtbl[7].bits, a.chip.ioapic.redirtbl[7].bits);
		else
			assert_int_equal(b.chip.pic.imr, 0x5a);
	}
	assert_int_equal(kvm_ioctl(v.vm, KVM_GET_PIT2, &pit), 0);
	pit.channels[0].count = 0x1234;
	pit.channels[0].mode = 2;
	assert_int_equal(kvm_ioctl(v.vm, KVM_SET_PIT2, &pit), 0);
	assert_int_equal(kvm_ioctl(v.vm, KVM_GET_PIT2, &pit2), 0);
	assert_int_equal(pit2.channels[0].count, 0x1234);
	assert_int_equal(pit2.channels[0].mode, 2);
	assert_int_equal(kvm_ioctl(v.vm, KVM_SET_CLOCK, &c), 0);
	assert_int_equal(kvm_ioctl(v.vm, KVM_GET_CLOCK, &c2), 0);
	assert_true(c2.clock >= c.clock && c2.clock < c.clock + 5000000000);
	stop(&v);
}

static void msrs(void **state)
{
	static const struct {
		u32 index;
		u64 value;
	} t[] = {
		{0x10, 123456},	       {0x174, 8},	   {0x175, 0x1234},	{0x176, 0xffff800000001000},
		{0x277, 0x0007040600070406}, {0xc0000081, 0x23001000000000}, {0xc0000082, 0xffffffff81000000}, {0xc0000084, 0x47700},
		{0xc0000101, 0x1000},  {0xc0000102, 0xffff888000000000}, {0xc0000103, 5},
	};
	struct vm v;

	(void)state;
	START(&v, 0xf4);
	give_all_cpuid(&v);
	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		struct {
			struct kvm_msrs head;
			struct kvm_msr_entry e[2];
		} m = {.head.nmsrs = 2, .e = {{.index = t[i].index, .data = t[i].value}, {.index = 0x7654321}}};

		assert_int_equal(kvm_ioctl(v.vcpu, KVM_SET_MSRS, &m), 1); /* the second does not exist */
		m.e[0].data = 0;
		assert_int_equal(kvm_ioctl(v.vcpu, KVM_GET_MSRS, &m), 1);
		if (t[i].index == 0x10)
			assert_true(m.e[0].data >= t[i].value);
		else
			assert_int_equal(m.e[0].data, t[i].value);
	}
	stop(&v);
}

static void too_small(void **state)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 e[300];
	} q = {.head.nent = 1};
	struct {
		struct kvm_msr_list head;
		u32 index[1000];
	} m = {.head.nmsrs = 0};
	u32 n;
	struct vm v;

	(void)state;
	START(&v, 0xf4);
	assert_int_equal(kvm_ioctl(v.sys, KVM_GET_SUPPORTED_CPUID, &q), -E2BIG);
	q.head.nent = 100;
	assert_int_equal(kvm_ioctl(v.sys, KVM_GET_SUPPORTED_CPUID, &q), 0);
	assert_true(q.head.nent > 10);
	n = q.head.nent;
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_SET_CPUID2, &q), 0);
	q.head.nent = 1;
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_GET_CPUID2, &q), -E2BIG);
	q.head.nent = 100;
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_GET_CPUID2, &q), 0);
	assert_int_equal(q.head.nent, n);
	q.head.nent = 300;
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_SET_CPUID2, &q), -E2BIG);
	assert_int_equal(kvm_ioctl(v.sys, KVM_GET_MSR_INDEX_LIST, &m), -E2BIG);
	assert_true(m.head.nmsrs > 10 && m.head.nmsrs < 1000);
	assert_int_equal(kvm_ioctl(v.sys, KVM_GET_MSR_INDEX_LIST, &m), 0);
	stop(&v);
}

/* ---- debugging ---- */

static void guest_debug(void **state)
{
	struct kvm_guest_debug d = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP};
	struct vm v;

	(void)state;
	START(&v, 0x90, 0x40, 0x43, 0x90, 0x90, 0xcc, 0xf4);
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_SET_GUEST_DEBUG, &d), 0);
	for (u64 pc = 0x1001; pc < 0x1003; pc++) {
		assert_int_equal(RUN(&v), 0);
		assert_int_equal(v.run->exit_reason, KVM_EXIT_DEBUG);
		assert_int_equal(v.run->debug.arch.pc, pc);
		assert_int_equal(v.run->debug.arch.exception, 1);
		assert_true(v.run->debug.arch.dr6 & BIT(14));
	}
	d.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
	d.arch.debugreg[0] = 0x1004;
	d.arch.debugreg[7] = 0x402;
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_SET_GUEST_DEBUG, &d), 0);
	assert_int_equal(RUN(&v), 0);
	assert_int_equal(v.run->exit_reason, KVM_EXIT_DEBUG);
	assert_int_equal(v.run->debug.arch.pc, 0x1004);
	assert_true(v.run->debug.arch.dr6 & 1);
	d.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP;
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_SET_GUEST_DEBUG, &d), 0);
	assert_int_equal(RUN(&v), 0);
	assert_int_equal(v.run->exit_reason, KVM_EXIT_DEBUG);
	assert_int_equal(v.run->debug.arch.exception, 3);
	assert_int_equal(v.run->debug.arch.pc, 0x1005);
	d.control = 0;
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_SET_GUEST_DEBUG, &d), 0);
	v.ram[0x1005] = 0x90;
	kvm_dma_written(v.vm, 0x1005, 1);
	assert_hlt(&v);
	stop(&v);
}

static void debug_exit_at(struct vm *v, u32 exception, u64 pc)
{
	assert_int_equal(RUN(v), 0);
	assert_int_equal(v->run->exit_reason, KVM_EXIT_DEBUG);
	assert_int_equal(v->run->debug.arch.exception, exception);
	assert_int_equal(v->run->debug.arch.pc, pc);
}

/* The guest's own INT3, told to a debugger that does not know it, reaches the guest. */
static void guest_debug_inject(void **state)
{
	static const u8 handler[] = {0x43, 0xcf}; /* inc bx; iret */
	struct kvm_guest_debug d = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP};
	struct kvm_regs r;
	struct vm v;

	(void)state;
	START(&v, 0xcc, 0x40, 0xf4);
	assert_int_equal(kvm_ioctl(v.sys, KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_SET_GUEST_DEBUG2) & (KVM_GUESTDBG_BLOCKIRQ |
			 KVM_GUESTDBG_INJECT_BP), KVM_GUESTDBG_BLOCKIRQ | KVM_GUESTDBG_INJECT_BP);
	set_handler(&v, 3, 0x1100);
	memcpy(v.ram + 0x1100, handler, sizeof(handler));
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_SET_GUEST_DEBUG, &d), 0);
	debug_exit_at(&v, 3, 0x1000);
	d.control |= KVM_GUESTDBG_INJECT_BP;
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_SET_GUEST_DEBUG, &d), 0);
	assert_hlt(&v);
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_GET_REGS, &r), 0);
	assert_int_equal(r.rax & 0xffff, 1);
	assert_int_equal(r.rbx & 0xffff, 1);
	stop(&v);
}

/* A step does not end in the handler of an interrupt that waits. */
static void guest_debug_blockirq(void **state)
{
	static const u8 handler[] = {0x43, 0xcf};
	struct kvm_guest_debug d = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_BLOCKIRQ};
	struct kvm_interrupt irq = {.irq = 0x20};
	struct kvm_regs r;
	struct vm v;

	(void)state;
	START(&v, 0xfb, 0x90, 0x90, 0x90, 0xf4); /* sti; nops */
	set_handler(&v, 0x20, 0x1100);
	memcpy(v.ram + 0x1100, handler, sizeof(handler));
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_INTERRUPT, &irq), 0);
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_SET_GUEST_DEBUG, &d), 0);
	for (u64 pc = 0x1001; pc <= 0x1003; pc++)
		debug_exit_at(&v, 1, pc);
	d.control = 0;
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_SET_GUEST_DEBUG, &d), 0);
	assert_hlt(&v);
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_GET_REGS, &r), 0);
	assert_int_equal(r.rbx & 0xffff, 1);
	stop(&v);
}

/* Stops are exact though the code runs at speed: behind the instruction, or the iteration, that hit. */
static void guest_debug_watch(void **state)
{
	struct kvm_guest_debug d = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP,
				    .arch.debugreg = {[0] = 0x5002, [7] = 0x402 | 1 << 16}};
	struct kvm_regs r;
	struct vm v;

	(void)state;
	START(&v, 0xa2, 0x02, 0x50, 0x40, 0xa2, 0x01, 0x50, 0xa2, 0x02, 0x50, 0xbf, 0x00, 0x50, 0xb9, 0x04, 0x00, 0xf3, 0xaa, 0xf4);
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_SET_GUEST_DEBUG, &d), 0);
	debug_exit_at(&v, 1, 0x1003);
	assert_int_equal(v.run->debug.arch.dr6 & 0xf, 1);
	debug_exit_at(&v, 1, 0x100a);
	assert_int_equal(v.ram[0x5002], 1);
	debug_exit_at(&v, 1, 0x1010); /* REP STOSB, one iteration left */
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_GET_REGS, &r), 0);
	assert_int_equal(r.rcx & 0xffff, 1);
	assert_hlt(&v);
	d.arch.debugreg[7] = 0;
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_SET_GUEST_DEBUG, &d), 0);
	r.rip = 0x1000;
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_SET_REGS, &r), 0);
	assert_hlt(&v);
	stop(&v);
}

static void translate(void **state)
{
	struct kvm_translation t = {.linear_address = 0x12345};
	struct kvm_sregs s;
	struct vm v;

	(void)state;
	START(&v, 0xf4);
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_TRANSLATE, &t), 0);
	assert_true(t.valid);
	assert_int_equal(t.physical_address, 0x12345);
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_GET_SREGS, &s), 0);
	s.cr0 |= 0x80000001; /* 32-bit paging; one page mapped */
	s.cr3 = 0x20000;
	*(u32 *)(void *)(v.ram + 0x20004) = 0x21007;
	*(u32 *)(void *)(v.ram + 0x2100c) = 0x45005;
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_SET_SREGS, &s), 0);
	t.linear_address = 0x403210;
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_TRANSLATE, &t), 0);
	assert_true(t.valid);
	assert_int_equal(t.physical_address, 0x45210);
	t.linear_address = 0x404210;
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_TRANSLATE, &t), 0);
	assert_false(t.valid);
	stop(&v);
}

/* ---- deaths ---- */

static void engine_death(void **state)
{
	struct kvm_regs r;
	char text[200] = "";
	pthread_t t;
	struct vm v;

	(void)state;
	START(&v, 0xeb, 0xfe);
	assert_true(kvm_engine_pid(v.sys) > 0);
	assert_false(kvm_engine_dead(v.sys, text, sizeof(text)));
	pthread_create(&t, NULL, killer, v.sys);
	assert_int_equal(RUN(&v), -EIO);
	pthread_join(t, NULL);
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_GET_REGS, &r), -EIO);
	assert_true(kvm_engine_dead(v.sys, text, sizeof(text)));
	assert_true(text[0]);
	stop(&v);
}

static bool process_gone(int pid)
{
	char path[40], line[200] = "";
	FILE *f;
	char *p;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "r");
	if (!f)
		return true;
	if (!fgets(line, sizeof(line), f))
		line[0] = 0;
	fclose(f);
	p = strrchr(line, ')');
	return !p || p[2] == 'Z';
}

static void vmm_death(void **state)
{
	const struct timespec tick = {.tv_nsec = 10000000};
	int pipes[2], engine = 0, i;
	pid_t child;

	(void)state;
	assert_int_equal(pipe(pipes), 0);
	child = fork();
	if (child == 0) {
		static const u8 spin[] = {0xeb, 0xfe};
		struct vm v;
		int pid;

		start_with(&v, spin, sizeof(spin), false);
		pid = kvm_engine_pid(v.sys);
		if (write(pipes[1], &pid, sizeof(pid)) == sizeof(pid))
			RUN(&v);
		_exit(0);
	}
	assert_int_equal(read(pipes[0], &engine, sizeof(engine)), sizeof(engine));
	nanosleep(&tick, NULL);
	assert_false(process_gone(engine));
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	for (i = 0; i < 2000 && !process_gone(engine); i++)
		nanosleep(&tick, NULL);
	assert_true(i < 2000);
	close(pipes[0]);
	close(pipes[1]);
}

static bool device_usable(void)
{
	struct kvm_open_result res;
	struct kvm_obj *sys;

	if (access("/dev/kvm", R_OK | W_OK) || kvm_open(KVM_CHOICE_KVM, &sys, &res) < 0)
		return false;
	kvm_close(sys);
	return true;
}

/* An argument is a filter of names ("*slots"). */
int main(int argc, char **argv)
{
	const struct CMUnitTest all[] = {
		cmocka_unit_test(string_io),	     cmocka_unit_test(mmio_shapes),  cmocka_unit_test(halt_with_irqchip),
		cmocka_unit_test(shutdown),	     cmocka_unit_test(kick_running), cmocka_unit_test(inject_and_window),
		cmocka_unit_test(dirty_log),	     cmocka_unit_test(slots),	     cmocka_unit_test(bad_slots),
		cmocka_unit_test(ioeventfds),	     cmocka_unit_test(open_ports),   cmocka_unit_test(irqfds),	     cmocka_unit_test(woken_by_page),	     cmocka_unit_test(round_trips),
		cmocka_unit_test(chip_round_trips),  cmocka_unit_test(msrs),	     cmocka_unit_test(too_small),
		cmocka_unit_test(guest_debug), cmocka_unit_test(guest_debug_inject), cmocka_unit_test(guest_debug_blockirq),
		cmocka_unit_test(guest_debug_watch),	     cmocka_unit_test(translate),    cmocka_unit_test(engine_death),
		cmocka_unit_test(vmm_death),	     cmocka_unit_test(signal_mask),  cmocka_unit_test(signal_mask_death),
		cmocka_unit_test(event_in_mmio),     cmocka_unit_test(wide_mmio),
	};
	const struct CMUnitTest portable[] = {
		cmocka_unit_test(string_io), cmocka_unit_test(kick_running), cmocka_unit_test(slots),
		cmocka_unit_test(bad_slots), cmocka_unit_test(too_small), cmocka_unit_test(signal_mask),
	};
	int failed;

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	failed = cmocka_run_group_tests_name("engine, interpreter", all, NULL, NULL);
	choice = KVM_CHOICE_TRANSLATE;
	failed += cmocka_run_group_tests_name("engine, translator", all, NULL, NULL);

	if (device_usable()) {
		choice = KVM_CHOICE_KVM;
		failed += cmocka_run_group_tests_name("/dev/kvm", portable, NULL, NULL);
	}
	return failed;
}
