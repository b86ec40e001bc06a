/* Prints what the translator made of guest code: --dump translate=PC. */
#include <errno.h>
#include <string.h>

#include "base/base.h"
#include "kvm/chan.h"
#include "vmm/machine.h"

/* Every piece is asked for until one is empty. */
static int dump_on(struct kvm_obj *vcpu, u64 pc, FILE *out)
{
	struct doppel_dump d = {.pc = pc};
	bool any = false;

	for (;;) {
		long ret = kvm_ioctl(vcpu, DOPPEL_DUMP_CODE, &d);

		if (ret < 0)
			return (int)ret;
		if (!d.size)
			return any ? 0 : -ESRCH;
		fwrite(d.text, 1, MIN(d.size, (u32)sizeof(d.text)), out);
		d.offset += d.size;
		any = true;
	}
}

void machine_dump_code(struct machine *m, u64 pc, FILE *out)
{
	int ret = -ENOENT;

	if (m->state == MACHINE_RUNNING)
		vcpus_hold(m);
	for (u32 i = 0; i < m->ncpus && ret == -ENOENT; i++)
		ret = dump_on(m->cpu[i].kvm, pc, out);
	if (ret == -ENOENT)
		log_msg(LOG_ERROR, "--dump translate=%#llx: no vCPU has that address mapped", (unsigned long long)pc);
	else if (ret == -ESRCH)
		log_msg(LOG_ERROR, "--dump translate=%#llx: not translated", (unsigned long long)pc);
	else if (ret < 0)
		log_msg(LOG_ERROR, "--dump translate=%#llx: %s", (unsigned long long)pc,
			ret == -ENOTTY ? "needs doppel's own engine" : strerror(-ret));
}
