/* Coverage: the engine notes each piece of kernel code when it runs for the first time; here it is switched, and read out. */
#include <stdio.h>
#include "kvm/chan.h"
#include "vmm/insight.h"

int coverage_switch(struct machine *m, bool on)
{
	bool held = insight_hold(m);
	long ret = on ? kvm_ioctl(m->cpu[0].kvm, DOPPEL_CLEAR_COVERAGE, 0ul) : 0;

	if (ret >= 0)
		ret = machine_record(m, on ? DOPPEL_RECORD_COVERAGE : 0, on ? 0 : DOPPEL_RECORD_COVERAGE);
	insight_release(m, held);
	return (int)ret;
}

/* Lines "address length". */
int coverage_read(struct machine *m, struct coverage_piece *c, char *buf, size_t size)
{
	bool held = insight_hold(m);
	size_t used = 0;
	int ret = 0;

	buf[0] = 0;
	do {
		struct doppel_coverage piece = {.from = c->next};

		ret = (int)kvm_ioctl(m->cpu[0].kvm, DOPPEL_GET_COVERAGE, &piece);
		if (ret < 0)
			break;
		c->total = piece.total;
		c->lost = piece.lost;
		c->count = MIN(piece.count, (u32)DOPPEL_COVERAGE);
		for (u32 i = 0; i < c->count; i++)
			used += (size_t)snprintf(buf + used, size - used, "%llx %u\n",
						 (unsigned long long)((u64)((s64)(piece.entry[i] << 16) >> 16)),
						 (unsigned)(piece.entry[i] >> 48));
		c->next += c->count;
	} while (c->count && size - used > DOPPEL_COVERAGE * 24);
	insight_release(m, held);
	return ret;
}
