/* Which eventfds are sources of the wake page, and to which GSI they are bound now. */
#include "vmm/wake.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/wake.h"
#include "kvm/chan.h"
#include "vmm/machine.h"

struct wake {
	struct wake_page *page;
	int fd;
	u32 n;
	int eventfd[WAKE_SOURCES];
};

int wake_create(struct machine *m)
{
	struct wake *w = calloc(1, sizeof(*w));
	void *p = MAP_FAILED;
	int ret = w ? 0 : -ENOMEM;

	if (ret)
		return ret;
	m->wake = w;
	w->fd = memfd_create("wake-page", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (w->fd < 0 || ftruncate(w->fd, sizeof(*w->page)) < 0 || fcntl(w->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
		ret = -errno;
	if (!ret)
		p = mmap(NULL, sizeof(*w->page), PROT_READ | PROT_WRITE, MAP_SHARED, w->fd, 0);
	if (!ret && p == MAP_FAILED)
		ret = -errno;
	if (!ret) {
		w->page = p;
		ret = (int)MIN(kvm_ioctl(m->vm, DOPPEL_SET_WAKE_PAGE, (long)w->fd), 0);
	}
	if (!ret)
		return 0;
	wake_free(m);
	return ret == -ENOTTY || ret == -ENOSYS ? 0 : ret;
}

void wake_free(struct machine *m)
{
	struct wake *w = m->wake;

	m->wake = NULL;
	if (!w)
		return;
	if (w->page)
		munmap(w->page, sizeof(*w->page));
	if (w->fd >= 0)
		close(w->fd);
	free(w);
}

static u32 find(const struct wake *w, int eventfd)
{
	u32 i = 0;

	while (w && i < w->n && w->eventfd[i] != eventfd)
		i++;
	return w && i < w->n ? i : WAKE_SOURCES;
}

int machine_wake_page(struct machine *m, int eventfd, u32 *source)
{
	struct wake *w = m->wake;

	if (!w || w->n == WAKE_SOURCES)
		return -1;
	w->eventfd[w->n] = eventfd;
	*source = w->n++;
	__atomic_store_n(&w->page->sources, w->n, __ATOMIC_RELEASE);
	return w->fd;
}

void wake_bound(struct machine *m, int eventfd, u32 gsi)
{
	u32 i = find(m->wake, eventfd);

	if (i < WAKE_SOURCES)
		wake_bind(m->wake->page, i, gsi);
}

void wake_unbind(struct machine *m, int eventfd)
{
	const u64 one = 1;
	u32 i = find(m->wake, eventfd);

	if (i < WAKE_SOURCES && wake_bind(m->wake->page, i, 0) && write(eventfd, &one, sizeof(one)) != sizeof(one))
		return; /* full: it is signalled already */
}
