/*
 * What stands behind the server's own care with names.
 *
 * Files. With CAP_SYS_ADMIN: a mount namespace whose root is the share (pivot_root; made read-only if the
 * share is). For an ordinary user Landlock, where the kernel has it: only what lies beneath the share can be
 * opened. A user namespace would do too, but in there files of all other users belong to "nobody", which a
 * guest that duplicates this machine must not see; so it is taken only when asked for.
 *
 * System calls: a filter that knows no sockets, no processes, no exec. Capabilities: those that act on files,
 * no others.
 */
#include "fs/sandbox.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- a mount namespace ---- */
static int write_map(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int ret = fd < 0 ? -errno : write_all(fd, text, strlen(text));

	if (fd >= 0)
		close(fd);
	return ret;
}

static int enter_namespaces(bool user, struct err *e)
{
	unsigned uid = geteuid(), gid = getegid();
	char text[64];

	if (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | (user ? CLONE_NEWUSER : 0)) <
	    0)
		return err_set(e, errno, "sandbox: namespaces: %s (use --sandbox auto)", strerror(errno));
	if (user) {
		snprintf(text, sizeof(text), "%u %u 1", uid, uid);
		int ret = write_map("/proc/self/uid_map", text);

		if (!ret)
			ret = write_map("/proc/self/setgroups", "deny");
		snprintf(text, sizeof(text), "%u %u 1", gid, gid);
		if (!ret)
			ret = write_map("/proc/self/gid_map", text);
		if (ret)
			return err_set(e, -ret, "sandbox: user namespace: %s", strerror(-ret));
	}
	/* what is mounted here from now on, others do not see */
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		return err_set(e, errno, "sandbox: mounts: %s", strerror(errno));
	return 0;
}

static int make_readonly(const char *dir)
{
	struct mount_attr a = {.attr_set = MOUNT_ATTR_RDONLY};

	return syscall(SYS_mount_setattr, AT_FDCWD, dir, AT_RECURSIVE, &a, sizeof(a)) < 0 ? -errno : 0;
}

static int pivot(const struct fs_confine *c, struct err *e)
{
	bool all = !strcmp(c->dir, "/");

	if (!all && mount(c->dir, c->dir, NULL, MS_BIND | MS_REC, NULL) < 0)
		return err_set(e, errno, "sandbox: %s: %s", c->dir, strerror(errno));
	if (c->readonly && make_readonly(c->dir))
		log_msg(LOG_INFO, "sandbox: %s: not mounted read-only; only this server refuses writes",
			c->dir);
	if (all)
		return 0;
	if (chdir(c->dir) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 ||
	    chdir("/") < 0)
		return err_set(e, errno, "sandbox: pivot_root: %s", strerror(errno));
	return 0;
}

/* ---- Landlock ---- */
#define LANDLOCK_READ                                                                                        \
	(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define LANDLOCK_WRITE                                                                                       \
	(LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |    \
	 LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |          \
	 LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_SYM |         \
	 LANDLOCK_ACCESS_FS_REFER)
enum { LANDLOCK_REFER_ABI = 2, LANDLOCK_TRUNCATE_ABI = 3 };
#define LANDLOCK_TRUNCATE (1ull << 14) /* in headers since 6.2 */

/* 0 without Landlock too: it is one wall of several. */
static int landlock(const struct fs_confine *c, struct err *e)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	struct landlock_ruleset_attr a = {.handled_access_fs =
					      LANDLOCK_READ | LANDLOCK_WRITE | LANDLOCK_ACCESS_FS_MAKE_BLOCK};

	if (abi < LANDLOCK_REFER_ABI) /* before, no file could be moved to another directory */
		return 0;
	if (abi >= LANDLOCK_TRUNCATE_ABI)
		a.handled_access_fs |= LANDLOCK_TRUNCATE;
	int rules = (int)syscall(SYS_landlock_create_ruleset, &a, sizeof(a), 0);
	struct landlock_path_beneath_attr beneath = {.parent_fd =
							 open(c->dir, O_PATH | O_DIRECTORY | O_CLOEXEC)};
	int ret = rules < 0 || beneath.parent_fd < 0 ? -errno : 0;

	beneath.allowed_access = LANDLOCK_READ;
	if (!c->readonly)
		beneath.allowed_access |= (LANDLOCK_WRITE | LANDLOCK_TRUNCATE) & a.handled_access_fs;
	if (!ret && syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0) < 0)
		ret = -errno;
	if (!ret &&
	    (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || syscall(SYS_landlock_restrict_self, rules, 0) < 0))
		ret = -errno;
	if (rules >= 0)
		close(rules);
	if (beneath.parent_fd >= 0)
		close(beneath.parent_fd);
	return ret ? err_set(e, -ret, "sandbox: Landlock: %s", strerror(-ret)) : 0;
}

