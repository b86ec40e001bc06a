/*
 * ACPI fixed hardware (ACPI 6.4, 4.8): PM1a event and control blocks, the 32-bit PM timer, the fixed power button. The machine is
 * always in ACPI mode (no SMI command port), so SCI_EN reads as 1. Of the sleep states there is S5.
 */
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#include "vmm/acpi.h"
#include "vmm/acpi_int.h"

enum { /* 4.8.3.1: PM1 status and enable bits */
	STS_TIMER = 1 << 0,
	STS_GLOBAL = 1 << 5,
	STS_POWER = 1 << 8,
	STS_RTC = 1 << 10,
	STS_WAKE = 1 << 15,
	EN_MASK = STS_TIMER | STS_GLOBAL | STS_POWER | STS_RTC,
	CNT_SCI_EN = 1 << 0,
	CNT_TYPE_SHIFT = 10,
	CNT_SLP_EN = 1 << 13,
	CNT_WRITABLE = 7 << CNT_TYPE_SHIFT | 2,
};
#define PM_HZ    3579545ull
#define PM_MSB   BIT64(31)
#define NS_PER_S 1000000000ull

struct acpi_pm {
	struct device dev;
	struct region region;
	pthread_mutex_t lock;
	u16 sts, en, cnt;
	u64 start_ns;
	int timer_fd; /* fires when the timer's top bit changes, while that is enabled */
};

static u64 ticks(const struct acpi_pm *pm)
{
	return (u64)((unsigned __int128)(now_ns() - pm->start_ns) * PM_HZ / NS_PER_S);
}

static void update_sci_locked(struct acpi_pm *pm)
{
	machine_irq(pm->dev.machine, GSI_SCI, (pm->sts & pm->en & EN_MASK) != 0);
}

/* 4.8.3.3: TMR_STS is set at each change of the top bit. */
static void arm_timer_locked(struct acpi_pm *pm)
{
	struct itimerspec its = {0};

	if (pm->en & STS_TIMER) {
		u64 next = (ticks(pm) / PM_MSB + 1) * PM_MSB;
		u64 at = pm->start_ns + (u64)((unsigned __int128)next * NS_PER_S / PM_HZ) + 1;

		its.it_value.tv_sec = (time_t)(at / NS_PER_S);
		its.it_value.tv_nsec = (long)(at % NS_PER_S);
	}
	timerfd_settime(pm->timer_fd, TFD_TIMER_ABSTIME, &its, NULL);
}

static void timer_fired(void *dev, u32 events)
{
	struct acpi_pm *pm = dev;
	u64 n = 0;

	if (read(pm->timer_fd, &n, sizeof(n)) < 0)
		return;
	pthread_mutex_lock(&pm->lock);
	pm->sts |= STS_TIMER;
	update_sci_locked(pm);
	arm_timer_locked(pm);
	pthread_mutex_unlock(&pm->lock);
}

/* The registers as bytes: offset, where its value is. */
static u64 pm_read(void *dev, u64 offset, unsigned size)
{
	struct acpi_pm *pm = dev;
	u64 block = 0;

	pthread_mutex_lock(&pm->lock);
	if (offset >= PM_TMR)
		block = (u32)ticks(pm) >> (offset - PM_TMR) * 8;
	else
		block = ((u64)pm->sts | (u64)pm->en << 16 | (u64)(pm->cnt | CNT_SCI_EN) << 32) >> offset * 8;
	pthread_mutex_unlock(&pm->lock);
	return block;
}

static void write_cnt_locked(struct acpi_pm *pm, u16 v)
{
	pm->cnt = v & CNT_WRITABLE;
	if ((v & CNT_SLP_EN) && (v >> CNT_TYPE_SHIFT & 7) == ACPI_S5_TYPE)
		machine_request(pm->dev.machine, MACHINE_POWEROFF, 0);
}

/* Handlers get whole 16-bit registers: the region declares accesses of 2 bytes, the bus merges narrower ones. */
static void pm_write(void *dev, u64 offset, unsigned size, u64 value)
{
	struct acpi_pm *pm = dev;
	u16 v = (u16)value;

	pthread_mutex_lock(&pm->lock);
	switch (offset) {
	case PM_EVT:
		pm->sts &= (u16)~v; /* write one to clear */
		break;
	case PM_EVT + 2:
		pm->en = v & EN_MASK;
		arm_timer_locked(pm);
		break;
	case PM_CNT:
		write_cnt_locked(pm, v);
		break;
	default:
		break; /* the timer is read-only */
	}
	update_sci_locked(pm);
	pthread_mutex_unlock(&pm->lock);
	if (size > 2)
		pm_write(dev, offset + 2, size - 2, value >> 16);
}

void acpi_pm_power_button(struct acpi_pm *pm)
{
	pthread_mutex_lock(&pm->lock);
	pm->sts |= STS_POWER;
	update_sci_locked(pm);
	pthread_mutex_unlock(&pm->lock);
}

static void pm_reset(struct device *d)
{
	struct acpi_pm *pm = container_of(d, struct acpi_pm, dev);

	pthread_mutex_lock(&pm->lock);
	pm->sts = pm->en = pm->cnt = 0;
	arm_timer_locked(pm);
	update_sci_locked(pm);
	pthread_mutex_unlock(&pm->lock);
}

static void pm_destroy(struct device *d)
{
	struct acpi_pm *pm = container_of(d, struct acpi_pm, dev);

	bus_del(machine_pio(d->machine), &pm->region);
	if (pm->timer_fd >= 0) {
		loop_del(machine_loop(d->machine), pm->timer_fd);
		close(pm->timer_fd);
	}
	pthread_mutex_destroy(&pm->lock);
	free(pm);
}

static const struct region_ops pm_ops = {.read = pm_read, .write = pm_write};
static const struct device_class pm_class = {.name = "acpi-pm", .reset = pm_reset, .destroy = pm_destroy};

int acpi_pm_create(struct machine *m, struct acpi_pm **out)
{
	struct acpi_pm *pm = calloc(1, sizeof(*pm));
	int ret = 0;

	if (!pm)
		return -ENOMEM;
	pm->dev = (struct device){.cls = &pm_class, .machine = m};
	pm->region = (struct region){.name = "acpi-pm", .base = PORT_PM, .size = PM_SIZE, .min_size = 2, .max_size = 4,
				     .ops = &pm_ops, .dev = pm, .enabled = true};
	pm->start_ns = now_ns();
	pthread_mutex_init(&pm->lock, NULL);
	pm->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	ret = pm->timer_fd < 0 ? -errno : loop_add(machine_loop(m), pm->timer_fd, EPOLLIN, timer_fired, pm);
	if (!ret)
		ret = bus_add(machine_pio(m), &pm->region);
	if (ret) {
		pm_destroy(&pm->dev);
		return ret;
	}
	machine_add_device(m, &pm->dev);
	*out = pm;
	return 0;
}
