/* The file server against requests as a guest makes them, and as none should. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs_client.h"

enum { ROOT = FUSE_ROOT_ID };

static int open_share(void **state, const struct fs_options *o)
{
	struct fs_client *c = calloc(1, sizeof(*c));

	client_open(c, o);
	client_init(c);
	*state = c;
	return 0;
}

static int setup(void **state)
{
	const struct fs_options o = {.xattr = true};

	return open_share(state, &o);
}

static int setup_readonly(void **state)
{
	const struct fs_options o = {.xattr = true, .readonly = true};

	return open_share(state, &o);
}

static int teardown(void **state)
{
	struct fs_client *c = *state;

	client_close(c);
	free(c);
	return 0;
}

static void put_file(struct fs_client *c, const char *name, const char *text)
{
	FILE *f = fopen(client_path(c, name), "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void assert_file(struct fs_client *c, const char *name, const char *text)
{
	char buf[256] = "";
	FILE *f = fopen(client_path(c, name), "r");

	assert_non_null(f);
	assert_int_equal(fread(buf, 1, sizeof(buf) - 1, f), strlen(text));
	fclose(f);
	assert_string_equal(buf, text);
}

/* ---- the session ---- */
static void nothing_before_init(void **state)
{
	struct fs_client *c = *state;
	struct fuse_entry_out e;
	struct fuse_init_in in = {.major = 7, .minor = 20};

	fs_forget_all(&c->fs);
	assert_int_equal(client_lookup(c, ROOT, "x", &e), -EIO);
	assert_int_equal(client_call(c, FUSE_INIT, 0, &in, sizeof(in), NULL), -EPROTO);
	assert_int_equal(client_lookup(c, ROOT, "x", &e), -EIO);
	in.major = 8; /* we say what we speak; it is to ask again */
	assert_int_equal(client_call(c, FUSE_INIT, 0, &in, sizeof(in), NULL), 0);
	assert_int_equal(((struct fuse_init_out *)c->reply)->major, 7);
	assert_int_equal(client_lookup(c, ROOT, "x", &e), -EIO);
	client_init(c);
	assert_int_equal(client_lookup(c, ROOT, "x", &e), 0);
	assert_int_equal(e.nodeid, 0); /* not there, for a while */
}

static void init_forgets(void **state)
{
	struct fs_client *c = *state;
	u64 node = 0, fh = 0;

	assert_int_equal(client_create(c, ROOT, "f", O_RDWR, 0644, &node, &fh), 0);
	assert_int_equal(c->fs.n_handles, 1);
	client_init(c);
	assert_int_equal(c->fs.n_handles, 0);
	assert_int_equal(c->fs.nodes.used, 1);
	assert_int_equal(client_read(c, node, fh, 0, 10), -ESTALE);
}

/* ---- what is no request ---- */
static void broken_headers(void **state)
{
	struct fs_client *c = *state;
	struct fuse_in_header *h = (void *)c->in;

	for (u32 n = 0; n < sizeof(*h); n += 3) { /* less than a header */
		client_begin(c, FUSE_GETATTR, ROOT);
		c->in_len = n;
		assert_int_equal(client_send(c), 1);
	}
	for (u32 op = 0; op < 70; op++) { /* a header and nothing else */
		if (op == FUSE_DESTROY || op == FUSE_INTERRUPT || op == FUSE_FORGET ||
		    op == FUSE_BATCH_FORGET)
			continue;
		client_begin(c, op, ROOT);
		int ret = client_send(c);

		assert_true(ret == -EINVAL || ret == -ENOSYS || op == FUSE_STATFS || op == FUSE_READLINK);
	}
	client_begin(c, FUSE_LOOKUP, ROOT);
	client_add_name(c, "name");
	h->len = c->in_len + 1; /* says more than there is */
	assert_int_equal(client_send(c), -EINVAL);
	h->len = 3;
	assert_int_equal(client_send(c), -EINVAL);
	h->len = UINT32_MAX;
	assert_int_equal(client_send(c), -EINVAL);
	client_begin(c, 0xffffffff, ROOT);
	assert_int_equal(client_send(c), -ENOSYS);
}

static void arguments_too_long(void **state)
{
	struct fs_client *c = *state;

	client_begin(c, FUSE_LOOKUP, ROOT);
	memset(c->in + c->in_len, 'a', FS_ARG_MAX + 1);
	c->in_len += FS_ARG_MAX + 1;
	((struct fuse_in_header *)c->in)->len = c->in_len;
	assert_int_equal(client_send(c), -E2BIG);
}

static void bad_names(void **state)
{
	struct fs_client *c = *state;
	static const char *const bad[] = {"", ".", "..", "a/b", "/", "../x", "/etc/passwd", "x/"};
	struct fuse_mkdir_in mkdir_in = {.mode = 0755};
	struct fuse_rename_in rename_in = {.newdir = ROOT};
	struct fuse_link_in link_in = {0};
	char long_name[300];
	struct fuse_entry_out e;

	put_file(c, "f", "x");
	link_in.oldnodeid = client_find(c, ROOT, "f");
	for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(client_lookup(c, ROOT, bad[i], &e), -EINVAL);
		assert_int_equal(client_call(c, FUSE_MKDIR, ROOT, &mkdir_in, sizeof(mkdir_in), bad[i]),
				 -EINVAL);
		assert_int_equal(client_call(c, FUSE_UNLINK, ROOT, NULL, 0, bad[i]), -EINVAL);
		assert_int_equal(client_call(c, FUSE_RMDIR, ROOT, NULL, 0, bad[i]), -EINVAL);
		assert_int_equal(client_call(c, FUSE_LINK, ROOT, &link_in, sizeof(link_in), bad[i]), -EINVAL);
		client_begin(c, FUSE_RENAME, ROOT);
		client_add(c, &rename_in, sizeof(rename_in));
		client_add_name(c, "f");
		client_add_name(c, bad[i]);
		assert_int_equal(client_send(c), -EINVAL);
	}
	memset(long_name, 'n', sizeof(long_name));
	long_name[256] = 0;
	assert_int_equal(client_lookup(c, ROOT, long_name, &e), -ENAMETOOLONG);
	client_begin(c, FUSE_LOOKUP, ROOT); /* no NUL */
	client_add(c, "name", 4);
	assert_int_equal(client_send(c), -EINVAL);
	client_begin(c, FUSE_RENAME, ROOT); /* one name of two */
	client_add(c, &rename_in, sizeof(rename_in));
	client_add_name(c, "f");
	assert_int_equal(client_send(c), -EINVAL);
}

