//! Archives as file systems: mounted as they lie there, with the owners, modes, times, links and holes that they tell of,
//! and nothing in them changed.

use std::fs;

use umvu_tests::archive::{busybox, layers, Tar};
use umvu_tests::{behaviours, Finished, Runner};

behaviours! {
    from_outside at ROOT {
        an_archive_shows_what_it_lists,
        contents_are_those_of_the_tree,
        every_compression_is_read,
        every_format_of_tar_is_read,
        cpio_is_read_plain_and_compressed,
        zip_is_read,
        a_lying_zip_fails_where_it_lies,
        sparse_files_keep_their_holes,
        extended_attributes_are_shown,
        hard_links_are_one_object,
        special_files_are_what_they_are,
        nothing_in_an_archive_can_be_changed,
        a_descriptor_knows_its_archive,
        a_program_runs_from_an_archive,
        chroot_enters_an_archive,
        an_archive_in_an_archive_is_mounted,
        a_copy_on_write_union_over_an_archive_copies_up,
        archives_are_layers_of_a_union,
        an_unmounted_archive_leaves_nothing,
        options_of_an_archive_are_checked,
        a_bomb_is_stopped,
    }
}

/// Makes a tree of all kinds of objects and an archive `t.tar` of it, before a script that has the archive mounted at
/// `m`.
fn mounted(r: &Runner, script: &str) -> Finished {
    r.bash(&format!("set +o pipefail\n{TREE}\nmkdir m; vu_insmod archive; vu_insmod viewfs 2>/dev/null || :; vumount -t tar t.tar m\n{script}"))
}

const TREE: &str = r#"
mkdir -p tree/d/e tree/empty; cd tree
echo one > f; chmod 640 f; echo two > 'd/a name'; chmod 4755 'd/a name'; ln f d/hard; ln -s ../f d/e/link; ln -s /nowhere dangling
printf x > $'d/\xff\xfe'; mkfifo -m 600 d/fifo; : > d/none; chmod 1777 d/e
long=$(printf 'n%.0s' {1..200}); mkdir -p $long/$long; echo deep > $long/$long/file
head -c 300000 /dev/urandom > big; touch -d '1969-12-31 23:00:00 UTC' f; touch -d '2040-02-03 04:05:06.7 UTC' big
cd ..; tar -C tree --format=posix --owner=12 --group=34 --numeric-owner -cf t.tar .
"#;

fn an_archive_shows_what_it_lists(r: &Runner) {
    let told = mounted(
        r,
        r#"
        tar --numeric-owner --full-time --quoting-style=literal -tvf t.tar | sed 's/ link to .*//' |
            sed -E 's/^h/-/; s/^([^ ]+ [^ ]+) +[0-9]+ ([^ ]+ [0-9:]{8})[.0-9]* +/\1 \2 /' | sort > listed
        cd m; find . \( -type d -printf '%M %U/%G %TY-%Tm-%Td %TH:%TM:%.2TS %p/\n' -o -type l -printf '%M %U/%G %TY-%Tm-%Td %TH:%TM:%.2TS %p -> %l\n' -o -printf '%M %U/%G %TY-%Tm-%Td %TH:%TM:%.2TS %p\n' \) |
            sed 's,\.//*$,./,' | sort > ../shown; cd ..
        diff listed shown && wc -l < shown"#,
    );
    assert_eq!(told.line(), "16");
}

fn contents_are_those_of_the_tree(r: &Runner) {
    let script = "sums() { cd $1; find . -type f -exec sha256sum {} + | sort -k2; cd ..; }; diff <(sums tree) <(sums m) && cmp tree/big m/big && echo same";
    assert_eq!(mounted(r, script).line(), "same");
}

fn every_compression_is_read(r: &Runner) {
    let script = "
        for c in gzip bzip2 xz zstd; do $c -q < t.tar > c.$c; vumount -t archive c.$c m; (cd m; find . -type f -exec sha256sum {} + | sort | sha256sum); vuumount m; done | sort -u | wc -l
        cat <(gzip < t.tar | head -c 0) <(head -c 5000 t.tar | gzip) <(tail -c +5001 t.tar | gzip) > two.gz; vumount -t tar two.gz m; cat m/f
        cat <(head -c 5000 t.tar | zstd -q) <(tail -c +5001 t.tar | zstd -q) > two.zst; vumount -t tar two.zst m; cat m/f";
    assert_eq!(mounted(r, script).line(), "1\none\none");
}

