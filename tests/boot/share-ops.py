#!/usr/bin/python3
"""File operations of a Linux root file system, in a new directory; what they answer is printed: the same here and on a share."""
import ctypes, errno, fcntl, mmap, os, stat, sys

os.chdir(sys.argv[1])
os.umask(0o022)
libc = ctypes.CDLL(None, use_errno=True)


def say(what, fn):
    try:
        print(what, fn())
    except OSError as e:
        print(what, errno.errorcode[e.errno])


def st(path, **kw):
    s = os.stat(path, **kw)
    return oct(s.st_mode), s.st_nlink, s.st_size if not stat.S_ISDIR(s.st_mode) else '-', s.st_uid, s.st_gid


def write(path, data, flags=os.O_CREAT | os.O_WRONLY, mode=0o644):
    fd = os.open(path, flags, mode)
    n = os.write(fd, data)
    os.close(fd)
    return n


def read(path):
    with open(path, 'rb') as f:
        return f.read()


def renameat2(a, b, flags):
    if libc.renameat2(-100, a.encode(), -100, b.encode(), flags) < 0:
        raise OSError(ctypes.get_errno(), '')


def shared_map():
    write('map', bytes(8192))
    with open('map', 'r+b') as f, mmap.mmap(f.fileno(), 8192) as m:
        m[4000:4200] = b'm' * 200
        m.flush()
    return read('map').count(b'm')


