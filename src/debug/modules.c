/* Modules. */
#include <elf.h>
#include <stdio.h>
#include <string.h>
#include "debug/kimage.h"
#include "debug/modules.h"

enum { MODULES_MAX = 512, MODULE_SIZE = 2048, SYMS_MAX = 20000, NAME_AT = 24, NAME_SIZE = 56, ORC_MAX = 200000,
       SYMS_ALL = 300000, ORC_TRIED = 4 << 20 /* in sum: what a malicious guest can make us do */ };

/* struct mod_kallsyms */
struct table {
	u64 symtab;
	u32 num, pad;
	u64 strtab, typetab;
};

struct module {
	u8 bytes[MODULE_SIZE];
	u64 n; /* of them */
	char name[NAME_SIZE];
};

static bool kernel_pointer(u64 p)
{
	return p >= 0xffff800000000000ull && p < ~0ull - (1 << 20);
}

static u64 word(const struct module *m, u64 at)
{
	u64 v = 0;

	memcpy(&v, m->bytes + at, 8);
	return v;
}

static bool read_module(const struct inspect *in, u64 list, struct module *m)
{
	m->n = inspect_read(in, list - 8, m->bytes, sizeof(m->bytes)) & ~7ull;
	if (m->n < NAME_AT + NAME_SIZE)
		return false;
	memcpy(m->name, m->bytes + NAME_AT, sizeof(m->name));
	for (u32 i = 0; i < sizeof(m->name); i++) {
		if (!m->name[i])
			return i;
		if (m->name[i] <= ' ' || m->name[i] > '~')
			return false;
	}
	return false;
}

/* Each module in turn; false at the end. *list: 0 at first. */
static bool next_module(const struct symbols *s, const struct inspect *in, u64 *list, u32 *n, struct module *m)
{
	u64 head = 0, next = 0;

	if (!symbols_find(s, "modules", &head) || (*n)++ == MODULES_MAX)
		return false;
	if (inspect_read(in, *list ? *list : head, &next, 8) != 8 || next == head || !kernel_pointer(next))
		return false;
	*list = next;
	return read_module(in, next, m);
}

/* The table that p leads to: it begins, as every symbol table, with a symbol of zeros. */
static bool table_at(const struct inspect *in, u64 p, struct table *t)
{
	static const Elf64_Sym zero;
	Elf64_Sym first;
	char c = 1;

	return kernel_pointer(p) && inspect_read(in, p, t, sizeof(*t)) == sizeof(*t) && kernel_pointer(t->symtab) &&
	       kernel_pointer(t->strtab) && kernel_pointer(t->typetab) && t->num > 1 && t->num <= SYMS_MAX &&
	       inspect_read(in, t->symtab, &first, sizeof(first)) == sizeof(first) && !memcmp(&first, &zero, sizeof(first)) &&
	       inspect_read(in, t->strtab, &c, 1) == 1 && !c;
}

static void add_symbols(struct symbols *s, const struct inspect *in, const struct module *m, const struct table *t, u32 *left)
{
	for (u32 i = 1; i < t->num && *left; i++, --*left) {
		char name[128], full[SYMBOL_NAME], type = '?';
		Elf64_Sym y;
		u64 n = 0;

		if (inspect_read(in, t->symtab + (u64)i * sizeof(y), &y, sizeof(y)) != sizeof(y))
			return;
		n = inspect_read(in, t->strtab + y.st_name, name, sizeof(name) - 1);
		name[n] = 0;
		inspect_read(in, t->typetab + i, &type, 1);
		if (!name[0] || y.st_value < KERNEL_LOWEST || y.st_shndx == SHN_UNDEF)
			continue;
		snprintf(full, sizeof(full), "%s[%s]", name, m->name);
		symbols_add(s, y.st_value, type, full, strlen(full));
	}
}

void modules_symbols(struct symbols *s, const struct inspect *in)
{
	struct module m;
	u64 list = 0;
	u32 n = 0, left = SYMS_ALL;

	while (left && next_module(s, in, &list, &n, &m)) {
		for (u64 at = NAME_AT + NAME_SIZE; at < m.n; at += 8) {
			struct table t;

			if (table_at(in, word(&m, at), &t)) {
				add_symbols(s, in, &m, &t, &left);
				break;
			}
		}
	}
}

/* struct mod_arch_specific: how many entries, their addresses, the entries. */
void modules_orc(const struct symbols *s, struct orc *o, const struct inspect *in)
{
	struct module m;
	u64 list = 0;
	u32 n = 0, left = ORC_TRIED;

	while (o && left && next_module(s, in, &list, &n, &m)) {
		for (u64 at = NAME_AT + NAME_SIZE; at + 24 <= m.n; at += 8) {
			u32 count = (u32)word(&m, at);

			if (count < 2 || count > MIN(left, (u32)ORC_MAX) || !kernel_pointer(word(&m, at + 8)) ||
			    !kernel_pointer(word(&m, at + 16)))
				continue;
			left -= count;
			if (orc_add(o, in, word(&m, at + 8), word(&m, at + 16), count))
				break;
		}
	}
}
