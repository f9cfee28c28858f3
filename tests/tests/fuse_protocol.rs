//! What the other side of a `/dev/fuse` hears and says, by a server of a few lines that writes down what it is asked: requests
//! that are seldom made, what a server says unasked, and how a conversation ends.
//!
//! As in `fuse`, nothing runs natively first; what is expected was seen with the same scripts on the kernel's FUSE.

use umvu_tests::{behaviours, Runner};

behaviours! {
    from_outside at VIEWS {
        who_waits_for_a_server_that_hangs_is_let_go_by_force,
        a_server_reads_enodev_when_its_mount_is_gone,
    }
    from_outside at PLAIN_ROOT {
        seldom_requests_reach_the_server,
    }
    from_outside at PLAIN {
        a_descriptor_may_join_another,
        a_signal_interrupts_who_waits,
        what_a_server_says_unasked_is_heeded,
        what_is_removed_is_forgotten_and_nothing_too_often,
        a_file_can_be_a_mount_point,
        a_rename_to_nowhere_is_not_asked_for,
    }
}

/// The line that a server and its users write, in a view with an empty directory `m`.
fn said(r: &Runner, script: &str) -> String {
    let server = include_str!("../src/fuse_server.py");
    let script = format!("vu_insmod fuse; mkdir m\ncat > server.py <<'END'\n{server}{script}\nEND\npython3 server.py");
    r.bash(&script).line()
}

fn a_server_reads_enodev_when_its_mount_is_gone(r: &Runner) {
    let script = r#"
def answer(opcode, node, body):
    return (0, attr(0o40755)) if opcode == 3 else (errno.ENOSYS, b'')
def ended(error):
    os.write(1, (error + ' ').encode())
for flags in 0, 1, 2, 0:
    child = serve(answer, ended=ended)
    os.stat('m')
    unmount(flags)
    os.waitpid(child, 0)"#;
    let told = said(r, script);
    let words: Vec<&str> = told.split_whitespace().collect();
    let count = |wanted: &str| words.iter().filter(|word| **word == wanted).count();
    assert_eq!((count("ENODEV"), count("unmounted"), words.len()), (4, 4, 8), "{told}");
}

fn who_waits_for_a_server_that_hangs_is_let_go_by_force(r: &Runner) {
    let script = r#"
asked, asks = os.pipe()
def answer(opcode, node, body):
    if opcode == 3:
        return 0, attr(0o40755)
    if opcode == 1:
        os.write(asks, b'x')
        return None
    return errno.ENOSYS, b''
child = serve(answer)
waits = os.fork()
if not waits:
    print(fails(lambda: os.stat('m/file')), flush=True)
    os._exit(0)
os.read(asked, 1)
while libc.umount2(b'm', 1):
    pass
os.waitpid(waits, 0)
os.waitpid(child, 0)
print(os.listdir('m'))
import signal, time
child = serve(answer)
os.stat('m')
os.kill(child, signal.SIGSTOP)
os.waitpid(child, os.WUNTRACED)
began = time.monotonic()
unmount(2)
print(time.monotonic() - began < 3)
os.kill(child, signal.SIGKILL)"#;
    assert_eq!(said(r, script), "ECONNABORTED\n[]\nunmounted\nTrue");
}

fn a_descriptor_may_join_another(r: &Runner) {
    let script = r#"
import fcntl
def answer(opcode, node, body):
    return (0, attr(0o40755)) if opcode == 3 else (errno.ENOSYS, b'')
def join(fd, other):
    return fcntl.ioctl(fd, 0x8004e500, struct.pack('I', other))
def joined():
    global device
    null, fresh = os.open('/dev/null', 2), os.open('/dev/fuse', 2)
    print(*[fails(lambda: join(fresh, other)) for other in (null, 99)], fails(lambda: join(null, device)),
        fails(lambda: join(fresh, device)), fails(lambda: join(fresh, device)), flush=True)
    os.close(device)
    device = fresh
child = serve(answer, before=joined)
print(oct(os.stat('m').st_mode), flush=True)
unmount()
os.waitpid(child, 0)"#;
    assert_eq!(said(r, script), "EINVAL EINVAL ENOTTY succeeds EINVAL\n0o40755\nunmounted");
}

fn a_signal_interrupts_who_waits(r: &Runner) {
    let script = r#"
import signal
pending = 0
def answer(opcode, node, body):
    global pending
    if opcode == 3:
        return 0, attr(0o40755)
    if opcode == 1:
        pending = unique
        return None
    if opcode == 36:
        os.write(1, b'interrupt %d\n' % (struct.unpack('<Q', body)[0] == pending))
        send(-errno.EINTR, pending)
        return None
    return errno.ENOSYS, b''
child = serve(answer)
class Alarm(Exception):
    pass
def alarm(number, frame):
    raise Alarm
signal.signal(signal.SIGALRM, alarm)
signal.setitimer(signal.ITIMER_REAL, 0.1)
try:
    os.stat('m/file')
except Alarm:
    print('interrupted', flush=True)
unmount()"#;
    assert_eq!(said(r, script), "interrupt 1\ninterrupted\nunmounted");
}

