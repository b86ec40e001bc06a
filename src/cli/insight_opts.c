/* --symbols, --panic, --autopsy, --branches. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cli/insight_opts.h"
#include "debug/symbols.h"
#include "kvm/chan.h"
#include "vmm/insight.h"

#define FILE_MAX (4ull << 30) /* a kernel with debugging information has some 500 MiB */

static int read_symbols(struct insight_options *o, struct err *e)
{
	void *data = NULL;
	u64 n = 0;
	int ret = read_file(o->symbols, FILE_MAX, &data, &n);

	if (ret)
		return err_set(e, -ret, "--symbols %s: %s", o->symbols, strerror(-ret));
	o->table = symbols_new();
	ret = o->table ? symbols_from_file(o->table, data, n, 0) : -ENOMEM;
	free(data);
	if (ret || !symbols_count(o->table))
		return err_set(e, EINVAL, "--symbols %s: neither an ELF file with symbols nor a System.map", o->symbols);
	symbols_sort(o->table);
	return 0;
}

int insight_options_open(struct insight_options *o, struct machine_config *cfg, struct err *e)
{
	int ret = 0;

	o->fd = -1;
	cfg->autopsy_on_panic = o->panic && !strcmp(o->panic, "autopsy");
	if (o->panic && !cfg->autopsy_on_panic && strcmp(o->panic, "exit") != 0)
		return err_set(e, EINVAL, "--panic %s: not an answer to a panic (exit, autopsy)", o->panic);
	if (o->symbols)
		ret = read_symbols(o, e);
	if (!ret && o->autopsy) {
		o->fd = open(o->autopsy, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
		if (o->fd < 0)
			ret = err_set(e, errno, "--autopsy %s: %s", o->autopsy, strerror(errno));
	}
	cfg->autopsy_fd = MAX(o->fd, 0);
	cfg->symbols = o->table;
	return ret;
}

int insight_options_start(const struct insight_options *o, struct machine *m, struct err *e)
{
	int ret = m->cfg.autopsy_on_panic || o->branches ? machine_record(m, DOPPEL_RECORD_ARRIVALS, 0) : 0;

	if (ret == -ENOTTY && !o->branches)
		return 0; /* a kernel KVM: the autopsy does without */
	return ret ? err_set(e, -ret, "--branches: %s", ret == -ENOTTY ? "needs doppel's own engine" : strerror(-ret)) : 0;
}

void insight_options_free(struct insight_options *o)
{
	if (o->fd > 0)
		close(o->fd);
	symbols_free(o->table);
}
