/* Jump caches: where they lie, filling, forgetting, switching address spaces. See state.h for the scheme. */
#include <sys/mman.h>
#include <sys/syscall.h>

#include "engine/lib/lib.h"
#include "engine/lib/tls.h"
#include "engine/translate/check.h"
#include "engine/translate/tr_int.h"

#define ARCH_SET_FS 0x1002
#define ARCH_GET_FS 0x1003
#define TCB_SIZE    4096

_Static_assert(ENG_JC_KERNEL32 + sizeof(struct jc_table) <= ENG_JC_SIZE, "a table fits");
_Static_assert(sizeof(struct jc_table) <= ENG_JC_USER32 - ENG_JC_USER64, "a table fits");
_Static_assert(ENG_JC_USER32 + sizeof(struct jc_table) <= ENG_JC_USER_SIZE, "a table fits");
_Static_assert(sizeof(struct jc_table) <= ENG_JC_KERNEL64_AC, "a table fits");
_Static_assert(ENG_VCPU_JC + ENG_JC_SIZE <= ENG_VCPU_SIZE && ENG_VCPU_SIZE <= ENG_TT_KERNEL, "part of a vCPU's arena");
_Static_assert(ENG_VCPU_SMALL + ENG_MAX_VCPUS * ENG_VCPU_SIZE <= ENG_ICACHE_BASE, "before the next");

/* ---- where ---- */

static bool is_user(unsigned cls)
{
	return cls == JC_USER64 || cls == JC_USER32;
}

static u64 arena(const struct vcpu *cpu)
{
	return (u64)cpu - ENG_VCPU_STATE + ENG_VCPU_JC;
}

static u64 piece(const struct vcpu *cpu, unsigned slot)
{
	return tt_user_area(cpu, slot);
}

static const u32 at[JC_COUNT] = {[JC_USER64] = ENG_JC_USER64, [JC_USER32] = ENG_JC_USER32, [JC_KERNEL64] = ENG_JC_KERNEL64,
				 [JC_KERNEL64_AC] = ENG_JC_KERNEL64_AC, [JC_KERNEL32] = ENG_JC_KERNEL32};

static struct jc_table *table_in(const struct vcpu *cpu, unsigned cls, unsigned slot)
{
	return (struct jc_table *)((is_user(cls) ? piece(cpu, slot) : arena(cpu)) + at[cls]);
}

/* The current one of the class. */
static struct jc_table *table(const struct vcpu *cpu, unsigned cls)
{
	return table_in(cpu, cls, cpu->tr.user_slot);
}

struct hostmem jc_field(unsigned cls, size_t field)
{
	struct hostmem m = {.base = H_NONE, .index = S0, .shift = 3};

	m.fs = is_user(cls);
	m.gs = !m.fs;
	m.disp = (s32)(m.fs ? at[cls] - ENG_JC_USER_FS : ENG_VCPU_JC - ENG_VCPU_STATE + at[cls]) + (s32)field;
	return m;
}

/* ---- FS ---- */

static void set_fs(const struct vcpu *cpu, unsigned slot)
{
	u64 fs = piece(cpu, slot) + ENG_JC_USER_FS;

	if (cpu->tr.fsgsbase)
		__asm__ volatile("wrfsbase %0" : : "r"(fs) : "memory");
	else
		sys_call(SYS_arch_prctl, ARCH_SET_FS, fs);
}

/*
 * FS is the C library's pointer to what belongs to this thread. It finds copies of that wherever FS points from now on: it reads
 * a few constants there, and errno is used before the address space can change.
 */
