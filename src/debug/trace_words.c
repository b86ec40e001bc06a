/* Names of what events hold, and what --events says. */
#include <errno.h>
#include <linux/kvm.h>
#include <string.h>

#include "debug/trace.h"

static const char *const kinds[TRACE_KIND_COUNT] = {
#define X(name, word, text) [TRACE_##name] = word,
	TRACE_KINDS(X)
#undef X
};
static const char *const insns[TI_COUNT] = {
	[TI_NONE] = "?",
#define X(name, word, arg, res) [TI_##name] = word,
	TRACE_INSNS(X)
#undef X
};
static const char *const exceptions[32] = {
	"#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", NULL, "#TS", "#NP", "#SS", "#GP", "#PF", NULL,
	"#MF", "#AC", "#MC", "#XM",
};
static const struct {
	u32 reason;
	const char *word;
} exits[] = {
	{KVM_EXIT_IO, "io"}, {KVM_EXIT_MMIO, "mmio"}, {KVM_EXIT_HLT, "hlt"}, {KVM_EXIT_INTR, "interrupted"},
	{KVM_EXIT_SHUTDOWN, "shutdown"}, {KVM_EXIT_SYSTEM_EVENT, "system-event"}, {KVM_EXIT_DEBUG, "debug"},
	{KVM_EXIT_IRQ_WINDOW_OPEN, "irq-window"}, {KVM_EXIT_INTERNAL_ERROR, "internal-error"}, {KVM_EXIT_UNKNOWN, "unknown"},
};
static const char *const whos[TWHO_COUNT] = {
	[TWHO_VMM] = "vmm", [TWHO_IRQCHIP] = "irqchip", [TWHO_IOEVENTFD] = "ioeventfd", [TWHO_TIMER] = "timer",
	[TWHO_NMI] = "nmi", [TWHO_INJECTED] = "injected",
	[TWHO_NOBODY] = "nobody",
};

const char *trace_kind_word(unsigned kind)
{
	return kind < TRACE_KIND_COUNT ? kinds[kind] : "?";
}

const char *trace_insn_word(unsigned what)
{
	return what < TI_COUNT ? insns[what] : "?";
}

const char *trace_exception_word(unsigned vector)
{
	return vector < ARRAY_SIZE(exceptions) ? exceptions[vector] : NULL;
}

const char *trace_exit_word(u32 reason)
{
	for (u32 i = 0; i < ARRAY_SIZE(exits); i++)
		if (exits[i].reason == reason)
			return exits[i].word;
	return "other";
}

const char *trace_who_word(u64 who)
{
	return who < TWHO_COUNT ? whos[who] : "?";
}

/* ---- --events ---- */

static bool same(const char *word, const char *p, size_t n)
{
	return strlen(word) == n && !strncmp(word, p, n);
}

static bool take_word(struct trace_choice *c, const char *p, size_t n)
{
	bool without = n && *p == '-';

	p += without, n -= without;
	if (same("all", p, n)) {
		c->kinds = without ? 0 : TRACE_ALL;
		return true;
	}
	for (u32 i = 0; i < TRACE_KIND_COUNT; i++) {
		if (same(kinds[i], p, n)) {
			c->kinds = without ? c->kinds & ~BIT(i) : c->kinds | BIT(i);
			return true;
		}
	}
	for (u32 i = 1; i < TI_COUNT && !without; i++) {
		if (same(insns[i], p, n)) {
			c->kinds |= BIT(TRACE_INSN);
			c->some = c->insns[i] = true;
			return true;
		}
	}
	return false;
}

int trace_choice_parse(struct trace_choice *c, const char *list, struct err *e)
{
	memset(c, 0, sizeof(*c));
	if (*list == '-')
		c->kinds = TRACE_ALL;
	for (const char *p = list; *p;) {
		size_t n = strcspn(p, ",");

		if (!take_word(c, p, n))
			return err_set(e, EINVAL, "%.*s: no such event (all, insn, exit, exception, irq, pt, mmio, pio, halt, code, or "
						  "instructions as cpuid or mov-to-cr)", (int)MIN(n, (size_t)40), p);
		p += n + (p[n] == ',');
	}
	return c->kinds ? 0 : err_set(e, EINVAL, "no events chosen");
}

bool trace_choice_wants(const struct trace_choice *c, const struct trace_event *e)
{
	if (e->kind >= TRACE_KIND_COUNT || !(c->kinds >> e->kind & 1))
		return false;
	return e->kind != TRACE_INSN || !c->some || (e->what < TI_COUNT && c->insns[e->what]);
}
