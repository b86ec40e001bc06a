/* Who and where a command is in a duplicate: by default just as here. */
#ifndef CLI_USER_H
#define CLI_USER_H

#include "base/base.h"
#include "guest/proto.h"

struct user {
	u32 uid, gid;
	u32 groups[REQUEST_GROUPS];
	u32 n_groups;
	char **env;  /* ends with NULL */
	char *shell; /* of the user */
};
/* name: NAME, UID, NAME:GROUP or UID:GID of this machine; NULL: who we are. vars: NAME=VALUE or NAME, n of them. */
int user_resolve(struct user *u, const char *name, char *const *vars, u32 n, struct err *e);
void user_free(struct user *u);

#endif
