/*
 * What a stopped vCPU was doing and how it came there, as JSON; and that as text. Nothing in it is trusted: guests write all of it.
 */
#ifndef DEBUG_AUTOPSY_H
#define DEBUG_AUTOPSY_H

#include <cjson/cJSON.h>
#include <stdio.h>
#include "debug/unwind.h"
#include "kvm/chan.h"

struct autopsy_vcpu {
	u32 index;
	bool halted;
	struct kvm_regs regs;
	struct unwinder view;
	const struct doppel_record *record; /* NULL: this KVM keeps none */
	const char *task;                   /* "": not known */
};
/* full: else registers' place and stack only. */
cJSON *autopsy_vcpu(const struct autopsy_vcpu *v, bool full);

/* ---- inside ---- */
/* The last jumps, from the places they led to. */
#define AUTOPSY_BRANCHES 64
cJSON *autopsy_branches(const struct autopsy_vcpu *v);
void autopsy_add_hex(cJSON *j, const char *key, u64 v);
void autopsy_add_symbol(cJSON *j, const char *key, const struct autopsy_vcpu *v, u64 addr); /* if there is one */

/* ---- autopsy_text.c: {"reason": , "cpu": , "vcpus": [autopsy_vcpu()...]} ---- */
void autopsy_print(const cJSON *report, FILE *out);

#endif
