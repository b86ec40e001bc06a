/* The report on a vCPU. */
#include <string.h>
#include "debug/autopsy.h"
#include "debug/disasm.h"

enum { BEFORE = 4, AFTER = 6, BACK_MAX = 4096, STACK_WORDS = 32 };

void autopsy_add_hex(cJSON *j, const char *key, u64 v)
{
	char text[20];

	snprintf(text, sizeof(text), "0x%llx", (unsigned long long)v);
	cJSON_AddStringToObject(j, key, text);
}

void autopsy_add_symbol(cJSON *j, const char *key, const struct autopsy_vcpu *v, u64 addr)
{
	char text[SYMBOL_TEXT];

	if (symbols_lookup(v->view.symbols, addr))
		cJSON_AddStringToObject(j, key, symbols_text(v->view.symbols, addr, text, sizeof(text)));
}

/* Of a value that may be a return address, on the stack or where it has no business to be. */
static void add_code_symbol(cJSON *j, const struct autopsy_vcpu *v, u64 value)
{
	const struct symbol *y = symbols_lookup(v->view.symbols, value);

	if (y && strchr("TtWw", y->type))
		autopsy_add_symbol(j, "symbol", v, value);
}

/* ---- code ---- */
static u64 linear_rip(const struct autopsy_vcpu *v)
{
	const struct kvm_sregs *s = &v->view.in->s;

	return inspect_code_bits(s) == 64 ? v->regs.rip : (u32)(s->cs.base + v->regs.rip);
}

/* Decodes on from start; whether an instruction begins at rip. last[] gets those right before it. */
static bool leads_to(const struct autopsy_vcpu *v, u64 start, u64 rip, u64 last[BEFORE])
{
	unsigned bits = inspect_code_bits(&v->view.in->s);
	u8 code[BACK_MAX + DISASM_BYTES];
	u64 n = inspect_read(v->view.in, start, code, rip - start), at = 0;
	char text[DISASM_TEXT];

	memset(last, 0, BEFORE * sizeof(*last));
	if (n != rip - start)
		return false;
	while (at < n) {
		int len = disasm_one(bits, code + at, n - at, start + at, text, sizeof(text));

		if (!len)
			return false;
		memmove(last, last + 1, (BEFORE - 1) * sizeof(*last));
		last[BEFORE - 1] = start + at;
		at += (unsigned)len;
	}
	return at == n;
}

/* From the function's beginning if that is known, else from where decoding happens to meet rip. */
static u64 some_before(const struct autopsy_vcpu *v, u64 rip)
{
	const struct symbol *y = symbols_lookup(v->view.symbols, rip);
	u64 last[BEFORE];

	if (y && rip > y->addr && rip - y->addr <= BACK_MAX && leads_to(v, y->addr, rip, last)) {
		for (u32 i = 0; i < BEFORE; i++)
			if (last[i])
				return last[i];
	}
	for (u64 back = MIN(rip, (u64)BEFORE * 6); back; back--)
		if (leads_to(v, rip - back, rip, last))
			for (u32 i = 0; i < BEFORE; i++)
				if (last[i])
					return last[i];
	return rip;
}

static void add_line(cJSON *lines, const struct autopsy_vcpu *v, u64 at, const u8 *code, unsigned len, const char *text, u64 rip)
{
	cJSON *j = cJSON_CreateObject();
	char bytes[2 * DISASM_BYTES + 1] = "";

	for (unsigned i = 0; i < len; i++)
		snprintf(bytes + 2 * i, 3, "%02x", code[i]);
	autopsy_add_hex(j, "address", at);
	autopsy_add_symbol(j, "symbol", v, at);
	cJSON_AddStringToObject(j, "bytes", bytes);
	cJSON_AddStringToObject(j, "text", text);
	if (at == rip)
		cJSON_AddTrueToObject(j, "here");
	cJSON_AddItemToArray(lines, j);
}

static cJSON *code_lines(const struct autopsy_vcpu *v)
{
	unsigned bits = inspect_code_bits(&v->view.in->s);
	u64 rip = linear_rip(v), at = some_before(v, rip);
	cJSON *lines = cJSON_CreateArray();

	for (u32 after = 0; after <= AFTER;) {
		u8 code[DISASM_BYTES];
		char text[DISASM_TEXT];
		u64 n = inspect_read(v->view.in, at, code, sizeof(code));
		int len = disasm_one(bits, code, n, at, text, sizeof(text));

		if (!n) {
			add_line(lines, v, at, code, 0, "(not mapped)", rip);
			break;
		}
		add_line(lines, v, at, code, len ? (unsigned)len : 1, text, rip);
		after += at >= rip;
		at += len ? (unsigned)len : 1;
	}
	return lines;
}

