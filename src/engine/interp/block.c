/*
 * The cache of decoded blocks, shared by all vCPUs. It fills the ICACHE arena, which the engine maps at start (zeroed, NORESERVE).
 *
 * Looking up takes no lock: buckets and chains only ever gain initialised blocks, and a block that was unlinked keeps
 * its memory and its chain pointer until the whole cache is flushed, at a safe point. Everything else runs under the
 * icache lock.
 *
 * Against code that changes while it is being decoded: code_invalidate() counts page->seq up before the write,
 * and a block is linked only if the page is still marked and its count is that of before the bytes were read.
 */
#include <sys/mman.h>
#include <sys/syscall.h>

#include "engine/cpu/record.h"
#include "engine/interp/interp_int.h"
#include "engine/translate/stress.h"

#define HASH_BITS  16
#define HASH_SIZE  (1u << HASH_BITS)
#define MAX_PAGES  (1u << 20)

#define PAGE_INDEX_BASE (ENG_ICACHE_BASE + 0x001000000ull) /* u32 per guest page frame */
#define PAGE_INDEX_SIZE ((ENG_GPA_LIMIT >> 12) * 4)
#define VCPU_BASE       (PAGE_INDEX_BASE + PAGE_INDEX_SIZE)
#define VCPU_STRIDE     0x100000ull
#define PAGES_BASE      (VCPU_BASE + VCPU_STRIDE * ENG_MAX_VCPUS)
#define BLOCKS_BASE     (PAGES_BASE + MAX_PAGES * sizeof(struct icache_page))
#define BLOCKS_SIZE     0x10000000ull
#define BLOCKS_MIN      0x00c00000ull

/* Filling the cache sooner than this after a flush means that decoding anew costs a good part of the time. */
#define THRASH_NS       150000000ull
/* Not filling it for this long means that a smaller one would do. */
#define CALM_NS         10000000000ull

/* A guest page with blocks, or that had some. */
struct icache_page {
	gpa_t gpa;
	u64 granules; /* one bit per 64 bytes that some block covers */
	struct iblock *blocks;
	u32 tblocks;  /* translated blocks: number of the first */
	u32 seq;      /* invalidations, also those that met no block */
	u32 hits;     /* those that did */
	/* pages that hold code and data that change: see icache_page_mode() */
	u32 stores;     /* of the vCPUs, since window_tsc */
	u64 window_tsc;
	u64 until_tsc;  /* checked until then */
	u32 next;       /* checked pages: list */
	u8 mode, tries;
	u16 stale; /* blocks found changed since it is checked */
	bool translated; /* some code of it has been: it can be checked */
};

/* So many stores to a page with code within the window, and its code is checked rather than protected from then on. */
#define MIX_STORES 64
#define MIX_STORE  64 /* bytes, at most */
#define MIX_WINDOW BIT64(28) /* ticks of the host's TSC: about 0.1 s */
#define MIX_TIME   BIT64(31) /* first time; doubled each time it happens to the page again */
#define MIX_TRIES  6
#define MIX_WILD   256 /* blocks found changed in a page */

struct icache {
	u32 lock;
	u32 npages;     /* entries in use; entry 0 stays empty */
	u64 generation; /* flushes */
	u64 used;       /* bytes of the block area */
	u64 limit;      /* of used: grows while code does not fit, so that an idle guest costs little memory; 0: BLOCKS_MIN */
	u64 flushed_ns; /* when it was full last */
	u32 checked;    /* first of the pages in PAGE_CHECKED or PAGE_SOFT; 0: none */
	u64 sweep_tsc;   /* when the next of them may be protected again */
	struct iblock *hash[HASH_SIZE];
};

_Static_assert(sizeof(struct icache) <= PAGE_INDEX_BASE - ENG_ICACHE_BASE, "header fits");
_Static_assert(BLOCKS_BASE + BLOCKS_SIZE <= ENG_COVERAGE_BASE, "arena holds all");
_Static_assert(2 * sizeof(struct icache_vcpu) <= VCPU_STRIDE, "two per vCPU");

