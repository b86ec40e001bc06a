# Runs inside gdb, connected to the guest of tests/debug/guest before its first instruction. Prints "ok N" and "not ok" lines.
import os
import signal
import threading

import gdb

passed = failed = 0
# A /dev/kvm without vmx or svm emulates some instructions and lacks others: INT3, returns to ring 3.
soft_kvm = os.environ.get("ENGINE") == "soft-kvm"


last_stop = None


def on_stop(event):
    global last_stop
    last_stop = event


gdb.events.stop.connect(on_stop)


def hit(kind):
    points = getattr(last_stop, "breakpoints", [])
    check(kind + " was hit", len(points) == 1 and points[0].expression == kind, [p.expression for p in points])


def run(command):
    return gdb.execute(command, to_string=True)


def value(text):
    if "$cr" in text or "$efer" in text:  # of a type that has names for bits: print/x alone takes it
        return int(run("print/x " + text).split()[-1], 16)
    return int(gdb.parse_and_eval(text))


def check(what, good, detail=""):
    global passed, failed
    if good:
        passed += 1
    else:
        failed += 1
        print("not ok: %s: %s" % (what, detail))


def same(what, a, b):
    check(what, a == b, "%s, not %s" % (a, b))


def at(function):
    frame = gdb.newest_frame()
    check("stopped in " + function, frame.name() == function, "in %s, %#x" % (frame.name(), frame.pc()))


def frames():
    names, f = [], gdb.newest_frame()
    while f and len(names) < 20:
        names.append(f.name())
        f = f.older()
    return names


def pc():
    return value("(unsigned long)$pc")


def symbol(name):
    return value("(unsigned long)&" + name)


def start():
    same("two threads", sorted(t.num for t in gdb.selected_inferior().threads()), [1, 2])
    at("start")
    run("hbreak guest_main")
    run("continue")
    at("guest_main")
    run("delete")
    if soft_kvm:
        run("set var limited = 1")
    check("CR0, EFER", value("$cr0") >> 31 == 1 and value("$efer") & 0x500 == 0x500, run("info registers cr0 efer"))


def calls():
    run("break factorial if n == 1")
    run("continue")
    same("backtrace", frames()[:6], ["factorial"] * 5 + ["guest_main"])
    run("delete")
    run("finish")
    same("returned", last_stop.return_value if hasattr(last_stop, "return_value") else value("$rax"), 1)
    run("finish")
    same("returned", value("$rax"), 2)
    same("value history", value("$"), 2)
    run("break bump")
    run("continue")
    at("bump")
    before = value("counter")
    same("argument", value("by"), 2)
    run("finish")
    same("a variable", value("counter"), before + 2)
    run("set var counter = 1000")
    run("continue")
    check("a variable set", 1000 <= value("counter") <= 1001, value("counter"))
    run("delete")


def second_processor():
    run("hbreak *0x8000")
    run("continue")
    same("the other processor's first instruction", (gdb.selected_thread().num, pc()), (2, 0x8000))
    same("real mode", value("$cr0") & 1, 0)
    run("stepi")
    same("a step in real mode", pc(), 0x8001)
    run("delete")


def both():
    run("break ap_work")
    run("continue")
    same("thread of ap_work", gdb.selected_thread().num, 2)
    at("ap_work")
    run("delete")
    run("break bump")
    run("break ap_work")
    seen = {1: 0, 2: 0}
    for _ in range(1000):  # the busier one stops all, and the other gets little done meanwhile
        if min(seen.values()) > 2:
            break
        run("continue")
        seen[gdb.selected_thread().num] += 1
    check("both threads met theirs", seen[1] > 0 and seen[2] > 0, seen)
    run("delete")
    run("thread 1")
    check("thread 1 is somewhere", gdb.newest_frame().is_valid(), "")
    run("break bump thread 1")
    run("continue")
    same("a breakpoint of one thread", gdb.selected_thread().num, 1)
    run("delete")


def watching():
    run("watch watched")
    last = None
    for _ in range(5):
        run("continue")
        at("touch_watched")
        now = value("watched")
        check("the watched variable grew by one", last is None or now == last + 1, (last, now))
        last = now
    run("delete")
    run("rwatch rounds")
    run("continue")
    hit("rounds")
    run("delete")
    run("awatch watched")
    run("continue")
    hit("watched")
    run("delete")
    run("watch neighbour")
    run("continue")
    hit("neighbour")
    run("delete")


