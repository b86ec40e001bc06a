#!/usr/bin/env python3
"""doppel trace and doppel top on running VMs; a Debian kernel traced from its first instruction to its last."""
import fcntl, json, os, pty, re, select, signal, socket, struct, subprocess, sys, tempfile, termios, time

build = sys.argv[1]
doppel = build + "/doppel"
passed = failed = 0
KINDS = ["insn", "exit", "exception", "irq", "pt", "mmio", "pio", "halt"]
run_dir = tempfile.TemporaryDirectory()
os.chmod(run_dir.name, 0o700)
os.environ["XDG_RUNTIME_DIR"] = run_dir.name


def check(good, what):
    global passed, failed
    if good:
        passed += 1
    else:
        failed += 1
        print("not ok:", what)


def run(*args, timeout=120):
    return subprocess.run([doppel, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)


def wait_for(what, seconds=60):
    end = time.time() + seconds
    while time.time() < end:
        if what():
            return True
        time.sleep(0.05)
    return False


def boot():
    path = run_dir.name + "/boot"
    r = run("run", "-q", "--bare", "--cpus", "2", "--trace", path + ",wait,format=json", timeout=300)
    if "kernel" in r.stderr and r.returncode == 125:
        print("skipped: no guest kernel:", r.stderr.strip())
        return
    check(r.returncode == 0 and "Power down" in r.stdout, "a traced boot: " + r.stderr)
    seen, last, ordered = {}, {}, True
    for line in open(path):
        e = json.loads(line)
        seen[e["kind"]] = seen.get(e["kind"], 0) + 1
        if e["kind"] not in ("end", "exit", "halt"):  # those are told when they are over
            ordered &= e["time"] >= last.get(e["cpu"], 0)
            last[e["cpu"]] = e["time"]
    for kind in KINDS:
        check(seen.get(kind, 0) > 0, f"boot: no event of kind {kind}")
    check(seen.get("insn", 0) > 10000 and seen.get("pt", 0) > 1000, f"boot: {seen}")
    check(ordered and set(last) == {0, 1}, f"boot: order, vCPUs {set(last)}")
    # a vCPU that others want to stop does not wait for the reader
    check(seen.get("end") == 1 and e["lost"] <= 50, f"boot: lost {e.get('lost')}")


# Traces begin and end while a kernel boots on two vCPUs: it must not notice.
def toggled_boot():
    vm = subprocess.Popen([doppel, "run", "-q", "--bare", "--cpus", "2", "--name", "toggled"], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    choices = [["-e", "insn"], ["-e", "pt", "--wait"], ["--wait"], ["-e", "exit,irq"], ["-e", "code,mmio", "--kernel"], ["--cpu", "1"]]
    n = 0
    wait_for(lambda: vm.poll() is not None or os.path.exists(run_dir.name + "/doppel/toggled/qmp.sock"))
    while vm.poll() is None and n < 300:
        r = run("trace", "toggled", "-n", str(1 + n * 37 % 3000), "--for", "1", "-o", "/dev/null", *choices[n % len(choices)])
        n += r.returncode == 0
        if r.returncode:
            time.sleep(0.01)
    out, err = vm.communicate(timeout=120)
    if vm.returncode == 125 and "kernel" in err:
        return
    check(vm.returncode == 0 and "Power down" in out and n >= 3, f"a boot with {n} traces: {vm.returncode} {err}")


def start(name, *more):
    r = run("run", "-q", "--detach", "--name", name, "--kernel", build + "/tests/cli/guest.elf", "--append", "e", *more)
    check(r.returncode == 0, "start: " + r.stderr)


def events(*args):
    r = run("trace", "--json", *args)
    lines = [json.loads(line) for line in r.stdout.splitlines()]
    return lines[:-1], r


def live():
    start("live")
    got, r = events("live", "--limit", "500")
    check(r.returncode == 0 and len(got) == 500, "limit: " + r.stderr)
    check({e["kind"] for e in got} <= {"insn", "exit", "pio"} and got[0]["cpu"] == 0, "kinds of the echo guest")
    got, r = events("live", "--limit", "50", "--events", "in")
    check(len(got) == 50 and all(e["insn"] == "in" and "port 0x3fd" in e["text"] for e in got), "only one instruction")
    rip = int(got[0]["rip"], 16)
    got, r = events("live", "--limit", "50", "--rip", f"{rip:#x}-{rip:#x}", "--kernel")
    check(len(got) == 50 and all(int(e["rip"], 16) == rip for e in got), "addresses")
    for args in (["--rip", f"{rip + 1:#x}-{rip + 9:#x}"], ["--user"], ["--cpu", "1"], ["--events", "wrmsr"]):
        got, r = events("live", "--for", "1", *args)
        check(r.returncode == 0 and not got, f"nothing matches {args}: {len(got)}")
    path = run_dir.name + "/chrome.json"
    r = run("trace", "live", "--limit", "100", "--chrome", "-o", path)
    j = json.load(open(path))
    check(r.returncode == 0 and sum(e["ph"] in "Xi" for e in j) == 100 and any(e["ph"] == "X" and e["dur"] > 0 for e in j), "chrome")
    r = run("trace", "live", "--limit", "20")
    check(len(r.stdout.splitlines()) == 20 and "port 0x3fd" in r.stdout, "text")


def one_at_a_time():
    p = subprocess.Popen([doppel, "trace", "live", "--events", "in"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    p.stdout.readline()
    r = run("trace", "live", "--limit", "1")
    check(r.returncode == 125 and "being traced already" in r.stderr, "a second trace: " + r.stderr)
    p.kill()  # the VM notices
    p.communicate()
    check(wait_for(lambda: run("trace", "live", "--limit", "1").returncode == 0), "after a killed trace")
    p = subprocess.Popen([doppel, "trace", "live", "--wait"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    p.stdout.readline()
    p.send_signal(signal.SIGSTOP)  # the ring fills, the guest waits; stopping the VM must not
    time.sleep(0.3)
    r = run("pause", "live", timeout=60)
    check(r.returncode == 0, "pause while a trace holds the guest: " + r.stderr)
    r = run("resume", "live", timeout=60)
    check(r.returncode == 0, "resume while a trace holds the guest: " + r.stderr)
    p.send_signal(signal.SIGCONT)
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=60)
    check(p.returncode == 0, "Ctrl-C ends a trace well: " + err)


def control(sock, command, args):
    s = sock.makefile("rw")
    s.write(json.dumps({"execute": command, "arguments": args}) + "\n")
    s.flush()
    return json.loads(s.readline())


def hostile_requests():
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(run_dir.name + "/doppel/live/qmp.sock")
    f = sock.makefile("r")
    f.readline()
    check("return" in control(sock, "qmp_capabilities", {}), "negotiation")
    for args in ({"kinds": "0"}, {"kinds": "0x80000000"}, {"kinds": "0xffffffffffffffff"}):
        check("error" in control(sock, "x-doppel-trace-start", args), f"accepted {args}")
    for args in ({"lo": "9", "hi": "1"}, {"cpus": "0"}, {"kinds": 7, "cpls": [], "lo": {"a": 1}}):
        check("return" in control(sock, "x-doppel-trace-start", args), f"harmless {args}")
        check("return" in control(sock, "x-doppel-trace-stop", {}), "stop")
    check("return" in control(sock, "x-doppel-trace-stop", {}), "stop what does not run")
    check("return" in control(sock, "x-doppel-trace-start", {}), "once more")
    check("return" in control(sock, "x-doppel-trace-stop", {}), "stop")
    p = subprocess.Popen([doppel, "trace", "live", "--limit", "1000000", "-o", "/dev/null"])
    time.sleep(0.1)
    f.close()
    sock.close()  # ends its own trace only
    try:
        check(p.wait(60) == 0, "a trace while another client leaves")
    except subprocess.TimeoutExpired:
        p.kill()
        check(False, "another client's end stopped the trace")
    check(run("trace", "live", "--limit", "3").returncode == 0, "trace after odd requests")


def errors():
    for args, word in ((["nobody"], "no such VM"), (["live", "--events", "foo"], "no such event"), (["live", "--rip", "5-1"], "range"),
                       (["live", "--json", "--chrome"], "exclude"), (["live", "--user", "--kernel"], "exclude"),
                       (["live", "-o", "/nonexistent/x"], "No such file"), (["live", "--cpu", "64"], "vCPU"), ([], "argument")):
        r = run("trace", *args)
        check(r.returncode == 125 and r.stderr.startswith("doppel: ") and len(r.stderr.splitlines()) == 1, f"trace {args}: {r.stderr}")
    r = run("run", "-q", "--engine", "check", "--kernel", build + "/tests/cli/guest.elf", "--append", "p", "--trace", run_dir.name + "/x")
    check(r.returncode == 125 and "--engine check" in r.stderr, "trace with check: " + r.stderr)
    for value in ("", ",wait", "/nonexistent/x", "x,format=foo", "x,events=foo", "x,foo"):
        r = run("run", "-q", "--kernel", build + "/tests/cli/guest.elf", "--append", "p", "--trace", value)
        check(r.returncode == 125 and len(r.stderr.splitlines()) == 1, f"run --trace {value}: {r.stderr}")


def vm_ends():
    start("short")
    p = subprocess.Popen([doppel, "trace", "short", "--events", "in"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    time.sleep(0.3)
    run("stop", "--kill", "short")
    try:
        p.wait(30)
        check(p.returncode == 0, f"the VM's end ends the trace: {p.stderr.read()}")
    except subprocess.TimeoutExpired:
        p.kill()
        check(False, "the VM's end does not end the trace")


def top_batch():
    r = run("top", "--json", "--insns", "-d", "1", "-n", "2")
    looks = [json.loads(line) for line in r.stdout.splitlines()]
    check(r.returncode == 0 and len(looks) == 2 and looks[1][0]["name"] == "live", "top --json: " + r.stderr)
    cpu = looks[1][0]["cpus"][0]
    check(abs(sum(cpu["time-percent"].values()) - 100) < 0.1, f"shares of time: {cpu}")
    check(cpu["per-second"]["exits.io"] > 100, f"exits of the echo guest: {cpu}")
    # the guest's loop: mov, in, test, jz
    per = cpu["per-second"]["engine.insns"] / cpu["per-second"]["exits.io"]
    check(3.9 < per < 4.1, f"instructions counted: {per} for each turn of the loop")
    check(looks[1][0]["monitor-memory"] > 1 << 20 and looks[1][0]["memory-touched"] > 4096, "memory")
    r = run("top", "-b", "-d", "1", "-n", "1", "live")
    check(r.returncode == 0 and "live: running" in r.stdout and "%usr" in r.stdout and "\033" not in r.stdout, "top -b")
    r = run("top", "-b", "nobody")
    check(r.returncode == 125 and "no such VM" in r.stderr, "top of nobody")


def screen(action, expect):
    fd, slave = pty.openpty()
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 60, 0, 0))
    p = subprocess.Popen([doppel, "top", "-d", "1"], stdin=slave, stdout=slave, start_new_session=True)
    text, deadline, sent = b"", time.time() + 60, False
    while time.time() < deadline:
        if select.select([fd], [], [], 0.2)[0]:
            try:
                text += os.read(fd, 65536)
            except OSError:
                break
        if b"live: running" in text and not sent:
            raw = termios.tcgetattr(slave)
            check(not raw[3] & termios.ECHO, "the terminal is raw")
            fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 5, 30, 0, 0))
            p.send_signal(signal.SIGWINCH)
            action(p.pid, fd)
            sent = True
        if sent and p.poll() is not None:
            break
    check(p.poll() is not None, f"top ends by {expect}")
    p.kill()
    p.wait()
    check(wait_for(lambda: termios.tcgetattr(slave)[3] & termios.ECHO, 10), f"the terminal is itself again after {expect}")
    lines = [re.sub(rb"\033\[[0-9]*[A-Z]", b"", line) for line in text.replace(b"\r", b"").split(b"\n")]
    check(all(len(line) <= 60 for line in lines), "lines fit the terminal")
    os.close(slave)
    os.close(fd)


boot()
toggled_boot()
live()
one_at_a_time()
hostile_requests()
errors()
vm_ends()
top_batch()
screen(lambda pid, fd: os.write(fd, b"q"), "q")
screen(lambda pid, fd: os.write(fd, b"\x03"), "Ctrl-C")
screen(lambda pid, fd: os.kill(pid, signal.SIGTERM), "SIGTERM")
screen(lambda pid, fd: os.kill(pid, signal.SIGKILL), "SIGKILL")
run("stop", "--kill", "live")
print(f"{passed} passed, {failed} failed")
sys.exit(failed != 0)
