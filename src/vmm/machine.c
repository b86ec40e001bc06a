/* Assembly of the machine, top to bottom in assemble(); loading; what devices ask of the machine. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/file.h"
#include "devices/bus.h"
#include "devices/cmos.h"
#include "devices/debug_exit.h"
#include "devices/i8042.h"
#include "devices/pci.h"
#include "devices/pvpanic.h"
#include "devices/uart.h"
#include "devices/virtio_console.h"
#include "devices/virtio_disk.h"
#include "devices/virtio_fs.h"
#include "devices/virtio_rng.h"
#include "devices/virtio_vsock.h"
#include "kvm/chan.h"
#include "vmm/acpi.h"
#include "vmm/insight.h"
#include "vmm/machine.h"
#include "vmm/wake.h"

#define KERNEL_MAX (1ull << 30)
#define INITRD_MAX (3ull << 30)

/* ---- what devices see (machine_if.h, guestmem.h) ---- */
struct loop *machine_loop(struct machine *m)
{
	return m->loop;
}

struct bus *machine_pio(struct machine *m)
{
	return m->pio;
}

struct bus *machine_mmio(struct machine *m)
{
	return m->mmio;
}

struct guestmem *machine_guestmem(struct machine *m)
{
	return &m->ram;
}

void machine_add_device(struct machine *m, struct device *d)
{
	d->next = NULL;
	*m->devices_tail = d;
	m->devices_tail = &d->next;
}

static void ram_written(void *machine, gpa_t a, u64 n)
{
	struct machine *m = machine;

	kvm_dma_written(m->vm, a, n);
}

/* ---- assembly ---- */
static int check_limits(struct machine *m, struct err *e)
{
	const struct machine_config *c = &m->cfg;
	long most = kvm_ioctl(m->sys, KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_MAX_VCPUS);

	most = MIN(most > 0 ? most : 4, (long)MACHINE_CPUS_MAX);
	if (c->cpus < 1 || c->cpus > (u64)most)
		return err_set(e, EINVAL, "--cpus %u: out of range (1 to %ld)", c->cpus, most);
	if (c->engine == KVM_CHOICE_CHECK && c->cpus > 1)
		return err_set(e, EINVAL, "--engine check: runs one vCPU only, not %u (leave --cpus out)", c->cpus);
	if (c->memory < MEM_MIN || c->memory > MEM_MAX || c->memory % PAGE_SIZE)
		return err_set(e, EINVAL, "--memory %llu: out of range (4M to 1T, whole pages)",
			       (unsigned long long)c->memory);
	return 0;
}

static int add_ram(struct machine *m, gpa_t gpa, u64 size, u64 offset, struct err *e)
{
	u32 slot = m->ram.nslots;
	struct kvm_userspace_memory_region r = {.slot = slot, .guest_phys_addr = gpa, .memory_size = size,
						.userspace_addr = (u64)m->ram_base + offset};
	long ret = 0;

	if (!size)
		return 0;
	ret = kvm_ioctl(m->vm, KVM_SET_USER_MEMORY_REGION, &r);
	if (ret < 0)
		return err_set(e, (int)-ret, "KVM: cannot set up %llu MiB of RAM: %s (give the VM less --memory)",
			       (unsigned long long)(size >> 20), strerror((int)-ret));
	m->ram.slot[slot].gpa = gpa;
	m->ram.slot[slot].size = size;
	m->ram.slot[slot].host = (u8 *)m->ram_base + offset;
	m->ram.slot[slot].fd = m->ram_fd;
	m->ram.slot[slot].offset = offset;
	m->ram.nslots++;
	return 0;
}

static int make_ram(struct machine *m, struct err *e)
{
	int ret = 0;

	memmap_make(&m->map, m->cfg.memory);
	m->ram_base = kvm_ram_alloc(m->cfg.memory, &m->ram_fd);
	if (!m->ram_base)
		return err_set(e, errno, "--memory: cannot reserve %llu MiB: %s (give the VM less)",
			       (unsigned long long)(m->cfg.memory >> 20), strerror(errno));
	m->ram.written = ram_written;
	m->ram.arg = m;
	ret = add_ram(m, 0, m->map.low, 0, e);
	return ret ? ret : add_ram(m, MEM_4G, m->map.high, m->map.low, e);
}

