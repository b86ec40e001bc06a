/* Stacks, frame by frame. */
#include "debug/kimage.h"
#include "debug/unwind.h"

enum { SCAN_WORDS = 512, FRAME_MAX = 64 << 10 };

struct walk {
	const struct unwinder *u;
	unsigned size; /* bytes of a word on the stack */
	u64 text, text_end; /* kernel code, if known */
	struct unwind_state st;
};

static bool word(const struct walk *w, u64 at, u64 *v)
{
	*v = 0;
	return inspect_read(w->u->in, at, v, w->size) == w->size;
}

/* Is the address one that a CALL may have left: is there one right before it? */
static bool behind_call(const struct walk *w, u64 pc)
{
	u8 b[7];

	if (w->text_end && (pc < w->text || pc >= w->text_end) && (pc < KERNEL_END || pc >= MODULES_END))
		return false;
	if (pc < sizeof(b) || inspect_read(w->u->in, pc - sizeof(b), b, sizeof(b)) != sizeof(b))
		return false;
	if (b[2] == 0xe8) /* relative */
		return true;
	/* FF /2 with ModRM alone, with 8 and with 32 bits of displacement; also with SIB */
	return (b[5] == 0xff && (b[6] & 0x38) == 0x10) || (b[4] == 0xff && (b[5] & 0x38) == 0x10) ||
	       (b[3] == 0xff && (b[4] & 0x38) == 0x10) || (b[1] == 0xff && (b[2] & 0x38) == 0x10) ||
	       (b[0] == 0xff && (b[1] & 0x38) == 0x10);
}

static bool by_frame_pointer(struct walk *w)
{
	u64 bp = w->st.bp, next = 0, pc = 0;

	if (bp < w->st.sp || bp - w->st.sp > FRAME_MAX || bp % w->size)
		return false;
	if (!word(w, bp, &next) || !word(w, bp + w->size, &pc) || !behind_call(w, pc))
		return false;
	w->st = (struct unwind_state){.pc = pc, .sp = bp + 2 * w->size, .bp = next};
	return true;
}

static bool by_search(struct walk *w)
{
	u64 at = ALIGN_UP(w->st.sp, w->size), pc = 0;

	for (u32 i = 0; i < SCAN_WORDS && word(w, at, &pc); i++, at += w->size) {
		if (behind_call(w, pc)) {
			w->st = (struct unwind_state){.pc = pc, .sp = at + w->size, .bp = w->st.bp};
			return true;
		}
	}
	return false;
}

/* On to the caller; false: there is none, or nobody knows. */
static bool step(struct walk *w, enum unwind_how *how)
{
	if (w->u->orc) {
		*how = UNWIND_ORC;
		switch (orc_step(w->u->orc, w->u->in, &w->st)) {
		case ORC_NEXT:
			return true;
		case ORC_END:
		case ORC_USER:
			return false;
		case ORC_UNKNOWN:
			break;
		}
	}
	*how = UNWIND_FP;
	if (by_frame_pointer(w))
		return true;
	*how = UNWIND_FOUND;
	return by_search(w);
}

u32 unwind(const struct unwinder *u, const struct kvm_regs *regs, struct unwind_frame *out, u32 max)
{
	const struct kvm_sregs *s = &u->in->s;
	struct walk w = {.u = u, .size = inspect_code_bits(s) / 8,
			 .st = {.pc = regs->rip, .sp = regs->rsp, .bp = regs->rbp, .exact = true, .have_regs = true, .regs = *regs}};
	enum unwind_how how = UNWIND_HERE;
	u32 n = 0;

	if (w.size != 8) {
		w.st.pc += s->cs.base;
		w.st.sp += s->ss.base;
	}
	if (!symbols_find(u->symbols, "_stext", &w.text) || !symbols_find(u->symbols, "_etext", &w.text_end))
		w.text = w.text_end = 0;
	while (n < max) {
		u64 sp = w.st.sp, pc = w.st.pc;

		out[n++] = (struct unwind_frame){.pc = w.st.pc, .sp = w.st.sp, .how = how};
		/* a step that leads nowhere would do so for ever */
		if (s->cs.selector & 3 || !step(&w, &how) || (w.st.sp == sp && w.st.pc == pc) || !w.st.pc)
			break;
	}
	return n;
}
