/* Looking at a running VM: registers and memory. Its vCPUs are out of the guest for a moment. 64-bit values are text: "0x...". */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "debug/inspect.h"
#include "vmm/debugger.h"
#include "vmm/qmp_int.h"

enum { MEMORY_MAX = 64 << 10 };

static void hold(struct machine *m)
{
	if (m->state == MACHINE_RUNNING)
		vcpus_hold(m);
}

static void let_go(struct machine *m)
{
	if (m->state == MACHINE_RUNNING && !m->event_pending)
		vcpus_release(m);
}

/* ---- arguments ---- */
static bool cpu_arg(const struct qmp_options *o, struct qmp_answer *a, const char *key, u32 *cpu)
{
	const cJSON *j = cJSON_GetObjectItemCaseSensitive(a->args, key);

	*cpu = 0;
	if (!j)
		return true;
	if (!cJSON_IsNumber(j) || !(j->valuedouble >= 0 && j->valuedouble < o->machine->ncpus)) {
		snprintf(a->error_text, sizeof(a->error_text), "cpu: there are vCPUs 0 to %u", o->machine->ncpus - 1);
		a->error = a->error_text;
		return false;
	}
	*cpu = (u32)j->valuedouble;
	return true;
}

static void hex(cJSON *j, const char *key, u64 v)
{
	char text[20];

	snprintf(text, sizeof(text), "0x%" PRIx64, v);
	cJSON_AddStringToObject(j, key, text);
}

/* ---- registers ---- */
static void add_text(cJSON *j, const struct cpu_state *c)
{
	char *text = NULL;
	size_t n = 0;
	FILE *out = open_memstream(&text, &n);

	if (!out)
		return;
	cpu_state_print(c, out);
	if (!fclose(out))
		cJSON_AddStringToObject(j, "text", text);
	free(text);
}

static cJSON *registers_of(u32 cpu, const struct cpu_state *c)
{
	cJSON *j = cJSON_CreateObject(), *regs = NULL, *segs = NULL;
	const struct kvm_segment *s = NULL;
	const char *name = NULL;
	u64 v = 0;

	cJSON_AddNumberToObject(j, "cpu", cpu);
	cJSON_AddStringToObject(j, "activity", cpu_state_activity(c));
	cJSON_AddStringToObject(j, "mode", cpu_state_mode(c));
	cJSON_AddNumberToObject(j, "ring", c->s.ss.dpl);
	hex(j, "pc", cpu_state_pc(c));
	regs = cJSON_AddObjectToObject(j, "registers");
	for (u32 i = 0; cpu_state_register(c, i, &name, &v); i++)
		hex(regs, name, v);
	segs = cJSON_AddObjectToObject(j, "segments");
	for (u32 i = 0; cpu_state_segment(c, i, &name, &s); i++) {
		cJSON *one = cJSON_AddObjectToObject(segs, name);

		hex(one, "selector", s->selector);
		hex(one, "base", s->base);
		hex(one, "limit", s->limit);
		cJSON_AddNumberToObject(one, "type", s->type);
		cJSON_AddNumberToObject(one, "dpl", s->dpl);
		cJSON_AddBoolToObject(one, "usable", !s->unusable && s->present);
	}
	add_text(j, c);
	return j;
}

void qmp_registers(const struct qmp_options *o, struct qmp_answer *a)
{
	struct machine *m = o->machine;
	bool all = !cJSON_GetObjectItemCaseSensitive(a->args, "cpu");
	u32 cpu = 0;

	if (!cpu_arg(o, a, "cpu", &cpu))
		return;
	a->result = cJSON_CreateArray();
	hold(m);
	for (u32 i = all ? 0 : cpu; i < (all ? m->ncpus : cpu + 1); i++) {
		struct cpu_state c;

		if (!vcpu_get_state(&m->cpu[i], &c))
			cJSON_AddItemToArray(a->result, registers_of(i, &c));
	}
	let_go(m);
}

/* ---- memory ---- */
static bool size_arg(struct qmp_answer *a, u64 *size)
{
	const cJSON *j = cJSON_GetObjectItemCaseSensitive(a->args, "size");

	if (cJSON_IsNumber(j) && j->valuedouble >= 1 && j->valuedouble <= MEMORY_MAX) {
		*size = (u64)j->valuedouble;
		return true;
	}
	a->error = "size: 1 to 65536 bytes";
	return false;
}

/* As much as is there, in whole pages' ends; 0: nothing at the address. */
static u64 read_memory(struct machine *m, const struct cpu_state *c, u64 addr, bool physical, u8 *buf, u64 n)
{
	struct inspect in = {.ram = &m->ram, .s = c->s};
	u64 done = 0;

	if (!physical)
		return inspect_read(&in, addr, buf, n);
	while (done < n) {
		u64 now = MIN(n - done, 4096 - ((addr + done) & 4095));

		if (!inspect_read_physical(&m->ram, addr + done, buf + done, now))
			break;
		done += now;
	}
	return done;
}

static void add_bytes(cJSON *j, const u8 *p, u64 n)
{
	static const char digits[] = "0123456789abcdef";
	char *text = malloc(2 * n + 1);

	if (!text)
		return;
	for (u64 i = 0; i < n; i++) {
		text[2 * i] = digits[p[i] >> 4];
		text[2 * i + 1] = digits[p[i] & 15];
	}
	text[2 * n] = 0;
	cJSON_AddStringToObject(j, "data", text);
	free(text);
}

static const char *why_not(struct machine *m, const struct cpu_state *c, u64 addr, bool physical)
{
	struct inspect in = {.ram = &m->ram, .s = c->s};
	struct inspect_walk w;

	if (physical)
		return "not RAM";
	inspect_walk(&in, addr, &w);
	return w.end == WALK_MAPPED ? "mapped, but not to RAM" : inspect_end_text(w.end);
}

/* A number, a register, or one of the kernel's symbols. */
static bool find_address(struct machine *m, u32 cpu, const struct cpu_state *c, const char *text, u64 *addr)
{
	return !cpu_state_address(c, text, addr) || debugger_symbol(m, cpu, text, addr);
}

static void answer_memory(struct machine *m, struct qmp_answer *a, u32 cpu, const struct cpu_state *c, u64 size)
{
	const char *where = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(a->args, "address"));
	bool physical = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(a->args, "physical"));
	u8 *buf = malloc(size);
	u64 addr = 0, n = 0;

	if (!where || !find_address(m, cpu, c, where, &addr)) {
		a->error = "address: not a number, a register such as pc or rsp, or a symbol of the guest's kernel";
	} else if (buf && (n = read_memory(m, c, addr, physical, buf, size))) {
		a->result = cJSON_CreateObject();
		hex(a->result, "address", addr);
		cJSON_AddNumberToObject(a->result, "code-bits", inspect_code_bits(&c->s));
		add_bytes(a->result, buf, n);
	} else {
		snprintf(a->error_text, sizeof(a->error_text), "0x%" PRIx64 ": %s", addr, why_not(m, c, addr, physical));
		a->error = a->error_text;
	}
	free(buf);
}

void qmp_memory(const struct qmp_options *o, struct qmp_answer *a)
{
	struct cpu_state c;
	u32 cpu = 0;
	u64 size = 0;

	if (!cpu_arg(o, a, "cpu", &cpu) || !size_arg(a, &size))
		return;
	hold(o->machine);
	if (vcpu_get_state(&o->machine->cpu[cpu], &c))
		a->error = "the vCPU cannot be asked";
	else
		answer_memory(o->machine, a, cpu, &c, size);
	let_go(o->machine);
}
