//! mount(8), umount(8), findmnt, df and mountpoint, unmodified; and what a view makes of its mounts.

use umvu_tests::{behaviours, Runner};

behaviours! {
    from_outside at MOUNTING {
        a_tmpfs_is_mounted_told_and_unmounted,
        binds_are_told_with_their_part_of_the_source,
        a_bind_made_read_only_keeps_its_other_flags,
        trees_are_bound_moved_and_unmounted_whole,
        mounts_on_one_point_are_all_told,
        blanks_in_names_are_told_in_octal,
        df_asks_each_mount,
        nothing_is_left_in_the_list,
        who_has_ended_keeps_nothing_busy,
        who_runs_or_maps_a_file_keeps_its_mount_busy,
        the_list_is_a_file_of_proc,
        a_changed_root_lists_what_is_in_it,
    }
    from_outside at ROOT {
        the_mount_of_the_system_mounts_unions,
        many_mounts_keep_their_files_apart,
        files_of_a_tmpfs_leave_with_it,
    }
    from_outside at PLAIN {
        who_stands_in_a_covered_tree_sees_the_union,
        who_stands_in_a_union_on_the_root_sees_the_host_after_it,
        a_union_is_the_only_root_that_is_listed,
        a_module_in_use_stays,
        mounts_inside_hide_what_they_cover_in_the_list,
    }
}

fn a_tmpfs_is_mounted_told_and_unmounted(r: &Runner) {
    let script = "mkdir m; mount -t tmpfs name m; mountpoint m; findmnt -no SOURCE,FSTYPE,VFS-OPTIONS m
        mount -o remount,noexec m; findmnt -no VFS-OPTIONS m; grep -c \" $PWD/m tmpfs \" /proc/self/mounts
        grep \" $PWD/m \" /proc/self/mountstats; umount m; mountpoint m || true";
    let here = r.dir();
    let here = here.display();
    let expected = format!(
        "m is a mountpoint\nname   tmpfs  rw,relatime\nrw,noexec,relatime\n1\n\
         device name mounted on {here}/m with fstype tmpfs\nm is not a mountpoint"
    );
    // The remount must not depend on the ids that a namespace of the kernel shows as options.
    let script = script.replace("mount -o remount", "mount --options-source=disable -o remount");
    assert_eq!(r.bash(&script).line(), expected);
}

fn binds_are_told_with_their_part_of_the_source(r: &Runner) {
    let script = "mkdir m n; mount -t tmpfs name m; mkdir -p m/a/b; mount --bind m/a/b n; touch n/f m/f
        findmnt -no SOURCE,FSROOT n; findmnt -no FSROOT m; mount --bind m/f n/f; findmnt -no FSROOT n/f";
    assert_eq!(r.bash(script).line(), "name[/a/b] /a/b\n/\n/f");
}

fn a_bind_made_read_only_keeps_its_other_flags(r: &Runner) {
    let script = "mkdir a b; mount -t tmpfs -o noexec,nosuid,noatime x a; mount --bind a b; mount -o remount,bind,ro b
        findmnt -no VFS-OPTIONS b; findmnt -no VFS-OPTIONS a; touch b/f 2>&1 || touch a/f; ls b
        mkdir c; mount -o bind,ro a c; touch c/g 2>&1 || true";
    let expected = "ro,nosuid,noexec,noatime\nrw,nosuid,noexec,noatime\n\
                    touch: cannot touch 'b/f': Read-only file system\nf\n\
                    touch: cannot touch 'c/g': Read-only file system";
    assert_eq!(r.bash(script).line(), expected);
}

fn trees_are_bound_moved_and_unmounted_whole(r: &Runner) {
    let script =
        "mkdir a b c; mount -t tmpfs one a; mkdir a/s; mount -t tmpfs two a/s; mkdir a/s/t; mount -t tmpfs three a/s/t
        mount --rbind a b; mount --move b c 2>/dev/null || true; findmnt -Rno SOURCE c --list; findmnt -Rno SOURCE b --list || echo none
        umount -R c; findmnt -Rno SOURCE c --list || echo none; umount a 2>/dev/null || echo busy; umount -l a; ls a
        grep -c tmpfs.$PWD /proc/self/mounts || true";
    assert_eq!(r.bash(script).line(), "one\ntwo\nthree\nnone\nnone\nbusy\n0");
}

