//! What guests write to a mounted image, and when the image has it: random writes against a model, each way to
//! synchronise, kills at random points, images that are full, files too large to be copied.

use umvu_tests::{behaviours, Finished, Runner};

behaviours! {
    from_outside at ROOT {
        random_writes_are_in_the_image_and_it_is_clean,
        each_call_that_synchronises_brings_what_was_written_to_the_image,
        nothing_synchronised_is_lost_when_the_supervisor_is_killed,
        a_full_image_says_so_at_fsync,
        many_writers_at_once_leave_a_clean_image,
        a_large_file_is_read_through_every_call,
        a_large_file_is_patched_in_place,
        nobody_is_watched_when_a_large_file_is_all_there,
    }
}

/// Runs a script beside an image `i`, with `m` to mount it on.
fn beside_an_image(r: &Runner, megabytes: u32, script: &str) -> Finished {
    let before = format!(
        r#"set +o pipefail; PATH=$PATH:/usr/sbin:/sbin; vu_insmod vufuse; mkdir m
        truncate -s {megabytes}M i; mke2fs -q -F -t ext4 i
        mounted() {{ vumount -t vufuseext4 -o rw i m; }}; unmounted() {{ vuumount m; }}
        clean() {{ e2fsck -fn i > fsck 2>&1 && echo clean || cat fsck; }}
        "#
    );
    r.bash(&format!("{before}{script}"))
}

/// Random calls on a few files of a directory, and the same on bytes in memory.
const RANDOM: &str = r"
import ctypes, mmap, os, random, sys, zlib
where, seed, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rand, files, libc = random.Random(seed), {}, ctypes.CDLL(None)
path = lambda name: os.path.join(where, name)
def same(name):
    with open(path(name), 'rb') as file: assert file.read() == bytes(files[name]), name
for step in range(steps):
    name = 'f%d' % rand.randrange(6)
    if name not in files:
        open(path(name), 'wb').close(); files[name] = bytearray()
    model, at = files[name], rand.randrange(300000)
    bytes_ = bytes([rand.randrange(256)]) * rand.choice([1, 4096, rand.randrange(1, 100000)])
    what = rand.choice(['write', 'write', 'append', 'cut', 'map', 'read', 'rename', 'remove', 'punch', 'link', 'sync'])
    if what == 'write':
        fd = os.open(path(name), os.O_RDWR); os.pwrite(fd, bytes_, at)
        model.extend(bytes(max(0, at + len(bytes_) - len(model)))); model[at:at + len(bytes_)] = bytes_
        assert os.fstat(fd).st_size == len(model); os.close(fd)
    elif what == 'append':
        with open(path(name), 'ab') as file: file.write(bytes_)
        model.extend(bytes_)
    elif what == 'cut':
        if rand.random() < .5: os.truncate(path(name), at)
        else:
            with open(path(name), 'r+b') as file: file.truncate(at)
        del model[at:]; model.extend(bytes(at - len(model)))
    elif what == 'map' and model:
        fd = os.open(path(name), os.O_RDWR); memory = mmap.mmap(fd, len(model)); os.close(fd)
        start = rand.randrange(len(model)); end = min(len(model), start + len(bytes_))
        memory[start:end] = bytes_[:end - start]; model[start:end] = bytes_[:end - start]; memory.close()
    elif what == 'read': same(name)
    elif what == 'rename':
        other = 'f%d' % rand.randrange(6)
        if other != name: os.rename(path(name), path(other)); files[other] = files.pop(name)
    elif what == 'remove':
        fd = os.open(path(name), os.O_RDWR); os.unlink(path(name)); os.pwrite(fd, b'x', 0)
        assert os.fstat(fd).st_nlink == 0 and os.pread(fd, 1, 0) == b'x'; os.close(fd); del files[name]
    elif what == 'punch':
        fd = os.open(path(name), os.O_RDWR); end = min(len(model), at + len(bytes_))
        done = libc.fallocate(fd, 3, ctypes.c_long(at), ctypes.c_long(len(bytes_))); os.close(fd)
        if done == 0 and at < end: model[at:end] = bytes(end - at)
    elif what == 'link': os.link(path(name), path('l')); assert os.stat(path(name)).st_nlink == 2; os.unlink(path('l'))
    elif what == 'sync': os.sync()
for name in sorted(files): same(name); print(name, len(files[name]), zlib.crc32(files[name]))
assert sorted(os.listdir(where)) == sorted(files)
";

const SUMS: &str = r"
import os, sys, zlib
for name in sorted(os.listdir(sys.argv[1])):
    content = open(os.path.join(sys.argv[1], name), 'rb').read(); print(name, len(content), zlib.crc32(content))
";

