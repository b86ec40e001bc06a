/*
 * Runs the bare-metal guests of this folder on one or two KVMs and judges their transcripts.
 *
 *   guests [--kvm engine|interp|translate|direct|check|device|both] [--verbose] FILE.bin...
 *
 * check: the translator in lock-step with the interpreter. direct: user code in cells, as engine and both have it too where
 * DOPPEL_TR_STRESS says cell. A guest prints "name value" lines; a line with FAIL is a wrong answer by the manual. The transcripts of the
 * engine's interpreter, of its translator, of its cells and of /dev/kvm must be equal too. Where the /dev/kvm of this machine strays from the SDM (a software KVM may), the SDM decides: its own FAIL
 * lines are named as deviations, and the engine's answers stand by themselves. A guest that it cannot run to its end is skipped.
 */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"
#include "kvm/chan.h"
#include "kvm/kvm.h"
#include "kvm/stats.h"

#define RAM_SIZE   (64ull << 20)
#define LOAD_AT    0x100000
#define TEXT_MAX   65536
#define MAX_CPUS   8
/* Seconds, wall. A software /dev/kvm may be too slow for a guest, and is given up; the engine is not, on a busy machine. */
#define TIME_LIMIT(choice) ((choice) == KVM_CHOICE_KVM ? 10 : 60)

struct run {
	struct kvm_obj *sys, *vm, *cpu[MAX_CPUS];
	u32 ncpus;
	u8 *ram;
	pthread_mutex_t lock;
	char text[TEXT_MAX];
	size_t n;
	bool ended;
	char end[200];
};

static bool verbose;