static int open_kvm(struct machine *m, struct err *e)
{
	u64 identity = MEM_KVM_IDENTITY;
	struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
	long ret = kvm_open_sized(m->cfg.engine, m->cfg.code_cache, &m->sys, &m->opened);

	if (ret)
		return err_set(e, (int)-ret, "--engine: %s", m->opened.why);
	ret = check_limits(m, e);
	if (ret)
		return (int)ret;
	ret = kvm_create_vm(m->sys, 0, &m->vm);
	if (ret)
		return err_set(e, (int)-ret, "KVM: cannot create a VM: %s", strerror((int)-ret));
	ret = kvm_ioctl(m->vm, KVM_SET_IDENTITY_MAP_ADDR, &identity);
	if (ret >= 0)
		ret = kvm_ioctl(m->vm, KVM_SET_TSS_ADDR, (unsigned long)MEM_KVM_TSS);
	if (ret >= 0)
		ret = kvm_ioctl(m->vm, KVM_CREATE_IRQCHIP, 0ul);
	if (ret >= 0)
		ret = kvm_ioctl(m->vm, KVM_CREATE_PIT2, &pit);
	return ret < 0 ? err_set(e, (int)-ret, "KVM: cannot create the interrupt controllers: %s", strerror((int)-ret)) : 0;
}

static int add_board(struct machine *m, struct pci_host **pci)
{
	struct uart_config uart = {.port = PORT_COM1, .gsi = GSI_COM1, .chardev = m->cfg.serial};
	struct cmos_config cmos = {.ram_below_4g = m->map.low, .ram_above_4g = m->map.high, .gsi = GSI_RTC};
	struct debug_exit_config debug = {.port = m->cfg.debug_exit_port};
	struct pci_host_config host = {.ecam_base = MEM_ECAM, .ecam_size = MEM_ECAM_SIZE, .mem32_base = MEM_HOLE_START,
				       .mem32_size = MEM_ECAM - MEM_HOLE_START, .mem64_base = m->map.pci64_base,
				       .mem64_size = MEM_PCI64_SIZE, .io_base = 0x1000, .io_size = 0xf000};
	struct uart *u = NULL;
	struct cmos *c = NULL;
	struct i8042 *k = NULL;
	struct debug_exit *d = NULL;
	struct pvpanic *p = NULL;
	int ret = uart_create(m, &uart, &u);

	if (!ret)
		ret = cmos_create(m, &cmos, &c);
	if (!ret)
		ret = i8042_create(m, &k);
	if (!ret && debug.port)
		ret = debug_exit_create(m, &debug, &d);
	if (!ret)
		ret = pvpanic_create(m, &p);
	if (!ret)
		ret = acpi_pm_create(m, &m->pm);
	return ret ? ret : pci_host_create(m, &host, pci);
}

static int add_virtio_console(struct machine *m, struct pci_host *pci)
{
	struct chardev *console = m->cfg.virtio_console;
	struct virtio_console_options o = {.n_ports = 1, .port[0] = {.chardev = console, .console = console != NULL}};
	struct virtio_console *c = NULL;

	for (u32 i = 0; i < m->cfg.nports; i++)
		o.port[o.n_ports++] = (struct virtio_console_port_options){.chardev = m->cfg.port[i].chardev,
									   .name = m->cfg.port[i].name};
	return console || m->cfg.nports ? virtio_console_create(m, pci, &o, &c) : 0;
}

static int add_disk(struct machine *m, struct pci_host *pci, const struct machine_disk *d, struct err *e)
{
	struct virtio_disk_options o = {.config = &d->disk, .serial = d->serial, .queues = m->ncpus,
					.stop_on_enospc = m->cfg.stop_on_enospc};
	int ret = 0;

	o.attr.fd = kvm_page_attr(m->vm, &o.attr.bytes, &o.attr.code);
	ret = virtio_disk_create(m, pci, &o, &m->disk[m->ndisks], e);
	if (o.attr.fd >= 0)
		close(o.attr.fd);
	m->ndisks += !ret;
	return ret;
}

