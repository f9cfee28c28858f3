//! Unions of trees: what is written stays in the upper layer, what is removed stays removed, and what
//! overlayfs(5) promises of copies, names and listings.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use umvu_tests::{behaviours, Runner};

behaviours! {
    from_outside at COW {
        a_write_copies_up_and_leaves_the_lower,
        a_removed_name_is_a_whiteout_and_stays_away,
        a_removed_and_made_directory_hides_the_lower_one,
        a_moved_lower_file_leaves_its_old_name,
        a_renamed_lower_directory_keeps_what_is_inside,
        a_rename_over_a_whiteout_works,
        a_copy_keeps_mode_times_attributes_and_acls,
        a_copied_directory_goes_on_giving_its_group,
        a_copy_loses_set_id_bits_by_writing,
        a_copy_keeps_holes,
        a_copy_keeps_hard_links_together,
        a_descriptor_opened_for_reading_stays_valid_after_a_copy,
        listings_hold_each_name_once,
        inode_numbers_stay_after_a_copy,
        close_on_exec_is_kept_across_a_copy,
        a_full_upper_leaves_nothing_half_made,
        the_next_view_sees_what_this_one_did,
        bytes_of_names_are_kept_in_the_upper,
    }
    from_outside at EVERYWHERE {
        a_descriptor_of_a_renamed_file_means_that_file,
    }
    from_outside at NAMESPACE {
        a_full_disk_leaves_nothing_half_made,
    }
    from_outside at PLAIN_ROOT {
        a_descriptor_of_a_layers_own_path_means_the_file_there,
    }
    from_outside at PLAIN {
        a_bind_shows_one_tree_at_another_place,
        a_bind_of_a_file_works,
        a_move_shows_the_tree_at_its_new_place,
        a_merge_shows_both_trees,
        an_exception_is_not_covered,
        a_read_only_mount_is_erofs,
        overlay_options_stack_lower_directories,
        oci_whiteouts_of_lower_layers_hide,
        names_like_oci_whiteouts_are_names_in_a_layer_that_a_union_wrote,
        mounts_stack_and_come_off_in_order,
        a_busy_mount_is_ebusy_and_goes_lazily,
        mounts_are_seen_in_proc,
        a_mount_point_has_its_own_device_number,
        names_across_mounts_are_exdev,
        dot_dot_leaves_a_mount_by_its_parent,
        the_own_world_is_seen_below_a_mount_on_the_root,
        an_upper_inside_its_lower_is_refused,
    }
}

/// Makes a tree on the host and then runs a script of bash in the union over it.
fn over(r: &Runner, host: &str, view: &str) -> String {
    r.outside_text(&["bash", "-euc", host]);
    let before = state(r);
    let told = r.bash(view).line();
    assert_eq!(state(r), before, "the union changed the host");
    told
}

/// Runs a script in a view with the module viewfs, where `m` mounts with options, and `said` tells what a command
/// that may fail says.
fn viewfs(r: &Runner, script: &str) -> umvu_tests::Finished {
    let script =
        format!("m() {{ vumount -t viewfs -o \"$@\"; }}; said() {{ \"$@\" 2>&1 || :; }}; vu_insmod viewfs; {script}");
    r.bash(&script)
}

fn state(r: &Runner) -> String {
    let list = r"find . -printf '%P %y %m %n %s %T@ %l\n' | sort; find . -type f -exec sha256sum {} + | sort; getfattr -dR . 2>/dev/null";
    r.outside_text(&["bash", "-c", list])
}

/// Returns where the union keeps a file of the working directory.
fn in_upper(r: &Runner, name: &str) -> std::path::PathBuf {
    let dir = r.dir();
    r.upper().join(dir.strip_prefix("/").expect("an absolute path")).join(name)
}

fn a_write_copies_up_and_leaves_the_lower(r: &Runner) {
    let told =
        over(r, "echo lower > f; mkdir d; echo deep > d/g", "echo upper > f; echo more >> d/g; cat f d/g; ls . d");
    assert_eq!(told, "upper\ndeep\nmore\n.:\nd\nf\n\nd:\ng");
    assert_eq!(std::fs::read(in_upper(r, "f")).expect("the copy"), b"upper\n");
}

