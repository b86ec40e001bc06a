/* Futexes and atomics on many threads; the sums say whether one was lost. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#define THREADS 8
#define ROUNDS  20000

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turned = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static long plain, turn;
static atomic_long shared;
#ifdef __x86_64__
static unsigned __int128 wide __attribute__((aligned(16)));
#define WIDEN                                                                                       \
	for (unsigned __int128 w = wide; !__sync_bool_compare_and_swap(&wide, w, w + ((unsigned __int128)1 << 64 | 3));) \
		w = wide
#else
static unsigned long long wide __attribute__((aligned(8)));
#define WIDEN __sync_fetch_and_add(&wide, 3)
#endif
static atomic_flag spin = ATOMIC_FLAG_INIT;
static long spun;

static void *work(void *arg)
{
	long me = (long)arg;

	for (int i = 0; i < ROUNDS; i++) {
		pthread_mutex_lock(&lock);
		plain++;
		pthread_mutex_unlock(&lock);
		atomic_fetch_add(&shared, me);
		while (atomic_flag_test_and_set(&spin))
			;
		spun++;
		atomic_flag_clear(&spin);
		WIDEN;
	}
	for (int i = 0; i < 200; i++) {
		pthread_mutex_lock(&lock);
		while (turn % THREADS != me)
			pthread_cond_wait(&turned, &lock);
		turn++;
		pthread_cond_broadcast(&turned);
		pthread_mutex_unlock(&lock);
		if (i % 20 == 0)
			pthread_barrier_wait(&barrier);
	}
	return NULL;
}

int main(void)
{
	pthread_t t[THREADS];

	pthread_barrier_init(&barrier, NULL, THREADS);
	for (long i = 0; i < THREADS; i++)
		pthread_create(&t[i], NULL, work, (void *)i);
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	printf("plain %ld shared %ld spun %ld wide %llx turn %ld\n", plain, (long)shared, spun, (unsigned long long)wide, turn);
	return 0;
}
