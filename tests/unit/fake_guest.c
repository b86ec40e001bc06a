#include <sys/mman.h>
#include "fake_guest.h"

struct guestmem *machine_guestmem(struct machine *m)
{
	return &m->ram;
}

int fake_guest_init(struct machine *m, u64 memory)
{
	void *p = mmap(NULL, memory, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	*m = (struct machine){0};
	if (p == MAP_FAILED)
		return -ENOMEM;
	memmap_make(&m->map, memory);
	m->ram.nslots = 1;
	m->ram.slot[0].size = m->map.low;
	m->ram.slot[0].host = p;
	if (m->map.high) {
		m->ram.nslots = 2;
		m->ram.slot[1].gpa = MEM_4G;
		m->ram.slot[1].size = m->map.high;
		m->ram.slot[1].host = (u8 *)p + m->map.low;
	}
	return 0;
}

void fake_guest_free(struct machine *m)
{
	munmap(m->ram.slot[0].host, m->map.low + m->map.high);
}