fn every_format_of_tar_is_read(r: &Runner) {
    let script = "
        vuumount m; rm -r tree/n*; tree/f 2>/dev/null || touch tree/f tree/big
        for f in v7 ustar oldgnu gnu posix; do
            tar -C tree --format=$f --exclude=fifo --owner=5 --group=6 --numeric-owner -cf $f.tar .; vumount -t tar $f.tar m
            (cd m; find . -printf '%P %y %m %U %G %n %l\\n' | sort | sha256sum; find . -type f -exec sha256sum {} + | sort | sha256sum); vuumount m
        done | sort -u | wc -l
        mkdir long; n=$(printf 'n%.0s' {1..255}); mkdir -p long/$n/$n; ln -s $n/$n long/l; echo x > long/$n/$n/$n
        for f in gnu posix; do tar -C long --format=$f -cf $f.tar .; vumount -t tar $f.tar m; cat m/l/$n; readlink m/l | wc -c; vuumount m; done";
    assert_eq!(mounted(r, script).line(), "2\nx\n512\nx\n512");
}

fn cpio_is_read_plain_and_compressed(r: &Runner) {
    let script = r#"
        vuumount m; cd tree; rm -r nn*; rm $'d/\xff\xfe'; find . -exec touch -h -d '2020-02-03 04:05:06 UTC' {} +; find . | busybox cpio -o -H newc > ../c 2>/dev/null
        listed() { (cd $1; find . ! -type d -printf '%p %M %n %s %TY-%Tm-%Td %TT %l\n' -o -printf '%p %M %TY-%Tm-%Td %TT\n' | sort; find . -type f -exec md5sum {} + | sort); }
        cd ..; listed tree > told; wc -l < told; gzip -k c; zstd -q c -o c.zst
        for f in c c.gz c.zst; do vumount -t cpio $f m; listed m | diff told - && echo same; stat -c %i m/f m/d/hard | uniq | wc -l; vuumount m; done"#;
    assert_eq!(mounted(r, script).line(), "17\nsame\n1\nsame\n1\nsame\n1");
}

/// Writes zip archives with Python: `z.zip` with something of everything, `lies.zip` whose directory is wrong in places.
const ZIP: &str = r#"
python3 - <<'END'
import struct, zipfile
def add(z, name, mode, content, how=zipfile.ZIP_DEFLATED):
    entry = zipfile.ZipInfo(name, (2020, 2, 3, 4, 5, 6)); entry.create_system = 3
    entry.external_attr = mode << 16; entry.compress_type = how; z.writestr(entry, content)
with zipfile.ZipFile('z.zip', 'w') as z:
    add(z, 'd/', 0o40750, '', zipfile.ZIP_STORED)
    for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        add(z, 'd/%d' % how, 0o100640, b'content ' * 20000, how)
    add(z, 'link', 0o120777, 'd/8'); add(z, 'run', 0o100755, '#!/bin/sh\necho runs $0\n'); add(z, 'näme', 0o100644, b'')
    with z.open(zipfile.ZipInfo('long'), 'w', force_zip64=True) as f: f.write(b'long')
bytes = open('z.zip', 'rb').read(); open('self.zip', 'wb').write(b'#!/bin/sh\nexit\n' + bytes)
with zipfile.ZipFile('lies.zip', 'w') as z:
    for name in 'bomb', 'sum', 'good': add(z, name, 0o100644, b'x' * 100000)
bytes = bytearray(open('lies.zip', 'rb').read()); at = bytes.find(b'PK')
bytes[at + 24:at + 28] = struct.pack('<I', 99999); at = bytes.find(b'PK', at + 1)
bytes[at + 16] ^= 1; open('lies.zip', 'wb').write(bytes)
END
"#;

