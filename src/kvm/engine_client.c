/*
 * Client side of an engine process: starts it, talks over its socket, and watches for its death. One engine runs one VM.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/futex.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/layout.h" /* only the size of the attribute table */
#include "kvm/kvm_int.h"
#include "kvm/payload.h"

extern char **environ;

#define MAX_VCPUS ENG_MAX_VCPUS
#define ADDRESS_SPACE_MIN (5ull << 40)

struct engine {
	pid_t pid;
	int sock;
	int pidfd;
	int stop_fd;  /* ends the watcher */
	int death_fd; /* eventfd, signalled by the watcher */
	int refs;
	bool dead, has_vm, vm_used;
	bool translate; /* else it interprets */
	bool direct; /* user code may run as it is, too */
	bool check; /* the translator in lock-step with the interpreter */
	u64 code_cache; /* bytes; 0: default */
	int status; /* of waitpid */
	pthread_mutex_t lock; /* the socket: one request at a time; and the fields above */
	pthread_t watcher;
	u32 nvcpus;
	struct vcpu_chan *chans[MAX_VCPUS];
};

static void engine_mark_dead(struct engine *e)
{
	pthread_mutex_lock(&e->lock);
	e->dead = true;
	for (u32 i = 0; i < e->nvcpus; i++) {
		struct vcpu_chan *c = e->chans[i];

		if (!c)
			continue;
		c->ret = -EIO;
		__atomic_store_n(&c->turn, TURN_CLIENT, __ATOMIC_SEQ_CST);
		syscall(SYS_futex, &c->turn, FUTEX_WAKE, 1, NULL, NULL, 0);
	}
	pthread_mutex_unlock(&e->lock);
	if (eventfd_write(e->death_fd, 1) < 0)
		return;
}

static void *watch(void *arg)
{
	struct engine *e = arg;
	struct pollfd p[2] = {{.fd = e->pidfd, .events = POLLIN}, {.fd = e->stop_fd, .events = POLLIN}};

	while (poll(p, 2, -1) < 0 && errno == EINTR)
		;
	if (p[0].revents) {
		while (waitpid(e->pid, &e->status, 0) < 0 && errno == EINTR)
			;
		engine_mark_dead(e);
	}
	return NULL;
}

static void engine_free(struct engine *e)
{
	if (e->watcher) {
		shutdown(e->sock, SHUT_RDWR); /* the engine leaves when its socket closes; the watcher reaps it */
		pthread_join(e->watcher, NULL);
	}
	if (e->sock >= 0)
		close(e->sock);
	if (e->pidfd >= 0)
		close(e->pidfd);
	if (e->stop_fd >= 0)
		close(e->stop_fd);
	if (e->death_fd >= 0)
		close(e->death_fd);
	pthread_mutex_destroy(&e->lock);
	free(e);
}

static void engine_path(char *path, size_t size)
{
	const char *env = getenv("DOPPEL_ENGINE");
	char *slash;
	ssize_t n;

	if (env && *env) {
		snprintf(path, size, "%s", env);
		return;
	}
	n = readlink("/proc/self/exe", path, size - 32);
	path[n > 0 ? n : 0] = 0;
	slash = strrchr(path, '/');
	strcpy(slash ? slash + 1 : path, "doppel-engine");
	if (access(path, X_OK) < 0 && slash) /* PREFIX/bin and PREFIX/libexec */
		strcpy(slash + 1, "../libexec/doppel-engine");
}

/* The translator's address look-up is made of BMI2 instructions. */
static bool can_translate(void)
{
	return __builtin_cpu_supports("bmi2");
}

static const char *tier_name(const struct engine *e)
{
	return e->check ? "check" : e->direct ? "direct" : e->translate ? "translate" : "interp";
}

const char *engine_tier(const struct kvm_obj *o)
{
	return tier_name(o->engine);
}