static void set_end(struct run *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void set_end(struct run *r, const char *fmt, ...)
{
	va_list ap;

	pthread_mutex_lock(&r->lock);
	if (!r->ended) {
		va_start(ap, fmt);
		vsnprintf(r->end, sizeof(r->end), fmt, ap);
		va_end(ap);
		r->ended = true;
	}
	pthread_mutex_unlock(&r->lock);
}

static void put(struct run *r, u8 c)
{
	pthread_mutex_lock(&r->lock);
	if (r->n < TEXT_MAX - 1)
		r->text[r->n++] = (char)c;
	pthread_mutex_unlock(&r->lock);
}

static void port_io(struct run *r, struct kvm_run *k)
{
	u8 *data = (u8 *)k + k->io.data_offset;

	for (u32 i = 0; i < k->io.count; i++, data += k->io.size) {
		if (k->io.direction == KVM_EXIT_IO_IN) {
			memset(data, 0xff, k->io.size);
			if (k->io.port == 0xe8)
				for (u32 j = 0; j < k->io.size; j++)
					data[j] = (u8)(i * k->io.size + j + 1);
		} else if (k->io.port == 0xe9) {
			put(r, data[0]);
		} else if (k->io.port == 0xf4) {
			set_end(r, "exit %u", data[0]);
		}
	}
}

/* A few bytes of MMIO that remember, at 0xd0000000. */
static u8 mmio_reg[4096];
static void mmio(struct kvm_run *k)
{
	for (u32 i = 0; i < k->mmio.len; i++) {
		u8 *reg = &mmio_reg[(k->mmio.phys_addr + i) % sizeof(mmio_reg)];

		if (k->mmio.is_write)
			*reg = k->mmio.data[i];
		else
			k->mmio.data[i] = *reg;
	}
}

struct cpu_arg {
	struct run *r;
	u32 index;
};

static void *cpu_loop(void *arg)
{
	struct cpu_arg *a = arg;
	struct run *r = a->r;
	struct kvm_run *k = kvm_vcpu_run_area(r->cpu[a->index]);

	while (!__atomic_load_n(&r->ended, __ATOMIC_ACQUIRE)) {
		long ret = kvm_ioctl(r->cpu[a->index], KVM_RUN, 0);

		if (ret == -EINTR || ret == -EAGAIN)
			continue;
		if (ret < 0) {
			set_end(r, "KVM_RUN: %s", strerror((int)-ret));
			break;
		}
		switch (k->exit_reason) {
		case KVM_EXIT_IO:
			port_io(r, k);
			break;
		case KVM_EXIT_MMIO:
			mmio(k);
			break;
		case KVM_EXIT_INTR:
			break;
		case KVM_EXIT_SHUTDOWN:
			set_end(r, "triple fault");
			break;
		default:
			set_end(r, "exit reason %u (%llu)", k->exit_reason,
				k->exit_reason == KVM_EXIT_INTERNAL_ERROR ? (unsigned long long)k->internal.suberror : 0ull);
		}
	}
	return NULL;
}

/* 64-bit mode, low 4 GiB mapped by 1 GiB... 2 MiB pages at 0x10000: the guest makes its own tables at once. */
static void start_state(struct run *r)
{
	u64 *pml4 = (u64 *)(r->ram + 0x10000), *pdpt = (u64 *)(r->ram + 0x11000), *pd = (u64 *)(r->ram + 0x12000);
	struct kvm_sregs s;
	struct kvm_regs regs = {.rip = LOAD_AT, .rflags = 2, .rsp = 0x9000};
	struct kvm_segment cs = {.limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
	struct kvm_segment ds = {.limit = 0xffffffff, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};

	pml4[0] = 0x11003;
	for (u64 i = 0; i < 4; i++) {
		pdpt[i] = (0x12000 + i * 4096) | 3;
		for (u64 j = 0; j < 512; j++)
			pd[i * 512 + j] = (i * 512 + j) << 21 | 0x83;
	}
	kvm_ioctl(r->cpu[0], KVM_GET_SREGS, &s);
	s.cs = cs;
	s.ds = s.es = s.ss = s.fs = s.gs = ds;
	s.cr0 = 0x80000011;
	s.cr3 = 0x10000;
	s.cr4 = 0x20;
	s.efer = 0x500;
	kvm_ioctl(r->cpu[0], KVM_SET_SREGS, &s);
	kvm_ioctl(r->cpu[0], KVM_SET_REGS, &regs);
}

static int set_cpuid(struct run *r, u32 index)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 e[100];
	} q = {.head.nent = 100};
	long ret = kvm_ioctl(r->sys, KVM_GET_SUPPORTED_CPUID, &q);

	if (ret < 0)
		return (int)ret;
	for (u32 i = 0; i < q.head.nent; i++) {
		if (q.e[i].function == 1)
			q.e[i].ebx = (q.e[i].ebx & 0x00ffffff) | index << 24;
		if (q.e[i].function == 0xb)
			q.e[i].edx = index;
	}
	return (int)kvm_ioctl(r->cpu[index], KVM_SET_CPUID2, &q);
}

static int create(struct run *r, enum kvm_choice choice, u32 ncpus)
{
	struct kvm_open_result res;
	struct kvm_userspace_memory_region mem = {.memory_size = RAM_SIZE};
	struct kvm_pit_config pit = {0};
	int ret = kvm_open(choice, &r->sys, &res);

	if (ret < 0) {
		snprintf(r->end, sizeof(r->end), "%s", res.why);
		return ret;
	}
	ret = kvm_create_vm(r->sys, 0, &r->vm);
	if (ret < 0)
		return ret;
	kvm_ioctl(r->vm, KVM_SET_TSS_ADDR, (unsigned long)0xfffbd000);
	ret = (int)kvm_ioctl(r->vm, KVM_CREATE_IRQCHIP, 0ul);
	if (ret >= 0)
		ret = (int)kvm_ioctl(r->vm, KVM_CREATE_PIT2, &pit);
	r->ram = kvm_ram_alloc(RAM_SIZE, NULL);
	mem.userspace_addr = (u64)r->ram;
	if (ret >= 0)
		ret = r->ram ? (int)kvm_ioctl(r->vm, KVM_SET_USER_MEMORY_REGION, &mem) : -ENOMEM;
	if (ret >= 0 && ncpus == 1 && kvm_kind(r->vm) == KVM_KIND_ENGINE)
		ret = (int)kvm_ioctl(r->vm, DOPPEL_ONE_CPU, 0ul);
	for (u32 i = 0; i < ncpus && ret >= 0; i++, r->ncpus++) {
		ret = kvm_create_vcpu(r->vm, i, &r->cpu[i]);
		if (ret >= 0)
			ret = set_cpuid(r, i);
	}
	return ret;
}

