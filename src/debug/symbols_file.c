/* Symbols of files: ELF and System.map in, ELF out. */
#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include "debug/symbols.h"

/* ---- ELF in ---- */
struct bytes {
	const u8 *p;
	size_t n;
};

static bool within(const struct bytes *b, u64 off, u64 n)
{
	return range_within(off, n, b->n);
}

static char nm_type(unsigned info, unsigned shndx, u64 flags)
{
	char c = 'D';

	if (shndx == SHN_ABS)
		c = 'A';
	else if (flags & SHF_EXECINSTR)
		c = 'T';
	else if (!(flags & SHF_WRITE))
		c = 'R';
	return info >> 4 == STB_LOCAL ? (char)(c + ('a' - 'A')) : c;
}

static void add_symbol(struct symbols *s, const struct bytes *str, u32 name, u64 addr, char type)
{
	if (name < str->n)
		symbols_add(s, addr, type, (const char *)str->p + name, strnlen((const char *)str->p + name, str->n - name));
}

/* What is asked of a section header and of a symbol, of either class. */
struct section {
	u32 type, link;
	u64 flags, offset, size;
};
struct entry {
	u32 name;
	u8 info;
	u16 shndx;
	u64 value;
};

static bool get_section(const struct bytes *b, u64 i, struct section *out)
{
	Elf64_Ehdr h;
	Elf32_Ehdr h32;
	Elf64_Shdr s;
	Elf32_Shdr s32;

	if (b->p[EI_CLASS] == ELFCLASS64) {
		if (b->n < sizeof(h))
			return false;
		memcpy(&h, b->p, sizeof(h));
		if (i >= h.e_shnum || h.e_shentsize != sizeof(s) || !within(b, h.e_shoff, (i + 1) * sizeof(s)))
			return false;
		memcpy(&s, b->p + h.e_shoff + i * sizeof(s), sizeof(s));
		*out = (struct section){s.sh_type, s.sh_link, s.sh_flags, s.sh_offset, s.sh_size};
	} else {
		if (b->n < sizeof(h32))
			return false;
		memcpy(&h32, b->p, sizeof(h32));
		if (i >= h32.e_shnum || h32.e_shentsize != sizeof(s32) || !within(b, h32.e_shoff, (i + 1) * sizeof(s32)))
			return false;
		memcpy(&s32, b->p + h32.e_shoff + i * sizeof(s32), sizeof(s32));
		*out = (struct section){s32.sh_type, s32.sh_link, s32.sh_flags, s32.sh_offset, s32.sh_size};
	}
	return true;
}

/* The caller has found the whole table to be within the file. */
static struct entry get_entry(const struct bytes *b, u64 table, u64 k)
{
	Elf64_Sym y;
	Elf32_Sym y32;

	if (b->p[EI_CLASS] == ELFCLASS64) {
		memcpy(&y, b->p + table + k * sizeof(y), sizeof(y));
		return (struct entry){y.st_name, y.st_info, y.st_shndx, y.st_value};
	}
	memcpy(&y32, b->p + table + k * sizeof(y32), sizeof(y32));
	return (struct entry){y32.st_name, y32.st_info, y32.st_shndx, y32.st_value};
}

static int from_elf(struct symbols *s, const struct bytes *b, u64 slide)
{
	u64 size = b->p[EI_CLASS] == ELFCLASS64 ? sizeof(Elf64_Sym) : sizeof(Elf32_Sym);
	struct section table, strings, of;
	struct bytes str;
	u64 i = 0;

	while (get_section(b, i, &table) && table.type != SHT_SYMTAB)
		i++;
	if (!get_section(b, i, &table) || !get_section(b, table.link, &strings) || !within(b, table.offset, table.size) ||
	    !within(b, strings.offset, strings.size))
		return -EINVAL;
	str = (struct bytes){b->p + strings.offset, strings.size};
	for (u64 k = 0; k < table.size / size; k++) {
		struct entry y = get_entry(b, table.offset, k);

		if ((y.info & 15) == STT_FILE || (y.info & 15) == STT_SECTION || y.shndx == SHN_UNDEF)
			continue;
		of.flags = 0;
		get_section(b, y.shndx, &of);
		add_symbol(s, &str, y.name, y.value + slide, nm_type(y.info, y.shndx, of.flags));
	}
	return 0;
}

/* ---- System.map: lines "ffffffff81000000 T _text" ---- */
static int from_map(struct symbols *s, const struct bytes *b, u64 slide)
{
	const char *p = (const char *)b->p, *end = p + b->n;
	u32 before = symbols_count(s);

	while (p < end) {
		const char *name = NULL, *line = p, *stop = memchr(p, '\n', (size_t)(end - p));
		u64 addr = 0;
		size_t n = 0;
		int digits = 0;

		stop = stop ? stop : end;
		p = stop + 1;
		for (; line < stop && digits < 16; line++, digits++) {
			char c = *line;
			int v = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;

			if (v < 0)
				break;
			addr = addr << 4 | (unsigned)v;
		}
		if (digits < 8 || stop - line < 4 || line[0] != ' ' || line[2] != ' ')
			return -EINVAL;
		name = line + 3;
		for (n = 0; name + n < stop && name[n] > ' '; n++)
			;
		symbols_add(s, addr + slide, line[1], name, n);
	}
	return symbols_count(s) > before ? 0 : -EINVAL;
}

