/* The kernel's KVM: /dev/kvm. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "kvm/kvm_int.h"

static const char node[] = "/dev/kvm";

int open_device_node(void)
{
	int fd = open(node, O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

bool device_hardware_backed(void)
{
	char line[8192];
	bool found = false;
	FILE *f = fopen("/proc/cpuinfo", "re");

	if (!f)
		return false;
	while (!found && fgets(line, sizeof(line), f))
		if (!strncmp(line, "flags", 5))
			found = strstr(line, " vmx ") || strstr(line, " svm ") || strstr(line, " vmx\n") ||
				strstr(line, " svm\n");
	fclose(f);
	return found && access(node, R_OK | W_OK) == 0;
}

/* The kick signal interrupts the ioctl and does nothing else. */
static void on_kick(int sig)
{
	(void)sig;
}

int device_open(struct kvm_obj **sys, struct kvm_open_result *res)
{
	struct sigaction sa = {.sa_handler = on_kick};
	int fd = open_device_node(), version;

	res->kind = KVM_KIND_DEVICE;
	if (fd < 0) {
		snprintf(res->why, sizeof(res->why), "%s: %s", node, strerror(-fd));
		return fd;
	}
	version = ioctl(fd, KVM_GET_API_VERSION, 0);
	if (version != KVM_API_VERSION) {
		snprintf(res->why, sizeof(res->why), "%s: API version %d, need %d", node, version, KVM_API_VERSION);
		close(fd);
		return -ENOTSUP;
	}
	*sys = calloc(1, sizeof(**sys));
	if (!*sys) {
		close(fd);
		return -ENOMEM;
	}
	(*sys)->kind = KVM_KIND_DEVICE;
	(*sys)->type = KVMW_SYSTEM;
	(*sys)->fd = fd;
	sigaction(SIGUSR1, &sa, NULL);
	snprintf(res->why, sizeof(res->why), "%s%s", node,
		 device_hardware_backed() ? " with hardware virtualization" : " without hardware virtualization");
	return 0;
}
