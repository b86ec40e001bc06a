/*
 * Compressed clusters (spec "Compressed Clusters Descriptor"): raw deflate or a zstd frame, read only. The
 * result has the size of a cluster, whatever the data says; zstd writes straight into it, so that the window a
 * frame asks for costs no memory.
 */
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "backends/qcow2_int.h"

enum { SECTOR = 512, WINDOW_BITS = 15 };

void qcow2_packed_place(const struct qcow2_image *q, u64 entry, u64 *host, u64 *bytes)
{
	u32 x = 62 - (q->h.cluster_bits - 8);
	*host = entry & ((1ull << x) - 1);
	u64 sectors = (entry & ~(QCOW2_COPIED | QCOW2_COMPRESSED)) >> x;
	*bytes = (sectors + 1) * SECTOR - (*host & (SECTOR - 1));
}

static bool inflate_cluster(const u8 *in, u64 n, u8 *out, u64 size)
{
	z_stream z = {.next_in = (u8 *)in, .avail_in = (uInt)n, .next_out = out, .avail_out = (uInt)size};
	if (inflateInit2(&z, -WINDOW_BITS) != Z_OK)
		return false;
	int r = inflate(&z, Z_FINISH);
	inflateEnd(&z);
	return (r == Z_STREAM_END || r == Z_BUF_ERROR) && !z.avail_out;
}

/* Behind the frame there may be anything, up to the end of its last sector. */
static bool unzstd_cluster(const u8 *in, u64 n, u8 *out, u64 size)
{
	size_t frame = ZSTD_findFrameCompressedSize(in, n);
	if (ZSTD_isError(frame))
		return false;
	return ZSTD_decompress(out, size, in, frame) == size;
}

int qcow2_unpack(struct qcow2_image *q, u64 entry, const u8 **data)
{
	u64 host, bytes;
	*data = q->unzipped;
	if (q->unzipped_entry == entry)
		return 0;
	qcow2_packed_place(q, entry, &host, &bytes);
	if (bytes > 2 * q->cluster || host >= q->end)
		return qcow2_damaged(q, "a compressed cluster lies outside the file");
	q->unzipped_entry = 0;
	int r = disk_file_read(&q->file, host, q->zipped, bytes);
	if (r)
		return r;
	bool ok = q->h.compression == QCOW2_ZSTD ? unzstd_cluster(q->zipped, bytes, q->unzipped, q->cluster)
						  : inflate_cluster(q->zipped, bytes, q->unzipped, q->cluster);
	if (!ok)
		return qcow2_damaged(q, "a compressed cluster does not unpack");
	q->unzipped_entry = entry;
	return 0;
}
