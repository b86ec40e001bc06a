// Hot loops, deoptimisation, closures, typed arrays, BigInt, regular expressions: V8's tiers and its garbage collector.
function fib(n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
function poly(o) { return o.x + (o.y === undefined ? 1 : o.y); }
let s = 0;
for (let i = 0; i < 300000; i++) s += poly(i % 3 ? { x: i } : i % 5 ? { x: i, y: 2 } : { y: 0.5, x: i });
const f = new Float64Array(1 << 16);
for (let k = 0; k < 20; k++) for (let i = 0; i < f.length; i++) f[i] = f[i] * 0.5 + Math.sqrt(i + k);
let big = 1n;
for (let i = 1n; i < 400n; i++) big *= i;
const words = [];
for (let i = 0; i < 20000; i++) words.push("w" + (i * 7919 % 10007));
words.sort();
const gen = [];
for (let i = 0; i < 300; i++) gen.push(new Function("a", `return a * ${i} + (a & ${i});`)(i + 3));
console.log(fib(24), s, f[12345].toFixed(9), big.toString().length, words[777], gen.reduce((a, b) => a + b),
	"abcabcabd".repeat(500).match(/(abc)+abd/g).length, JSON.stringify(JSON.parse(JSON.stringify(gen))).length);
