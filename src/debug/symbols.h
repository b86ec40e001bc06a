/*
 * Names of addresses: a sorted table, filled from the guest kernel's own memory (kallsyms.c), from a file (symbols_file.c), or both.
 * Whatever it is filled from is hostile; names hold printable characters only.
 */
#ifndef DEBUG_SYMBOLS_H
#define DEBUG_SYMBOLS_H

#include "base/base.h"
#include "debug/inspect.h"

#define SYMBOL_NAME 256  /* room that any name has */
#define SYMBOL_TEXT 300  /* "name+0x12" */

struct symbols;
struct symbol {
	u64 addr;
	u32 name; /* offset */
	char type; /* as nm(1) has it */
};

struct symbols *symbols_new(void);
void symbols_free(struct symbols *s);

/* ---- filling ---- */
/* Both drop what does not fit (bounds, memory): a table is a help, not a promise. */
void symbols_add(struct symbols *s, u64 addr, char type, const char *name, size_t n);
void symbols_sort(struct symbols *s); /* afterwards it can be asked */
/* Those of a running Linux kernel, x86-64: from its kallsyms tables. -ENOENT: none found. */
int symbols_from_guest(struct symbols *s, const struct inspect *in, struct err *e);
/* An ELF file's .symtab, or the text of a System.map. slide is added to each address. -EINVAL: neither. */
int symbols_from_file(struct symbols *s, const void *data, size_t n, u64 slide);

/* ---- asking ---- */
u32 symbols_count(const struct symbols *s);
const struct symbol *symbols_at(const struct symbols *s, u32 i); /* by address */
const char *symbols_name(const struct symbols *s, const struct symbol *y);
/* The symbol that the address is in or behind; NULL: none near. */
const struct symbol *symbols_lookup(const struct symbols *s, u64 addr);
/* First address after y that has a symbol; y + 1 if it is the last. */
u64 symbols_end(const struct symbols *s, const struct symbol *y);
bool symbols_find(const struct symbols *s, const char *name, u64 *addr);
/* "name+0x12", or the address itself. Returns buf. */
const char *symbols_text(const struct symbols *s, u64 addr, char *buf, size_t n);

/* The table as an ELF file with .symtab that gdb loads: malloc'd. */
int symbols_elf(const struct symbols *s, void **data, size_t *n);

#endif