static int add_vsock(struct machine *m, struct pci_host *pci)
{
	struct virtio_vsock *s = NULL;

	return m->cfg.vsock.cid ? virtio_vsock_create(m, pci, &m->cfg.vsock, &s) : 0;
}

static int add_disks(struct machine *m, struct pci_host *pci, struct err *e)
{
	int ret = 0;

	for (u32 i = 0; i < m->cfg.ndisks && !ret; i++)
		ret = add_disk(m, pci, &m->cfg.disk[i], e);
	return ret;
}

static u64 window_size(const struct machine *m)
{
	u64 size = SHARE_WINDOW, n = 0;

	for (u32 i = 0; i < m->cfg.nshares; i++)
		n += !m->cfg.share[i].writable;
	while (size * n > m->cfg.memory)
		size /= 2;
	return size;
}

static int add_shares(struct machine *m, struct pci_host *pci, struct err *e)
{
	int ret = 0;

	for (u32 i = 0; i < m->cfg.nshares && !ret; i++) {
		const struct machine_share *s = &m->cfg.share[i];
		struct virtio_fs_options o = {.tag = s->tag, .untrusted = share_is_untrusted(s), .window = s->writable ? 0 : window_size(m)};

		ret = share_start(&m->cfg.share[i], &o.sock, &m->share_pid[i], e);
		if (ret)
			return ret;
		o.attr.fd = kvm_page_attr(m->vm, &o.attr.bytes, &o.attr.code);
		ret = virtio_fs_create(m, pci, &o, e);
		if (o.attr.fd >= 0)
			close(o.attr.fd);
	}
	return ret;
}

static int assemble(struct machine *m, struct err *e)
{
	struct pci_host *pci = NULL;
	struct virtio_rng *rng = NULL;
	int ret = open_kvm(m, e);

	if (!ret)
		ret = make_ram(m, e);
	if (!ret)
		ret = irq_init(m, e);
	if (!ret && (ret = wake_create(m)))
		err_set(e, -ret, "machine: no page to wake vCPUs by: %s", strerror(-ret));
	if (ret)
		return ret;
	m->pio = bus_new();
	m->mmio = bus_new();
	if (!m->pio || !m->mmio)
		return err_set(e, ENOMEM, "machine: no memory");
	m->ncpus = m->cfg.cpus;
	if (m->ncpus == 1 && kvm_kind(m->vm) == KVM_KIND_ENGINE)
		kvm_ioctl(m->vm, DOPPEL_ONE_CPU, NULL); /* what it saves is time only */
	for (u32 i = 0; i < m->ncpus && !ret; i++)
		ret = vcpu_create(m, i, e);
	if (ret)
		return ret;
	ret = add_board(m, &pci);
	if (!ret)
		ret = virtio_rng_create(m, pci, &rng);
	if (!ret)
		ret = add_virtio_console(m, pci);
	if (!ret)
		ret = add_vsock(m, pci);
	if (ret)
		return err_set(e, -ret, "machine: cannot create a device: %s%s", strerror(-ret),
			       ret == -EBUSY ? " (--debug-exit port taken by another device?)" : "");
	if (m->cfg.nshares) { /* theirs will lie there; other devices are to know that */
		m->ram.windows.gpa = m->map.pci64_base;
		m->ram.windows.size = MEM_PCI64_SIZE;
	}
	ret = add_disks(m, pci, e);
	if (!ret)
		ret = machine_add_nets(m, pci, e);
	if (!ret)
		ret = add_shares(m, pci, e);
	if (ret)
		return ret;
	ports_follow(m);
	return power_on_save(m, e);
}

