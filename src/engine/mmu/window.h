/* Windows (base/window.h) of the VM. Main thread, but for the last. */
#ifndef ENGINE_MMU_WINDOW_H
#define ENGINE_MMU_WINDOW_H

#include "base/types.h"

struct vm;
enum { MMU_WINDOWS = 32 };

struct mmu_window {
	u64 size;
	u64 gpa; /* MMU_NOWHERE, or where it is */
	int sock;
};
#define MMU_NOWHERE (~0ull)

/* A window that is nowhere yet; sock becomes the engine's. Its number, or -errno. */
int window_add(struct vm *vm, u64 size, int sock);
/* Moves it, or takes it away (MMU_NOWHERE); it is empty afterwards. Stops the vCPUs. 0 or -errno. */
int window_place(struct vm *vm, u32 n, u64 gpa);
/* Whether [gpa, gpa + size) is a window's, in part. */
bool window_overlaps(const struct vm *vm, u64 gpa, u64 size);
/* A signal's handler: a file has become shorter than what the guest reads of it. True: it reads zeros there. */
bool window_fault(const struct vm *vm, u64 host);

#endif