fn mounts_on_one_point_are_all_told(r: &Runner) {
    let script =
        "mkdir m; mount -t tmpfs one m; mount -t tmpfs two m; findmnt -no SOURCE m; df --output=source m | tail -1
        umount m; findmnt -no SOURCE m; umount m; mountpoint -q m || echo none";
    assert_eq!(r.bash(script).line(), "one\ntwo\ntwo\none\nnone");
}

fn blanks_in_names_are_told_in_octal(r: &Runner) {
    let script = r#"mkdir 'a b\c'; mount -t tmpfs 'x y' 'a b\c'; grep -c 'x\\040y .*/a\\040b\\134c tmpfs' /proc/self/mounts
        mountpoint -q 'a b\c' && echo one; umount 'a b\c'; mountpoint -q 'a b\c' || echo none"#;
    assert_eq!(r.bash(script).line(), "1\none\nnone");
}

fn df_asks_each_mount(r: &Runner) {
    let script = "mkdir m n; mount -t tmpfs -o size=2M small m; mount -t tmpfs -o size=4M other n
        df --output=source,size,target m n | tail -2; mount -o remount,size=3M --options-source=disable m
        df --output=size m | tail -1; stat -f -c %T m";
    let here = r.dir();
    let here = here.display();
    let told = r.bash(script).line().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(told, format!("small 2048 {here}/m other 4096 {here}/n 3072 tmpfs"));
}

fn nothing_is_left_in_the_list(r: &Runner) {
    let script = "mkdir m; cp /proc/self/mountinfo before; for i in $(seq 70); do mount -t tmpfs t$i m; done
        grep -c \" $PWD/m \" /proc/self/mounts; while umount m 2>/dev/null; do :; done; diff before /proc/self/mountinfo && echo same";
    assert_eq!(r.bash(script).line(), "70\nsame");
}

fn who_has_ended_keeps_nothing_busy(r: &Runner) {
    let script =
        "mkdir m; for i in 1 2 3; do mount -t tmpfs x m; (cd m; echo x > f; cat f; sh -c 'cat < f'); umount m; done";
    assert_eq!(r.bash(script).line(), "x\nx\nx\nx\nx\nx");
}