fn what_a_server_says_unasked_is_heeded(r: &Runner) {
    // What is kept is asked back after each piece of news: when that comes, it was heeded.
    let script = r#"
heeded, heeds = os.pipe()
kept = {}
now = {'content': b'hello', 'node': 2}
reads = 0
def news(name):
    if name == 'store':
        send(4, 0, struct.pack('<QQLL', 2, 1, 3, 0) + b'ELL')
    if name == 'inode':
        now['content'] = b'other'
        send(2, 0, struct.pack('<Qqq', 2, 0, 0))
    if name == 'entry':
        now['node'] = 3
        send(3, 0, struct.pack('<QLL', 1, 1, 0) + b'f\0')
    if name == 'delete':
        now['node'] = 0
        send(6, 0, struct.pack('<QQLL', 1, 3, 1, 0) + b'f\0')
    send(5, 0, struct.pack('<QQQLL', 77, 2, 1, 3, 0))
def answer(opcode, node, body):
    global reads
    if opcode == 3:
        return 0, attr(0o40755, valid=1000) if node == 1 else attr(0o100644, node, 5, 1000)
    if opcode == 1 and body == b'f\0':
        return (0, entry(now['node'], 0o100644, 5, 1000)) if now['node'] else (errno.ENOENT, b'')
    if opcode == 1:
        return errno.ENOENT, b''
    if opcode == 14:
        return 0, struct.pack('<QLL', 0, 2, 0)
    if opcode == 15:
        reads += 1
        return 0, now['content'] if node == 2 else b'third'
    if opcode == 22:
        news(body[13:-1].decode())
        return errno.ENODATA, b''
    if opcode == 41:
        os.write(heeds, b'%d %s' % (reads, body[40:]))
        return None
    return errno.ENOSYS, b''
child = serve(answer)
def said(name):
    fails(lambda: os.getxattr('m', 'user.' + name))
    return os.read(heeded, 100).decode()
def content():
    return open('m/f').read()
stays = open('m/f')
print(content(), said('nothing'), content(), said('store'), content(), said('inode'), content(), said('nothing'))
print(os.stat('m/f').st_ino, said('entry')[0], os.stat('m/f').st_ino, content())
said('delete')
print(fails(lambda: os.stat('m/f')))
stays.close()
unmount()"#;
    let wanted = "hello 1 ell hello 1 ELL hELLo 1  other 2 the\n2 2 3 third\nENOENT\nunmounted";
    assert_eq!(said(r, script), wanted);
}

fn what_is_removed_is_forgotten_and_nothing_too_often(r: &Runner) {
    let script = r#"
held = {}
def counted(node, mode):
    held[node] = held.get(node, 0) + 1
    return 0, entry(node, mode, valid=10)
def answer(opcode, node, body):
    if opcode == 3:
        return 0, attr(0o40755, node) if node < 100 else attr(0o100644, node)
    if opcode == 1:
        name = body[:-1]
        return counted(int(name), 0o40755 if int(name) < 100 else 0o100644) if name.isdigit() else (errno.ENOENT, b'')
    if opcode in (9, 35, 13):
        made = counted({9: 70, 35: 1000, 13: 101}[opcode], 0o40755 if opcode == 9 else 0o100644)
        return 0, made[1] + (bytes(16) if opcode == 35 else b'')
    if opcode == 2:
        held[node] -= struct.unpack('<Q', body)[0]
        return None
    if opcode == 42:
        for at in range(8, len(body), 16):
            one, count = struct.unpack('<QQ', body[at:at + 16])
            held[one] -= count
        return None
    if opcode in (10, 11, 12, 18, 25, 4):
        return (0, attr(0o100644, node)) if opcode == 4 else (0, b'')
    if opcode == 38:
        os.write(1, b'%d known, %d too few, removed: %d\n' % (len(held), sum(n < 0 for n in held.values()), held[70]))
        return 0, b''
    return errno.ENOSYS, b''
child = serve(answer)
for n in range(2, 60):
    for again in range(3):
        os.stat('m/%d' % n)
        os.stat('m/%d/%d' % (n, 100 + n))
os.close(os.open('m/new', os.O_CREAT | os.O_WRONLY))
os.mkdir('m/dir')
os.link('m/2/102', 'm/link')
os.unlink('m/2/102')
os.rename('m/3/103', 'm/4/999')
os.rmdir('m/dir')
unmount()
os.waitpid(child, 0)"#;
    let told = said(r, script);
    assert!(told.contains(" known, 0 too few, removed: 0\n"), "{told}");
}