static int start_process(struct engine *e, const char *path)
{
	int pair[2], r;
	posix_spawn_file_actions_t fa;
	char size[24];
	char *argv[] = {"doppel-engine", (char *)tier_name(e), e->code_cache ? size : NULL, NULL};

	snprintf(size, sizeof(size), "%llu", (unsigned long long)e->code_cache);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_adddup2(&fa, pair[1], 3);
	r = pair[1] == 3 ? fcntl(3, F_SETFD, 0) : 0;
	r = r ? errno : posix_spawn(&e->pid, path, &fa, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&fa);
	close(pair[1]);
	e->sock = pair[0];
	if (r)
		return -r;
	e->pidfd = (int)syscall(SYS_pidfd_open, e->pid, 0);
	return e->pidfd < 0 ? -errno : 0;
}

static struct kvm_obj *engine_obj(struct engine *e, enum kvmw_object type)
{
	struct kvm_obj *o = calloc(1, sizeof(*o));

	if (!o)
		return NULL;
	o->kind = KVM_KIND_ENGINE;
	o->type = type;
	o->fd = -1;
	o->engine = e;
	o->sig.bell = o->sig.fd = -1;
	pthread_mutex_init(&o->lock, NULL);
	__atomic_fetch_add(&e->refs, 1, __ATOMIC_RELAXED);
	return o;
}

/* One request and its answer on the VM socket. Takes up to KVMW_FDS_MAX fds to send (not closed); *fd_out gets one from the
 * answer, or -1. */
static long transact(struct engine *e, struct kvmw_req *q, const void *in, void *out, u32 room, const int *fds,
		     int *fd_out)
{
	struct kvmw_rep rep = {.ret = -EIO};
	char cbuf[CMSG_SPACE(sizeof(int) * KVMW_FDS_MAX)] __attribute__((aligned(8)));
	struct iovec iov[2] = {{q, sizeof(*q)}, {(void *)in, q->size}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
	ssize_t n;

	if (q->nfds) {
		struct cmsghdr *c;

		memset(cbuf, 0, sizeof(cbuf));
		m.msg_control = cbuf;
		m.msg_controllen = CMSG_SPACE(sizeof(int) * q->nfds);
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * q->nfds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * q->nfds);
	}
	while ((n = sendmsg(e->sock, &m, MSG_NOSIGNAL)) < 0 && errno == EINTR)
		;
	if (n < 0)
		return -EIO;
	iov[0] = (struct iovec){&rep, sizeof(rep)};
	iov[1] = (struct iovec){out, room};
	m = (struct msghdr){.msg_iov = iov, .msg_iovlen = 2, .msg_control = cbuf, .msg_controllen = sizeof(cbuf)};
	while ((n = recvmsg(e->sock, &m, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR)
		;
	if (n < (ssize_t)sizeof(rep))
		return -EIO;
	if (fd_out) {
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);

		*fd_out = -1;
		if (c && c->cmsg_type == SCM_RIGHTS && c->cmsg_len >= CMSG_LEN(sizeof(int)))
			memcpy(fd_out, CMSG_DATA(c), sizeof(int));
	}
	return rep.ret;
}

static long request_locked(struct engine *e, struct kvmw_req *q, const void *in, void *out, u32 room, const int *fds,
			   int *fd_out)
{
	long r;

	pthread_mutex_lock(&e->lock);
	r = e->dead ? -EIO : transact(e, q, in, out, room, fds, fd_out);
	pthread_mutex_unlock(&e->lock);
	return r;
}

/* The engine reserves far more address space than it will use; a limit would kill it in ways that are hard to tell. */
static bool address_space_limited(struct kvm_open_result *res)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_AS, &r) < 0 || r.rlim_cur == RLIM_INFINITY || r.rlim_cur >= ADDRESS_SPACE_MIN)
		return false;
	snprintf(res->why, sizeof(res->why), "the address space is limited to %llu MiB (ulimit -v unlimited lifts that)",
		 (unsigned long long)r.rlim_cur >> 20);
	return true;
}

