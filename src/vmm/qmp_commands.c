/* The commands. Names and shapes are those of qemu's qapi schema; those of our own start with x-doppel-. */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "kvm/stats.h"
#include "kvm/chan.h"
#include "vmm/qmp_insight.h"
#include "vmm/qmp_int.h"

cJSON *qmp_version_json(const char *version)
{
	cJSON *j = cJSON_CreateObject(), *v = cJSON_AddObjectToObject(j, "qemu");
	int major = 0, minor = 0, micro = 0;

	/* the schema calls the server's version "qemu"; package says who it is */
	if (sscanf(version, "%d.%d.%d", &major, &minor, &micro) != 3)
		major = minor = micro = 0;
	cJSON_AddNumberToObject(v, "major", major);
	cJSON_AddNumberToObject(v, "minor", minor);
	cJSON_AddNumberToObject(v, "micro", micro);
	cJSON_AddStringToObject(j, "package", "doppel");
	return j;
}

static void query_version(const struct qmp_options *o, struct qmp_answer *a)
{
	a->result = qmp_version_json(o->version);
}

static void query_name(const struct qmp_options *o, struct qmp_answer *a)
{
	a->result = cJSON_CreateObject();
	cJSON_AddStringToObject(a->result, "name", o->name);
}

static void query_status(const struct qmp_options *o, struct qmp_answer *a)
{
	a->result = cJSON_CreateObject();
	cJSON_AddBoolToObject(a->result, "running", o->machine->state == MACHINE_RUNNING && !o->machine->debugger_holds);
	cJSON_AddStringToObject(a->result, "status", machine_state_name(o->machine));
}

static void query_cpus_fast(const struct qmp_options *o, struct qmp_answer *a)
{
	a->result = cJSON_CreateArray();
	for (u32 i = 0; i < o->machine->ncpus; i++) {
		cJSON *c = cJSON_CreateObject(), *props = cJSON_AddObjectToObject(c, "props");

		cJSON_AddNumberToObject(props, "core-id", i);
		cJSON_AddNumberToObject(props, "thread-id", 0);
		cJSON_AddNumberToObject(props, "socket-id", 0);
		cJSON_AddNumberToObject(c, "cpu-index", i);
		cJSON_AddNumberToObject(c, "thread-id", o->machine->cpu[i].tid);
		cJSON_AddStringToObject(c, "target", "x86_64");
		cJSON_AddItemToArray(a->result, c);
	}
}

static void cmd_stop(const struct qmp_options *o, struct qmp_answer *a)
{
	a->then = machine_pause;
}

static void cmd_cont(const struct qmp_options *o, struct qmp_answer *a)
{
	if (o->machine->state == MACHINE_RUNNING && o->machine->debugger_holds)
		a->error = "a debugger has stopped the VM (continue there, or let it detach)";
	else
		a->then = machine_resume;
}

static void powerdown(const struct qmp_options *o, struct qmp_answer *a)
{
	a->then = machine_powerdown;
}

static void do_reset(struct machine *m)
{
	machine_request(m, MACHINE_RESET, 0);
}

static void system_reset(const struct qmp_options *o, struct qmp_answer *a)
{
	a->then = do_reset;
}

static void do_quit(struct machine *m)
{
	machine_end(m, 0, "host-qmp-quit");
}

static void quit(const struct qmp_options *o, struct qmp_answer *a)
{
	a->then = do_quit;
}

static void to_console(const struct qmp_options *o, struct qmp_answer *a)
{
	a->to_console = true;
}

static void to_log(const struct qmp_options *o, struct qmp_answer *a)
{
	a->to_console = a->log_only = true;
}

/* ---- statistics ---- */
static const char *const exit_names[MACHINE_EXITS] = {
	[KVM_EXIT_IO] = "io",	  [KVM_EXIT_MMIO] = "mmio",	  [KVM_EXIT_HLT] = "hlt",
	[KVM_EXIT_INTR] = "intr", [KVM_EXIT_SHUTDOWN] = "shutdown", [KVM_EXIT_SYSTEM_EVENT] = "system-event",
};
static const char *const engine_names[] = {
#define X(name, text) #name,
	VCPU_STATS(X)
#undef X
};

