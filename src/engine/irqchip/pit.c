/*
 * The 8254 interval timer (Intel data sheet), port 61H with channel 2's gate and output. Counters are not
 * counted: their value is computed from the time since the count was loaded. Channel 0 raises GSI 0;
 * interrupts that the guest did not take in time are merged, not replayed. The state is KVM's struct
 * kvm_pit_state2.
 */
#include <errno.h>
#include "engine/irqchip/irqchip_int.h"

#define PIT_HZ     1193182u
#define NSEC       1000000000u
#define PERIOD_MIN 200000ull /* ns; denser interrupts are thinned out, in phase */
#define NO_EDGE    (~0ull)
#define MODE_NONE  0xff /* KVM's mode of a counter that was never programmed */

/* rw_mode is 1..3, read_state and write_state 1..4 */
enum { RW_LSB = 1, RW_MSB, RW_WORD0, RW_WORD1 };

typedef struct kvm_pit_channel_state channel_t;

static u64 ticks_of(u64 ns)
{
	return (u64)((unsigned __int128)ns * PIT_HZ / NSEC);
}
static u64 ns_of(u64 ticks)
{
	return (u64)(((unsigned __int128)ticks * NSEC + PIT_HZ - 1) / PIT_HZ);
}

static bool gate_pauses(const channel_t *ch)
{
	return ch->mode == 0 || ch->mode == 4;
}
static bool gate_triggers(const channel_t *ch)
{
	return !gate_pauses(ch);
}

/* Clocks counted since the count was loaded. */
static u64 elapsed(const struct pit *p, unsigned n, u64 now)
{
	const channel_t *ch = &p->s.channels[n];

	if (p->paused[n])
		return ticks_of(p->paused[n] - 1);
	return ticks_of(now - (u64)ch->count_load_time);
}

static u32 to_bcd(u32 v)
{
	return v % 10 | v / 10 % 10 << 4 | v / 100 % 10 << 8 | v / 1000 % 10 << 12;
}

static u32 from_bcd(u32 v)
{
	return (v & 15) + (v >> 4 & 15) * 10 + (v >> 8 & 15) * 100 + (v >> 12 & 15) * 1000;
}

static u16 counter_value(const struct pit *p, unsigned n, u64 now)
{
	const channel_t *ch = &p->s.channels[n];
	u64 d = p->null_count[n] ? 0 : elapsed(p, n, now);
	u32 v = 0, wrap = ch->bcd ? 10000 : 65536;

	switch (ch->mode) {
	case 2:
		v = ch->count - (u32)(d % ch->count);
		break;
	case 3: /* counts by two */
		v = ch->count - (u32)(2 * d % ch->count);
		break;
	default: /* goes on below zero */
		v = (u32)((ch->count + (u64)wrap - d % wrap) % wrap);
		break;
	}
	v %= wrap;
	return (u16)(ch->bcd ? to_bcd(v) : v);
}

static bool output(const struct pit *p, unsigned n, u64 now)
{
	const channel_t *ch = &p->s.channels[n];
	u64 d = elapsed(p, n, now);

	if (p->null_count[n])
		return ch->mode != 0;
	switch (ch->mode) {
	case 0:
	case 1:
		return d >= ch->count;
	case 2:
		return !ch->gate || d % ch->count != ch->count - 1;
	case 3:
		return !ch->gate || d % ch->count < (ch->count + 1) / 2;
	default:
		return d != ch->count;
	}
}

/* ---- channel 0's interrupt ---- */

/* Clocks after loading at which OUT first rises later than d; its gate is always high and so never triggers.
 */
static u64 next_rise(const channel_t *ch, u64 d)
{
	u64 least = ticks_of(PERIOD_MIN);

	switch (ch->mode) {
	case 0:
		return d < ch->count ? ch->count : NO_EDGE;
	case 4:
		return d < ch->count + 1ull ? ch->count + 1ull : NO_EDGE;
	case 2:
	case 3:
		if (d && ch->count < least)
			d += least - ch->count;
		return (d / ch->count + 1) * ch->count;
	default:
		return NO_EDGE;
	}
}

