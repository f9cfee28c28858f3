//! FUSE servers as Debian has them, and some that behave badly, in views whose kernel need not have FUSE: what they show is
//! what they were made of, and what is written reaches them.
//!
//! No user of the host may open its `/dev/fuse` everywhere, so nothing runs natively first: what the servers' own
//! maintainers' tools say of the same data is the measure.

use umvu_tests::{behaviours, Finished, Runner};

behaviours! {
    from_outside at VIEWS if umvu_tests::program::has_fuse_servers {
        a_squashfs_shows_what_it_was_made_of,
        what_is_written_to_an_ext4_is_in_its_image,
        a_mirror_takes_every_kind_of_change,
        unions_of_others_work,
        files_over_ssh_are_read_and_written,
        the_list_of_mounts_shows_it_as_the_kernels_does,
        a_server_that_is_killed_leaves_enotconn,
        a_server_that_comes_late_unmounts_nothing_else,
        a_mount_goes_with_its_server_if_it_is_told_so,
    }
    from_outside at VIEWS {
        the_device_is_a_character_device,
        the_device_is_there_where_the_host_has_none,
        who_waits_for_a_server_is_told_of_its_end,
        answers_without_sense_are_eio,
        a_descriptor_is_mounted_once,
        a_server_may_be_slow_to_begin,
    }
    from_outside at ROOT if umvu_tests::program::has_fuse_servers {
        others_are_admitted_only_if_they_are_allowed,
    }
    from_outside at PLAIN_ROOT {
        a_node_with_its_number_is_the_device,
    }
    from_outside at ORDINARY {
        without_the_module_nobody_mounts,
    }
}

/// Runs a script in a view that has the module, with an empty directory `m` to mount at.
fn fuse(r: &Runner, script: &str) -> Finished {
    let up = "up() { for i in {1..200}; do if mountpoint -q m; then return; fi; done; return 1; }";
    r.bash(&format!("set +o pipefail\nvu_insmod fuse; mkdir m; {up}\n{script}"))
}

/// A tree of all kinds of objects that a user can make, `tree`.
const TREE: &str = r#"
mkdir -p tree/d/e tree/empty; cd tree
echo one > f; chmod 640 f; echo two > 'd/a name'; chmod 4755 'd/a name'; ln -s ../f d/e/link; ln -s /nowhere dangling
printf x > $'d/\xff\xfe'; mkfifo -m 600 d/fifo; : > d/none; for i in {1..300}; do echo $i > d/e/$i; done
head -c 3000000 /dev/urandom > big; touch -d '2040-02-03 04:05:06 UTC' big; cp /bin/true .
cd ..
"#;

fn a_squashfs_shows_what_it_was_made_of(r: &Runner) {
    let script = r#"
        mksquashfs tree t.sqfs -quiet -no-progress > /dev/null; squashfuse t.sqfs m
        list() { (cd $1; find . ! -type d -printf '%y %m %s %TY-%Tm-%Td %TH:%TM:%.2TS %p %l\n' -o -printf '%y %m %p\n' | sort); }
        diff <(list tree) <(list m) && diff -r --no-dereference -x fifo tree m && m/true && echo alike
        tail -c 1000 m/big | cmp - <(tail -c 1000 tree/big); ls -a m/empty/.; fusermount3 -u m; find m"#;
    assert_eq!(fuse(r, &format!("{TREE}{script}")).line(), "alike\n.\n..\nm");
}

fn what_is_written_to_an_ext4_is_in_its_image(r: &Runner) {
    let script = r#"
        truncate -s 32M disk; mkfs.ext4 -q -E root_owner=$(id -u):$(id -g) disk; fuse2fs -o rw disk m 2> /dev/null || fuse2fs -o rw,fakeroot disk m
        mkdir m/d; head -c 2000000 /dev/urandom > random; cp random m/d/r; echo some > m/f; echo more >> m/f
        mv m/f m/d/g; ln m/d/g m/h; ln -s d/g m/l; truncate -s 5 m/d/g; setfattr -n user.k -v value m/d/g; stat -c %h m/h
        rm m/h; cmp random m/d/r; cat m/l; echo; getfattr --only-values -n user.k m/l; echo; fusermount3 -u m
        debugfs -R 'cat d/g' disk 2> /dev/null; echo; debugfs -R 'dump d/r out' disk 2> /dev/null; cmp random out
        debugfs -R 'ea_get d/g user.k' disk 2> /dev/null; e2fsck -fn disk > told 2>&1 || cat told"#;
    assert_eq!(fuse(r, script).line(), "2\nsome\n\nvalue\nsome\n\nuser.k (5) = \"value\"");
}

