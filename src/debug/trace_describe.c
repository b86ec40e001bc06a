/* An event in words. One function for each kind; what is printed is numbers and our own words, whatever the event holds. */
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <string.h>

#include "debug/trace.h"

struct text {
	char *p;
	size_t n, used;
};

static void add(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int r = 0;

	va_start(ap, fmt);
	r = vsnprintf(t->p + t->used, t->n - t->used, fmt, ap);
	va_end(ap);
	if (r > 0)
		t->used = MIN(t->used + (size_t)r, t->n - 1);
}

static void add_flags(struct text *t, u64 before, u64 after)
{
	static const struct {
		u64 bit;
		const char *name;
	} names[] = {{0x1, "CF"}, {0x40, "ZF"}, {0x100, "TF"}, {0x200, "IF"}, {0x400, "DF"}, {0x3000, "IOPL"}, {0x4000, "NT"},
		     {0x20000, "VM"}, {0x40000, "AC"}, {0x200000, "ID"}};

	for (u32 i = 0; i < ARRAY_SIZE(names); i++)
		if ((before ^ after) & names[i].bit)
			add(t, " %s%s", after & names[i].bit ? "+" : "-", names[i].name);
}

static const char *const sregs[] = {"es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"};

static void add_register(struct text *t, const struct trace_event *e)
{
	u64 n = e->data[0];

	switch (e->what) {
	case TI_MOV_TO_CR:
	case TI_MOV_FROM_CR:
		add(t, " cr%" PRIu64, n);
		break;
	case TI_MOV_TO_DR:
	case TI_MOV_FROM_DR:
		add(t, " dr%" PRIu64, n);
		break;
	default:
		add(t, " %s", n < ARRAY_SIZE(sregs) ? sregs[n] : "?");
	}
}

static void add_argument(struct text *t, const struct trace_event *e)
{
	enum { A_NONE, A_REGNO, A_EA, A_CX, A_AX, A_LEAF, A_PORT, A_IMM };
	static const u8 arg[TI_COUNT] = {
#define A_(a) A_##a
#define X(name, word, a, r) [TI_##name] = A_(a),
		TRACE_INSNS(X)
#undef X
	};

	switch (arg[e->what]) {
	case A_REGNO:
		add_register(t, e);
		break;
	case A_EA:
		add(t, " [0x%" PRIx64 "]", e->data[0]);
		break;
	case A_LEAF:
		add(t, " leaf 0x%x.%u", (u32)(e->data[0] >> 32), (u32)e->data[0]);
		break;
	case A_PORT:
		add(t, " port 0x%" PRIx64, e->data[0]);
		break;
	case A_CX:
	case A_AX:
	case A_IMM:
		add(t, " 0x%" PRIx64, e->data[0]);
		break;
	default:
		break;
	}
}

static void add_result(struct text *t, const struct trace_event *e)
{
	enum { R_NONE, R_FLAGS, R_RIP, R_CR, R_DR, R_CR0, R_GDT, R_IDT, R_LDTR, R_TR, R_DST, R_SREG, R_GSBASE, R_FSBASE, R_DXAX,
	       R_CPUID, R_AX, R_CX };
	static const u8 res[TI_COUNT] = {
#define R_(a) R_##a
#define X(name, word, a, r) [TI_##name] = R_(r),
		TRACE_INSNS(X)
#undef X
	};

	if (res[e->what] == R_CPUID)
		add(t, " -> eax %08x ebx %08x ecx %08x edx %08x", (u32)e->data[2], (u32)(e->data[2] >> 32), (u32)e->data[3],
		    (u32)(e->data[3] >> 32));
	else if (res[e->what] != R_NONE)
		add(t, " -> 0x%" PRIx64, e->data[2]);
	if (res[e->what] != R_CPUID)
		add_flags(t, e->data[1], e->data[3]);
}

