/*
 * Tracing, as the rest of the engine sees it. Each place asks TRACING() first: one load and test when nothing is traced.
 * Instructions that translated code does in line are seen because MODE_KEY_TRACE makes other translations, in which each goes to its
 * handler (trace_compile()).
 */
#ifndef ENGINE_TRACE_TRACE_H
#define ENGINE_TRACE_TRACE_H

#include "engine/vcpu.h"
#include "kvm/trace.h"

#define TRACING(cpu, name) unlikely((cpu)->trace.kinds & BIT(TRACE_##name))

/* ---- owning vCPU thread ---- */
void trace_exception(struct vcpu *cpu, const struct exception *e);
void trace_irq(struct vcpu *cpu, unsigned vector, enum trace_who who);
void trace_mmio(struct vcpu *cpu, bool write, gpa_t a, const void *data, unsigned len, enum trace_who who);
void trace_pio(struct vcpu *cpu, bool write, u16 port, unsigned size, u32 items, u64 value, enum trace_who who);
void trace_code_store(struct vcpu *cpu, gpa_t a, unsigned size);
void trace_halt(struct vcpu *cpu, u64 begin);
void trace_leave(struct vcpu *cpu);  /* KVM_RUN ends */
void trace_return(struct vcpu *cpu); /* it begins again */

/* A walk has found a page table: from now on stores to it are seen. */
void trace_mark_table(struct vcpu *cpu, gpa_t page);
void trace_table_store(struct vcpu *cpu, gpa_t a, u64 old, u64 new, unsigned size, bool walker);
/* The caller will store there through a pointer. */
void trace_table_pointer(struct vcpu *cpu, gpa_t a, unsigned size);
void trace_table_late(struct vcpu *cpu); /* it has */

/* ---- trace/insn.c ---- */
struct insn;
struct iop;
/* Which sensitive instruction it is; TI_NONE: none. */
enum trace_insn trace_insn_of(const struct insn *in);
/* op has been compiled: puts the tracing handler before its own, if the instruction is sensitive. */
void trace_compile(const struct insn *in, struct iop *op);
void trace_insn_faulted(struct vcpu *cpu, const struct exception *e);

/* ---- the ring ---- */
/* kinds and filters are looked at here. tsc 0: now */
void trace_emit(struct vcpu *cpu, const struct trace_event *e);
struct trace_event trace_event_here(const struct vcpu *cpu, enum trace_kind kind, unsigned what);

/* ---- main thread (trace/control.c, trace/sample.c): 0 or -errno ---- */
struct doppel_trace;
struct doppel_samples;
int trace_start(struct vm *vm, const struct doppel_trace *t, int fd); /* takes the fd */
int trace_stop(struct vm *vm);
void sample_count(struct vm *vm); /* while it is sampled, translated code counts its instructions */
void sample_get(struct vm *vm, struct doppel_samples *s);

#endif