bool jc_start(struct vcpu *cpu)
{
	u64 fs = 0, before = tls_size(), behind = 0;

	if (sys_call(SYS_mmap, arena(cpu), ENG_JC_SIZE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != (long)arena(cpu))
		return false;
	if (sys_call(SYS_arch_prctl, ARCH_GET_FS, &fs) < 0)
		return false;
	behind = MIN(TCB_SIZE - (fs & (TCB_SIZE - 1)), (u64)TCB_SIZE); /* of the page it is in */
	if (before > ENG_JC_USER_FS)
		return false;
	for (unsigned i = 0; i < TT_USER_CTX; i++)
		memcpy((u8 *)piece(cpu, i) + ENG_JC_USER_FS - before, (const u8 *)fs - before, before + behind);
	cpu->tr.far_mask = FAR_MASK;
	cpu->tr.fsgsbase = tls_can_wrfsbase();
	set_fs(cpu, cpu->tr.user_slot);
	return true;
}

/* ---- entries ---- */

static void empty(struct jc_table *t, unsigned n, u64 logged)
{
	t->negated[n] = logged;
	t->host[n] = (u64)tr_jump_miss;
}

static bool is_empty(const struct jc_table *t, unsigned n)
{
	return t->host[n] == (u64)tr_jump_miss;
}

/* Entry 0 is nobody's while PEXT makes the index. */
static bool usable(unsigned n)
{
	return n || !jc_by_pext();
}

static unsigned first_place(u64 rip)
{
	return (jc_by_pext() ? rip >> 3 : rip) & 0xffff;
}

static unsigned second_place(u64 rip)
{
	return (jc_by_pext() ? (rip + (rip >> 12)) >> 3 : rip) & 0xffff;
}

static bool is_for(const struct jc_table *t, unsigned n, u64 rip)
{
	return usable(n) && !is_empty(t, n) && t->negated[n] + rip == 0; /* the jump has just read host[n] */
}

void jc_ready(struct vcpu *cpu, unsigned cls)
{
	struct jc_table *t = NULL;

	if (cls == JC_NONE || likely(table(cpu, cls)->ready))
		return;
	t = table(cpu, cls);
	t->ready = true;
	if (cls == JC_KERNEL64 || cls == JC_KERNEL64_AC) /* STAC and CLAC lead from one to the other */
		jc_ready(cpu, cls ^ JC_KERNEL64 ^ JC_KERNEL64_AC);
	for (unsigned i = 0; i < JC_ENTRIES; i++)
		empty(t, i, 0);
	if (jc_by_pext())
		t->host[0] = (u64)tr_jump_again[cls];
}

/* Code may go on without being looked up: the tables of the modes that have run are to be ready. */
void jc_switch(struct vcpu *cpu, unsigned slot)
{
	unsigned old = cpu->tr.user_slot;

	cpu->tr.user_slot = slot;
	for (unsigned i = 0; i < JC_COUNT; i++)
		if (is_user(i) && table_in(cpu, i, old)->ready)
			jc_ready(cpu, i);
	set_fs(cpu, slot);
}

static void forget(struct jc_table *t)
{
	for (u32 i = 0; i < t->n; i++)
		empty(t, t->log[i], 0);
	for (u32 i = 0; i < t->far_n; i++)
		t->far[t->far_log[i]] = 0;
	t->n = t->far_n = 0;
}

void jc_forget_slot(struct vcpu *cpu, unsigned slot)
{
	forget(table_in(cpu, JC_USER64, slot));
	forget(table_in(cpu, JC_USER32, slot));
}

void jc_forget_low(struct vcpu *cpu)
{
	forget(table(cpu, JC_KERNEL32));
}

void tr_forget_targets(struct vcpu *cpu)
{
	if (!cpu->tr.on)
		return;
	for (unsigned i = 0; i < JC_COUNT; i++)
		forget(table(cpu, i));
	for (unsigned i = 0; i < TT_USER_CTX; i++)
		jc_forget_slot(cpu, i);
	memset(cpu->tr.jc_pages, 0, sizeof(cpu->tr.jc_pages));
}

static unsigned page_bit(u64 a)
{
	return (a >> 12) * 0x9e3779b97f4a7c15ull >> 48;
}

/* Entry 0 is what a jump finds while somebody asks for attention. */
static unsigned far_place(u64 a)
{
	return a >> 12 & 0xffff;
}

static void forget_page(struct jc_table *t, u64 page)
{
	if (t->far[far_place(page)])
		t->far[far_place(page)] = FAR_GONE; /* maybe another's: it comes back */
	for (u32 i = 0; i < t->n; i++)
		if ((-t->negated[t->log[i]] & PAGE_MASK) == page)
			empty(t, t->log[i], JC_LOGGED);
}

/* Low addresses are those of the current address space, which only its tables and KERNEL32 hold: jc_install(). */
void tr_forget_page(struct vcpu *cpu, u64 a)
{
	unsigned n = page_bit(a);
	u64 page = a & PAGE_MASK;

	if (!cpu->tr.on || !(cpu->tr.jc_pages[n >> 6] >> (n & 63) & 1))
		return;
	for (unsigned i = 0; i < JC_COUNT; i++)
		if (a >> 63 || (i != JC_KERNEL64 && i != JC_KERNEL64_AC))
			forget_page(table(cpu, i), page);
	for (unsigned i = 0; a >> 63 && i < TT_USER_CTX; i++)
		for (unsigned k = 0; k < JC_COUNT; k++)
			if (is_user(k))
				forget_page(table_in(cpu, k, i), page);
}

/* The second place only where the first one is taken. */
static unsigned choose(const struct jc_table *t, u64 rip)
{
	unsigned first = first_place(rip), second = second_place(rip);

	if (usable(first) && (is_empty(t, first) || is_for(t, first, rip) || !usable(second)))
		return first;
	return second;
}

bool jc_far_ok(gpa_t gpa)
{
	u64 frame = gpa >> 12;

	return jc_by_pext() && frame < FAR_FRAMES && (frame & 0xfff);
}

/* Low addresses of kernel modes change with CR3. */
static bool is_kept(unsigned cls, u64 a)
{
	return cls != JC_NONE && !tr_checking() && ((cls != JC_KERNEL64 && cls != JC_KERNEL64_AC) || a >> 63);
}

static void note_page(struct vcpu *cpu, u64 a)
{
	unsigned n = page_bit(a);

	cpu->tr.jc_pages[n >> 6] |= BIT64(n & 63);
}

bool jc_install_page(struct vcpu *cpu, unsigned cls, u64 a, gpa_t gpa)
{
	struct jc_table *t = NULL;
	unsigned n = far_place(a);

	if (!n || !jc_far_ok(gpa) || !is_kept(cls, a))
		return false;
	t = table(cpu, cls);
	if (!t->far[n])
		t->far_log[t->far_n++] = (u16)n;
	t->far[n] = -((a & PAGE_MASK) + (gpa >> 12));
	note_page(cpu, a);
	return true;
}

void jc_install(struct vcpu *cpu, unsigned cls, u64 rip, const struct tblock *b)
{
	struct jc_table *t = NULL;
	unsigned n = 0;

	if (!is_kept(cls, rip))
		return;
	jc_install_page(cpu, cls, rip, b->gpa);
	t = table(cpu, cls);
	n = choose(t, rip);
	if (!usable(n))
		return;
	if (is_empty(t, n) && t->negated[n] != JC_LOGGED)
		t->log[t->n++] = (u16)n;
	t->negated[n] = -rip;
	t->host[n] = b->enter;
	note_page(cpu, rip);
}

u64 jc_find(struct vcpu *cpu, unsigned cls, u64 rip)
{
	const struct jc_table *t = NULL;
	unsigned first = first_place(rip), second = second_place(rip);

	if (cls == JC_NONE)
		return 0;
	t = table(cpu, cls);
	if (is_for(t, first, rip))
		return gen_behind_arrival(t->host[first]);
	if (!is_empty(t, first) && is_for(t, second, rip)) /* else it is to be put into the first place */
		return gen_behind_arrival(t->host[second]);
	return 0;
}

void jc_drop(struct vcpu *cpu, unsigned cls, u64 rip)
{
	struct jc_table *t = NULL;
	unsigned places[] = {first_place(rip), second_place(rip)};

	if (cls == JC_NONE)
		return;
	t = table(cpu, cls);
	for (unsigned i = 0; i < ARRAY_SIZE(places); i++)
		if (is_for(t, places[i], rip))
			empty(t, places[i], JC_LOGGED);
}
