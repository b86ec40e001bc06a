import collections, decimal, hashlib, json, random, re, sqlite3, struct, zlib

random.seed(7)
data = bytes(random.randrange(256) for _ in range(200000))
out = [hashlib.sha256(data).hexdigest()[:16], zlib.crc32(zlib.compress(data, 6)), len(zlib.compress(b"abc" * 50000))]
decimal.getcontext().prec = 60
out.append(str(decimal.Decimal(2).sqrt())[:30])
out.append(sum(pow(i, 65537, 1000003) for i in range(3000)))
db = sqlite3.connect(":memory:")
db.execute("create table t(a integer, b text)")
db.executemany("insert into t values(?, ?)", ((i * 7919 % 1009, "x%d" % i) for i in range(20000)))
out.append(db.execute("select count(distinct a), sum(a), max(b) from t where a % 3 = 1").fetchone())
out.append(collections.Counter(re.findall(r"\b\w", json.dumps(list(range(3000))))).most_common(3))
out.append(struct.unpack("<d", struct.pack("<d", 0.1 + 0.2))[0])


def gen(n):
    for i in range(n):
        try:
            if i % 7 == 3:
                raise ValueError(i)
            yield i
        except ValueError as e:
            yield -e.args[0]


out.append(sum(gen(100000)))
print(out)