def stepping():
    run("break own_int3")
    run("continue")
    at("own_int3")
    run("delete")
    before = value("breakpoints")
    run("stepi")
    at("breakpoint_entry")
    run("break after_own_int3")
    run("continue")
    same("the guest's own INT3 is its own", value("breakpoints"), before + 1)
    run("delete")
    run("break factorial")
    run("continue")
    run("delete")
    run("hbreak user_syscall")
    run("continue")
    same("ring 3", value("$cs") & 3, 3)
    run("delete")
    run("stepi")
    same("SYSCALL", (pc(), value("$cs") & 3), (symbol("syscall_entry"), 0))
    run("hbreak syscall_return")
    run("continue")
    run("delete")
    for _ in range(3):
        run("stepi")
    run("stepi")
    same("SYSRET", (pc(), value("$cs") & 3), (symbol("user_after"), 3))
    run("hbreak iret_to_user")
    run("continue")
    run("delete")
    run("stepi")
    same("IRET", (pc(), value("$cs") & 3), (symbol("user_code"), 3))
    ticks = value("ticks")
    run("hbreak guest_main")
    run("delete")
    run("break touch_watched")
    run("continue")
    run("delete")
    names = set()
    for _ in range(60):
        run("stepi")
        names.add(gdb.newest_frame().name())
    check("steps end in no interrupt handler", not names & {"timer_entry", "on_timer"}, names)
    run("break touch_watched")
    for _ in range(40):
        run("continue")
    check("the timer goes on meanwhile", value("ticks") > ticks, value("ticks"))
    run("delete")


def hot():
    run("break ap_work")
    run("continue")
    at("ap_work")
    before = value("ap_rounds")
    for _ in range(100):
        run("continue")
    check("100 hits", before + 40 <= value("ap_rounds") <= before + 101, (before, value("ap_rounds")))
    run("delete")


def interrupt():
    run("thread 1")
    before = value("ap_rounds")
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    run("continue")
    timer.join()
    same("Ctrl-C", getattr(last_stop, "stop_signal", last_stop), "SIGINT")
    check("both ran meanwhile", value("ap_rounds") > before)


def memory():
    run("thread 1")
    same("code is shown without breakpoints", run("x/1xb own_int3").split()[-1], "0xcc")
    run("break bump")
    byte = run("x/1xb bump")
    check("a breakpoint is not seen", "0xcc" not in byte, byte)
    run("delete")
    try:
        run("x/1xb 0x800000000000")
        check("not canonical", False)
    except gdb.MemoryError:
        check("not canonical", True)
    text = run("monitor page 0x100000")
    check("monitor page", "PML4E" in text and "physical 0000100000" in text, text)
    text = run("monitor info registers")
    check("monitor info registers", "cr3" in text and "64-bit" in text, text)
    text = run("monitor irqs")
    check("monitor irqs", "local APIC" in text, text)
    check("monitor exits", "vCPU" in run("monitor exits"), "")
    check("monitor help", "page" in run("monitor help"), "")
    check("monitor nonsense", "No such command" in run("monitor nonsense"), "")
    run("set $r15 = 0x1234567890abcdef")
    same("a register set", value("$r15"), 0x1234567890ABCDEF)
    run("set $xmm3.v2_int64[1] = 42")
    same("a vector register set", value("$xmm3.v2_int64[1]"), 42)
    same("ST0 is there", run("p $st0").split()[-1], "0")
    same("FCTRL", value("$fctrl"), 0x37F)


def end():
    run("break bump thread 1")
    run("continue")
    run("delete")
    run("set var stop_now = 1")
    gdb.events.exited.connect(on_stop)
    run("continue")
    check("the end is told", isinstance(last_stop, gdb.ExitedEvent) and last_stop.exit_code == 0, last_stop)


try:
    for part in (start, second_processor, memory) if soft_kvm else (
        start, second_processor, calls, both, watching, stepping, hot, interrupt, memory, end):
        part()
except (gdb.error, KeyboardInterrupt) as e:
    check(part.__name__, False, e)
print("%d passed, %d failed" % (passed, failed))
