//! Images of file systems, mounted in a view where they lie: what is shown is what the makers of the images were given,
//! what is written is what their checkers find, and nobody else's image is touched.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use umvu_tests::{behaviours, watch, Finished, Runner};

behaviours! {
    from_outside at ROOT {
        an_image_of_ext2_is_read_and_written,
        a_program_runs_from_an_image,
        every_format_shows_the_tree_it_was_made_of,
        the_format_is_told_by_the_content,
        what_is_written_to_ext4_is_there_after_a_remount,
        what_is_written_to_vfat_is_there_after_a_remount,
        one_alone_writes_an_image,
        what_cannot_be_mounted_says_why_and_stays_as_it_is,
        set_id_bits_go_when_somebody_else_writes,
        what_no_driver_knows_is_served_by_a_program,
        an_image_that_is_read_stays_as_it_is,
        owners_and_permissions_of_vfat_are_those_of_the_options,
        a_file_system_is_found_in_a_disk,
        an_image_of_ext4_on_a_disk_of_the_view,
        a_dirty_journal_is_replayed,
        sqlite_and_git_work_on_ext4,
        a_killed_view_leaves_what_was_synced,
        a_killed_view_leaves_what_was_synced_on_a_partition,
        contents_take_what_they_may_and_go_with_the_mount,
    }
    from_outside at INSIDE {
        an_ordinary_user_mounts_an_image,
    }
}

/// Makes a tree and runs a script with the module loaded.
fn with_tree(r: &Runner, script: &str) -> Finished {
    r.bash(&format!("{TREE}{script}"))
}

const TREE: &str = r#"
set +e +o pipefail; PATH=$PATH:/usr/sbin:/sbin; vu_insmod vufuse || exit
mke2fs() { command mke2fs "$@" > /dev/null; }
mount() { vumount "$@"; }; umount() { vuumount "$@"; }
mkdir -p tree/d/e tree/bin m n; cd tree
echo one > f; chmod 640 f; echo two > 'd/a name'; chmod 4755 'd/a name'; ln f d/hard; ln -s ../f d/e/link; mkfifo -m 600 d/fifo; chmod 1777 d/e
head -c 300000 /dev/urandom > big; truncate -s 3M sparse; echo end >> sparse; cp "$(command -v busybox)" bin/busybox
find . -exec touch -h -d '2020-02-03 04:05:06 UTC' {} +; cd ..
listed() { (cd $1; find . -path ./lost+found -prune -o \( -type d -printf '%M %TY-%Tm-%Td %TT %p\n' -o -type p -printf '%M %TY-%Tm-%Td %TT %p\n' -o -printf '%M %n %s %TY-%Tm-%Td %TT %p %l\n' \) | grep -v ' \.$' | sort); }
sums() { (cd $1; find . -path ./lost+found -prune -o -type f -exec sha256sum {} + | sort -k2); }
"#;

fn an_image_of_ext2_is_read_and_written(r: &Runner) {
    let script = r"
        mke2fs -q -F -t ext2 -d tree i 16M
        command mount -t vufuseext2 i m && ls m | tr '\n' ' '; cat m/f; echo three >> m/f; mkdir m/new; cp tree/big m/new/; rm m/sparse; mv m/d/hard m/new/; ln -s f m/link
        stat -c '%s %U' m/f; cat m/link; grep -c ' vufuseext2 rw' /proc/mounts; command umount m; ls m | wc -l
        e2fsck -fn i >/dev/null 2>&1; echo $?; debugfs -R 'cat /f' i 2>/dev/null; debugfs -R 'cat /new/big' i 2>/dev/null | cmp - tree/big && echo same";
    let expected = "big bin d f lost+found sparse one\n10 root\none\nthree\n1\n0\n0\none\nthree\nsame";
    assert_eq!(with_tree(r, script).line(), expected);
}

