/* Brings what a duplicate changed back to this machine. */
#ifndef CLI_APPLY_H
#define CLI_APPLY_H

#include "base/types.h"
#include "guest/change.h"

struct apply {
	int root;        /* the directory that "/" of the duplicate stands for */
	u64 since_ns;    /* a file of this machine that changed later is in conflict */
	bool force;
	u32 conflicts, done, failed;
	/* the file being written */
	int dir, file;
	char temp[40], *name;
	struct change c; /* its strings are ours */
	char path[CHANGE_PATH_MAX + 1], link[CHANGE_PATH_MAX + 1];
	u8 *xattrs;
};
/* Counts what is in conflict, and says it; changes nothing. An int (*record)() of struct changes. */
int apply_check(void *apply, const struct change *c);
int apply_record(void *apply, const struct change *c);
int apply_content(void *apply, const u8 *p, size_t n, bool last);
void apply_free(struct apply *a);

#endif
