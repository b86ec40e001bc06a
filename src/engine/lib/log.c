/* The engine's log: a printf subset of its own, because glibc's uses vector registers. One write per line. */
#include <stdarg.h>
#include <sys/syscall.h>
#include "engine/lib/lib.h"

#define LOG_FD  2
#define LOG_MAX 512

struct line {
	unsigned n;
	char s[LOG_MAX];
};

static void put(struct line *l, char c)
{
	if (l->n < LOG_MAX - 1)
		l->s[l->n++] = c;
}

static void put_str(struct line *l, const char *s, int width, bool left)
{
	int n = 0;

	if (!s)
		s = "(null)";
	while (s[n])
		n++;
	for (int i = n; !left && i < width; i++)
		put(l, ' ');
	for (int i = 0; i < n; i++)
		put(l, s[i]);
	for (int i = n; left && i < width; i++)
		put(l, ' ');
}

struct numfmt {
	int width;
	unsigned base;
	bool zero, left, upper, neg, alt;
};

static void put_num(struct line *l, u64 v, const struct numfmt *f)
{
	const char *digits = f->upper ? "0123456789ABCDEF" : "0123456789abcdef";
	char buf[24];
	int n = 0, len = 0;

	do {
		buf[n++] = digits[v % f->base];
		v /= f->base;
	} while (v);
	len = n + f->neg;
	for (int i = len; !f->left && !f->zero && i < f->width; i++)
		put(l, ' ');
	if (f->neg)
		put(l, '-');
	for (int i = len; !f->left && f->zero && i < f->width; i++)
		put(l, '0');
	while (n)
		put(l, buf[--n]);
	for (int i = len; f->left && i < f->width; i++)
		put(l, ' ');
}

/* longs: 0 int, 1 or 2 64-bit */
static u64 arg_signed(va_list *ap, int longs, bool *neg)
{
	s64 v = longs ? va_arg(*ap, long) : va_arg(*ap, int);

	*neg = v < 0;
	return *neg ? -(u64)v : (u64)v;
}

static u64 arg_unsigned(va_list *ap, int longs)
{
	return longs ? va_arg(*ap, unsigned long) : va_arg(*ap, unsigned);
}

static const char *put_conv(struct line *l, const char *p, va_list *ap)
{
	struct numfmt f = {.base = 10};
	int longs = 0;
	u64 v = 0;

	for (; *p == '0' || *p == '-' || *p == '#'; p++) {
		f.zero |= *p == '0';
		f.left |= *p == '-';
		f.alt |= *p == '#';
	}
	for (; *p >= '0' && *p <= '9'; p++)
		f.width = (f.width * 10 + *p - '0') % LOG_MAX;
	for (; *p == 'l' || *p == 'z' || *p == 'h'; p++)
		longs += *p != 'h';
	switch (*p) {
	case 'd':
	case 'i':
		v = arg_signed(ap, longs, &f.neg);
		put_num(l, v, &f);
		break;
	case 'X':
		f.upper = true;
		/* fallthrough */
	case 'x':
		f.base = 16;
		if (f.alt)
			put_str(l, "0x", 0, false);
		/* fallthrough */
	case 'u':
		put_num(l, arg_unsigned(ap, longs), &f);
		break;
	case 'p':
		f.base = 16;
		put_str(l, "0x", 0, false);
		put_num(l, (u64)va_arg(*ap, void *), &f);
		break;
	case 's':
		put_str(l, va_arg(*ap, const char *), f.width, f.left);
		break;
	case 'c':
		put(l, (char)va_arg(*ap, int));
		break;
	case '%':
		put(l, '%');
		break;
	default: /* end of the format */
		return p;
	}
	return p + 1;
}

static void log_line(const char *prefix, const char *fmt, va_list *ap)
{
	struct line l;

	l.n = 0;
	put_str(&l, prefix, 0, false);
	while (*fmt) {
		if (*fmt == '%')
			fmt = put_conv(&l, fmt + 1, ap);
		else
			put(&l, *fmt++);
	}
	if (!l.n || l.s[l.n - 1] != '\n')
		l.s[l.n++] = '\n';
	sys_call(SYS_write, LOG_FD, l.s, l.n);
}

void eng_log(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line("doppel-engine: ", fmt, &ap);
	va_end(ap);
}

void eng_panic(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line("doppel-engine: panic: ", fmt, &ap);
	va_end(ap);
	for (;;)
		sys_call(SYS_exit_group, 134);
}