static void bad_numbers(void **state)
{
	struct fs_client *c = *state;
	static const u64 bad[] = {0, 2, 3, 1ull << 32 | 1, UINT64_MAX, 0xffffffff, 1ull << 63};
	struct fuse_getattr_in in = {0};
	u64 node = 0, fh = 0, other = 0;

	for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(client_call(c, FUSE_GETATTR, bad[i], &in, sizeof(in), NULL), -ESTALE);
		client_forget(c, bad[i], 1);
	}
	put_file(c, "g", "");
	assert_int_equal(client_create(c, ROOT, "f", O_RDWR, 0644, &node, &fh), 0);
	other = client_find(c, ROOT, "g");
	assert_int_equal(client_read(c, node, fh + 1, 0, 1), -EBADF);
	assert_int_equal(client_read(c, other, fh, 0, 1), -EBADF); /* another file's handle */
	assert_int_equal(client_read(c, node, fh, 0, 1), 0);
	assert_int_equal(client_release(c, other, fh), 0); /* does not close it */
	assert_int_equal(client_read(c, node, fh, 0, 1), 0);
	assert_int_equal(client_release(c, node, fh), 0);
	assert_int_equal(client_read(c, node, fh, 0, 1), -EBADF);
	client_forget(c, node, UINT64_MAX);
	assert_int_equal(client_call(c, FUSE_GETATTR, node, &in, sizeof(in), NULL), -ESTALE);
	client_forget(c, ROOT, UINT64_MAX);
	assert_int_equal(client_call(c, FUSE_GETATTR, ROOT, &in, sizeof(in), NULL), 0);
}

/* A lookup that cannot be answered must not be counted. */
static void no_room_no_leak(void **state)
{
	struct fs_client *c = *state;
	struct fuse_entry_out e;

	put_file(c, "f", "x");
	for (c->room = 0; c->room < sizeof(struct fuse_out_header); c->room++)
		assert_int_equal(client_lookup(c, ROOT, "f", &e), 1);
	for (; c->room < sizeof(struct fuse_out_header) + sizeof(e); c->room++)
		assert_int_equal(client_lookup(c, ROOT, "f", &e), -ERANGE);
	assert_int_equal(c->fs.nodes.used, 1);
	assert_int_equal(client_lookup(c, ROOT, "f", &e), 0);
	c->room = sizeof(struct fuse_out_header) + 8;
	u64 fh = 0;

	assert_int_equal(client_openat(c, FUSE_OPEN, e.nodeid, O_RDONLY, &fh), -ERANGE);
	assert_int_equal(c->fs.n_handles, 0);
	c->room = sizeof(c->out);
}

static void segments_of_any_size(void **state)
{
	struct fs_client *c = *state;
	u64 node = 0, fh = 0;
	char text[500];

	memset(text, 'q', sizeof(text));
	for (c->split = 1; c->split < 40; c->split += 7) {
		assert_int_equal(client_create(c, ROOT, "f", O_RDWR, 0644, &node, &fh), 0);
		assert_int_equal(client_write(c, node, fh, 100, text, sizeof(text)), 0);
		assert_int_equal(client_read(c, node, fh, 50, 4096), 0);
		assert_int_equal(c->reply_len, 550);
		assert_memory_equal(c->reply + 50, text, sizeof(text));
		client_release(c, node, fh);
	}
}

static void forgets_in_a_batch(void **state)
{
	struct fs_client *c = *state;
	struct fuse_batch_forget_in in = {.count = UINT32_MAX};
	struct fuse_forget_one one = {.nlookup = 1};

	put_file(c, "a", "");
	put_file(c, "b", "");
	u64 a = client_find(c, ROOT, "a"), b = client_find(c, ROOT, "b");

	client_find(c, ROOT, "b");
	assert_int_equal(c->fs.nodes.used, 3);
	client_begin(c, FUSE_BATCH_FORGET, 0);
	client_add(c, &in, sizeof(in));
	one.nodeid = a;
	client_add(c, &one, sizeof(one));
	one.nodeid = b;
	client_add(c, &one, sizeof(one));
	client_add(c, "half", 4); /* half an entry */
	assert_int_equal(client_send(c), 1);
	assert_int_equal(c->fs.nodes.used, 2); /* b was looked up twice */
	client_forget(c, b, 1);
	assert_int_equal(c->fs.nodes.used, 1);
}