static void add_engine_stats(struct vcpu_thread *v, cJSON *cpu)
{
	struct doppel_stats s = {0};
	cJSON *j = NULL;

	if (kvm_ioctl(v->kvm, DOPPEL_GET_STATS, &s) < 0)
		return; /* a kernel KVM */
	j = cJSON_AddObjectToObject(cpu, "engine");
	for (u32 i = 0; i < MIN(s.count, (u32)ARRAY_SIZE(engine_names)); i++)
		cJSON_AddNumberToObject(j, engine_names[i], (double)s.value[i]);
}

static cJSON *vcpu_stats(struct vcpu_thread *v)
{
	cJSON *cpu = cJSON_CreateObject(), *exits = NULL;
	u64 other = 0, all = 0;

	cJSON_AddNumberToObject(cpu, "cpu", v->index);
	exits = cJSON_AddObjectToObject(cpu, "exits");
	for (u32 i = 0; i < MACHINE_EXITS; i++) {
		all += v->exits[i];
		if (exit_names[i])
			cJSON_AddNumberToObject(exits, exit_names[i], (double)v->exits[i]);
		else
			other += v->exits[i];
	}
	cJSON_AddNumberToObject(exits, "other", (double)other);
	cJSON_AddNumberToObject(exits, "total", (double)all);
	add_engine_stats(v, cpu);
	return cpu;
}

/* Counters are read with the vCPUs outside the guest, a moment at most. */
static void stats(const struct qmp_options *o, struct qmp_answer *a)
{
	struct machine *m = o->machine;
	cJSON *cpus = NULL;
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	a->result = cJSON_CreateObject();
	cJSON_AddStringToObject(a->result, "name", o->name);
	cJSON_AddStringToObject(a->result, "engine", kvm_engine_name(m->sys));
	cJSON_AddNumberToObject(a->result, "engine-pid", kvm_engine_pid(m->sys));
	cJSON_AddNumberToObject(a->result, "memory", (double)m->cfg.memory);
	cJSON_AddNumberToObject(a->result, "resets", m->resets);
	cJSON_AddNumberToObject(a->result, "uptime-ms",
				(double)(((u64)ts.tv_sec * 1000000000ull + (u64)ts.tv_nsec - m->start_ns) / 1000000));
	cpus = cJSON_AddArrayToObject(a->result, "cpus");
	if (m->state == MACHINE_RUNNING)
		vcpus_hold(m);
	for (u32 i = 0; i < m->ncpus; i++)
		cJSON_AddItemToArray(cpus, vcpu_stats(&m->cpu[i]));
	if (m->state == MACHINE_RUNNING && !m->event_pending)
		vcpus_release(m);
	qmp_add_device_stats(m, a->result);
}

static void query_commands(const struct qmp_options *o, struct qmp_answer *a);

static const struct qmp_command commands[] = {
	{"query-version", query_version},
	{"query-name", query_name},
	{"query-status", query_status},
	{"query-cpus-fast", query_cpus_fast},
	{"query-commands", query_commands},
	{"stop", cmd_stop},
	{"cont", cmd_cont},
	{"system_powerdown", powerdown},
	{"system_reset", system_reset},
	{"quit", quit},
	{"x-doppel-stats", stats},
	{"x-doppel-console", to_console},
	{"x-doppel-log", to_log},
	{"x-doppel-trace-start", qmp_trace_start},
	{"x-doppel-trace-stop", qmp_trace_stop},
	{"x-doppel-top", qmp_top},
	{"x-doppel-registers", qmp_registers},
	{"x-doppel-memory", qmp_memory},
	{"x-doppel-autopsy", qmp_autopsy},
	{"x-doppel-coverage", qmp_coverage},
	{"x-doppel-profile", qmp_profile},
	{"x-doppel-symbols", qmp_symbols},
};

static void query_commands(const struct qmp_options *o, struct qmp_answer *a)
{
	a->result = cJSON_CreateArray();
	for (u32 i = 0; i < ARRAY_SIZE(commands); i++) {
		cJSON *c = cJSON_CreateObject();

		cJSON_AddStringToObject(c, "name", commands[i].name);
		cJSON_AddItemToArray(a->result, c);
	}
}

const struct qmp_command *qmp_command_find(const char *name)
{
	for (u32 i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	return NULL;
}