static struct icache *cache(void)
{
	return (struct icache *)ENG_ICACHE_BASE;
}

static u32 *page_index(gpa_t a)
{
	return (u32 *)PAGE_INDEX_BASE + (a >> PAGE_SHIFT);
}

static struct icache_page *page_entry(u32 n)
{
	return (struct icache_page *)PAGES_BASE + n;
}

static struct iblock **bucket(gpa_t gpa, u32 key)
{
	u64 h = (gpa ^ (u64)key << 20) * 0x9e3779b97f4a7c15ull;

	return &cache()->hash[h >> (64 - HASH_BITS)];
}

u64 icache_generation(void)
{
	return __atomic_load_n(&cache()->generation, __ATOMIC_ACQUIRE);
}

struct icache_vcpu *icache_vcpu(struct vcpu *cpu)
{
	return (struct icache_vcpu *)(VCPU_BASE + cpu->id % ENG_MAX_VCPUS * VCPU_STRIDE);
}

static void *block_alloc_locked(u64 size)
{
	struct icache *c = cache();
	u64 at = c->used;

	size = ALIGN_UP(size, 64);
	if (size > MAX(c->limit, BLOCKS_MIN) - at)
		return NULL;
	c->used = at + size;
	return (void *)(BLOCKS_BASE + at);
}

/* ---- dropping ---- */

static u64 granule_mask(gpa_t first, gpa_t last)
{
	unsigned lo = (first & 0xfff) >> 6, hi = (last & 0xfff) >> 6;

	return (~0ull >> (63 - hi)) & (~0ull << lo);
}

static void unlink_hash_locked(struct iblock *b)
{
	struct iblock **p = bucket(b->gpa, b->key);

	while (*p != b)
		p = &(*p)->hash_next;
	__atomic_store_n(p, b->hash_next, __ATOMIC_RELEASE); /* b->hash_next stays for readers on it */
}

static void kill_block_locked(struct iblock *b)
{
	unlink_hash_locked(b);
	b->dead = true;
	for (unsigned i = 0; i < b->nops; i++)
		__atomic_store_n(&b->ops[i].fn, interp_leave, __ATOMIC_RELEASE);
}

static void cover(void *arg, gpa_t first, gpa_t last)
{
	*(u64 *)arg |= granule_mask(first, last);
}

static void drop_blocks_locked(struct icache_page *pg, gpa_t first, gpa_t last)
{
	struct iblock **p = &pg->blocks;
	u64 granules = 0;

	tr_invalidate_locked(&pg->tblocks, first, last, cover, &granules);
	while (*p) {
		struct iblock *b = *p;

		if (b->gpa <= last && b->gpa + b->bytes > first) {
			*p = b->page_next;
			kill_block_locked(b);
		} else {
			granules |= granule_mask(b->gpa, b->gpa + b->bytes - 1);
			p = &b->page_next;
		}
	}
	pg->granules = granules;
}

/* Many stores in a short time: from now on nothing but blocks that check their code is made of the page. */
static void count_store_locked(struct icache_page *pg)
{
	u64 now = 0;

	if (++pg->stores < MIX_STORES || !pg->translated)
		return;
	now = __builtin_ia32_rdtsc();
	pg->stores = 0;
	if (now - pg->window_tsc > MIX_WINDOW) {
		pg->window_tsc = now;
		return;
	}
	drop_blocks_locked(pg, pg->gpa, pg->gpa + PAGE_SIZE - 1);
	if (pg->mode != PAGE_PROTECTED)
		return;
	pg->until_tsc = now + (MIX_TIME << pg->tries);
	pg->tries = MIN(pg->tries + 1, MIX_TRIES);
	pg->stale = 0;
	pg->next = cache()->checked;
	cache()->checked = (u32)(pg - page_entry(0));
	cache()->sweep_tsc = MIN(cache()->sweep_tsc - 1, pg->until_tsc - 1) + 1; /* 0: none yet */
	__atomic_store_n(&pg->mode, PAGE_CHECKED, __ATOMIC_RELEASE);
}