static void insn(struct text *t, const struct trace_event *e)
{
	if (e->what >= TI_COUNT) {
		add(t, "?");
		return;
	}
	add(t, "%s", trace_insn_word(e->what));
	add_argument(t, e);
	if (e->flags & TEV_FAULT) {
		const char *name = trace_exception_word((unsigned)MIN(e->data[2], 255ull));

		add(t, " -> fault %s(0x%x)", name ? name : "?", (u32)e->data[3]);
		return;
	}
	add_result(t, e);
	if (e->flags & TEV_REPEATS)
		add(t, " (goes on)");
}

static void exit_to_vmm(struct text *t, const struct trace_event *e)
{
	add(t, "%s", trace_exit_word(e->what));
	if (e->what == KVM_EXIT_IO)
		add(t, " %s port 0x%" PRIx64 " size %" PRIu64, e->data[3] ? "out" : "in", e->data[1], e->data[2]);
	else if (e->what == KVM_EXIT_MMIO)
		add(t, " %s 0x%" PRIx64 " size %" PRIu64, e->data[3] ? "write" : "read", e->data[1], e->data[2]);
}

static void exception(struct text *t, const struct trace_event *e)
{
	const char *name = trace_exception_word(e->what);

	if (name)
		add(t, "%s", name);
	else
		add(t, "vector %u", e->what);
	add(t, " error 0x%" PRIx64, e->data[0]);
	if (e->what == 14)
		add(t, " address 0x%" PRIx64, e->data[1]);
}

static void irq(struct text *t, const struct trace_event *e)
{
	add(t, "vector 0x%x by %s", e->what, trace_who_word(e->data[0]));
}

static void tables(struct text *t, const struct trace_event *e)
{
	switch (e->what) {
	case TPT_STORE:
	case TPT_WALKER:
		add(t, "%s at 0x%" PRIx64 ": 0x%" PRIx64 " -> 0x%" PRIx64, e->what == TPT_STORE ? "store" : "walk sets", e->data[0],
		    e->data[1], e->data[2]);
		break;
	case TPT_CR3:
		add(t, "cr3 0x%" PRIx64 " -> 0x%" PRIx64, e->data[0], e->data[1]);
		break;
	default:
		add(t, "invlpg 0x%" PRIx64, e->data[0]);
	}
}

static void mmio(struct text *t, const struct trace_event *e)
{
	add(t, "%s 0x%" PRIx64 " size %" PRIu64 " value 0x%" PRIx64 " by %s", e->what == TIO_WRITE ? "write" : "read", e->data[0],
	    e->data[2], e->data[1], trace_who_word(e->data[3]));
}

static void pio(struct text *t, const struct trace_event *e)
{
	add(t, "%s port 0x%" PRIx64 " size %u value 0x%" PRIx64 " by %s", e->what == TIO_WRITE ? "out" : "in", e->data[0],
	    (u8)e->data[2], e->data[1], trace_who_word(e->data[3]));
	if (e->data[2] >> 8 > 1)
		add(t, " and %" PRIu64 " more", (e->data[2] >> 8) - 1);
}

static void halt(struct text *t, const struct trace_event *e)
{
	add(t, "asleep");
}

static void code(struct text *t, const struct trace_event *e)
{
	add(t, "store to code at 0x%" PRIx64 " size %" PRIu64, e->data[0], e->data[1]);
}

void trace_describe(const struct trace_event *e, char *buf, size_t n)
{
	static void (*const by_kind[TRACE_KIND_COUNT])(struct text *, const struct trace_event *) = {
		[TRACE_INSN] = insn, [TRACE_EXIT] = exit_to_vmm, [TRACE_EXC] = exception, [TRACE_IRQ] = irq, [TRACE_PT] = tables,
		[TRACE_MMIO] = mmio, [TRACE_PIO] = pio, [TRACE_HALT] = halt, [TRACE_CODE] = code};
	struct text t = {.p = buf, .n = n};

	buf[0] = 0;
	if (e->kind < TRACE_KIND_COUNT)
		by_kind[e->kind](&t, e);
}