fn a_mirror_takes_every_kind_of_change(r: &Runner) {
    let script = r#"
        mkdir real; bindfs real m; cd m
        echo hello > a; sync a; cat ../real/a; echo more >> a; sync a; wc -l < ../real/a; mkdir d; mv a d/b; ln d/b d/c; stat -c %h d/b d/c
        ln -s b d/l; readlink ../real/d/l; chmod 600 d/b; touch -d '2001-01-01 UTC' d/b; stat -c '%a %Y' ../real/d/b
        setfattr -n user.x -v y d/b; getfattr -d d/b | tail -n +2 | head -1; mkfifo p; stat -c %F ../real/p
        cp /bin/true t; ./t && echo run; head -c 5000000 /dev/urandom > big; sync big; cmp big ../real/big && echo same
        python3 - <<'END'
import mmap, os
f = open('m', 'w+b'); f.truncate(8192); m = mmap.mmap(f.fileno(), 8192); m[100:105] = b'world'; m.flush(); m.close(); f.close()
print(open('../real/m', 'rb').read()[100:105].decode())
os.rename('m', 'n'); print(open('n', 'rb').read()[100:105].decode(), os.path.exists('m'), os.path.exists('../real/m'))
u = open('u', 'w+'); os.unlink('u'); u.write('kept'); u.flush(); u.seek(0); print(u.read(), os.path.exists('u'))
END
        rm -r d; rmdir nothing 2>&1 | grep -c 'No such'; ls; cd ..; fusermount3 -u m; ls real | wc -l; ls m | wc -l"#;
    let wanted = "hello\n2\n2\n2\nb\n600 978307200\nuser.x=\"y\"\nfifo\nrun\nsame\nworld\nworld False False\nkept False\n1\nbig\nn\np\nt\n4\n0";
    assert_eq!(fuse(r, script).line(), wanted);
}

fn unions_of_others_work(r: &Runner) {
    let script = r#"
        mkdir a b up work; echo one > a/f; echo two > b/g; echo low > b/f
        mergerfs -o category.create=ff a:b m; cat m/f m/g; echo new > m/h; sync m/h; cat a/h; fusermount3 -u m
        fuse-overlayfs -o lowerdir=b,upperdir=up,workdir=work m; cat m/f; echo changed > m/f; rm m/g; ls m; fusermount3 -u m
        cat b/f up/f b/g"#;
    assert_eq!(fuse(r, script).line(), "one\ntwo\nnew\nlow\nf\nlow\nchanged\ntwo");
}

fn files_over_ssh_are_read_and_written(r: &Runner) {
    // The server of the other side without the network in between.
    let script = r#"
        mkdir there; echo far > there/f; printf '#!/bin/sh\nexec /usr/lib/openssh/sftp-server\n' > ssh; chmod +x ssh
        sshfs -o ssh_command=$PWD/ssh host:$PWD/there m; cat m/f; head -c 1000000 /dev/urandom > m/big; mv m/f m/g
        fusermount3 -u m; ls there; stat -c %s there/big"#;
    assert_eq!(fuse(r, script).line(), "far\nbig\ng\n1000000");
}

fn the_list_of_mounts_shows_it_as_the_kernels_does(r: &Runner) {
    let script = r#"
        mkdir s; : > s/f; mksquashfs s t.sqfs -quiet -no-progress > /dev/null; squashfuse t.sqfs m
        id="user_id=$(id -u),group_id=$(id -g)"; grep -c "^squashfuse $PWD/m fuse.squashfuse rw,nosuid,nodev,relatime,$id 0 0$" /proc/mounts
        stat -f -c %t m; grep -w fuse /proc/filesystems | tail -1 | tr -d '\t'; mountpoint -q m && echo mounted
        fusermount3 -u m; grep -c squashfuse /proc/mounts || :; mountpoint -q m || echo gone"#;
    assert_eq!(fuse(r, script).line(), "1\n65735546\nnodevfuse\nmounted\n0\ngone");
}

