/* The control socket: QMP, the QEMU Machine Protocol (qemu docs/interop/qmp-spec.rst), with the commands a doppel VM has. */
#ifndef VMM_QMP_H
#define VMM_QMP_H

#include "vmm/machine.h"

struct console;
struct qmp;
struct qmp_options {
	struct machine *machine;
	struct console *console;
	const char *name, *version;
	int listen_fd; /* owned from success on */
};
int qmp_start(const struct qmp_options *o, struct qmp **out);
void qmp_machine_ends(struct qmp *q); /* before the machine goes: what clients began in it ends with it */
/* Hangs up on all clients. May come after the machine is gone, so that clients see the end when it is one. */
void qmp_stop(struct qmp *q);
void qmp_notice(struct qmp *q, enum machine_notice n, const char *reason); /* an event to all clients */

/* ---- for tests: the framing ---- */
/* Length of the first complete JSON value in p (with what precedes it), 0 if it is not complete yet. */
size_t qmp_frame(const char *p, size_t n);

#endif
