/*
 * Small loops over memory, which a translator may unroll and whose accesses may share a look-up: page borders, faults in the middle,
 * mappings that change while the loop runs, code beside the data.
 */
#include "rt.h"

#define WINDOW 0x10000000000ul /* pml4[2]: tables made here */
#define PHYS   PAGE_OF_TESTS
#define SRC    WINDOW
#define DST    (WINDOW + 0x100000)
#define PAGES  4
#define WORDS  (PAGES * 512ul)

static u64 pdpt[512] __attribute__((aligned(4096))), pd[512] __attribute__((aligned(4096)));
static u64 pt[512] __attribute__((aligned(4096)));
static volatile u64 faults, moved_from, last_cr2;

static u64 *entry(u64 a)
{
	return &pt[a >> 12 & 511];
}

/* Neighbours in the window are none in memory. */
static u64 frame_of(u64 page)
{
	return PHYS + ((page * 5 + 3) & 15) * 4096;
}

static void map_all(void)
{
	rt_pml4[2] = (u64)pdpt | 7;
	pdpt[0] = (u64)pd | 7;
	pd[0] = (u64)pt | 7;
	for (u64 i = 0; i < PAGES; i++) {
		*entry(SRC + i * 4096) = frame_of(i) | 3;
		*entry(DST + i * 4096) = frame_of(i + PAGES) | 3;
	}
	WRITE_CR(3, READ_CR(3));
}

static u64 src_word(u64 i)
{
	return i * 0x9e3779b97f4a7c15ul;
}

static void fill(void)
{
	for (u64 i = 0; i < WORDS; i++) {
		((volatile u64 *)SRC)[i] = src_word(i);
		((volatile u64 *)DST)[i] = ~src_word(i * 7);
	}
}

/* dst[i] += src[i] with carry from word to word */
static void add_words(u64 d, u64 s, u64 n)
{
	__asm__ volatile("clc\n1: mov (%1), %%rax; adc %%rax, (%0); lea 8(%0), %0; lea 8(%1), %1; dec %2; jnz 1b"
			 : "+r"(d), "+r"(s), "+r"(n) : : "rax", "memory", "cc");
}

static u64 wrong_sums(u64 at, u64 n)
{
	u64 bad = 0, carry = 0;

	for (u64 i = at; i < at + n; i++) {
		u64 a = ~src_word(i * 7), sum = a + src_word(i), with = sum + carry;

		carry = sum < a || with < sum;
		bad += ((volatile u64 *)DST)[i] != with;
	}
	return bad;
}

static void borders(void)
{
	u64 bad = 0;

	for (u64 shift = 0; shift < 8; shift++) {
		fill();
		add_words(DST + 8 * shift, SRC + 8 * shift, WORDS - 8);
		bad += wrong_sums(shift, WORDS - 8);
	}
	check("sums over page borders", bad, 0);
	bad = 0;
	for (u64 i = 0; i < 16; i++) { /* words across the border */
		u64 d = DST + 4096 - 64 + i, want[16];

		for (u64 k = 0; k < 16; k++) {
			*(volatile u64 *)(SRC + 4096 - 61 + 8 * k) = src_word(k + i);
			want[k] = *(volatile u64 *)(d + 8 * k) + src_word(k + i);
		}
		for (u64 k = 0; k < 16; k++)
			add_words(d + 8 * k, SRC + 4096 - 61 + 8 * k, 1);
		for (u64 k = 0; k < 16; k++)
			bad += *(volatile u64 *)(d + 8 * k) != want[k];
	}
	check("words across borders", bad, 0);
}

/* Brings the page of the source in, and moves those of the destination elsewhere. */
static int on_fault(struct frame *f)
{
	u64 a = READ_CR(2);

	(void)f;
	last_cr2 = a;
	if (++faults > 2 * PAGES + 2)
		return 0;
	*entry(a) |= 3;
	invlpg(a);
	for (u64 i = 0; moved_from && i < PAGES; i++) {
		u64 from = frame_of(i + PAGES), to = frame_of(i + 2 * PAGES);

		if ((*entry(DST + i * 4096) & ~0xffful) != from)
			continue;
		for (u64 k = 0; k < 4096; k += 8) {
			*(volatile u64 *)(to + k) = *(volatile u64 *)(from + k);
			*(volatile u64 *)(from + k) = 0x5555;
		}
		*entry(DST + i * 4096) = to | 3;
		invlpg(DST + i * 4096);
	}
	return 1;
}

static void moving(void)
{
	u64 bad = 0;

	for (u64 round = 0; round < 3; round++)
		for (u64 hole = 0; hole < PAGES; hole++) {
			map_all();
			fill();
			faults = 0;
			moved_from = 1;
			*entry(SRC + hole * 4096) &= ~3ul;
			invlpg(SRC + hole * 4096);
			handlers[14] = on_fault;
			add_words(DST, SRC, WORDS);
			handlers[14] = 0;
			bad += wrong_sums(0, WORDS) + (faults != 1) + (last_cr2 != SRC + hole * 4096);
			for (u64 k = 0; k < PAGES * 4096; k += 8)
				bad += *(volatile u64 *)(frame_of(PAGES + k / 4096) + k % 4096) != 0x5555;
		}
	check("destination moves while the source is brought in", bad, 0);
	moved_from = 0;
	map_all();
	fill();
	for (u64 i = 0; i < PAGES; i++)
		*entry(DST + i * 4096) &= ~2ul; /* read-only: supervisor writes fault with CR0.WP */
	WRITE_CR(0, READ_CR(0) | 0x10000);
	WRITE_CR(3, READ_CR(3));
	faults = 0;
	handlers[14] = on_fault;
	add_words(DST, SRC, WORDS);
	handlers[14] = 0;
	check("read-only pages, one fault each", faults, PAGES);
	check("  sums", wrong_sums(0, WORDS), 0);
}

