/*
 * What engine code may use while guest vector state is live: no libc beyond this. Built -mgeneral-regs-only.
 * memcpy, memset, memmove, memcmp are ours (lib/mem.c), so compiler-made calls are safe too.
 */
#ifndef ENGINE_LIB_LIB_H
#define ENGINE_LIB_LIB_H

#include <string.h>
#include "base/types.h"

/* Raw system call; returns -errno on failure. */
static inline long sys_call6(long n, long a, long b, long c, long d, long e, long f)
{
	long ret;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;

	__asm__ volatile("syscall" : "=a"(ret) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}
#define sys_call(n, ...)                    sys_call_(n, ##__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define sys_call_(n, a, b, c, d, e, f, ...) sys_call6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

u64 eng_now_ns(void);     /* CLOCK_MONOTONIC, by system call or scaled TSC */
u64 eng_realtime_ns(void);
u64 eng_thread_ns(void); /* processor time of the calling thread */
static inline u64 eng_rdtsc(void)
{
	u32 lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return (u64)hi << 32 | lo;
}
u64 eng_tsc_khz(void);    /* of the host, measured or read once at start */
u64 eng_tsc_ns(void);     /* CLOCK_MONOTONIC by scaled TSC: no system call, drifts by the rate error; for statistics */
void eng_time_init(void); /* once, before other threads */

/* Arena allocation at fixed addresses: zeroed, never freed, NULL when the arena is full. Page-granular arenas. */
struct vm;
int eng_arena_init(void);    /* maps the VM arena (struct vm and the heap behind it); 0 or -errno */
void *vm_alloc(size_t size); /* from the VM arena, 64-byte aligned; any thread */

/* Futex lock. eng_lock() may be called with vector state live. */
void eng_lock(u32 *word);
void eng_unlock(u32 *word);

/* One line to the log (stderr fd kept by the engine), printf subset: %d %u %x %lx %llx %s %c %p with width/zero pad. Safe while
 * vector state is live. */
void eng_log(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void eng_panic(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
#define eng_assert(c) ((c) ? (void)0 : eng_panic("%s:%d: %s", __FILE__, __LINE__, #c))

#endif