static void invalidate_page_locked(gpa_t first, gpa_t last)
{
	u32 n = *page_index(first);
	struct icache_page *pg = page_entry(n);

	if (n) {
		__atomic_fetch_add(&pg->seq, 1, __ATOMIC_RELEASE);
		if (last - first < MIX_STORE) /* a device's block, or a test's program, comes once */
			count_store_locked(pg);
	}
	if (n && pg->granules & granule_mask(first, last)) {
		pg->hits++;
		drop_blocks_locked(pg, first, last);
	}
	if (!n || (!pg->blocks && !pg->tblocks))
		mmu_clear_code(first & PAGE_MASK);
}

void code_invalidate(gpa_t a, u64 n)
{
	gpa_t end = n > ENG_GPA_LIMIT || a > ENG_GPA_LIMIT - n ? ENG_GPA_LIMIT : a + n;

	while (a < end) {
		gpa_t last = MIN(end, (a & PAGE_MASK) + PAGE_SIZE) - 1;

		if (__atomic_load_n(page_attr(a), __ATOMIC_ACQUIRE) & PA_CODE) {
			eng_lock(&cache()->lock);
			invalidate_page_locked(a, last);
			eng_unlock(&cache()->lock);
		}
		a = last + 1;
	}
}

/* Of the interpreter only: pages keep what else is known of them. */
static void forget_blocks_locked(struct icache *c)
{
	for (u32 i = 1; i < c->npages; i++)
		page_entry(i)->blocks = NULL;
	c->used = 0;
	memset(c->hash, 0, sizeof(c->hash));
	__atomic_fetch_add(&c->generation, 1, __ATOMIC_RELEASE);
}

void code_flush_all(void)
{
	struct icache *c = cache();

	eng_lock(&c->lock);
	forget_blocks_locked(c);
	for (u32 i = 1; i < c->npages; i++) {
		struct icache_page *pg = page_entry(i);

		*page_index(pg->gpa) = 0;
		mmu_clear_code(pg->gpa);
		memset(pg, 0, sizeof(*pg));
	}
	tr_flush_locked();
	c->npages = 0;
	c->checked = 0;
	eng_unlock(&c->lock);
}

/* The cache is full: the size it shall have from now on, by how long it lasted. */
static void adapt_limit(struct icache *c)
{
	u64 now = eng_now_ns(), lasted = now - c->flushed_ns, limit = MAX(c->limit, BLOCKS_MIN);

	if (c->flushed_ns && lasted < THRASH_NS)
		limit = MIN(limit * 2, BLOCKS_SIZE);
	else if (lasted > CALM_NS)
		limit = MAX(limit / 2, BLOCKS_MIN);
	if (limit < c->limit)
		sys_call(SYS_madvise, BLOCKS_BASE + limit, c->limit - limit, MADV_DONTNEED);
	c->limit = limit;
	c->flushed_ns = now;
}

/* What is translated stays. */
static void forget_blocks(void)
{
	eng_lock(&cache()->lock);
	forget_blocks_locked(cache());
	eng_unlock(&cache()->lock);
}

static void flush_at_safepoint(struct vm *vm, void *arg)
{
	/* several vCPUs may have met the full cache: the first one's flush serves all */
	if (cache()->used < BLOCKS_MIN / 2 && cache()->npages < MAX_PAGES / 2)
		return;
	if (cache()->npages < MAX_PAGES / 2)
		forget_blocks();
	else
		code_flush_all();
	adapt_limit(cache());
	for (u32 i = 0; i < vm->nvcpus; i++)
		interp_forget_lookups(vm->vcpus[i]); /* they point into memory that is used anew */
}