static void destroy(struct run *r)
{
	for (u32 i = 0; i < r->ncpus; i++)
		kvm_close(r->cpu[i]);
	kvm_close(r->vm);
	kvm_close(r->sys);
	kvm_ram_free(r->ram, RAM_SIZE);
}

/* For a guest that did not end by itself. */
static void say_where(struct run *r, u32 i)
{
	struct kvm_regs regs = {0};
	struct kvm_sregs s = {0};

	kvm_ioctl(r->cpu[i], KVM_GET_REGS, &regs);
	kvm_ioctl(r->cpu[i], KVM_GET_SREGS, &s);
	printf("  cpu %u: rip %llx rsp %llx cr0 %llx cr2 %llx cr4 %llx efer %llx\n", i, regs.rip, regs.rsp, s.cr0, s.cr2, s.cr4,
	       s.efer);
}

/* All but the ports of port_io(): what the engine answers for them must be what the client answers to the device. */
static void open_ports(struct run *r)
{
	static const u16 ours[] = {0xe8, 0xe9, 0xf4};
	struct doppel_ports p;

	memset(&p, 0xff, sizeof(p));
	for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
		p.open[ours[i] / 8] &= (u8)~BIT(ours[i] % 8);
	if (kvm_ioctl(r->vm, DOPPEL_SET_OPEN_PORTS, &p) < 0)
		set_end(r, "DOPPEL_SET_OPEN_PORTS failed");
}

/* The guest may say how many translations it is worth, by "most translations: N"; stress modes make more. */
static void check_translations(struct run *r, enum kvm_choice choice)
{
	static const char mark[] = "most translations: ";
	const char *told = strstr(r->text, mark);
	struct doppel_stats s = {0};
	const struct vcpu_stats *v = (const struct vcpu_stats *)s.value;

	if (!told || choice != KVM_CHOICE_TRANSLATE || getenv("DOPPEL_TR_STRESS") || kvm_ioctl(r->cpu[0], DOPPEL_GET_STATS, &s) < 0)
		return;
	if (v->tr_blocks > strtoull(told + sizeof(mark) - 1, NULL, 10)) {
		__atomic_store_n(&r->ended, false, __ATOMIC_RELEASE);
		set_end(r, "%llu translations", (unsigned long long)v->tr_blocks);
	}
}

/* Whether user code runs in cells whenever it can: only then a guest knows that some of its does. */
static bool stress_cells(void)
{
	const char *stress = getenv("DOPPEL_TR_STRESS");

	return stress && strstr(stress, "cell");
}

/* "needs cells": a transcript that is right says nothing of cells if none was used. */
static void check_cells(struct run *r, enum kvm_choice choice)
{
	struct doppel_stats s = {0};
	const struct vcpu_stats *v = (const struct vcpu_stats *)s.value;

	if (!strstr(r->text, "needs cells") || choice != KVM_CHOICE_DIRECT || !stress_cells() || kvm_ioctl(r->cpu[0], DOPPEL_GET_STATS, &s) < 0)
		return;
	if (!v->cell_stops) {
		__atomic_store_n(&r->ended, false, __ATOMIC_RELEASE);
		set_end(r, "no user code ran in a cell");
	}
}