fn a_program_runs_from_an_image(r: &Runner) {
    let script = r"
        genisoimage -quiet -R -o i.iso tree; mksquashfs tree i.sqfs -quiet -no-progress >/dev/null; mke2fs -q -F -t ext4 -d tree i.ext4 16M
        for i in i.iso i.sqfs i.ext4; do
            vumount -t vufuse $i m; m/bin/busybox sh -c 'echo runs $((6 * 7))'; m/bin/busybox readlink /proc/self/exe | sed s,.*/m/,,
            umount m 2>/dev/null && ls m | wc -l
        done";
    assert_eq!(with_tree(r, script).line(), ["runs 42\nbin/busybox\n0"; 3].join("\n"));
}

fn every_format_shows_the_tree_it_was_made_of(r: &Runner) {
    let script = r"
        mksquashfs tree i.squashfs -quiet -no-progress -comp zstd >/dev/null; mkfs.erofs --quiet -zlz4hc i.erofs tree >/dev/null; genisoimage -quiet -R -o i.iso9660 tree
        for t in ext2 ext3 ext4; do mke2fs -q -F -t $t -d tree i.$t 16M; done
        for t in squashfs erofs ext2 ext3 ext4; do
            vumount -t $t i.$t m; diff <(listed tree) <(listed m) && diff <(sums tree) <(sums m) && echo $t; test $t = erofs -o $(stat -c %b m/sparse) -lt 1000 || echo thick; umount m
        done
        vumount -t iso9660 i.iso9660 m; diff <(sums tree) <(sums m) && diff <(listed tree | cut -d' ' -f1,6-) <(listed m | cut -d' ' -f1,6-) && echo iso9660; umount m";
    assert_eq!(with_tree(r, script).line(), "squashfs\nerofs\next2\next3\next4\niso9660");
}

fn the_format_is_told_by_the_content(r: &Runner) {
    let script = r"
        mksquashfs tree i.1 -quiet -no-progress >/dev/null; mkfs.erofs --quiet i.2 tree >/dev/null; genisoimage -quiet -R -o i.3 tree
        mke2fs -q -F -t ext3 i.4 8M; mke2fs -q -F -t ext4 i.5 16M; mkfs.fat -C i.6 4096 >/dev/null; tar -C tree -cf i.7 .
        (cd tree; find . | busybox cpio -o -H newc > ../i.8 2>/dev/null; python3 -m zipfile -c ../i.9 f d)
        for i in 1 2 3 4 5 6 7 8 9; do vumount -t auto i.$i m && awk '$2 ~ /\/m$/ { print $3, $4 }' /proc/mounts | cut -d, -f1; vuumount m; done
        grep -c -E '^	(vufuse|vufuseext2|vufuseiso|vufusefat|vufusezip)$' /proc/filesystems; vumount -t vufuse -o loop,ro i.4 m && echo loop";
    let expected = "squashfs ro\nerofs ro\niso9660 ro\next3 rw\next4 rw\nvfat rw\ntar ro\ncpio ro\nzip ro\n5\nloop";
    assert_eq!(with_tree(r, script).line(), expected);
}

fn what_is_written_to_ext4_is_there_after_a_remount(r: &Runner) {
    let script = r"
        mke2fs -q -F -t ext4 i 24M; mount -t vufuseext4 i m; rm -r m/lost+found; cp -a tree/. m/; setfattr -n user.x -v value m/f
        diff <(listed tree) <(listed m) && echo same; umount m; e2fsck -fn i >/dev/null 2>&1; echo $?
        mount -t vufuseext4 i m; diff <(listed tree) <(listed m) && diff <(sums tree) <(sums m) && echo same; getfattr --only-values -n user.x m/f; echo
        truncate -s 100 m/big; echo more >> m/big; fallocate -p -o 0 -l 4096 m/sparse; chown 12:34 m/f; umount m; e2fsck -fn i >/dev/null 2>&1; echo $?
        mount -t vufuseext4 -o ro i m; stat -c '%s %u:%g' m/big m/f; umount m";
    assert_eq!(with_tree(r, script).line(), "same\n0\nsame\nvalue\n0\n105 0:0\n4 12:34");
}