/* ---- files ---- */
static void data(void **state)
{
	struct fs_client *c = *state;
	struct fuse_write_in in = {.size = 1 << 20};
	u64 node = 0, fh = 0;

	assert_int_equal(client_create(c, ROOT, "f", O_RDWR | O_EXCL, 0640, &node, &fh), 0);
	assert_int_equal(client_write(c, node, fh, 0, "hello", 5), 0);
	assert_int_equal(((struct fuse_write_out *)c->reply)->size, 5);
	assert_int_equal(client_read(c, node, fh, 1, 100), 0);
	assert_int_equal(c->reply_len, 4);
	assert_memory_equal(c->reply, "ello", 4);
	assert_int_equal(client_read(c, node, fh, 1ull << 63, 100), -EINVAL);
	assert_int_equal(client_write(c, node, fh, 1ull << 63, "x", 1), -EINVAL);
	in.fh = fh; /* says more data than there are */
	assert_int_equal(client_call(c, FUSE_WRITE, node, &in, sizeof(in), "abc"), -EINVAL);
	assert_file(c, "f", "hello");
	assert_int_equal(client_create(c, ROOT, "f", O_RDWR | O_EXCL, 0640, &node, &fh), -EEXIST);
	assert_int_equal(client_create(c, ROOT, "f", O_RDWR, 0640, &node, &fh),
			 0); /* the host made it first */
	assert_int_equal(client_openat(c, FUSE_OPEN, node, O_WRONLY | O_TRUNC, &fh), 0);
	assert_file(c, "f", "");
	assert_int_equal(client_read(c, node, fh, 0, 10), -EBADF); /* write-only */
}

static void special_files_are_not_opened(void **state)
{
	struct fs_client *c = *state;
	struct fuse_mknod_in in = {.mode = S_IFBLK | 0600, .rdev = 0x801};
	u64 fh = 0;

	assert_int_equal(mkfifo(client_path(c, "fifo"), 0600), 0);
	assert_int_equal(symlink("/etc/passwd", client_path(c, "link")), 0);
	for (u32 flags = O_RDONLY; flags <= O_RDWR; flags++) {
		assert_int_equal(client_openat(c, FUSE_OPEN, client_find(c, ROOT, "fifo"), flags, &fh),
				 -ENXIO);
		assert_int_equal(client_openat(c, FUSE_OPEN, client_find(c, ROOT, "link"), flags, &fh),
				 -ENXIO);
	}
	assert_int_equal(client_openat(c, FUSE_OPENDIR, client_find(c, ROOT, "link"), 0, &fh), -ENOTDIR);
	assert_int_equal(client_openat(c, FUSE_OPEN, ROOT, 0, &fh), -EISDIR);
	u64 node = 0;

	assert_int_equal(client_create(c, ROOT, "link", O_WRONLY, 0600, &node, &fh), -EEXIST);
	assert_int_equal(client_create(c, ROOT, "fifo", O_WRONLY, 0600, &node, &fh), -EEXIST);
	assert_int_equal(client_call(c, FUSE_MKNOD, ROOT, &in, sizeof(in), "disk"), -EPERM);
	in.mode = S_IFCHR | 0666;
	assert_int_equal(client_call(c, FUSE_MKNOD, ROOT, &in, sizeof(in), "mem"), -EPERM);
	in.mode = S_IFIFO | 0666;
	assert_int_equal(client_call(c, FUSE_MKNOD, ROOT, &in, sizeof(in), "fifo2"), 0);
	assert_int_equal(client_call(c, FUSE_LOOKUP, client_find(c, ROOT, "link"), NULL, 0, "x"), -ENOTDIR);
	assert_int_equal(client_call(c, FUSE_READLINK, client_find(c, ROOT, "link"), NULL, 0, NULL), 0);
	assert_int_equal(c->reply_len, 11);
	assert_int_equal(client_call(c, FUSE_READLINK, ROOT, NULL, 0, NULL), -EINVAL);
}

static int setattr(struct fs_client *c, u64 node, const struct fuse_setattr_in *in)
{
	return client_call(c, FUSE_SETATTR, node, in, sizeof(*in), NULL);
}

static void attributes(void **state)
{
	struct fs_client *c = *state;
	struct fuse_setattr_in in = {.valid = FATTR_MODE | FATTR_MTIME | FATTR_SIZE,
				     .mode = 0751,
				     .mtime = 1000,
				     .mtimensec = 7,
				     .size = 3};
	struct stat st;

	put_file(c, "f", "12345");
	u64 node = client_find(c, ROOT, "f");

	assert_int_equal(setattr(c, node, &in), 0);
	struct fuse_attr_out *out = (void *)c->reply;

	assert_int_equal(out->attr.mode, S_IFREG | 0751);
	assert_int_equal(out->attr.mtime, 1000);
	assert_int_equal(stat(client_path(c, "f"), &st), 0);
	assert_int_equal(st.st_size, 3);
	assert_int_equal(st.st_mtim.tv_sec, 1000);
	assert_int_equal(st.st_mtim.tv_nsec, 7);
	in = (struct fuse_setattr_in){.valid = FATTR_SIZE, .size = 1ull << 63};
	assert_int_equal(setattr(c, node, &in), -EFBIG);
	assert_int_equal(setattr(c, ROOT, &in), -EFBIG);
	in.size = 0;
	assert_int_equal(setattr(c, ROOT, &in), -EISDIR);
	assert_int_equal(symlink("/etc/passwd", client_path(c, "link")), 0);
	in = (struct fuse_setattr_in){.valid = FATTR_MODE, .mode = 0777};
	assert_int_equal(setattr(c, client_find(c, ROOT, "link"), &in), -EOPNOTSUPP);
	in = (struct fuse_setattr_in){.valid = FATTR_MTIME, .mtime = 5};
	assert_int_equal(setattr(c, client_find(c, ROOT, "link"), &in), 0);
	assert_int_equal(stat("/etc/passwd", &st), 0);
	assert_int_not_equal(st.st_mtim.tv_sec, 5); /* the link's own */
}

