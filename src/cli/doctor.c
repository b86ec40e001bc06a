/* doppel doctor: what this machine offers and what doppel will use. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <unistd.h>
#include "base/paths.h"
#include "cli/cli.h"
#include "kvm/kvm.h"

static bool cpu_has(const char *flag)
{
	char line[8192];
	FILE *f = fopen("/proc/cpuinfo", "re");
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f)) {
		char *save = NULL;

		if (strncmp(line, "flags", 5) != 0)
			continue;
		for (char *w = strtok_r(line, " \t:\n", &save); w && !found; w = strtok_r(NULL, " \t:\n", &save))
			found = !strcmp(w, flag);
		break;
	}
	if (f)
		fclose(f);
	return found;
}

static void row(const char *what, const char *text)
{
	printf("%-16s %s\n", what, text);
}

static void dev_kvm(void)
{
	bool hardware = cpu_has("vmx") || cpu_has("svm");
	char text[160];
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		snprintf(text, sizeof(text), "no: %s", strerror(errno));
	else
		snprintf(text, sizeof(text), "usable, %s",
			 hardware ? "backed by hardware" : "but the CPU shows no vmx or svm: a software KVM");
	if (fd >= 0)
		close(fd);
	row("/dev/kvm", text);
	row("virtualization", cpu_has("vmx") ? "vmx" : cpu_has("svm") ? "svm" : "none (vmx, svm absent)");
}

static void engines(void)
{
	static const struct {
		const char *name;
		enum kvm_choice choice;
	} choices[] = {{"engine interp", KVM_CHOICE_INTERP}, {"engine translate", KVM_CHOICE_TRANSLATE}, {"engine direct", KVM_CHOICE_DIRECT}, {"engine auto", KVM_CHOICE_AUTO}};

	for (u32 i = 0; i < ARRAY_SIZE(choices); i++) {
		struct kvm_open_result r = {0};
		struct kvm_obj *sys = NULL;
		char text[300];
		int ret = kvm_open(choices[i].choice, &sys, &r);

		if (ret)
			snprintf(text, sizeof(text), "fails: %s", r.why);
		else
			snprintf(text, sizeof(text), "%s%s (%s; at most %ld vCPUs)",
				 r.kind == KVM_KIND_ENGINE ? kvm_engine_name(sys) : "/dev/kvm",
				 r.kind == KVM_KIND_ENGINE ? ", KVM in user space" : "", r.why,
				 kvm_ioctl(sys, KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_MAX_VCPUS));
		kvm_close(sys);
		row(choices[i].name, text);
	}
}

static void limits(void)
{
	struct sysinfo si;
	struct rlimit as, files;
	char text[160], dir[PATHS_MAX];
	struct err e = {0};

	if (sysinfo(&si) == 0) {
		snprintf(text, sizeof(text), "%llu MiB of %llu MiB free",
			 (unsigned long long)si.freeram * si.mem_unit >> 20, (unsigned long long)si.totalram * si.mem_unit >> 20);
		row("memory", text);
	}
	snprintf(text, sizeof(text), "%ld", sysconf(_SC_NPROCESSORS_ONLN));
	row("processors", text);
	if (getrlimit(RLIMIT_AS, &as) == 0 && getrlimit(RLIMIT_NOFILE, &files) == 0) {
		if (as.rlim_cur == RLIM_INFINITY)
			snprintf(text, sizeof(text), "address space unlimited, %llu files", (unsigned long long)files.rlim_cur);
		else
			snprintf(text, sizeof(text), "address space %llu MiB, %llu files",
				 (unsigned long long)as.rlim_cur >> 20, (unsigned long long)files.rlim_cur);
		row("limits", text);
	}
	row("runtime files", path_runtime(dir, sizeof(dir), true, &e) ? e.text : dir);
}

static int doctor_main(const struct command *c, int argc, char **argv)
{
	int ret = opts_parse(c, NULL, &argc, argv);

	if (ret)
		return ret == OPTS_DONE ? 0 : EXIT_DOPPEL;
	dev_kvm();
	engines();
	limits();
	return 0;
}

const struct command cmd_doctor = {.name = "doctor", .args = "",
				   .summary = "tells what this machine offers and which engine would be used", .main = doctor_main};
