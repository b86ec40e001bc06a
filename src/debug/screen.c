/* A small VT100. */
#include <string.h>
#include "debug/screen.h"

void screen_init(struct screen *s)
{
	*s = (struct screen){.bottom = SCREEN_ROWS - 1};
}

static void clear(struct screen *s, u32 row, u32 from, u32 to)
{
	for (u32 i = from; i < to; i++)
		s->cell[row][i] = 0;
}

/* Lines [first, last] move up by n (down if n < 0); empty ones come in. */
static void scroll(struct screen *s, u32 first, u32 last, s32 n)
{
	u32 size = last - first + 1, by = MIN((u32)(n < 0 ? -n : n), size);

	if (n > 0)
		memmove(s->cell[first], s->cell[first + by], (size - by) * sizeof(s->cell[0]));
	else
		memmove(s->cell[first + by], s->cell[first], (size - by) * sizeof(s->cell[0]));
	for (u32 i = 0; i < by; i++)
		clear(s, n > 0 ? last - i : first + i, 0, SCREEN_COLUMNS);
}

static void line_feed(struct screen *s)
{
	s->wrap = false;
	if (s->row == s->bottom)
		scroll(s, s->top, s->bottom, 1);
	else if (s->row + 1 < SCREEN_ROWS)
		s->row++;
}

static void reverse_feed(struct screen *s)
{
	s->wrap = false;
	if (s->row == s->top)
		scroll(s, s->top, s->bottom, -1);
	else if (s->row)
		s->row--;
}

static void put(struct screen *s, u32 c)
{
	if (s->wrap) {
		s->column = 0;
		line_feed(s);
	}
	s->cell[s->row][s->column] = c;
	s->wrap = s->column + 1 == SCREEN_COLUMNS;
	s->column += !s->wrap;
}

static void move_to(struct screen *s, s64 row, s64 column)
{
	s->row = (u32)MIN(MAX(row, (s64)0), (s64)SCREEN_ROWS - 1);
	s->column = (u32)MIN(MAX(column, (s64)0), (s64)SCREEN_COLUMNS - 1);
	s->wrap = false;
}

/* ---- control sequences ---- */
static u32 parameter(const struct screen *s, u32 n, u32 otherwise)
{
	return n < s->nparameters && s->parameter[n] ? s->parameter[n] : otherwise;
}

static void erase_display(struct screen *s, u32 what)
{
	if (what == 0)
		clear(s, s->row, s->column, SCREEN_COLUMNS);
	else if (what == 1)
		clear(s, s->row, 0, s->column + 1);
	for (u32 i = 0; i < SCREEN_ROWS && what <= 3; i++)
		if ((what == 0 && i > s->row) || (what == 1 && i < s->row) || what >= 2)
			clear(s, i, 0, SCREEN_COLUMNS);
}

static void erase_line(struct screen *s, u32 what)
{
	if (what <= 2)
		clear(s, s->row, what == 0 ? s->column : 0, what == 1 ? s->column + 1 : SCREEN_COLUMNS);
}

static void insert_characters(struct screen *s, u32 n)
{
	u32 *line = s->cell[s->row];

	n = MIN(n, SCREEN_COLUMNS - s->column);
	memmove(line + s->column + n, line + s->column, (SCREEN_COLUMNS - s->column - n) * sizeof(*line));
	clear(s, s->row, s->column, s->column + n);
}

static void delete_characters(struct screen *s, u32 n)
{
	u32 *line = s->cell[s->row];

	n = MIN(n, SCREEN_COLUMNS - s->column);
	memmove(line + s->column, line + s->column + n, (SCREEN_COLUMNS - s->column - n) * sizeof(*line));
	clear(s, s->row, SCREEN_COLUMNS - n, SCREEN_COLUMNS);
}

static void set_region(struct screen *s)
{
	u32 top = parameter(s, 0, 1), bottom = MIN(parameter(s, 1, SCREEN_ROWS), (u32)SCREEN_ROWS);

	if (top >= bottom)
		return;
	s->top = top - 1;
	s->bottom = bottom - 1;
	move_to(s, 0, 0);
}

static void save(struct screen *s)
{
	s->saved_row = s->row;
	s->saved_column = s->column;
}

static void sequence(struct screen *s, char final)
{
	u32 n = parameter(s, 0, 1), zero = parameter(s, 0, 0);
	s64 row = s->row, column = s->column;

	switch (final) {
	case 'A': move_to(s, row - n, column); break;
	case 'B': case 'e': move_to(s, row + n, column); break;
	case 'C': case 'a': move_to(s, row, column + n); break;
	case 'D': move_to(s, row, column - n); break;
	case 'E': move_to(s, row + n, 0); break;
	case 'F': move_to(s, row - n, 0); break;
	case 'G': case '`': move_to(s, row, (s64)n - 1); break;
	case 'd': move_to(s, (s64)n - 1, column); break;
	case 'H': case 'f': move_to(s, (s64)n - 1, (s64)parameter(s, 1, 1) - 1); break;
	case 'J': erase_display(s, zero); break;
	case 'K': erase_line(s, zero); break;
	case 'X': clear(s, s->row, s->column, s->column + MIN(n, SCREEN_COLUMNS - s->column)); break;
	case '@': insert_characters(s, n); break;
	case 'P': delete_characters(s, n); break;
	case 'L': case 'M':
		if (s->row >= s->top && s->row <= s->bottom)
			scroll(s, s->row, s->bottom, final == 'L' ? -(s32)MIN(n, 100u) : (s32)MIN(n, 100u));
		break;
	case 'S': scroll(s, s->top, s->bottom, (s32)MIN(n, 100u)); break;
	case 'T': scroll(s, s->top, s->bottom, -(s32)MIN(n, 100u)); break;
	case 'r': set_region(s); break;
	case 's': save(s); break;
	case 'u': move_to(s, s->saved_row, s->saved_column); break;
	}
}

