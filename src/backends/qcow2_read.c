/* Where the content of a guest range is: in this image, in one behind it, or nowhere (zeroes). */
#include <string.h>

#include "backends/qcow2_int.h"

int qcow2_find(struct qcow2_image *q, u64 off, u64 len, struct qcow2_source *s)
{
	for (; q && off < q->size; q = q->backing) {
		struct qcow2_extent x;
		len = MIN(len, q->size - off);
		if (q->raw) {
			*s = (struct qcow2_source){QCOW2_EXT_DATA, q, len, off, 0, off};
			return 0;
		}
		int r = qcow2_map(q, off, len, &x);
		if (r)
			return r;
		len = x.len;
		if (x.kind != QCOW2_EXT_HOLE) {
			*s = (struct qcow2_source){x.kind, q, len, x.host, x.entry, off};
			return 0;
		}
	}
	*s = (struct qcow2_source){.kind = QCOW2_EXT_ZERO, .len = len};
	return 0;
}

int qcow2_read_now(struct qcow2_image *q, u64 off, u8 *p, u64 len)
{
	int r = 0;
	while (len && !r) {
		struct qcow2_source s;
		const u8 *data;
		r = qcow2_find(q, off, len, &s);
		if (r)
			break;
		if (s.kind == QCOW2_EXT_ZERO) {
			memset(p, 0, s.len);
		} else if (s.kind == QCOW2_EXT_DATA) {
			r = disk_file_read(&s.image->file, s.host, p, s.len);
		} else {
			r = qcow2_unpack(s.image, s.entry, &data);
			if (!r)
				memcpy(p, data + qcow2_in_cluster(s.image, s.off), s.len);
		}
		off += s.len;
		p += s.len;
		len -= s.len;
	}
	return r;
}

unsigned qcow2_slice(const struct iovec *iov, unsigned n, u64 off, u64 len, struct iovec *out)
{
	unsigned k = 0;
	for (unsigned i = 0; i < n && len; i++) {
		u64 have = iov[i].iov_len;
		if (off >= have) {
			off -= have;
			continue;
		}
		u64 now = MIN(have - off, len);
		out[k++] = (struct iovec){(u8 *)iov[i].iov_base + off, now};
		len -= now;
		off = 0;
	}
	return k;
}