fn a_file_can_be_a_mount_point(r: &Runner) {
    let script = r#"
def answer(opcode, node, body):
    if opcode == 3:
        return 0, attr(0o100644, size=6)
    if opcode == 14:
        return 0, bytes(16)
    if opcode == 15:
        return 0, b'inside'
    return errno.ENOSYS, b''
open('file', 'w').write('outside')
fd = os.open('/dev/fuse', 2)
print(errno.errorcode[mount(options(fd), at=b'file')], end=' ')
fd = os.open('/dev/fuse', 2)
print(errno.errorcode[mount(options(fd, b'100000'))])
os.close(fd)
child = serve(answer, mounting=lambda given: mount(given.replace(b'40000', b'100000'), at=b'file'))
print(open('file').read(), os.stat('file').st_size)
unmount(at=b'file')
print(open('file').read())"#;
    assert_eq!(said(r, script), "ENOTDIR ENOTDIR\ninside 6\nunmounted\noutside");
}

fn seldom_requests_reach_the_server(r: &Runner) {
    let script = r#"
names = {45: 'rename2', 46: 'lseek', 52: 'statx', 17: 'statfs'}
def answer(opcode, node, body):
    if opcode in names:
        word = struct.unpack('<QLL', body[:16])[1] if opcode == 45 else ''
        os.write(1, ('%s %s\n' % (names[opcode], word)).encode())
    if opcode == 52:
        times = struct.pack('<qLl', 7, 0, 0) * 4
        stat = struct.pack('<LLQLLLHHQQQQ', 0xfff, 4096, 0, 1, os.getuid(), os.getgid(), 0o40755 if node == 1 else 0o100644, 0, node, 65536, 8, 0)
        return 0, struct.pack('<QLLQQ', 0, 0, 0, 0, 0) + stat + times + bytes(16) + bytes(112)
    if opcode == 3:
        return 0, attr(0o40755) if node == 1 else attr(0o100644, node, 65536)
    if opcode == 1 and body[:1] in b'ab':
        return 0, entry(2 + (body[:1] == b'b'), 0o100644, 65536)
    if opcode == 1:
        return errno.ENOENT, b''
    if opcode == 14:
        return 0, struct.pack('<QLL', 5, 0, 0)
    if opcode == 15:
        offset, size = struct.unpack('<QL', body[8:20])
        return 0, bytes(max(0, min(size, 65536 - offset)))
    if opcode == 46:
        fh, offset, whence = struct.unpack('<QQL', body[:20])
        return (0, struct.pack('<Q', max(offset, 4096) if whence == 3 else 8192)) if offset < 8192 else (errno.ENXIO, b'')
    if opcode == 45:
        return 0, b''
    return errno.ENOSYS, b''
def fsconfig_mount(given):
    # fsopen, fsconfig, fsmount and move_mount, as the newest fusermount3 mounts.
    context = libc.syscall(430, b'fuse', 0)
    for pair in given.split(b','):
        key, value = pair.split(b'=')
        if libc.syscall(431, context, 1, key, value, 0):
            return ctypes.get_errno()
    if libc.syscall(431, context, 6, None, None, 0):
        return ctypes.get_errno()
    tree = libc.syscall(432, context, 0, 6)
    moved = ctypes.get_errno() if libc.syscall(429, tree, b'', -100, b'm', 4) else 0
    os.close(tree)
    os.close(context)
    return moved
child = serve(answer, minor=39, mounting=fsconfig_mount)
print(int(os.stat('m/a').st_mtime), flush=True)
libc.renameat2(-100, b'm/a', -100, b'm/b', 2)
fd = os.open('m/a', os.O_RDONLY)
print(os.lseek(fd, 0, os.SEEK_DATA), os.lseek(fd, 4096, os.SEEK_HOLE), fails(lambda: os.lseek(fd, 8192, os.SEEK_DATA)), flush=True)
os.close(fd)
fails(lambda: os.statvfs('m'))
unmount()"#;
    let told = said(r, script);
    for wanted in ["statx ", "rename2 2", "lseek ", "4096 8192 ENXIO", "statfs "] {
        assert!(told.lines().any(|line| line == wanted), "{wanted} in {told}");
    }
    assert!(told.ends_with("unmounted"), "{told}");
}

fn a_rename_to_nowhere_is_not_asked_for(r: &Runner) {
    let script = r#"
def answer(opcode, node, body):
    if opcode == 12:
        os.write(1, b'asked\n')
    if opcode == 3:
        return 0, attr(0o40755, node) if node != 2 else attr(0o100644, node)
    if opcode == 1:
        if body in (b'd\0', b'e\0'):
            return 0, entry(body[0], 0o40755, valid=10)
        return (0, entry(2, 0o100644, valid=10)) if body in (b'f\0', b'g\0') else (errno.ENOENT, b'')
    return (0, b'') if opcode == 12 else (errno.ENOSYS, b'')
child = serve(answer)
print(fails(lambda: os.rename('m/f', 'm/f')), fails(lambda: os.rename('m/f', 'm/g')), flush=True)
print(fails(lambda: os.rename('m/d', 'm/d/x')), fails(lambda: os.rename('m/d/e', 'm/d')), flush=True)
os.rename('m/f', 'm/h')
unmount()"#;
    assert_eq!(said(r, script), "succeeds succeeds\nEINVAL ENOTEMPTY\nasked\nunmounted");
}
