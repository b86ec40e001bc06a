/*
 * Which eventfds are sources of the wake page, and to which GSI they are bound now: those of device processes, and those of the MSIs that the
 * VMM's own devices send.
 */
#include "vmm/wake.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/wake.h"
#include "kvm/chan.h"
#include "vmm/machine.h"

struct wake {
	struct wake_page *page;
	int fd;
	pthread_mutex_t lock; /* of the next two: devices come and go by on any thread */
	u32 n;
	int eventfd[WAKE_SOURCES]; /* -1: free again */
};

int wake_create(struct machine *m)
{
	struct wake *w = calloc(1, sizeof(*w));
	void *p = MAP_FAILED;
	int ret = w ? 0 : -ENOMEM;

	if (ret)
		return ret;
	m->wake = w;
	pthread_mutex_init(&w->lock, NULL);
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
	pthread_mutex_destroy(&w->lock);
	free(w);
}

/* -1: the first free one. WAKE_SOURCES: there is none. */
static u32 find_locked(const struct wake *w, int eventfd)
{
	for (u32 i = 0; i < w->n; i++)
		if (w->eventfd[i] == eventfd)
			return i;
	return eventfd < 0 && w->n < WAKE_SOURCES ? w->n : WAKE_SOURCES;
}

static u32 find(struct wake *w, int eventfd)
{
	u32 i = WAKE_SOURCES;

	if (!w)
		return i;
	pthread_mutex_lock(&w->lock);
	i = find_locked(w, eventfd);
	pthread_mutex_unlock(&w->lock);
	return i;
}

u32 wake_source(struct machine *m, int eventfd)
{
	struct wake *w = m->wake;
	u32 i = WAKE_SOURCES;

	if (!w)
		return i;
	pthread_mutex_lock(&w->lock);
	i = find_locked(w, -1);
	if (i < WAKE_SOURCES)
		w->eventfd[i] = eventfd;
	if (i == w->n && i < WAKE_SOURCES)
		__atomic_store_n(&w->page->sources, ++w->n, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&w->lock);
	return i;
}

void wake_forget(struct machine *m, u32 source)
{
	struct wake *w = m->wake;

	if (!w || source >= WAKE_SOURCES)
		return;
	wake_bind(w->page, source, 0); /* what was pending goes with it */
	pthread_mutex_lock(&w->lock);
	w->eventfd[source] = -1;
	pthread_mutex_unlock(&w->lock);
}

bool wake_by(struct machine *m, u32 source)
{
	return m->wake && source < WAKE_SOURCES && wake_ring(m->wake->page, source);
}

int machine_wake_page(struct machine *m, int eventfd, u32 *source)
{
	*source = wake_source(m, eventfd);
	return *source < WAKE_SOURCES ? m->wake->fd : -1;
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
