/*
 * Windows: parts of the guest's physical address space in which pages of the host's files appear (Virtio 1.2, 5.11.6.4: the DAX window of a
 * file system). The process that serves the files says what is where to the engine, on a SOCK_SEQPACKET of which the VMM gave an end to
 * each: a request, with the file's descriptor if there is one, and an answer of 0 or -errno as an s32.
 *
 * The guest can read there and not write. Where there is no file, and behind a file's end, it reads zeros. What a hostile process can
 * do here is to show the guest files that it may read anyway.
 */
#ifndef BASE_WINDOW_H
#define BASE_WINDOW_H

#include "base/types.h"

struct window_request {
	u64 offset, size; /* in the window; whole pages */
	u64 file_offset;  /* with a descriptor: what is there then; else nothing is */
	u64 cached;	  /* 1: the host has all of that in memory, so that nobody waits who looks at it ahead of the guest */
};

#endif
