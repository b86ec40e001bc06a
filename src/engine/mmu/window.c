/* See window.h and base/window.h. A window's pages are read-only RAM for the rest of the engine; what is behind them comes and goes by mmap. */
#include "engine/mmu/window.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/window.h"
#include "engine/interp/interp.h"
#include "engine/lib/lib.h"
#include "engine/lib/loop.h"
#include "engine/mmu/mmu_int.h"
#include "engine/safepoint.h"

/* Zeros that take no memory. */
static int map_nothing(gpa_t gpa, u64 size)
{
	void *p = mmap(gpa_to_hva(gpa), size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);

	return p == MAP_FAILED ? -errno : 0;
}

/* Only what cannot block or act when it is mapped. */
static int map_file(gpa_t gpa, u64 size, int fd, u64 offset)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || offset > INT64_MAX - size)
		return -EINVAL;
	return mmap(gpa_to_hva(gpa), size, PROT_READ, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd, (off_t)offset) == MAP_FAILED ? -errno : 0;
}

/* ---- requests ---- */
static s32 serve(struct mmu_window *w, const struct window_request *r, int fd)
{
	gpa_t at = w->gpa + r->offset;
	int ret = 0;

	if (w->gpa == MMU_NOWHERE)
		return -ENXIO;
	if (!r->size || (r->offset | r->size | r->file_offset) & ~PAGE_MASK || r->offset > w->size || r->size > w->size - r->offset)
		return -EINVAL;
	ret = fd >= 0 ? map_file(at, r->size, fd, r->file_offset) : map_nothing(at, r->size);
	code_invalidate(at, r->size);
	return ret;
}

static int fd_of(struct msghdr *m)
{
	struct cmsghdr *h = CMSG_FIRSTHDR(m);
	int fd = -1;

	if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS && h->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(&fd, CMSG_DATA(h), sizeof(fd));
	return fd;
}

/* While the vCPU begins to read at the front, takes the faults ahead of it: Linux maps 64 KiB at each. (MADV_POPULATE_READ takes twice as long.) */
static void touch(const u8 *p, u64 size)
{
	for (u64 at = 0; at < size; at += 64 << 10)
		(void)*(volatile const u8 *)(p + at);
}

/* One at a time: who asks waits for the answer. */
static void on_request(void *arg)
{
	struct mmu_window *w = arg;
	struct window_request r;
	struct iovec iov = {&r, sizeof(r)};
	char cbuf[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = cbuf, .msg_controllen = sizeof(cbuf)};
	ssize_t n = recvmsg(w->sock, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	int fd = n > 0 ? fd_of(&m) : -1;
	s32 ret = 0;

	if (n == 0) { /* the process has ended: what the guest has mapped stays */
		loop_del(w->sock);
		close(w->sock);
		w->sock = -1;
	}
	if (n <= 0)
		return;
	ret = n == sizeof(r) ? serve(w, &r, fd) : -EINVAL;
	if (fd >= 0)
		close(fd);
	iov = (struct iovec){&ret, sizeof(ret)};
	m = (struct msghdr){.msg_iov = &iov, .msg_iovlen = 1};
	sendmsg(w->sock, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (!ret && fd >= 0 && r.cached)
		touch(gpa_to_hva(w->gpa + r.offset), r.size);
}

/* ---- windows ---- */
int window_add(struct vm *vm, u64 size, int sock)
{
	struct mmu_window *w = &vm->window[vm->nwindows];
	int ret = 0;

	if (!size || size & ~PAGE_MASK || size > ENG_GPA_LIMIT || vm->nwindows == MMU_WINDOWS)
		return -EINVAL;
	*w = (struct mmu_window){.size = size, .gpa = MMU_NOWHERE, .sock = sock};
	ret = loop_add(sock, on_request, w);
	if (ret < 0)
		return ret;
	return (int)vm->nwindows++;
}

bool window_overlaps(const struct vm *vm, u64 gpa, u64 size)
{
	for (u32 i = 0; i < vm->nwindows; i++) {
		const struct mmu_window *w = &vm->window[i];

		if (w->gpa != MMU_NOWHERE && gpa < w->gpa + w->size && w->gpa < gpa + size)
			return true;
	}
	return false;
}

struct placing {
	struct mmu_window *w;
	u64 gpa;
	int ret;
};

static void take_away(struct mmu_window *w)
{
	code_invalidate(w->gpa, w->size);
	mmu_set_attrs(w->gpa, w->size, 0, 0xff);
	if (mmap(gpa_to_hva(w->gpa), w->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
		eng_panic("doppel-engine: cannot unmap a window at %lx", w->gpa);
	__atomic_store_n(&w->gpa, MMU_NOWHERE, __ATOMIC_RELEASE);
}

static void place(struct vm *vm, void *arg)
{
	struct placing *p = arg;

	if (p->w->gpa != MMU_NOWHERE)
		take_away(p->w);
	if (p->gpa != MMU_NOWHERE) {
		p->ret = map_nothing(p->gpa, p->w->size);
		if (!p->ret) {
			__atomic_store_n(&p->w->gpa, p->gpa, __ATOMIC_RELEASE);
			mmu_set_attrs(p->gpa, p->w->size, PA_RAM | PA_RO, PA_LOG | PA_DIRTY);
		}
	}
	vm->memory_changes++;
}

int window_place(struct vm *vm, u32 n, u64 gpa)
{
	struct placing p = {.w = &vm->window[n], .gpa = gpa};
	u64 old = 0;

	if (n >= vm->nwindows)
		return -EINVAL;
	if (gpa != MMU_NOWHERE && (gpa & ~PAGE_MASK || gpa > ENG_GPA_LIMIT || p.w->size > ENG_GPA_LIMIT - gpa))
		return -EINVAL;
	old = p.w->gpa;
	p.w->gpa = MMU_NOWHERE; /* may overlap itself */
	if (gpa != MMU_NOWHERE && (window_overlaps(vm, gpa, p.w->size) || mmu_slot_overlaps(vm, gpa, p.w->size, VM_MAX_SLOTS)))
		p.ret = -EEXIST;
	p.w->gpa = old;
	if (!p.ret)
		vm_safepoint(vm, NULL, place, &p);
	return p.ret;
}

bool window_fault(const struct vm *vm, u64 host)
{
	for (u32 i = 0; i < MMU_WINDOWS; i++) {
		const struct mmu_window *w = &vm->window[i];
		u64 gpa = __atomic_load_n(&w->gpa, __ATOMIC_ACQUIRE), at = host - ENG_RAM_BASE;

		if (!w->size || gpa == MMU_NOWHERE || at < gpa || at - gpa >= w->size)
			continue;
		return sys_call(SYS_mmap, host & PAGE_MASK, PAGE_SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) >= 0;
	}
	return false;
}