fn zip_is_read(r: &Runner) {
    let script = r#"
        vuumount m; vumount -t zip z.zip m; cd m; TZ=UTC stat -c '%n %A %U %y' d; TZ=UTC stat -c '%n %A %U %s %y' d/0 link 'näme' long ; md5sum d/* | cut -d' ' -f1 | uniq | wc -l
        readlink link; cmp link d/14; cat long; echo; ./run; touch new 2>&1 | sed 's/.*: //'; cd ..; vuumount m
        vumount -t zip self.zip m; cat m/run | head -1; vuumount m; vumount -t zip t.tar m 2>&1 || :; vumount -t tar z.zip m 2>&1 || :"#;
    let told = mounted(r, &format!("{ZIP}{script}")).line();
    let expected = "d drwxr-x--- root 2020-02-03 04:05:06.000000000 +0000\nd/0 -rw-r----- root 160000 2020-02-03 04:05:06.000000000 +0000\nlink lrwxrwxrwx root 3 2020-02-03 04:05:06.000000000 +0000\nnäme -rw-r--r-- root 0 2020-02-03 04:05:06.000000000 +0000\nlong -rw------- root 4 1980-01-01 00:00:00.000000000 +0000\n1\nd/8\nlong\nruns ./run\nRead-only file system\n#!/bin/sh\nvumount: t.tar: not a zip archive\nvumount: z.zip: not a tar archive";
    assert_eq!(told, expected);
}

fn a_lying_zip_fails_where_it_lies(r: &Runner) {
    let script = "
        vuumount m; vumount -t zip lies.zip m; for f in bomb sum good; do stat -c %s m/$f; cat m/$f 2>&1 | md5sum | grep -c d5816f35916d1d9482fb0f1ec201101d || cat m/$f 2>&1 | sed 's/.*: //'; done
        vuumount m; vumount -t zip -o limit=64K lies.zip m; cat m/good 2>&1 | sed 's/.*: //'; ls ../home/.cache/umvu/open/*/ 2>/dev/null | wc -l
        head -c 200 z.zip > cut.zip; vumount -t zip cut.zip m 2>&1 || :";
    let told = mounted(r, &format!("{ZIP}{script}")).line();
    let expected = "99999\n0\nInput/output error\n100000\n0\nInput/output error\n100000\n1\nFile too large\n0\nvumount: cut.zip: truncated: a zip archive without its end";
    assert_eq!(told, expected);
}

fn sparse_files_keep_their_holes(r: &Runner) {
    let script = "
        mkdir s; truncate -s 50M s/f; for at in 0 3 20 30 31 40 49; do echo $at | dd of=s/f bs=1M seek=$at conv=notrunc status=none; done; truncate -s 5M s/hole; echo end >> s/hole
        for f in --format=gnu '--format=posix --sparse-version=0.0' '--format=posix --sparse-version=0.1' '--format=posix --sparse-version=1.0'; do
            tar -C s $f -Scf s.tar .; vumount -t tar s.tar m; cmp s/f m/f && cmp s/hole m/hole && stat -c %s m/f; test $(stat -c %b m/f) -lt 1000 && echo thin; vuumount m
        done";
    let told = mounted(r, &("vuumount m".to_owned() + script));
    assert_eq!(told.line(), ["52428800\nthin"; 4].join("\n"));
}

fn extended_attributes_are_shown(r: &Runner) {
    let script = r"
        vuumount m; setfattr -n user.text -v $'two\nlines' tree/f; setfattr -n user.bytes -v 0x00ff0a tree/f
        tar -C tree --format=posix --xattrs -cf x.tar .; vumount -t tar x.tar m
        getfattr --only-values -n user.text m/f; echo; getfattr -e hex -n user.bytes m/f | grep =; getfattr -n user.none m/f 2>&1 | grep -c 'No such attribute'; getfattr -d m/d | wc -l";
    assert_eq!(mounted(r, script).line(), "two\nlines\nuser.bytes=0x00ff0a\n1\n0");
}

fn hard_links_are_one_object(r: &Runner) {
    let script = "test m/f -ef m/d/hard && stat -c %h m/f m/d/hard m/big; stat -c %h m m/d m/empty; stat -c %i m/* > before; vuumount m; vumount -t tar t.tar m; stat -c %i m/* | diff before - && echo stable";
    assert_eq!(mounted(r, script).line(), "2\n2\n1\n5\n3\n2\nstable");
}

