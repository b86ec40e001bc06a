/* What doppel explain says of each event: how it was met, its class, what came of it, where the manual has it. */
#include <cjson/cJSON.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "cli/explain.h"
#include "debug/sensitive.h"

enum { SHOWN = 3, PLACES = 256 }; /* of the same event at the same place */

struct place {
	u64 rip;
	u16 kind, what;
	u8 flags;
	u64 count;
};
struct teller {
	const struct explain_options *o;
	const struct explained *x;
	struct place place[PLACES];
	u32 nplaces;
	u32 step;
	bool known[TI_COUNT];  /* the class has been told */
	u64 count[TI_COUNT];
};

static const char *const pt_manual[TPT_COUNT] = {
	[TPT_STORE] = "3A 4.5", [TPT_WALKER] = "3A 4.8", [TPT_CR3] = "3A 4.10.4.1", [TPT_INVLPG] = "3A 4.10.4.1"};
static const char *const pt_met[TPT_COUNT] = {
	[TPT_STORE] = "executed; seen, because the page is known to be a page table: its writable translations are withheld",
	[TPT_WALKER] = "the engine's page walk sets A and D as the processor would",
	[TPT_CR3] = "the engine gives the address space a context of its own in its TLB",
	[TPT_INVLPG] = "the engine drops the page from its TLB and address tables"};

/* ---- what an event was met with ---- */

/* The exit to the VMM that the instruction itself made lies right before it. */
static const struct trace_event *its_exit(const struct explained *x, size_t i)
{
	for (size_t k = i; k-- > 0 && i - k < 4;) {
		const struct trace_event *e = &x->rec[k].e;

		if (x->rec[k].cpu != x->rec[i].cpu || e->rip != x->rec[i].e.rip)
			return NULL;
		if (e->kind == TRACE_EXIT && e->what != KVM_EXIT_INTR)
			return e;
	}
	return NULL;
}

static void met_insn(const struct teller *t, size_t i, char *buf, size_t n)
{
	const struct trace_event *e = &t->x->rec[i].e, *out = its_exit(t->x, i);
	const struct sensitive *s = sensitive_of(e->what);
	enum explain_way way = explain_way_of(t->x, e->rip);

	if (e->flags & TEV_FAULT) {
		const char *name = trace_exception_word((unsigned)MIN(e->data[2], 255ull));

		snprintf(buf, n, "trapped: %s, delivered to the guest's own handler", name ? name : "an exception");
	} else if (out) {
		snprintf(buf, n, "trapped: exit to the VMM (%s), which emulates the device", trace_exit_word(out->what));
	} else if (s->in_line && (way == WAY_IN_LINE || way == WAY_BOTH)) {
		snprintf(buf, n, "translated in line: %s%s", s->in_line, way == WAY_BOTH ? "; else left to its handler" : "");
	} else if (way == WAY_NONE) {
		snprintf(buf, n, "emulated by its handler in the engine (interpreted: no translation holds it)");
	} else {
		snprintf(buf, n, "emulated: translated code leaves to its handler in the engine");
	}
}

static void met(const struct teller *t, size_t i, char *buf, size_t n)
{
	const struct trace_event *e = &t->x->rec[i].e;

	switch (e->kind) {
	case TRACE_INSN:
		met_insn(t, i, buf, n);
		break;
	case TRACE_EXC:
		snprintf(buf, n, "the engine delivers it through the guest's interrupt table");
		break;
	case TRACE_IRQ:
		snprintf(buf, n, "between two instructions the engine delivers it through the guest's interrupt table");
		break;
	case TRACE_CODE:
		snprintf(buf, n, "executed; the page is write-protected in the TLB: what was decoded and translated from there is dropped");
		break;
	case TRACE_PT:
		snprintf(buf, n, "%s", e->what < TPT_COUNT ? pt_met[e->what] : "?");
		break;
	default:
		snprintf(buf, n, e->data[3] == TWHO_IRQCHIP ? "the engine's interrupt controller answers"
							     : "trapped: exit to the VMM, which emulates the device");
	}
}

