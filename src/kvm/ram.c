/*
 * Guest RAM that can be shared with the engine: memfds, and the table that finds the memfd behind an address. The table is the
 * one piece of process-wide state of this room, because KVM names memory by address alone.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kvm/kvm_int.h"

#define RAM_MAX 256

static struct {
	pthread_mutex_t lock;
	struct {
		u64 addr, size;
		int fd;
	} e[RAM_MAX];
} ram = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int ram_register(u64 addr, u64 size, int fd)
{
	int r = -ENOSPC;

	pthread_mutex_lock(&ram.lock);
	for (unsigned i = 0; i < RAM_MAX; i++) {
		if (ram.e[i].size)
			continue;
		ram.e[i].addr = addr;
		ram.e[i].size = size;
		ram.e[i].fd = fd;
		r = 0;
		break;
	}
	pthread_mutex_unlock(&ram.lock);
	return r;
}

void *kvm_ram_alloc(u64 size, int *fd_out)
{
	int fd = memfd_create("guest-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	void *p;

	if (fd < 0)
		return NULL;
	if (size > INT64_MAX || ftruncate(fd, (off_t)size) < 0) {
		int e = size > INT64_MAX ? ENOMEM : errno;

		close(fd);
		errno = e;
		return NULL;
	}
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (p == MAP_FAILED || ram_register((u64)p, size, fd) < 0) {
		int e = p == MAP_FAILED ? errno : ENOSPC;

		if (p != MAP_FAILED)
			munmap(p, size);
		close(fd);
		errno = e;
		return NULL;
	}
	if (fd_out)
		*fd_out = fd;
	return p;
}

void kvm_ram_free(void *p, u64 size)
{
	int fd = -1;

	if (!p)
		return;
	pthread_mutex_lock(&ram.lock);
	for (unsigned i = 0; i < RAM_MAX; i++) {
		if (ram.e[i].size == size && ram.e[i].addr == (u64)p) {
			fd = ram.e[i].fd;
			ram.e[i].size = 0;
		}
	}
	pthread_mutex_unlock(&ram.lock);
	munmap(p, size);
	if (fd >= 0)
		close(fd);
}

int ram_lookup(u64 addr, u64 size, u64 *offset)
{
	int fd = -1;

	pthread_mutex_lock(&ram.lock);
	for (unsigned i = 0; i < RAM_MAX; i++) {
		u64 off = addr - ram.e[i].addr;

		if (ram.e[i].size && addr >= ram.e[i].addr && off < ram.e[i].size && size <= ram.e[i].size - off) {
			*offset = off;
			fd = ram.e[i].fd;
		}
	}
	pthread_mutex_unlock(&ram.lock);
	return fd;
}