fn random_writes_are_in_the_image_and_it_is_clean(r: &Runner) {
    std::fs::write(r.dir().join("steps.py"), RANDOM).expect("a new file");
    std::fs::write(r.dir().join("sums.py"), SUMS).expect("a new file");
    let script = "mounted
        for seed in 1 2 3; do mkdir m/$seed; python3 steps.py m/$seed $seed 150 > said$seed; done; unmounted; clean; mounted
        for seed in 1 2 3; do python3 sums.py m/$seed | cmp - said$seed && echo same; done; unmounted";
    assert_eq!(beside_an_image(r, 64, script).line(), "clean\nsame\nsame\nsame");
}

fn each_call_that_synchronises_brings_what_was_written_to_the_image(r: &Runner) {
    let script = r#"mounted; cat > calls.py <<'P'
import ctypes, mmap, os, subprocess
libc = ctypes.CDLL(None, use_errno=True)
fd = os.open('m/f', os.O_RDWR | os.O_CREAT); directory = os.open('m', os.O_RDONLY)
def image():
    # What is in the journal alone is in the image, too.
    os.system('cp --sparse=always i copy; e2fsck -fy copy > fsck 2>&1')
    return subprocess.run(['debugfs', '-R', 'cat /f', 'copy'], capture_output=True).stdout
calls = {
    'fsync': lambda: os.fsync(fd), 'fdatasync': lambda: os.fdatasync(fd), 'sync': os.sync,
    'syncfs': lambda: libc.syncfs(directory), 'sync_file_range': lambda: libc.sync_file_range(fd, ctypes.c_long(0), ctypes.c_long(0), 7) }
for name, call in calls.items():
    os.pwrite(fd, name.encode().ljust(20), 0); assert image() != name.encode().ljust(20), name
    assert not call(), name
    assert image() == name.encode().ljust(20), (name, image())
memory = mmap.mmap(fd, 20); memory[:] = b'msync'.ljust(20); memory.flush(); assert image() == b'msync'.ljust(20)
os.fsync(directory); print('all')
P
python3 calls.py; unmounted; clean"#;
    assert_eq!(beside_an_image(r, 16, script).line(), "all\nclean");
}

fn nothing_synchronised_is_lost_when_the_supervisor_is_killed(r: &Runner) {
    // Each line of `synced` was written when its file had been synchronised.
    let script = r#"cat > writer.py <<'P'
import os, zlib
number = 0
while True:
    number += 1
    name = 'f%d' % (number % 20); content = b'%d:' % number + os.urandom(500 * (number % 40))
    fd = os.open('m/new', os.O_RDWR | os.O_CREAT | os.O_TRUNC); os.write(fd, content); os.fsync(fd); os.close(fd)
    os.rename('m/new', 'm/' + name); fd = os.open('m', os.O_RDONLY); os.fsync(fd); os.close(fd)
    with open('synced', 'a') as file: file.write('%s %d %d\n' % (name, number, zlib.crc32(content)))
P
cat > check.py <<'P'
import subprocess, zlib
newest = {}
for line in open('synced'):
    if line.endswith('\n'): name, number, sum_ = line.split(); newest[name] = (int(number), int(sum_))
assert len(newest) > 3
for name, (number, sum_) in newest.items():
    content = subprocess.run(['debugfs', '-R', 'cat /' + name, 'i'], capture_output=True).stdout
    there = int(content.split(b':')[0]); assert there >= number, (name, there, number)
    assert there > number or zlib.crc32(content) == sum_, name
P
PATH=$PATH:/usr/sbin:/sbin; mkdir m; children() { for child in $(pgrep -P $1); do echo $child; children $child; done; }
for round in 1 2 3; do
    rm -f synced i; truncate -s 32M i; mke2fs -q -F -t ext4 i
    umvu -m vufuse,unrealuid bash -c 'vumount -t vufuseext4 -o rw i m && exec python3 writer.py' 2>/dev/null & started=$!
    enough=$((RANDOM % 100 + 20)); until [ "$(wc -l 2>/dev/null < synced)" -gt $enough ] || ! kill -0 $started; do :; done 2>/dev/null
    for process in $(children $started); do [ "$(cat /proc/$process/comm)" = umvu-view ] && kill -9 $process; done
    wait $started || :; e2fsck -fy i > fsck 2>&1 || [ $? = 1 ] || cat fsck; e2fsck -fn i > fsck 2>&1 || cat fsck
    python3 check.py && echo kept
done"#;
    assert_eq!(r.outside_text(&["bash", "-c", script]), "kept\nkept\nkept");
}

fn a_full_image_says_so_at_fsync(r: &Runner) {
    let script =
        "mounted; dd if=/dev/urandom of=m/f bs=1M count=30 conv=fsync 2>&1 | grep -o 'No space left on device'; rm m/f";
    assert_eq!(beside_an_image(r, 16, script).line(), "No space left on device");
}