static void csi_byte(struct screen *s, u8 b)
{
	if (b >= '0' && b <= '9') {
		u32 *p = &s->parameter[s->nparameters ? s->nparameters - 1 : 0];

		s->nparameters = MAX(s->nparameters, 1u);
		*p = MIN(*p * 10 + (b - '0'), 9999u);
	} else if (b == ';' || b == ':') {
		s->nparameters = MAX(s->nparameters, 1u);
		if (s->nparameters < SCREEN_PARAMETERS)
			s->parameter[s->nparameters++] = 0;
	} else if (b >= '<' && b <= '?') {
		s->prefix = (char)b;
	} else if (b >= 0x40 && b <= 0x7e) {
		s->state = SCREEN_TEXT;
		if (!s->prefix)
			sequence(s, (char)b);
	}
}

static void escape_byte(struct screen *s, u8 b)
{
	s->state = SCREEN_TEXT;
	switch (b) {
	case '[':
		s->state = SCREEN_CSI;
		memset(s->parameter, 0, sizeof(s->parameter));
		s->nparameters = 0;
		s->prefix = 0;
		break;
	case ']': case 'P': case 'X': case '^': case '_':
		s->state = SCREEN_STRING;
		break;
	case '(': case ')': case '*': case '+': case '#': case '%': case ' ':
		s->state = SCREEN_CHARSET;
		break;
	case 'D': line_feed(s); break;
	case 'E': s->column = 0; line_feed(s); break;
	case 'M': reverse_feed(s); break;
	case '7': save(s); break;
	case '8': move_to(s, s->saved_row, s->saved_column); break;
	case 'c': screen_init(s); break;
	}
}

static void control(struct screen *s, u8 b)
{
	switch (b) {
	case '\b':
		s->column -= s->column > 0;
		s->wrap = false;
		break;
	case '\t':
		move_to(s, s->row, (s->column | 7) + 1);
		break;
	case '\n': case '\v': case '\f':
		line_feed(s);
		break;
	case '\r':
		s->column = 0;
		s->wrap = false;
		break;
	case 0x1b:
		s->state = SCREEN_ESCAPE;
		break;
	case 0x18: case 0x1a:
		s->state = SCREEN_TEXT;
		break;
	}
}

static void text_byte(struct screen *s, u8 b)
{
	if (b < 0x80) {
		s->utf8_left = 0;
		if (b != 0x7f)
			put(s, b);
	} else if (b < 0xc0) {
		if (!s->utf8_left)
			return;
		s->utf8 = s->utf8 << 6 | (b & 0x3f);
		if (!--s->utf8_left && s->utf8 >= 0xa0 && s->utf8 < 0x110000)
			put(s, s->utf8);
	} else {
		s->utf8_left = b >= 0xf0 ? 3 : b >= 0xe0 ? 2 : 1;
		s->utf8 = b & (b >= 0xf0 ? 7 : b >= 0xe0 ? 15 : 31);
	}
}

static void byte(struct screen *s, u8 b)
{
	if (s->state == SCREEN_STRING || s->state == SCREEN_STRING_ESCAPE) { /* titles and the like, up to BEL or ESC \ */
		if (b == 7 || (s->state == SCREEN_STRING_ESCAPE && b == '\\') || b == 0x18)
			s->state = SCREEN_TEXT;
		else
			s->state = b == 0x1b ? SCREEN_STRING_ESCAPE : SCREEN_STRING;
	} else if (b < 0x20) {
		control(s, b);
	} else if (s->state == SCREEN_ESCAPE) {
		escape_byte(s, b);
	} else if (s->state == SCREEN_CSI) {
		csi_byte(s, b);
	} else if (s->state == SCREEN_CHARSET) {
		s->state = SCREEN_TEXT;
	} else {
		text_byte(s, b);
	}
}

void screen_feed(struct screen *s, const u8 *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		byte(s, p[i]);
}

static char *put_utf8(char *to, u32 c)
{
	if (c < 0x80) {
		*to++ = (char)c;
	} else if (c < 0x800) {
		*to++ = (char)(0xc0 | c >> 6);
		*to++ = (char)(0x80 | (c & 0x3f));
	} else if (c < 0x10000) {
		*to++ = (char)(0xe0 | c >> 12);
		*to++ = (char)(0x80 | (c >> 6 & 0x3f));
		*to++ = (char)(0x80 | (c & 0x3f));
	} else {
		*to++ = (char)(0xf0 | c >> 18);
		*to++ = (char)(0x80 | (c >> 12 & 0x3f));
		*to++ = (char)(0x80 | (c >> 6 & 0x3f));
		*to++ = (char)(0x80 | (c & 0x3f));
	}
	return to;
}

void screen_line(const struct screen *s, u32 row, char *buf)
{
	u32 n = SCREEN_COLUMNS;

	while (n && (s->cell[row][n - 1] == 0 || s->cell[row][n - 1] == ' '))
		n--;
	for (u32 i = 0; i < n; i++)
		buf = put_utf8(buf, s->cell[row][i] ? s->cell[row][i] : ' ');
	*buf = 0;
}