fn what_is_written_to_vfat_is_there_after_a_remount(r: &Runner) {
    let script = r"
        mkfs.fat -C -F 32 -s 1 i 40000 >/dev/null; mount -t vufusefat i m; mkdir -p 'm/A directory/sub'; cp tree/big 'm/A directory/sub/Größe.data'; echo x > m/short.txt; mv m/short.txt m/'A directory'/
        umount m; fsck.fat -n i >/dev/null; echo $?
        mount -t vufusefat i m; find m -printf '%P\n' | sort; cmp tree/big 'm/a DIRECTORY/sub/größe.data' && echo same; ln -s x m/l 2>&1 | sed 's/.*: //'; umount m
        LC_ALL=C.UTF-8 mcopy -i i '::A directory/sub/Größe.data' out && cmp out tree/big && echo same";
    let expected = "0\n\nA directory\nA directory/short.txt\nA directory/sub\nA directory/sub/Größe.data\nsame\n\
        Operation not permitted\nsame";
    assert_eq!(with_tree(r, script).line(), expected);
}

fn one_alone_writes_an_image(r: &Runner) {
    let script = r"
        mke2fs -q -F -t ext4 i 16M
        vumount -t vufuse i m; vumount -t vufuse i n 2>&1 | sed 's/.*: i: /i: /'; vumount -t vufuse -o ro i n 2>&1 | sed 's/.*: i: /i: /'; vuumount m
        vumount -t vufuse -o ro i m; vumount -t vufuse -o ro i n && echo both; vuumount n; vumount -t vufuse i n 2>&1 | sed 's/.*: i: /i: /'; vuumount m
        vumount -t vufuse i m && echo again";
    let expected = "i: somebody writes it: device or resource busy\n\
        i: somebody writes it: device or resource busy\nboth\n\
        i: somebody else has it mounted: device or resource busy\nagain";
    assert_eq!(with_tree(r, script).line(), expected);
}

fn what_cannot_be_mounted_says_why_and_stays_as_it_is(r: &Runner) {
    let script = r#"
        head -c 100000 /dev/urandom > noise; mke2fs -q -F -t ext4 whole 16M; head -c 9000000 whole > short; mksquashfs tree s -quiet -no-progress >/dev/null; head -c 100000 s > shorts
        mke2fs -q -F -t ext4 -O inline_data part 16M; (head -c 512 /dev/zero; cat part) > inline; mke2fs -q -F -t ext4 -O quota part 16M; (head -c 512 /dev/zero; cat part) > quota; cp whole closed; chmod 444 closed; (echo XFSB; head -c 100000 /dev/zero) > xfs; : > empty
        sha256sum noise whole short s shorts inline quota closed xfs > before
        t() { vumount "$@" 2>&1 | sed -E 's/^vumount: //' | tail -1; }
        t -t vufuse noise m; t -t vufuse short m; t -t vufuse shorts m; t -t vufuse -o offset=512 inline m; t -t vufuse -o offset=512 quota m; t -t vufuse xfs m; t -t vufuse empty m
        t -t vufuse none m; t -t vufuse whole nowhere; t -t squashfs whole m; t -t ext4 s m; t -t vufuse -o frob whole m; t -t ext4 -o uid=3 whole m; t -t vufuse -o offset=1T whole m; t -t ext4 tree m
        vumount -t vufuse -o ro,offset=512 quota m && echo quota; vuumount m; sha256sum --quiet -c before && echo untouched"#;
    let expected = "noise: neither an image of a file system that is known nor an archive\n\
        short: truncated: 16384 blocks, which 9000000 bytes do not hold\n\
        shorts: truncated: BYTES bytes are missing behind 100000\n\
        inline: features that are not supported: inline_data\n\
        quota: features that are not supported for writing: quota (it can be mounted ro)\n\
        xfs: it is an xfs; there is no driver for it\n\
        empty: neither an image of a file system that is known nor an archive\n\
        none: no such file or directory\n\
        nowhere: no such file or directory\n\
        whole: not an image of squashfs\n\
        s: not an image of ext2, ext3 or ext4\n\
        unknown option 'frob'\n\
        option 'uid=3': ext4 has no such\n\
        whole: offset=1099511627776 is behind its end\n\
        tree: is a directory\n\
        quota\n\
        untouched";
    let told = with_tree(r, script).line();
    let bytes = |line: &str| {
        line.split(' ')
            .map(|word| if word.len() > 5 && word.parse::<u64>().is_ok() { "BYTES" } else { word })
            .collect::<Vec<_>>()
            .join(" ")
    };
    let told: Vec<String> = told
        .lines()
        .map(|line| {
            if line.starts_with("shorts: ") {
                bytes(line).replace("behind BYTES", "behind 100000")
            } else {
                line.to_owned()
            }
        })
        .collect();
    assert_eq!(told.join("\n"), expected);
}

