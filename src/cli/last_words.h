/* What a guest that ended by itself said last on its console. */
#ifndef CLI_LAST_WORDS_H
#define CLI_LAST_WORDS_H

#include <stddef.h>

/*
 * Why it ended, in one line: of a panic the kernel's reason, what was wrong before it, and where; else what init gave up for; else the
 * last line. Writes to console (ended by NUL, the guest's: hostile). The result lies in out and is safe for a terminal; may be empty.
 */
const char *last_words(char *console, char *out, size_t n);

#endif
