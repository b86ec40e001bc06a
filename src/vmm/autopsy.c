/* Autopsies: of a guest that crashed, or of one that runs, on demand. */
#include <stdlib.h>
#include <string.h>
#include "base/term.h"
#include "debug/autopsy.h"
#include "vmm/insight.h"

enum { FULL_MAX = 8 /* so many full reports fit an answer on the control socket */ };

static cJSON *of_vcpu(struct machine *m, u32 index, bool full)
{
	struct doppel_record *record = calloc(1, sizeof(*record));
	struct vcpu_thread *t = &m->cpu[index];
	char task[LINUX_COMM + 1] = "";
	struct insight_vcpu v;
	struct autopsy_vcpu a = {.index = index, .task = task};
	cJSON *j = NULL;

	if (insight_vcpu(t, &v) == 0) {
		if (record && kvm_ioctl(t->kvm, DOPPEL_GET_RECORD, record) >= 0)
			a.record = record;
		a.halted = v.halted;
		a.regs = v.regs;
		a.view = (struct unwinder){.in = &v.in, .symbols = insight_symbols(m, &v), .orc = m->insight->orc};
		linux_comm(&m->insight->tasks, &v.in, v.kernel_gs, task);
		j = autopsy_vcpu(&a, full);
	}
	free(record);
	return j;
}

cJSON *machine_autopsy(struct machine *m, const char *reason, int cpu)
{
	cJSON *j = cJSON_CreateObject(), *list = NULL;

	insight_find(m, cpu);
	cJSON_AddStringToObject(j, "reason", reason);
	cJSON_AddNumberToObject(j, "cpu", cpu);
	list = cJSON_AddArrayToObject(j, "vcpus");
	if (cpu >= 0)
		cJSON_AddItemToArray(list, of_vcpu(m, (u32)cpu, true));
	for (u32 i = 0; i < m->ncpus; i++)
		if ((int)i != cpu)
			cJSON_AddItemToArray(list, of_vcpu(m, i, cpu < 0 && m->ncpus <= FULL_MAX));
	if (!m->insight->symbols)
		cJSON_AddStringToObject(j, "note", m->insight->why.text);
	return j;
}

void machine_autopsy_report(struct machine *m, const char *reason)
{
	cJSON *j = machine_autopsy(m, reason, m->event_cpu);
	char *text = cJSON_Print(j);
	int ret = text ? 0 : -ENOMEM;

	term_restore(); /* the VM ends */
	autopsy_print(j, stderr);
	if (m->cfg.autopsy_fd > 0 && !ret)
		ret = write_all(m->cfg.autopsy_fd, text, strlen(text));
	if (ret)
		log_msg(LOG_ERROR, "--autopsy: cannot write the file: %s", strerror(-ret));
	free(text);
	cJSON_Delete(j);
}

bool machine_panicking(struct machine *m)
{
	struct unwind_frame f[UNWIND_MAX];
	const struct symbols *s = NULL;
	struct insight_vcpu v;
	u32 n = 0;

	if (m->event_cpu < 0 || insight_vcpu(&m->cpu[m->event_cpu], &v) < 0)
		return false;
	s = insight_symbols(m, &v);
	n = s ? insight_stack(m, &v, f, ARRAY_SIZE(f)) : 0;
	for (u32 i = 1; i < n; i++) {
		const struct symbol *y = symbols_lookup(s, f[i].pc - 1);

		if (y && (!strcmp(symbols_name(s, y), "panic") || !strcmp(symbols_name(s, y), "vpanic")))
			return true;
	}
	return false;
}

int machine_record(struct machine *m, u32 set, u32 clear)
{
	u32 what = (m->insight->record | set) & ~clear;
	long ret = 0;

	for (u32 i = 0; i < m->ncpus && ret >= 0; i++)
		ret = kvm_ioctl(m->cpu[i].kvm, DOPPEL_SET_RECORD, (unsigned long)what);
	if (ret >= 0)
		m->insight->record = what;
	return (int)MIN(ret, 0l);
}