static void plan_locked(struct irqchip *c, u64 now)
{
	struct pit *p = &c->pit;
	const channel_t *ch = &p->s.channels[0];
	u64 rise = NO_EDGE;

	if (!p->null_count[0] && !(p->s.flags & KVM_PIT_FLAGS_HPET_LEGACY))
		rise = next_rise(ch, elapsed(p, 0, now));
	p->next_edge = rise == NO_EDGE ? 0 : (u64)ch->count_load_time + ns_of(rise);
	loop_timer_set(&p->timer, p->next_edge);
}

static void pit_fired(void *arg)
{
	struct irqchip *c = arg;
	u64 now = 0;

	eng_lock(&c->lock);
	now = eng_now_ns();
	if (c->pit.next_edge && now >= c->pit.next_edge) { /* else it was reprogrammed meanwhile */
		irq_set_gsi_locked(c, 0, SRC_PIT, true);
		irq_set_gsi_locked(c, 0, SRC_PIT, false);
		plan_locked(c, now);
	}
	eng_unlock(&c->lock);
}

/* ---- counters ---- */

static void load_count(struct irqchip *c, unsigned n, u32 written)
{
	struct pit *p = &c->pit;
	channel_t *ch = &p->s.channels[n];
	u64 now = eng_now_ns();

	ch->count = ch->bcd ? from_bcd(written) : written;
	if (!ch->count)
		ch->count = ch->bcd ? 10000 : 65536;
	if (ch->count == 1 &&
	    (ch->mode == 2 || ch->mode == 3)) /* illegal there; a period of one has no edges */
		ch->count = 2;
	p->null_count[n] = false;
	if (ch->mode == 1 || ch->mode == 5) /* waits for the gate */
		return;
	ch->count_load_time = (s64)now;
	p->paused[n] = gate_pauses(ch) && !ch->gate;
	if (n == 0)
		plan_locked(c, now);
}

static void set_gate(struct pit *p, unsigned n, bool gate)
{
	channel_t *ch = &p->s.channels[n];
	u64 now = eng_now_ns();

	if (gate == !!ch->gate)
		return;
	ch->gate = gate;
	if (p->null_count[n])
		return;
	if (gate && gate_triggers(ch)) {
		ch->count_load_time = (s64)now;
	} else if (gate && p->paused[n]) {
		ch->count_load_time = (s64)(now - (p->paused[n] - 1));
		p->paused[n] = 0;
	} else if (!gate && gate_pauses(ch)) {
		p->paused[n] = now - (u64)ch->count_load_time + 1;
	}
}

static void latch_count(struct pit *p, unsigned n)
{
	channel_t *ch = &p->s.channels[n];

	if (ch->count_latched)
		return;
	ch->latched_count = counter_value(p, n, eng_now_ns());
	ch->count_latched = ch->rw_mode;
}

static void latch_status(struct pit *p, unsigned n)
{
	channel_t *ch = &p->s.channels[n];

	if (ch->status_latched)
		return;
	ch->status = (u8)(output(p, n, eng_now_ns()) << 7 | p->null_count[n] << 6 | ch->rw_mode << 4 |
			  ch->mode << 1 | ch->bcd);
	ch->status_latched = 1;
}

/* ---- ports ---- */

