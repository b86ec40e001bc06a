/*
 * The store of host stubs. Two views of one memfd: written through ENG_CODE_RW, executed through ENG_CODE_RX.
 * A stub appears with one aligned 8-byte store and its address is handed out only after that, on a line the
 * core may have fetched before only as bytes not yet jumped to; so no other synchronisation is needed than
 * the lock.
 */
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <linux/memfd.h>
#include "engine/interp/stub.h"
#include "engine/lib/lib.h"

#define STUB_HEADS 16384u
#define STUB_MAX   ((u32)((STUB_TEXT - STUB_SCRATCH) / 8))

/* Behind the text in the writable view. Chains hold index + 1, 0 ends one. */
struct stub_table {
	u32 lock;
	u32 used;
	u32 head[STUB_HEADS];
	u32 next[STUB_MAX];
};

_Static_assert(sizeof(struct stub_table) <= STUB_REGION - STUB_TEXT, "the table fits behind the text");

static struct stub_table *table(void)
{
	return (struct stub_table *)(ENG_CODE_RW + STUB_TEXT);
}

static u64 *text_rw(void)
{
	return (u64 *)ENG_CODE_RW;
}

int stub_init(void)
{
	long fd = sys_call(SYS_memfd_create, "doppel-stubs", MFD_CLOEXEC);
	long r = 0;

	if (fd < 0)
		return (int)fd;
	r = sys_call(SYS_ftruncate, fd, STUB_REGION);
	if (r == 0)
		r = sys_call(SYS_mmap, ENG_CODE_RW, STUB_REGION, PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
	if (r == (long)ENG_CODE_RW)
		r = sys_call(SYS_mmap, ENG_CODE_RX, STUB_TEXT, PROT_READ | PROT_EXEC,
			     MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
	sys_call(SYS_close, fd);
	if (r == (long)ENG_CODE_RX)
		return 0;
	return r < 0 ? (int)r : -EEXIST; /* a kernel that ignores NOREPLACE chose another address */
}

static u32 stub_hash(u64 word)
{
	return (u32)((word * 0x9e3779b97f4a7c15ull) >> 50);
}

void *stub_get(u64 word)
{
	struct stub_table *t = table();
	u32 h = stub_hash(word);
	u32 i = 0;

	eng_lock(&t->lock);
	for (i = t->head[h]; i != 0 && text_rw()[i - 1] != word; i = t->next[i - 1])
		;
	if (i == 0 && t->used < STUB_MAX) {
		i = ++t->used;
		__atomic_store_n(&text_rw()[i - 1], word, __ATOMIC_RELEASE);
		t->next[i - 1] = t->head[h];
		t->head[h] = i;
	}
	eng_unlock(&t->lock);
	return i ? (void *)(ENG_CODE_RX + (u64)(i - 1) * 8) : NULL;
}

void *stub_scratch(struct vcpu *cpu, u64 word)
{
	u64 line = eng_vcpu_at((u64)cpu) % ENG_MAX_VCPUS;
	u64 off = STUB_TEXT - STUB_SCRATCH + line * 64;
	u32 a = 0, b = 0, c = 0, d = 0;

	*(volatile u64 *)(ENG_CODE_RW + off) = word;
	/* Code modified through another linear address: serialise before running it (SDM 3A 9.1.3). */
	__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d) : : "memory");
	return (void *)(ENG_CODE_RX + off);
}
