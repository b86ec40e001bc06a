/*
 * A terminal of 80 columns and 25 lines, fed with what a guest has printed, to know what a person would see: cursor movement, erasing,
 * scrolling regions (ECMA-48, DEC VT100); colours and modes are read and left alone. Its input is the guest's: anything.
 */
#ifndef DEBUG_SCREEN_H
#define DEBUG_SCREEN_H

#include <stddef.h>
#include "base/types.h"

enum { SCREEN_ROWS = 25, SCREEN_COLUMNS = 80, SCREEN_PARAMETERS = 8 };

struct screen {
	u32 cell[SCREEN_ROWS][SCREEN_COLUMNS]; /* Unicode; 0: never written */
	u32 row, column;
	bool wrap;                /* a character is in the last column: the next one goes to the next line */
	u32 top, bottom;          /* scrolling region, inclusive */
	u32 saved_row, saved_column;
	enum { SCREEN_TEXT, SCREEN_ESCAPE, SCREEN_CSI, SCREEN_STRING, SCREEN_STRING_ESCAPE, SCREEN_CHARSET } state;
	u32 parameter[SCREEN_PARAMETERS], nparameters;
	char prefix;              /* ? of private sequences */
	u32 utf8, utf8_left;
};

void screen_init(struct screen *s);
void screen_feed(struct screen *s, const u8 *p, size_t n);
/* A line as UTF-8 without blanks at its end. buf[4 * SCREEN_COLUMNS + 1]. */
void screen_line(const struct screen *s, u32 row, char *buf);

#endif
