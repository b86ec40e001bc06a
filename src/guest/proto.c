#include "guest/proto.h"

void put_u32(uint8_t *p, uint32_t v)
{
	for (unsigned i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

uint32_t get_u32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

long frame_parse(const void *p, size_t n, struct frame *f)
{
	if (n < FRAME_HEADER)
		return 0;
	*f = (struct frame){.type = get_u32(p), .n = get_u32((const uint8_t *)p + 4), .p = (const uint8_t *)p + FRAME_HEADER};
	if (f->n > FRAME_MAX)
		return -1;
	return n < FRAME_HEADER + (size_t)f->n ? 0 : FRAME_HEADER + (long)f->n;
}

void frame_header(uint8_t out[FRAME_HEADER], uint32_t type, uint32_t n)
{
	put_u32(out, type);
	put_u32(out + 4, n);
}

uint32_t frame_u32(const struct frame *f, unsigned i)
{
	return 4 * ((size_t)i + 1) <= f->n ? get_u32(f->p + 4 * (size_t)i) : 0;
}
