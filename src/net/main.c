/* doppel-net ROLE ARG...: started by doppel; descriptor 3 is its socket. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net/net.h"

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*main)(int argc, char **argv);
	} roles[] = {{"user", user_main}, {"switch", switch_main}};

	for (u32 i = 0; argc > 1 && i < ARRAY_SIZE(roles); i++)
		if (!strcmp(argv[1], roles[i].name) && fcntl(NET_FD, F_GETFD) >= 0)
			return roles[i].main(argc - 2, argv + 2);
	log_msg(LOG_ERROR, "doppel-net: started by doppel, not by hand");
	return 2;
}