fn who_runs_or_maps_a_file_keeps_its_mount_busy(r: &Runner) {
    let script = "mkdir m; mount -t tmpfs x m; cp $(command -v cat) m/; mkfifo wait
        m/cat wait & exec 9> wait; umount m 2> /dev/null || echo busy; exec 9>&-; wait; umount m && echo free
        mount -t tmpfs x m; echo x > m/file
        python3 -c 'import mmap; f = open(\"m/file\"); m = mmap.mmap(f.fileno(), 1, prot=mmap.PROT_READ)
f.close(); open(\"wait\").read()' & exec 9> wait
        umount m 2> /dev/null || echo busy; exec 9>&-; wait; umount m && echo free";
    assert_eq!(r.bash(script).line(), "busy\nfree\nbusy\nfree");
}

fn the_list_is_a_file_of_proc(r: &Runner) {
    let script = "mkdir m; mount -t tmpfs x m; cp /proc/self/mounts copy; grep -c \" $PWD/m tmpfs \" copy
        exec 7< /proc/self/mounts; stat -Lc %s,%F /proc/self/fd/7; stat -c %s,%F - <&7
        [ \"$(readlink /proc/self/fd/7)\" = /proc/$$/mounts ] && echo named
        exec 8< m; grep -q mnt_id:.$(findmnt -no ID m) /proc/self/fdinfo/8 && echo numbered";
    assert_eq!(r.bash(script).line(), "1\n0,regular empty file\n0,regular empty file\nnamed\nnumbered");
}

fn a_changed_root_lists_what_is_in_it(r: &Runner) {
    let script = "mkdir root; mount --rbind / root; mount -t tmpfs outside root/mnt
        chroot root sh -c 'mount -t tmpfs inside /srv; findmnt -no SOURCE /mnt; findmnt -no SOURCE /srv; findmnt -no TARGET | head -1'
        findmnt -no TARGET $PWD/root/srv | sed s,$PWD,,";
    assert_eq!(r.bash(script).line(), "outside\ninside\n/\n/root/srv");
}

fn the_mount_of_the_system_mounts_unions(r: &Runner) {
    let script = "vu_insmod viewfs 2>/dev/null || true; mkdir low up work m over; echo low > low/f; echo m > m/g
        mount -t overlay -o lowerdir=$PWD/low,upperdir=$PWD/up,workdir=$PWD/work none over; echo new > over/f; cat low/f up/f
        findmnt -no FSTYPE over; umount over; mkdir up2; mount -t viewfs -o cow $PWD/up2 m; echo x > m/h; umount m; ls m up2";
    assert_eq!(r.bash(script).line(), "low\nnew\noverlay\nm:\ng\n\nup2:\nh");
}

fn many_mounts_keep_their_files_apart(r: &Runner) {
    // There are fewer marks of open files than mounts here.
    let script = "for i in $(seq 150); do mkdir d$i; mount -t tmpfs t d$i; echo $i > d$i/f; chmod $((600 + i % 8)) d$i/f; done
        for i in $(seq 150); do exec 9< d$i/f; stat -L -c '%a' /proc/self/fd/9; cat <&9; exec 9<&-; done | paste -sd+ | bc";
    let expected: u32 = (1..=150).map(|i| 600 + i % 8 + i).sum();
    assert_eq!(r.bash(script).line(), expected.to_string());
}

fn files_of_a_tmpfs_leave_with_it(r: &Runner) {
    // Where the supervisor keeps them, and where everybody may look.
    let script = "mkdir m; seen() { { ls /dev/shm/.umvu-*/*/unique-$$ 2>/dev/null || true; } | wc -l; }
        mount -t tmpfs x m; echo kept > m/unique-$$; seen; exec 9< m/unique-$$; umount -l m; cat <&9; exec 9<&-
        mount -t tmpfs x m; umount m; mountpoint -q m || seen";
    assert_eq!(r.bash(script).line(), "1\nkept\n0");
}

fn who_stands_in_a_covered_tree_sees_the_union(r: &Runner) {
    let upper = r.upper();
    let script = format!(
        "mkdir d; cd d; vu_insmod viewfs; vumount -t viewfs -o cow {0} /; touch here; pwd; ls; find {0} -name here -printf '%P\\n'",
        upper.display()
    );
    let here = r.dir().join("d");
    let inside = here.strip_prefix("/").expect("an absolute path").display();
    assert_eq!(r.bash(&script).line(), format!("{0}\nhere\n{inside}/here", here.display()));
    assert!(!here.join("here").exists(), "the host's directory has changed");
}

fn who_stands_in_a_union_on_the_root_sees_the_host_after_it(r: &Runner) {
    let upper = r.upper();
    let script = format!(
        "vu_insmod viewfs; vumount -t viewfs -o cow {} /; touch inside; ls; vuumount /; ls; touch outside; ls; vu_rmmod viewfs; pwd",
        upper.display()
    );
    assert_eq!(r.bash(&script).line(), format!("inside\noutside\n{}", r.dir().display()));
    assert!(r.dir().join("outside").exists());
}

fn a_union_is_the_only_root_that_is_listed(r: &Runner) {
    let upper = r.upper();
    let script = format!(
        "vu_insmod viewfs; vumount -t viewfs -o cow {} /; mkdir m; vumount -t tmpfs x m
         findmnt -no FSTYPE /; grep -c ' / / ' /proc/self/mountinfo; findmnt -no TARGET -T m; mountpoint -q /proc && echo proc
         root=$(findmnt -no ID /); [ \"$(findmnt -no PARENT m)\" = \"$root\" ] && echo child; findmnt -no TARGET | head -1",
        upper.display()
    );
    let here = r.dir();
    assert_eq!(r.bash(&script).line(), format!("viewfs\n1\n{}/m\nproc\nchild\n/", here.display()));
}

fn a_module_in_use_stays(r: &Runner) {
    let script = "vu_insmod viewfs; mkdir a b; vumount -t viewfs -o bind $PWD/a b; vu_rmmod viewfs 2>&1 || true
        cd b; vuumount -l ../b; vu_rmmod viewfs 2>&1 || true; cd /; vu_rmmod viewfs && echo gone";
    let told = r.bash(script).line();
    let busy = "vu_rmmod: viewfs: in use by 1 mount";
    assert_eq!(told, format!("{busy}\n{busy}\ngone"));
}

fn mounts_inside_hide_what_they_cover_in_the_list(r: &Runner) {
    let script = "vu_insmod viewfs; grep -c ' /dev/' /proc/self/mounts >/dev/null || exit 0
        mkdir a; vumount -t viewfs -o bind $PWD/a /dev; grep ' /dev/' /proc/self/mounts || true; vuumount /dev
        grep -q ' /dev/' /proc/self/mounts";
    assert_eq!(r.bash(script).line(), "");
}