fn a_removed_name_is_a_whiteout_and_stays_away(r: &Runner) {
    let told = over(r, "echo x > f; mkdir d; echo y > d/g", "rm f; rm -r d; ls -A; cat f 2>&1 || true");
    assert_eq!(told, "cat: f: No such file or directory");
    let whiteout = std::fs::symlink_metadata(in_upper(r, "f")).expect("a whiteout");
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
}

fn a_removed_and_made_directory_hides_the_lower_one(r: &Runner) {
    let told = over(r, "mkdir -p d/sub; echo x > d/f", "rm -r d; mkdir d; ls -A d; echo new > d/f; cat d/f; ls -A d");
    assert_eq!(told, "new\nf");
}

fn a_moved_lower_file_leaves_its_old_name(r: &Runner) {
    let told = over(r, "echo x > f; mkdir d", "mv f d/g; ls -A . d; cat d/g; echo y > f; cat f; rm d/g; ls -A d");
    assert_eq!(told, ".:\nd\n\nd:\ng\nx\ny");
}

fn a_renamed_lower_directory_keeps_what_is_inside(r: &Runner) {
    let told = over(
        r,
        "mkdir -p d/sub; echo x > d/sub/f; echo y > d/g",
        "mv d e; cat e/sub/f e/g; ls -A . e; mkdir d; ls -A d; mv e/sub d/; cat d/sub/f",
    );
    assert_eq!(told, "x\ny\n.:\ne\n\ne:\ng\nsub\nx");
}

fn a_rename_over_a_whiteout_works(r: &Runner) {
    let told = over(
        r,
        "echo x > f; mkdir -p d/sub",
        "rm f; echo new > g; mv g f; cat f; rm -r d; mkdir e; mv e d; ls -A d; ls -A",
    );
    assert_eq!(told, "new\nd\nf");
}

fn a_copy_keeps_mode_times_attributes_and_acls(r: &Runner) {
    let host = "echo x > f; chmod 2751 f; setfattr -n user.name -v value f; setfacl -m u:daemon:rw f; touch -d @1000.123456789 f";
    let tell = "stat -c '%a' f; getfattr --only-values -n user.name f; echo; getfacl -nc f | grep user:1:";
    let told = over(r, host, &format!("{tell}; chmod u-s f; stat -c '%y' f; echo y >> f; {tell}"));
    let (before, after) = told.split_at(told.find("1970").expect("the old time"));
    let before: Vec<_> = before.lines().collect();
    assert_eq!(before, ["2771", "value", "user:1:rw-"]);
    assert!(after.contains("00:16:40.123456789") && after.contains("value\nuser:1:rw-"), "{told}");
}

fn a_copied_directory_goes_on_giving_its_group(r: &Runner) {
    let told = over(r, "mkdir -p d/old; chmod 2755 d", "mkdir d/e; touch d/f; rm d/f; mkdir d/f; stat -c %a d d/e d/f");
    assert_eq!(told, "2755\n2755\n2755");
}

fn a_copy_loses_set_id_bits_by_writing(r: &Runner) {
    let told = over(r, "echo x > f; chmod 6755 f", "touch f; stat -c %a f; echo y >> f; stat -c %a f");
    assert_eq!(told, "6755\n755");
}

fn a_copy_keeps_holes(r: &Runner) {
    let told = over(
        r,
        "truncate -s 1G f; echo end >> f",
        "echo more >> f; stat -c %s f; [ $(du -k f | cut -f1) -lt 100 ] && echo sparse",
    );
    assert_eq!(told, "1073741833\nsparse");
}

fn a_copy_keeps_hard_links_together(r: &Runner) {
    let told = over(r, "echo x > a; ln a b", "echo y >> a; cat b; stat -c %h a b; [ a -ef b ] && echo same");
    assert_eq!(told, "x\ny\n2\n2\nsame");
}

fn a_descriptor_opened_for_reading_stays_valid_after_a_copy(r: &Runner) {
    let told = over(r, "echo old > f", "exec 5< f; echo new > f; cat <&5; cat f");
    // Like overlayfs: the descriptor may still show the lower file, or already the copy.
    assert!(told == "old\nnew" || told == "new\nnew", "{told}");
}