fn a_server_that_is_killed_leaves_enotconn(r: &Runner) {
    let script = r#"
        mkdir real; echo x > real/f; bindfs -f real m & server=$!; up; cat m/f
        exec 3< m; kill -KILL $server; wait $server || :
        cat m/f 2>&1 | grep -c 'not connected'; ls m 2>&1 | grep -c 'not connected'; mkdir m/d 2>&1 | grep -c 'not connected'
        exec 3<&-; fusermount3 -u m; ls -A m | wc -l; echo y > m/own; cat m/own"#;
    assert_eq!(fuse(r, script).line(), "x\n1\n1\n1\n0\ny");
}

fn a_server_that_comes_late_unmounts_nothing_else(r: &Runner) {
    let script = r#"
        mkdir a b; echo a > a/f; echo b > b/f
        for i in 1 2 3 4 5; do for s in a b; do bindfs $s m; cat m/f; fusermount3 -u m; done; done | tr -d '\n'
        bindfs a m; for i in 1 2 3 4 5 6 7 8 9; do cat m/f; done | uniq; fusermount3 -u m"#;
    assert_eq!(fuse(r, script).line(), "ababababab".to_owned() + "a");
}

fn a_mount_goes_with_its_server_if_it_is_told_so(r: &Runner) {
    let script = r#"
        mkdir s; : > s/f; mksquashfs s t.sqfs -quiet -no-progress > /dev/null
        squashfuse -f -o auto_unmount t.sqfs m & server=$!; up; ls m
        kill -KILL $server; wait $server || :; for i in {1..500}; do mountpoint -q m || break; done; ls -A m | wc -l; grep -c " $PWD/m " /proc/mounts || :"#;
    assert_eq!(fuse(r, script).line(), "f\n0\n0");
}

fn the_device_is_a_character_device(r: &Runner) {
    let script = r#"python3 - <<'END'
import os, stat
fd = os.open('/dev/fuse', os.O_RDWR)
for s in (os.fstat(fd), os.stat('/dev/fuse')):
    print(stat.S_ISCHR(s.st_mode), os.major(s.st_rdev), os.minor(s.st_rdev))
fd = os.open('/dev/fuse', os.O_RDWR | os.O_NONBLOCK)
try:
    os.read(fd, 200000)
except OSError as error:
    print(error.strerror)
END"#;
    let node = "True 10 229";
    assert_eq!(fuse(r, script).line(), format!("{node}\n{node}\nResource temporarily unavailable"));
}

fn others_are_admitted_only_if_they_are_allowed(r: &Runner) {
    let script = r#"
        mkdir s; echo x > s/f; mksquashfs s t.sqfs -quiet -no-progress > /dev/null; chmod 755 .
        other() { setpriv --reuid 1234 --regid 1234 --clear-groups "$@"; }
        squashfuse t.sqfs m; cat m/f; for c in 'cat m/f' 'stat m' 'stat m/f' 'ls m'; do other $c 2>&1 | grep -c 'Permission denied'; done
        fusermount3 -u m; squashfuse -o allow_other t.sqfs m; other cat m/f; other ls m; fusermount3 -u m"#;
    assert_eq!(fuse(r, script).line(), "x\n1\n1\n1\n1\nx\nf");
}

fn the_device_is_there_where_the_host_has_none(r: &Runner) {
    let script = r#"
        vumount -t tmpfs none /dev; ls /dev | wc -l; stat -c '%F %t %T %a' /dev/fuse; cd /dev; stat -c %n fuse
        stat /dev/fus 2>&1 | grep -c 'No such'; python3 -c "import os; print(os.major(os.fstat(os.open('/dev/fuse', 2)).st_rdev))""#;
    assert_eq!(fuse(r, script).line(), "0\ncharacter special file a e5 666\nfuse\n1\n10");
}

