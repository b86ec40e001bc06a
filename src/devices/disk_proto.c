#include "devices/disk_proto.h"

u32 disk_msg_size(enum disk_msg_type t)
{
	static const struct disk_msg m;
	const u32 head = offsetof(struct disk_msg, open);

	switch (t) {
	case DISK_OPEN:
		return sizeof(m);
	case DISK_START:
		return head + sizeof(m.start);
	case DISK_RESET:
		return head + sizeof(m.drop);
	case DISK_READY:
		return head + sizeof(m.ready);
	case DISK_REFUSED:
		return head + sizeof(m.refused);
	case DISK_WRITTEN:
		return head + sizeof(m.written);
	default:
		return head;
	}
}
