/*
 * Keeps the whole process below 8 TiB (layout.h): moves the main stack down and unmaps what the kernel put at the top: the
 * old stack, vDSO and its data. From then on glibc functions that would call the vDSO (clock_gettime, time, getcpu) are not
 * used: lib/time.c makes the system call.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/layout.h"
#include "engine/lib/lib.h"
#include "engine/main.h"

_Noreturn void lowmem_switch_stack(void (*fn)(void))
{
	void *p = mmap((void *)ENG_STACK_BASE, ENG_STACK_SIZE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

	if (p != (void *)ENG_STACK_BASE)
		eng_panic("engine: cannot map the low stack");
	__asm__ volatile("mov %0, %%rsp\n\t"
			 "xor %%ebp, %%ebp\n\t"
			 "call *%1\n\t"
			 "ud2"
			 :
			 : "r"(ENG_STACK_BASE + ENG_STACK_SIZE), "r"(fn)
			 : "memory");
	__builtin_unreachable();
}

static u64 parse_hex(const char **s)
{
	u64 v = 0;

	for (;; (*s)++) {
		char c = **s;

		if (c >= '0' && c <= '9')
			v = v << 4 | (u64)(c - '0');
		else if (c >= 'a' && c <= 'f')
			v = v << 4 | (u64)(c - 'a' + 10);
		else
			return v;
	}
}

void lowmem_leave_top(void)
{
	static char text[32768];
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	size_t n = 0;

	if (fd < 0)
		eng_panic("engine: cannot read /proc/self/maps (is /proc mounted?)");
	for (;;) {
		ssize_t r = read(fd, text + n, sizeof(text) - 1 - n);

		if (r <= 0)
			break;
		n += (size_t)r;
	}
	close(fd);
	text[n] = 0;
	for (const char *s = text; *s;) {
		u64 start = parse_hex(&s), end;

		s++;
		end = parse_hex(&s);
		if (start >= ENG_TOP && start < 1ull << 47 && munmap((void *)start, end - start) < 0)
			eng_panic("engine: cannot give back the mapping at %lx", start);
		while (*s && *s != '\n')
			s++;
		if (*s)
			s++;
	}
}
