/* What `doppel run -- COMMAND` is made of: frames, requests, changes, applying them, the initramfs. */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli/apply.h"
#include "cli/changes.h"
#include "cli/guest.h"
#include "cli/last_words.h"
#include "guest/proto.h"

/* ---- frames ---- */
static void frames(void **state)
{
	u8 b[64] = {0};
	struct frame f;
	frame_header(b, F_SIZE, 8);
	put_u32(b + 8, 25);
	put_u32(b + 12, 0xfffefdfc);
	for (size_t n = 0; n < 16; n++)
		assert_int_equal(frame_parse(b, n, &f), 0);
	assert_int_equal(frame_parse(b, sizeof(b), &f), 16);
	assert_int_equal(f.type, F_SIZE);
	assert_int_equal(frame_u32(&f, 0), 25);
	assert_int_equal(frame_u32(&f, 1), 0xfffefdfc);
	assert_int_equal(frame_u32(&f, 2), 0);
	assert_int_equal(frame_u32(&f, 0x3fffffff), 0);
	frame_header(b, F_INPUT, FRAME_MAX + 1);
	assert_int_equal(frame_parse(b, sizeof(b), &f), -1);
	frame_header(b, F_INPUT, UINT32_MAX);
	assert_int_equal(frame_parse(b, sizeof(b), &f), -1);
}

/* ---- changes ---- */
static size_t record(u8 *p, char kind, u32 mode, const char *path, const char *link, const char *content)
{
	struct change c = {.kind = (u32)kind, .mode = mode, .uid = geteuid(), .gid = getegid(), .mtime_s = 1000000000,
			   .size = content ? strlen(content) : 0, .content = content != NULL, .n_path = (u32)strlen(path),
			   .n_link = link ? (u32)strlen(link) : 0};
	size_t n = CHANGE_HEADER;
	change_header(p, &c);
	n += (size_t)sprintf((char *)p + n, "%s%s%s", path, link ? link : "", content ? content : "");
	return n;
}

static void records(void **state)
{
	static const char *const bad[] = {"", "/", "a", "//a", "/a/", "/a//b", "/..", "/a/..", "/../a", "/a/../b", "/.", "/a/."};
	u8 b[8192];
	struct change c;
	size_t n = record(b, 'A', 0100644, "/a/..b/...", NULL, "xyz");
	for (size_t i = 0; i < n - 3; i++)
		assert_int_equal(change_parse(b, i, &c), 0);
	assert_int_equal(change_parse(b, n, &c), n - 3);
	assert_int_equal(c.size, 3);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		n = record(b, 'A', 0100644, bad[i], NULL, NULL);
		assert_int_equal(change_parse(b, n, &c), -1);
	}
	n = record(b, 'A', 0100644, "/a", "link of a file", NULL);
	assert_int_equal(change_parse(b, n, &c), -1);
	n = record(b, 'D', 0100644, "/a", NULL, NULL);
	assert_int_equal(change_parse(b, n, &c), -1);
	n = record(b, 'X', 0100644, "/a", NULL, NULL);
	assert_int_equal(change_parse(b, n, &c), -1);
	n = record(b, 'A', 0040755, "/a", NULL, "a directory's content");
	assert_int_equal(change_parse(b, n, &c), -1);
	record(b, 'A', 0100644, "/a", NULL, NULL);
	put_u32(b + 56, UINT32_MAX);
	assert_int_equal(change_parse(b, sizeof(b), &c), -1);
	put_u32(b + 56, 20); /* attributes that say they are longer than they are */
	put_u32(b + CHANGE_HEADER + 2, 5);
	put_u32(b + CHANGE_HEADER + 6, 1000);
	assert_int_equal(change_parse(b, sizeof(b), &c), -1);
}

static void printing(void **state)
{
	u8 b[300];
	char *text = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&text, &n);
	struct changes c = {.record = changes_print, .arg = f};
	for (unsigned i = 0; i < 2; i++) { /* in one piece, byte by byte */
		size_t len = record(b, 'A', 0040700, "/new", NULL, NULL);
		len += record(b + len, 'C', 0100600, "/bad\n\033[2Jname", NULL, NULL);
		len += record(b + len, 'D', 0, "/gone", NULL, NULL);
		for (size_t at = 0; at < len; at += i ? 1 : len)
			assert_int_equal(changes_feed(&c, b + at, i ? 1 : len), 0);
	}
	assert_true(changes_whole(&c));
	changes_free(&c);
	fclose(f);
	assert_string_equal(text, "A       -  /new/\nC      0B  /bad\\012\\033[2Jname\nD       -  /gone\n"
				  "A       -  /new/\nC      0B  /bad\\012\\033[2Jname\nD       -  /gone\n");
	free(text);
}

