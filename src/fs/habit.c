/*
 * How the guest reads directories. Linux asks for the attributes of all entries on the way (READDIRPLUS), or never, as
 * FUSE_INIT has settled; but `find -name` wants names, `find -newer` and `ls -l` want more. Attributes that nobody
 * asked for cost ten times what names do; attributes that are missing cost a request for each file.
 *
 * So we watch. While attributes are given, a few entries are left without: who asks for those uses the others too.
 * While only names are given, who asks for many of them wants attributes. Directories always have theirs: who walks
 * a tree goes into them.
 */
#include <dirent.h>
#include <time.h>

#include "fs/fs_int.h"

enum {
	STEP_FIRST = 16, /* every so many entries one is left without attributes; more rarely if those are wanted */
	STEP_LAST = 256, /* a request each: with 64, a third of those that find -newer makes */
	ENOUGH = 8, /* to judge by */
	MEMORY = 256, /* names given; of more before that only half counts */
	SETTLED_NS = 2000000000 /* a directory that was changed so long ago has another ctime when it changes again */
};

static void change_locked(struct fs_habit *h, bool names_only)
{
	*h = (struct fs_habit){.names_only = names_only, .step = STEP_FIRST};
}

bool habit_wants_attributes(struct fs *fs, struct fs_node *dir, u8 type)
{
	struct fs_habit *h = &fs->habit;

	if (type == DT_DIR || type == DT_UNKNOWN)
		return true;
	pthread_mutex_lock(&fs->lock);
	if (!h->step)
		h->step = STEP_FIRST;
	bool bare = h->names_only || ++h->count >= h->step;

	if (bare) {
		h->count = 0;
		h->bare++;
		dir->bare++;
	}
	pthread_mutex_unlock(&fs->lock);
	return !bare;
}

/* An entry of dir was asked for by name, and is there. */
void habit_looked_up(struct fs *fs, struct fs_node *dir)
{
	struct fs_habit *h = &fs->habit;

	pthread_mutex_lock(&fs->lock);
	if (dir->bare) {
		dir->bare--;
		h->asked++;
		if (h->names_only && h->asked * 8 >= MAX(h->bare, (u32)ENOUGH))
			change_locked(h, false);
		else if (!h->names_only)
			h->step = MIN(h->step * 2, (u32)STEP_LAST);
	}
	pthread_mutex_unlock(&fs->lock);
}

/* Between two directories. */
static void judge_locked(struct fs_habit *h)
{
	if (!h->names_only && h->bare >= ENOUGH) {
		if (h->asked * 4 < h->bare)
			change_locked(h, true);
		h->bare = h->asked = 0;
	}
	if (h->bare >= MEMORY) {
		h->bare /= 2;
		h->asked /= 2;
	}
}

static s64 ns_of(const struct statx_timestamp *t)
{
	return t->tv_sec * 1000000000 + t->tv_nsec;
}

/* Old enough that its next change will show. */
static bool settled(s64 ctime)
{
	struct timespec now = {0};

	clock_gettime(CLOCK_REALTIME, &now);
	return ctime < now.tv_sec * 1000000000 + now.tv_nsec - SETTLED_NS;
}

/*
 * What the guest may do with the list of a directory's entries (FOPEN_*). Keep it for ever, if nobody else changes the
 * share; else as long as our ctime has not changed: that is looked at each time the directory is opened. A list
 * without attributes is not kept for someone who wants them, and one with them serves for a second anyway.
 */
u32 habit_opened_dir(struct fs *fs, struct fs_node *dir, const struct statx *st)
{
	s64 ctime = ns_of(&st->stx_ctime);
	bool always = fs->o.cache == FS_CACHE_ALWAYS, keep = false, cache = false;

	if (fs->o.cache == FS_CACHE_NEVER)
		return 0;
	pthread_mutex_lock(&fs->lock);
	judge_locked(&fs->habit);
	cache = always || (fs->habit.names_only && settled(ctime));
	keep = cache && dir->listed && (always || dir->listed == ctime) && (fs->habit.names_only || !dir->bare_list);
	if (!keep) {
		dir->bare = 0;
		dir->bare_list = fs->habit.names_only;
	}
	dir->listed = cache ? ctime : 0;
	pthread_mutex_unlock(&fs->lock);
	return (cache ? FOPEN_CACHE_DIR : 0) | (keep ? FOPEN_KEEP_CACHE : 0);
}