fn listings_hold_each_name_once(r: &Runner) {
    let host = "mkdir d; touch d/{1..300}";
    let view = "touch d/{200..500}; rm d/{100..250}; ls d | wc -l; ls d | sort | uniq -d | wc -l; find d -type f | wc -l; rm -r d; ls -A";
    assert_eq!(over(r, host, view), "349\n0\n349");
}

fn inode_numbers_stay_after_a_copy(r: &Runner) {
    let told = over(
        r,
        "echo x > f; mkdir d",
        "a=$(stat -c %d:%i f d); echo y >> f; touch d/g; b=$(stat -c %d:%i f d); [ \"$a\" = \"$b\" ] && echo same",
    );
    assert_eq!(told, "same");
}

fn close_on_exec_is_kept_across_a_copy(r: &Runner) {
    let view = "python3 -c 'import os, fcntl\nfor flags in (os.O_RDWR, os.O_RDWR | os.O_CLOEXEC):\n  fd = os.open(\"f\", flags); print(fcntl.fcntl(fd, fcntl.F_GETFD))'";
    // Python opens with O_CLOEXEC itself; the raw flag is seen by what a shell passes on.
    assert_eq!(over(r, "echo x > f", view), "1\n1");
    assert_eq!(over(r, "true", "exec 6>>f; sh -c 'readlink /proc/self/fd/6' | grep -o '/f$'"), "/f");
}

fn a_full_upper_leaves_nothing_half_made(r: &Runner) {
    // A limit on file size stands in for a full disk: the copy cannot be finished.
    let view = "(ulimit -f 100; trap '' XFSZ; echo more >> f) 2>/dev/null && echo written; stat -c %s f; cmp f f && echo whole";
    let told = over(r, "head -c 1000000 /dev/zero > f", view);
    // The copy is the supervisor's work and not bound by the guest's limit; the write after it is.
    assert!(told == "1000000\nwhole" || told.starts_with("written\n1000005"), "{told}");
}

fn the_next_view_sees_what_this_one_did(r: &Runner) {
    over(r, "echo x > f; mkdir d; echo y > d/g", "echo new > f; rm d/g; mkdir e; mv d e/d");
    assert_eq!(r.bash("cat f; find . | sort").line(), "new\n.\n./e\n./e/d\n./f");
}

fn bytes_of_names_are_kept_in_the_upper(r: &Runner) {
    let told = over(
        r,
        "echo x > $'\\xff'",
        "echo y > $'\\xff'; echo z > $'a\\nb'; ls -A | od -An -c | tr -s ' '; cat $'\\xff'",
    );
    assert!(told.contains("377") && told.ends_with('y'), "{told}");
}

fn a_bind_shows_one_tree_at_another_place(r: &Runner) {
    let told =
        viewfs(r, "mkdir a b; echo x > a/f; m bind a b; cat b/f; echo y > b/g; cat a/g; vuumount b; ls b | wc -l")
            .line();
    assert_eq!(told, "x\ny\n0");
}

fn a_bind_of_a_file_works(r: &Runner) {
    let told = viewfs(
        r,
        "echo x > a; echo y > b; m bind a b; cat b; echo z > b; cat a; said rm b | grep -c busy; vuumount b; cat b",
    )
    .line();
    assert_eq!(told, "x\nz\n1\ny");
}

fn a_move_shows_the_tree_at_its_new_place(r: &Runner) {
    assert_eq!(viewfs(r, "mkdir a b; echo x > a/f; m move a b; cat b/f").line(), "x");
}

fn a_merge_shows_both_trees(r: &Runner) {
    let told = viewfs(
        r,
        "mkdir a b; echo 1 > a/x; echo 2 > b/x; echo 3 > a/y; echo 4 > b/z; m merge a b; cat b/x b/y b/z; ls b",
    )
    .line();
    assert_eq!(told, "1\n3\n4\nx\ny\nz");
}

fn an_exception_is_not_covered(r: &Runner) {
    let told = viewfs(r, "mkdir -p u l/keep; echo x > l/keep/f; echo x > l/f; m cow,except=/keep u l; echo y > l/f; echo y > l/keep/f; cat u/f; [ -e u/keep ] || echo 0; vuumount l; cat l/f l/keep/f").line();
    assert_eq!(told, "y\n0\nx\ny");
}

