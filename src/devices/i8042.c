/*
 * 8042 keyboard controller (IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device
 * Controller") with nothing plugged in. A guest uses it to reset the machine (command FEh pulses the reset
 * line) and to probe for a keyboard; each controller command that has an answer gets one at once, so that a
 * probe neither waits nor complains. A keyboard that is not there answers nothing. Port 92h is the fast A20
 * gate and reset; A20 is never masked here.
 */
#include "devices/i8042.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

enum { STS_OBF = 0x01, STS_SYS = 0x04, STS_CMD = 0x08, STS_UNLOCKED = 0x10 };
enum { CTR_SYS = 0x04, CTR_KBD_DISABLE = 0x10, CTR_AUX_DISABLE = 0x20, CTR_XLATE = 0x40 };
enum { OUT_NOT_RESET = 0x01, OUT_A20 = 0x02 };
enum { A_RESET = 0x01, A_A20 = 0x02 };

struct i8042 {
	struct device dev;
	struct region data, command, port_a;
	pthread_mutex_t lock;
	u8 ram[32]; /* 0 is the command byte (CTR) */
	u8 status, obuf;
	u8 out_port;
	u8 awaiting; /* command whose data byte comes by port 60h; 0: none */
	u8 a;        /* port 92h */
};

static void reply(struct i8042 *k, u8 v)
{
	k->obuf = v;
	k->status |= STS_OBF;
}

static void cmd_self_test(struct i8042 *k, u8 arg)
{
	k->status |= STS_SYS;
	reply(k, 0x55);
}

static void cmd_read_ram(struct i8042 *k, u8 cmd)
{
	reply(k, k->ram[cmd & 0x1f]);
}

static void cmd_read_out(struct i8042 *k, u8 cmd)
{
	reply(k, k->out_port);
}

static void cmd_test_ok(struct i8042 *k, u8 cmd)
{
	reply(k, 0x00);
}

static void cmd_test_aux(struct i8042 *k, u8 cmd)
{
	reply(k, 0x01); /* clock line stuck low: there is no auxiliary port */
}

/* F0h..FFh: bits 0-3 clear pulse those output lines; line 0 is the processor's reset. */
static void cmd_pulse(struct i8042 *k, u8 cmd)
{
	if (!(cmd & OUT_NOT_RESET))
		machine_request(k->dev.machine, MACHINE_RESET, 0);
}

static void cmd_await(struct i8042 *k, u8 cmd)
{
	k->awaiting = cmd;
}

static void data_write_ram(struct i8042 *k, u8 cmd, u8 v)
{
	k->ram[cmd & 0x1f] = v;
	if (!(cmd & 0x1f))
		k->status = (k->status & ~STS_SYS) | (v & CTR_SYS);
}

static void data_write_out(struct i8042 *k, u8 cmd, u8 v)
{
	k->out_port = v;
	if (!(v & OUT_NOT_RESET))
		machine_request(k->dev.machine, MACHINE_RESET, 0);
}

static void data_echo(struct i8042 *k, u8 cmd, u8 v)
{
	reply(k, v);
}

/* The auxiliary loop: an AT controller has none. Not echoing the byte says so without a time-out. */
static void data_aux_loop(struct i8042 *k, u8 cmd, u8 v)
{
	reply(k, (u8)~v);
}

static void data_drop(struct i8042 *k, u8 cmd, u8 v) {}

static const struct i8042_command {
	u8 first, last;
	void (*run)(struct i8042 *k, u8 cmd);
	void (*data)(struct i8042 *k, u8 cmd, u8 v);
	u8 set, clear; /* bits of the command byte */
	const char *name;
} commands[] = {
    {.first = 0x20, .last = 0x3f, .run = cmd_read_ram, .name = "read RAM"},
    {.first = 0x60, .last = 0x7f, .run = cmd_await, .data = data_write_ram, .name = "write RAM"},
    {.first = 0xa7, .last = 0xa7, .name = "disable aux", .set = CTR_AUX_DISABLE},
    {.first = 0xa8, .last = 0xa8, .name = "enable aux", .clear = CTR_AUX_DISABLE},
    {.first = 0xa9, .last = 0xa9, .run = cmd_test_aux, .name = "test aux"},
    {.first = 0xaa, .last = 0xaa, .run = cmd_self_test, .name = "self test"},
    {.first = 0xab, .last = 0xab, .run = cmd_test_ok, .name = "test keyboard"},
    {.first = 0xad, .last = 0xad, .name = "disable keyboard", .set = CTR_KBD_DISABLE},
    {.first = 0xae, .last = 0xae, .name = "enable keyboard", .clear = CTR_KBD_DISABLE},
    {.first = 0xc0, .last = 0xc0, .run = cmd_test_ok, .name = "read input port"},
    {.first = 0xd0, .last = 0xd0, .run = cmd_read_out, .name = "read output port"},
    {.first = 0xd1, .last = 0xd1, .run = cmd_await, .data = data_write_out, .name = "write output port"},
    {.first = 0xd2, .last = 0xd2, .run = cmd_await, .data = data_echo, .name = "write keyboard buffer"},
    {.first = 0xd3, .last = 0xd3, .run = cmd_await, .data = data_aux_loop, .name = "write aux buffer"},
    {.first = 0xd4, .last = 0xd4, .run = cmd_await, .data = data_drop, .name = "write to aux"},
    {.first = 0xf0, .last = 0xff, .run = cmd_pulse, .name = "pulse output"},
};