/* ---- making ---- */

static struct icache_page *page_get_locked(gpa_t page)
{
	struct icache *c = cache();
	u32 *index = page_index(page);

	if (!*index) {
		if (!c->npages)
			c->npages = 1;
		if (c->npages == MAX_PAGES)
			return NULL;
		page_entry(c->npages)->gpa = page;
		page_entry(c->npages)->mode = tr_stress()->check ? PAGE_CHECKED : PAGE_PROTECTED;
		*index = c->npages++;
	}
	return page_entry(*index);
}

void icache_lock(void)
{
	eng_lock(&cache()->lock);
}

void icache_unlock(void)
{
	eng_unlock(&cache()->lock);
}

enum page_mode icache_page_mode(gpa_t page)
{
	u32 n = __atomic_load_n(page_index(page), __ATOMIC_ACQUIRE);

	return n ? __atomic_load_n(&page_entry(n)->mode, __ATOMIC_ACQUIRE) : PAGE_PROTECTED;
}

void icache_page_soft_locked(gpa_t page)
{
	struct icache_page *pg = page_entry(*page_index(page));

	if (pg->mode == PAGE_PROTECTED)
		return;
	pg->stale = (u16)MIN(pg->stale + 1, MIX_WILD);
	__atomic_store_n(&pg->mode, pg->stale < MIX_WILD ? PAGE_SOFT : PAGE_WILD, __ATOMIC_RELEASE);
}

/* Pages that have been checked for long enough are given another chance. */
void icache_sweep(void)
{
	struct icache *c = cache();
	u64 now = 0;

	if (!__atomic_load_n(&c->checked, __ATOMIC_RELAXED))
		return;
	now = __builtin_ia32_rdtsc();
	if (now < __atomic_load_n(&c->sweep_tsc, __ATOMIC_RELAXED))
		return;
	eng_lock(&c->lock);
	c->sweep_tsc = 0;
	for (u32 *p = &c->checked; *p;) {
		struct icache_page *pg = page_entry(*p);

		if (pg->until_tsc > now) {
			c->sweep_tsc = MIN(c->sweep_tsc - 1, pg->until_tsc - 1) + 1;
			p = &pg->next;
			continue;
		}
		drop_blocks_locked(pg, pg->gpa, pg->gpa + PAGE_SIZE - 1);
		__atomic_store_n(&pg->mode, PAGE_PROTECTED, __ATOMIC_RELEASE);
		*p = pg->next;
	}
	eng_unlock(&c->lock);
}

u32 *icache_page_blocks_locked(gpa_t page)
{
	struct icache_page *pg = page_get_locked(page);

	if (!pg)
		return NULL;
	pg->translated = true;
	return &pg->tblocks;
}

void icache_page_cover_locked(gpa_t page, gpa_t first, gpa_t last)
{
	page_entry(*page_index(page))->granules |= granule_mask(first, last);
}

/* A page that keeps being written gets small blocks: less work is lost each time. */
static unsigned ops_limit(const struct icache_page *pg)
{
	return pg->hits < 32 ? BLOCK_MAX_OPS : pg->hits < 512 ? 12 : 4;
}