fn set_id_bits_go_when_somebody_else_writes(r: &Runner) {
    let script = r#"
        mke2fs -q -F -t ext4 i 16M; vumount -t vufuse i m; cd m; chmod 755 .; for f in a b c d; do : > $f; chmod 6777 $f; done; : > g; chmod 2767 g
        as() { python3 -c 'import os, sys; os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1])); exec(sys.argv[2])' $1 "$2"; stat -c %a $3; }
        as 0 'os.write(os.open("a", 1), b"x")' a; as 65534 'f = os.open("a", 1); print(oct(os.fstat(f).st_mode)); os.write(f, b"x"); print(oct(os.fstat(f).st_mode))' a
        as 65534 'os.open("b", 1)' b; as 65534 'os.truncate("c", 5)' c; as 65534 'os.write(os.open("g", 1), b"x")' g; chmod u+s a; stat -c %a a
        as 65534 'f = os.open("d", 1); os.write(f, b"x"); os.fsync(f)' d; cd ..; vuumount m; vumount -t vufuse -o ro i m; stat -c '%n %a' m/[a-g]"#;
    let expected = "6777\n0o106777\n0o100777\n777\n6777\n777\n767\n4777\n777\n\
        m/a 4777\nm/b 6777\nm/c 777\nm/d 777\nm/g 767";
    assert_eq!(with_tree(r, script).line(), expected);
}

fn what_no_driver_knows_is_served_by_a_program(r: &Runner) {
    let script = r"
        mke2fs -q -F -t ext4 -O inline_data,large_dir -d tree i 16M; vumount -t vufuse i m; awk '$2 ~ /\/m$/ { print $1, $3 }' /proc/mounts | sed 's,.*/,,'
        cat m/f; cmp tree/big m/big && echo same; echo three >> m/f; mkdir m/new; m/bin/busybox echo runs; vuumount m
        vumount -t ext4 -o ro i m; cat m/f; touch m/f 2>&1 | sed 's/.*: //'; vuumount m; e2fsck -fn i >/dev/null 2>&1; echo $?
        (printf '\353\166\220EXFAT   '; head -c 100000 /dev/zero) > x; for t in vufuse vufuseexfat; do vumount -t $t x m 2>&1 | grep -o -m 1 'x: it is an exfat; there is no driver for it'; done";
    let expected = "i fuse.ext4\none\nsame\nruns\none\nthree\nRead-only file system\n0\n\
        x: it is an exfat; there is no driver for it\nx: it is an exfat; there is no driver for it";
    assert_eq!(with_tree(r, script).line(), expected);
}

fn an_image_that_is_read_stays_as_it_is(r: &Runner) {
    let script = r"
        mke2fs -q -F -t ext4 -d tree i 16M; mksquashfs tree s -quiet -no-progress >/dev/null; sha256sum i s > before
        mount -t vufuseext4 -o ro i m; cat m/f; echo x 2>/dev/null > m/f || echo refused; mkdir m/x 2>&1 | sed 's/.*: //'; umount m
        mount -t vufusesquashfs s m; cat m/d/hard; touch m/f 2>&1 | sed 's/.*: //'; rm m/f 2>&1 | sed 's/.*: //'; umount m; sha256sum --quiet -c before && echo untouched
        chmod 444 i; mount -t vufuseext4 -o ro i m && echo mounted";
    let expected =
        "one\nrefused\nRead-only file system\none\nRead-only file system\nRead-only file system\nuntouched\nmounted";
    assert_eq!(with_tree(r, script).line(), expected);
}