/* A loop that reads, and later writes through the same register; it ends with the page. */
static void bits_and_state(void)
{
	u64 left = 0, d = 0, vector = 0;

	map_all();
	fill();
	for (u64 i = 0; i < PAGES; i++)
		*entry(DST + i * 4096) &= ~0x60ul;
	WRITE_CR(3, READ_CR(3));
	__asm__ volatile("1: mov (%0), %%rax; add $1, %%rax; mov %%rax, (%0); add $8, %0; sub $1, %1; jnz 1b"
			 : "=&r"(d), "=&r"(left) : "0"(DST), "1"(512ul) : "rax", "memory", "cc");
	check("loop to the end of a page: bits of the page", *entry(DST) & 0x60, 0x60);
	check("  of the next: not written", *entry(DST + 4096) & 0x40, 0);
	__asm__ volatile("1: mov (%0), %%rax; cmp %%rax, %%rcx; je 2f; add $8, %0; sub $1, %1; jnz 1b; 2:"
			 : "=&r"(d), "=&r"(left) : "0"(DST + 4096), "1"(512ul), "c"(1ul) : "rax", "memory", "cc");
	check("reading loop: bits of the page", *entry(DST + 4096) & 0x60, 0x20);
	check("  of the next: not written", *entry(DST + 8192) & 0x40, 0);
	for (u64 round = 0; round < 4; round++) {
		*entry(DST + 4096) &= ~2ul;
		invlpg(DST + 4096);
		rt_arg = DST + 4096 - 8 * round;
		vector = TRAP("mov rt_arg(%%rip), %%rdx; mov $64, %%ecx\n1: mov (%%rdx), %%rax; add $1, %%rax; mov %%rax, (%%rdx); add $8, %%rdx; "
			      "mov %%rcx, rt_ret(%%rip); sub $1, %%ecx; jnz 1b", "i"(0));
		check("write to a read-only page", vector, 14);
		check("  at", trap.cr2, DST + 4096);
		check("  error", trap.error, 3);
		check("  turns", rt_ret, round ? 64 - (round - 1) : rt_ret);
	}
}

/* The loop's own page holds its data. */
static void beside_code(void)
{
	/* 1: mov (%rdi), %rax; add %rsi, %rax; mov %rax, (%rdi); add $8, %rdi; dec %ecx; jnz 1b; ret */
	static const u8 code[] = {0x48, 0x8b, 0x07, 0x48, 0x01, 0xf0, 0x48, 0x89, 0x07, 0x48, 0x83, 0xc7, 0x08, 0xff, 0xc9, 0x75, 0xef, 0xc3};
	volatile u8 *c = (u8 *)(PHYS + 0x100000);
	volatile u64 *data = (u64 *)(PHYS + 0x100000 + 1024);
	u64 bad = 0;

	for (u64 i = 0; i < sizeof(code); i++)
		c[i] = code[i];
	for (u64 i = 0; i < 512; i++)
		data[i] = i;
	for (u64 round = 1; round <= 20; round++) {
		u64 d = (u64)data, n = 512;

		__asm__ volatile("call *%2" : "+D"(d), "+c"(n) : "r"(c), "S"(1ul) : "rax", "memory", "cc");
		for (u64 i = 0; i < 512; i++)
			bad += data[i] != i + round;
	}
	check("data in the page of the loop", bad, 0);
}

/*
 * A translation of the loop ends sooner than one that is not unrolled, as it is where the loop crosses a page. What is written between the two ends
 * concerns the latter only.
 */
static void written_behind(void)
{
	/* 1: mov (%rdi), %rax; add %rax, %rdx; lea 8(%rdi), %rdi; dec %esi; jnz 1b */
	static const u8 loop[] = {0x48, 0x8b, 0x07, 0x48, 0x01, 0xc2, 0x48, 0x8d, 0x7f, 0x08, 0xff, 0xce, 0x75, 0xf2};
	volatile u8 *c = (u8 *)(PHYS + 0x110000);
	u64 n = 0, bad = 0, sum = 0;

	for (; n < sizeof(loop); n++)
		c[n] = loop[n];
	for (u64 i = 0; i < 40; i++) { /* add $1, %rdx */
		c[n++] = 0x48;
		c[n++] = 0x83;
		c[n++] = 0xc2;
		c[n++] = 1;
	}
	c[n] = 0xc3;
	map_all();
	fill();
	for (u64 i = 510; i < 516; i++)
		sum += src_word(i);
	for (u64 round = 0; round < 120; round++) {
		u64 d = 0, s = SRC + 510 * 8, turns = 6;

		if (round % 40 == 39)
			c[n - 1] = (u8)(round / 40 + 2);
		__asm__ volatile("call *%3" : "+D"(s), "+S"(turns), "+d"(d) : "r"(c) : "rax", "memory", "cc");
		bad += d != sum + 39 + c[n - 1];
	}
	check("code written behind a loop", bad, 0);
}

void guest_main(void)
{
	map_all();
	borders();
	moving();
	bits_and_state();
	beside_code();
	written_behind();
}