int machine_create(const struct machine_config *cfg, struct loop *loop, struct machine **out, struct err *e)
{
	struct machine *m = calloc(1, sizeof(*m));
	int ret = 0;

	if (!m)
		return err_set(e, ENOMEM, "machine: no memory");
	m->cfg = *cfg;
	m->loop = loop;
	m->devices_tail = &m->devices;
	pthread_mutex_init(&m->irq_lock, NULL);
	pthread_mutex_init(&m->ports_lock, NULL);
	pthread_mutex_init(&m->run_lock, NULL);
	pthread_cond_init(&m->run_cond, NULL);
	m->hold = true;
	m->may_run = ~0ull;
	ret = insight_create(m);
	ret = ret ? err_set(e, -ret, "machine: no memory") : assemble(m, e);
	if (ret) {
		machine_destroy(m);
		return ret;
	}
	*out = m;
	return 0;
}

/* Devices go in reverse order of creation: what stands on the bus before the bus. */
static void destroy_devices(struct device *d)
{
	if (!d)
		return;
	destroy_devices(d->next);
	d->cls->destroy(d);
}

void machine_destroy(struct machine *m)
{
	if (!m)
		return;
	vcpus_quit(m);
	if (m->pio)
		bus_watch(m->pio, NULL, NULL);
	debugger_free(m);
	destroy_devices(m->devices);
	for (u32 i = 0; i < m->cfg.nshares; i++)
		if (m->share_pid[i] > 0)
			share_reap(m->share_pid[i]);
	power_on_free(m);
	insight_free(m);
	for (u32 i = 0; i < m->ncpus; i++)
		vcpu_destroy(&m->cpu[i]);
	irq_free(m);
	wake_free(m);
	kvm_close(m->vm);
	kvm_close(m->sys);
	if (m->ram_base)
		kvm_ram_free(m->ram_base, m->cfg.memory);
	bus_free(m->pio);
	bus_free(m->mmio);
	pthread_cond_destroy(&m->run_cond);
	pthread_mutex_destroy(&m->run_lock);
	pthread_mutex_destroy(&m->ports_lock);
	pthread_mutex_destroy(&m->irq_lock);
	free(m);
}

/* ---- loading ---- */
static int read_image(int fd, const char *name, u64 max, const char *what, struct blob *b, struct err *e)
{
	void *p = NULL;
	int ret = read_fd(fd, max, &p, &b->n);

	if (ret == -EFBIG)
		return err_set(e, EFBIG, "%s: %s: larger than %llu MiB (or than the VM's memory)", what, name, (unsigned long long)(max >> 20));
	if (ret)
		return err_set(e, -ret, "%s: %s: %s", what, name, strerror(-ret));
	b->p = p;
	return 0;
}

static int put_acpi(struct machine *m, struct err *e)
{
	struct acpi_config c = {.ncpus = m->ncpus, .map = &m->map};
	u8 *p = guest_ptr(m, MEM_ACPI, MEM_ACPI_SIZE);
	long n = p ? acpi_build(&c, p, MEM_ACPI_SIZE) : -EFAULT;

	if (n < 0)
		return err_set(e, (int)-n, "machine: cannot build the ACPI tables");
	guest_written(m, MEM_ACPI, MEM_ACPI_SIZE);
	return 0;
}

int machine_load(struct machine *m, struct err *e)
{
	struct boot_source src = {.cmdline = m->cfg.append ? m->cfg.append : "", .rsdp = MEM_ACPI, .map = &m->map};
	struct boot_state boot;
	int ret = read_image(m->cfg.kernel_fd, m->cfg.kernel_name, KERNEL_MAX, "kernel", &src.kernel, e);

	if (!ret && m->cfg.initrd_fd >= 0)
		ret = read_image(m->cfg.initrd_fd, m->cfg.initrd_name, MIN(INITRD_MAX, m->map.low), "initrd", &src.initrd, e);
	if (!ret)
		ret = put_acpi(m, e);
	if (!ret)
		ret = loader_load(m, &src, &boot, e);
	if (!ret)
		ret = vcpu_set_boot_state(&m->cpu[0], &boot, e);
	if (!ret)
		log_msg(LOG_INFO, "kernel: %s, %s at 0x%llx", m->cfg.kernel_name, boot.how, (unsigned long long)boot.entry);
	free((void *)src.kernel.p);
	free((void *)src.initrd.p);
	return ret;
}
