# A FUSE server of a few lines, which tests of its kernel's side are written in front of: serve(answer) mounts at `m`, and
# answers in a child. answer(opcode, node, body) gives an error and bytes, or None for no answer; it may send() more.
import ctypes, errno, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def mount(options, fstype=b'fuse.test', flags=6, at=b'm'):
    failed = libc.mount(b'test', at, fstype, flags, options)
    return ctypes.get_errno() if failed else 0
def options(fd, mode=b'40000'):
    return b'fd=%d,rootmode=%s,user_id=%d,group_id=%d' % (fd, mode, os.getuid(), os.getgid())
def attr(mode, ino=1, size=0, valid=0):
    return struct.pack('<QLLQQQQQQLLLLLLLLLL', valid, 0, 0, ino, size, 0, 0, 0, 0, 0, 0, 0, mode, 1, os.getuid(), os.getgid(), 0, 0, 0)
def entry(node, mode, size=0, valid=0):
    return struct.pack('<QQQQLL', node, 0, valid, valid, 0, 0) + attr(mode, node, size)[16:]
device = -1
unique = 0
def send(error, unique, body=b''):
    os.write(device, struct.pack('<LlQ', 16 + len(body), error, unique) + body)
def serve(answer, before=lambda: None, ended=lambda error: None, flags=0, minor=31, mounting=None):
    global device
    device = os.open('/dev/fuse', os.O_RDWR)
    assert (mounting or mount)(options(device)) == 0
    child = os.fork()
    if child:
        os.close(device)
        return child
    before()
    answer_all(answer, ended, flags, minor)
def answer_all(answer, ended=lambda error: None, flags=0, minor=31):
    global unique
    while True:
        try:
            request = os.read(device, 1 << 20)
        except OSError as error:
            ended(errno.errorcode[error.errno])
            os._exit(0)
        length, opcode, unique, node = struct.unpack('<LLQQ', request[:24])
        if opcode == 26:
            said = 0, struct.pack('<LLLLHHLLHHL', 7, minor, 0, flags & 0xffffffff | 1 << 30, 0, 0, 131072, 1, 0, 0, flags >> 32) + bytes(28)
        else:
            said = answer(opcode, node, request[40:])
        # FORGET and BATCH_FORGET have no answer.
        if said is not None and opcode not in (2, 42):
            send(-said[0], unique, said[1])
def fails(body):
    try:
        body()
        return 'succeeds'
    except OSError as error:
        return errno.errorcode[error.errno]
def unmount(flags=0, at=b'm'):
    print('unmounted' if libc.umount2(at, flags) == 0 else errno.errorcode[ctypes.get_errno()], flush=True)
