/* What a guest that ended by itself said last on its console. */
#include "cli/last_words.h"
#include <stdio.h>
#include <string.h>
#include "base/base.h"

/* What follows the mark's last place, to the end of the line; NULL: not there. */
static char *last_line_with(char *text, const char *mark)
{
	char *found = NULL;

	for (char *p = text; (p = strstr(p, mark)); p += strlen(mark))
		found = p + strlen(mark);
	return found;
}

static int line_length(const char *line)
{
	return (int)strcspn(line, "\n");
}

/* arch/x86/mm/fault.c, kernel/panic.c, arch/x86/kernel/dumpstack.c: what an oops begins with */
static const char *const troubles[] = {"] BUG: ", "] Oops: ", "] invalid opcode: ", "] general protection fault", "] Out of memory: "};

static char *trouble_before(char *text, const char *panic, const char **mark)
{
	char *found = NULL;

	for (u32 i = 0; i < ARRAY_SIZE(troubles); i++) {
		char *p = strstr(text, troubles[i]);

		if (p && p < panic && (!found || p < found)) {
			found = p;
			*mark = troubles[i] + 2;
		}
	}
	return found;
}

static void tell_panic(char *text, char *panic, char *out, size_t n)
{
	const char *mark = NULL;
	char *trouble = trouble_before(text, panic, &mark), *at = strstr(trouble ? trouble : panic, "RIP: 0010:");
	int len = snprintf(out, n, "kernel panic: %.*s", line_length(panic), panic);

	if (trouble && len > 0 && (size_t)len < n)
		len += snprintf(out + len, n - (size_t)len, "; %.*s", line_length(trouble + 2), trouble + 2);
	if (at && len > 0 && (size_t)len < n)
		snprintf(out + len, n - (size_t)len, "; at %.*s", line_length(at + 10), at + 10);
}

const char *last_words(char *console, char *out, size_t n)
{
	char *panic = NULL, *gave_up = NULL, *last = NULL;
	size_t len = 0;

	for (char *p = console; *p; p++) /* nothing a terminal would obey */
		if (*p != '\n' && (*p < ' ' || *p == 0x7f))
			*p = ' ';
	for (len = strlen(console); len && (console[len - 1] == '\n' || console[len - 1] == ' '); len--)
		console[len - 1] = 0;
	panic = last_line_with(console, "Kernel panic - not syncing: ");
	gave_up = last_line_with(console, "doppel-init: ");
	last = strrchr(console, '\n');
	out[0] = 0;
	if (gave_up)
		snprintf(out, n, "%.*s", line_length(gave_up), gave_up);
	else if (panic)
		tell_panic(console, panic, out, n);
	else
		snprintf(out, n, "%s", last ? last + 1 : console);
	for (len = strlen(out); len && out[len - 1] == ' '; len--)
		out[len - 1] = 0;
	return out;
}
