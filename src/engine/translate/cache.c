/*
 * The cache of translated blocks, shared by all vCPUs. Numbers instead of pointers: code holds 32-bit constants. Looking up
 * takes no lock; all else runs under the lock of the interpreter's cache (block.c), whose pages it shares, so that one
 * write invalidates both.
 *
 * A block dies by one store: its body begins with a jump out. Chains and jump caches that lead to it are mended
 * when they are followed. Memory is used anew only after a flush of the whole cache, at a safe point.
 */
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/cpu/record.h"
#include "engine/lib/lib.h"
#include "engine/translate/check.h"
#include "engine/translate/stress.h"
#include "engine/translate/tr_int.h"
#include "engine/interp/stub.h"

#define HASH_BITS  16
#define MAX_SITES  0x900000u
#define BLOCK_CODE 16384 /* at most so much code in a block */
#define BLOCK_SITES (TR_MAX_INSNS * 5 + 8)
#define BLOCK_APART (BLOCK_SITES * LEAVE_BYTES)

#define BLOCKS_AT   (ENG_TCACHE_BASE + TR_HEAD_SIZE)
#define EMU_AT      (TR_SITES_AT + (u64)MAX_SITES * sizeof(struct tr_site))
#define EMU_END     (ENG_TCACHE_BASE + ENG_TCACHE_SIZE)

#define CODE_RX     (ENG_CODE_RX + STUB_REGION)
#define CODE_RW     (ENG_CODE_RW + STUB_REGION)
#define LARGE      (2ull << 20)
#define LARGE_FROM (12ull << 20)
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif
#define CODE_LIMIT  (96ull << 20) /* address space; tr_stress()->code_size of it is used */

struct tcache {
	u32 nblocks; /* entry 0 stays empty */
	u32 nsites;
	u64 code_used, emu_used, apart_used;
	u64 kills;
	u64 large; /* of the code: in large pages */
	bool large_failed;
	bool ready;
	bool pext;
	u32 hash[1u << HASH_BITS];
};

_Static_assert(sizeof(struct tcache) <= TR_HEAD_SIZE, "header fits");
_Static_assert(EMU_AT + (64ull << 20) < EMU_END, "arena holds all");

static struct tcache *cache(void)
{
	return (struct tcache *)ENG_TCACHE_BASE;
}

struct tblock *tb_at(u32 n)
{
	return (struct tblock *)BLOCKS_AT + n;
}

u32 tb_count(void)
{
	return __atomic_load_n(&cache()->nblocks, __ATOMIC_ACQUIRE);
}

struct tr_site *site_at(u32 n)
{
	return (struct tr_site *)TR_SITES_AT + n;
}

/* RORX: page numbers without touching the flags. */
static bool host_has_bmi2(void)
{
	u32 a = 7, b = 0, c = 0, d = 0;

	__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
	return b >> 8 & 1;
}

/* Zen and Zen 2 (families 17h and 18h) have PEXT in microcode, tens of cycles and more. */
static bool host_pext_is_fast(void)
{
	u32 a = 1, b = 0, c = 0, d = 0;
	u32 family = 0;

	__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
	family = (a >> 8 & 15) + (a >> 20 & 255);
	return family != 0x17 && family != 0x18;
}

bool jc_by_pext(void)
{
	return cache()->pext;
}

