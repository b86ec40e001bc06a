/* gdb's `monitor` commands. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/base.h"
#include "debug/gdb_int.h"

static const char help[] =
	"info registers    all registers of the current vCPU, control and segment registers too\n"
	"page [ADDRESS]    page-table walk of a linear address (a number, a register, a symbol; default pc), each entry decoded\n"
	"backtrace         calls of the current vCPU, by a Linux kernel's own unwind tables (ORC) where it has them\n"
	"irqs              local APIC of the current vCPU, I/O APIC\n"
	"exits             exits and counters of the current vCPU\n"
	"physical on|off   memory commands take physical addresses\n"
	"description x86-64|i386|i8086\n"
	"                  how gdb is to see the processor: for 32-bit and 16-bit code; then `unset tdesc filename`\n"
	"help              this\n";

static void page(struct gdb *g, const struct cpu_state *c, const char *arg, FILE *out)
{
	struct inspect in = {.ram = g->t.ram, .s = c->s};
	struct inspect_walk w;
	char bits[64];
	static const char *const level[] = {"", "PTE", "PDE", "PDPTE", "PML4E"};
	u64 addr = 0;

	if (cpu_state_address(c, *arg ? arg : "pc", &addr) && !(g->t.symbol && g->t.symbol(g->t.arg, g->cpu, arg, &addr))) {
		fprintf(out, "page [ADDRESS]: not a number, a register such as rsp, or a symbol of the guest's kernel\n");
		return;
	}
	inspect_walk(&in, addr, &w);
	for (u32 i = 0; i < w.nsteps; i++)
		fprintf(out, "%-5s at %010" PRIx64 ": %016" PRIx64 " %s\n", level[w.step[i].level], (u64)w.step[i].at, w.step[i].entry,
			inspect_entry_text(&w.step[i], bits, sizeof(bits)));
	if (w.end != WALK_MAPPED)
		fprintf(out, "%016" PRIx64 ": %s\n", w.linear, inspect_end_text(w.end));
	else
		fprintf(out, "%016" PRIx64 " is physical %010" PRIx64 ", page of %" PRIu64 " KiB: %s, %s%s\n", w.linear, (u64)w.gpa,
			w.page_size >> 10, w.user ? "user" : "supervisor", w.writable ? "writable" : "read-only",
			w.nx ? ", no execution" : "");
}

static void description(struct gdb *g, const char *arg, FILE *out)
{
	static const char *const names[DESC_COUNT] = {[DESC_X86_64] = "x86-64", [DESC_I386] = "i386", [DESC_I8086] = "i8086"};

	for (u32 i = 0; i < DESC_COUNT; i++) {
		if (strcmp(arg, names[i]) != 0)
			continue;
		g->description = i;
		fprintf(out, "Now `unset tdesc filename`, so that gdb asks for it.\n");
		return;
	}
	fprintf(out, "description x86-64|i386|i8086\n");
}

static const char *after(const char *text, const char *word)
{
	size_t n = strlen(word);

	if (strncmp(text, word, n) != 0 || (text[n] && text[n] != ' '))
		return NULL;
	text += n;
	return text + strspn(text, " ");
}

static void run(struct gdb *g, const char *text, FILE *out)
{
	struct cpu_state c;
	const char *arg = NULL;

	if (gdb_get(g, g->cpu, &c)) {
		fprintf(out, "The vCPU cannot be asked.\n");
		return;
	}
	if ((arg = after(text, "help"))) {
		fputs(help, out);
	} else if ((arg = after(text, "info registers"))) {
		cpu_state_print(&c, out);
	} else if ((arg = after(text, "page"))) {
		page(g, &c, arg, out);
	} else if ((arg = after(text, "description"))) {
		description(g, arg, out);
	} else if ((arg = after(text, "physical")) && (!strcmp(arg, "on") || !strcmp(arg, "off"))) {
		g->physical = arg[1] == 'n';
	} else if (!g->t.monitor || !g->t.monitor(g->t.arg, g->cpu, text, out)) {
		fprintf(out, "No such command. These are:\n%s", help);
	}
}

void gdb_monitor(struct gdb *g, struct scan *s)
{
	char text[128], *answer = NULL;
	size_t n = (size_t)(s->end - s->p) / 2, size = 0;
	FILE *out = NULL;

	if (n >= sizeof(text) || !scan_bytes(s, (u8 *)text, n) || !(out = open_memstream(&answer, &size))) {
		reply_text(g, "E16");
		return;
	}
	text[n] = 0;
	run(g, text, out);
	if (!fclose(out))
		reply_console(g, answer, size);
	free(answer);
	reply_text(g, "OK");
}
