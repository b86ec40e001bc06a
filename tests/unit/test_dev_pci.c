/* Configuration space, BARs, MSI-X, INTx. */
#include <setjmp.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "devices/virtio_rng.h"
#include "fake_machine.h"

static struct pci_host *host;

static int setup(void **state)
{
	struct machine *m = fake_machine_new();
	assert_int_equal(pci_host_create(m, &fake_pci_config, &host), 0);
	*state = m;
	return 0;
}

static int teardown(void **state)
{
	fake_machine_free(*state);
	return 0;
}

/* A device whose BAR 0 counts reads. */
struct toy {
	struct pci_func f;
	unsigned reads;
};

static u64 toy_read(void *dev, u64 off, unsigned size)
{
	struct toy *t = dev;
	t->reads++;
	return 0x1000 + off;
}

static void toy_write(void *dev, u64 off, unsigned size, u64 v) {}

static const struct region_ops toy_region = {.read = toy_read, .write = toy_write};
static const struct pci_func_ops toy_ops = {0};

static void toy_reset(struct device *d)
{
	pci_func_reset(container_of(d, struct pci_func, dev));
}

static void toy_destroy(struct device *d)
{
	struct toy *t = container_of(d, struct toy, f.dev);
	pci_func_unplug(&t->f);
	free(t);
}

static const struct device_class toy_class = {.name = "toy", .reset = toy_reset, .destroy = toy_destroy};

static struct toy *plug(struct machine *m, int slot)
{
	static const struct pci_id id = {
	    .vendor = 0x1234, .device = 0x5678, .class_code = 0xff0000, .revision = 3};
	struct toy *t = calloc(1, sizeof(*t));
	pci_func_init(&t->f, m, host, &id, &toy_ops);
	t->f.dev.cls = &toy_class;
	pci_func_add_bar(&t->f, 0, PCI_BAR_MEM64, 0x10000, "toy", 1, 4, &toy_region, t);
	pci_func_add_bar(&t->f, 2, PCI_BAR_IO, 32, "toy io", 1, 4, &toy_region, t);
	assert_int_equal(pci_msix_init(&t->f, 3, 4), 0);
	assert_int_equal(pci_func_plug(&t->f, slot), 0);
	machine_add_device(m, &t->f.dev);
	return t;
}

static void bridge(void **state)
{
	struct machine *m = *state;
	assert_int_equal(cfg_read(m, 0, 0, 2), 0x8086);
	assert_int_equal(cfg_read(m, 0, 8, 4) >> 8, 0x060000);
	assert_int_equal(cfg_read(m, 0, 0x3d, 1), 0);
	assert_int_equal(cfg_read(m, 5, 0, 4), 0xffffffff);
	assert_int_equal(mmio_read(m, 0xe0000000, 4) & 0xffff, 0x8086);
	assert_int_equal(mmio_read(m, 0xe0000000 + (5 << 15), 4), 0xffffffff);
	assert_int_equal(mmio_read(m, 0xe0000000 + (1 << 12), 4), 0xffffffff); /* function 1 */
	out32(m, 0xcf8, 0x80000000);
	assert_int_equal(in32(m, 0xcf8), 0x80000000);
	out32(m, 0xcf8, 0);
	assert_int_equal(in32(m, 0xcfc), 0xffffffff);
}

static void reset_register(void **state)
{
	struct machine *m = *state;
	out32(m, 0xcf8, 0x80000600);
	out8(m, 0xcf9, 2);
	assert_int_equal(m->requests, 0);
	out8(m, 0xcf9, 6);
	assert_int_equal(m->requests, 1);
	assert_int_equal(m->last_event, MACHINE_RESET);
	assert_int_equal(in8(m, 0xcf9), 6);
	assert_int_equal(in32(m, 0xcf8), 0x80000600);
}

static void bars(void **state)
{
	struct machine *m = *state;
	struct toy *t = plug(m, 3);
	u64 home = cfg_read(m, 3, 0x10, 4) & ~15u;
	home |= (u64)cfg_read(m, 3, 0x14, 4) << 32;
	assert_int_equal(home, 0x800000000ull);
	assert_int_equal(cfg_read(m, 3, 0x10, 4) & 15, 4);
	assert_int_equal(mmio_read(m, home, 4), 0xffffffff); /* not decoded yet */
	cfg_write(m, 3, 4, 2, PCI_COMMAND_MEMORY);
	assert_int_equal(mmio_read(m, home + 8, 4), 0x1008);
	cfg_write(m, 3, 4, 2, 0);
	cfg_write(m, 3, 0x10, 4, 0xffffffff); /* sizing */
	cfg_write(m, 3, 0x14, 4, 0xffffffff);
	assert_int_equal(cfg_read(m, 3, 0x10, 4), 0xffff0004);
	assert_int_equal(cfg_read(m, 3, 0x14, 4), 0xffffffff);
	cfg_write(m, 3, 4, 2, PCI_COMMAND_MEMORY); /* decode at the top of the address space: no */
	cfg_write(m, 3, 0x10, 4, 0xd8000000);
	cfg_write(m, 3, 0x14, 4, 0);
	assert_int_equal(mmio_read(m, 0xd8000004, 4), 0x1004);
	assert_int_equal(mmio_read(m, home, 4), 0xffffffff);
	cfg_write(m, 3, 0x10, 4, 0xe0000000); /* onto the ECAM: a conflict, nobody is hurt */
	assert_int_equal(mmio_read(m, 0xe0000000, 4) & 0xffff, 0x8086);
	cfg_write(m, 3, 0x10, 4, 0xd8000000);
	assert_int_equal(mmio_read(m, 0xd8000004, 4), 0x1004);
	u32 io = cfg_read(m, 3, 0x18, 4);
	assert_int_equal(io, 0xc001);
	cfg_write(m, 3, 4, 2, PCI_COMMAND_IO);
	assert_int_equal(in8(m, 0xc002), 2);
	assert_int_equal(mmio_read(m, 0xd8000004, 4), 0xffffffff);
	fake_reset(m);
	assert_int_equal(cfg_read(m, 3, 4, 2), 0);
	assert_int_equal(cfg_read(m, 3, 0x10, 4), 4);
	assert_int_equal(cfg_read(m, 3, 0x14, 4), 8);
	assert_int_equal(in8(m, 0xc002), 0xff);
	assert_int_equal(cfg_read(m, 3, 0, 4), 0x56781234);
	cfg_write(m, 3, 0, 4, 0); /* read-only */
	assert_int_equal(cfg_read(m, 3, 0, 4), 0x56781234);
	assert_true(t->reads > 0);
}