/* ---- files ---- */
static bool may_mount(void)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2] = {0};

	return syscall(SYS_capget, &h, d) == 0 &&
	       (d[CAP_TO_INDEX(CAP_SYS_ADMIN)].effective & CAP_TO_MASK(CAP_SYS_ADMIN));
}

static int open_dir(const char *dir, struct err *e)
{
	int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? err_set(e, errno, "%s: %s", dir, strerror(errno)) : fd;
}

/* The directory of our descriptors as a mount of its own: no ".." leads from there to other processes. */
static void isolate_proc(int *proc)
{
	int fd = (int)syscall(SYS_open_tree, AT_FDCWD, "/proc/self/fd", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

	if (fd < 0)
		return; /* as it was, then */
	close(*proc);
	*proc = fd;
}

/* 1: the share is the root now; 0: it is where it was */
static int confine(const struct fs_confine *c, int *proc, struct err *e)
{
	bool mounts = may_mount();
	struct err why = {0};
	int ret = 0;

	if (c->kind == FS_SANDBOX_NONE)
		return 0;
	if (c->kind == FS_SANDBOX_AUTO && !mounts)
		return landlock(c, e);
	ret = enter_namespaces(!mounts, c->kind == FS_SANDBOX_AUTO ? &why : e);
	if (ret && c->kind == FS_SANDBOX_AUTO) /* a container may forbid it to root */
		return landlock(c, e);
	if (!ret) {
		isolate_proc(proc);
		ret = pivot(c, e);
	}
	return ret ? ret : 1;
}

int sandbox_files(const struct fs_confine *c, struct err *e)
{
	/* before the root changes: there may be no /proc in the share, and if there is one, it is the guest's
	 */
	int proc = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC), fd = -1;

	if (proc < 0)
		return err_set(e, errno, "/proc/self/fd: %s (needs /proc)", strerror(errno));
	int ret = confine(c, &proc, e);

	if (ret >= 0)
		ret = fd = open_dir(ret ? "/" : c->dir, e);
	if (ret >= 0 && fchdir(proc) < 0)
		ret = err_set(e, errno, "/proc/self/fd: %s", strerror(errno));
	close(proc);
	return ret < 0 ? ret : fd;
}

/* ---- capabilities ---- */
static const u8 kept[] = {CAP_CHOWN,  CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID,
			  CAP_SETUID, CAP_SETGID,       CAP_SETFCAP};

static int drop_capabilities(void)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct have[2] = {0}, want[2] = {0};

	if (syscall(SYS_capget, &h, have) < 0)
		return -errno;
	for (unsigned i = 0; i < ARRAY_SIZE(kept); i++)
		want[CAP_TO_INDEX(kept[i])].permitted |= CAP_TO_MASK(kept[i]);
	for (unsigned i = 0; i < 2; i++) {
		want[i].permitted &= have[i].permitted;
		want[i].effective = want[i].permitted;
	}
	return syscall(SYS_capset, &h, want) < 0 ? -errno : 0;
}

/* ---- system calls ---- */
enum { CACHESTAT = 451 }; /* Linux 6.5, unknown to older libraries */