static const struct i8042_command *find_command(u8 cmd)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (cmd >= commands[i].first && cmd <= commands[i].last)
			return &commands[i];
	return NULL;
}

static u64 data_read(void *dev, u64 offset, unsigned size)
{
	struct i8042 *k = dev;
	pthread_mutex_lock(&k->lock);
	u8 v = k->obuf; /* an empty buffer repeats its last byte */
	k->status &= ~STS_OBF;
	pthread_mutex_unlock(&k->lock);
	return v;
}

static void data_write(void *dev, u64 offset, unsigned size, u64 value)
{
	struct i8042 *k = dev;
	pthread_mutex_lock(&k->lock);
	k->status &= ~STS_CMD;
	u8 cmd = k->awaiting;
	k->awaiting = 0;
	if (cmd)
		find_command(cmd)->data(k, cmd, value);
	pthread_mutex_unlock(&k->lock);
}

static u64 status_read(void *dev, u64 offset, unsigned size)
{
	struct i8042 *k = dev;
	pthread_mutex_lock(&k->lock);
	u8 v = k->status;
	pthread_mutex_unlock(&k->lock);
	return v;
}

static void command_write(void *dev, u64 offset, unsigned size, u64 value)
{
	struct i8042 *k = dev;
	pthread_mutex_lock(&k->lock);
	k->status |= STS_CMD;
	k->awaiting = 0;
	const struct i8042_command *c = find_command(value);
	if (c) {
		k->ram[0] = (k->ram[0] & ~c->clear) | c->set;
		if (c->run)
			c->run(k, value);
	}
	pthread_mutex_unlock(&k->lock);
}

static u64 port_a_read(void *dev, u64 offset, unsigned size)
{
	struct i8042 *k = dev;
	pthread_mutex_lock(&k->lock);
	u8 v = k->a;
	pthread_mutex_unlock(&k->lock);
	return v;
}

static void port_a_write(void *dev, u64 offset, unsigned size, u64 value)
{
	struct i8042 *k = dev;
	pthread_mutex_lock(&k->lock);
	bool rising = (value & ~k->a & A_RESET) != 0;
	k->a = value;
	pthread_mutex_unlock(&k->lock);
	if (rising)
		machine_request(k->dev.machine, MACHINE_RESET, 0);
}

static const struct region_ops data_ops = {.read = data_read, .write = data_write};
static const struct region_ops command_ops = {.read = status_read, .write = command_write};
static const struct region_ops port_a_ops = {.read = port_a_read, .write = port_a_write};

static void i8042_reset(struct device *d)
{
	struct i8042 *k = container_of(d, struct i8042, dev);
	pthread_mutex_lock(&k->lock);
	for (size_t i = 0; i < ARRAY_SIZE(k->ram); i++)
		k->ram[i] = 0;
	k->ram[0] = CTR_XLATE | CTR_AUX_DISABLE | CTR_SYS;
	k->status = STS_UNLOCKED | STS_SYS;
	k->obuf = 0;
	k->awaiting = 0;
	k->out_port = OUT_NOT_RESET | OUT_A20;
	k->a = A_A20;
	pthread_mutex_unlock(&k->lock);
}

static void i8042_destroy(struct device *d)
{
	struct i8042 *k = container_of(d, struct i8042, dev);
	bus_del(machine_pio(d->machine), &k->port_a);
	bus_del(machine_pio(d->machine), &k->command);
	bus_del(machine_pio(d->machine), &k->data);
	pthread_mutex_destroy(&k->lock);
	free(k);
}

static const struct device_class i8042_class = {
    .name = "i8042", .reset = i8042_reset, .destroy = i8042_destroy};

static struct region port_region(struct i8042 *k, const char *name, u16 port, const struct region_ops *ops)
{
	return (struct region){.name = name,
			       .base = port,
			       .size = 1,
			       .min_size = 1,
			       .max_size = 1,
			       .ops = ops,
			       .dev = k,
			       .enabled = true};
}

int i8042_create(struct machine *m, struct i8042 **out)
{
	struct i8042 *k = calloc(1, sizeof(*k));
	if (!k)
		return -ENOMEM;
	k->dev = (struct device){.cls = &i8042_class, .machine = m};
	pthread_mutex_init(&k->lock, NULL);
	k->data = port_region(k, "i8042 data", 0x60, &data_ops);
	k->command = port_region(k, "i8042 command", 0x64, &command_ops);
	k->port_a = port_region(k, "port 92h", 0x92, &port_a_ops);
	i8042_reset(&k->dev);
	int r = bus_add(machine_pio(m), &k->data);
	if (r)
		goto fail;
	r = bus_add(machine_pio(m), &k->command);
	if (r)
		goto fail_data;
	r = bus_add(machine_pio(m), &k->port_a);
	if (r)
		goto fail_command;
	machine_add_device(m, &k->dev);
	*out = k;
	return 0;
fail_command:
	bus_del(machine_pio(m), &k->command);
fail_data:
	bus_del(machine_pio(m), &k->data);
fail:
	pthread_mutex_destroy(&k->lock);
	free(k);
	return r;
}