/* Bits that give rights go when somebody writes, as the guest asks. */
static void setuid_is_killed(void **state)
{
	struct fs_client *c = *state;
	struct fuse_write_in in = {.size = 1, .write_flags = FUSE_WRITE_KILL_SUIDGID};
	struct stat st;
	u64 node = 0, fh = 0;

	assert_int_equal(client_create(c, ROOT, "f", O_RDWR, 0755, &node, &fh), 0);
	assert_int_equal(chmod(client_path(c, "f"), 06755), 0);
	assert_int_equal(client_write(c, node, fh, 0, "x", 1), 0);
	in.fh = fh;
	client_begin(c, FUSE_WRITE, node);
	client_add(c, &in, sizeof(in));
	client_add(c, "y", 1);
	assert_int_equal(client_send(c), 0);
	assert_int_equal(stat(client_path(c, "f"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
}

static void holes_and_copies(void **state)
{
	struct fs_client *c = *state;
	struct fuse_fallocate_in fa = {.offset = 0, .length = 4096};
	struct fuse_lseek_in seek = {.offset = 0, .whence = SEEK_DATA};
	struct fuse_copy_file_range_in copy = {.len = 4};
	u64 a = 0, b = 0;

	assert_int_equal(client_create(c, ROOT, "a", O_RDWR, 0644, &a, &copy.fh_in), 0);
	assert_int_equal(client_create(c, ROOT, "b", O_RDWR, 0644, &b, &copy.fh_out), 0);
	assert_int_equal(client_write(c, a, copy.fh_in, 1 << 20, "data", 4), 0);
	seek.fh = copy.fh_in;
	assert_int_equal(client_call(c, FUSE_LSEEK, a, &seek, sizeof(seek), NULL), 0);
	assert_int_equal(((struct fuse_lseek_out *)c->reply)->offset, 1 << 20);
	seek.whence = SEEK_SET;
	assert_int_equal(client_call(c, FUSE_LSEEK, a, &seek, sizeof(seek), NULL), -EINVAL);
	fa.fh = copy.fh_in;
	assert_int_equal(client_call(c, FUSE_FALLOCATE, a, &fa, sizeof(fa), NULL), 0);
	fa.length = UINT64_MAX;
	assert_int_equal(client_call(c, FUSE_FALLOCATE, a, &fa, sizeof(fa), NULL), -EINVAL);
	copy.off_in = 1 << 20;
	copy.nodeid_out = b;
	assert_int_equal(client_call(c, FUSE_COPY_FILE_RANGE, a, &copy, sizeof(copy), NULL), 0);
	assert_file(c, "b", "data");
	copy.nodeid_out = a; /* not that node's */
	assert_int_equal(client_call(c, FUSE_COPY_FILE_RANGE, a, &copy, sizeof(copy), NULL), -EBADF);
	u64 dir = 0; /* a directory's handle is let go once */

	assert_int_equal(client_openat(c, FUSE_OPENDIR, ROOT, 0, &dir), 0);
	copy.fh_in = dir;
	copy.nodeid_out = b;
	assert_int_equal(client_call(c, FUSE_COPY_FILE_RANGE, ROOT, &copy, sizeof(copy), NULL), -EISDIR);
	assert_int_equal(client_release(c, ROOT, dir), 0);
	assert_int_equal(c->fs.n_handles, 2);
	copy.nodeid_out = 77;
	assert_int_equal(client_call(c, FUSE_COPY_FILE_RANGE, a, &copy, sizeof(copy), NULL), -EBADF);
}

/* ---- names ---- */
static int rename2(struct fs_client *c, u64 from_dir, const char *from, u64 to_dir, const char *to, u32 flags)
{
	struct fuse_rename2_in in = {.newdir = to_dir, .flags = flags};

	client_begin(c, FUSE_RENAME2, from_dir);
	client_add(c, &in, sizeof(in));
	client_add_name(c, from);
	client_add_name(c, to);
	return client_send(c);
}

static void renames(void **state)
{
	struct fs_client *c = *state;
	struct fuse_mkdir_in in = {.mode = 0755};
	struct fuse_getattr_in ga = {0};

	put_file(c, "a", "A");
	put_file(c, "b", "B");
	u64 a = client_find(c, ROOT, "a"), b = client_find(c, ROOT, "b");

	assert_int_equal(client_call(c, FUSE_MKDIR, ROOT, &in, sizeof(in), "d"), 0);
	u64 d = client_find(c, ROOT, "d");

	assert_int_equal(rename2(c, ROOT, "a", ROOT, "b", 1), -EEXIST); /* NOREPLACE */
	assert_int_equal(rename2(c, ROOT, "a", ROOT, "b", 2), 0);       /* EXCHANGE */
	assert_int_equal(client_find(c, ROOT, "a"), b);
	assert_int_equal(client_find(c, ROOT, "b"), a);
	assert_file(c, "a", "B");
	assert_int_equal(rename2(c, ROOT, "b", d, "x", 8), -EINVAL);
	assert_int_equal(rename2(c, ROOT, "b", d, "x", 0), 0);
	assert_int_equal(rename2(c, ROOT, "d", d, "d", 0), -EINVAL); /* into itself */
	assert_int_equal(rename2(c, ROOT, "a", a, "x", 0), -ENOTDIR);
	assert_int_equal(rename2(c, ROOT, "a", 99, "x", 0), -ESTALE);
	assert_int_equal(rename2(c, ROOT, "d", ROOT, "e", 0), 0);
	assert_int_equal(client_find(c, d, "x"), a);
	assert_file(c, "e/x", "A");
	/* one that is replaced lives on as a node */
	assert_int_equal(rename2(c, d, "x", ROOT, "a", 0), 0);
	assert_int_equal(client_call(c, FUSE_GETATTR, b, &ga, sizeof(ga), NULL), 0);
	assert_int_equal(((struct fuse_attr_out *)c->reply)->attr.nlink, 0);
	assert_file(c, "a", "A");
}

static void removed_but_used(void **state)
{
	struct fs_client *c = *state;
	struct fuse_setattr_in sa = {.valid = FATTR_MODE, .mode = 0600};
	u64 node = 0, fh = 0;

	assert_int_equal(client_create(c, ROOT, "f", O_RDWR, 0644, &node, &fh), 0);
	assert_int_equal(client_call(c, FUSE_UNLINK, ROOT, NULL, 0, "f"), 0);
	assert_int_equal(client_write(c, node, fh, 0, "still", 5), 0);
	assert_int_equal(setattr(c, node, &sa), 0);
	assert_int_equal(((struct fuse_attr_out *)c->reply)->attr.nlink, 0);
	assert_int_equal(client_release(c, node, fh), 0);
	u32 fds = c->fs.n_fds;

	client_forget(c, node, 1);
	assert_int_equal(c->fs.n_fds, fds - 1);
	assert_int_equal(client_call(c, FUSE_UNLINK, ROOT, NULL, 0, "f"), -ENOENT);
	assert_int_equal(client_call(c, FUSE_RMDIR, ROOT, NULL, 0, "f"), -ENOENT);
}

static void tmpfile_and_links(void **state)
{
	struct fs_client *c = *state;
	struct fuse_create_in in = {.flags = O_RDWR, .mode = 0600};
	struct fuse_link_in link = {0};
	u64 fh = 0;

	assert_int_equal(client_call(c, FUSE_TMPFILE, ROOT, &in, sizeof(in), "/"), 0);
	memcpy(&link.oldnodeid, c->reply, 8);
	memcpy(&fh, c->reply + sizeof(struct fuse_entry_out), 8);
	assert_int_equal(client_write(c, link.oldnodeid, fh, 0, "tmp", 3), 0);
	assert_int_equal(client_call(c, FUSE_LINK, ROOT, &link, sizeof(link), "now"), 0);
	assert_file(c, "now", "tmp");
	assert_int_equal(client_find(c, ROOT, "now"), link.oldnodeid);
	assert_int_equal(client_call(c, FUSE_LINK, ROOT, &link, sizeof(link), "now"), -EEXIST);
	assert_int_equal(client_call(c, FUSE_LINK, ROOT, &link, sizeof(link), "two"), 0);
	assert_int_equal(((struct fuse_entry_out *)c->reply)->attr.nlink, 2);
	client_begin(c, FUSE_SYMLINK, ROOT);
	client_add_name(c, "sym");
	client_add_name(c, "../../etc/shadow"); /* text, nothing more */
	assert_int_equal(client_send(c), 0);
	assert_int_equal(((struct fuse_entry_out *)c->reply)->attr.mode & S_IFMT, S_IFLNK);
	client_begin(c, FUSE_SYMLINK, ROOT);
	client_add_name(c, "sym2");
	assert_int_equal(client_send(c), -EINVAL);
}

/* ---- directories ---- */
static unsigned list(struct fs_client *c, u32 opcode, u64 node, u64 fh, u32 size, bool seen[100])
{
	struct fuse_read_in in = {.fh = fh, .size = size};
	u32 head = opcode == FUSE_READDIRPLUS ? (u32)FUSE_NAME_OFFSET_DIRENTPLUS : (u32)FUSE_NAME_OFFSET;
	unsigned n = 0;

	for (;;) {
		assert_int_equal(client_call(c, opcode, node, &in, sizeof(in), NULL), 0);
		assert_true(c->reply_len <= size);
		if (!c->reply_len)
			return n;
		u8 reply[9000]; /* the forgets have answers of their own */
		u32 len = c->reply_len;

		memcpy(reply, c->reply, len);
		for (u32 at = 0; at < len;) {
			struct fuse_dirent d;
			u8 *p = reply + at;

			memcpy(&d, p + head - FUSE_NAME_OFFSET, sizeof(d));
			assert_true(d.namelen && at + head + d.namelen <= len);
			in.offset = d.off;
			at += (u32)FUSE_REC_ALIGN(head + d.namelen);
			n++;
			if (p[head] != 'f')
				continue;
			unsigned i = (unsigned)atoi((char *)p + head + 1);

			assert_false(seen[i]);
			seen[i] = true;
			if (opcode == FUSE_READDIRPLUS) {
				u64 id = ((struct fuse_entry_out *)p)->nodeid;

				if (id) /* some have no attributes: test_fs_habit.c */
					client_forget(c, id, 1);
			}
		}
	}
}

static void directories(void **state)
{
	struct fs_client *c = *state;
	struct fuse_read_in in = {0};
	char name[16];
	u64 fh = 0;

	for (unsigned i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		put_file(c, name, "");
	}
	assert_int_equal(client_openat(c, FUSE_OPENDIR, ROOT, 0, &fh), 0);
	for (u32 size = 200; size < 9000; size = size * 3) {
		bool plain[100] = {false}, plus[100] = {false};

		assert_int_equal(list(c, FUSE_READDIR, ROOT, fh, size, plain), 102);
		assert_int_equal(list(c, FUSE_READDIRPLUS, ROOT, fh, size, plus), 102);
	}
	assert_int_equal(c->fs.nodes.used, 1);
	in.fh = fh;
	in.size = 10; /* not even one */
	assert_int_equal(client_call(c, FUSE_READDIR, ROOT, &in, sizeof(in), NULL), -EINVAL);
	in.offset = 0x123456789; /* of nobody's making: an answer, whatever it is */
	in.size = 4096;
	client_call(c, FUSE_READDIR, ROOT, &in, sizeof(in), NULL);
	assert_int_equal(client_read(c, ROOT, fh, 0, 100), -EISDIR);
	assert_int_equal(client_write(c, ROOT, fh, 0, "x", 1), -EISDIR);
	client_release(c, ROOT, fh);
}

/* What was read ahead is for the very next request; after any other one the directory is read anew. */
static void reading_ahead(void **state)
{
	struct fs_client *c = *state;
	bool seen[5][100] = {0};
	u64 fh = 0, fh2 = 0, node = 0, other = 0;

	assert_int_equal(client_openat(c, FUSE_OPENDIR, ROOT, O_RDONLY, &fh), 0);
	assert_int_equal(mknod(client_path(c, "f1"), S_IFREG | 0600, 0), 0); /* behind the guest's back */
	assert_true(list(c, FUSE_READDIR, ROOT, fh, 4096, seen[0]) >= 2);
	assert_int_equal(client_openat(c, FUSE_OPENDIR, ROOT, O_RDONLY, &fh), 0);
	assert_int_equal(client_create(c, ROOT, "f2", O_RDWR, 0600, &node, &other), 0);
	assert_int_equal(list(c, FUSE_READDIR, ROOT, fh, 4096, seen[1]), 4);
	assert_true(seen[1][1] && seen[1][2]);
	assert_int_equal(list(c, FUSE_READDIR, ROOT, fh, 4096, seen[2]), 4); /* again, from the beginning */
	assert_int_equal(client_openat(c, FUSE_OPENDIR, ROOT, O_RDONLY, &fh), 0);
	assert_int_equal(client_openat(c, FUSE_OPENDIR, ROOT, O_RDONLY, &fh2), 0);
	assert_int_equal(list(c, FUSE_READDIR, ROOT, fh, 4096, seen[3]), 4);
	assert_int_equal(list(c, FUSE_READDIR, ROOT, fh2, 4096, seen[4]), 4);
}

static void xattrs(void **state)
{
	struct fs_client *c = *state;
	struct fuse_setxattr_in set = {.size = 5};
	struct fuse_getxattr_in get = {0};

	put_file(c, "f", "");
	u64 node = client_find(c, ROOT, "f");

	client_begin(c, FUSE_SETXATTR, node);
	client_add(c, &set, FUSE_COMPAT_SETXATTR_IN_SIZE);
	client_add_name(c, "user.x");
	client_add(c, "value", 5);
	if (client_send(c) == -EOPNOTSUPP)
		skip(); /* not on this file system */
	assert_int_equal(client_call(c, FUSE_GETXATTR, node, &get, sizeof(get), "user.x"), 0);
	assert_int_equal(((struct fuse_getxattr_out *)c->reply)->size, 5);
	get.size = 4;
	assert_int_equal(client_call(c, FUSE_GETXATTR, node, &get, sizeof(get), "user.x"), -ERANGE);
	get.size = UINT32_MAX;
	assert_int_equal(client_call(c, FUSE_GETXATTR, node, &get, sizeof(get), "user.x"), 0);
	assert_int_equal(c->reply_len, 5);
	assert_memory_equal(c->reply, "value", 5);
	assert_int_equal(client_call(c, FUSE_LISTXATTR, node, &get, sizeof(get), NULL), 0);
	assert_int_equal(c->reply_len, 7);
	assert_int_equal(client_call(c, FUSE_REMOVEXATTR, node, NULL, 0, "user.x"), 0);
	assert_int_equal(client_call(c, FUSE_GETXATTR, node, &get, sizeof(get), "user.x"), -ENODATA);
	assert_int_equal(client_call(c, FUSE_GETXATTR, 999, &get, sizeof(get), "trusted.overlay.metacopy"),
			 -ESTALE);
	assert_int_equal(client_call(c, FUSE_GETXATTR, node, &get, sizeof(get), "trusted.overlay.metacopy"),
			 -ENODATA);
	set.size = 100; /* more than there is */
	client_begin(c, FUSE_SETXATTR, node);
	client_add(c, &set, FUSE_COMPAT_SETXATTR_IN_SIZE);
	client_add_name(c, "user.x");
	client_add(c, "value", 5);
	assert_int_equal(client_send(c), -EINVAL);
}

/* ---- the host changes things behind our back ---- */
static void host_moves_a_directory(void **state)
{
	struct fs_client *c = *state;
	struct fuse_entry_out e;

	assert_int_equal(mkdir(client_path(c, "d"), 0755), 0);
	put_file(c, "d/f", "x");
	u64 d = client_find(c, ROOT, "d"), f = client_find(c, d, "f");

	assert_int_not_equal(f, 0);
	pthread_mutex_lock(&c->fs.lock); /* as if descriptors were scarce */
	c->fs.max_fds = 0;
	pthread_mutex_unlock(&c->fs.lock);
	client_find(c, ROOT, "d");
	assert_int_equal(rename(client_path(c, "d"), client_path(c, "moved")), 0);
	assert_int_equal(mkdir(client_path(c, "other"), 0755), 0);
	client_lookup(c, client_find(c, ROOT, "other"), "x", &e); /* d's descriptor has to go */
	assert_int_equal(client_lookup(c, d, "f", &e), -ESTALE);
	assert_int_equal(symlink("/etc", client_path(c, "d")), 0);
	assert_int_equal(client_lookup(c, d, "passwd", &e), -ESTALE);
	assert_int_equal(client_find(c, ROOT, "moved"), d); /* found again, it is the same */
	assert_int_equal(client_find(c, d, "f"), f);
}

/* The share's directory and a link to one outside change places all the time, as a guest that may write can have it. */
struct swapper {
	char a[128], b[128];
	bool stop;
};

static void *swap(void *arg)
{
	struct swapper *s = arg;

	while (!__atomic_load_n(&s->stop, __ATOMIC_RELAXED))
		renameat2(AT_FDCWD, s->a, AT_FDCWD, s->b, RENAME_EXCHANGE);
	return NULL;
}

static void links_change_places(void **state)
{
	struct fs_client *c = *state;
	struct swapper s = {0};
	char outside[] = "/tmp/doppel-outside-XXXXXX", name[64];
	unsigned seen = 0;
	pthread_t t;

	assert_non_null(mkdtemp(outside));
	snprintf(name, sizeof(name), "%s/f", outside);
	FILE *f = fopen(name, "w");

	fputs("outside", f);
	fclose(f);
	assert_int_equal(mkdir(client_path(c, "d"), 0755), 0);
	put_file(c, "d/f", "inside!");
	assert_int_equal(symlink(outside, client_path(c, "l")), 0);
	assert_int_equal(symlink("/proc/self/root", client_path(c, "magic")), 0);
	assert_int_equal(client_lookup(c, client_find(c, ROOT, "magic"), "etc", &(struct fuse_entry_out){0}), -ENOTDIR);
	snprintf(s.a, sizeof(s.a), "%s", client_path(c, "d"));
	snprintf(s.b, sizeof(s.b), "%s", client_path(c, "l"));
	c->fs.max_fds = 0; /* everything is opened anew each time */
	assert_int_equal(pthread_create(&t, NULL, swap, &s), 0);
	for (unsigned i = 0; i < 20000; i++) {
		u64 fh = 0, d = client_find(c, ROOT, i & 1 ? "d" : "l"), file = d ? client_find(c, d, "f") : 0;

		if (file && !client_openat(c, FUSE_OPEN, file, O_RDONLY, &fh)) {
			assert_int_equal(client_read(c, file, fh, 0, 7), 0);
			assert_memory_equal(c->reply, "inside!", 7);
			client_release(c, file, fh);
			seen++;
		}
	}
	__atomic_store_n(&s.stop, true, __ATOMIC_RELAXED);
	pthread_join(t, NULL);
	assert_true(seen > 0);
	unlink(name);
	rmdir(outside);
}

/* Whatever the number of descriptors, all nodes stay usable. */
static void few_descriptors(void **state)
{
	struct fs_client *c = *state;
	struct fuse_getattr_in ga = {0};
	struct fuse_mkdir_in in = {.mode = 0755};
	u64 node[60], ino[60];

	c->fs.max_fds = 3;
	for (unsigned i = 0; i < ARRAY_SIZE(node); i++) { /* a deep tree */
		u64 dir = i ? node[i - 1 - i % 3 * (i > 3)] : ROOT;
		char name[16];

		snprintf(name, sizeof(name), "d%u", i);
		assert_int_equal(client_call(c, FUSE_MKDIR, dir, &in, sizeof(in), name), 0);
		node[i] = ((struct fuse_entry_out *)c->reply)->nodeid;
		ino[i] = ((struct fuse_entry_out *)c->reply)->attr.ino;
	}
	for (unsigned k = 0; k < 500; k++) {
		unsigned i = k * 37 % ARRAY_SIZE(node);

		assert_int_equal(client_call(c, FUSE_GETATTR, node[i], &ga, sizeof(ga), NULL), 0);
		assert_int_equal(((struct fuse_attr_out *)c->reply)->attr.ino, ino[i]);
		assert_true(c->fs.n_fds <= 5);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(node); i++) /* parents first, as no kernel would */
		client_forget(c, node[i], 1);
	assert_int_equal(c->fs.nodes.used, 1);
	assert_int_equal(c->fs.n_fds, 0);
}

/* A share of the whole machine: what the kernel shows in it is not shared. */
static void the_kernels_own_is_closed(void **state)
{
	struct fs_client *c = *state;
	const struct fs_options o = {.xattr = true};
	struct fuse_getattr_in ga = {0};
	struct fuse_read_in in = {.size = 4096};
	struct fuse_entry_out e;
	struct err err = {0};
	int root = c->fs.root->fd;
	u64 fh = 0;

	fs_close(&c->fs);
	close(root);
	assert_int_equal(fs_open(&c->fs, &o, open("/", O_PATH | O_DIRECTORY), &err), 0);
	client_init(c);
	u64 proc = client_find(c, ROOT, "proc");

	assert_int_not_equal(proc, 0);
	assert_int_equal(client_lookup(c, proc, "version", &e), 0);
	assert_int_equal(e.nodeid, 0);
	assert_int_equal(client_lookup(c, proc, "self", &e), 0);
	assert_int_equal(e.nodeid, 0);
	assert_int_equal(client_openat(c, FUSE_OPENDIR, proc, 0, &fh), 0);
	in.fh = fh;
	assert_int_equal(client_call(c, FUSE_READDIRPLUS, proc, &in, sizeof(in), NULL), 0);
	assert_int_equal(c->reply_len, 0);
	ga = (struct fuse_getattr_in){.getattr_flags = FUSE_GETATTR_FH, .fh = fh};
	assert_int_equal(client_call(c, FUSE_GETATTR, proc, &ga, sizeof(ga), NULL), 0);
	assert_int_equal(((struct fuse_attr_out *)c->reply)->attr.mode & S_IFMT, S_IFDIR);
	assert_int_equal(client_call(c, FUSE_UNLINK, proc, NULL, 0, "version"), -EACCES);
	u64 etc = client_find(c, ROOT, "etc"), passwd = client_find(c, etc, "passwd");

	assert_int_equal(client_openat(c, FUSE_OPEN, passwd, O_RDONLY, &fh), 0);
}

/* ---- read-only shares ---- */
static void readonly_refuses(void **state)
{
	struct fs_client *c = *state;
	static const u32 writing[] = {FUSE_SETATTR,   FUSE_SYMLINK,  FUSE_MKNOD,           FUSE_MKDIR,
				      FUSE_UNLINK,    FUSE_RMDIR,    FUSE_RENAME,          FUSE_LINK,
				      FUSE_WRITE,     FUSE_SETXATTR, FUSE_REMOVEXATTR,     FUSE_CREATE,
				      FUSE_FALLOCATE, FUSE_RENAME2,  FUSE_COPY_FILE_RANGE, FUSE_TMPFILE};
	static const u32 open_flags[] = {O_WRONLY, O_RDWR, O_RDONLY | O_TRUNC, 3};
	u8 arg[200] = {0};
	u64 fh = 0;

	put_file(c, "f", "text");
	u64 node = client_find(c, ROOT, "f");

	for (u32 i = 0; i < ARRAY_SIZE(writing); i++)
		assert_int_equal(client_call(c, writing[i], ROOT, arg, sizeof(arg), "x"), -EROFS);
	for (u32 i = 0; i < ARRAY_SIZE(open_flags); i++)
		assert_int_equal(client_openat(c, FUSE_OPEN, node, open_flags[i], &fh), -EROFS);
	assert_int_equal(client_openat(c, FUSE_OPEN, node, O_RDONLY, &fh), 0);
	assert_int_equal(client_read(c, node, fh, 0, 10), 0);
	assert_int_equal(c->reply_len, 4);
	struct fuse_access_in acc = {.mask = W_OK};

	assert_int_equal(client_call(c, FUSE_ACCESS, node, &acc, sizeof(acc), NULL), -EROFS);
	assert_file(c, "f", "text");
}

/* ---- users ---- */
static void files_belong_to_the_guests_user(void **state)
{
	struct fs_client *c = *state;
	struct fuse_mkdir_in in = {.mode = 0700};
	struct stat st;
	u64 node = 0, fh = 0;

	if (!c->fs.as_root)
		skip();
	c->uid = 1234;
	c->gid = 4321;
	assert_int_equal(client_create(c, ROOT, "f", O_RDWR, 04755, &node, &fh), 0);
	assert_int_equal(client_call(c, FUSE_MKDIR, ROOT, &in, sizeof(in), "d"), 0);
	assert_int_equal(stat(client_path(c, "f"), &st), 0);
	assert_int_equal(st.st_uid, 1234);
	assert_int_equal(st.st_gid, 4321);
	assert_int_equal(stat(client_path(c, "d"), &st), 0);
	assert_int_equal(st.st_uid, 1234);
	put_file(c, "ours", ""); /* we are root again */
	assert_int_equal(stat(client_path(c, "ours"), &st), 0);
	assert_int_equal(st.st_uid, 0);
	c->uid = UINT32_MAX;
	assert_int_equal(client_call(c, FUSE_MKDIR, ROOT, &in, sizeof(in), "e"), -EINVAL);
}

/* ---- numbers ---- */
static void tables(void **state)
{
	struct fs_table t = {0};
	u64 id[300], again = 0;
	int x = 0;

	for (u32 i = 0; i < ARRAY_SIZE(id); i++)
		assert_int_equal(table_add(&t, &x, &id[i]), 0);
	for (u32 i = 0; i < ARRAY_SIZE(id); i += 2)
		table_del(&t, id[i]);
	assert_null(table_get(&t, id[0]));
	assert_ptr_equal(table_get(&t, id[1]), &x);
	assert_null(table_get(&t, 0));
	assert_null(table_get(&t, UINT64_MAX));
	assert_int_equal(table_add(&t, &x, &again), 0);
	assert_null(table_get(&t, id[298])); /* its slot has been taken, its number not */
	assert_ptr_equal(table_get(&t, again), &x);
	assert_int_equal(t.used, 151);
	table_free(&t);
}

#define TEST(f)    cmocka_unit_test_setup_teardown(f, setup, teardown)
#define TEST_RO(f) cmocka_unit_test_setup_teardown(f, setup_readonly, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(nothing_before_init),
	    TEST(init_forgets),
	    TEST(broken_headers),
	    TEST(arguments_too_long),
	    TEST(bad_names),
	    TEST(bad_numbers),
	    TEST(no_room_no_leak),
	    TEST(segments_of_any_size),
	    TEST(forgets_in_a_batch),
	    TEST(data),
	    TEST(special_files_are_not_opened),
	    TEST(attributes),
	    TEST(setuid_is_killed),
	    TEST(holes_and_copies),
	    TEST(renames),
	    TEST(removed_but_used),
	    TEST(tmpfile_and_links),
	    TEST(directories),
	    TEST(reading_ahead),
	    TEST(xattrs),
	    TEST(host_moves_a_directory),
	    TEST(links_change_places),
	    TEST(few_descriptors),
	    TEST(the_kernels_own_is_closed),
	    TEST_RO(readonly_refuses),
	    TEST(files_belong_to_the_guests_user),
	    cmocka_unit_test(tables),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