int engine_open(enum kvm_choice choice, u64 code_cache, struct kvm_obj **sys, struct kvm_open_result *res)
{
	char path[4096 + 64];
	struct engine *e = calloc(1, sizeof(*e));
	struct kvmw_req q = {.object = KVMW_SYSTEM, .ioctl = (u32)KVM_GET_API_VERSION};
	long r;

	res->kind = KVM_KIND_ENGINE;
	if (address_space_limited(res)) {
		free(e);
		return -ENOMEM;
	}
	if (!e)
		return -ENOMEM;
	e->translate = choice != KVM_CHOICE_INTERP && can_translate();
	e->code_cache = code_cache;
	e->check = choice == KVM_CHOICE_CHECK;
	e->direct = e->translate && (choice == KVM_CHOICE_AUTO || choice == KVM_CHOICE_DIRECT);
	if ((choice == KVM_CHOICE_TRANSLATE || choice == KVM_CHOICE_DIRECT || e->check) && !e->translate) {
		snprintf(res->why, sizeof(res->why), "this CPU cannot run translated code: it lacks BMI2 (use --engine interp)");
		free(e);
		return -ENOTSUP;
	}
	e->sock = e->pidfd = -1;
	e->stop_fd = eventfd(0, EFD_CLOEXEC);
	e->death_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pthread_mutex_init(&e->lock, NULL);
	engine_path(path, sizeof(path));
	r = e->stop_fd < 0 || e->death_fd < 0 ? -EMFILE : start_process(e, path);
	if (r == 0)
		r = -pthread_create(&e->watcher, NULL, watch, e);
	if (r < 0) {
		snprintf(res->why, sizeof(res->why), "%.150s: cannot start: %s", path, strerror((int)-r));
		engine_free(e);
		return (int)r;
	}
	*sys = engine_obj(e, KVMW_SYSTEM);
	if (!*sys) {
		engine_free(e);
		return -ENOMEM;
	}
	r = request_locked(e, &q, NULL, NULL, 0, NULL, NULL);
	if (r != KVM_API_VERSION) {
		snprintf(res->why, sizeof(res->why), "%.150s: the engine did not start (%s)", path,
			 r < 0 ? strerror((int)-r) : "wrong version");
		kvm_close(*sys);
		*sys = NULL;
		return r < 0 ? (int)r : -EPROTO;
	}
	snprintf(res->why, sizeof(res->why), "%s%s", e->translate || choice == KVM_CHOICE_INTERP ? "" : "no BMI2 to translate with; ",
		 choice != KVM_CHOICE_AUTO  ? "as asked"
		 : access("/dev/kvm", F_OK) ? "no /dev/kvm"
		 : device_hardware_backed() ? "/dev/kvm could not be opened"
					    : "/dev/kvm is missing hardware virtualization or permission");
	return 0;
}

void engine_close(struct kvm_obj *o)
{
	struct engine *e = o->engine;

	if (o->attr)
		munmap(o->attr, ENG_ATTR_SIZE);
	if (o->chan) {
		pthread_mutex_lock(&e->lock);
		for (u32 i = 0; i < e->nvcpus; i++)
			if (e->chans[i] == o->chan)
				e->chans[i] = NULL;
		pthread_mutex_unlock(&e->lock);
		munmap(o->chan, KVMW_CHAN_SIZE);
	}
	if (o->fd >= 0)
		close(o->fd);
	sigmask_close(o);
	pthread_mutex_destroy(&o->lock);
	free(o);
	if (__atomic_sub_fetch(&e->refs, 1, __ATOMIC_ACQ_REL) == 0)
		engine_free(e);
}