/* ---- registers ---- */
static cJSON *registers(const struct autopsy_vcpu *v)
{
	const struct kvm_regs *r = &v->regs;
	const struct kvm_sregs *s = &v->view.in->s;
	const struct {
		const char *name;
		u64 value;
	} all[] = {{"rax", r->rax}, {"rbx", r->rbx}, {"rcx", r->rcx}, {"rdx", r->rdx}, {"rsi", r->rsi}, {"rdi", r->rdi},
		   {"rbp", r->rbp}, {"rsp", r->rsp}, {"r8", r->r8}, {"r9", r->r9}, {"r10", r->r10}, {"r11", r->r11},
		   {"r12", r->r12}, {"r13", r->r13}, {"r14", r->r14}, {"r15", r->r15}, {"rip", r->rip}, {"rflags", r->rflags},
		   {"cr0", s->cr0}, {"cr2", s->cr2}, {"cr3", s->cr3}, {"cr4", s->cr4}, {"efer", s->efer},
		   {"fs_base", s->fs.base}, {"gs_base", s->gs.base}, {"cs", s->cs.selector}, {"ss", s->ss.selector},
		   {"ds", s->ds.selector}, {"es", s->es.selector}, {"fs", s->fs.selector}, {"gs", s->gs.selector},
		   {"tr", s->tr.selector}, {"tr_base", s->tr.base}, {"gdt", s->gdt.base}, {"gdt_limit", s->gdt.limit},
		   {"idt", s->idt.base}, {"idt_limit", s->idt.limit}};
	cJSON *j = cJSON_CreateObject();

	for (u32 i = 0; i < ARRAY_SIZE(all); i++)
		autopsy_add_hex(j, all[i].name, all[i].value);
	return j;
}

/* ---- exceptions ---- */
static const char *const exception_names[] = {"#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "?", "#TS",
					      "#NP", "#SS", "#GP", "#PF", "?", "#MF", "#AC", "#MC", "#XM", "#VE", "#CP"};

/* Error codes: of #PF SDM 3A 4.7, of those about a segment 6.13. */
static const char *error_text(const struct doppel_event *e, char *buf, size_t n)
{
	if (!(e->flags & DOPPEL_EVENT_ERROR) || e->vector == 8)
		buf[0] = 0;
	else if (e->vector == 14)
		snprintf(buf, n, "%s %s, %s%s%s", e->error & 4 ? "user" : "kernel",
			 e->error & 16 ? "fetch" : e->error & 2 ? "write" : "read", e->error & 1 ? "not allowed" : "not present",
			 e->error & 8 ? ", reserved bit" : "", e->error & 32 ? ", protection key" : "");
	else if (e->error & ~1u)
		snprintf(buf, n, "%s entry %u%s", e->error & 2 ? "IDT" : e->error & 4 ? "LDT" : "GDT", e->error >> 3 & 0x1fff,
			 e->error & 1 ? ", external" : "");
	else
		buf[0] = 0;
	return buf;
}

static cJSON *exceptions(const struct autopsy_vcpu *v)
{
	cJSON *list = cJSON_CreateArray();

	for (u32 i = 0; i < MIN(v->record->nevents, (u32)DOPPEL_EVENTS); i++) {
		const struct doppel_event *e = &v->record->event[i];
		cJSON *j = cJSON_CreateObject();
		char text[100];

		cJSON_AddNumberToObject(j, "vector", e->vector);
		if (e->flags & DOPPEL_EVENT_INTERRUPT)
			cJSON_AddStringToObject(j, "name", e->vector == 2 ? "NMI" : "interrupt");
		else if (e->vector < ARRAY_SIZE(exception_names))
			cJSON_AddStringToObject(j, "name", exception_names[e->vector]);
		if (e->flags & DOPPEL_EVENT_ERROR)
			autopsy_add_hex(j, "error", e->error);
		if (*error_text(e, text, sizeof(text)))
			cJSON_AddStringToObject(j, "error_text", text);
		autopsy_add_hex(j, "rip", e->rip);
		autopsy_add_symbol(j, "symbol", v, e->rip);
		cJSON_AddNumberToObject(j, "cpl", e->cpl);
		if (e->vector == 14)
			autopsy_add_hex(j, "cr2", e->cr2);
		if (e->flags & DOPPEL_EVENT_NESTED)
			cJSON_AddTrueToObject(j, "nested");
		if (e->flags & DOPPEL_EVENT_SHUTDOWN)
			cJSON_AddTrueToObject(j, "shutdown");
		cJSON_AddItemToArray(list, j);
	}
	return list;
}

