# Runs inside gdb, with the symbols of a Debian kernel (doppel symbols -o). PART: boot (the VM waits for gdb) or run (it runs).
import gdb
import os

passed = failed = 0
last_stop = None
quiet = os.open("/dev/null", os.O_WRONLY)
terminal = os.dup(1)


def on_stop(event):
    global last_stop
    last_stop = event


def run(command):
    gdb.flush()
    os.dup2(quiet, 1)  # what gdb says of stops does not go through to_string
    try:
        return gdb.execute(command, to_string=True)
    finally:
        gdb.flush()
        os.dup2(terminal, 1)


def value(text):
    return int(gdb.parse_and_eval(text))


def check(what, good, detail=""):
    global passed, failed
    if good:
        passed += 1
    else:
        failed += 1
        print("not ok: %s: %s" % (what, detail))


def at(function):
    name = gdb.newest_frame().name()
    check("stopped in " + function, name == function, name)


def boot():
    check("paging is off", int(run("print/x $cr0").split()[-1], 16) >> 31 == 0)
    run("hbreak start_kernel")
    run("continue")
    at("start_kernel")
    check("paging is on", int(run("print/x $cr0").split()[-1], 16) >> 31 == 1)
    run("delete")
    run("break rest_init")
    run("continue")
    at("rest_init")
    text = run("monitor backtrace")
    check("ORC knows the callers", "start_kernel" in text or "rest_init" in text, text)
    run("delete")
    run("break kernel_init")
    run("continue")
    at("kernel_init")
    run("delete")


def hot():
    run("break __x64_sys_openat")
    run("continue")
    at("__x64_sys_openat")
    text = run("monitor backtrace")
    check("backtrace to the entry", "do_syscall_64" in text and "entry_SYSCALL_64" in text, text)
    run("finish")
    check("finish", gdb.newest_frame().name() != "__x64_sys_openat", gdb.newest_frame().name())
    run("delete")
    run("break __x64_sys_read")
    for _ in range(200):
        run("continue")
        if gdb.newest_frame().name() != "__x64_sys_read":
            return check("200 hits", False, gdb.newest_frame().name())
    check("200 hits", True)
    run("delete")


def hardware():
    run("hbreak vfs_read")
    for _ in range(20):
        run("continue")
        at("vfs_read")
    run("delete")
    run("watch *(unsigned long *)&jiffies")
    before = value("*(unsigned long *)&jiffies")
    for _ in range(10):
        run("continue")
    check("jiffies went on by ten or more", value("*(unsigned long *)&jiffies") >= before + 10)
    check("in the timer's code", "jiffies" in (gdb.newest_frame().name() or ""), gdb.newest_frame().name())
    run("delete")


def stepping():
    run("break __x64_sys_read")
    run("continue")
    run("delete")
    names = set()
    for _ in range(200):
        run("stepi")
        names.add(gdb.newest_frame().name() or "")
    check("no step ends in a handler", not any("interrupt" in n or "irq_entries" in n for n in names), names)
    check("threads", len(gdb.selected_inferior().threads()) == 2)


gdb.events.stop.connect(on_stop)
try:
    for part in (boot,) if os.environ["PART"] == "boot" else (hot, hardware, stepping):
        part()
except (gdb.error, KeyboardInterrupt) as e:
    check(part.__name__, False, e)
print("%d passed, %d failed" % (passed, failed))