static const char *manual(const struct trace_event *e)
{
	switch (e->kind) {
	case TRACE_INSN:
		return sensitive_of(e->what)->manual;
	case TRACE_EXC:
		return "3A 6.15";
	case TRACE_IRQ:
		return "3A 6.3, 6.12";
	case TRACE_CODE:
		return "3A 8.1.3, 11.6";
	case TRACE_PT:
		return e->what < TPT_COUNT ? pt_manual[e->what] : NULL;
	default:
		return "3A 10.4 and the device's own";
	}
}

/* Exits are told with their instructions. */
static bool is_step(const struct trace_event *e)
{
	return e->kind == TRACE_INSN || e->kind == TRACE_EXC || e->kind == TRACE_IRQ || e->kind == TRACE_PT || e->kind == TRACE_MMIO ||
	       e->kind == TRACE_CODE;
}

/* How often it has come by at this place. */
static u64 visit(struct teller *t, const struct trace_event *e)
{
	u32 i = 0;

	while (i < t->nplaces && (t->place[i].rip != e->rip || t->place[i].kind != e->kind || t->place[i].what != e->what ||
				  t->place[i].flags != e->flags))
		i++;
	if (i == PLACES)
		return 1;
	if (i == t->nplaces)
		t->place[t->nplaces++] = (struct place){.rip = e->rip, .kind = e->kind, .what = e->what, .flags = e->flags};
	return ++t->place[i].count;
}

static bool limit_reached(const struct teller *t)
{
	return t->o->limit && t->step >= t->o->limit;
}

/* ---- text ---- */

static void tell(struct teller *t, size_t i, bool first)
{
	const struct trace_record *r = &t->x->rec[i];
	const struct trace_event *e = &r->e;
	char text[300], how[300], class[300];

	trace_describe(e, text, sizeof(text));
	met(t, i, how, sizeof(how));
	printf("%4u. %0*" PRIx64 "  ring %u  %-9s  %s\n", ++t->step, e->bits == 64 ? 16 : 8, e->rip, e->cpl & 3, trace_kind_word(e->kind),
	       text);
	printf("      %s\n", how);
	if (e->kind == TRACE_INSN && e->what < TI_COUNT && !t->known[e->what]) {
		t->known[e->what] = true;
		sensitive_class_text(sensitive_of(e->what), class, sizeof(class));
		printf("      %s\n      Intel SDM %s\n", class, manual(e) ? manual(e) : "?");
	} else if (e->kind != TRACE_INSN && first && manual(e)) {
		printf("      Intel SDM %s\n", manual(e));
	}
}

static void tell_sums(const struct teller *t)
{
	printf("\nSensitive instructions:\n  %-14s %8s  %-13s %s\n", "instruction", "met", "class", "privileged");
	for (u32 i = 1; i < TI_COUNT; i++) {
		u8 b = sensitive_of(i)->bits;

		if (t->count[i])
			printf("  %-14s %8" PRIu64 "  %-13s %s\n", trace_insn_word(i), t->count[i],
			       (b & (SENS_CONTROL | SENS_BEHAVE)) == (SENS_CONTROL | SENS_BEHAVE) ? "both"
			       : b & SENS_CONTROL						    ? "control"
												    : "behaviour",
			       b & SENS_PRIV ? "yes" : b & SENS_IOPL ? "above IOPL" : b & SENS_CLASSIC ? "no (classic)" : "no");
	}
}

static void tell_end(const struct explained *x)
{
	if (x->timed_out)
		printf("The guest had not ended in time and was stopped.\n");
	else if (WIFEXITED(x->status))
		printf("The guest ended with status %d.\n", WEXITSTATUS(x->status));
}