fn owners_and_permissions_of_vfat_are_those_of_the_options(r: &Runner) {
    let script = r"
        mkfs.fat -C i 8192 >/dev/null; mount -t vufusefat -o uid=12,gid=34,umask=027 i m; mkdir m/d; echo x > m/f; stat -c '%a %u:%g' m/d m/f; umount m
        mount -t vufusefat -o fmask=133,dmask=022 i m; stat -c '%a %u:%g' m/d m/f; chmod 444 m/f; stat -c %a m/f; chmod 600 m/f 2>&1 | sed 's/.*: //'; chown 3 m/f 2>&1 | sed 's/.*: //'; umount m";
    let expected = "750 12:34\n750 12:34\n755 0:0\n644 0:0\n444\nOperation not permitted\nOperation not permitted";
    assert_eq!(with_tree(r, script).line(), expected);
}

fn a_file_system_is_found_in_a_disk(r: &Runner) {
    let script = r"
        truncate -s 40M disk; printf 'label: dos\n2048,16M\n,\n' | sfdisk -q disk; mke2fs -q -F -t ext2 -d tree part 16M; dd if=part of=disk bs=1M seek=1 conv=notrunc status=none
        vumount -t vufuse disk m 2>&1 | sed 's/.*: disk: //'; vumount -t vufuse -o offset=1M,sizelimit=16M disk m; cat m/f; echo more > m/f; umount m
        dd if=disk of=part bs=1M skip=1 count=16 status=none; e2fsck -fn part >/dev/null 2>&1; echo $?; debugfs -R 'cat /f' part 2>/dev/null";
    let expected = "it is a disk with partitions: vudev shows them, and offset= finds one; there is no driver for it\none\n0\nmore";
    assert_eq!(with_tree(r, script).line(), expected);
}

fn an_image_of_ext4_on_a_disk_of_the_view(r: &Runner) {
    let script = r"
        vu_insmod vudev; truncate -s 64M disk; vumount -t vudevpartx disk /dev/hda; printf 'label: dos\n,32M\n,\n' | sfdisk -q /dev/hda
        mke2fs -q -t ext4 /dev/hda1; mount -t vufuseext4 /dev/hda1 m && cp -a tree/. m/ && diff <(sums tree) <(sums m) && echo same
        mke2fs -q -F -t ext4 /dev/hda1 2>&1 | grep -c 'in use'; umount m; e2fsck -fn /dev/hda1 >/dev/null 2>&1; echo $?";
    assert_eq!(with_tree(r, script).line(), "same\n1\n0");
}

fn a_dirty_journal_is_replayed(r: &Runner) {
    let script = r"
        mke2fs -q -F -t ext4 -d tree i 24M; printf 'open -w i\n' > /dev/null
        head -c 4096 /dev/urandom > block; debugfs -w -R 'journal_open' i >/dev/null 2>&1
        printf 'journal_open\njournal_write -b 9000 block\nset_super_value feature_incompat 0x2c6\n' | debugfs -w i >/dev/null 2>&1
        dumpe2fs -h i 2>/dev/null | grep -c needs_recovery; sha256sum i > before
        mount -t vufuseext4 -o ro i m && cat m/f; umount m; sha256sum --quiet -c before && echo untouched
        mount -t vufuseext4 i m && cat m/f; umount m; dumpe2fs -h i 2>/dev/null | grep -c needs_recovery; e2fsck -fn i > out 2>&1; grep -c 'Block bitmap differences' out; true";
    let told = with_tree(r, script).line();
    assert_eq!(told.lines().take(6).collect::<Vec<_>>(), ["1", "one", "untouched", "one", "0", "0"]);
}

