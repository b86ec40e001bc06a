/* Copying the guest kernel's image. */
#include <stdlib.h>
#include "debug/kimage.h"

/* How far it is to the next page that may be mapped. */
static u64 next_page(const struct inspect_walk *w)
{
	u64 size = MAX(w->page_size, 4096ull);

	if (w->end != WALK_MAPPED)
		size = w->nsteps ? BIT64(12 + 9 * (w->step[w->nsteps - 1].level - 1)) : 4096;
	return (w->linear & ~(size - 1)) + size;
}

/* Large pages that are partly beyond the window are cut. */
static u64 page_end(const struct inspect_walk *w, u64 limit)
{
	return MIN(next_page(w), limit);
}

static bool first_mapped(const struct inspect *in, u64 *at)
{
	while (*at >= KERNEL_LOWEST && *at < KERNEL_END) {
		struct inspect_walk w;

		inspect_walk(in, *at, &w);
		if (w.end == WALK_MAPPED)
			return true;
		*at = next_page(&w);
	}
	return false;
}

bool kimage_copy(const struct inspect *in, u64 from, struct kimage *out)
{
	u64 limit = 0;

	*out = (struct kimage){.base = from};
	if (!first_mapped(in, &out->base))
		return false;
	limit = MIN(out->base + KIMAGE_MAX, KERNEL_END);
	out->p = calloc(1, limit - out->base);
	if (!out->p)
		return false;
	for (u64 a = out->base; a < limit;) {
		struct inspect_walk w;
		u64 end = 0;

		inspect_walk(in, a, &w);
		end = page_end(&w, limit);
		if (w.end == WALK_MAPPED && inspect_read_physical(in->ram, w.gpa, out->p + (a - out->base), end - a))
			out->n = end - out->base;
		a = end;
	}
	return out->n;
}

void kimage_free(struct kimage *k)
{
	free(k->p);
	*k = (struct kimage){0};
}
