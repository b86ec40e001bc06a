/* doppel regs, mem, disasm: a look into a running or stopped VM. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cli/cli.h"
#include "cli/client.h"
#include "debug/disasm.h"

enum { PIECE = 64 << 10, MEM_DEFAULT = 256, DISASM_DEFAULT = 10, DISASM_MAX = 1000 };

struct inspect_options {
	u32 cpu;
	bool json, raw, physical;
};
static const u32 any_cpu = UINT32_MAX;

#define AT(field) offsetof(struct inspect_options, field)
#define OPT_CPU {"cpu", 'c', OPT_UINT, AT(cpu), "N", "of which vCPU (default: regs and disasm: all; mem: 0)", 0, 63, NULL}
#define OPT_JSON {"json", 0, OPT_FLAG, AT(json), NULL, "print JSON", 0, 0, NULL}
#define OPT_LAST {NULL, 0, OPT_END, 0, NULL, NULL, 0, 0, NULL}
static const struct opt regs_opts[] = {OPT_CPU, OPT_JSON, OPT_LAST};
static const struct opt mem_opts[] = {
	OPT_CPU, {"physical", 'p', OPT_FLAG, AT(physical), NULL, "the address is a physical one", 0, 0, NULL}, OPT_JSON,
	{"raw", 0, OPT_FLAG, AT(raw), NULL, "the bytes themselves, for a file or a pipe", 0, 0, NULL}, OPT_LAST,
};

static int print_json(cJSON *j)
{
	char *text = cJSON_Print(j);

	puts(text ? text : "null");
	free(text);
	cJSON_Delete(j);
	return 0;
}

static const char *text_of(const cJSON *j, const char *key)
{
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItem(j, key));

	return s ? s : "";
}

static double number_of(const cJSON *j, const char *key)
{
	const cJSON *v = cJSON_GetObjectItem(j, key);

	return cJSON_IsNumber(v) ? v->valuedouble : 0;
}

static int get_registers(const char *name, u32 cpu, cJSON **j, struct err *e)
{
	cJSON *args = cJSON_CreateObject();

	if (cpu != any_cpu)
		cJSON_AddNumberToObject(args, "cpu", cpu);
	return client_do_with(name, "x-doppel-registers", args, j, e);
}

/* ---- regs ---- */
static int regs_main(const struct command *c, int argc, char **argv)
{
	struct inspect_options o = {.cpu = any_cpu};
	struct err e = {0};
	cJSON *j = NULL;
	const cJSON *cpu = NULL;
	int ret = opts_parse(c, &o, &argc, argv);

	if (ret)
		return ret == OPTS_DONE ? 0 : EXIT_DOPPEL;
	if (get_registers(argv[1], o.cpu, &j, &e) < 0)
		return cli_fail(&e);
	if (o.json)
		return print_json(j);
	cJSON_ArrayForEach(cpu, j)
		printf("%svCPU %.0f: %s", cpu == j->child ? "" : "\n", number_of(cpu, "cpu"), text_of(cpu, "text"));
	cJSON_Delete(j);
	return 0;
}

