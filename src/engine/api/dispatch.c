/* Table dispatch of KVM requests. */
#include <errno.h>
#include <asm/ioctl.h>

#include "engine/api/api.h"

s64 api_dispatch(const struct api_row *rows, unsigned nrows, u32 request, struct api_call *c)
{
	for (unsigned i = 0; i < nrows; i++) {
		u32 fixed = _IOC_DIR(request) == _IOC_NONE ? 0 : _IOC_SIZE(request);

		if (rows[i].request != request)
			continue;
		/* KVM_SET_IRQCHIP is encoded as a read but is a write */
		if ((_IOC_DIR(request) & _IOC_WRITE || request == (u32)KVM_SET_IRQCHIP) && c->size < fixed)
			return -EFAULT;
		if (fixed > c->room)
			return -E2BIG;
		if (_IOC_DIR(request) & _IOC_READ && c->size < fixed)
			c->size = fixed;
		return rows[i].fn(c);
	}
	return -ENOTTY;
}