bool tr_init(void)
{
	int fd = (int)sys_call(SYS_memfd_create, "code", 0);
	long a = 0, b = 0;

	if (!host_has_bmi2() || fd < 0)
		return false;
	if (sys_call(SYS_ftruncate, fd, CODE_LIMIT) < 0)
		return false;
	a = sys_call(SYS_mmap, CODE_RX, CODE_LIMIT, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
	b = sys_call(SYS_mmap, CODE_RW, CODE_LIMIT, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
	sys_call(SYS_close, fd);
	if (a != (long)CODE_RX || b != (long)CODE_RW)
		return false;
	cache()->nblocks = 1;
	cache()->pext = host_pext_is_fast() && !tr_stress()->nopext;
	cache()->ready = true;
	return true;
}

bool tr_available(void)
{
	return cache()->ready;
}

bool tr_much_code(void)
{
	return cache()->code_used > tr_stress()->code_size / 4;
}

u64 tr_kill_count(void)
{
	return __atomic_load_n(&cache()->kills, __ATOMIC_ACQUIRE);
}

/* ---- looking up ---- */

static u32 *bucket(gpa_t gpa, u32 key)
{
	u64 h = (gpa ^ (u64)key << 24) * 0x9e3779b97f4a7c15ull;

	return &cache()->hash[h >> (64 - HASH_BITS)];
}

struct tblock *tb_find(gpa_t gpa, u32 key)
{
	u32 n = __atomic_load_n(bucket(gpa, key), __ATOMIC_ACQUIRE);

	while (n) {
		struct tblock *b = tb_at(n);

		if (b->gpa == gpa && b->key == key && !__atomic_load_n(&b->dead, __ATOMIC_RELAXED))
			return b;
		n = __atomic_load_n(&b->hash_next, __ATOMIC_ACQUIRE);
	}
	return NULL;
}

/* Blocks lie in the order of their code. */
struct tblock *tb_of_code(u64 host)
{
	u32 lo = 1, hi = __atomic_load_n(&cache()->nblocks, __ATOMIC_ACQUIRE);

	if (host < CODE_RX || host >= CODE_RX + CODE_LIMIT)
		return NULL;
	while (lo < hi) {
		u32 mid = lo + (hi - lo) / 2;

		if (tb_at(mid)->end <= host)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < cache()->nblocks && tb_at(lo)->begin <= host ? tb_at(lo) : NULL;
}

struct tr_site *site_of_code(u64 host)
{
	const struct tblock *b = tb_of_code(host);

	for (u32 i = 0; b && i < b->nsites; i++)
		if (site_at(b->first_site + i)->at == host)
			return site_at(b->first_site + i);
	return NULL;
}

/* ---- making ---- */

/* The end of the code is for what is seldom reached. */
static u64 apart_size(void)
{
	return tr_stress()->code_size / 6 & ~63ull;
}

static u64 apart_from(void) /* and before it the blocks */
{
	return tr_stress()->code_size - apart_size();
}

static void begin(struct build *b, struct vcpu *cpu, u32 key, unsigned limit)
{
	struct tcache *c = cache();

	memset(b, 0, sizeof(*b));
	b->cpu = cpu;
	b->key = key;
	b->limit = limit;
	b->s1_guest = INSN_NO_REG;
	b->s0_held = H_NONE;
	b->idx = cpu->mode.mmu_idx;
	b->mode64 = cpu->mode.long64;
	b->b = tb_at(c->nblocks);
	memset(b->b, 0, sizeof(*b->b));
	b->b->first_site = c->nsites;
	b->site = site_at(c->nsites);
	b->max_sites = BLOCK_SITES;
	b->e.p = (u8 *)CODE_RW + c->code_used;
	b->e.end = b->e.p + BLOCK_CODE;
	b->e.rx = b->apart.rx = (s64)CODE_RX - (s64)CODE_RW;
	b->apart.p = (u8 *)CODE_RW + apart_from() + c->apart_used;
	b->apart.end = b->apart.p + BLOCK_APART;
	b->emu = (u8 *)ALIGN_UP(EMU_AT, 64) + c->emu_used;
	b->emu_end = b->emu + TR_MAX_INSNS * EMU_SIZE;
}

static bool has_room(void)
{
	const struct tcache *c = cache();

	return c->nblocks < TR_MAX_BLOCKS && c->nsites + BLOCK_SITES < MAX_SITES &&
	       c->code_used + BLOCK_CODE <= apart_from() && c->apart_used + BLOCK_APART <= apart_size() &&
	       ALIGN_UP(EMU_AT, 64) + c->emu_used + TR_MAX_INSNS * EMU_SIZE <= EMU_END;
}

/*
 * Much code is spread over more pages than the host's TLB of instructions knows: full pieces of it become large pages, where the host has
 * any for shared memory. It takes a millisecond or more for each, so guests with little code are spared that.
 */
static void make_large_locked(struct tcache *c)
{
	u64 full = c->code_used & ~(LARGE - 1);

	if (full < LARGE_FROM || c->large_failed)
		return;
	for (; c->large < full && !c->large_failed; c->large += LARGE)
		c->large_failed = sys_call(SYS_madvise, CODE_RX + c->large, LARGE, MADV_COLLAPSE) < 0;
}

/* Lists: of the block's page, and of the second one if there is. */
static struct tblock *link_locked(struct build *b, gpa_t gpa, u32 *page_list, u32 *second_list)
{
	struct tcache *c = cache();
	struct tblock *t = b->b;
	u32 *h = NULL, n = c->nblocks;

	t->gpa = gpa;
	t->key = b->key;
	t->nsites = b->nsites;
	t->page_next = *page_list;
	*page_list = n;
	if (b->second) {
		t->cross = (u32)(b->second >> 12);
		t->cross_next = *second_list;
		*second_list = n;
	}
	c->code_used = ALIGN_UP(t->end - CODE_RX, 16);
	make_large_locked(c);
	c->apart_used = (u64)b->apart.p - (CODE_RW + apart_from());
	c->nsites += b->nsites;
	c->emu_used = (u64)b->emu - ALIGN_UP(EMU_AT, 64);
	__atomic_store_n(&c->nblocks, n + 1, __ATOMIC_RELEASE);
	h = bucket(gpa, b->key);
	t->hash_next = *h;
	__atomic_store_n(h, n, __ATOMIC_RELEASE);
	return t;
}

static void flush_at_safepoint(struct vm *vm, void *arg)
{
	if (has_room())
		return; /* another vCPU's flush served this one too */
	code_flush_all();
	for (u32 i = 0; i < vm->nvcpus; i++)
		interp_forget_lookups(vm->vcpus[i]);
}

/* What is too long for the reach of its jumps, or the room for a block's sites, is made shorter. */
static bool build(struct build *b, struct vcpu *cpu, gpa_t gpa, gpa_t second, u32 key, enum page_mode mode)
{
	for (unsigned limit = second ? 1 : tr_stress()->max_insns; limit; limit /= 2) {
		begin(b, cpu, key, limit);
		b->second = second;
		b->checked = mode != PAGE_PROTECTED;
		b->soft = mode >= PAGE_SOFT;
		if (build_block(b, gpa))
			return true;
		if (!b->total)
			return false;
	}
	return false;
}

enum made { MADE, AGAIN, NEVER, FULL };

/* The page is as make() found it, and writes to it are seen. */
static bool still_so(gpa_t page, enum page_mode mode)
{
	return icache_page_mode(page) == mode && (mode != PAGE_PROTECTED || __atomic_load_n(page_attr(page), __ATOMIC_ACQUIRE) & PA_CODE);
}

/* The part of the block's code that lies in the page. */
static gpa_t part_in(const struct tblock *b, gpa_t page, gpa_t *last)
{
	gpa_t end = b->gpa + b->bytes - 1;

	if ((b->gpa & PAGE_MASK) == page) {
		*last = MIN(end, page + PAGE_SIZE - 1);
		return b->gpa;
	}
	*last = page | (end & ~PAGE_MASK);
	return page;
}

static void cover_locked(const struct tblock *t, gpa_t page)
{
	gpa_t last = 0, first = part_in(t, page, &last);

	icache_page_cover_locked(page, first, last);
}

static enum made make(struct vcpu *cpu, gpa_t gpa, gpa_t second, u32 key, struct tblock **out)
{
	struct build b;
	enum made r = MADE;
	gpa_t page = gpa & PAGE_MASK;
	enum page_mode mode = icache_page_mode(page);
	u32 *list = NULL, *second_list = NULL;

	if (second && (mode != PAGE_PROTECTED || icache_page_mode(second) != PAGE_PROTECTED))
		return NEVER;
	if (mode == PAGE_PROTECTED)
		mmu_mark_code(cpu, page);
	if (second)
		mmu_mark_code(cpu, second);
	icache_lock();
	*out = tb_find(gpa, key);
	if (*out)
		goto out;
	list = icache_page_blocks_locked(page);
	second_list = list && second ? icache_page_blocks_locked(second) : NULL;
	if (!has_room() || !list || (second && !second_list)) {
		r = FULL;
	} else if (!still_so(page, mode) || (second && !still_so(second, PAGE_PROTECTED))) {
		r = AGAIN;
	} else if (build(&b, cpu, gpa, second, key, mode)) {
		*out = link_locked(&b, gpa, list, second_list);
		cover_locked(*out, page);
		if (second)
			cover_locked(*out, second);
		cpu->stats.tr_blocks++;
	} else {
		r = NEVER;
	}
out:
	icache_unlock();
	return r;
}

static struct tblock *make_at(struct vcpu *cpu, gpa_t gpa, gpa_t second, u32 key_bits)
{
	struct tblock *b = NULL;

	for (;;) {
		switch (make(cpu, gpa, second, tr_key(cpu) | key_bits, &b)) {
		case MADE:
			if (records_coverage(cpu))
				record_coverage(cpu, (code_linear(cpu) & PAGE_MASK) | (gpa & ~PAGE_MASK), b->bytes);
			return b;
		case NEVER:
			return NULL;
		case FULL:
			vm_safepoint(cpu->vm, cpu, flush_at_safepoint, NULL);
			break;
		case AGAIN:
			break;
		}
	}
}

struct tblock *tb_make(struct vcpu *cpu, gpa_t gpa, u32 key_bits)
{
	return make_at(cpu, gpa, 0, key_bits);
}

struct tblock *tb_make_crossing(struct vcpu *cpu, gpa_t gpa, gpa_t second)
{
	if (tr_checking() || tr_jc_class(tr_key(cpu)) == JC_NONE || !jc_far_ok(second) || second == (gpa & PAGE_MASK))
		return NULL;
	return make_at(cpu, gpa, second, 0);
}

/* Another vCPU may execute the jump meanwhile: its rel32 lies in one aligned quadword (SDM 3A 9.1.1; emit_unsplit()). */
static void redirect_locked(u64 end, u64 target)
{
	eng_assert(((end - 4) & 7) <= 4);
	emit_patch_rel32((s64)CODE_RX - (s64)CODE_RW, end, target);
}

void tb_chain(struct tr_site *s, const struct tblock *to)
{
	if (tr_checking())
		return;
	icache_lock();
	if (!to->dead && s->host)
		redirect_locked(s->host, to->body);
	icache_unlock();
}

/*
 * In this order: the constant, the jump to the block, and only then the way around it. Another vCPU that runs there in between does
 * not find its page, and comes here or goes to the block.
 */
void tb_chain_far(struct tr_site *s, const struct tblock *to)
{
	unsigned cls = tr_jc_class(to->key);

	if (tr_checking() || cls == JC_NONE)
		return;
	icache_lock();
	if (!to->dead && s->host) {
		if (jc_far_ok(to->gpa)) {
			*(volatile u32 *)(gen_far_constant(s->host) - CODE_RX + CODE_RW) = (u32)((to->gpa >> 12) - (to->gpa & ~PAGE_MASK));
			redirect_locked(s->host, gen_far_arrival(to->enter));
		}
		redirect_locked(s->island, (u64)tr_far_jump[cls]);
		s->host = 0;
	}
	icache_unlock();
}

void tb_succeed(u32 dead, const struct tblock *to)
{
	const struct tblock *d = tb_at(dead);

	icache_lock();
	if (d->dead && !to->dead && d != to && d->gpa == to->gpa && d->key == to->key)
		redirect_locked(d->dead_stub + LEAVE_BYTES, to->body);
	icache_unlock();
}

void tb_divert(struct tr_site *s, const struct tblock *to)
{
	if (tr_checking())
		return;
	icache_lock();
	if (!to->dead && s->island)
		redirect_locked(s->island, to->body);
	icache_unlock();
}

/* ---- dropping ---- */

static void kill_locked(struct tblock *b)
{
	u32 *p = bucket(b->gpa, b->key), n = (u32)(b - tb_at(0));
	u64 word = 0;
	u64 *at = (u64 *)(b->body - CODE_RX + CODE_RW);
	s32 rel = (s32)(b->dead_stub - (b->body + 5));

	while (*p != n)
		p = &tb_at(*p)->hash_next;
	__atomic_store_n(p, b->hash_next, __ATOMIC_RELEASE);
	__atomic_store_n(&b->dead, true, __ATOMIC_RELEASE);
	word = (*at & ~0xffffffffffull) | (u64)(u32)rel << 8 | 0xe9;
	__atomic_store_n(at, word, __ATOMIC_SEQ_CST); /* aligned to 8 */
	__atomic_fetch_add(&cache()->kills, 1, __ATOMIC_SEQ_CST);
}

/* In the list of the page, which is the block's first or its second one. */
static u32 *next_in(struct tblock *b, gpa_t page)
{
	return (b->gpa & PAGE_MASK) == page ? &b->page_next : &b->cross_next;
}

void tb_stale(u32 block)
{
	struct tblock *b = tb_at(block);
	u32 *p = NULL;

	icache_lock();
	if (!b->dead) {
		p = icache_page_blocks_locked(b->gpa & PAGE_MASK);
		while (tb_at(*p) != b)
			p = next_in(tb_at(*p), b->gpa & PAGE_MASK);
		*p = b->page_next;
		kill_locked(b);
		icache_page_soft_locked(b->gpa & PAGE_MASK);
	}
	icache_unlock();
}

/* A loop inside of a dead block would go on for ever. */
static void kick_others(void)
{
	struct vm *vm = the_vm();

	for (u32 i = 0; vm->nvcpus > 1 && i < vm->nvcpus; i++)
		vcpu_kick(vm->vcpus[i], ATT_IRQ);
}

/* A block in two pages that died by a write to one of them is still in the other's list. */
bool tr_invalidate_locked(u32 *list, gpa_t first, gpa_t last, icache_cover_fn *keep, void *arg)
{
	gpa_t page = first & PAGE_MASK;
	bool any = false;

	while (*list) {
		struct tblock *b = tb_at(*list);
		u32 *next = next_in(b, page);
		gpa_t to = 0, from = part_in(b, page, &to);

		if (!b->dead && (from > last || to < first)) {
			keep(arg, from, to);
			list = next;
			continue;
		}
		*list = *next;
		if (!b->dead) {
			kill_locked(b);
			any = true;
		}
	}
	if (any)
		kick_others();
	return any;
}

void tr_flush_locked(void)
{
	struct tcache *c = cache();

	if (!c->ready)
		return;
	c->nblocks = 1;
	c->nsites = 0;
	c->code_used = c->emu_used = c->apart_used = 0;
	memset(c->hash, 0, sizeof(c->hash));
	__atomic_fetch_add(&c->kills, 1, __ATOMIC_SEQ_CST);
}
