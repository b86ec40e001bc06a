/* Sizes, whole-file reads, writes that finish. */
#include <ctype.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/base.h"
#include "base/file.h"

int parse_size(const char *s, u64 *out)
{
	static const char units[] = "kmgtp";
	char *end = NULL;
	u64 v = 0;
	unsigned shift = 0;

	if (!isdigit((unsigned char)*s))
		return -EINVAL;
	errno = 0;
	v = strtoull(s, &end, 10);
	if (errno == ERANGE)
		return -ERANGE;
	if (*end) {
		const char *u = strchr(units, tolower((unsigned char)*end));

		if (u && *u) {
			shift = 10 * (unsigned)(u - units + 1);
			end++;
			if (end[0] == 'i' && (end[1] == 'B' || end[1] == 'b'))
				end++;
		}
		if (*end == 'B' || *end == 'b')
			end++;
	}
	if (*end)
		return -EINVAL;
	if (v > (UINT64_MAX >> shift))
		return -ERANGE;
	*out = v << shift;
	return 0;
}

int read_fd(int fd, u64 max, void **data, u64 *size)
{
	struct stat st;
	u64 cap = 0, n = 0;
	u8 *buf = NULL;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	if (S_ISREG(st.st_mode) && (u64)st.st_size > max)
		return -EFBIG;
	cap = S_ISREG(st.st_mode) ? (u64)st.st_size + 1 : 65536;
	buf = malloc(cap);
	if (!buf)
		return -ENOMEM;
	for (;;) {
		ssize_t r = S_ISREG(st.st_mode) ? pread(fd, buf + n, cap - n, (off_t)n) : read(fd, buf + n, cap - n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0) {
			int e = errno;

			free(buf);
			return -e;
		}
		if (!r)
			break;
		n += (u64)r;
		if (n > max) {
			free(buf);
			return -EFBIG;
		}
		if (n == cap) {
			u8 *bigger = realloc(buf, cap * 2);

			if (!bigger) {
				free(buf);
				return -ENOMEM;
			}
			buf = bigger;
			cap *= 2;
		}
	}
	*data = buf;
	*size = n;
	return 0;
}

int read_file(const char *path, u64 max, void **data, u64 *size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int ret = 0;

	if (fd < 0)
		return -errno;
	ret = read_fd(fd, max, data, size);
	close(fd);
	return ret;
}

int write_all(int fd, const void *p, u64 n)
{
	const u8 *at = p;

	while (n) {
		ssize_t r = write(fd, at, n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		at += r;
		n -= (u64)r;
	}
	return 0;
}

int read_all(int fd, void *p, u64 n)
{
	u8 *at = p;

	while (n) {
		ssize_t r = read(fd, at, n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (!r)
			return -EIO;
		at += r;
		n -= (u64)r;
	}
	return 0;
}