fn a_read_only_mount_is_erofs(r: &Runner) {
    let told = viewfs(r, "mkdir a b; echo x > a/f; m bind,ro a b; cat b/f; said bash -c 'echo y > b/f' | grep -c 'Read-only file system'; said mkdir b/d | grep -c 'Read-only'; said touch b/f | grep -c Read-only; echo y > a/f; cat b/f").line();
    assert_eq!(told, "x\n1\n1\n1\ny");
}

fn overlay_options_stack_lower_directories(r: &Runner) {
    let script = "mkdir l1 l2 u m1; echo 1 > l1/f; echo 2 > l2/f; echo 2 > l2/g; vumount -t viewfs -o lowerdir=l1:l2,upperdir=u none m1
        cat m1/f m1/g; rm m1/g; echo new > m1/h; ls m1; ls u; cat l2/g";
    assert_eq!(viewfs(r, script).line(), "1\n2\nf\nh\ng\nh\n2");
}

fn oci_whiteouts_of_lower_layers_hide(r: &Runner) {
    let script = "mkdir -p l1/d l2/d u p; echo x > l2/gone; echo x > l2/stays; echo x > l2/d/hidden; touch l1/.wh.gone l1/d/.wh..wh..opq; echo y > l1/d/seen
        vumount -t viewfs -o lowerdir=l1:l2,upperdir=u none p; ls -A p p/d";
    assert_eq!(viewfs(r, script).line(), "p:\nd\nstays\n\np/d:\nseen");
}

fn names_like_oci_whiteouts_are_names_in_a_layer_that_a_union_wrote(r: &Runner) {
    let script = "mkdir l u u2 p; touch l/seen; o() { vumount -t viewfs -o lowerdir=$1,upperdir=$2 none p; }
        o l u; touch p/.wh.file p/.wh.seen; mkdir p/.wh.dir; echo in > p/.wh.dir/.wh.f; vuumount p
        o u:l u2; ls -A p p/.wh.dir; cat p/.wh.dir/.wh.f; rm p/.wh.file; rm -r p/.wh.dir; ls -A p";
    let expected = "p:\n.wh.dir\n.wh.file\n.wh.seen\nseen\n\np/.wh.dir:\n.wh.f\nin\n.wh.seen\nseen";
    assert_eq!(viewfs(r, script).line(), expected);
}

fn a_descriptor_of_a_layers_own_path_means_the_file_there(r: &Runner) {
    let script = "mkdir l u p; touch l/f u/g; vumount -t viewfs -o lowerdir=l,upperdir=u none p
        python3 -c 'import os
for path in \"l/f\", \"u/g\":
    fd = os.open(path, 0); os.fchown(fd, 3, 4); os.fchmod(fd, 0o4711)
    for s in os.stat(path), os.fstat(fd): print(oct(s.st_mode), s.st_uid, s.st_gid)'; ls u";
    assert_eq!(viewfs(r, script).line(), ["0o104711 3 4"; 4].join("\n") + "\ng");
}

fn mounts_stack_and_come_off_in_order(r: &Runner) {
    let script = "mkdir a b p; echo 1 > a/f; echo 2 > b/f; m bind a p; cat p/f; m bind b p; cat p/f; vuumount p; cat p/f; vuumount p; ls p | wc -l; vuumount p 2>/dev/null || echo none";
    assert_eq!(viewfs(r, script).line(), "1\n2\n1\n0\nnone");
}

fn a_busy_mount_is_ebusy_and_goes_lazily(r: &Runner) {
    let script = "mkdir a p; echo 1 > a/f; m bind a p; cd p; said vuumount ../p | grep -c -i busy; vuumount -l ../p; cat f; cd ..; ls p | wc -l";
    assert_eq!(viewfs(r, script).line(), "1\n1\n0");
}

fn mounts_are_seen_in_proc(r: &Runner) {
    let script = "mkdir a p; m bind a $PWD/p; for f in mounts mountinfo; do grep -c \" $PWD/p \" /proc/self/$f; done; mountpoint -q p && echo is; findmnt -no TARGET p; df p | wc -l";
    assert_eq!(viewfs(r, script).line(), format!("1\n1\nis\n{}/p\n2", r.dir().display()));
}

