/* ACPI tables: structure and checksums here, the AML by iasl (skipped where it is not installed). */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "vmm/acpi.h"

static u8 tables[MEM_ACPI_SIZE];
static struct memmap map;
static const struct acpi_config config = {.ncpus = 64, .map = &map};

static u8 sum(const u8 *p, u32 n)
{
	u8 s = 0;

	while (n--)
		s += *p++;
	return s;
}

static u32 length_at(u64 gpa)
{
	u32 n = 0;

	assert_in_range(gpa, MEM_ACPI, MEM_ACPI + MEM_ACPI_SIZE - 36);
	memcpy(&n, tables + gpa - MEM_ACPI + 4, 4);
	return n;
}

static void chain(void **state)
{
	static const char *const want[] = {"FACP", "APIC", "MCFG"};
	u64 xsdt = 0, facs = 0, dsdt = 0;
	const u8 *x = NULL, *fadt = NULL;
	long n = acpi_build(&config, tables, sizeof(tables));

	assert_true(n > 0);
	assert_memory_equal(tables, "RSD PTR ", 8);
	assert_int_equal(sum(tables, 20), 0);
	assert_int_equal(sum(tables, 36), 0);
	memcpy(&xsdt, tables + 24, 8);
	assert_int_equal(length_at(xsdt), 36 + 8 * ARRAY_SIZE(want));
	x = tables + xsdt - MEM_ACPI;
	assert_int_equal(sum(x, length_at(xsdt)), 0);
	for (u32 i = 0; i < ARRAY_SIZE(want); i++) {
		u64 t = 0;

		memcpy(&t, x + 36 + 8 * i, 8);
		assert_memory_equal(tables + t - MEM_ACPI, want[i], 4);
		assert_int_equal(sum(tables + t - MEM_ACPI, length_at(t)), 0);
		if (!i)
			fadt = tables + t - MEM_ACPI;
	}
	memcpy(&facs, fadt + 36, 4);
	memcpy(&dsdt, fadt + 140, 8);
	assert_int_equal(facs % 64, 0);
	assert_memory_equal(tables + facs - MEM_ACPI, "FACS", 4);
	assert_memory_equal(tables + dsdt - MEM_ACPI, "DSDT", 4);
	assert_int_equal(sum(tables + dsdt - MEM_ACPI, length_at(dsdt)), 0);
}

static void no_room(void **state)
{
	for (u64 cap = 0; cap < 2000; cap += 7) {
		u8 *buf = malloc(cap + 1);
		long n = acpi_build(&config, buf, cap);

		assert_true(n < 0 || (u64)n <= cap);
		free(buf);
	}
}

/* Disassembles and compiles the DSDT again: the compiler checks far more than the disassembler. */
static void iasl(void **state)
{
	char dir[] = "/tmp/doppel-acpi.XXXXXX", cmd[400];
	long n = acpi_build_dsdt(&config, tables, sizeof(tables));
	FILE *f = NULL;
	int status = 0;

	if (system("command -v iasl >/dev/null") != 0)
		skip();
	assert_true(n > 0);
	assert_non_null(mkdtemp(dir));
	snprintf(cmd, sizeof(cmd), "%s/dsdt.aml", dir);
	f = fopen(cmd, "we");
	assert_non_null(f);
	assert_int_equal(fwrite(tables, 1, (size_t)n, f), n);
	fclose(f);
	snprintf(cmd, sizeof(cmd),
		 "cd %s && iasl -d dsdt.aml >log 2>&1 && ! grep -iE 'error|warning' log && iasl dsdt.dsl >log2 2>&1 && "
		 "grep -q ' 0 Errors, 0 Warnings' log2 || { cat log log2 dsdt.dsl; exit 1; }", dir);
	status = system(cmd);
	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	assert_int_equal(system(cmd), 0);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(chain), cmocka_unit_test(no_room), cmocka_unit_test(iasl)};

	memmap_make(&map, 6ull << 30);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
