/*
 * Fuzzes the file server: requests that are nearly right (real nodes, handles and names with other
 * operations, lengths and bits), on a share beside which lies a file that must stay as it is and unread.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "fs_client.h"

static u64 state = 88172645463325252ull;

static u64 rng(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static u32 below(u32 n)
{
	return (u32)(rng() % n);
}

enum { KNOWN = 64 };
static const char secret[] = "SECRET-OUTSIDE-THE-SHARE";

struct fuzz {
	struct fs_client c;
	u64 node[KNOWN], fh[KNOWN], fh_node[KNOWN];
	char outside[80];
	u32 done[64]; /* requests that succeeded, by operation */
};

static u64 some_node(struct fuzz *f)
{
	return below(10) ? f->node[below(KNOWN)] : below(2) ? rng() : below(300);
}

static u64 some_number(struct fuzz *f)
{
	static const u64 odd[] = {0,     1,          2,          7,         4095,       4096,
				  65536, 0x7fffffff, 0xffffffff, INT64_MAX, 1ull << 63, UINT64_MAX};

	switch (below(6)) {
	case 0:
		return odd[below(ARRAY_SIZE(odd))];
	case 1:
	case 2:
		return f->fh[below(KNOWN)];
	case 3:
		return some_node(f);
	case 4:
		return below(8192);
	default:
		return rng();
	}
}

static void add_name(struct fuzz *f)
{
	static const char *const names[] = {"a",
					    "b",
					    "c",
					    "d",
					    "link",
					    "out",
					    "dir",
					    "..",
					    ".",
					    "",
					    "a/b",
					    "../secret",
					    "/etc/passwd",
					    "user.x",
					    "security.capability",
					    "system.posix_acl_access",
					    "new",
					    "fifo"};

	client_add_name(&f->c, names[below(ARRAY_SIZE(names))]);
}

static void remember_handle(struct fuzz *f, u64 node, u64 fh)
{
	u32 i = below(KNOWN);

	f->fh[i] = fh;
	f->fh_node[i] = node;
}

static void remember(struct fuzz *f, u32 opcode, u64 node)
{
	u64 x[18] = {0};

	memcpy(x, f->c.reply, MIN(f->c.reply_len, sizeof(x)));
	if (opcode == FUSE_OPEN || opcode == FUSE_OPENDIR)
		remember_handle(f, node, x[0]);
	else if (f->c.reply_len >= sizeof(struct fuse_entry_out) && x[0])
		f->node[below(KNOWN)] = x[0];
	if (opcode == FUSE_CREATE || opcode == FUSE_TMPFILE)
		remember_handle(f, x[0], x[sizeof(struct fuse_entry_out) / 8]);
}

/* How a request of each kind looks: numbers of 8 bytes, names; whether the first number is a handle of the
 * node. */
static const struct shape {
	u8 numbers, names;
	bool handle, data;
} shapes[] = {
    [FUSE_LOOKUP] = {0, 1, 0, 0},      [FUSE_FORGET] = {1, 0, 0, 0},
    [FUSE_GETATTR] = {2, 0, 0, 0},     [FUSE_SETATTR] = {11, 0, 0, 0},
    [FUSE_SYMLINK] = {0, 2, 0, 0},     [FUSE_MKNOD] = {2, 1, 0, 0},
    [FUSE_MKDIR] = {1, 1, 0, 0},       [FUSE_UNLINK] = {0, 1, 0, 0},
    [FUSE_RMDIR] = {0, 1, 0, 0},       [FUSE_RENAME] = {1, 2, 0, 0},
    [FUSE_LINK] = {1, 1, 0, 0},        [FUSE_OPEN] = {1, 0, 0, 0},
    [FUSE_READ] = {5, 0, 1, 0},        [FUSE_WRITE] = {5, 0, 1, 1},
    [FUSE_RELEASE] = {3, 0, 1, 0},     [FUSE_SETXATTR] = {1, 1, 0, 1},
    [FUSE_GETXATTR] = {1, 1, 0, 0},    [FUSE_LISTXATTR] = {1, 0, 0, 0},
    [FUSE_REMOVEXATTR] = {0, 1, 0, 0}, [FUSE_OPENDIR] = {1, 0, 0, 0},
    [FUSE_READDIR] = {5, 0, 1, 0},     [FUSE_RELEASEDIR] = {3, 0, 1, 0},
    [FUSE_CREATE] = {2, 1, 0, 0},      [FUSE_FALLOCATE] = {4, 0, 1, 0},
    [FUSE_READDIRPLUS] = {5, 0, 1, 0}, [FUSE_RENAME2] = {2, 2, 0, 0},
    [FUSE_LSEEK] = {3, 0, 1, 0},       [FUSE_COPY_FILE_RANGE] = {7, 0, 1, 0},
    [FUSE_TMPFILE] = {2, 1, 0, 0},
};

