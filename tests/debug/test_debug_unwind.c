/* Stacks of a made-up kernel: by ORC tables of both numberings, by frame pointers, by search; and with everything changed at random. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "debug/autopsy.h"
#include "debug/unwind.h"

enum { RAM = 2 << 20, PML4 = 0x1000, PDPT = 0x2000, PD = 0x3000, ORC_IP = 0x10000, ORC = 0x11000, TEXT = 0x20000, STACK = 0x30000 };
#define BASE 0xffffffff81000000ull /* of the 2 MiB of RAM */

static u8 ram[RAM];
static struct guestmem mem = {.nslots = 1, .slot[0] = {.size = RAM, .host = ram}};

static void put64(u64 at, u64 v)
{
	memcpy(ram + at, &v, 8);
}

/* Four functions of 0x100 bytes; each calls the next one from offset 0x40, so that its return address is 0x45. */
static u64 function(u32 i)
{
	return BASE + TEXT + i * 0x100;
}

static struct inspect make(void)
{
	struct inspect in = {.ram = &mem, .s = {.cr0 = 0x80000001, .cr3 = PML4, .cr4 = 0x20, .efer = 0x500, .cs.l = 1, .cs.selector = 16}};

	memset(ram, 0, sizeof(ram));
	put64(PML4 + 511 * 8, PDPT + 3);
	put64(PDPT + 510 * 8, PD + 3);
	put64(PD + 8 * 8, 0x83);
	for (u32 i = 0; i < 4; i++)
		ram[TEXT + i * 0x100 + 0x40] = 0xe8;
	return in;
}

static struct symbols *symbols(u32 entries)
{
	static const char *const names[] = {"outer", "middle", "inner", "leaf"};
	struct symbols *s = symbols_new();
	const struct {
		const char *name;
		u64 addr;
	} more[] = {{"_stext", function(0)}, {"_etext", function(4)}, {"__start_orc_unwind_ip", BASE + ORC_IP},
		    {"__stop_orc_unwind_ip", BASE + ORC_IP + entries * 4}, {"__start_orc_unwind", BASE + ORC},
		    {"__stop_orc_unwind", BASE + ORC + entries * 6}};

	for (u32 i = 0; i < 4; i++)
		symbols_add(s, function(i), 'T', names[i], strlen(names[i]));
	for (u32 i = 0; i < ARRAY_SIZE(more); i++)
		symbols_add(s, more[i].addr, 'D', more[i].name, strlen(more[i].name));
	symbols_sort(s);
	return s;
}

static void orc_entry(u32 i, u64 ip, s16 sp_offset, u16 bits)
{
	s32 rel = (s32)(ip - (BASE + ORC_IP + i * 4));

	memcpy(ram + ORC_IP + i * 4, &rel, 4);
	memcpy(ram + ORC + i * 6, &sp_offset, 2);
	memcpy(ram + ORC + i * 6 + 4, &bits, 2);
}

/* Each function has a frame of 24 bytes and the return address; an interrupt came in leaf, whose handler is at offset 0x80 of it. */
static void orc_tables(bool newer)
{
	u16 call = newer ? 0x205 : 5, end = newer ? 0x100 : 0x400, regs = newer ? 0x305 : 0x105;

	orc_entry(0, function(0), 0, end);
	orc_entry(1, function(1), 32, call);
	orc_entry(2, function(2), 32, call);
	orc_entry(3, function(3), 32, call);
	orc_entry(4, function(3) + 0x80, 16, regs);
	orc_entry(5, function(3) + 0x100, 0, 0);
}