/* Runs one guest to its end; the transcript is in r->text. */
static int run_guest(struct run *r, enum kvm_choice choice, const void *image, u64 size, u32 ncpus)
{
	pthread_t t[MAX_CPUS];
	struct cpu_arg arg[MAX_CPUS];
	const struct timespec tick = {.tv_nsec = 2000000};
	int ret = create(r, choice, ncpus);

	if (ret < 0) {
		if (!r->end[0])
			snprintf(r->end, sizeof(r->end), "cannot set up: %s", strerror(-ret));
		destroy(r);
		return ret;
	}
	if (choice != KVM_CHOICE_KVM)
		open_ports(r);
	memcpy(r->ram + LOAD_AT, image, size);
	start_state(r);
	for (u32 i = 0; i < ncpus; i++) {
		arg[i] = (struct cpu_arg){r, i};
		pthread_create(&t[i], NULL, cpu_loop, &arg[i]);
	}
	for (u32 i = 0; i < TIME_LIMIT(choice) * 500 && !__atomic_load_n(&r->ended, __ATOMIC_ACQUIRE); i++)
		nanosleep(&tick, NULL);
	if (!r->ended)
		set_end(r, "no end after %d s", TIME_LIMIT(choice));
	for (u32 i = 0; i < ncpus; i++) {
		kvm_vcpu_kick(r->cpu[i]);
		while (pthread_tryjoin_np(t[i], NULL) == EBUSY) {
			kvm_vcpu_kick(r->cpu[i]);
			nanosleep(&tick, NULL);
		}
		if (strncmp(r->end, "exit ", 5) || !strncmp(r->end, "exit r", 6))
			say_where(r, i);
	}
	check_translations(r, choice);
	check_cells(r, choice);
	destroy(r);
	return 0;
}

static unsigned count_lines(const char *text, const char *word)
{
	unsigned n = 0;

	for (const char *p = text; (p = strstr(p, word)); p += strlen(word))
		n++;
	return n;
}

static void print_lines_with(const char *text, const char *word, const char *who)
{
	char copy[TEXT_MAX];

	snprintf(copy, sizeof(copy), "%s", text);
	for (char *save, *l = strtok_r(copy, "\n", &save); l; l = strtok_r(NULL, "\n", &save))
		if (strstr(l, word))
			printf("  %s: %s\n", who, l);
}

static void print_differences(const char *a, const char *b, const char *who_a, const char *who_b)
{
	while (*a && *b) {
		size_t na = strcspn(a, "\n"), nb = strcspn(b, "\n");

		if (na != nb || memcmp(a, b, na))
			printf("  %s: %.*s\n  %s: %.*s\n", who_a, (int)na, a, who_b, (int)nb, b);
		a += na + (a[na] == '\n');
		b += nb + (b[nb] == '\n');
	}
}

enum verdict { PASS, FAIL, SKIP };
enum { INTERP, TRANSLATE, DIRECT, DEVICE, KVMS };
static const char *const kvm_name[KVMS] = {"interp", "translate", "direct", "/dev/kvm"};
static enum kvm_choice kvm_of[KVMS] = {KVM_CHOICE_INTERP, KVM_CHOICE_TRANSLATE, KVM_CHOICE_DIRECT, KVM_CHOICE_KVM};

static bool good(const struct run *r)
{
	return !strcmp(r->end, "exit 0") && !count_lines(r->text, "FAIL") && r->n;
}

static enum verdict judge_engine(const struct run *r, const char *who)
{
	if (good(r))
		return PASS;
	printf("  %s: ended with: %s\n", who, r->end);
	print_lines_with(r->text, "FAIL", who);
	return FAIL;
}

/* e: what the engine said; NULL if it was not asked. */
static enum verdict judge_device(const struct run *d, const struct run *e, enum verdict v)
{
	if (!good(d)) {
		printf("  deviation of /dev/kvm: ended with: %s\n", d->end);
		print_lines_with(d->text, "FAIL", "/dev/kvm");
		/* it answered wrongly: the SDM decided above. It could not run the guest to its end: not compared */
		return v == PASS && (!e || strcmp(d->end, "exit 0")) ? SKIP : v;
	}
	if (e && strcmp(e->text, d->text)) {
		print_differences(e->text, d->text, "engine", "/dev/kvm");
		return FAIL;
	}
	return v;
}