static void good_request(struct fuzz *f, u32 opcode)
{
	const struct shape *s = &shapes[opcode];
	u32 pair = below(KNOWN);
	u64 size = below(4096);

	client_begin(&f->c, opcode, s->handle ? f->fh_node[pair] : f->node[below(KNOWN)]);
	for (u32 i = 0; i < s->numbers; i++) {
		u64 x = i == 0 && s->handle ? f->fh[pair] : below(4) ? below(4096) : some_number(f);

		if (opcode == FUSE_WRITE && i == 2)
			x = size;
		if ((opcode == FUSE_OPEN || opcode == FUSE_CREATE) && i == 0)
			x = below(4) | (u64)(0600 | below(010000)) << 32;
		if (opcode == FUSE_RENAME || opcode == FUSE_RENAME2 || opcode == FUSE_LINK)
			x = i ? below(8) : f->node[below(KNOWN)];
		client_add(&f->c, &x, sizeof(x));
	}
	for (u32 n = s->names; n; n--)
		add_name(f);
	if (s->data)
		client_add(&f->c, f->c.t, (u32)size);
}

static void wild_request(struct fuzz *f, u32 opcode)
{
	client_begin(&f->c, opcode, some_node(f));
	for (u32 n = below(9); n; n--) {
		u64 x = below(2) ? some_number(f) : (u64)below(0x10000) << 32 | below(0x10000);

		client_add(&f->c, &x, sizeof(x));
	}
	for (u32 n = below(3); n; n--)
		add_name(f);
	if (!below(20)) {
		u8 junk[3000];

		memset(junk, (int)rng(), sizeof(junk));
		client_add(&f->c, junk, below(sizeof(junk)));
	}
}

static void one(struct fuzz *f)
{
	struct fs_client *c = &f->c;
	u32 opcode = below(30) ? below(54) : (u32)rng();

	if (opcode == FUSE_INIT || opcode == FUSE_DESTROY || opcode == FUSE_SYNCFS || opcode == FUSE_FSYNC ||
	    opcode == FUSE_FSYNCDIR)
		opcode = below(200) ? FUSE_LOOKUP : FUSE_INIT;
	c->split = below(4) ? 0 : 1 + below(100);
	c->room = below(8) ? sizeof(c->out) : below(300);
	c->uid = below(3) * 1000;
	if (below(3) && opcode < ARRAY_SIZE(shapes))
		good_request(f, opcode);
	else
		wild_request(f, opcode);
	u64 node = ((struct fuse_in_header *)c->in)->nodeid;

	if (!below(20))
		((struct fuse_in_header *)c->in)->len = (u32)some_number(f);
	if (!client_send(c)) {
		if (memmem(c->reply, c->reply_len, secret, sizeof(secret) - 1)) {
			printf("not ok: the secret came out, operation %u\n", opcode);
			abort();
		}
		if (opcode < ARRAY_SIZE(f->done))
			f->done[opcode]++;
		remember(f, opcode, node);
	}
	if (!c->fs.started)
		client_init(c);
	f->node[0] = FUSE_ROOT_ID;
}

/* The host does its own things meanwhile. */
static void meddle(struct fuzz *f)
{
	char a[2] = {(char)('a' + below(4)), 0};
	const char *path = client_path(&f->c, a);

	switch (below(5)) {
	case 0:
		if (rename(path, client_path(&f->c, "dir")) < 0)
			return;
		break;
	case 1:
		if (unlink(path) == 0 && symlink(f->outside, path) < 0)
			return;
		break;
	case 2:
		mkdir(path, 0755);
		break;
	case 3:
		rmdir(path);
		break;
	case 4:
		mkfifo(path, 0644);
		break;
	}
}

static void check_outside(struct fuzz *f)
{
	char buf[100] = "";
	int fd = open(f->outside, O_RDONLY);

	if (fd < 0 || read(fd, buf, sizeof(buf)) != sizeof(secret) || memcmp(buf, secret, sizeof(secret))) {
		printf("not ok: the file outside was changed\n");
		abort();
	}
	close(fd);
}

int main(int argc, char **argv)
{
	u64 seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
	unsigned steps = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 0) : 100000, n = 0;
	struct fuzz *f = calloc(1, sizeof(*f));

	state ^= seed * 0x9e3779b97f4a7c15ull;
	setvbuf(stdout, NULL, _IONBF, 0);
	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &(struct rlimit){1 << 20, 1 << 20});
	strcpy(f->outside, "/tmp/doppel-fuzz-secret.XXXXXX");
	int fd = mkstemp(f->outside);

	if (fd < 0 || write(fd, secret, sizeof(secret)) != sizeof(secret))
		return 1;
	close(fd);
	for (unsigned round = 0; round < 4; round++, n++) {
		const struct fs_options o = {
		    .xattr = true, .readonly = round == 3, .cache = (enum fs_cache)(round % 3)};

		client_open(&f->c, &o);
		client_init(&f->c);
		f->c.fs.max_fds = round == 1 ? 3 : 200;
		f->c.fs.max_handles = 100;
		if (symlink(f->outside, client_path(&f->c, "out")) < 0 ||
		    mkdir(client_path(&f->c, "dir"), 0755) < 0)
			return 1;
		for (unsigned i = 0; i < steps / 4; i++) {
			one(f);
			if (!below(100))
				meddle(f);
		}
		check_outside(f);
		client_close(&f->c);
	}
	unlink(f->outside);
	printf("succeeded, by operation:");
	for (u32 i = 0; i < ARRAY_SIZE(f->done); i++)
		if (f->done[i])
			printf(" %u:%u", i, f->done[i]);
	printf("\n");
	free(f);
	printf("%u passed, 0 failed\n", n);
	return 0;
}