int engine_create_vm(struct kvm_obj *sys, struct kvm_obj **vm)
{
	struct engine *e = sys->engine;
	struct kvmw_req q = {.object = KVMW_SYSTEM, .ioctl = (u32)KVM_CREATE_VM};
	int attr_fd = -1;
	long r = request_locked(e, &q, NULL, NULL, 0, NULL, &attr_fd);

	if (r < 0)
		return (int)r;
	*vm = engine_obj(e, KVMW_VM);
	if (*vm && attr_fd >= 0) {
		void *p = mmap(NULL, ENG_ATTR_SIZE, PROT_READ, MAP_SHARED | MAP_NORESERVE, attr_fd, 0);

		(*vm)->attr = p == MAP_FAILED ? NULL : p;
	}
	if (*vm)
		(*vm)->fd = attr_fd;
	else if (attr_fd >= 0)
		close(attr_fd);
	if (!*vm || !(*vm)->attr) {
		kvm_close(*vm);
		*vm = NULL;
		return -ENOMEM;
	}
	return 0;
}

int engine_attr_fd(const struct kvm_obj *vm)
{
	char path[40];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", vm->fd);
	return open(path, O_RDONLY | O_CLOEXEC);
}

int engine_create_vcpu(struct kvm_obj *vm, unsigned long id, struct kvm_obj **vcpu)
{
	struct engine *e = vm->engine;
	struct kvmw_req q = {.object = KVMW_VM, .ioctl = (u32)KVM_CREATE_VCPU, .arg = id};
	int fd = -1;
	long r = request_locked(e, &q, NULL, NULL, 0, NULL, &fd);
	void *p;

	if (r < 0)
		return (int)r;
	p = fd < 0 ? MAP_FAILED : mmap(NULL, KVMW_CHAN_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	*vcpu = p == MAP_FAILED ? NULL : engine_obj(e, KVMW_VCPU);
	if (!*vcpu) {
		if (p != MAP_FAILED)
			munmap(p, KVMW_CHAN_SIZE);
		if (fd >= 0)
			close(fd);
		return -ENOMEM;
	}
	(*vcpu)->fd = fd;
	(*vcpu)->id = id;
	(*vcpu)->chan = p;
	(*vcpu)->run = p;
	(*vcpu)->run_size = KVMW_MMAP_SIZE;
	pthread_mutex_lock(&e->lock);
	if (e->nvcpus < MAX_VCPUS)
		e->chans[e->nvcpus++] = p;
	pthread_mutex_unlock(&e->lock);
	return 0;
}

/* The dirty bitmap can be larger than a message: the engine writes it into a memfd. */
static long dirty_log(struct kvm_obj *vm, struct kvm_dirty_log *log, struct kvmw_req *q)
{
	int fd = memfd_create("dirty-log", MFD_CLOEXEC);
	long r;

	if (fd < 0)
		return -errno;
	q->nfds = 1;
	r = request_locked(vm->engine, q, log, NULL, 0, &fd, NULL);
	if (r > 0) { /* bytes of the bitmap */
		u64 done = 0, size = (u64)r;

		while (done < size) {
			ssize_t n = pread(fd, (char *)log->dirty_bitmap + done, size - done, (off_t)done);

			if (n <= 0)
				break;
			done += (u64)n;
		}
		r = done == size ? 0 : -EFAULT;
	}
	close(fd);
	return r;
}

static long vm_request(struct kvm_obj *o, unsigned long request, void *arg)
{
	bool by_value;
	struct kvmw_req q = {.object = o->type, .ioctl = (u32)request};
	int fds[KVMW_FDS_MAX];
	u8 in_copy[sizeof(struct kvm_userspace_memory_region)];
	const void *in = arg;

	q.size = kvm_payload_in(request, arg, &by_value);
	if (by_value)
		q.arg = (u64)arg;
	if (q.size + sizeof(q) > KVMW_MSG_MAX)
		return -E2BIG;
	if (request == KVM_GET_DIRTY_LOG)
		return dirty_log(o, arg, &q);
	if (request == KVM_SET_USER_MEMORY_REGION) {
		struct kvm_userspace_memory_region *r = arg;

		if (r->memory_size) {
			fds[0] = ram_lookup(r->userspace_addr, r->memory_size, &q.arg);
			if (fds[0] < 0)
				return (r->userspace_addr | r->memory_size) & ~PAGE_MASK ? -EINVAL : -EOPNOTSUPP; /* see kvm_ram_alloc() */
			q.nfds = 1;
		}
		memcpy(in_copy, arg, sizeof(in_copy));
		in = in_copy;
	} else if (request == KVM_IRQFD) {
		struct kvm_irqfd *f = arg;

		fds[q.nfds++] = (int)f->fd;
		if (f->flags & KVM_IRQFD_FLAG_RESAMPLE)
			fds[q.nfds++] = (int)f->resamplefd;
		/* the engine tells eventfds apart by their number here */
	} else if (request == KVM_IOEVENTFD) {
		fds[q.nfds++] = ((struct kvm_ioeventfd *)arg)->fd;
	} else if (request == DOPPEL_SET_WAKE_PAGE) {
		fds[q.nfds++] = (int)(long)arg;
	} else if (request == DOPPEL_ADD_WINDOW) {
		fds[q.nfds++] = ((struct doppel_window *)arg)->fd;
	} else if (request == DOPPEL_TRACE_START) {
		fds[q.nfds++] = ((struct doppel_trace *)arg)->fd;
	}
	return request_locked(o->engine, &q, in, by_value ? NULL : arg, by_value ? 0 : kvm_payload_out(request, arg),
			      q.nfds ? fds : NULL, NULL);
}

int engine_set_bell(struct kvm_obj *vcpu, int fd)
{
	struct kvmw_req q = {.object = KVMW_VM, .ioctl = (u32)DOPPEL_SET_BELL, .arg = vcpu->id, .nfds = 1};

	return (int)request_locked(vcpu->engine, &q, NULL, NULL, 0, &fd, NULL);
}

long engine_ioctl(struct kvm_obj *o, unsigned long request, void *arg)
{
	if (o->type == KVMW_VCPU && request == KVM_SET_SIGNAL_MASK)
		return sigmask_set(o, arg);
	return o->type == KVMW_VCPU ? channel_request(o, request, arg) : vm_request(o, request, arg);
}

void engine_dma_written(struct kvm_obj *vm, gpa_t gpa, u64 size)
{
	gpa_t end = gpa + size;

	/* pairs with the engine: it sets PA_CODE, then reads the code; we write the data, then read PA_CODE */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	for (gpa_t p = gpa & PAGE_MASK; p < end && p < ENG_GPA_LIMIT; p += PAGE_SIZE) {
		u8 a = __atomic_load_n(&vm->attr[p >> PAGE_SHIFT], __ATOMIC_RELAXED);

		if (a & KVMW_ATTR_CODE) {
			struct doppel_range r = {.gpa = gpa, .size = size};
			struct kvmw_req q = {.object = KVMW_VM, .ioctl = (u32)DOPPEL_INVALIDATE, .size = sizeof(r)};

			request_locked(vm->engine, &q, &r, NULL, 0, NULL, NULL);
			return;
		}
	}
}

bool engine_dead(struct engine *e, char *text, size_t size)
{
	if (!__atomic_load_n(&e->dead, __ATOMIC_ACQUIRE))
		return false;
	if (!text || !size)
		return true;
	if (WIFSIGNALED(e->status))
		snprintf(text, size, "killed by signal %d (%s)", WTERMSIG(e->status), strsignal(WTERMSIG(e->status)));
	else
		snprintf(text, size, "ended with status %d", WEXITSTATUS(e->status));
	return true;
}

int engine_death_fd(struct engine *e)
{
	return e->death_fd;
}

int engine_pidfd(struct engine *e)
{
	return e->pidfd;
}

int engine_pid(struct engine *e)
{
	return e->pid;
}
