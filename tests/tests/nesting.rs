//! Images, disks and mounts on one another, in the view alone: what each is made of is a file of the one below, and goes
//! last.

use umvu_tests::{behaviours, Runner};

behaviours! {
    from_outside at ROOT {
        an_image_in_an_image_in_an_image,
        what_an_image_lies_in_stays_mounted,
        what_is_unmounted_lazily_lives_on_below_an_image,
        a_loop_device_shows_a_file_of_an_image,
        an_image_of_qemu_lies_in_an_image,
    }
    from_outside at ROOT if has_bindfs {
        a_partition_of_an_image_on_fuse_on_a_union,
    }
}

fn has_bindfs() -> bool {
    std::process::Command::new("bindfs").arg("--version").output().is_ok()
}

/// Runs a script with the modules loaded; what `mke2fs` says is left out.
fn nested(r: &Runner, script: &str) -> String {
    r.bash(&format!("{BEFORE}{script}")).line()
}

const BEFORE: &str = r#"
set +e +o pipefail; PATH=$PATH:/usr/sbin:/sbin; vu_insmod vudev vufuse || exit
mke2fs() { command mke2fs -q -F "$@" > /dev/null; }
sound() { e2fsck -fn "$1" > log 2>&1 && echo sound || cat log; }
mkdir tree m n o; echo one > tree/f; head -c 3000000 /dev/urandom > tree/big
"#;

fn an_image_in_an_image_in_an_image(r: &Runner) {
    let script = r"
        mksquashfs tree i.sqfs -quiet -no-progress > /dev/null; mke2fs -t ext4 a 60M; mount -t vufuseext4 a m; mke2fs -t ext2 m/b 30M; mount -t vufuseext2 m/b n; cp i.sqfs n/c; mount -t vufuse n/c o
        cmp tree/big o/big && cat o/f; umount o; rm n/c; echo two > n/f; umount n; sound m/b; debugfs -R 'cat f' m/b 2>/dev/null; umount m; sound a
        mount -t vufuseext4 -o ro a m; mount -t vufuse -o ro m/b n && cat n/f; umount n m";
    assert_eq!(nested(r, script), "one\nsound\ntwo\nsound\ntwo");
}

fn what_an_image_lies_in_stays_mounted(r: &Runner) {
    let script = r"
        mke2fs -t ext4 a 40M; mount -t vufuseext4 a m; mke2fs -t ext4 -d tree m/b 10M; truncate -s 20M m/disk
        mount -t vufuseext4 m/b n; vuumount m 2>&1; umount n; vumount -t vudevpartx m/disk /dev/hda; vuumount m 2>&1; mke2fs -t ext2 /dev/hda; mount -t vufuse /dev/hda n; vuumount /dev/hda 2>&1; vuumount m 2>&1
        umount n; vuumount /dev/hda && vuumount m && sound a";
    let busy = "busy: something that is mounted uses it";
    let expected =
        format!("vuumount: m: {busy}\nvuumount: m: {busy}\nvuumount: /dev/hda: {busy}\nvuumount: m: {busy}\nsound");
    assert_eq!(nested(r, script), expected);
}

fn what_is_unmounted_lazily_lives_on_below_an_image(r: &Runner) {
    let script = r"
        mke2fs -t ext4 a 40M; mount -t vufuseext4 a m; mke2fs -t ext4 -d tree m/b 10M; mount -t vufuseext4 m/b n; umount -l m; ls m | wc -l; cat n/f; echo two > n/f; sync n/f
        mount -t vufuseext4 a o 2> /dev/null || echo 'in use'; umount n; sound a; mount -t vufuseext4 a m && mount -t vufuseext4 m/b n; cat n/f; umount n; sound m/b; umount m";
    assert_eq!(nested(r, script), "0\none\nin use\nsound\ntwo\nsound");
}

fn a_loop_device_shows_a_file_of_an_image(r: &Runner) {
    let script = r"
        mke2fs -t ext4 a 90M; mount -t vufuseext4 a m; truncate -s 30M m/b; mkfs.ext4 -q m/b; mount -o loop -t ext4 m/b n && cp tree/* n/; vuumount m 2>&1; umount n; sound m/b
        d=$(losetup -f --show m/b); sync; debugfs -R 'cat f' $d 2> /dev/null; losetup -d $d; umount m && sound a";
    assert_eq!(nested(r, script), "vuumount: m: busy: something that is mounted uses it\nsound\none\nsound");
}

fn an_image_of_qemu_lies_in_an_image(r: &Runner) {
    let script = r"
        mke2fs -t ext4 a 90M; mount -t vufuseext4 a m; head -c 20M /dev/urandom > m/base; qemu-img create -q -f qcow2 -b base -F raw m/disk.qcow2
        vumount -t vudevqcow2 m/disk.qcow2 /dev/vdn; cmp /dev/vdn m/base && echo same; vuumount m 2>&1; echo over > /dev/vdn; dd if=tree/big of=/dev/vdn bs=1M seek=10 status=none conv=notrunc,fsync; vuumount /dev/vdn
        qemu-img check -q m/disk.qcow2 && echo closed; qemu-img convert -O raw m/disk.qcow2 raw; head -c 5 raw; cmp -n 3000000 raw tree/big -i 10485760:0 && umount m; sound a
        qemu-img create -q -f vdi disk.vdi 40M; mke2fs -t ext2 a 60M; mount -t vufuse a m; cp disk.vdi m/; vumount -t vudevvdi m/disk.vdi /dev/vdn; echo text > /dev/vdn; sync; vuumount /dev/vdn; qemu-img convert -f vdi -O raw m/disk.vdi raw; head -c 5 raw; umount m; sound a";
    let expected = "same\nvuumount: m: busy: something that is mounted uses it\nclosed\nover\nsound\ntext\nsound";
    assert_eq!(nested(r, script), expected);
}

fn a_partition_of_an_image_on_fuse_on_a_union(r: &Runner) {
    let script = r"
        vu_insmod fuse viewfs; mkdir low up fuse; echo low > low/file; vumount -t viewfs -o cow up low; bindfs low fuse 2>&1; cat fuse/file
        qemu-img create -q -f qcow2 fuse/disk.qcow2 64M; vumount -t vudevqcow2 fuse/disk.qcow2 /dev/vdn; printf 'label: gpt\n,40M\n' | sfdisk -q /dev/vdn; mkfs.ext4 -q /dev/vdn1; mount -t ext4 /dev/vdn1 m && cp tree/* m/
        vuumount fuse 2>&1; vuumount /dev/vdn 2>&1; cmp m/big tree/big; umount m; sound /dev/vdn1; vuumount /dev/vdn; vuumount fuse && ls fuse | wc -l
        qemu-img check -q low/disk.qcow2 && echo closed; ls up; vumount -t vudevqcow2 -o ro up/disk.qcow2 /dev/vdn; debugfs -R 'dump big out' /dev/vdn1 2> /dev/null; cmp out tree/big && echo same; vuumount /dev/vdn";
    let expected = "low\nvuumount: fuse: busy: something that is mounted uses it\nvuumount: /dev/vdn: busy: something that is mounted uses it\n\
        sound\n0\nclosed\ndisk.qcow2\nsame";
    assert_eq!(nested(r, script), expected);
}
