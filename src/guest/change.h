/*
 * What a duplicate changed, as OP_DIFF and OP_EXPORT say it: a stream of records, little-endian, each followed (OP_EXPORT, regular
 * files) by `size` bytes of content. Order: a directory before what is in it.
 */
#ifndef GUEST_CHANGE_H
#define GUEST_CHANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	CHANGE_PATH_MAX = 4096,
	CHANGE_XATTRS_MAX = 256 << 10,
	CHANGE_HEADER = 60,
	CHANGE_MAX = CHANGE_HEADER + 2 * CHANGE_PATH_MAX + CHANGE_XATTRS_MAX,
};
struct change {
	uint32_t kind;    /* 'A' added, 'C' changed, 'D' deleted */
	uint32_t mode;    /* with type; 0 for 'D' */
	uint32_t uid, gid;
	uint64_t mtime_s, size, rdev; /* size of a regular file, else 0 */
	uint32_t mtime_ns;
	uint32_t content; /* 1: size bytes follow the record */
	uint32_t n_path, n_link, n_xattrs;
	/* not ended by NUL */
	const char *path;      /* absolute; no "", "." or ".." in it */
	const char *link;      /* of a symbolic link; of a regular file: another name of it, absolute, as path; then no content */
	const uint8_t *xattrs; /* length of name, length of value (32 bits each), name, value; and so on */
};
/* The record at the start of n bytes: its length without content; 0: not complete yet; -1: not one. */
long change_parse(const void *p, size_t n, struct change *c);
/* The header; path, link and xattrs follow it. */
void change_header(uint8_t out[CHANGE_HEADER], const struct change *c);
/* The xattr at *at, which moves on; false: there is none left. c has been parsed. */
struct change_xattr {
	const char *name;
	const uint8_t *value;
	uint32_t n_name, n_value;
};
bool change_xattr(const struct change *c, size_t *at, struct change_xattr *x);

#endif
