/* Fuzzes the control socket's framing and JSON: random and mutated messages, in random pieces. */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "vmm/qmp.h"

static u64 rng_state;

static u64 rng(void)
{
	u64 z = (rng_state += 0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	return z ^ z >> 27;
}

int main(int argc, char **argv)
{
	static const char alphabet[] = "{}[]\"\\,:\n ae0-truenl.";
	static const char *const good[] = {"{\"execute\": \"query-status\", \"id\": [1, {\"a\": null}]}", "{\"execute\":\"stop\"}\r\n"};
	u64 seconds = argc > 1 ? strtoull(argv[1], NULL, 0) : 5, runs = 0, frames = 0;
	u64 seed = argc > 2 ? strtoull(argv[2], NULL, 0) : (u64)time(NULL);
	time_t end = time(NULL) + (time_t)seconds;

	rng_state = seed;
	printf("seed %llu\n", (unsigned long long)seed);
	fflush(stdout);
	while (time(NULL) < end) {
		for (int i = 0; i < 1000; i++, runs++) {
			size_t n = rng() % 200, at = 0, got = 0;
			char *p = malloc(n + 1);

			for (size_t k = 0; k < n; k++)
				p[k] = alphabet[rng() % (sizeof(alphabet) - 1)];
			if (rng() & 1) {
				const char *g = good[rng() % ARRAY_SIZE(good)];

				memcpy(p, g, MIN(n, strlen(g)));
				if (n)
					p[rng() % n] = alphabet[rng() % (sizeof(alphabet) - 1)];
			}
			while (at < n && (got = qmp_frame(p + at, n - at))) {
				if (got > n - at) {
					printf("frame longer than its input\n0 passed, 1 failed\n");
					return 1;
				}
				cJSON_Delete(cJSON_ParseWithLength(p + at, got));
				at += got;
				frames++;
			}
			free(p);
		}
	}
	printf("%llu inputs, %llu frames\n1 passed, 0 failed\n", (unsigned long long)runs, (unsigned long long)frames);
	return 0;
}