def tmpfile():
    fd = os.open('.', os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(fd, b'unnamed')
    if libc.linkat(-100, b'/proc/self/fd/%d' % fd, -100, b'named', 0x400) < 0:  # AT_SYMLINK_FOLLOW
        raise OSError(ctypes.get_errno(), '')
    os.close(fd)
    return read('named'), st('named')


def holes():
    fd = os.open('holes', os.O_CREAT | os.O_RDWR, 0o644)
    os.pwrite(fd, b'x', 1 << 20)
    os.pwrite(fd, b'y', 1 << 22)
    found = [os.lseek(fd, 0, os.SEEK_DATA), os.lseek(fd, 1 << 21, os.SEEK_DATA), os.lseek(fd, 1 << 20, os.SEEK_HOLE)]
    os.close(fd)
    return found


def allocate():
    fd = os.open('alloc', os.O_CREAT | os.O_RDWR, 0o644)
    os.posix_fallocate(fd, 0, 100000)
    n = os.fstat(fd).st_size, os.fstat(fd).st_blocks >= 195
    libc.fallocate(fd, 3, ctypes.c_long(0), ctypes.c_long(65536))  # punch a hole, keep the size
    m = os.fstat(fd).st_size, os.fstat(fd).st_blocks < 150
    os.close(fd)
    return n, m


def copy():
    write('from', b'0123456789' * 1000)
    a, b = os.open('from', os.O_RDONLY), os.open('to', os.O_CREAT | os.O_RDWR, 0o644)
    n = os.copy_file_range(a, b, 5000, 10, 3)
    os.close(a), os.close(b)
    return n, read('to')[:6], os.stat('to').st_size


def locks():
    a, b = os.open('lock', os.O_CREAT | os.O_RDWR), os.open('lock', os.O_RDWR)
    fcntl.flock(a, fcntl.LOCK_EX)
    try:
        fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print('flock: held')
    fcntl.lockf(a, fcntl.LOCK_EX, 10)
    pid = os.fork()
    if not pid:
        try:
            fcntl.lockf(b, fcntl.LOCK_EX | fcntl.LOCK_NB, 5)
        except (BlockingIOError, PermissionError):
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def deleted_but_open():
    fd = os.open('gone', os.O_CREAT | os.O_RDWR, 0o644)
    os.unlink('gone')
    os.write(fd, b'still')
    os.fchmod(fd, 0o640)
    s = os.fstat(fd)
    os.lseek(fd, 0, 0)
    return os.read(fd, 100), s.st_nlink, oct(s.st_mode)


def many():
    os.mkdir('many')
    for i in range(300):
        os.close(os.open('many/%d' % i, os.O_CREAT | os.O_WRONLY))
    n = len(set(os.listdir('many'))), sum(e.is_file() for e in os.scandir('many'))
    for i in range(0, 300, 2):
        os.unlink('many/%d' % i)
    return n, len(os.listdir('many'))


def removed_cwd():
    os.mkdir('cwd')
    fd = os.open('cwd', os.O_RDONLY)
    os.rmdir('cwd')
    n = os.fstat(fd).st_nlink
    say('create in a removed directory', lambda: os.open('x', os.O_CREAT, dir_fd=fd))
    return n, os.listdir(fd)


def times():
    write('times', b'')
    os.utime('times', ns=(1234567890123456789, 987654321000000001))
    s = os.stat('times')
    return s.st_atime_ns, s.st_mtime_ns


say('write', lambda: write('a', b'hello'))
say('stat', lambda: st('a'))
say('exclusive', lambda: write('a', b'', os.O_CREAT | os.O_EXCL | os.O_WRONLY))
say('append', lambda: (write('a', b' world', os.O_APPEND | os.O_WRONLY), read('a')))
say('truncate', lambda: (os.truncate('a', 3), read('a')))
say('open to truncate', lambda: (write('a', b'z', os.O_TRUNC | os.O_WRONLY), read('a')))
say('link', lambda: (os.link('a', 'b'), st('b')))
say('symlink', lambda: (os.symlink('a', 's'), os.readlink('s'), oct(os.lstat('s').st_mode)))
say('dangling', lambda: (os.symlink('nowhere', 'd'), st('d')))
say('loop', lambda: (os.symlink('l', 'l'), st('l')))
say('mkdir', lambda: (os.mkdir('dir', 0o750), st('dir')))
say('mkdir again', lambda: os.mkdir('dir'))
say('rmdir file', lambda: os.rmdir('a'))
say('unlink dir', lambda: os.unlink('dir'))
say('into itself', lambda: os.rename('dir', 'dir/x'))
say('rename', lambda: (os.rename('b', 'dir/b'), os.listdir('dir')))
say('not empty', lambda: os.rmdir('dir'))
say('rename over', lambda: (write('c', b'C'), os.rename('c', 'dir/b'), read('dir/b'), st('a')))
say('noreplace', lambda: renameat2('a', 'dir/b', 1))
say('exchange', lambda: (renameat2('a', 'dir/b', 2), read('a'), read('dir/b')))
say('name too long', lambda: os.mkdir('n' * 256))
say('longest name', lambda: (os.mkdir('n' * 255), st('n' * 255)[0]))
say('fifo', lambda: (os.mkfifo('fifo'), st('fifo')))
say('sticky', lambda: (os.mkdir('t'), os.chmod('t', 0o1777), st('t')))
say('setuid', lambda: (os.chmod('a', 0o6755), st('a'), write('a', b'x', os.O_WRONLY), st('a')))
say('setgid directory', lambda: (os.mkdir('g'), os.chown('g', -1, 5), os.chmod('g', 0o2755), write('g/f', b''), st('g/f'), st('g')))
say('chown', lambda: (os.chown('a', 7, 8), st('a')))
say('chown link', lambda: (os.lchown('s', 7, 8), st('s', follow_symlinks=False)))
say('times', times)
say('xattr', lambda: (os.setxattr('a', 'user.k', b'v'), os.getxattr('a', 'user.k'), os.listxattr('a'), os.removexattr('a', 'user.k'), os.listxattr('a')))
say('no xattr', lambda: os.getxattr('a', 'user.none'))
say('xattr on link', lambda: os.setxattr('s', 'user.k', b'v', follow_symlinks=False))
say('shared map', shared_map)
say('tmpfile', tmpfile)
say('holes', holes)
say('allocate', allocate)
say('copy', copy)
say('locks', locks)
say('deleted but open', deleted_but_open)
say('many', many)
say('removed directory', removed_cwd)
say('sync', lambda: (os.sync(), os.fsync(os.open('a', os.O_RDONLY)), os.fsync(os.open('.', os.O_RDONLY))))
say('statvfs', lambda: os.statvfs('.').f_namemax)
say('large offset', lambda: (os.truncate('a', 1 << 40), os.stat('a').st_size, os.truncate('a', 10)))