static void by_orc(void **state)
{
	for (int newer = 0; newer < 2; newer++) {
		struct inspect in = make();
		struct symbols *s = symbols(6);
		struct kvm_regs r = {.rip = function(3) + 0x88, .rsp = BASE + STACK};
		struct unwinder u = {.in = &in, .symbols = s};
		struct unwind_frame f[UNWIND_MAX];
		struct orc *o = NULL;

		orc_tables(newer);
		/* pt_regs at rsp + 16: interrupted at leaf + 0x10 */
		put64(STACK + 16 + 16 * 8, function(3) + 0x10);
		put64(STACK + 16 + 17 * 8, 16);
		put64(STACK + 16 + 19 * 8, BASE + STACK + 0x200);
		put64(STACK + 0x218, function(2) + 0x45);
		put64(STACK + 0x238, function(1) + 0x45);
		put64(STACK + 0x258, function(0) + 0x45);
		u.orc = o = orc_load(s, &in);
		assert_non_null(o);
		assert_int_equal(unwind(&u, &r, f, UNWIND_MAX), 5);
		assert_int_equal(f[1].pc, function(3) + 0x10);
		assert_int_equal(f[2].pc, function(2) + 0x45);
		assert_int_equal(f[3].pc, function(1) + 0x45);
		assert_int_equal(f[4].pc, function(0) + 0x45);
		for (u32 i = 1; i < 5; i++)
			assert_int_equal(f[i].how, UNWIND_ORC);
		assert_int_equal(unwind(&u, &r, f, 2), 2);
		orc_free(o);
		symbols_free(s);
	}
}

static void by_frame_pointer(void **state)
{
	struct inspect in = make();
	struct kvm_regs r = {.rip = function(2), .rsp = BASE + STACK, .rbp = BASE + STACK + 0x40};
	struct unwinder u = {.in = &in};
	struct unwind_frame f[UNWIND_MAX];

	put64(STACK + 0x40, BASE + STACK + 0x80);
	put64(STACK + 0x48, function(1) + 0x45);
	put64(STACK + 0x88, function(0) + 0x45);
	assert_int_equal(unwind(&u, &r, f, UNWIND_MAX), 3);
	assert_int_equal(f[1].pc, function(1) + 0x45);
	assert_int_equal(f[1].how, UNWIND_FP);
	assert_int_equal(f[2].pc, function(0) + 0x45);
}

static void by_search(void **state)
{
	struct inspect in = make();
	struct kvm_regs r = {.rip = function(2), .rsp = BASE + STACK};
	struct unwinder u = {.in = &in};
	struct unwind_frame f[UNWIND_MAX];

	put64(STACK + 0x20, function(1) + 0x44); /* not behind a call */
	put64(STACK + 0x48, function(1) + 0x45);
	assert_int_equal(unwind(&u, &r, f, UNWIND_MAX), 2);
	assert_int_equal(f[1].pc, function(1) + 0x45);
	assert_int_equal(f[1].how, UNWIND_FOUND);
	in.s.cs.selector = 0x33; /* user mode: where it is, no more */
	assert_int_equal(unwind(&u, &r, f, UNWIND_MAX), 1);
	r.rsp = 0x1000; /* not mapped */
	in.s.cs.selector = 16;
	assert_int_equal(unwind(&u, &r, f, UNWIND_MAX), 1);
}

/* Whatever tables, stack and registers hold: it ends, and the report on it can be made. */
static void anything(void **state)
{
	u32 seed = 7;

	for (u32 round = 0; round < 3000; round++) {
		struct doppel_record record = {.nevents = round, .arrivals = 1};
		struct inspect in = make();
		struct symbols *s = symbols(6 + round % 3);
		struct kvm_regs r = {.rip = function(3) + 0x88, .rsp = BASE + STACK, .rbp = BASE + STACK + 64};
		struct autopsy_vcpu v = {.record = &record, .task = "", .view = {.in = &in, .symbols = s}};
		struct orc *o = NULL;
		cJSON *j = NULL;
		char *text = NULL;

		orc_tables(round & 1);
		for (u32 i = 0; i < 64; i++)
			put64(STACK + i * 8, function(i % 4) + 0x45);
		for (u32 i = 0; i < 40; i++) {
			u32 at = (seed = seed * 1103515245 + 12345) >> 8;

			ram[(i & 1 ? ORC_IP + at % 0x1100 : STACK + at % 0x400)] = (u8)(at >> 16);
			memcpy((u8 *)&record.event + at % (sizeof(record) - 64), &seed, 4);
		}
		if (round % 5 == 0)
			memcpy((u8 *)&r + seed % (sizeof(r) - 8), &seed, 4);
		o = orc_load(s, &in);
		v.regs = r;
		v.view.orc = o;
		j = autopsy_vcpu(&v, true);
		text = cJSON_PrintUnformatted(j);
		assert_non_null(text);
		free(text);
		cJSON_Delete(j);
		orc_free(o);
		symbols_free(s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(by_orc), cmocka_unit_test(by_frame_pointer), cmocka_unit_test(by_search),
					   cmocka_unit_test(anything)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