fn sqlite_and_git_work_on_ext4(r: &Runner) {
    let script = r#"
        mke2fs -q -F -t ext4 i 64M; mount -t vufuseext4 i m; cd m
        python3 -c "
import sqlite3
d = sqlite3.connect('db'); d.execute('create table t (n integer)')
for n in range(200):
    d.execute('insert into t values (?)', (n,))
    if n % 20 == 0: d.commit()
d.commit(); print(d.execute('select sum(n) from t').fetchone()[0])"
        git init -q g 2>/dev/null; cd g; git config user.name n; git config user.email e; for n in 1 2 3; do echo $n > f$n; git add .; git commit -qm $n; done; git log --oneline | wc -l; git fsck 2>&1 | wc -l
        cd ../..; umount m; e2fsck -fn i >/dev/null 2>&1; echo $?; mount -t vufuse i m; git -C m/g status --short | wc -l; python3 -c "import sqlite3; print(sqlite3.connect('m/db').execute('select count(*) from t').fetchone()[0])""#;
    assert_eq!(with_tree(r, script).line(), "19900\n3\n0\n0\n0\n200");
}

fn an_ordinary_user_mounts_an_image(r: &Runner) {
    let script = r"
        mke2fs -q -F -t ext4 -d tree i 16M; vumount -t vufuse i m; cat m/f; echo mine > m/d/e/new; cat m/d/e/new; : > m/lost+found/x || echo refused; vuumount m; e2fsck -fn i >/dev/null 2>&1; echo $?";
    assert_eq!(with_tree(r, script).line(), "one\nmine\nrefused\n0");
}

fn contents_take_what_they_may_and_go_with_the_mount(r: &Runner) {
    let script = r#"
        for n in $(seq 30); do head -c 100000 /dev/urandom > tree/n$n; done; mksquashfs tree i -quiet -no-progress > /dev/null
        own=$$; while test "$(cat /proc/$own/comm)" != umvu-view; do own=$(ps -o ppid= -p $own | tr -d ' '); done
        kept() { du -ck ../home/.cache/umvu/open/$own-* /dev/shm/umvu-*/$own-* 2>/dev/null | tail -1 | cut -f1; }
        for o in limit=1G limit=1M,memory=0 limit=2M,memory=1M; do
            mount -t squashfs -o $o i m; cat m/n* | cmp - <(cat tree/n*) && echo $o $(($(kept) / 500)); umount m; kept
        done"#;
    let told = with_tree(r, script).line();
    let lines: Vec<&str> = told.lines().collect();
    let kept = |line: &str| line.rsplit(' ').next().and_then(|number| number.parse::<u32>().ok());
    // In halves of a megabyte: all of it, and then what is allowed.
    assert!(kept(lines[0]) >= Some(5) && lines[1] == "0", "{told}");
    assert!(matches!(kept(lines[2]), Some(1..=2)) && lines[3] == "0", "{told}");
    assert!(matches!(kept(lines[4]), Some(1..=4)) && lines[5] == "0", "{told}");
}

/// A started view; whatever is left of it ends with the test.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        watch::kill_tree(&self.0);
        let _ = self.0.wait();
    }
}

fn child_of(parent: u32, name: &str) -> u32 {
    let pids = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).expect("the children");
    let has_name =
        |pid: &&str| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == name);
    let pid = pids.split_whitespace().find(has_name);
    pid.unwrap_or_else(|| panic!("no {name} among {pids:?}")).parse().expect("a pid")
}