/* ---- page walks ---- */
static cJSON *page_walk(const struct autopsy_vcpu *v, const char *of, u64 linear)
{
	static const char *const names[] = {"", "PTE", "PDE", "PDPTE", "PML4E"};
	cJSON *j = cJSON_CreateObject(), *entries = NULL;
	struct inspect_walk w;

	inspect_walk(v->view.in, linear, &w);
	cJSON_AddStringToObject(j, "of", of);
	autopsy_add_hex(j, "address", linear);
	autopsy_add_symbol(j, "symbol", v, linear);
	entries = cJSON_AddArrayToObject(j, "entries");
	for (u32 i = 0; i < w.nsteps; i++) {
		cJSON *e = cJSON_CreateObject();
		char flags[64];

		cJSON_AddStringToObject(e, "level", names[w.step[i].level]);
		autopsy_add_hex(e, "at", w.step[i].at);
		autopsy_add_hex(e, "value", w.step[i].entry);
		cJSON_AddStringToObject(e, "flags", inspect_entry_text(&w.step[i], flags, sizeof(flags)));
		add_code_symbol(e, v, w.step[i].entry);
		cJSON_AddItemToArray(entries, e);
	}
	cJSON_AddStringToObject(j, "end", w.end == WALK_MAPPED && !w.page_size ? "paging is off" : inspect_end_text(w.end));
	if (w.end == WALK_MAPPED) {
		autopsy_add_hex(j, "physical", w.gpa);
		if (w.page_size)
			autopsy_add_hex(j, "page_size", w.page_size);
	}
	return j;
}

static cJSON *walks(const struct autopsy_vcpu *v)
{
	const struct kvm_sregs *s = &v->view.in->s;
	u64 sp = inspect_code_bits(s) == 64 ? v->regs.rsp : (u32)(s->ss.base + v->regs.rsp);
	cJSON *list = cJSON_CreateArray();

	cJSON_AddItemToArray(list, page_walk(v, "rip", linear_rip(v)));
	cJSON_AddItemToArray(list, page_walk(v, "cr2", s->cr2));
	cJSON_AddItemToArray(list, page_walk(v, "rsp", sp));
	cJSON_AddItemToArray(list, page_walk(v, "idt", s->idt.base));
	return list;
}

/* ---- stack ---- */
static cJSON *stack(const struct autopsy_vcpu *v)
{
	const struct kvm_sregs *s = &v->view.in->s;
	unsigned size = MAX(inspect_code_bits(s) / 8, 4u);
	u64 at = size == 8 ? v->regs.rsp : (u32)(s->ss.base + v->regs.rsp);
	cJSON *list = cJSON_CreateArray();

	for (u32 i = 0; i < STACK_WORDS; i++, at += size) {
		cJSON *j = NULL;
		u64 w = 0;

		if (inspect_read(v->view.in, at, &w, size) != size)
			break;
		j = cJSON_CreateObject();
		autopsy_add_hex(j, "address", at);
		autopsy_add_hex(j, "value", w);
		add_code_symbol(j, v, w);
		cJSON_AddItemToArray(list, j);
	}
	return list;
}

static cJSON *backtrace(const struct autopsy_vcpu *v)
{
	static const char *const how[] = {[UNWIND_HERE] = "here", [UNWIND_ORC] = "orc", [UNWIND_FP] = "frame pointer",
					  [UNWIND_FOUND] = "found on the stack"};
	struct unwind_frame f[UNWIND_MAX];
	u32 n = unwind(&v->view, &v->regs, f, ARRAY_SIZE(f));
	cJSON *list = cJSON_CreateArray();

	for (u32 i = 0; i < n; i++) {
		cJSON *j = cJSON_CreateObject();

		autopsy_add_hex(j, "address", f[i].pc);
		autopsy_add_symbol(j, "symbol", v, f[i].pc);
		cJSON_AddStringToObject(j, "how", how[f[i].how]);
		cJSON_AddItemToArray(list, j);
	}
	return list;
}

cJSON *autopsy_vcpu(const struct autopsy_vcpu *v, bool full)
{
	const struct kvm_sregs *s = &v->view.in->s;
	cJSON *j = cJSON_CreateObject();

	cJSON_AddNumberToObject(j, "cpu", v->index);
	cJSON_AddNumberToObject(j, "bits", inspect_code_bits(s));
	cJSON_AddNumberToObject(j, "cpl", s->cs.selector & 3);
	cJSON_AddBoolToObject(j, "halted", v->halted);
	if (v->task[0])
		cJSON_AddStringToObject(j, "task", v->task);
	autopsy_add_hex(j, "rip", linear_rip(v));
	autopsy_add_symbol(j, "symbol", v, linear_rip(v));
	cJSON_AddItemToObject(j, "backtrace", backtrace(v));
	if (!full)
		return j;
	cJSON_AddItemToObject(j, "code", code_lines(v));
	cJSON_AddItemToObject(j, "registers", registers(v));
	if (v->record)
		cJSON_AddItemToObject(j, "exceptions", exceptions(v));
	cJSON_AddItemToObject(j, "walks", walks(v));
	if (v->record && v->record->arrivals)
		cJSON_AddItemToObject(j, "branches", autopsy_branches(v));
	cJSON_AddItemToObject(j, "stack", stack(v));
	return j;
}
