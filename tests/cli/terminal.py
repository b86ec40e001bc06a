"""Runs a command on a terminal of its own. Arguments: what to do, then the command.

Steps, separated by ';;': expect TEXT; send TEXT (with \\x escapes); raw (wait for raw mode); kill (the command);
run SHELL-COMMAND. Then the command must end.
Prints the output, then `status N` and `terminal restored` or `terminal changed`.
"""
import os, pty, select, signal, sys, termios, time

steps, command = sys.argv[1].split(';;'), sys.argv[2:]
master, slave = pty.openpty()
before = termios.tcgetattr(slave)
pid = os.fork()
if pid == 0:
    os.setsid()
    import fcntl
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for fd in (0, 1, 2):
        os.dup2(slave, fd)
    os.execvp(command[0], command)
seen = b''
failed = ''

def pump(until, seconds):
    global seen
    end = time.time() + seconds
    while time.time() < end:
        if until():
            return True
        if select.select([master], [], [], 0.02)[0]:
            try:
                seen += os.read(master, 65536)
            except OSError:
                pass
    return until()

status = None
def ended():
    global status
    if status is None:
        p, s = os.waitpid(pid, os.WNOHANG)
        if p:
            status = os.waitstatus_to_exitcode(s)
    return status is not None

at = 0
for step in steps:
    what, _, text = step.strip().partition(' ')
    if what != 'run':
        text = text.encode().decode('unicode_escape').encode('latin1')
    if what == 'expect':
        if not pump(lambda: text in seen[at:], 60):
            failed = 'no %r' % text
            break
        at = seen.index(text, at) + len(text)
    elif what == 'raw':
        if not pump(lambda: termios.tcgetattr(slave) != before, 60):
            failed = 'terminal not raw'
    elif what == 'send':
        os.write(master, text)
    elif what == 'kill':
        os.kill(pid, signal.SIGKILL)
    elif what == 'run':
        os.system(text)
if not pump(ended, 60):
    failed += ' still runs'
    os.kill(pid, signal.SIGKILL)
    pump(ended, 5)
pump(lambda: termios.tcgetattr(slave) == before, 20)
print(seen.decode('latin1'))
print('status', status, failed)
print('terminal', 'restored' if termios.tcgetattr(slave) == before else 'changed')