static enum verdict judge(struct run *r[KVMS])
{
	enum verdict v = PASS;

	for (unsigned i = INTERP; i <= DIRECT; i++)
		if (r[i] && judge_engine(r[i], kvm_name[i]) == FAIL)
			v = FAIL;
	for (unsigned i = TRANSLATE; i <= DIRECT; i++) {
		if (v != PASS || !r[INTERP] || !r[i] || !strcmp(r[INTERP]->text, r[i]->text))
			continue;
		print_differences(r[INTERP]->text, r[i]->text, kvm_name[INTERP], kvm_name[i]);
		v = FAIL;
	}
	if (!r[DEVICE])
		return v;
	return judge_device(r[DEVICE], r[INTERP] ? r[INTERP] : r[TRANSLATE] ? r[TRANSLATE] : r[DIRECT], v);
}

static enum verdict one(const char *path, const bool ask[KVMS])
{
	struct run *r[KVMS] = {NULL};
	const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	u32 ncpus = !strncmp(name, "smp", 3) ? 4 : 1;
	void *image;
	u64 size;
	enum verdict v;

	if (read_file(path, RAM_SIZE / 2, &image, &size) < 0) {
		fprintf(stderr, "guests: cannot read %s\n", path);
		exit(1);
	}
	for (unsigned i = 0; i < KVMS; i++) {
		if (!ask[i])
			continue;
		r[i] = calloc(1, sizeof(*r[i]));
		if (!r[i])
			exit(1);
		pthread_mutex_init(&r[i]->lock, NULL);
		if (run_guest(r[i], kvm_of[i], image, size, ncpus) < 0 && i == DEVICE) {
			free(r[i]);
			r[i] = NULL;
		}
	}
	v = judge(r);
	for (unsigned i = 0; i < KVMS; i++) {
		if (r[i] && verbose)
			printf("--- %s\n%s", kvm_name[i], r[i]->text);
		free(r[i]);
	}
	free(image);
	return v;
}

static bool choose(const char *word, bool ask[KVMS])
{
	bool both = !strcmp(word, "both"), engine = !strcmp(word, "engine");

	ask[INTERP] = both || engine || !strcmp(word, "interp");
	ask[TRANSLATE] = both || engine || !strcmp(word, "translate") || !strcmp(word, "check");
	ask[DIRECT] = !strcmp(word, "direct") || ((both || engine) && stress_cells());
	kvm_of[TRANSLATE] = strcmp(word, "check") ? KVM_CHOICE_TRANSLATE : KVM_CHOICE_CHECK;
	ask[DEVICE] = both || !strcmp(word, "device");
	return ask[INTERP] || ask[TRANSLATE] || ask[DIRECT] || ask[DEVICE];
}

int main(int argc, char **argv)
{
	static const char *const words[] = {"ok", "FAILED", "skipped"};
	unsigned count[3] = {0};
	bool ask[KVMS];

	choose(access("/dev/kvm", R_OK | W_OK) == 0 ? "both" : "engine", ask);
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 1; i < argc; i++) {
		enum verdict v;

		if (!strcmp(argv[i], "--verbose")) {
			verbose = true;
			continue;
		}
		if (!strcmp(argv[i], "--kvm") && i + 1 < argc) {
			if (!choose(argv[++i], ask)) {
				fprintf(stderr, "guests: %s: not a KVM (engine, interp, translate, direct, check, device, both)\n", argv[i]);
				return 1;
			}
			continue;
		}
		v = one(argv[i], ask);
		count[v]++;
		printf("%-40s %s\n", argv[i], words[v]);
	}
	printf("%u passed, %u failed, %u skipped\n", count[PASS], count[FAIL], count[SKIP]);
	return count[FAIL] != 0;
}