fn a_mount_point_has_its_own_device_number(r: &Runner) {
    let script = "mkdir a u p; echo x > a/f; vumount -t viewfs -o lowerdir=a,upperdir=u none p; [ $(stat -c %d p) != $(stat -c %d .) ] && echo other; stat -c %d p p/f | uniq | wc -l";
    assert_eq!(viewfs(r, script).line(), "other\n1");
}

fn names_across_mounts_are_exdev(r: &Runner) {
    let script = "mkdir a p; echo x > a/f; m bind a p; said ln p/f g | grep -c -i 'cross-device'; python3 -c 'import os\ntry: os.rename(\"p/f\", \"g\")\nexcept OSError as e: print(e.errno)'; mv p/f g; cat g; ls a | wc -l";
    assert_eq!(viewfs(r, script).line(), "1\n18\nx\n0");
}

fn dot_dot_leaves_a_mount_by_its_parent(r: &Runner) {
    let script = "mkdir -p a/sub b/p; m bind a b/p; cd b/p/sub; cd ../..; pwd -P; ls; cd p; /bin/pwd";
    let here = r.dir();
    assert_eq!(viewfs(r, script).line(), format!("{0}/b\np\n{0}/b/p", here.display()));
}

fn the_own_world_is_seen_below_a_mount_on_the_root(r: &Runner) {
    let script = "mkdir u; m cow $PWD/u /; echo x > f; ls u$PWD; echo end";
    let told = viewfs(r, script).line();
    assert!(told == "f\nend", "{told}");
    assert!(!r.dir().join("f").exists(), "the union let writes through to the host");
}

fn an_upper_inside_its_lower_is_refused(r: &Runner) {
    let finished = viewfs(r, "mkdir -p l/u p; exec vumount -t viewfs -o lowerdir=l,upperdir=l/u none p");
    assert!(!finished.status.success(), "{finished}");
    assert!(String::from_utf8_lossy(&finished.stderr).contains("vumount: "), "{finished}");
}

fn a_descriptor_of_a_renamed_file_means_that_file(r: &Runner) {
    // In a union it is a file of the lower layer, which the rename copies up.
    std::fs::write(r.dir().join("file"), "x").expect("a new file");
    let script = "import os
fd = os.open('file', os.O_RDONLY)
os.rename('file', 'moved')
os.fchmod(fd, 0o600)
os.utime(fd, (1, 1))
os.setxattr(fd, 'user.x', b'1')
seen, named = os.fstat(fd), os.stat('moved')
print(oct(named.st_mode), int(named.st_mtime), os.getxattr('moved', 'user.x'))
print(oct(seen.st_mode), seen.st_nlink, seen.st_ino == named.st_ino)
print(os.path.basename(os.readlink(f'/proc/self/fd/{fd}')))";
    assert_eq!(r.run(["python3", "-c", script]).line(), "0o100600 1 b'1'\n0o100600 1 True\nmoved");
}

fn a_full_disk_leaves_nothing_half_made(r: &Runner) {
    // The disk is a small tmpfs of the kernel's; the view is started where that can be mounted.
    let script = "mkdir disk lower; head -c 4M /dev/zero | tr '\\0' x > lower/big; echo small > lower/small
        mount -t tmpfs -o size=2m none disk; mkdir disk/upper
        umvu -N -m viewfs sh -euc 'vumount -t viewfs -o cow disk/upper lower
            { echo more >> lower/big; } 2>&1 | sed \"s/.*: //\"; chmod 600 lower/big 2>&1 | sed \"s/.*: //\"
            stat -c %s,%a lower/big; tail -c 1 lower/big; echo; ls disk/upper
            echo more >> lower/small; cat lower/small; : > lower/big; stat -c %s lower/big'
        find disk/upper disk/upper.work -type f | sort; stat -c %s lower/big";
    let full = "No space left on device\nNo space left on device\n4194304,644\nx";
    let after = "small\nmore\n0\ndisk/upper.work/lock\ndisk/upper/big\ndisk/upper/small\n4194304";
    assert_eq!(r.bash(script).line(), format!("{full}\n{after}"));
}
