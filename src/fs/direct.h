/* The guest's own rings, served from here (base/vhost_user.h, VU_SET_DIRECT): what the VMM must hear of, and waking vCPUs. */
#ifndef FS_DIRECT_H
#define FS_DIRECT_H

#include <pthread.h>

#include "base/vhost_user.h"
#include "base/wake.h"

struct direct {
	pthread_mutex_t lock; /* of the channel: a question and its answer */
	int channel;          /* -1: none */
	const u8 *attr;
	u64 attr_pages;
	u8 attr_code;
	int window_sock; /* -1: no window */
	u64 window;
	struct wake_page *wake;
	u32 source[VU_DIRECT_QUEUES];
};

void direct_init(struct direct *d);
void direct_close(struct direct *d);
/* As VU_SET_DIRECT says; takes what it needs of the message's descriptors. While no queue runs. 0 or -errno. */
int direct_set(struct direct *d, struct vu_message *m);
/* guestmem.written: returns when no vCPU runs code any more that was decoded from what was there before. */
void direct_written(void *direct, gpa_t gpa, u64 n);
/* The driver broke a ring: the device needs a reset. */
void direct_broken(struct direct *d);

#endif
