/*
 * Whose files are made: as root, the guest's user's, as the kernel would (set-group-ID directories, quotas,
 * default ACLs); else ours, whatever the guest says. Only the file system's idea of user and group changes,
 * and only this thread's (setfsuid(2)).
 *
 * Permissions are the guest kernel's business (it checks every access itself; it also knows all of the user's
 * groups), so CAP_DAC_OVERRIDE, which setfsuid takes away, is raised again.
 */
#include <linux/capability.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fs/fs_int.h"

static void change_cap(unsigned cap, bool on)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2] = {0};

	if (syscall(SYS_capget, &h, d) < 0)
		return;
	if (on)
		d[CAP_TO_INDEX(cap)].effective |= d[CAP_TO_INDEX(cap)].permitted & CAP_TO_MASK(cap);
	else
		d[CAP_TO_INDEX(cap)].effective &= ~CAP_TO_MASK(cap);
	/* one that may not be raised is missed by the call that needs it */
	if (syscall(SYS_capset, &h, d) < 0)
		return;
}

static bool has_cap(const struct __user_cap_data_struct *d, unsigned cap)
{
	return d[CAP_TO_INDEX(cap)].permitted & CAP_TO_MASK(cap);
}

/* Root of a container may have been left without. */
bool cred_may_act(void)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2] = {0};

	return geteuid() == 0 && syscall(SYS_capget, &h, d) == 0 && has_cap(d, CAP_SETUID) &&
	       has_cap(d, CAP_SETGID) && has_cap(d, CAP_DAC_OVERRIDE);
}

int cred_enter(const struct fs_request *r, struct fs_cred *c)
{
	c->entered = false;
	if (r->h.uid == UINT32_MAX || r->h.gid == UINT32_MAX)
		return -EINVAL; /* setfsuid would take it for a question */
	if (!r->fs->as_root || (!r->h.uid && !r->h.gid))
		return 0;
	c->entered = true;
	setfsgid(r->h.gid);
	setfsuid(r->h.uid);
	if ((u32)setfsgid(UINT32_MAX) != r->h.gid || (u32)setfsuid(UINT32_MAX) != r->h.uid) {
		cred_leave(c);
		return -EPERM;
	}
	if (r->h.uid)
		change_cap(CAP_DAC_OVERRIDE, true);
	return 0;
}

void cred_leave(struct fs_cred *c)
{
	if (!c->entered)
		return;
	setfsuid(0); /* and the capabilities come back */
	setfsgid(0);
}

void cred_drop_fsetid(const struct fs *fs)
{
	if (fs->as_root)
		change_cap(CAP_FSETID, false);
}

void cred_raise_fsetid(const struct fs *fs)
{
	if (fs->as_root)
		change_cap(CAP_FSETID, true);
}
