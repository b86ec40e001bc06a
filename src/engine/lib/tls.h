/* What the C library keeps for each thread: the address in FS, and what lies around it. */
#ifndef ENGINE_LIB_TLS_H
#define ENGINE_LIB_TLS_H

#include "base/types.h"

u64 tls_size(void); /* bytes of thread-local variables before the address in FS */
bool tls_can_wrfsbase(void); /* the host's kernel allows it */

#endif