fn special_files_are_what_they_are(r: &Runner) {
    let tar = Tar::default()
        .entry(b'3', "null", "", b"")
        .entry(b'4', "disk", "", b"")
        .entry(b'6', "fifo", "", b"")
        .entry(b'7', "contiguous", "", b"x\n")
        .entry(b'0', "old/", "", b"")
        .entry(b'V', "label", "", b"")
        .entry(b'Q', "unheard-of", "", b"y\n")
        .end();
    fs::write(r.dir().join("s.tar"), tar).expect("an archive");
    let script = "set +o pipefail; vu_insmod archive; mkdir m; vumount -t tar s.tar m; stat -c '%n %F %t:%T' m/*; echo lost > m/null; cat m/contiguous m/unheard-of; (exec 3<>m/fifo; echo through >&3; read x <&3; echo $x); cat m/disk 2>&1 | grep -c 'No such device'";
    let told = r.bash(script).line();
    let expected = "m/contiguous regular file 0:0\nm/disk block special file 1:3\nm/fifo fifo 0:0\nm/null character special file 1:3\nm/old directory 0:0\nm/unheard-of regular file 0:0\nx\ny\nthrough\n1";
    assert_eq!(told, expected);
}

fn nothing_in_an_archive_can_be_changed(r: &Runner) {
    let script = "
        sum=$(sha256sum < t.tar); said() { \"$@\" 2>&1 || :; }
        { said touch m/new; said rm m/f; said mkdir m/dir; said mv m/f m/g; said ln m/f m/g; said chmod 600 m/f; said chown 1 m/f; said rmdir m/empty; said setfattr -n user.a -v b m/f; said truncate -s 0 m/f; said ln -s a m/b; said mkfifo m/p; } | grep -c 'Read-only file system'
        (echo x > m/f) 2>&1 | grep -c 'Read-only'; vumount -o remount,rw m || :; said rm m/f | grep -c 'Read-only'; said truncate -s 0 m/f | grep -c Read-only
        test \"$sum\" = \"$(sha256sum < t.tar)\" && echo untouched";
    assert_eq!(mounted(r, script).line(), "12\n1\n1\n1\nuntouched");
}

fn a_descriptor_knows_its_archive(r: &Runner) {
    let script = "exec 3<m/big; readlink /proc/self/fd/3 | sed s,$PWD/,,; stat -Lc '%s %u' /proc/self/fd/3; test /proc/self/fd/3 -ef m/big && echo same; (echo x >/proc/self/fd/3) 2>&1 | grep -c Read-only; vuumount m 2>&1 | grep -c busy; exec 3<&-; vuumount m; ls m | wc -l";
    assert_eq!(mounted(r, script).line(), "m/big\n300000 12\nsame\n1\n1\n0");
}

fn a_program_runs_from_an_archive(r: &Runner) {
    let tar = Tar::default().file("bin/busybox", &busybox()).file("script", b"#!m/bin/busybox sh\necho $0 $1\n").end();
    fs::write(r.dir().join("p.tar"), tar).expect("an archive");
    let script = "vu_insmod archive; mkdir m; vumount -t tar p.tar m; m/bin/busybox echo runs; m/bin/busybox readlink /proc/self/exe | sed s,$PWD/,,; m/script x; cat < m/script | wc -l";
    assert_eq!(r.bash(script).line(), "runs\nm/bin/busybox\nm/script x\n2");
}

fn chroot_enters_an_archive(r: &Runner) {
    root(r);
    let script =
        "vu_insmod archive; mkdir m; vumount -t tar root.tar m; chroot m /bin/sh -c 'pwd; ls; cat /etc/changed'";
    assert_eq!(r.bash(script).line(), "/\nbin\netc\nlib\nopt\nusr\nfirst");
}

fn an_archive_in_an_archive_is_mounted(r: &Runner) {
    let script = "mkdir out n; gzip t.tar; mv t.tar.gz out; tar -cf out.tar out; vuumount m; vumount -t tar out.tar m; vumount -t tar m/out/t.tar.gz n; cat n/f";
    assert_eq!(mounted(r, script).line(), "one");
}

fn a_copy_on_write_union_over_an_archive_copies_up(r: &Runner) {
    let script = r"
        mkdir up; vumount -t viewfs -o cow up m; stat -c '%u:%g %a %s' m/big; echo more >> m/d/'a name'; cat m/d/'a name'; stat -c '%u:%g %a %h' m/d/'a name' m/f
        echo f >> m/f; stat -c '%h %u' m/f m/d/hard; rm m/big; rm -r m/d/e; mkdir m/d/e; ls -A m/d/e | wc -l; mv m/d m/D; cat m/D/hard; chown 7:8 m/empty; mkfifo m/D/p
        vuumount m; vuumount m; vumount -t tar t.tar m; vumount -t viewfs -o cow up m; cat m/D/hard m/f; stat -c %u:%g m/empty; ls m | grep -c big || :; stat -c '%U %F' m/D/p
        vuumount m; cat m/f; ls m | grep -c big";
    let told = mounted(r, script).line();
    let expected = "12:34 644 300000\ntwo\nmore\n12:34 4755 1\n12:34 640 2\n2 12\n2 12\n0\none\nf\none\nf\none\nf\n7:8\n0\nroot fifo\none\n1";
    assert_eq!(told, expected);
}

fn archives_are_layers_of_a_union(r: &Runner) {
    let [first, second] = layers();
    fs::write(r.dir().join("1.tar"), first).expect("a layer");
    // Through a link in another layer there is no way here: only images put layers together as one tree.
    fs::write(r.dir().join("2.tar"), second).expect("a layer");
    let script = "
        vu_insmod archive; vu_insmod viewfs 2>/dev/null || :; mkdir a b u p; vumount -t tar 1.tar a; vumount -t tar 2.tar b
        vumount -t overlay -o lowerdir=b:a,upperdir=u none p; ls p/etc p/opt/old; cat p/etc/changed; p/bin/busybox echo runs; echo x > p/opt/old/three; cat p/opt/old/three b/opt/old/three";
    let told = r.bash(script).line();
    assert_eq!(told, "p/etc:\nchanged\ngroup\npasswd\n\np/opt/old:\nthree\nsecond\nruns\nx\n3");
}

fn an_unmounted_archive_leaves_nothing(r: &Runner) {
    let script = "cat m/f m/big > /dev/null; ls ../home/.cache/umvu/open | wc -l; vuumount m; ls ../home/.cache/umvu/open | wc -l";
    assert_eq!(mounted(r, script).line(), "1\n0");
    let told = mounted_again(r, "cat m/f; exec 3<m/d; cd m/d");
    assert_eq!(told, "one");
    // In a union the view's cache is in the union.
    let cache = r.dir().parent().expect("the directory of the behaviour").join("home/.cache/umvu/open");
    assert!(fs::read_dir(cache).map_or(0, Iterator::count) == 0, "something is left in the cache");
}

/// Runs a script in a second view with the archive of the first.
fn mounted_again(r: &Runner, script: &str) -> String {
    let setup = "test -e t.tar || { mkdir -p tree/d; echo one > tree/f; tar -C tree -cf t.tar .; }; mkdir -p m; vu_insmod archive; vumount -t tar t.tar m";
    r.bash(&format!("{setup}\n{script}")).line()
}

fn options_of_an_archive_are_checked(r: &Runner) {
    let script = "
        said() { \"$@\" 2>&1 && echo worked || echo \"status $?\"; }
        said vumount -t tar -o siz=1 t.tar m; said vumount -t tar -o limit=many t.tar m; said vumount -t tar none m; said vumount -t tar tree m; said vumount -t image t.tar m
        vumount -t tar -o dir=/a/b,file=/d/c,dir=/d t.tar m; stat -c '%F %u' m/a/b m/d/c; said vumount -t tar -o dir=/f/x t.tar m";
    let expected = "vumount: unknown option 'siz=1'\nstatus 1\nvumount: option 'limit=many': needs a size\nstatus 1\nvumount: none: no such file or directory\nstatus 1\nvumount: tree: is a directory\nstatus 1\nvumount: t.tar: not the image of a container\nstatus 1\ndirectory 0\nregular empty file 0\nvumount: mount point: entry '/f/x': its parent 'f' is not a directory\nstatus 1";
    assert_eq!(mounted(r, script).line(), expected);
}

fn a_bomb_is_stopped(r: &Runner) {
    let script = "
        for c in gzip bzip2 xz zstd; do head -c 20M /dev/zero | $c -q > bomb; vumount -t tar -o limit=1M bomb m 2>&1 || :; done | sort | uniq -c | sed 's/^ *//'
        gzip -q < bomb | gzip -q | gzip -q | gzip -q > nested; vumount -t tar nested m 2>&1 || :; ls ../home/.cache/umvu/unpacked | wc -l";
    let expected = "4 vumount: bomb: unpacks to more than 1048576 bytes, the most that is taken\nvumount: nested: compressed more than 3 times\n0";
    assert_eq!(mounted(r, script).line(), expected);
}

/// Writes an archive of a root for busybox, as `root.tar` in the working directory.
fn root(r: &Runner) {
    fs::write(r.dir().join("root.tar"), &layers()[0]).expect("an archive");
}
