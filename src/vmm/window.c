/* Windows onto files in the guest's physical memory (base/window.h): only where the KVM is doppel's engine, which has the memory. */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kvm/chan.h"
#include "vmm/machine.h"

int machine_window_add(struct machine *m, u64 size, int *sock)
{
	struct doppel_window w = {.size = size};
	int pair[2], ret = 0;

	if (kvm_kind(m->vm) != KVM_KIND_ENGINE)
		return -ENOTSUP;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	w.fd = pair[0];
	ret = (int)kvm_ioctl(m->vm, DOPPEL_ADD_WINDOW, &w);
	close(pair[0]);
	if (ret < 0)
		close(pair[1]);
	else
		*sock = pair[1];
	return ret;
}

int machine_window_place(struct machine *m, int window, gpa_t gpa)
{
	struct doppel_place p = {.window = (u32)window, .gpa = gpa};

	return (int)kvm_ioctl(m->vm, DOPPEL_PLACE_WINDOW, &p);
}