/* Decodes from start to the end of the block or the page into b. Returns false if not even one instruction lies in the page. */
static bool decode(struct vcpu *cpu, gpa_t start, unsigned limit, struct iblock *b)
{
	const u8 *code = gpa_to_hva(start);
	unsigned left = PAGE_SIZE - (start & ~PAGE_MASK), at = 0, n = 0;

	while (n < limit && at < left) {
		u8 bytes[INSN_MAX_LEN + 1];
		struct insn in;
		struct iop *op = &b->ops[n];
		enum insn_error err;

		/* One copy: another vCPU may write while we decode. */
		memcpy(bytes, code + at, MIN(left - at, sizeof(bytes)));
		err = insn_decode(bytes, MIN(left - at, sizeof(bytes)), cpu->mode.code, &in);
		if (err == INSN_NEED_MORE)
			break;
		memset(op, 0, sizeof(*op));
		op->nth = n++;
		if (err) {
			iop_compile_error(&in, err, op);
			at = MIN(at + MAX(in.len, 1), left);
			break;
		}
		iop_compile(cpu, &in, op);
		at += in.len;
		if (insn_ends_block(&in) || (records_coverage(cpu) && in.desc->attr & IA_BRANCH))
			break;
	}
	b->gpa = start;
	b->key = cpu->mode.key;
	b->bytes = at;
	b->nops = n;
	memset(&b->ops[n], 0, sizeof(b->ops[n]));
	b->ops[n].fn = interp_block_end;
	b->ops[n].nth = n;
	return n > 0;
}

static struct iblock *link_locked(struct icache_page *pg, const struct iblock *from)
{
	u64 size = sizeof(*from) + (from->nops + 1) * sizeof(struct iop);
	struct iblock *b = block_alloc_locked(size), **h;

	if (!b)
		return NULL;
	memcpy(b, from, size);
	h = bucket(b->gpa, b->key);
	b->dead = false;
	b->hash_next = *h;
	b->page_next = pg->blocks;
	pg->blocks = b;
	pg->granules |= granule_mask(b->gpa, b->gpa + b->bytes - 1);
	__atomic_store_n(h, b, __ATOMIC_RELEASE);
	return b;
}

enum make_result { MADE, MAKE_AGAIN, MAKE_NEVER, MAKE_FULL };

static enum make_result block_make(struct vcpu *cpu, gpa_t start, struct iblock **out)
{
	struct icache *c = cache();
	gpa_t page = start & PAGE_MASK;
	struct iblock *staged = (struct iblock *)icache_vcpu(cpu)->staging;
	struct icache_page *pg;
	enum make_result r = MADE;
	u64 generation;
	u32 seq = 0;

	mmu_mark_code(cpu, page);
	eng_lock(&c->lock);
	generation = c->generation;
	pg = page_get_locked(page);
	if (pg)
		seq = __atomic_load_n(&pg->seq, __ATOMIC_ACQUIRE);
	eng_unlock(&c->lock);
	if (!pg)
		return MAKE_FULL;
	if (!decode(cpu, start, ops_limit(pg), staged))
		return MAKE_NEVER;
	eng_lock(&c->lock);
	if (c->generation != generation || pg->seq != seq ||
	    !(__atomic_load_n(page_attr(page), __ATOMIC_ACQUIRE) & PA_CODE))
		r = MAKE_AGAIN;
	else if (!(*out = link_locked(pg, staged)))
		r = MAKE_FULL;
	eng_unlock(&c->lock);
	return r;
}

static struct iblock *hash_find(gpa_t gpa, u32 key)
{
	struct iblock *b = __atomic_load_n(bucket(gpa, key), __ATOMIC_ACQUIRE);

	while (b && (b->gpa != gpa || b->key != key || b->dead))
		b = __atomic_load_n(&b->hash_next, __ATOMIC_ACQUIRE);
	return b;
}

struct iblock *block_find(struct vcpu *cpu, gva_t lin)
{
	for (;;) {
		gpa_t start = mmu_fetch_page(cpu, lin) | (lin & ~PAGE_MASK);
		struct iblock *b = hash_find(start, cpu->mode.key);

		if (b)
			return b;
		switch (block_make(cpu, start, &b)) {
		case MADE:
			cpu->stats.blocks_decoded++;
			if (records_coverage(cpu))
				record_coverage(cpu, cpu->rip, b->bytes);
			return b;
		case MAKE_NEVER:
			return NULL;
		case MAKE_FULL:
			vm_safepoint(cpu->vm, cpu, flush_at_safepoint, NULL);
			break;
		case MAKE_AGAIN:
			break;
		}
	}
}
