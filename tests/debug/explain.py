#!/usr/bin/env python3
"""Sensitive instructions are seen exactly, and alike by interpreter and translator; doppel explain and the texts of docs/learn."""
import json, os, re, subprocess, sys, tempfile

build = sys.argv[1]
doppel = build + "/doppel"
passed = failed = 0
EXAMPLES = ["popf", "tables", "trap", "smc", "interrupts", "balloon"]
SAID = {
    "popf": ["ring 0: IF before popf 0x0", "ring 0: IF after popf 0x1", "ring 3: IF after popf 0x0", "ring 3: traps 0x1"],
    "tables": ["after a read  0x200027", "after a write 0x200067", "faults before invlpg 0x0", "faults after invlpg 0x1"],
    "trap": ["!", "instructions that trapped and were emulated 0x7", "the guest sees CR3 0x2000"],
    "smc": ["first version  0x1", "second version 0x2", "sum of 0 to 999 0x79f2c", "third version  0x3"],
    "interrupts": ["faults of div 0x1", "with IF clear, handled 0x0", "after sti, handled 0x1", "timer interrupts that ended hlt 0x3"],
    "balloon": ["pages written once 0x10", "pages in use 0x4", "idle pages, for a balloon 0xc"],
}


def check(good, what):
    global passed, failed
    if good:
        passed += 1
    else:
        failed += 1
        print("not ok:", what)


def run(*args, timeout=120):
    return subprocess.run([doppel, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)


def events(engine, guest, kinds, stress=None):
    env = dict(os.environ, DOPPEL_TR_STRESS=stress) if stress else None
    with tempfile.TemporaryDirectory() as d:
        r = subprocess.run([doppel, "run", "-q", "--no-reboot", "--kernel", guest, "--engine", engine, "--trace",
                            f"{d}/t,format=json,wait,events={kinds}"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                           timeout=120, env=env)
        lines = [json.loads(line) for line in open(d + "/t")]
    check(r.returncode == 0, f"{guest} on {engine}: {r.stderr}")
    check(lines[-1]["kind"] == "end" and lines[-1]["lost"] == 0, f"{guest} on {engine}: events lost")
    return lines[:-1]


# What must be equal: not the time, and not what a clock or the host gave.
def plain(e):
    data = e["data"]
    if e.get("insn") in ("rdtsc", "rdtscp", "cpuid", "rdmsr", "in"):
        data = data[:1]
    return (e["kind"], e["what"], e["rip"], e["cpl"], e["fault"], tuple(data))


def first_difference(a, b):
    for i, (x, y) in enumerate(zip(a, b)):
        if x != y:
            return f"event {i}: {x} {y}"
    return f"{len(a)} and {len(b)} events"


def exact_counts():
    guest = build + "/tests/debug/count.elf"
    want = {"lgdt": 1, "jmp-far": 1, "mov-to-sreg": 5}
    for name in ("cli pushf popf smsw sgdt sidt sldt str mov-from-sreg push-sreg pop-sreg lar lsl verr verw cpuid rdtsc mov-from-cr "
                 "mov-to-cr mov-from-dr clts rdmsr in invlpg").split():
        want[name] = 100
    lists = {}
    for engine, stress in (("interp", None), ("translate", None), ("translate", "hot"), ("translate", "hot,one"), ("translate", "hot,check")):
        got = {}
        lists[engine, stress] = events(engine, guest, "insn", stress)
        for e in lists[engine, stress]:
            got[e["insn"]] = got.get(e["insn"], 0) + 1
        check(got == want, f"counts on {engine} {stress}: {got}")
    one = [plain(e) for e in lists["interp", None]]
    for key, other in lists.items():
        other = [plain(e) for e in other]
        check(other == one, f"interp and {key}: {first_difference(one, other)}")
    some = events("translate", guest, "cpuid,sidt")
    check(sorted({e["insn"] for e in some}) == ["cpuid", "sidt"] and len(some) == 200, "only chosen instructions")


def tiers_agree(name):
    guest = f"{build}/learn/{name}.elf"
    kinds = "insn,exception,irq,pt,mmio,pio"
    lists = [[plain(e) for e in events(engine, guest, kinds)] for engine in ("interp", "translate")]
    check(lists[0] == lists[1], f"{name}: {first_difference(*lists)}")


def explained(name):
    for engine in ("translate", "interp"):
        r = run("explain", "--json", "--engine", engine, name)
        check(r.returncode == 0, f"explain {name}: {r.stderr}")
        j = json.loads(r.stdout)
        for line in SAID[name]:
            check(line in j["console"].splitlines(), f"{name} on {engine} does not say: {line}")
        check(j["ended"] and j["status"] == 0, f"{name}: its end")
        check(all(s["met"] and s["text"] for s in j["steps"]), f"{name}: steps without words")
        check((len(j["translations"]) > 2) == (engine == "translate"), f"{name} on {engine}: translations")


def masked(line):
    line = re.sub(r"^ *[0-9]+\. ", "", line)
    line = re.sub(r"leaf \S+", "leaf N", line)
    return re.sub(r"\b(0x)?[0-9a-f]{5,16}\b", "N", line).strip()


# Each line of the text's transcripts that tells of a step is in the real output, in that order.
def text_is_real(path, name):
    text = open(path).read()
    real = [masked(line) for line in run("explain", "--brief", name).stdout.splitlines()]
    blocks = re.findall(r"```console\n(.*?)```", text, re.S)
    check(blocks and f"doppel explain" in text, f"{path}: no transcript")
    for block in blocks:
        at = 0
        for line in block.splitlines():
            if not re.match(r" *[0-9]+\. |      \S", line):
                continue
            want = masked(line)
            if want in real[at:]:
                at = real.index(want, at) + 1
            else:
                check(False, f"{path}: not in the output: {line}")
                return
        check(True, path)


def errors():
    for args, word in ((["nothere"], "No such file"), ([], "--list"), (["/dev/null"], "explain"), (["--engine", "kvm", "popf"], "translate")):
        r = run("explain", *args)
        lines = r.stderr.splitlines()
        check(r.returncode == 125 and len(lines) == 1 and lines[0].startswith("doppel: ") and word in lines[0], f"explain {args}: {r.stderr}")
    r = run("explain", "--list")
    check([line.split()[0] for line in r.stdout.splitlines()] == EXAMPLES, "explain --list")
    r = run("explain", "--for", "1", "--brief", "--limit", "5", build + "/tests/cli/guest.elf", "--append", "e")
    check(r.returncode == 0 and "was stopped" in r.stdout, "a guest that does not end: " + r.stderr)


exact_counts()
for n in EXAMPLES:
    tiers_agree(n)
    explained(n)
for f in sorted(os.listdir("docs/learn")):
    m = re.match(r"[0-9]-([a-z]+)\.md$", f)
    if m:
        text_is_real("docs/learn/" + f, m.group(1))
errors()
print(f"{passed} passed, {failed} failed")
sys.exit(failed != 0)
