/*
 * 16550A UART (National Semiconductor PC16550D data sheet, sections 6 and 8). Bytes take no time on the wire:
 * a written byte goes to the chardev at once, so THRE is clear only while the chardev has no room. That is
 * the only flow control a guest sees, and it is the right one: a slow terminal looks like a slow line, and no
 * vCPU ever waits.
 *
 * The receiver takes from the chardev what fits its FIFO (16 bytes, or 1) and asks for more when the guest
 * has read it, so input is never lost and overrun never happens except in loopback. The character timeout
 * (four character times without a read) is immediate: a line of infinite speed has character times of zero.
 */
#include "devices/uart.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "backends/chardev.h"

enum { FIFO_SIZE = 16 };

enum { IER_RDA = 0x01, IER_THRE = 0x02, IER_LINE = 0x04, IER_MODEM = 0x08 };
enum {
	IIR_NONE = 0x01,
	IIR_MODEM = 0x00,
	IIR_THRE = 0x02,
	IIR_RDA = 0x04,
	IIR_LINE = 0x06,
	IIR_TIMEOUT = 0x0c,
	IIR_FIFO = 0xc0
};
enum { FCR_ENABLE = 0x01, FCR_CLEAR_RX = 0x02, FCR_CLEAR_TX = 0x04 };
enum { LCR_BREAK = 0x40, LCR_DLAB = 0x80 };
enum { MCR_DTR = 0x01, MCR_RTS = 0x02, MCR_OUT1 = 0x04, MCR_OUT2 = 0x08, MCR_LOOP = 0x10 };
enum { LSR_DR = 0x01, LSR_OE = 0x02, LSR_BI = 0x10, LSR_THRE = 0x20, LSR_TEMT = 0x40, LSR_ERRORS = 0x1e };
enum {
	MSR_DCTS = 0x01,
	MSR_DDSR = 0x02,
	MSR_TERI = 0x04,
	MSR_DDCD = 0x08,
	MSR_CTS = 0x10,
	MSR_DSR = 0x20,
	MSR_RI = 0x40,
	MSR_DCD = 0x80
};

struct fifo {
	u8 data[FIFO_SIZE];
	unsigned head, count;
};

struct uart {
	struct device dev;
	struct region region;
	struct chardev *chardev;
	u32 gsi;
	pthread_mutex_t lock;
	struct fifo rx, tx;
	u8 ier, fcr, lcr, mcr, lsr_errors, msr, scr, dll, dlm;
	bool thre_pending; /* the THRE interrupt condition: set when THR empties, cleared by its IIR read or a
			      THR write */
	bool irq_level;
	bool starved; /* the chardev has input that did not fit */
};

static void fifo_put(struct fifo *f, u8 v)
{
	f->data[(f->head + f->count++) % FIFO_SIZE] = v;
}

static u8 fifo_get(struct fifo *f)
{
	u8 v = f->data[f->head];
	f->head = (f->head + 1) % FIFO_SIZE;
	f->count--;
	return v;
}

static unsigned depth(const struct uart *u)
{
	return u->fcr & FCR_ENABLE ? FIFO_SIZE : 1;
}

static unsigned rx_trigger(const struct uart *u)
{
	static const u8 level[4] = {1, 4, 8, 14};
	return u->fcr & FCR_ENABLE ? level[u->fcr >> 6] : 1;
}

/* Data sheet table 4: the pending interrupt of highest priority. */
static u8 pending(const struct uart *u)
{
	if ((u->ier & IER_LINE) && (u->lsr_errors & LSR_ERRORS))
		return IIR_LINE;
	if ((u->ier & IER_RDA) && u->rx.count >= rx_trigger(u))
		return IIR_RDA;
	if ((u->ier & IER_RDA) && u->rx.count)
		return IIR_TIMEOUT;
	if ((u->ier & IER_THRE) && u->thre_pending)
		return IIR_THRE;
	if ((u->ier & IER_MODEM) && (u->msr & 0x0f))
		return IIR_MODEM;
	return IIR_NONE;
}

