"""What a person at a terminal sees of `doppel run`: usage terminal.py DOPPEL; prints a line per failure and a summary."""
import fcntl, os, pty, re, select, signal, struct, subprocess, sys, termios, time

doppel = sys.argv[1]
passed = failed = 0
TIMEOUT = 40


def check(what, ok, seen=''):
    global passed, failed
    if ok:
        passed += 1
    else:
        failed += 1
        print(f'not ok: {what}: {seen!r}')


class Terminal:
    """A process group of its own in the foreground of a new terminal, as a shell would make it."""

    def __init__(self, *command, size=(30, 100)):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('HHHH', *size, 0, 0))
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.data = b''
        # a leader that stays, so that the group of the command is no orphan: Ctrl-Z works as under a shell
        self.leader = os.fork()
        if self.leader == 0:
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            child = os.fork()
            if child == 0:
                os.setpgid(0, 0)
                os.tcsetpgrp(slave, os.getpid())
                signal.signal(signal.SIGTTOU, signal.SIG_DFL)
                for fd in range(3):
                    os.dup2(slave, fd)
                os.execv(command[0], command)
            while True:
                _, status = os.waitpid(child, os.WUNTRACED)
                if os.WIFSTOPPED(status):
                    os.tcsetpgrp(slave, os.getpid())
                    stopped_raw = termios.tcgetattr(slave)[3] & termios.ICANON == 0
                    os.write(slave, b'<STOPPED raw>' if stopped_raw else b'<STOPPED>')
                    time.sleep(0.5)
                    os.tcsetpgrp(slave, child)
                    os.kill(-child, signal.SIGCONT)
                    continue
                break
            os._exit(os.waitstatus_to_exitcode(status) & 0xff)

    def until(self, text, timeout=TIMEOUT):
        end = time.time() + timeout
        while text not in self.data:
            left = end - time.time()
            if left <= 0 or not select.select([self.master], [], [], left)[0]:
                return False
            try:
                self.data += os.read(self.master, 65536)
            except OSError:
                return False
        return True

    def type(self, text):
        os.write(self.master, text)

    def resize(self, rows, columns):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack('HHHH', rows, columns, 0, 0))

    def wait(self):
        end = time.time() + TIMEOUT
        while time.time() < end:
            pid, status = os.waitpid(self.leader, os.WNOHANG)
            if pid:
                while select.select([self.master], [], [], 0.1)[0]:
                    self.data += os.read(self.master, 65536)
                return os.waitstatus_to_exitcode(status)
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.data += os.read(self.master, 65536)
                except OSError:
                    pass
        os.kill(self.leader, signal.SIGKILL)
        return 'no end'

    def restored(self):
        return termios.tcgetattr(self.slave) == self.before


def run(*command, **options):
    return Terminal(doppel, 'exec', 'term', '--', *command, **options)


subprocess.run([doppel, 'run', '-q', '--detach', '--name', 'term'], check=True, stdout=subprocess.DEVNULL)


# a terminal there, of this size, and its status
t = run('sh', '-c', 'tty; stty size; test -t 0 -a -t 1 -a -t 2 && echo all; exit 9')
check('status', t.wait() == 9)
check('terminal', b'/dev/pts/' in t.data and b'all' in t.data, t.data)
check('size', b'30 100' in t.data, t.data)
check('restored', t.restored())

# keys: Ctrl-C reaches the command, not us; Ctrl-D ends input
t = run('sh', '-c', 'trap "echo GOT; exit 5" INT; echo ready; while :; do sleep 0.1; done')
check('ready', t.until(b'ready'), t.data)
t.type(b'\x03')
check('Ctrl-C, trapped', t.wait() == 5 and b'GOT' in t.data, t.data)
t = run('sh', '-c', 'echo ready; exec sleep 100')
t.until(b'ready')
t.type(b'\x03')
check('Ctrl-C', t.wait() == 130, t.data)
check('restored after Ctrl-C', t.restored())
t = run('sh', '-c', 'echo ready; exec cat')
t.until(b'ready')
t.type(b'typed\n\x04')
check('Ctrl-D', t.wait() == 0 and t.data.count(b'typed') == 2, t.data)

# Ctrl-Z stops the whole job, with the terminal as it was; then it goes on
t = run('sh', '-c', 'echo ready; sleep 0.1; cat; echo end')
t.until(b'ready')
time.sleep(0.5)
t.type(b'\x1a')
check('Ctrl-Z stops us', t.until(b'<STOPPED'), t.data)
check('not raw while stopped', b'raw>' not in t.data, t.data)
time.sleep(1)
t.type(b'again\n\x04')
check('goes on', t.wait() == 0 and b'end' in t.data, t.data)
check('restored after Ctrl-Z', t.restored())

# window size
t = run('sh', '-c', 'trap "stty size; exit 3" WINCH; echo ready; while :; do sleep 0.1; done')
t.until(b'ready')
t.resize(41, 141)
check('resize', t.wait() == 3 and b'41 141' in t.data, t.data)

# a shell with jobs of its own
t = Terminal(doppel, 'exec', '--env', 'PS1=PROMPT ', 'term', '--', 'bash', '--norc', '-i')
check('prompt', t.until(b'PROMPT '), t.data)
t.type(b'sleep 100\n')
time.sleep(1)
t.type(b'\x1a')
check('job stops in there', t.until(b'Stopped'), t.data)
t.type(b'jobs; kill %1; echo $((40+2))\n')
check('shell goes on', t.until(b'\n42'), t.data)
check('not us', b'<STOPPED' not in t.data, t.data)
# bash looks at the job's end when it likes, and stays once if it takes it for stopped still
t.type(b'exit 4\n')
if t.until(b'There are stopped jobs', 3):
    t.type(b'exit 4\n')
check('shell status', t.wait() == 4, t.data)

# only some descriptors are terminals
t = Terminal('/bin/sh', '-c', f'{doppel} exec term -- sh -c "test -t 0 && echo in; test -t 1 || echo no out >&2" >/dev/null')
check('output is no terminal', t.wait() == 0 and b'no out' in t.data, t.data)

# our death
t = Terminal(doppel, 'run', '-q', '--', 'sh', '-c', 'echo ready; exec sleep 100')
t.until(b'ready')
children = subprocess.run(['pgrep', '-f', f'{doppel} run -q -- sh -c echo ready; exec sleep 100'], capture_output=True, text=True)
first = min(int(p) for p in children.stdout.split())
os.kill(first, signal.SIGKILL)
t.wait()
time.sleep(1)
check('terminal restored after SIGKILL', t.restored())
left = subprocess.run(['pgrep', '-f', f'{doppel} run -q -- sh -c echo ready; exec sleep 100'], capture_output=True, text=True)
check('VM ends with us', not left.stdout, left.stdout)

subprocess.run([doppel, 'stop', '--kill', 'term'])
print(f'{passed} passed, {failed} failed')
sys.exit(failed != 0)