static void write_control(struct irqchip *c, u8 v)
{
	struct pit *p = &c->pit;
	unsigned n = v >> 6, access = v >> 4 & 3;
	channel_t *ch = &p->s.channels[n % 3];

	if (n == 3) { /* read-back: bits 5 and 4 low ask for count and status */
		for (unsigned i = 0; i < 3; i++) {
			if (!(v & BIT(i + 1)))
				continue;
			if (!(v & BIT(5)))
				latch_count(p, i);
			if (!(v & BIT(4)))
				latch_status(p, i);
		}
		return;
	}
	if (!access) {
		latch_count(p, n);
		return;
	}
	ch->rw_mode = ch->read_state = ch->write_state = (u8)access;
	ch->mode = v >> 1 & 7;
	if (ch->mode > 5)
		ch->mode -= 4;
	ch->bcd = v & 1;
	ch->count_latched = ch->status_latched = 0;
	p->null_count[n] = true;
	p->paused[n] = 0;
	if (ch->mode == 1 || ch->mode == 5)
		ch->count_load_time = 0; /* long ago: not triggered yet */
	if (n == 0)
		plan_locked(c, eng_now_ns());
}

static void write_count(struct irqchip *c, unsigned n, u8 v)
{
	channel_t *ch = &c->pit.s.channels[n];

	switch (ch->write_state) {
	case RW_LSB:
		load_count(c, n, v);
		break;
	case RW_MSB:
		load_count(c, n, (u32)v << 8);
		break;
	case RW_WORD0:
		ch->write_latch = v;
		ch->write_state = RW_WORD1;
		break;
	default:
		ch->write_state = RW_WORD0;
		load_count(c, n, (u32)v << 8 | ch->write_latch);
		break;
	}
}

static u8 read_latched(channel_t *ch)
{
	switch (ch->count_latched) {
	case RW_LSB:
		ch->count_latched = 0;
		return (u8)ch->latched_count;
	case RW_WORD0:
		ch->count_latched = RW_MSB;
		return (u8)ch->latched_count;
	default:
		ch->count_latched = 0;
		return (u8)(ch->latched_count >> 8);
	}
}

static u8 read_count(struct pit *p, unsigned n)
{
	channel_t *ch = &p->s.channels[n];
	u16 v = 0;

	if (ch->status_latched) {
		ch->status_latched = 0;
		return ch->status;
	}
	if (ch->count_latched)
		return read_latched(ch);
	v = counter_value(p, n, eng_now_ns());
	switch (ch->read_state) {
	case RW_LSB:
		return (u8)v;
	case RW_WORD0:
		ch->read_state = RW_WORD1;
		return (u8)v;
	case RW_WORD1:
		ch->read_state = RW_WORD0;
		return (u8)(v >> 8);
	default:
		return (u8)(v >> 8);
	}
}

/* Port 61H: gate 2, speaker, refresh toggle (about 15 us), OUT 2. */
static u8 read_speaker(const struct pit *p)
{
	u64 now = eng_now_ns();

	return (u8)(p->s.channels[2].gate | !!(p->s.flags & KVM_PIT_FLAGS_SPEAKER_DATA_ON) << 1 |
		    (now >> 14 & 1) << 4 | output(p, 2, now) << 5);
}

static void write_speaker(struct pit *p, u8 v)
{
	p->s.flags &= ~(u32)KVM_PIT_FLAGS_SPEAKER_DATA_ON;
	if (v & 2)
		p->s.flags |= KVM_PIT_FLAGS_SPEAKER_DATA_ON;
	set_gate(p, 2, v & 1);
}

static bool is_speaker(const struct pit *p, u16 port)
{
	return port == 0x61 && p->speaker;
}

static bool is_pit(const struct irqchip *c, u16 port)
{
	return c->pit.present && ((port & ~3) == 0x40 || is_speaker(&c->pit, port));
}

bool pit_port_read(struct irqchip *c, u16 port, u8 *v)
{
	if (!is_pit(c, port))
		return false;
	eng_lock(&c->lock);
	if (is_speaker(&c->pit, port))
		*v = read_speaker(&c->pit);
	else
		*v = port == 0x43 ? 0 : read_count(&c->pit, port & 3);
	eng_unlock(&c->lock);
	return true;
}

