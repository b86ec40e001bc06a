/* Translated blocks as text, for --dump translate=PC. */
#ifndef ENGINE_TRANSLATE_DUMP_H
#define ENGINE_TRANSLATE_DUMP_H

#include "base/types.h"

/* All blocks with code of that guest physical address, which is pc to the guest: at most room bytes of the text from skip on. Returns how
 * many; 0: no more. */
u32 tr_dump(gpa_t gpa, u64 pc, u32 skip, char *text, u32 room);

#endif