int symbols_from_file(struct symbols *s, const void *data, size_t n, u64 slide)
{
	struct bytes b = {data, n};

	if (n < EI_NIDENT || memcmp(data, ELFMAG, SELFMAG) != 0)
		return from_map(s, &b, slide);
	if (b.p[EI_DATA] != ELFDATA2LSB)
		return -EINVAL;
	return from_elf(s, &b, slide);
}

/* ---- ELF out: header, section names, strings, symbols, section headers ---- */
/* .text is what gdb needs to take the symbols for code: as long as they reach, with nothing in it. */
enum { S_NULL, S_TEXT, S_SYMTAB, S_STRTAB, S_SHSTRTAB, S_COUNT };
static const char section_names[] = "\0.text\0.symtab\0.strtab\0.shstrtab";

struct layout {
	Elf64_Ehdr h;
	Elf64_Shdr sh[S_COUNT];
	char names[ALIGN_UP(sizeof(section_names), 8)];
};

static bool is_code(const struct symbol *y)
{
	return y->type == 'T' || y->type == 't' || y->type == 'W' || y->type == 'w';
}

static void lay_out(const struct symbols *s, struct layout *l, size_t nstr)
{
	u64 lo = ~0ull, hi = 0, at = sizeof(*l);

	for (u32 i = 0; i < symbols_count(s); i++) {
		const struct symbol *y = symbols_at(s, i);

		if (is_code(y)) {
			lo = MIN(lo, y->addr);
			hi = MAX(hi, symbols_end(s, y));
		}
	}
	l->h = (Elf64_Ehdr){.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT}, .e_type = ET_EXEC,
			    .e_machine = EM_X86_64, .e_version = EV_CURRENT, .e_ehsize = sizeof(l->h),
			    .e_shoff = offsetof(struct layout, sh), .e_shentsize = sizeof(Elf64_Shdr), .e_shnum = S_COUNT,
			    .e_shstrndx = S_SHSTRTAB};
	memcpy(l->names, section_names, sizeof(section_names));
	l->sh[S_TEXT] = (Elf64_Shdr){.sh_name = 1, .sh_type = SHT_NOBITS, .sh_flags = SHF_ALLOC | SHF_EXECINSTR,
				     .sh_addr = lo <= hi ? lo : 0, .sh_size = lo <= hi ? hi - lo : 0, .sh_addralign = 1};
	l->sh[S_SYMTAB] = (Elf64_Shdr){.sh_name = 7, .sh_type = SHT_SYMTAB, .sh_offset = at, .sh_link = S_STRTAB, .sh_info = 1,
				       .sh_size = (symbols_count(s) + 1ull) * sizeof(Elf64_Sym), .sh_addralign = 8,
				       .sh_entsize = sizeof(Elf64_Sym)};
	at += l->sh[S_SYMTAB].sh_size;
	l->sh[S_STRTAB] = (Elf64_Shdr){.sh_name = 15, .sh_type = SHT_STRTAB, .sh_offset = at, .sh_size = nstr, .sh_addralign = 1};
	l->sh[S_SHSTRTAB] = (Elf64_Shdr){.sh_name = 23, .sh_type = SHT_STRTAB, .sh_offset = offsetof(struct layout, names),
					 .sh_size = sizeof(section_names), .sh_addralign = 1};
}

int symbols_elf(const struct symbols *s, void **data, size_t *n)
{
	struct layout l = {0};
	Elf64_Sym *sym = NULL;
	size_t nstr = 1, at = 1;
	char *str = NULL;
	u8 *out = NULL;

	for (u32 i = 0; i < symbols_count(s); i++)
		nstr += strlen(symbols_name(s, symbols_at(s, i))) + 1;
	lay_out(s, &l, nstr);
	*n = l.sh[S_STRTAB].sh_offset + nstr;
	out = calloc(1, *n);
	if (!out)
		return -ENOMEM;
	memcpy(out, &l, sizeof(l));
	sym = (Elf64_Sym *)(out + l.sh[S_SYMTAB].sh_offset);
	str = (char *)out + l.sh[S_STRTAB].sh_offset;
	for (u32 i = 0; i < symbols_count(s); i++) {
		const struct symbol *y = symbols_at(s, i);
		size_t len = strlen(symbols_name(s, y)) + 1;

		/* all global: .symtab wants its local ones first, and nobody here cares */
		sym[i + 1] = (Elf64_Sym){.st_name = (u32)at, .st_value = y->addr,
					 .st_info = ELF64_ST_INFO(STB_GLOBAL, is_code(y) ? STT_FUNC : STT_OBJECT),
					 .st_shndx = is_code(y) ? S_TEXT : SHN_ABS};
		if (is_code(y))
			sym[i + 1].st_size = symbols_end(s, y) - y->addr;
		memcpy(str + at, symbols_name(s, y), len);
		at += len;
	}
	*data = out;
	return 0;
}