fn many_writers_at_once_leave_a_clean_image(r: &Runner) {
    let script = r"mounted
        for worker in 1 2 3 4 5 6; do (mkdir m/$worker; cd m/$worker
            for n in {1..40}; do head -c $((n * 997)) /dev/zero | tr '\0' $worker > f$n; [ $((n % 7)) = 0 ] && sync f$n; mv f$n g$n; [ $((n % 3)) = 0 ] && rm g$n; done; true) & done; wait
        unmounted; clean; mounted
        for worker in 1 2 3 4 5 6; do cat m/$worker/* | tr -d $worker | wc -c; ls m/$worker | wc -l; done | sort | uniq -c | tr -s ' '; unmounted";
    assert_eq!(beside_an_image(r, 64, script).line(), "clean\n 6 0\n 6 27");
}

/// Makes an image with a file of 40 MiB in it, whose bytes depend on where they are, and the file beside it.
const LARGE: &str = r#"
    python3 -c 'import sys
for at in range(40 << 10): sys.stdout.buffer.write((b"%08d" % at) * 128)' > large; vuumount m 2>/dev/null || :; mkdir tree; mv large tree/; rm i; truncate -s 80M i; mke2fs -q -F -t ext4 -d tree i; mv tree/large .; mounted
"#;

fn a_large_file_is_read_through_every_call(r: &Runner) {
    let script = r"cat > read.py <<'P'
import mmap, os, socket
own = open('large', 'rb').read(); fd = os.open('m/large', os.O_RDONLY); MB = 1 << 20
assert os.pread(fd, 5000, 30 * MB + 3) == own[30 * MB + 3:][:5000]
os.lseek(fd, 10 * MB - 5, 0); assert os.read(fd, 10) == own[10 * MB - 5:][:10] and os.read(fd, 10) == own[10 * MB + 5:][:10]
parts = [bytearray(7), bytearray(9)]; assert os.preadv(fd, parts, 20 * MB) == 16 and b''.join(parts) == own[20 * MB:][:16]
reads, writes = os.pipe(); os.splice(fd, writes, 3000, offset_src=15 * MB); assert os.read(reads, 3000) == own[15 * MB:][:3000]
out = os.open('out', os.O_RDWR | os.O_CREAT); assert os.sendfile(out, fd, 25 * MB, 4000) == 4000
assert os.pread(out, 4000, 0) == own[25 * MB:][:4000]
assert os.copy_file_range(fd, out, 5000, 35 * MB, 0) == 5000 and os.pread(out, 5000, 0) == own[35 * MB:][:5000]
child = os.fork()
if child == 0: os._exit(os.pread(fd, 9, 38 * MB) != own[38 * MB:][:9])
assert os.waitpid(child, 0)[1] == 0
assert os.pread(fd, 10, 40 * MB - 3) == own[-3:] and os.lseek(fd, 0, os.SEEK_HOLE) == 40 * MB
fd = os.open('m/large', os.O_RDONLY); memory = mmap.mmap(fd, 0, prot=mmap.PROT_READ); assert memory[:] == own
print('same')
P
        cat > send.py <<'P'
import os, socket
own = open('large', 'rb').read(); one, other = socket.socketpair(socket.AF_UNIX); child = os.fork()
if child == 0:
    fd = os.open('m/large', os.O_RDONLY); socket.send_fds(one, [b'x'], [fd]); os._exit(0)
fd = socket.recv_fds(other, 1, 1)[1][0]; os.waitpid(child, 0); assert os.pread(fd, 100, 33 << 20) == own[33 << 20:][:100]; print('sent')
P
        python3 send.py; unmounted; mounted; python3 read.py; unmounted; mounted; cmp large m/large && unmounted && clean";
    assert_eq!(beside_an_image(r, 16, &format!("{LARGE}{script}")).line(), "sent\nsame\nclean");
}

fn a_large_file_is_patched_in_place(r: &Runner) {
    let script = r"cat > patch.py <<'P'
import os
for path in 'large', 'm/large':
    fd = os.open(path, os.O_RDWR); os.pwrite(fd, b'patch', 17 << 20); os.pwrite(fd, b'end', 40 << 20); os.fsync(fd); os.close(fd)
    with open(path, 'ab') as file: file.write(b'more')
P
        python3 patch.py; unmounted; clean; mounted; cmp large m/large && echo same; truncate -s 20M large m/large; unmounted; mounted; cmp large m/large && echo same; unmounted; clean";
    assert_eq!(beside_an_image(r, 16, &format!("{LARGE}{script}")).line(), "clean\nsame\nsame\nclean");
}

fn nobody_is_watched_when_a_large_file_is_all_there(r: &Runner) {
    let script = r"cat > watched.py <<'P'
import os
watched = lambda: [line for line in open('/proc/self/status') if line.startswith('TracerPid')][0].split()[1] != '0'
fd = os.open('m/large', os.O_RDONLY); print(watched()); 
while os.read(fd, 1 << 20): pass
print(watched()); os.close(fd); print(watched())
P
        python3 watched.py; unmounted";
    assert_eq!(beside_an_image(r, 16, &format!("{LARGE}{script}")).line(), "True\nFalse\nFalse");
}