bool pit_port_write(struct irqchip *c, u16 port, u8 v)
{
	if (!is_pit(c, port))
		return false;
	eng_lock(&c->lock);
	if (is_speaker(&c->pit, port))
		write_speaker(&c->pit, v);
	else if (port == 0x43)
		write_control(c, v);
	else
		write_count(c, port & 3, v);
	eng_unlock(&c->lock);
	return true;
}

/* ---- creation and state ---- */

static void channel_reset(struct pit *p, unsigned n)
{
	p->s.channels[n] = (channel_t){
	    .count = 65536,
	    .mode = 3,
	    .rw_mode = RW_WORD0,
	    .read_state = RW_WORD0,
	    .write_state = RW_WORD0,
	    .gate = n != 2,
	};
	p->null_count[n] = true;
}

int pit_create(struct vm *vm, const struct kvm_pit_config *cfg)
{
	struct irqchip *c = vm->irqchip;

	if (!c)
		return -ENOENT;
	if (c->pit.present)
		return -EEXIST;
	if (cfg->flags & ~(u32)KVM_PIT_SPEAKER_DUMMY)
		return -EINVAL;
	eng_lock(&c->lock);
	for (unsigned n = 0; n < 3; n++)
		channel_reset(&c->pit, n);
	c->pit.speaker = cfg->flags & KVM_PIT_SPEAKER_DUMMY;
	c->pit.timer.fn = pit_fired;
	c->pit.timer.arg = c;
	c->pit.present = true;
	eng_unlock(&c->lock);
	return 0;
}

int pit_get(struct vm *vm, struct kvm_pit_state2 *s)
{
	struct irqchip *c = vm->irqchip;

	if (!c || !c->pit.present)
		return -ENXIO;
	eng_lock(&c->lock);
	*s = c->pit.s;
	for (unsigned n = 0; n < 3; n++)
		if (c->pit.null_count[n])
			s->channels[n].count = 0;
	eng_unlock(&c->lock);
	return 0;
}

static bool channel_valid(const channel_t *ch)
{
	return ch->count <= 65536 && (ch->mode <= 5 || ch->mode == MODE_NONE) && ch->rw_mode <= RW_WORD0 &&
	       ch->read_state <= RW_WORD1 && ch->write_state <= RW_WORD1 && ch->count_latched <= RW_WORD1 &&
	       ch->bcd <= 1 && ch->gate <= 1;
}

/* As in KVM the counters start anew: the load time is of another clock. A count of 0 was never loaded. */
static void channel_restore(struct pit *p, unsigned n, const channel_t *from, u64 now)
{
	channel_t *ch = &p->s.channels[n];

	*ch = *from;
	p->null_count[n] = !ch->count;
	p->paused[n] = gate_pauses(ch) && !ch->gate;
	if (!ch->count)
		ch->count = 65536;
	if (ch->count == 1)
		ch->count = 2;
	if (ch->mode == MODE_NONE) {
		ch->mode = 3;
		p->null_count[n] = true;
	}
	if (!ch->rw_mode)
		ch->rw_mode = RW_WORD0;
	if (!ch->read_state)
		ch->read_state = ch->rw_mode;
	if (!ch->write_state)
		ch->write_state = ch->rw_mode;
	ch->count_load_time = (s64)now;
}

int pit_set(struct vm *vm, const struct kvm_pit_state2 *s)
{
	struct irqchip *c = vm->irqchip;
	u64 now = eng_now_ns();

	if (!c || !c->pit.present)
		return -ENXIO;
	for (unsigned n = 0; n < 3; n++)
		if (!channel_valid(&s->channels[n]))
			return -EINVAL;
	eng_lock(&c->lock);
	for (unsigned n = 0; n < 3; n++)
		channel_restore(&c->pit, n, &s->channels[n], now);
	c->pit.s.flags = s->flags & (KVM_PIT_FLAGS_HPET_LEGACY | KVM_PIT_FLAGS_SPEAKER_DATA_ON);
	plan_locked(c, now);
	eng_unlock(&c->lock);
	return 0;
}
