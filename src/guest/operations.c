#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/reboot.h>
#include <unistd.h>

#include "guest/operations.h"

void agent_sync(const struct agent *a)
{
	for (unsigned i = 0; i < a->shares.n; i++)
		syncfs(a->shares.fd[i]);
	if (!a->temporary)
		sync();
}

void agent_power_off(const struct agent *a)
{
	kill(-1, SIGTERM);
	usleep(100 * 1000);
	agent_sync(a);
	reboot(RB_POWER_OFF);
	_exit(1);
}

static void finish(struct stream *s, int e)
{
	stream_put_u32(s, F_EXIT, EXIT_STATUS, e ? 1 : 0, 2);
	stream_flush(s, true);
}

static void op_sync(const struct agent *a, const struct request *r, struct stream *s)
{
	agent_sync(a);
	finish(s, 0);
}

static void op_poweroff(const struct agent *a, const struct request *r, struct stream *s)
{
	finish(s, 0);
	agent_power_off(a);
}

static void op_diff(const struct agent *a, const struct request *r, struct stream *s)
{
	finish(s, layer_changes(a, r->argv.v, false, s));
}

static void op_export(const struct agent *a, const struct request *r, struct stream *s)
{
	finish(s, layer_changes(a, r->argv.v, true, s));
}

static const struct {
	uint32_t op;
	void (*serve)(const struct agent *a, const struct request *r, struct stream *s);
} operations[] = {{OP_SYNC, op_sync}, {OP_POWEROFF, op_poweroff}, {OP_DIFF, op_diff}, {OP_EXPORT, op_export}};

void operation_serve(const struct agent *a, const struct request *r, struct stream *s)
{
	for (unsigned i = 0; i < sizeof(operations) / sizeof(operations[0]); i++) {
		if (operations[i].op == r->operation) {
			operations[i].serve(a, r, s);
			return;
		}
	}
	stream_fail(s, EOPNOTSUPP, "the agent of this duplicate does not know that");
}
