//! Archives and images: mounted as they lie there, entered as roots; what they say of owners, modes, times and links is
//! shown, changes go to an upper layer or nowhere, and what is wrong with one is told before anything runs.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use umvu_tests::archive::{busybox, docker_save, layers, oci_layout, Tar};
use umvu_tests::{behaviours, Finished, Runner};

behaviours! {
    from_outside at ROOT {
        an_archive_shows_what_it_lists,
        contents_are_those_of_the_tree,
        every_compression_is_read,
        every_format_of_tar_is_read,
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
    from_outside at ORDINARY {
        a_root_is_entered_and_its_status_is_the_commands,
        every_form_of_image_is_a_root,
        an_image_says_how_it_is_run,
        options_win_over_the_image,
        changes_go_where_they_are_wanted,
        what_belongs_in_a_root_is_there,
        a_bare_root_has_nothing_more,
        directories_of_the_host_are_shown,
        a_directory_is_a_root,
        the_own_root_can_be_thrown_away,
        identities_are_as_wanted,
        a_missing_command_of_a_root_is_127,
        a_broken_source_is_told_in_one_line,
        a_damaged_image_is_told_in_one_line,
        options_that_make_no_sense_are_told,
    }
}

/// Runs umvu in the place: on the host, or stacked on a view.
fn umvu(r: &Runner, words: &[&str]) -> Finished {
    let line: Vec<OsString> = ["umvu", "-N"].iter().chain(words).map(Into::into).collect();
    r.run(line)
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

fn a_root_is_entered_and_its_status_is_the_commands(r: &Runner) {
    root(r);
    let told =
        umvu(r, &["-r", "root.tar", "sh", "-c", "id; pwd; cat /etc/passwd | busybox wc -l; ls /; echo $HOME $USER"])
            .line();
    assert_eq!(
        told,
        "uid=0(root) gid=0(root) groups=0(root)\n/\n2\nbin\ndev\netc\nlib\nopt\nproc\nsys\ntmp\nusr\n/root root"
    );
    assert_eq!(umvu(r, &["-r", "root.tar", "sh", "-c", "exit 7"]).shell_status(), 7);
    assert_eq!(umvu(r, &["-r", "root.tar", "sh", "-c", "kill -TERM $$"]).shell_status(), 143);
    let with_input = r.run_with_input(["umvu", "-N", "-r", "root.tar", "cat"], b"piped\n");
    assert_eq!(with_input.line(), "piped");
    // Without a command it is a shell.
    assert_eq!(r.run_with_input(["umvu", "-N", "-r", "root.tar"], b"busybox echo $0\n").line(), "/bin/sh");
}

const SAYS: &str = "green\n/\nuid=12(guest) gid=13(guest) groups=13(guest),20(users)\netc:\nchanged\ngroup\npasswd\nresolv.conf\n\nopt/old:\nthree\nsecond\nhere";

fn every_form_of_image_is_a_root(r: &Runner) {
    docker_save(&r.dir().join("docker.tar"));
    oci_layout(&r.dir().join("layout"));
    let pack = "tar -C layout -cf oci.tar . && gzip -k docker.tar && cd layout/blobs/sha256 && gzip 1111 && zstd -q 2222 && for b in 1111.gz 2222.zst; do mv $b ${b%.*}; done && cd ../.. && n1=$(stat -c %s blobs/sha256/1111) n2=$(stat -c %s blobs/sha256/2222) && sed -E \"s/(1111\\\",\\\"size\\\":)[0-9]+/\\1$n1/; s/(2222\\\",\\\"size\\\":)[0-9]+/\\1$n2/\" -i blobs/sha256/4444 && n4=$(stat -c %s blobs/sha256/4444) && sed -E \"s/(4444\\\",\\\"size\\\":)[0-9]+/\\1$n4/\" -i index.json";
    r.outside_text(&["bash", "-euc", pack]);
    for source in ["docker.tar", "docker.tar.gz", "oci.tar", "layout"] {
        assert_eq!(umvu(r, &["-r", source]).line(), SAYS, "{source}");
    }
    assert_eq!(umvu(r, &["-r", "docker.tar", "--image", "demo/busybox"]).line(), SAYS);
    let other = umvu(r, &["-r", "docker.tar", "--image", "alpine"]);
    assert_eq!(refusal(&other), "umvu: docker.tar: has no image 'alpine', but demo/busybox:1");
}

fn an_image_says_how_it_is_run(r: &Runner) {
    docker_save(&r.dir().join("i.tar"));
    assert_eq!(umvu(r, &["-r", "i.tar"]).line(), SAYS);
    let told = umvu(
        r,
        &["-r", "i.tar", "sh", "-c", "id -u; echo $COLOUR $PATH $HOME $USER; touch /tmp/x && stat -c %u /tmp/x"],
    );
    assert_eq!(told.line(), "12\ngreen /bin /home/guest guest\n12");
}

fn options_win_over_the_image(r: &Runner) {
    docker_save(&r.dir().join("i.tar"));
    let script = "pwd; id -u; id -g; echo $COLOUR $OTHER";
    let words =
        ["-r", "i.tar", "-w", "/usr/lib", "-u", "0:20", "-e", "COLOUR=red", "-e", "OTHER=a=b", "sh", "-c", script];
    assert_eq!(umvu(r, &words).line(), "/usr/lib\n0\n20\nred a=b");
    assert_eq!(umvu(r, &["-r", "i.tar", "-i", "77:88", "sh", "-c", "id"]).line(), "uid=77 gid=88 groups=88");
}

fn changes_go_where_they_are_wanted(r: &Runner) {
    root(r);
    let sum = r.outside_text(&["sha256sum", "root.tar"]);
    let change = "touch /new /etc/n && rm /etc/gone && echo x > /etc/changed && busybox chown 5:6 /new && busybox mknod /node c 1 3; ls -A /etc; stat -c %u:%g /new";
    let fails = umvu(r, &["-r", "root.tar", "sh", "-c", "touch /new 2>&1 || echo no"]).line();
    assert_eq!(fails, "touch: /new: Read-only file system\nno");
    let changed = "changed\ngroup\nn\npasswd\nresolv.conf\n5:6";
    assert_eq!(umvu(r, &["-r", "root.tar", "--throw-away", "sh", "-c", change]).line(), changed);
    let after = "ls -A /etc; ls /new; true";
    let untouched = umvu(r, &["-r", "root.tar", "--throw-away", "sh", "-c", after]);
    assert_eq!(untouched.line(), "changed\ngone\ngroup\npasswd\nresolv.conf");
    fs::create_dir(r.dir().join("up")).expect("an upper directory");
    assert_eq!(umvu(r, &["-r", "root.tar", "--upper", "up", "sh", "-c", change]).line(), changed);
    let again = umvu(
        r,
        &[
            "-r",
            "root.tar",
            "--upper",
            "up",
            "sh",
            "-c",
            "ls -A /etc; stat -c %u:%g /new; cat /etc/changed; busybox stat -c %F /node",
        ],
    );
    assert_eq!(again.line(), format!("{changed}\nx\ncharacter special file"));
    assert_eq!(r.outside_text(&["sha256sum", "root.tar"]), sum);
}

fn what_belongs_in_a_root_is_there(r: &Runner) {
    root(r);
    let script = "readlink /proc/self/exe; ls -d /sys/kernel; echo lost > /dev/null; stat -c '%a %u' /tmp; touch /tmp/a; ls -A /tmp; busybox cmp /etc/resolv.conf /mine && echo same";
    let told = umvu(r, &["-r", "root.tar", "-b", "/etc/resolv.conf:/mine", "sh", "-c", script]).line();
    assert_eq!(told, "/bin/busybox\n/sys/kernel\n1777 0\na\nsame");
}

fn a_bare_root_has_nothing_more(r: &Runner) {
    root(r);
    assert_eq!(umvu(r, &["-r", "root.tar", "--bare", "ls", "/"]).line(), "bin\netc\nlib\nopt\nusr");
}

fn directories_of_the_host_are_shown(r: &Runner) {
    root(r);
    r.outside_text(&["bash", "-euc", "mkdir here 'a:b' && echo x > here/f && echo y > 'a:b/g'"]);
    let here = r.dir().join("here");
    let here = here.to_str().expect("a path");
    let script = "cat /mnt/f /c/g /one; echo new > /mnt/f; echo z > /c/n; touch /one; pwd";
    let words =
        ["-r", "root.tar", "-b", "here:/mnt:ro", "-b", "a\\:b:/c", "-b", "here/f:/one:ro", "-b", "here", "-w", here];
    let told = umvu(r, &[&words[..], &["sh", "-c", script]].concat());
    let says = String::from_utf8_lossy(&told.stderr).into_owned();
    assert_eq!(String::from_utf8_lossy(&told.stdout), format!("x\ny\nx\n{here}\n"), "{told}");
    assert_eq!(says.matches("Read-only file system").count(), 2, "{says}");
    assert_eq!(r.outside_text(&["cat", "a:b/n"]), "z");
    assert_eq!(umvu(r, &["-b", "here:/media", "cat", "/media/f"]).line(), "x");
    let words = ["-r", "root.tar", "-b", "missing:/mnt", "ls"];
    assert_eq!(refusal(&umvu(r, &words)), "umvu: missing: no such file or directory");
}

fn a_directory_is_a_root(r: &Runner) {
    root(r);
    r.outside_text(&["bash", "-euc", "mkdir dir up && tar -C dir -xf root.tar"]);
    let told = umvu(r, &["-r", "dir", "sh", "-c", "id -u; echo x > /made; stat -c %u /made; readlink /proc/self/exe"]);
    assert_eq!(told.line(), "0\n0\n/bin/busybox");
    assert_eq!(r.outside_text(&["cat", "dir/made"]), "x");
    let script = "busybox chown 3:4 /made; stat -c %u:%g /made; rm -r /opt; ls /";
    let changed = "3:4\nbin\ndev\netc\nlib\nmade\nproc\nsys\ntmp\nusr";
    assert_eq!(umvu(r, &["-r", "dir", "--upper", "up", "sh", "-c", script]).line(), changed);
    assert_eq!(umvu(r, &["-r", "dir", "--upper", "up", "sh", "-c", "stat -c %u:%g /made"]).line(), "3:4");
    assert_eq!(r.outside_text(&["ls", "dir/opt/old"]), "one\ntwo");
}

fn the_own_root_can_be_thrown_away(r: &Runner) {
    let script = "pwd; rm -rf /usr/share/doc; ls -d /usr/share/doc 2>/dev/null; echo x > kept; cat kept; id -u";
    let told = umvu(r, &["-r", "/", "--throw-away", "sh", "-c", script]).line();
    assert_eq!(told, format!("{}\nx\n0", r.dir().display()));
    assert!(Path::new("/usr/share/doc").exists() && !r.dir().join("kept").exists());
}

fn identities_are_as_wanted(r: &Runner) {
    root(r);
    let own = nix::unistd::geteuid().to_string();
    assert_eq!(umvu(r, &["-r", "root.tar", "--keep-ids", "id", "-u"]).line(), own);
    assert_eq!(umvu(r, &["-0", "id", "-u"]).line(), "0");
    assert_eq!(umvu(r, &["-r", "root.tar", "-u", "guest", "id", "-u"]).line(), "12");
    let nobody = umvu(r, &["-r", "root.tar", "-u", "nosuch", "id", "-u"]);
    assert_eq!(refusal(&nobody), "umvu: nosuch: no such user");
}

/// Checks that a command has failed before it began, and returns the one line that says why.
#[track_caller]
fn refusal(finished: &Finished) -> String {
    let message = String::from_utf8_lossy(&finished.stderr).into_owned();
    assert!(finished.shell_status() != 0 && finished.stdout.is_empty(), "{finished}");
    assert_eq!(message.lines().count(), 1, "{finished}");
    message.trim_end().to_owned()
}

fn a_missing_command_of_a_root_is_127(r: &Runner) {
    root(r);
    let missing = umvu(r, &["-r", "root.tar", "nosuch"]);
    assert_eq!((refusal(&missing).as_str(), missing.shell_status()), ("umvu: nosuch: command not found", 127));
    let missing = umvu(r, &["-r", "root.tar", "/bin/nosuch"]);
    assert_eq!(
        (refusal(&missing).as_str(), missing.shell_status()),
        ("umvu: /bin/nosuch: no such file or directory", 127)
    );
    let directory = umvu(r, &["-r", "root.tar", "/etc"]);
    assert_eq!((refusal(&directory).as_str(), directory.shell_status()), ("umvu: /etc: permission denied", 126));
    // What only the host has is not there.
    let host = umvu(r, &["-r", "root.tar", "/usr/bin/env"]);
    assert_eq!(host.shell_status(), 127);
}

fn a_broken_source_is_told_in_one_line(r: &Runner) {
    let good = Tar::default().file("a", &[b'x'; 2000]).file("b", b"y").end();
    let mut flipped = good.clone();
    flipped[512 + 2048 + 10] ^= 1;
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("nothing", Vec::new(), "not a tar archive"),
        ("text", b"hello\n".repeat(300), "not a tar archive"),
        ("cut", good[..1000].to_vec(), "entry 'a': truncated: 488 of 2000 bytes are there"),
        ("cut-header", good[..2700].to_vec(), "at byte 2560: truncated: a part of a header is all that is left"),
        ("flipped", flipped, "at byte 2560: damaged: the checksum is wrong"),
        ("up", Tar::default().file("a/../../x", b"").end(), "entry 'a/../../x': climbs out of the archive with '..'"),
        (
            "out",
            Tar::default().symlink("a", "../..").file("a/x", b"").end(),
            "entry 'a/x': its parent 'a' is a symbolic link that climbs out of the archive",
        ),
        (
            "etc",
            Tar::default().symlink("a", "/etc").file("a/passwd", b"").end(),
            "entry 'a/passwd': its parent 'a' is a symbolic link that leads nowhere",
        ),
        (
            "loop",
            Tar::default().symlink("a", "b").symlink("b", "a").file("a/x", b"").end(),
            "entry 'a/x': its parent 'a' is a symbolic link that leads to no end",
        ),
        (
            "file",
            Tar::default().file("a", b"").file("a/x", b"").end(),
            "entry 'a/x': its parent 'a' is not a directory",
        ),
        (
            "hard",
            Tar::default().entry(b'1', "h", "/etc/passwd", b"").end(),
            "entry 'h': hard link to '/etc/passwd', which is not there",
        ),
        (
            "hard-up",
            Tar::default().entry(b'1', "h", "../x", b"").end(),
            "entry 'h': hard link to '../x', which climbs out of the archive with '..'",
        ),
        (
            "hard-dir",
            Tar::default().directory("d/").entry(b'1', "h", "d", b"").end(),
            "entry 'h': hard link to 'd', a directory",
        ),
        (
            "pax",
            Tar::default().entry(b'x', "h", "", b"99 path=a\n").file("a", b"").end(),
            "entry 'h': a broken extended header",
        ),
        ("volume", Tar::default().entry(b'M', "m", "", b"").end(), "entry 'm': continued from another volume"),
        (
            "newline",
            Tar::default().file("a\nb/../c", b"").end(),
            "entry 'a\\nb/../c': climbs out of the archive with '..'",
        ),
    ];
    for (name, bytes, why) in cases {
        fs::write(r.dir().join(name), bytes).expect("an archive");
        let told = umvu(r, &["-r", name, "touch", "ran"]);
        let separator = ": ";
        assert_eq!(refusal(&told), format!("umvu: {name}{separator}{why}"));
        assert_eq!(told.shell_status(), 1, "{name}");
    }
    assert!(!r.dir().join("ran").exists());
    assert_eq!(refusal(&umvu(r, &["-r", "nosuch", "ls"])), "umvu: nosuch: no such file or directory");
    assert_eq!(refusal(&umvu(r, &["-r", "/dev/null", "ls"])), "umvu: /dev/null: neither a file nor a directory");
    r.outside_text(&["bash", "-euc", "head -c 100000 /dev/urandom | gzip > g; head -c 50000 g > cut.gz; head -c 40 g > c; tail -c +41 g | tr a b >> c"]);
    assert!(refusal(&umvu(r, &["-r", "cut.gz", "ls"])).starts_with("umvu: cut.gz: damaged gzip data: "));
    assert!(refusal(&umvu(r, &["-r", "c", "ls"])).starts_with("umvu: c: damaged gzip data: "));
}

fn a_damaged_image_is_told_in_one_line(r: &Runner) {
    let archive = |files: &[(&str, &str)]| {
        files.iter().fold(Tar::default(), |tar, (name, text)| tar.file(name, text.as_bytes())).end()
    };
    let manifest = r#"[{"Config":"c","Layers":["l"]}]"#;
    let index = r#"{"manifests":[{"digest":"sha256:11","size":2}]}"#;
    let cases = [
        (archive(&[("manifest.json", "[{")]), "'manifest.json': EOF while parsing"),
        (archive(&[("manifest.json", "[]")]), "has no image"),
        (archive(&[("manifest.json", manifest)]), "'c': is missing"),
        (archive(&[("manifest.json", manifest), ("c", "{}")]), "'l': is missing"),
        (archive(&[("manifest.json", manifest), ("c", "{}"), ("l", "text")]), "i: l: not a tar archive"),
        (archive(&[("index.json", index)]), "'blobs/sha256/11': is missing"),
        (
            archive(&[("index.json", index), ("blobs/sha256/11", "{} ")]),
            "'blobs/sha256/11': is 3 bytes long, and should have 2",
        ),
        (archive(&[("index.json", &index.replace("sha256:11", "sha256:../../x"))]), "'sha256:../../x': is no digest"),
        (archive(&[("index.json", index), ("blobs/sha256/11", "{}")]), "has no image"),
        (
            archive(&[("manifest.json", &manifest.replace(r#""l""#, r#""../../etc/passwd""#)), ("c", "{}")]),
            "'../../etc/passwd': is missing",
        ),
    ];
    for (bytes, why) in cases {
        fs::write(r.dir().join("i"), bytes).expect("an image");
        let told = umvu(r, &["-r", "i", "touch", "ran"]);
        let line = refusal(&told);
        assert!(line.starts_with("umvu: i: ") && line.contains(why), "{line}");
    }
    assert!(!r.dir().join("ran").exists());
}

fn options_that_make_no_sense_are_told(r: &Runner) {
    root(r);
    fs::create_dir(r.dir().join("up")).expect("a directory");
    for (words, why) in [
        (&["-r", "root.tar", "--upper", "up", "--throw-away", "ls"][..], "cannot be used with"),
        (&["-r", "root.tar", "-b", "up:mnt", "ls"], "GUEST must begin with '/'"),
        (&["-r", "root.tar", "-b", ":/mnt", "ls"], "no path of the host"),
        (&["-r", "root.tar", "-e", "=x", "ls"], "no name"),
        (&["-r", "root.tar", "-u", "guest", "--keep-ids", "ls"], "cannot be used with"),
    ] {
        let told = umvu(r, words);
        let message = String::from_utf8_lossy(&told.stderr).into_owned();
        assert!(told.shell_status() == 2 && message.contains(why), "{told}");
    }
    assert_eq!(
        refusal(&umvu(r, &["-r", "root.tar", "-w", "/nosuch", "ls"])),
        "umvu: /nosuch: no such file or directory"
    );
    assert_eq!(
        refusal(&umvu(r, &["-r", "root.tar", "--upper", "nosuch", "ls"])),
        "umvu: nosuch: no such file or directory"
    );
}