/* ---- memory ---- */
static int nibble(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* At most size bytes from the address on; how many are there, where they begin, and the width of code there. */
static s64 get_memory(struct client *cl, const struct inspect_options *o, const char *address, u64 size, u8 *buf, u64 *at,
		      unsigned *bits, struct err *e)
{
	cJSON *args = cJSON_CreateObject(), *j = NULL;
	const char *hex = NULL;
	u64 n = 0;
	int ret = 0;

	cJSON_AddStringToObject(args, "address", address);
	cJSON_AddNumberToObject(args, "size", (double)size);
	cJSON_AddBoolToObject(args, "physical", o->physical);
	if (o->cpu != any_cpu)
		cJSON_AddNumberToObject(args, "cpu", o->cpu);
	ret = client_call_with(cl, "x-doppel-memory", args, &j, e);
	if (ret)
		return ret;
	hex = text_of(j, "data");
	while (n < size && nibble(hex[2 * n]) >= 0 && nibble(hex[2 * n + 1]) >= 0) {
		buf[n] = (u8)(nibble(hex[2 * n]) << 4 | nibble(hex[2 * n + 1]));
		n++;
	}
	*at = strtoull(text_of(j, "address"), NULL, 0);
	*bits = (unsigned)number_of(j, "code-bits");
	cJSON_Delete(j);
	return (s64)n;
}

static void dump_line(u64 at, const u8 *p, u64 n)
{
	printf("%016" PRIx64 " ", at);
	for (u64 i = 0; i < 16; i++)
		printf(i < n ? "%s%02x" : "%s  ", i == 8 ? "  " : " ", i < n ? p[i] : 0);
	printf("  |");
	for (u64 i = 0; i < n; i++)
		putchar(p[i] >= ' ' && p[i] < 0x7f ? p[i] : '.');
	printf("|\n");
}

static void dump_json(u64 at, const u8 *p, u64 n)
{
	printf("{\"address\": \"0x%" PRIx64 "\", \"size\": %" PRIu64 ", \"data\": \"", at, n);
	for (u64 i = 0; i < n; i++)
		printf("%02x", p[i]);
	printf("\"}\n");
}

/* All of it, piece by piece: *got bytes at *at, to be freed. What is not mapped ends it, with the reason in e. */
static u8 *fetch(struct client *cl, const struct inspect_options *o, const char *address, u64 size, u64 *at, u64 *got, struct err *e)
{
	u8 *buf = malloc(size);
	char next[24];
	unsigned bits = 0;
	u64 where = 0;

	*got = 0;
	while (buf && *got < size) {
		s64 n = get_memory(cl, o, *got ? next : address, MIN(size - *got, (u64)PIECE), buf + *got, &where, &bits, e);

		if (n <= 0)
			break;
		if (!*got)
			*at = where;
		*got += (u64)n;
		snprintf(next, sizeof(next), "0x%" PRIx64, *at + *got);
	}
	return buf;
}

static int mem_main(const struct command *c, int argc, char **argv)
{
	struct inspect_options o = {.cpu = any_cpu};
	struct client cl;
	struct err e = {0};
	u64 size = MEM_DEFAULT, at = 0, got = 0;
	u8 *buf = NULL;
	int ret = opts_parse(c, &o, &argc, argv);

	if (ret)
		return ret == OPTS_DONE ? 0 : EXIT_DOPPEL;
	if (argc > 3) {
		char *end = NULL;

		size = strtoull(argv[3], &end, 0);
		if (*end && parse_size(argv[3], &size))
			size = 0;
		if (!size || size > 1u << 30) {
			err_set(&e, EINVAL, "%s: not a size (1 byte to 1G)", argv[3]);
			return cli_fail(&e);
		}
	}
	if (client_open(&cl, argv[1], &e) < 0)
		return cli_fail(&e);
	buf = fetch(&cl, &o, argv[2], size, &at, &got, &e);
	client_close(&cl);
	if (o.raw)
		ret = write_all(STDOUT_FILENO, buf, got);
	else if (o.json && got)
		dump_json(at, buf, got);
	for (u64 i = 0; i < got && !o.raw && !o.json; i += 16)
		dump_line(at + i, buf + i, MIN(got - i, (u64)16));
	free(buf);
	fflush(stdout);
	if (ret)
		err_set(&e, -ret, "mem: %s", strerror(-ret));
	return got < size || ret ? cli_fail(&e) : 0;
}

/* ---- disasm ---- */
static void print_insn(const struct inspect_options *o, u64 pc, const u8 *p, int n, const char *text, bool first)
{
	if (o->json)
		printf("%s{\"address\": \"0x%" PRIx64 "\", \"bytes\": \"", first ? "" : ", ", pc);
	else
		printf("  %016" PRIx64 "  ", pc);
	for (int i = 0; i < n; i++)
		printf("%02x", p[i]);
	if (o->json)
		printf("\", \"text\": \"%s\"}", text);
	else
		printf("%*s  %s\n", 22 - 2 * MIN(n, 11), "", text);
}

/* A byte that begins no instruction is shown as one, and the next tried. */
static int disassemble(struct client *cl, const struct inspect_options *o, const char *address, u64 count, struct err *e)
{
	u8 buf[DISASM_MAX * DISASM_BYTES];
	char text[DISASM_TEXT];
	unsigned bits = 0;
	u64 at = 0, done = 0;
	s64 got = get_memory(cl, o, address, count * DISASM_BYTES, buf, &at, &bits, e);

	if (got < 0)
		return (int)got;
	for (u64 i = 0; i < count && done < (u64)got; i++) {
		int n = disasm_one(bits, buf + done, (size_t)got - done, at + done, text, sizeof(text));

		print_insn(o, at + done, buf + done, n ? n : 1, text, i == 0);
		done += (u64)(n ? n : 1);
	}
	return 0;
}

static int disasm_cpu(struct client *cl, struct inspect_options *o, const cJSON *cpu, const char *address, u64 count, struct err *e)
{
	int ret = 0;

	o->cpu = (u32)number_of(cpu, "cpu");
	if (o->json)
		printf("{\"cpu\": %u, \"instructions\": [", o->cpu);
	else
		printf("vCPU %u: %s, %s, ring %.0f\n", o->cpu, text_of(cpu, "activity"), text_of(cpu, "mode"), number_of(cpu, "ring"));
	ret = disassemble(cl, o, address ? address : "pc", count, e);
	if (o->json)
		printf("]}");
	return ret;
}

static int disasm_main(const struct command *c, int argc, char **argv)
{
	struct inspect_options o = {.cpu = any_cpu};
	struct client cl;
	struct err e = {0};
	cJSON *cpus = NULL;
	const cJSON *cpu = NULL;
	u64 count = DISASM_DEFAULT;
	int ret = opts_parse(c, &o, &argc, argv);

	if (ret)
		return ret == OPTS_DONE ? 0 : EXIT_DOPPEL;
	if (argc > 3)
		count = strtoull(argv[3], NULL, 0);
	if (!count || count > DISASM_MAX) {
		err_set(&e, EINVAL, "%s: not a number of instructions (1 to %d)", argv[3], DISASM_MAX);
		return cli_fail(&e);
	}
	/* an address is looked at once, not once for each vCPU */
	ret = get_registers(argv[1], argc > 2 && o.cpu == any_cpu ? 0 : o.cpu, &cpus, &e);
	if (!ret)
		ret = client_open(&cl, argv[1], &e);
	if (ret) {
		cJSON_Delete(cpus);
		return cli_fail(&e);
	}
	if (o.json)
		printf("[");
	cJSON_ArrayForEach(cpu, cpus) {
		if (o.json && cpu != cpus->child)
			printf(", ");
		ret = ret ? ret : disasm_cpu(&cl, &o, cpu, argc > 2 ? argv[2] : NULL, count, &e);
	}
	if (o.json)
		printf("]\n");
	fflush(stdout);
	cJSON_Delete(cpus);
	client_close(&cl);
	return ret ? cli_fail(&e) : 0;
}

const struct command cmd_regs = {.name = "regs", .args = "[--cpu N] [--json] NAME",
				 .summary = "shows the registers of a VM's processors", .opts = regs_opts, .min_args = 1,
				 .max_args = 1, .main = regs_main};
const struct command cmd_mem = {
	.name = "mem",
	.args = "[--physical] [--json | --raw] NAME ADDRESS [SIZE]",
	.summary = "shows a VM's memory",
	.details = "ADDRESS is linear, as the vCPU's page tables have it: a number, a register such as pc, rsp, cr2, or a symbol of the\n"
		   "guest's kernel. SIZE is 256 bytes unless given.\n",
	.opts = mem_opts,
	.min_args = 2,
	.max_args = 3,
	.main = mem_main,
};
const struct command cmd_disasm = {
	.name = "disasm",
	.args = "[--cpu N] [--json] NAME [ADDRESS [COUNT]]",
	.summary = "disassembles a VM's code, where its processors are or at an address",
	.opts = regs_opts,
	.min_args = 1,
	.max_args = 3,
	.main = disasm_main,
};