/* ---- applying ---- */
struct place {
	char dir[64];
	struct apply a;
};

static int setup(void **state)
{
	struct place *p = calloc(1, sizeof(*p));
	struct timespec ts;
	strcpy(p->dir, "/tmp/doppel-apply-XXXXXX");
	assert_non_null(mkdtemp(p->dir));
	assert_return_code(chdir(p->dir), errno);
	clock_gettime(CLOCK_REALTIME, &ts);
	p->a = (struct apply){.root = open(p->dir, O_PATH | O_DIRECTORY), .dir = -1, .file = -1,
			      .since_ns = (u64)(ts.tv_sec + 60) * 1000000000ull};
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	struct place *p = *state;
	char cmd[128];
	apply_free(&p->a);
	close(p->a.root);
	assert_return_code(chdir("/"), errno);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", p->dir);
	assert_int_equal(system(cmd), 0);
	free(p);
	return 0;
}

static void put_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void has(const char *path, const char *text)
{
	char buf[64] = "";
	FILE *f = fopen(path, "r");
	assert_non_null(f);
	assert_true(fread(buf, 1, sizeof(buf) - 1, f) > 0 || !*text);
	fclose(f);
	assert_string_equal(buf, text);
}

static void apply(struct place *p, char kind, u32 mode, const char *path, const char *link, const char *content)
{
	u8 b[1000];
	struct changes c = {.record = apply_record, .content = apply_content, .arg = &p->a};
	assert_int_equal(changes_feed(&c, b, record(b, kind, mode, path, link, content)), 0);
	assert_true(changes_whole(&c));
	changes_free(&c);
}

