/* The commands that look into the guest. */
#ifndef VMM_QMP_INSIGHT_H
#define VMM_QMP_INSIGHT_H

#include "vmm/qmp_int.h"

void qmp_autopsy(const struct qmp_options *o, struct qmp_answer *a);
void qmp_coverage(const struct qmp_options *o, struct qmp_answer *a);
void qmp_profile(const struct qmp_options *o, struct qmp_answer *a);
void qmp_symbols(const struct qmp_options *o, struct qmp_answer *a);

#endif
