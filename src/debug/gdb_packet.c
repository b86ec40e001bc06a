/* Packets: $data#checksum, escapes, acknowledgements, Ctrl-C (GDB manual E.1). */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include "base/base.h"
#include "debug/gdb_int.h"

static const char digits[] = "0123456789abcdef";

/* ---- output ---- */
static void out_bytes(struct gdb *g, const char *p, size_t n)
{
	if (g->close_wanted)
		return;
	if (g->nout + n > g->out_cap) {
		size_t cap = MAX(2 * g->out_cap, g->nout + n);
		char *bigger = cap <= GDB_OUTPUT_MAX ? realloc(g->out, cap) : NULL;

		if (!bigger) {
			g->close_wanted = true;
			g->nout = 0;
			return;
		}
		g->out = bigger;
		g->out_cap = cap;
	}
	memcpy(g->out + g->nout, p, n);
	g->nout += n;
}

const char *gdb_output(const struct gdb *g, size_t *n)
{
	*n = g->nout;
	return g->out;
}

void gdb_output_taken(struct gdb *g, size_t n)
{
	n = MIN(n, g->nout);
	memmove(g->out, g->out + n, g->nout - n);
	g->nout -= n;
}

bool gdb_wants_close(const struct gdb *g)
{
	return g->close_wanted;
}

static void send_packet(struct gdb *g, const char *p, size_t n)
{
	u8 sum = 0;

	g->last[0] = '$';
	memcpy(g->last + 1, p, n);
	for (size_t i = 0; i < n; i++)
		sum += (u8)p[i];
	g->last[n + 1] = '#';
	g->last[n + 2] = digits[sum >> 4];
	g->last[n + 3] = digits[sum & 15];
	g->last_len = n + 4;
	out_bytes(g, g->last, g->last_len);
}

void reply_reset(struct gdb *g)
{
	g->nreply = 0;
}

void reply_text(struct gdb *g, const char *fmt, ...)
{
	size_t room = sizeof(g->reply) - g->nreply;
	va_list ap;
	int n = 0;

	va_start(ap, fmt);
	n = vsnprintf(g->reply + g->nreply, room, fmt, ap);
	va_end(ap);
	if (n > 0)
		g->nreply += MIN((size_t)n, room - 1);
}

void reply_hex(struct gdb *g, const void *p, size_t n)
{
	const u8 *b = p;

	for (size_t i = 0; i < n && g->nreply + 2 <= sizeof(g->reply); i++) {
		g->reply[g->nreply++] = digits[b[i] >> 4];
		g->reply[g->nreply++] = digits[b[i] & 15];
	}
}

void reply_binary(struct gdb *g, const void *p, size_t n)
{
	const char *b = p;

	for (size_t i = 0; i < n && g->nreply + 2 <= sizeof(g->reply); i++) {
		bool escape = b[i] == '#' || b[i] == '$' || b[i] == '}' || b[i] == '*';

		if (escape)
			g->reply[g->nreply++] = '}';
		g->reply[g->nreply++] = escape ? (char)(b[i] ^ 0x20) : b[i];
	}
}

void reply_send(struct gdb *g)
{
	send_packet(g, g->reply, g->nreply);
	g->nreply = 0;
}

void reply_console(struct gdb *g, const char *text, size_t n)
{
	enum { PIECE = 1000 };

	for (size_t at = 0; at < n; at += PIECE) {
		g->nreply = 0;
		reply_text(g, "O");
		reply_hex(g, text + at, MIN(n - at, (size_t)PIECE));
		reply_send(g);
	}
}

/* ---- input ---- */
static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static void complete(struct gdb *g)
{
	bool good = g->sum == g->sent_sum;

	if (!g->no_ack)
		out_bytes(g, good ? "+" : "-", 1);
	if (!good)
		return;
	reply_reset(g);
	if (g->too_long) {
		reply_text(g, "E01");
		reply_send(g);
		return;
	}
	g->in[g->nin] = 0;
	gdb_packet(g, (const char *)g->in, g->nin);
}

static void data_byte(struct gdb *g, u8 b)
{
	if (g->nin == GDB_PACKET_MAX)
		g->too_long = true;
	else
		g->in[g->nin++] = b;
}

static void idle_byte(struct gdb *g, u8 b)
{
	switch (b) {
	case '$':
		g->state = IN_DATA;
		g->nin = 0;
		g->sum = 0;
		g->too_long = false;
		break;
	case '-':
		out_bytes(g, g->last, g->last_len);
		break;
	case 3:
		gdb_interrupt(g);
		break;
	}
}

static void input_byte(struct gdb *g, u8 b)
{
	switch (g->state) {
	case IN_IDLE:
		idle_byte(g, b);
		return;
	case IN_DATA:
	case IN_ESCAPE:
		if (b == '#') {
			g->state = IN_SUM1;
			return;
		}
		g->sum += b;
		if (g->state == IN_DATA && b == '}') {
			g->state = IN_ESCAPE;
			return;
		}
		data_byte(g, g->state == IN_ESCAPE ? b ^ 0x20 : b);
		g->state = IN_DATA;
		return;
	case IN_SUM1:
		g->sent_sum = (u8)((hex_value((char)b) & 15) << 4);
		g->state = IN_SUM2;
		return;
	case IN_SUM2:
		g->sent_sum |= (u8)(hex_value((char)b) & 15);
		g->state = IN_IDLE;
		complete(g);
		return;
	}
}

void gdb_input(struct gdb *g, const u8 *p, size_t n)
{
	for (size_t i = 0; i < n && g->connected && !g->close_wanted; i++)
		input_byte(g, p[i]);
}

/* ---- reading packets ---- */
bool scan_char(struct scan *s, char c)
{
	if (s->p == s->end || *s->p != c)
		return false;
	s->p++;
	return true;
}

bool scan_word(struct scan *s, const char *word)
{
	size_t n = strlen(word);

	if ((size_t)(s->end - s->p) < n || memcmp(s->p, word, n) != 0)
		return false;
	s->p += n;
	return true;
}

bool scan_hex(struct scan *s, u64 *v)
{
	const char *from = s->p;

	*v = 0;
	while (s->p < s->end && hex_value(*s->p) >= 0) {
		if (*v >> 60)
			return false;
		*v = *v << 4 | (u64)hex_value(*s->p++);
	}
	return s->p > from;
}

bool scan_bytes(struct scan *s, u8 *buf, size_t n)
{
	if ((size_t)(s->end - s->p) / 2 < n)
		return false;
	for (size_t i = 0; i < n; i++, s->p += 2) {
		int hi = hex_value(s->p[0]), lo = hex_value(s->p[1]);

		if (hi < 0 || lo < 0)
			return false;
		buf[i] = (u8)(hi << 4 | lo);
	}
	return true;
}

static bool signed_hex(struct scan *s, s64 *v)
{
	bool negative = scan_char(s, '-');
	u64 u = 0;

	if (!scan_hex(s, &u) || u > INT32_MAX)
		return false;
	*v = negative ? -(s64)u : (s64)u;
	return true;
}

bool scan_thread(struct scan *s, s64 *id)
{
	s64 process = 0;

	if (!scan_char(s, 'p'))
		return signed_hex(s, id);
	if (!signed_hex(s, &process))
		return false;
	*id = -1;
	return scan_char(s, '.') ? signed_hex(s, id) : true;
}