static void applied(void **state)
{
	struct place *p = *state;
	struct stat st;
	char link[8] = "";
	put_file("old", "before");
	put_file("gone", "x");
	mkdir("tree", 0755);
	mkdir("tree/sub", 0755);
	put_file("tree/sub/leaf", "x");
	apply(p, 'C', 0100640, "/old", NULL, "after");
	apply(p, 'D', 0, "/gone", NULL, NULL);
	apply(p, 'D', 0, "/tree", NULL, NULL);
	apply(p, 'A', 0040750, "/dir", NULL, NULL);
	apply(p, 'A', 0100600, "/dir/empty", NULL, "");
	apply(p, 'A', 0120777, "/dir/link", "empty", NULL);
	apply(p, 'A', 0010644, "/dir/fifo", NULL, NULL);
	assert_int_equal(p->a.done, 7);
	assert_int_equal(p->a.failed + p->a.conflicts, 0);
	has("old", "after");
	assert_int_equal(stat("old", &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_int_equal(st.st_mtime, 1000000000);
	assert_int_equal(access("gone", F_OK), -1);
	assert_int_equal(access("tree", F_OK), -1);
	has("dir/empty", "");
	assert_int_equal(readlink("dir/link", link, sizeof(link)), 5);
	assert_true(stat("dir/fifo", &st) == 0 && S_ISFIFO(st.st_mode));
	assert_true(stat("dir", &st) == 0 && (st.st_mode & 07777) == 0750);
}

/* The times of what is applied are the record's: a file of another time or size is not the one that is meant. */
static void linked(void **state)
{
	struct place *p = *state;
	struct stat a, b;

	mkdir("dir", 0755);
	apply(p, 'A', 0100644, "/dir/one", NULL, "x");
	apply(p, 'A', 0100644, "/dir/one", NULL, "");
	apply(p, 'A', 0100644, "/two", "/dir/one", NULL);
	put_file("three", "old");
	apply(p, 'C', 0100644, "/three", "/dir/one", NULL);
	apply(p, 'C', 0100644, "/three", "/dir/one", NULL); /* once more */
	assert_int_equal(p->a.done, 5);
	assert_true(!stat("dir/one", &a) && !stat("two", &b) && a.st_ino == b.st_ino);
	assert_true(!stat("three", &b) && a.st_ino == b.st_ino && b.st_nlink == 3);
	put_file("other", "mine");
	apply(p, 'A', 0100644, "/four", "/other", NULL);
	apply(p, 'A', 0100644, "/four", "/not-there", NULL);
	assert_return_code(symlink("/etc", "etc"), errno);
	apply(p, 'A', 0100644, "/four", "/etc/passwd", NULL);
	assert_int_equal(p->a.failed, 3);
	assert_int_equal(access("four", F_OK), -1);
	assert_int_equal(system("test -z \"$(find . -name '.doppel-*')\""), 0);
	apply(p, 'A', 0140755, "/socket", NULL, NULL);
	assert_int_equal(access("socket", F_OK), -1);
	assert_int_equal(p->a.failed, 3);
}

/* A stream that has been made up cannot leave the root, nor go through a link on this machine. */
static void contained(void **state)
{
	struct place *p = *state;
	mkdir("outside", 0755);
	mkdir("root", 0755);
	close(p->a.root);
	p->a.root = open("root", O_PATH | O_DIRECTORY);
	assert_return_code(symlink("../outside", "root/link"), errno);
	assert_return_code(symlink("/etc", "root/etc"), errno);
	put_file("outside/victim", "safe");
	apply(p, 'A', 0100644, "/link/new", NULL, "x");
	apply(p, 'C', 0100644, "/link/victim", NULL, "x");
	apply(p, 'D', 0, "/link/victim", NULL, NULL);
	apply(p, 'A', 0100644, "/etc/doppel-test", NULL, "x");
	assert_int_equal(p->a.failed, 4);
	has("outside/victim", "safe");
	assert_int_equal(access("outside/new", F_OK), -1);
	assert_int_equal(access("/etc/doppel-test", F_OK), -1);
	/* the link itself can be replaced: not followed */
	apply(p, 'C', 0100644, "/link", NULL, "file");
	has("root/link", "file");
	has("outside/victim", "safe");
}

static void conflicts(void **state)
{
	struct place *p = *state;
	p->a.since_ns = 1000000000ull; /* everything here is younger */
	put_file("changed", "mine");
	mkdir("tree", 0755);
	put_file("tree/new", "mine");
	apply(p, 'C', 0100644, "/changed", NULL, "theirs");
	apply(p, 'A', 0100644, "/changed", NULL, "theirs");
	apply(p, 'D', 0, "/changed", NULL, NULL);
	apply(p, 'D', 0, "/tree", NULL, NULL);
	apply(p, 'C', 0100644, "/deleted", NULL, "theirs");
	assert_int_equal(p->a.conflicts, 5);
	assert_int_equal(p->a.done, 0);
	has("changed", "mine");
	has("tree/new", "mine");
	apply(p, 'A', 0100644, "/fresh", NULL, "theirs"); /* nothing is in its way */
	apply(p, 'D', 0, "/gone-already", NULL, NULL);
	assert_int_equal(p->a.done, 2);
	apply(p, 'A', 0100644, "/fresh", NULL, "theirs"); /* once more: it is what was applied */
	assert_int_equal(p->a.done, 3);
	apply(p, 'A', 0100644, "/fresh", NULL, "others");
	put_file("fresh", "mine");
	apply(p, 'A', 0100644, "/fresh", NULL, "others");
	assert_int_equal(p->a.conflicts, 6);
	has("fresh", "mine");
	p->a.force = true;
	apply(p, 'C', 0100644, "/changed", NULL, "theirs");
	apply(p, 'D', 0, "/tree", NULL, NULL);
	has("changed", "theirs");
	assert_int_equal(access("tree", F_OK), -1);
}

/* ---- the initramfs ---- */
static void initramfs(void **state)
{
	static const char *const modules[] = {"30-overlay.ko", "11-virtio.ko", "29-vmw_vsock_virtio_transport.ko", "20-button.ko",
					      "12-unwanted.ko", "24-virtio_net.ko", "names"};
	static const char *const want[] = {"dev", "dev/console", "init", "lib", "lib/modules", "lib/late", "config",
					   "lib/modules/11-virtio.ko", "lib/modules/29-vmw_vsock_virtio_transport.ko",
					   "lib/modules/30-overlay.ko", "lib/late/20-button.ko"};
	struct place *p = *state;
	struct guest g;
	struct err e = {0};
	struct archive *a = archive_read_new();
	struct archive_entry *entry = NULL;
	char path[160], config[16] = "", name[8];
	unsigned n = 0;
	assert_return_code(mkdir("doppel", 0700) | mkdir("doppel/kernel", 0700) | mkdir("doppel/kernel/modules", 0700), errno);
	put_file("doppel/kernel/vmlinuz", "kernel");
	put_file("init", "the init");
	for (unsigned i = 0; i < ARRAY_SIZE(modules); i++) {
		snprintf(path, sizeof(path), "doppel/kernel/modules/%s", modules[i]);
		put_file(path, "driver");
	}
	snprintf(path, sizeof(path), "%s/init", p->dir);
	setenv("DOPPEL_INIT", path, 1);
	setenv("XDG_CACHE_HOME", p->dir, 1);
	assert_int_equal(duplicate_guest(&g, "a=b\0c=d", 8, false, &e), 0);
	assert_int_equal(lseek(g.initrd_fd, 0, SEEK_SET), 0);
	assert_int_equal(read(g.initrd_fd, name, 6), 6);
	assert_memory_equal(name, "070701", 6); /* newc */
	lseek(g.initrd_fd, 0, SEEK_SET);
	archive_read_support_format_cpio(a);
	assert_int_equal(archive_read_open_fd(a, g.initrd_fd, 4096), ARCHIVE_OK);
	while (archive_read_next_header(a, &entry) == ARCHIVE_OK) {
		assert_true(n < ARRAY_SIZE(want));
		assert_string_equal(archive_entry_pathname(entry), want[n++]);
		if (!strcmp(archive_entry_pathname(entry), "init"))
			assert_int_equal(archive_entry_mode(entry), S_IFREG | 0755);
		if (!strcmp(archive_entry_pathname(entry), "dev/console"))
			assert_int_equal(archive_entry_rdev(entry), 5 << 8 | 1);
		if (!strcmp(archive_entry_pathname(entry), "config"))
			assert_int_equal(archive_read_data(a, config, sizeof(config)), 8);
	}
	assert_int_equal(n, ARRAY_SIZE(want));
	assert_memory_equal(config, "a=b\0c=d", 8);
	archive_read_free(a);
	close(g.initrd_fd);
	unlink("init");
	assert_true(duplicate_guest(&g, "", 0, false, &e) < 0);
	assert_true(strlen(e.text) > 0);
}

static void said_last(void **state)
{
	static const struct {
		const char *console, *words;
	} t[] = {
		{"", ""},
		{"\n\r\n ", ""},
		{"one\ntwo \r\n", "two"},
		{"a\x1b[2Jb", "a [2Jb"},
		{"[1] x\ndoppel-init: root: no\n[2] reboot: Power down\n", "root: no"},
		{"[0.5] Kernel panic - not syncing: sysrq triggered crash\n[0.5] CPU: 0\n", "kernel panic: sysrq triggered crash"},
		{"[1] BUG: kernel NULL pointer dereference, address: 0\n[1] Oops: 0002\n[1] RIP: 0010:f+0x1/0x2 [m]\n[1] RIP: 0033:0x7\n"
		 "[2] Kernel panic - not syncing: Fatal exception\n[2] Kernel Offset: disabled",
		 "kernel panic: Fatal exception; BUG: kernel NULL pointer dereference, address: 0; at f+0x1/0x2 [m]"},
		{"[3] Kernel panic - not syncing: \n[4] ", "kernel panic:"},
	};
	char console[512], out[200], tiny[8];

	for (u32 i = 0; i < ARRAY_SIZE(t); i++) {
		snprintf(console, sizeof(console), "%s", t[i].console);
		assert_string_equal(last_words(console, out, sizeof(out)), t[i].words);
		snprintf(console, sizeof(console), "%s", t[i].console);
		assert_memory_equal(last_words(console, tiny, sizeof(tiny)), t[i].words, MIN(strlen(t[i].words), (size_t)6));
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames), cmocka_unit_test(records), cmocka_unit_test(printing),
		TEST(applied), TEST(linked), TEST(contained), TEST(conflicts), TEST(initramfs),
		cmocka_unit_test(said_last),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