/// Runs a program of the host.
fn host(program: &str, arguments: &[&std::ffi::OsStr]) -> std::process::Output {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let ran = Command::new(program).args(arguments).env("PATH", path).output();
    ran.unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// Makes and removes files on `m`, and tells which were synchronised.
const SYNCING: &str = r#"for n in $(seq 1000); do seq $n 3000 > m/f$n; sync m/f$n; echo $n; test $((n % 3)) != 0 || rm m/f$((n - 1)); done"#;

/// Starts a view with what is [`SYNCING`], and kills its supervisor when so many files were synchronised. An image that a
/// union has copied up is brought back.
fn kill_when_synced(r: &Runner, image: &std::path::Path, before: &str, synced: u32) {
    // A union keeps its changes beside the image of the layer below.
    let target = r.upper().join(image.strip_prefix("/").expect("an absolute path"));
    let _ = std::fs::remove_file(&target);
    let script = format!("{before}\n{SYNCING}");
    let mut command = r.command(["bash", "-euc", script.as_str()]);
    let mut child = Started(command.stdin(Stdio::null()).spawn().expect("bash"));
    let mut lines = BufReader::new(child.0.stdout.take().expect("a pipe")).lines();
    let last = lines.by_ref().map_while(Result::ok).find(|line| *line == synced.to_string());
    assert_eq!(last, Some(synced.to_string()));
    let supervisor = child_of(child_of(child.0.id(), "vu-guard"), "umvu-view");
    kill(Pid::from_raw(i32::try_from(supervisor).expect("a pid")), Signal::SIGKILL).expect("kill");
    child.0.wait().expect("wait");
    if target.exists() {
        std::fs::copy(&target, image).expect("a copy");
    }
}

/// Repairs an image of ext4, and looks for all that was synchronised.
fn check_synced(image: &std::path::Path, synced: u32) {
    let repaired = host("e2fsck", &["-fp".as_ref(), image.as_ref()]);
    assert!(repaired.status.code().is_some_and(|code| code <= 1), "{repaired:?}");
    assert!(host("e2fsck", &["-fn".as_ref(), image.as_ref()]).status.success());
    for number in (1..=synced).filter(|number| number % 3 != 2) {
        let shown = host("debugfs", &["-R".as_ref(), format!("cat /f{number}").as_ref(), image.as_ref()]).stdout;
        let expected: String = (number..=3000).map(|line| format!("{line}\n")).collect();
        assert!(shown == expected.as_bytes(), "f{number} is {} bytes", shown.len());
    }
}

fn a_killed_view_leaves_what_was_synced(r: &Runner) {
    let image = r.dir().join("i");
    for synced in [1u32, 4, 9, 15, 22] {
        std::fs::File::create(&image).and_then(|file| file.set_len(32 << 20)).expect("an image");
        let arguments = ["-q", "-F", "-t", "ext4"].map(std::ffi::OsStr::new);
        assert!(host("mke2fs", &[&arguments[..], &[image.as_ref()]].concat()).status.success());
        kill_when_synced(r, &image, "vu_insmod vufuse; mkdir -p m; vumount -t vufuse i m", synced);
        check_synced(&image, synced);
    }
}

fn a_killed_view_leaves_what_was_synced_on_a_partition(r: &Runner) {
    let made = r"set -e; PATH=$PATH:/usr/sbin:/sbin; rm -f raw disk; truncate -s 34M raw; printf 'label: dos\n2048,32M\n' | sfdisk -q raw
        mke2fs -q -F -t ext4 -E offset=1048576 raw 32M 2> log; qemu-img convert -f raw -O $0 raw disk";
    // What was taken and is not yet used is lost, which is no damage; what is used twice, or not where it should be, is.
    let found = r"set -e; test $0 = raw || qemu-img check -q -f $0 disk || test $? = 3; qemu-img convert -f $0 -O raw disk raw; dd if=raw of=part bs=1M skip=1 count=32 status=none";
    for (format, fstype, synced) in [
        ("raw", "vudevpartx", 2u32),
        ("raw", "vudevpartx", 11),
        ("qcow2", "vudevqcow2", 3),
        ("qcow2", "vudevqcow2", 12),
    ] {
        let run = |script: &str| {
            let ran = Command::new("bash").args(["-c", script, format]).current_dir(r.dir()).output().expect("bash");
            assert!(ran.status.success(), "{ran:?}");
        };
        run(made);
        let before = format!(
            "vu_insmod vudev vufuse; mkdir -p m; vumount -t {fstype} disk /dev/hdk; vumount -t vufuse /dev/hdk1 m"
        );
        kill_when_synced(r, &r.dir().join("disk"), &before, synced);
        run(found);
        check_synced(&r.dir().join("part"), synced);
    }
}