/* On a PC the interrupt pin passes a buffer that OUT2 opens; loopback disconnects OUT2. */
static void update_irq_locked(struct uart *u)
{
	bool gate = (u->mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2;
	bool level = gate && pending(u) != IIR_NONE;
	if (level == u->irq_level)
		return;
	u->irq_level = level;
	machine_irq(u->dev.machine, u->gsi, level);
}

static void transmit_locked(struct uart *u)
{
	bool had = u->tx.count != 0;
	while (u->tx.count) {
		u8 v = u->tx.data[u->tx.head];
		if (!chardev_write(u->chardev, &v, 1))
			break;
		fifo_get(&u->tx);
	}
	if (had && !u->tx.count)
		u->thre_pending = true;
}

static void receive_loopback_locked(struct uart *u, u8 v)
{
	if (u->rx.count < depth(u))
		fifo_put(&u->rx, v);
	else
		u->lsr_errors |= LSR_OE;
	u->thre_pending = true;
}

static u8 read_rbr(struct uart *u)
{
	if (u->lcr & LCR_DLAB)
		return u->dll;
	return u->rx.count ? fifo_get(&u->rx) : 0;
}

static void write_thr(struct uart *u, u8 v)
{
	if (u->lcr & LCR_DLAB) {
		u->dll = v;
		return;
	}
	if (u->mcr & MCR_LOOP) {
		receive_loopback_locked(u, v);
		return;
	}
	u->thre_pending = false;
	if (u->tx.count < depth(u))
		fifo_put(&u->tx, v); /* else: written against THRE, lost as on the chip */
	transmit_locked(u);
}

static u8 read_ier(struct uart *u)
{
	return u->lcr & LCR_DLAB ? u->dlm : u->ier;
}

static void write_ier(struct uart *u, u8 v)
{
	if (u->lcr & LCR_DLAB) {
		u->dlm = v;
		return;
	}
	if ((v & ~u->ier & IER_THRE) && !u->tx.count)
		u->thre_pending = true; /* enabling it while THR is empty interrupts at once */
	u->ier = v & 0x0f;
}

static u8 read_iir(struct uart *u)
{
	u8 id = pending(u);
	if (id == IIR_THRE)
		u->thre_pending = false;
	return id | (u->fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

static void write_fcr(struct uart *u, u8 v)
{
	bool toggled = (u->fcr ^ v) & FCR_ENABLE;
	if (toggled || (v & FCR_CLEAR_RX))
		u->rx = (struct fifo){0};
	if (toggled || (v & FCR_CLEAR_TX)) {
		u->thre_pending |= u->tx.count != 0;
		u->tx = (struct fifo){0};
	}
	u->fcr = v & FCR_ENABLE ? v & (0xc0 | 0x08 | FCR_ENABLE) : 0;
}

static u8 read_lcr(struct uart *u)
{
	return u->lcr;
}

static void write_lcr(struct uart *u, u8 v)
{
	u->lcr = v;
}

static u8 read_mcr(struct uart *u)
{
	return u->mcr;
}

/* The modem lines: a connected, ready peer; in loopback the chip's own outputs. Deltas against what was read
 * last. */
static void set_modem_lines(struct uart *u)
{
	u8 now = MSR_CTS | MSR_DSR | MSR_DCD;
	if (u->mcr & MCR_LOOP)
		now = (u->mcr & MCR_RTS ? MSR_CTS : 0) | (u->mcr & MCR_DTR ? MSR_DSR : 0) |
		      (u->mcr & MCR_OUT1 ? MSR_RI : 0) | (u->mcr & MCR_OUT2 ? MSR_DCD : 0);
	u8 changed = (now ^ u->msr) & 0xf0;
	u8 delta = (changed >> 4) & (MSR_DCTS | MSR_DDSR | MSR_DDCD);
	if ((changed & MSR_RI) && !(now & MSR_RI))
		delta |= MSR_TERI; /* the ring indicator counts only its trailing edge */
	u->msr = now | (u->msr & 0x0f) | delta;
}

static void write_mcr(struct uart *u, u8 v)
{
	u->mcr = v & 0x1f;
	set_modem_lines(u);
}

static u8 read_lsr(struct uart *u)
{
	u8 v = u->lsr_errors | (u->rx.count ? LSR_DR : 0) | (u->tx.count ? 0 : LSR_THRE | LSR_TEMT);
	u->lsr_errors = 0;
	return v;
}

static u8 read_msr(struct uart *u)
{
	u8 v = u->msr;
	u->msr &= 0xf0;
	return v;
}

static u8 read_scr(struct uart *u)
{
	return u->scr;
}

static void write_scr(struct uart *u, u8 v)
{
	u->scr = v;
}

static void write_nothing(struct uart *u, u8 v) {}

static const struct uart_reg {
	const char *name;
	u8 (*read)(struct uart *u);
	void (*write)(struct uart *u, u8 v);
} uart_regs[8] = {
    [0] = {"RBR/THR/DLL", read_rbr, write_thr}, [1] = {"IER/DLM", read_ier, write_ier},
    [2] = {"IIR/FCR", read_iir, write_fcr},     [3] = {"LCR", read_lcr, write_lcr},
    [4] = {"MCR", read_mcr, write_mcr},         [5] = {"LSR", read_lsr, write_nothing},
    [6] = {"MSR", read_msr, write_nothing},     [7] = {"SCR", read_scr, write_scr},
};

/* Room again: the backend goes on with what did not fit. */
static void resume_input_locked(struct uart *u)
{
	if (!u->starved || u->rx.count || (u->mcr & MCR_LOOP))
		return;
	u->starved = false;
	chardev_resume(u->chardev);
}

static u64 uart_read(void *dev, u64 offset, unsigned size)
{
	struct uart *u = dev;
	pthread_mutex_lock(&u->lock);
	u8 v = uart_regs[offset & 7].read(u);
	update_irq_locked(u);
	resume_input_locked(u);
	pthread_mutex_unlock(&u->lock);
	return v;
}

static void uart_write(void *dev, u64 offset, unsigned size, u64 value)
{
	struct uart *u = dev;
	pthread_mutex_lock(&u->lock);
	uart_regs[offset & 7].write(u, value);
	update_irq_locked(u);
	resume_input_locked(u);
	pthread_mutex_unlock(&u->lock);
}

static const struct region_ops uart_region_ops = {.read = uart_read, .write = uart_write};

static size_t uart_input(void *dev, const u8 *p, size_t n)
{
	struct uart *u = dev;
	size_t taken = 0;
	pthread_mutex_lock(&u->lock);
	if (!(u->mcr & MCR_LOOP))
		while (taken < n && u->rx.count < depth(u))
			fifo_put(&u->rx, p[taken++]);
	u->starved = taken < n;
	update_irq_locked(u);
	pthread_mutex_unlock(&u->lock);
	return taken;
}

static void uart_drained(void *dev)
{
	struct uart *u = dev;
	pthread_mutex_lock(&u->lock);
	transmit_locked(u);
	update_irq_locked(u);
	pthread_mutex_unlock(&u->lock);
}

static const struct chardev_sink uart_sink = {.input = uart_input, .drained = uart_drained};

static void uart_reset(struct device *d)
{
	struct uart *u = container_of(d, struct uart, dev);
	pthread_mutex_lock(&u->lock);
	u->rx = u->tx = (struct fifo){0};
	u->ier = u->fcr = u->lcr = u->mcr = u->lsr_errors = u->scr = 0;
	u->dll = 12; /* 9600 baud, as firmware leaves it */
	u->dlm = 0;
	u->msr = MSR_CTS | MSR_DSR | MSR_DCD;
	u->thre_pending = false;
	update_irq_locked(u);
	resume_input_locked(u);
	pthread_mutex_unlock(&u->lock);
}

static void uart_destroy(struct device *d)
{
	struct uart *u = container_of(d, struct uart, dev);
	chardev_detach(u->chardev);
	bus_del(machine_pio(d->machine), &u->region);
	pthread_mutex_destroy(&u->lock);
	free(u);
}

static const struct device_class uart_class = {.name = "uart", .reset = uart_reset, .destroy = uart_destroy};

int uart_create(struct machine *m, const struct uart_config *c, struct uart **out)
{
	struct uart *u = calloc(1, sizeof(*u));
	if (!u)
		return -ENOMEM;
	u->dev = (struct device){.cls = &uart_class, .machine = m};
	u->chardev = c->chardev;
	u->gsi = c->gsi;
	pthread_mutex_init(&u->lock, NULL);
	u->region = (struct region){.name = "uart",
				    .base = c->port,
				    .size = ARRAY_SIZE(uart_regs),
				    .min_size = 1,
				    .max_size = 1,
				    .ops = &uart_region_ops,
				    .dev = u,
				    .enabled = true};
	uart_reset(&u->dev);
	int r = bus_add(machine_pio(m), &u->region);
	if (r) {
		pthread_mutex_destroy(&u->lock);
		free(u);
		return r;
	}
	machine_add_device(m, &u->dev);
	chardev_attach(u->chardev, &uart_sink, u);
	*out = u;
	return 0;
}