fn a_node_with_its_number_is_the_device(r: &Runner) {
    let script = "mknod node c 10 229; python3 -c \"import os; print(os.major(os.fstat(os.open('node', 2)).st_rdev))\"";
    assert_eq!(fuse(r, script).line(), "10");
}

/// A server of a few lines, which says itself how it is used.
const SERVER: &str = include_str!("../src/fuse_server.py");

fn served(r: &Runner, script: &str) -> Finished {
    fuse(r, &format!("cat > server.py <<'END'\n{SERVER}{script}\nEND\npython3 server.py"))
}

fn who_waits_for_a_server_is_told_of_its_end(r: &Runner) {
    let script = r#"
def answer(opcode, node, body):
    if opcode == 3:
        return 0, attr(0o40755)
    if opcode == 1:
        os._exit(0)
    return errno.ENOSYS, b''
child = serve(answer)
print(fails(lambda: os.stat('m/file')), fails(lambda: os.stat('m/file')), fails(lambda: os.listdir('m')))
os.waitpid(child, 0)
unmount()
print(os.listdir('m'))"#;
    assert_eq!(served(r, script).line(), "ECONNABORTED ENOTCONN ENOTCONN\nunmounted\n[]");
}

fn answers_without_sense_are_eio(r: &Runner) {
    let script = r#"
import itertools
lies = [(0, b''), (0, bytes(3)), (0, bytes(5000)), (-5, b''), (600, b''), (2, b'x'), (0, struct.pack('<QQQQLL', 1, 0, 0, 0, 0, 0) + attr(0o100644)[16:]),
    (0, struct.pack('<QQQQLL', 5, 0, 0, 0, 0, 0) + attr(0)[16:]), (0, struct.pack('<QQQQLL', 5, 0, 0, 0, 0, 0) + attr(0o100644, 7)[16:24] + bytes([255]) * 80)]
more = iter(lies)
def answer(opcode, node, body):
    if opcode == 3:
        return 0, attr(0o40755)
    if opcode == 1:
        return next(more)
    if opcode == 28:
        return 0, bytes(24) + b'name'
    if opcode == 27:
        return 0, bytes(16)
    return errno.ENOSYS, b''
serve(answer)
print({fails(lambda: os.stat('m/%d' % n)) for n in range(len(lies))}, fails(lambda: os.listdir('m')))
unmount()"#;
    assert_eq!(served(r, script).line(), "{'EIO'} EIO\nunmounted");
}

fn a_descriptor_is_mounted_once(r: &Runner) {
    let script = r#"
fd = os.open('/dev/fuse', os.O_RDWR)
other = os.open('/dev/null', os.O_RDWR)
for text in (b'', options(99), options(other), options(fd).replace(b'40000', b'0'), options(fd) + b',no_such_option', options(fd).replace(b'user_id', b'user')):
    print(errno.errorcode[mount(text)], end=' ')
print(mount(options(fd)), errno.errorcode[mount(options(fd))])
unmount()"#;
    assert_eq!(served(r, script).line(), "EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL 0 EINVAL\nunmounted");
}

fn a_server_may_be_slow_to_begin(r: &Runner) {
    // It begins after somebody has asked for the root.
    let script = r#"
asks, begins = os.pipe()
def answer(opcode, node, body):
    return (0, attr(0o40755)) if opcode == 3 else (errno.ENOSYS, b'')
serve(answer, lambda: os.read(asks, 1))
waits = os.fork()
if not waits:
    os.write(begins, b'x')
    print(oct(os.stat('m').st_mode), flush=True)
    os._exit(0)
os.waitpid(waits, 0)
unmount()"#;
    assert_eq!(served(r, script).line(), "0o40755\nunmounted");
}

fn without_the_module_nobody_mounts(r: &Runner) {
    let script = format!(
        "mkdir m; cat > server.py <<'END'\n{SERVER}\nprint(errno.errorcode[mount(options(0))])\nEND\npython3 server.py"
    );
    assert_eq!(r.bash(&script).line(), "EPERM");
}
