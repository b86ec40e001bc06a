#!/bin/bash
# Programs that are hard on a translator, in a duplicate of this machine: each must print there what it prints here. What is not
# installed here is skipped.
#
#   SOAK_ROUNDS    rounds (default 2)
#   SOAK_CPUS      numbers of vCPUs (default "1 2 4")
#   SOAK_PROGRAMS  which (default all)
set -u
rounds=${SOAK_ROUNDS:-2} cpus=${SOAK_CPUS:-1 2 4}
here=$(cd "$(dirname "$0")" && pwd)/programs
doppel=${DOPPEL:-$(dirname "${DOPPEL_ENGINE:-build/doppel-engine}")/doppel}
passed=0 failed=0 skipped=0
tmp=$(mktemp -d /var/tmp/doppel-programs.XXXXXX)
trap 'rm -rf "$tmp"' EXIT

declare -A run need
need[gcc]='gcc' run[gcc]="gcc -O2 -c -x c - -o big.o <big.c && objdump -d big.o | md5sum"
need[cc_and_run]='gcc' run[cc_and_run]="gcc -O3 -mavx2 -o sums sums.c && ./sums"
need[python]='python3' run[python]="python3 mix.py"
need[perl]='perl' run[perl]="perl text.pl"
need[java]='java javac' run[java]="javac -d . Hot.java && java -Xmx256m Hot"
need[java_c1]='java javac' run[java_c1]="javac -d . Hot.java && java -Xmx256m -XX:TieredStopAtLevel=1 Hot"
need[java_int]='java javac' run[java_int]="javac -d . Hot.java && java -Xmx256m -Xint -version 2>&1 | head -n1"
need[node]='node' run[node]="node jit.js"
need[go]='go' run[go]="GOCACHE=\$PWD/cache go run threads.go"
need[i386]='gcc' run[i386]="./signals32 && ./threads32"
need[signals]='gcc' run[signals]="gcc -O2 -o signals signals.c -lm && ./signals"
need[threads]='gcc' run[threads]="gcc -O2 -mcx16 -pthread -o threads threads.c && ./threads"
need[gdb]='gcc gdb' run[gdb]="gcc -g -O1 -o sums sums.c && gdb -q -batch -ex 'break add' -ex run -ex 'bt 2' -ex 'stepi 50' -ex finish -ex 'watch total' -ex continue -ex 'p total' ./sums 2>&1 | grep -vE 'process|0x|warning|libthread|debuginfod'"
need[compress]='xz' run[compress]="xz -9 -c big.c | xz -dc | sha256sum; gzip -9 -c big.c | sha256sum"
need[shell]='awk' run[shell]="for i in \$(seq 60); do echo \$i | awk '{ print \$1 * 3 }' | sed s/3/x/; done | md5sum"

# a large C file, from what every machine with a compiler has
make_sources()
{
	cp "$here"/* "$tmp/"
	for i in $(seq 400); do
		echo "static int f$i(int a, const char *s) { int n = a; for (; *s; s++) n = n * $((i * 37 + 1)) ^ (*s << (a & $((i % 7)))); "
		echo "switch (n % 9) { case 0: return n; case $((i % 8 + 1)): return n / 3; default: return n > a ? n - $i : a; } }"
	done >"$tmp/big.c"
	{ echo "int all(int a, const char *s) { int t = 0;"; for i in $(seq 400); do echo "t += f$i(a + $i, s);"; done; echo "return t; }"; } >>"$tmp/big.c"
	cat >"$tmp/sums.c" <<-'END'
		#include <stdio.h>
		static float a[4096], b[4096];
		static double total;
		__attribute__((noinline)) static double add(int k) { double s = 0; for (int i = 0; i < 4096; i++) s += a[i] * b[(i + k) & 4095]; return s; }
		int main(void)
		{
			for (int i = 0; i < 4096; i++)
				a[i] = i % 17 - 8, b[i] = i % 13 * 0.5f;
			for (int k = 0; k < 2000; k++)
				total += add(k);
			printf("%.3f\n", total);
			return 0;
		}
	END
	cat >"$tmp/threads.go" <<-'END'
		package main

		import ("fmt"; "sort"; "sync")

		func main() {
			var mu sync.Mutex
			m := map[int]int{}
			c := make(chan int)
			var wg sync.WaitGroup
			for g := 0; g < 16; g++ {
				wg.Add(1)
				go func(g int) { defer wg.Done(); for i := 0; i < 5000; i++ { mu.Lock(); m[i%(g+1)] += i; mu.Unlock(); if i%50 == 0 { c <- i } } }(g)
			}
			go func() { wg.Wait(); close(c) }()
			n := 0
			for v := range c { n += v }
			k := []int{}
			for x := range m { k = append(k, m[x]) }
			sort.Ints(k)
			fmt.Println(n, k)
		}
	END
	gcc -m32 -O2 -o "$tmp/signals32" "$tmp/signals.c" -lm 2>/dev/null
	gcc -m32 -march=i686 -O2 -pthread -o "$tmp/threads32" "$tmp/threads.c" 2>/dev/null
}

usable()
{
	local p
	for p in ${need[$1]}; do
		command -v "$p" >/dev/null || return 1
	done
	[ "$1" != i386 ] || [ -x "$tmp/threads32" -a -x "$tmp/signals32" ]
}

one() # name, vCPUs
{
	local want got status
	want=$(cd "$tmp" && bash -c "${run[$1]}" 2>&1)
	got=$(cd "$tmp" && timeout "${PROGRAM_TIMEOUT:-180}" "$doppel" run -q --cpus "$2" --memory 2G -- bash -c "${run[$1]}" 2>&1 </dev/null)
	status=$?
	if [ "$status" = 0 ] && [ "$got" = "$want" ]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "FAILED: $1 on $2 vCPUs: status $status"
		diff <(echo "$want") <(echo "$got") | head -n 12
	fi
}

make_sources
for round in $(seq "$rounds"); do
	for n in $cpus; do
		for p in ${SOAK_PROGRAMS:-$(printf '%s\n' "${!run[@]}" | sort)}; do
			if usable "$p"; then
				one "$p" "$n"
			else
				skipped=$((skipped + 1))
			fi
		done
	done
	echo "round $round: $passed passed, $failed failed so far"
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