static const int allowed[] = {
    /* the session: messages, eventfds, threads, memory */
    SCMP_SYS(read),
    SCMP_SYS(write),
    SCMP_SYS(recvmsg),
    SCMP_SYS(sendmsg),
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(eventfd2),
    SCMP_SYS(close),
    SCMP_SYS(dup),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(madvise),
    SCMP_SYS(mincore),
    SCMP_SYS(brk),
    SCMP_SYS(futex),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(sched_yield),
    SCMP_SYS(getpid),
    SCMP_SYS(gettid),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(getrandom),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(prlimit64),
    /* files; what is opened is beneath the share */
    SCMP_SYS(openat),
    SCMP_SYS(openat2),
    SCMP_SYS(open),
    SCMP_SYS(statx),
    SCMP_SYS(fstat),
    SCMP_SYS(newfstatat),
    SCMP_SYS(fstatfs),
    SCMP_SYS(getdents64),
    SCMP_SYS(lseek),
    SCMP_SYS(readlinkat),
    SCMP_SYS(faccessat),
    SCMP_SYS(faccessat2),
    SCMP_SYS(preadv),
    SCMP_SYS(pwritev),
    SCMP_SYS(preadv2),
    SCMP_SYS(pwritev2),
    SCMP_SYS(splice),
    SCMP_SYS(pipe2),
    SCMP_SYS(pread64),
    SCMP_SYS(pwrite64),
    SCMP_SYS(fsync),
    SCMP_SYS(fdatasync),
    SCMP_SYS(syncfs),
    CACHESTAT,
    SCMP_SYS(fadvise64),
    SCMP_SYS(fallocate),
    SCMP_SYS(copy_file_range),
    SCMP_SYS(ftruncate),
    SCMP_SYS(truncate),
    SCMP_SYS(mkdirat),
    SCMP_SYS(mknodat),
    SCMP_SYS(symlinkat),
    SCMP_SYS(linkat),
    SCMP_SYS(unlinkat),
    SCMP_SYS(renameat),
    SCMP_SYS(renameat2),
    SCMP_SYS(fchmodat),
    SCMP_SYS(fchownat),
    SCMP_SYS(utimensat),
    SCMP_SYS(getxattr),
    SCMP_SYS(setxattr),
    SCMP_SYS(listxattr),
    SCMP_SYS(removexattr),
    SCMP_SYS(fcntl),
    SCMP_SYS(flock),
    /* the guest's user */
    SCMP_SYS(setfsuid),
    SCMP_SYS(setfsgid),
    SCMP_SYS(capget),
    SCMP_SYS(capset),
};

static int fill_filter(scmp_filter_ctx f)
{
	int ret = 0;

	for (u32 i = 0; i < ARRAY_SIZE(allowed) && !ret; i++)
		ret = seccomp_rule_add(f, SCMP_ACT_ALLOW, allowed[i], 0);
	if (!ret)
		ret = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
				       SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (!ret)
		ret = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
				       SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	/* threads, not processes; clone3 hides its flags in memory, the C library does without */
	if (!ret)
		ret = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
				       SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
	if (!ret)
		ret = seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
	/* a thread's name */
	if (!ret)
		ret = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1,
				       SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME, 0));
	return ret;
}

int sandbox_calls(struct err *e)
{
	scmp_filter_ctx f = NULL;
	int ret = drop_capabilities();

	if (ret)
		return err_set(e, -ret, "sandbox: capabilities: %s", strerror(-ret));
#if defined(__SANITIZE_ADDRESS__)
	return 0; /* the sanitizers' own calls know no bounds */
#endif
	f = seccomp_init(SCMP_ACT_KILL_PROCESS);
	if (!f)
		return err_set(e, ENOMEM, "sandbox: no memory");
	seccomp_attr_set(f, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a tree, not a chain */
	ret = fill_filter(f);
	if (!ret)
		ret = seccomp_load(f); /* sets no_new_privs */
	seccomp_release(f);
	return ret ? err_set(e, -ret, "sandbox: cannot be entered: %s (the kernel needs seccomp filters)",
			     strerror(-ret))
		   : 0;
}