static void msix(void **state)
{
	struct machine *m = *state;
	struct toy *t = plug(m, -1);
	unsigned s = t->f.slot, cap = t->f.msix.cap;
	assert_int_equal(s, 1);
	u64 bar = cfg_read(m, s, 0x20, 4) & ~15u;
	cfg_write(m, s, 4, 2, PCI_COMMAND_MEMORY);
	assert_int_equal(cfg_read(m, s, cap + 2, 2), 2);
	for (int v = 0; v < 3; v++) {
		mmio_write(m, bar + 16 * v, 4, 0xfee01000);
		mmio_write(m, bar + 16 * v + 8, 4, 0x30 + v);
	}
	pci_msix_fire(&t->f, 0); /* MSI-X is off: nothing, not even pending */
	cfg_write(m, s, cap + 2, 2, 0x8000);
	assert_true(pci_msix_enabled(&t->f));
	assert_int_equal(mmio_read(m, bar + 2048, 4), 0);
	pci_msix_fire(&t->f, 1); /* masked: pending */
	assert_int_equal(mmio_read(m, bar + 2048, 4), 2);
	mmio_write(m, bar + 16 + 12, 4, 0);
	assert_int_equal(mmio_read(m, bar + 2048, 4), 0);
	assert_int_equal(fake_msis(m, 0x31), 1);
	pci_msix_fire(&t->f, 1);
	pci_msix_fire(&t->f, 1);
	assert_int_equal(fake_msis(m, 0x31), 2);
	mmio_write(m, bar + 16 + 8, 4, 0x77); /* moves to another vector while open */
	pci_msix_fire(&t->f, 1);
	assert_int_equal(fake_msis(m, 0x77), 1);
	cfg_write(m, s, cap + 2, 2, 0xc000); /* all masked */
	pci_msix_fire(&t->f, 1);
	assert_int_equal(fake_msis(m, 0x77), 0);
	cfg_write(m, s, cap + 2, 2, 0x8000);
	assert_int_equal(fake_msis(m, 0x77), 1);
	pci_msix_fire(&t->f, 3); /* there is no such vector */
	m->refuse_routes = true;
	mmio_write(m, bar + 32 + 12, 4, 0);
	pci_msix_fire(&t->f, 2); /* no route to be had: by request */
	assert_int_equal(m->msis, 1);
	assert_int_equal(m->last_msi_data, 0x32);
	fake_reset(m);
	assert_false(pci_msix_enabled(&t->f));
}

static void intx(void **state)
{
	struct machine *m = *state;
	struct toy *a = plug(m, 2), *b = plug(m, 6), *c = plug(m, 3);
	assert_int_equal(cfg_read(m, 2, 0x3c, 2), 0x0112);
	pci_intx(&a->f, true);
	pci_intx(&b->f, true);
	assert_true(m->irq[18]);
	pci_intx(&a->f, false);
	assert_true(m->irq[18]); /* shared: the other still holds it */
	pci_intx(&b->f, false);
	assert_false(m->irq[18]);
	pci_intx(&c->f, true);
	assert_true(m->irq[19]);
	fake_reset(m);
	assert_false(m->irq[19]);
}

static void slots_run_out(void **state)
{
	struct machine *m = *state;
	for (int i = 1; i < PCI_SLOTS; i++)
		plug(m, -1);
	struct virtio_rng *r;
	assert_int_equal(virtio_rng_create(m, host, &r), -ENOSPC);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(bridge, setup, teardown),
	    cmocka_unit_test_setup_teardown(reset_register, setup, teardown),
	    cmocka_unit_test_setup_teardown(bars, setup, teardown),
	    cmocka_unit_test_setup_teardown(msix, setup, teardown),
	    cmocka_unit_test_setup_teardown(intx, setup, teardown),
	    cmocka_unit_test_setup_teardown(slots_run_out, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
