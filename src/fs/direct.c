/* See direct.h. */
#include "fs/direct.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "devices/guestmem.h"

void direct_init(struct direct *d)
{
	*d = (struct direct){.channel = -1, .window_sock = -1};
	pthread_mutex_init(&d->lock, NULL);
}

static void forget(struct direct *d)
{
	if (d->channel >= 0)
		close(d->channel);
	if (d->window_sock >= 0)
		close(d->window_sock);
	if (d->attr)
		munmap((void *)d->attr, d->attr_pages);
	if (d->wake)
		munmap(d->wake, sizeof(*d->wake));
	d->channel = d->window_sock = -1;
	d->window = 0;
	d->attr = NULL;
	d->wake = NULL;
}

void direct_close(struct direct *d)
{
	forget(d);
	pthread_mutex_destroy(&d->lock);
}

static void *map(int fd, u64 size, int prot)
{
	void *p = mmap(NULL, size, prot, MAP_SHARED, fd, 0);

	return p == MAP_FAILED ? NULL : p;
}

int direct_set(struct direct *d, struct vu_message *m)
{
	const struct vu_direct *x = &m->direct;
	unsigned n = 1u + (x->attr_pages != 0) + (x->window != 0) + (x->has_wake != 0), i = 1;

	if (m->n_fds != n || x->attr_pages > 1ull << 40)
		return -EINVAL;
	for (unsigned k = 0; k < VU_DIRECT_QUEUES; k++)
		if (x->has_wake && x->wake_source[k] >= WAKE_SOURCES)
			return -EINVAL;
	forget(d);
	d->attr_pages = x->attr_pages;
	d->attr_code = (u8)x->attr_code;
	if (x->attr_pages && !(d->attr = map(m->fds[i++], x->attr_pages, PROT_READ)))
		return -ENOMEM;
	if (x->window) {
		d->window = x->window;
		d->window_sock = m->fds[i];
		m->fds[i++] = -1;
	}
	if (x->has_wake && !(d->wake = map(m->fds[i], sizeof(*d->wake), PROT_READ | PROT_WRITE)))
		return -ENOMEM;
	memcpy(d->source, x->wake_source, sizeof(d->source));
	d->channel = m->fds[0];
	m->fds[0] = -1;
	return 0;
}

/* If the VMM is gone nobody runs that code, and this process ends soon too. */
static void tell(struct direct *d, gpa_t gpa, u64 size)
{
	struct vu_written w = {gpa, size};
	ssize_t n = 0;

	pthread_mutex_lock(&d->lock);
	do
		n = write(d->channel, &w, sizeof(w));
	while (n < 0 && errno == EINTR);
	while (n == sizeof(w) && read(d->channel, &w, sizeof(w)) < 0 && errno == EINTR)
		;
	pthread_mutex_unlock(&d->lock);
}

void direct_broken(struct direct *d)
{
	if (d->channel >= 0)
		tell(d, 0, 0);
}

void direct_written(void *direct, gpa_t gpa, u64 n)
{
	struct direct *d = direct;

	if (d->attr && guest_holds_code(d->attr, d->attr_pages, d->attr_code, gpa, n))
		tell(d, gpa, n);
}