void explain_print(const struct explain_options *o, struct explained *x)
{
	struct teller t = {.o = o, .x = x};
	u64 more = 0;

	printf("%s, engine %s.\nAll other instructions are translated one to one and run natively, or are interpreted while cold.\n",
	       o->guest, o->engine);
	if (x->console && *x->console)
		printf("\nThe guest says:\n%s", x->console);
	printf("\nStep by step:\n");
	for (size_t i = 0; i < x->nrec; i++) {
		const struct trace_event *e = &x->rec[i].e;
		u64 times = is_step(e) ? visit(&t, e) : 0;

		if (!times)
			continue;
		if (e->kind == TRACE_INSN && e->what < TI_COUNT)
			t.count[e->what]++;
		if (limit_reached(&t) || (!o->all && times > SHOWN))
			more++;
		else
			tell(&t, i, times == 1);
	}
	if (more)
		printf("      and %" PRIu64 " more%s\n", more, o->all ? "" : " of the same at the same places (--all shows them)");
	tell_end(x);
	tell_sums(&t);
	for (u32 i = 0; i < x->nblocks && !o->brief; i++)
		printf("%s\n%s", i ? "" : "\nWhat the translator made of the code around them:\n", x->block[i].text);
}

/* ---- JSON ---- */

static void add_hex(cJSON *j, const char *key, u64 v)
{
	char text[24];

	snprintf(text, sizeof(text), "0x%" PRIx64, v);
	cJSON_AddStringToObject(j, key, text);
}

static cJSON *step_json(struct teller *t, size_t i)
{
	const struct trace_event *e = &t->x->rec[i].e;
	const struct sensitive *s = sensitive_of(e->kind == TRACE_INSN ? e->what : TI_NONE);
	cJSON *j = cJSON_CreateObject();
	char text[300];

	cJSON_AddNumberToObject(j, "step", ++t->step);
	cJSON_AddNumberToObject(j, "cpu", (double)t->x->rec[i].cpu);
	add_hex(j, "rip", e->rip);
	cJSON_AddNumberToObject(j, "ring", e->cpl & 3);
	cJSON_AddStringToObject(j, "kind", trace_kind_word(e->kind));
	trace_describe(e, text, sizeof(text));
	cJSON_AddStringToObject(j, "text", text);
	met(t, i, text, sizeof(text));
	cJSON_AddStringToObject(j, "met", text);
	if (manual(e))
		cJSON_AddStringToObject(j, "manual", manual(e));
	if (e->kind != TRACE_INSN)
		return j;
	cJSON_AddStringToObject(j, "insn", trace_insn_word(e->what));
	cJSON_AddBoolToObject(j, "privileged", s->bits & (SENS_PRIV | SENS_IOPL));
	cJSON_AddBoolToObject(j, "control-sensitive", s->bits & SENS_CONTROL);
	cJSON_AddBoolToObject(j, "behaviour-sensitive", s->bits & SENS_BEHAVE);
	cJSON_AddBoolToObject(j, "classic", s->bits & SENS_CLASSIC);
	return j;
}

void explain_print_json(const struct explain_options *o, struct explained *x)
{
	struct teller t = {.o = o, .x = x};
	cJSON *j = cJSON_CreateObject(), *steps = NULL, *blocks = NULL;
	char *text = NULL;

	cJSON_AddStringToObject(j, "guest", o->guest);
	cJSON_AddStringToObject(j, "engine", o->engine);
	cJSON_AddStringToObject(j, "console", x->console ? x->console : "");
	cJSON_AddBoolToObject(j, "ended", !x->timed_out);
	cJSON_AddNumberToObject(j, "status", WIFEXITED(x->status) ? WEXITSTATUS(x->status) : -1);
	steps = cJSON_AddArrayToObject(j, "steps");
	for (size_t i = 0; i < x->nrec && !limit_reached(&t); i++)
		if (is_step(&x->rec[i].e))
			cJSON_AddItemToArray(steps, step_json(&t, i));
	blocks = cJSON_AddArrayToObject(j, "translations");
	for (u32 i = 0; i < x->nblocks && !o->brief; i++) {
		cJSON *b = cJSON_CreateObject();

		add_hex(b, "pc", x->block[i].pc);
		cJSON_AddStringToObject(b, "text", x->block[i].text);
		cJSON_AddItemToArray(blocks, b);
	}
	text = cJSON_Print(j);
	puts(text ? text : "{}");
	free(text);
	cJSON_Delete(j);
}
