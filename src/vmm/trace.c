/*
 * Traces of the guest: the rings are a memfd that the engine writes and the asking process reads; this process only hands it out,
 * and ends the trace when who asked is gone.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kvm/chan.h"
#include "kvm/trace.h"
#include "vmm/qmp_int.h"

/* Sealed: a reader must not take memory away under the engine. */
static int make_rings(const struct machine *m)
{
	const struct trace_header h = {.magic = TRACE_MAGIC, .version = TRACE_VERSION, .ncpus = m->ncpus};
	int fd = memfd_create("trace", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	u8 last = 0;

	if (fd < 0)
		return -errno;
	if (pwrite(fd, &h, sizeof(h), 0) == sizeof(h) && pwrite(fd, &last, 1, (off_t)TRACE_SIZE(m->ncpus) - 1) == 1 &&
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
		return fd;
	close(fd);
	return -ENOMEM;
}

int machine_trace_start(struct machine *m, struct doppel_trace *t, struct err *e)
{
	int fd = kvm_kind(m->sys) == KVM_KIND_ENGINE ? make_rings(m) : -ENOTTY;
	long ret = fd;

	if (fd >= 0) {
		t->fd = fd;
		ret = kvm_ioctl(m->vm, DOPPEL_TRACE_START, t);
		if (ret < 0)
			close(fd);
	}
	if (ret >= 0) {
		m->traces++;
		return fd;
	}
	return err_set(e, (int)-ret, "trace: %s",
		       ret == -ENOTTY	    ? "needs doppel's own engine (--engine translate or interp), not /dev/kvm"
		       : ret == -EBUSY	    ? "the VM is being traced already"
		       : ret == -EOPNOTSUPP ? "not with --engine check"
		       : ret == -EINVAL	    ? "nothing to trace"
					    : strerror((int)-ret));
}

void machine_trace_stop(struct machine *m)
{
	if (kvm_kind(m->sys) == KVM_KIND_ENGINE)
		kvm_ioctl(m->vm, DOPPEL_TRACE_STOP, 0ul);
}

/* ---- control commands ---- */

/* Numbers of 64 bits are strings in JSON. */
static u64 number(const cJSON *args, const char *key, u64 otherwise)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(args, key);

	return cJSON_IsString(v) ? strtoull(v->valuestring, NULL, 0) : otherwise;
}

/* Its trace may have been stopped already, and another begun. */
static void end_of_client(struct machine *m, u64 trace)
{
	if (m->traces == trace)
		machine_trace_stop(m);
}

void qmp_trace_start(const struct qmp_options *o, struct qmp_answer *a)
{
	struct doppel_trace t = {.kinds = (u32)number(a->args, "kinds", TRACE_ALL), .cpus = number(a->args, "cpus", ~0ull),
				 .lo = number(a->args, "lo", 0), .hi = number(a->args, "hi", ~0ull),
				 .cpls = (u32)number(a->args, "cpls", 15), .wait = number(a->args, "wait", 0) != 0};
	struct err e = {0};
	int fd = machine_trace_start(o->machine, &t, &e);

	if (fd < 0) {
		snprintf(a->error_text, sizeof(a->error_text), "%.190s", e.text);
		a->error = a->error_text;
		return;
	}
	a->has_fd = true;
	a->fd = fd;
	a->closed = end_of_client;
	a->closed_what = o->machine->traces;
}

void qmp_trace_stop(const struct qmp_options *o, struct qmp_answer *a)
{
	machine_trace_stop(o->machine);
}

static void add_samples(struct machine *m, bool count, cJSON *to)
{
	static const char *const names[SAMPLE_KINDS] = {[SAMPLE_USER] = "user", [SAMPLE_KERNEL] = "kernel",
							 [SAMPLE_MONITOR] = "monitor", [SAMPLE_IDLE] = "idle"};
	struct doppel_samples s;
	cJSON *list = NULL;

	if (kvm_kind(m->sys) != KVM_KIND_ENGINE || kvm_ioctl(m->vm, DOPPEL_GET_SAMPLES, &s) < 0)
		return;
	if (count)
		kvm_ioctl(m->vm, DOPPEL_COUNT_INSNS, 0ul);
	list = cJSON_AddArrayToObject(to, "samples");
	for (u32 i = 0; i < MIN(s.ncpus, (u32)ARRAY_SIZE(s.count)); i++) {
		cJSON *j = cJSON_CreateObject();

		for (u32 k = 0; k < SAMPLE_KINDS; k++)
			cJSON_AddNumberToObject(j, names[k], (double)s.count[i][k]);
		cJSON_AddItemToArray(list, j);
	}
}

/* Pages of guest RAM that the host has given memory to. */
static u64 ram_touched(const struct machine *m)
{
	struct stat st;

	return fstat(m->ram_fd, &st) < 0 ? 0 : (u64)st.st_blocks * 512;
}

void qmp_top(const struct qmp_options *o, struct qmp_answer *a)
{
	qmp_command_find("x-doppel-stats")->run(o, a);
	cJSON_AddNumberToObject(a->result, "pid", getpid());
	cJSON_AddStringToObject(a->result, "state", machine_state_name(o->machine));
	cJSON_AddNumberToObject(a->result, "memory-touched", (double)ram_touched(o->machine));
	add_samples(o->machine, cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(a->args, "count")), a->result);
}
