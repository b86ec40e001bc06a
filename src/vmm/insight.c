/* What the debug room is given of the machine. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/file.h"
#include "debug/modules.h"
#include "vmm/insight.h"
#include "vmm/profile.h"

#define KERNEL_FILE_MAX (1ull << 30)
#define RETRY_NS        1000000000ull /* a guest that boots will have them soon; looking takes some ms */
#define MSR_KERNEL_GS   0xc0000102

int insight_create(struct machine *m)
{
	m->insight = calloc(1, sizeof(*m->insight));
	return m->insight ? profile_create(m) : -ENOMEM;
}

void insight_forget(struct machine *m)
{
	struct insight *n = m->insight;

	symbols_free(n->symbols);
	orc_free(n->orc);
	n->symbols = NULL;
	n->orc = NULL;
	n->tasks = (struct linux_tasks){0};
	n->retry_ns = 0;
}

void insight_free(struct machine *m)
{
	if (!m->insight)
		return;
	insight_forget(m);
	profile_free(m);
	free(m->insight);
	m->insight = NULL;
}

bool insight_hold(struct machine *m)
{
	if (m->state != MACHINE_RUNNING)
		return false;
	vcpus_hold(m);
	return true;
}

void insight_release(struct machine *m, bool held)
{
	/* a request that came meanwhile keeps them held until it is dealt with */
	if (held && !m->event_pending)
		vcpus_release(m);
}

int insight_vcpu(struct vcpu_thread *v, struct insight_vcpu *out)
{
	struct {
		struct kvm_msrs h;
		struct kvm_msr_entry e;
	} msr = {.h.nmsrs = 1, .e = {.index = MSR_KERNEL_GS}};
	struct kvm_mp_state mp = {0};
	long ret = kvm_ioctl(v->kvm, KVM_GET_REGS, &out->regs);

	out->in.ram = &v->m->ram;
	if (ret >= 0)
		ret = kvm_ioctl(v->kvm, KVM_GET_SREGS, &out->in.s);
	if (ret >= 0)
		ret = kvm_ioctl(v->kvm, KVM_GET_MP_STATE, &mp);
	if (ret < 0)
		return (int)ret;
	out->halted = mp.mp_state != KVM_MP_STATE_RUNNABLE;
	out->kernel_gs = kvm_ioctl(v->kvm, KVM_GET_MSRS, &msr) == 1 ? msr.e.data : 0;
	return 0;
}

/* ---- symbols ---- */
/* Those of the file, moved to where the guest's kernel is; modules' names from the guest. */
static void add_file(struct symbols *s, const struct symbols *file, const struct symbols *guest)
{
	u64 here = 0, there = 0;

	if (symbols_find(file, "_text", &there) && symbols_find(guest, "_text", &here))
		here -= there;
	else
		here = 0;
	for (u32 i = 0; i < symbols_count(file); i++) {
		const struct symbol *y = symbols_at(file, i);
		const char *name = symbols_name(file, y);

		/* per-CPU symbols and absolute ones do not move */
		symbols_add(s, y->addr >> 63 ? y->addr + here : y->addr, y->type, name, strlen(name));
	}
	for (u32 i = 0; i < symbols_count(guest); i++) {
		const struct symbol *y = symbols_at(guest, i);

		if (strchr(symbols_name(guest, y), '['))
			symbols_add(s, y->addr, y->type, symbols_name(guest, y), strlen(symbols_name(guest, y)));
	}
}

/* The kernel that was loaded may be an ELF file with symbols: a guest of one's own. */
static bool from_kernel_file(struct machine *m, struct symbols *s)
{
	void *data = NULL;
	u64 n = 0;
	bool ok = m->cfg.kernel_fd >= 0 && read_fd(m->cfg.kernel_fd, KERNEL_FILE_MAX, &data, &n) == 0 && n > 4 &&
		  !memcmp(data, "\177ELF", 4) && symbols_from_file(s, data, n, 0) == 0;

	free(data);
	return ok && symbols_count(s);
}

static struct symbols *find_symbols(struct machine *m, const struct insight_vcpu *v, struct err *e)
{
	struct symbols *guest = symbols_new(), *s = NULL;
	bool linux_guest = guest && symbols_from_guest(guest, &v->in, e) == 0;

	if (guest)
		symbols_sort(guest);
	if (linux_guest) {
		modules_symbols(guest, &v->in);
		symbols_sort(guest);
	}
	if (m->cfg.symbols) {
		s = symbols_new();
		if (s)
			add_file(s, m->cfg.symbols, guest);
	} else if (linux_guest || (guest && from_kernel_file(m, guest))) {
		s = guest;
		guest = NULL;
	}
	symbols_free(guest);
	if (s)
		symbols_sort(s);
	return s;
}

const struct symbols *insight_symbols(struct machine *m, const struct insight_vcpu *v)
{
	struct insight *n = m->insight;
	struct timespec ts;
	u64 now = 0;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	now = (u64)ts.tv_sec * 1000000000ull + (u64)ts.tv_nsec;
	if (n->symbols || now < n->retry_ns)
		return n->symbols;
	n->retry_ns = now + RETRY_NS;
	n->why.text[0] = 0;
	n->symbols = find_symbols(m, v, &n->why);
	if (!n->symbols)
		return NULL;
	n->orc = orc_load(n->symbols, &v->in);
	modules_orc(n->symbols, n->orc, &v->in);
	linux_find(&n->tasks, n->symbols, &v->in);
	return n->symbols;
}

void insight_find(struct machine *m, int first)
{
	insight_forget(m); /* modules may have come since */
	for (u32 i = 0; i < m->ncpus && !m->insight->symbols; i++) {
		struct insight_vcpu v;

		m->insight->retry_ns = 0;
		if (insight_vcpu(&m->cpu[(i + (u32)MAX(first, 0)) % m->ncpus], &v) == 0)
			insight_symbols(m, &v);
	}
}

u32 insight_stack(struct machine *m, const struct insight_vcpu *v, struct unwind_frame *out, u32 max)
{
	struct unwinder u = {.in = &v->in, .symbols = insight_symbols(m, v), .orc = m->insight->orc};

	return unwind(&u, &v->regs, out, max);
}
