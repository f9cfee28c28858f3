//! Devices of a view: disks in files and in memory, with their partitions, as the programs that make and look at disks
//! find them; what they write is what they write to a plain file of the host.

use umvu_tests::{behaviours, Finished, Runner};

behaviours! {
    from_outside at INSIDE {
        a_disk_has_its_partitions_beside_it,
        a_table_written_to_a_disk_is_that_written_to_a_file,
        a_file_system_made_on_a_partition_is_that_made_in_a_file,
        reads_writes_and_seeks_are_those_of_a_block_device,
        requests_are_answered_as_of_a_block_device,
        what_is_claimed_cannot_be_claimed_again,
        a_disk_in_use_stays_mounted,
        images_that_cannot_be_used_are_refused,
        a_mount_point_comes_and_goes_with_the_device,
        processes_share_a_position,
        null_takes_all_and_gives_nothing,
        lists_of_devices_show_disks,
        an_image_of_virtualbox_is_a_disk,
        an_image_of_vmware_is_a_disk,
        an_image_of_hyper_v_is_read,
        an_image_of_qemu_is_a_disk,
        an_image_stands_on_another,
        images_that_are_damaged_are_named,
        loop_devices_are_made_of_files,
    }
    from_outside at ROOT {
        tools_make_and_check_file_systems,
        logical_partitions_and_guid_tables_are_read,
        partitions_come_and_go_one_by_one,
        a_disk_in_memory_is_made_with_options,
        a_disk_on_a_partition_has_partitions,
        a_read_only_disk_refuses_writes,
        nodes_have_owners_modes_and_numbers,
        a_node_made_by_number_is_the_device,
        lsblk_tells_what_is_on_a_disk,
        a_file_system_on_a_partition_is_mounted,
        mount_makes_a_loop_device,
    }
}

/// Runs a script with the module loaded and an empty disk `disk` of 64 MiB at `/dev/hda`.
fn with_disk(r: &Runner, script: &str) -> Finished {
    r.bash(&format!("{BEFORE}truncate -s 64M disk; vumount -t vudevpartx disk /dev/hda\n{script}"))
}

const BEFORE: &str = "set +e +o pipefail; PATH=$PATH:/usr/sbin:/sbin; vu_insmod vudev || exit\n";

fn python(r: &Runner, script: &str) -> String {
    let helpers = "
import ctypes, errno, fcntl, mmap, os, struct, sys
def tried(call, *args):
    try: return call(*args)
    except OSError as e: return errno.errorcode[e.errno]
def asked(fd, request, size):
    try: return int.from_bytes(fcntl.ioctl(fd, request, bytes(size)), sys.byteorder)
    except OSError as e: return errno.errorcode[e.errno]";
    with_disk(r, &format!("exec python3 - <<'END'\n{helpers}\n{script}\nEND")).line()
}

fn a_disk_has_its_partitions_beside_it(r: &Runner) {
    let script = r"
        ls /dev | grep hda; printf 'label: dos\n,32M\n,\n' | sfdisk -q /dev/hda; ls -1 /dev/hda*; ls /dev | grep hda
        stat -c '%F %t:%T %s' /dev/hda /dev/hda2; blockdev --getsz /dev/hda1; test -b /dev/hda1 && echo block
        cd /dev; stat -c %n hda1 ./hda2 ../dev/hda1; realpath hda1; test -e hda3 || echo none; mkdir hda1 2>&1 | sed 's/.*: //'; rm -f hda1 2>&1 | sed 's/.*: //'
        echo , | sfdisk -q /dev/hda; ls -1 /dev/hda*; vuumount /dev/hda; ls /dev | grep -c hda || true";
    let expected = "hda\n/dev/hda\n/dev/hda1\n/dev/hda2\nhda\nhda1\nhda2\n\
        block special file 3:0 0\nblock special file 3:2 0\n65536\nblock\n\
        hda1\n./hda2\n../dev/hda1\n/dev/hda1\nnone\nFile exists\nDevice or resource busy\n/dev/hda\n/dev/hda1\n0";
    assert_eq!(with_disk(r, script).line(), expected);
}

fn a_table_written_to_a_disk_is_that_written_to_a_file(r: &Runner) {
    let script = r"
        tables() {
            printf 'label: dos\nlabel-id: 0x11223344\n,10M,L,*\n,20M,E\n,5M\n,6M\n,,c\n' | sfdisk -q $1; cksum < $2
            printf 'label: gpt\nlabel-id: 11111111-2222-3333-4444-555555555555\nsize=10M,uuid=11111111-2222-3333-4444-666666666666,name=a\nuuid=11111111-2222-3333-4444-777777777777\n' | sfdisk -q $1; cksum < $2
        }
        truncate -s 64M plain; tables plain plain > one; tables /dev/hda disk > other; diff one other && echo same";
    assert_eq!(with_disk(r, script).line(), "same");
}

fn a_file_system_made_on_a_partition_is_that_made_in_a_file(r: &Runner) {
    let script = r"
        export E2FSPROGS_FAKE_TIME=1000000000; id=11111111-2222-3333-4444-555555555555;
        make() { mkfs.ext4 -q -F -O ^metadata_csum -U $id -E hash_seed=$id,root_owner,nodiscard,lazy_itable_init=0 $1; mkfs.vfat -a -g 255/63 -h 0 -i 12345678 --invariant $2 > /dev/null; }
        printf 'label: dos\n,32M\n,\n' | sfdisk -q /dev/hda; truncate -s 32M one; truncate -s 31M two
        make one two; make /dev/hda1 /dev/hda2
        # How much was written, which each superblock tells, is counted otherwise for a device.
        cmp -l one /dev/hda1 | awk '($1 - 1) % 1024 < 376 || ($1 - 1) % 1024 > 383' | wc -l
        cmp two /dev/hda2 && cmp -n 33554432 -i 0:1048576 /dev/hda1 disk && echo same";
    assert_eq!(with_disk(r, script).line(), "0\nsame");
}

fn reads_writes_and_seeks_are_those_of_a_block_device(r: &Runner) {
    let script = r#"
end = 64 << 20
fd = os.open("/dev/hda", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
print(os.lseek(fd, 0, os.SEEK_END) == end, tried(os.lseek, fd, 1, os.SEEK_END), tried(os.lseek, fd, -1, os.SEEK_SET), tried(os.lseek, fd, 0, os.SEEK_DATA))
print(os.read(fd, 5), tried(os.write, fd, b"x"), os.pwrite(fd, b"12345", end - 3), os.pread(fd, 9, end - 4), tried(os.pread, fd, 1, -1))
os.lseek(fd, 510, os.SEEK_SET)
print(os.write(fd, b"one"), os.writev(fd, [b"two", b"", b"three"]), os.lseek(fd, 0, os.SEEK_CUR), os.pread(fd, 12, 510))
parts = [bytearray(4), bytearray(6)]
print(os.preadv(fd, parts, 510), [bytes(p) for p in parts], os.pwritev(fd, [b"ab", b"c"], 0), os.readv(fd, parts), parts[0])
print(tried(os.ftruncate, fd, 0), tried(mmap.mmap, fd, 4096, mmap.MAP_PRIVATE))
null = os.open("/dev/null", os.O_RDWR)
print(tried(os.copy_file_range, fd, null, 5), tried(os.fsync, fd), tried(os.fdatasync, fd), tried(os.sync))
reading, writing = os.open("/dev/hda", os.O_RDONLY), os.open("/dev/hda", os.O_WRONLY | os.O_APPEND)
print(tried(os.write, reading, b"x"), tried(os.read, writing, 1), tried(os.write, writing, b"x"), os.read(reading, 3), os.fstat(fd).st_rdev == os.stat("/dev/hda").st_rdev)
print(open("disk", "rb").read(3), oct(fcntl.fcntl(writing, fcntl.F_GETFL) & 0o2003), os.stat("disk").st_size == end)
big = os.urandom(5 << 20)
print(os.pwrite(fd, big, 1 << 20) == len(big), os.pread(fd, len(big), 1 << 20) == big, os.pread(reading, end, 1) == open("disk", "rb").read()[1:])
"#;
    let expected = "True EINVAL EINVAL EINVAL\nb'' ENOSPC 3 b'\\x00123' EINVAL\n3 8 521 b'onetwothree\\x00'\n\
        10 [b'onet', b'wothre'] 3 10 bytearray(b'\\x00\\x00\\x00\\x00')\nEINVAL ENODEV\n\
        EINVAL None None None\nEBADF EBADF ENOSPC b'abc' True\nb'abc' 0o2001 True\nTrue True True";
    assert_eq!(python(r, script), expected);
}

fn requests_are_answered_as_of_a_block_device(r: &Runner) {
    let script = r#"
fd = os.open("/dev/hda", os.O_RDWR)
print(asked(fd, 0x1260, 8), asked(fd, 0x80081272, 8), asked(fd, 0x1268, 4), asked(fd, 0x127b, 4), asked(fd, 0x125e, 4), asked(fd, 0x80081270, 8))
print(fcntl.ioctl(fd, 0x0301, bytes(16)).hex(), asked(fd, 0x5331, 0), asked(fd, 0x030d, 512), asked(fd, 0x1278, 4), asked(fd, 0x127e, 2))
os.pwrite(fd, b"x" * 8192, 4096)
def done(fd, request, argument):
    said = tried(fcntl.ioctl, fd, request, argument)
    return said if isinstance(said, str) else "done"
def ranged(request, start, length): return done(fd, request, struct.pack("QQ", start, length))
print(ranged(0x127f, 4096, 1024), os.pread(fd, 8192, 4096).count(b"x"), ranged(0x127f, 1, 512), ranged(0x127f, 0, 0), ranged(0x127f, 64 << 20, 512), ranged(0x1277, 8192, 4096), ranged(0x127d, 0, 512))
def part(op, number, start, length):
    data = bytearray(struct.pack("qqi132x", start, length, number))
    held = (ctypes.c_char * len(data)).from_buffer(data)
    return done(fd, 0x1269, struct.pack("iii4xQ", op, 0, len(data), ctypes.addressof(held)))
print(part(1, 1, 1 << 20, 1 << 20), part(1, 2, 1 << 20, 512), part(1, 2, 0, 513), part(1, 1, 0, 512), part(1, 0, 0, 512), part(3, 1, 1 << 20, 512), os.stat("/dev/hda1").st_rdev & 255)
one = os.open("/dev/hda1", os.O_RDONLY)
print(asked(one, 0x1260, 8), part(2, 1, 0, 0), asked(one, 0x125f, 0), asked(fd, 0x125f, 0), tried(fcntl.ioctl, one, 0x127f, struct.pack("QQ", 0, 512)))
os.close(one)
print(part(2, 1, 0, 0), part(2, 1, 0, 0), os.path.exists("/dev/hda1"), asked(os.open("disk", os.O_RDONLY), 0x1260, 8))
"#;
    let expected = "131072 67108864 512 512 0 4096\nff3f0800000000000000000000000000 ENOTTY ENOTTY 512 0\n\
        done 7168 EINVAL EINVAL EINVAL done ENOTSUP\ndone EBUSY EINVAL EBUSY EINVAL done 1\n\
        1 EBUSY EINVAL EBUSY EBADF\ndone ENXIO False ENOTTY";
    assert_eq!(python(r, script), expected);
}

fn what_is_claimed_cannot_be_claimed_again(r: &Runner) {
    let script = r#"
os.system("printf 'label: dos\n,1M\n,1M\n' | sfdisk -q /dev/hda")
def claims(path): return tried(os.open, path, os.O_RDWR | os.O_EXCL)
one = claims("/dev/hda1")
print(claims("/dev/hda1"), claims("/dev/hda"), isinstance(os.open("/dev/hda1", os.O_RDWR), int), isinstance(claims("/dev/hda2"), int))
os.close(one)
print(isinstance(claims("/dev/hda1"), int), os.system("vumount -t vudevpartx /dev/hda1 /dev/hdb 2> said") >> 8, open("said").read().strip())
"#;
    let expected = "EBUSY EBUSY True True\nTrue 1 vumount: /dev/hda1: busy: in use by another device or file system";
    assert_eq!(python(r, script), expected);
}

fn a_disk_in_use_stays_mounted(r: &Runner) {
    let script = r"
        exec 5< /dev/hda; vuumount /dev/hda 2>&1 || true; exec 5<&-; printf 'label: dos\n,\n' | sfdisk -q /dev/hda
        vumount -t vudevpartx /dev/hda1 /dev/hdb; vuumount /dev/hda 2>&1 || true; vuumount /dev/hdb; vuumount /dev/hda && echo done
        grep -c hda /proc/mounts || true; vu_rmmod vudev";
    let expected = "vuumount: /dev/hda: busy: a process uses it\n\
        vuumount: /dev/hda: busy: something that is mounted uses it\ndone\n0";
    assert_eq!(with_disk(r, script).line(), expected);
}

fn images_that_cannot_be_used_are_refused(r: &Runner) {
    let script = "
        for source in nothing . disk ''; do vumount -t vudevpartx \"$source\" /dev/hdb 2>&1 || true; done
        : > empty; vumount -t vudevpartx empty /dev/hdb; blockdev --getsize64 /dev/hdb; ls /dev/hdb*; vuumount /dev/hdb
        printf short > short; vumount -t vudevpartx short /dev/hdb; blockdev --getsize64 /dev/hdb; vuumount /dev/hdb
        for option in frob mode=9 size=1M mbr; do vumount -t vudevpartx -o $option short /dev/hdb 2>&1 || true; done
        vumount -t vudevpartx short /nowhere/hdb 2>&1 || true; vumount -t vudevpartx short . 2>&1 || true
        flock short sh -c 'vumount -t vudevpartx short /dev/hdb 2>&1 || true; vumount -t vudevpartx -o ro short /dev/hdb 2>&1 || true'
        chmod 400 short; test $(id -u) = 0 || vumount -t vudevpartx short /dev/hdb 2>&1 || true; vumount -t vudevpartx -o ro short /dev/hdb && ls /dev/hdb; cat short";
    let expected = "vumount: nothing: no such file or directory\nvumount: .: neither a file nor a block device\n\
        vumount: disk: busy: in use by another device or file system\nvumount: vudev: no file named that the disk is in\n\
        0\n/dev/hdb\n0\nvumount: vudev: option 'frob': unknown\n\
        vumount: vudev: option 'mode=9': not a number that it takes\n\
        vumount: vudev: only a vudevramdisk takes the options 'size' and 'mbr'\n\
        vumount: vudev: only a vudevramdisk takes the options 'size' and 'mbr'\n\
        vumount: /nowhere/hdb: no such file or directory\nvumount: .: not a directory\n\
        vumount: short: busy: in use by another device or file system\n\
        vumount: short: busy: in use by another device or file system\n\
        vumount: short: cannot be written: permission denied: use option 'ro'\n/dev/hdb\nshort";
    assert_eq!(with_disk(r, script).line(), expected);
}

fn a_mount_point_comes_and_goes_with_the_device(r: &Runner) {
    let script = "
        mkdir d; vumount -t vudevramdisk -o mbr none d/new; echo , | sfdisk -q d/new; ls d; find d | sort; stat -c %F d/new1 d/../d/new
        echo old > d/old; vumount -t vudevramdisk -o mbr none d/old; echo , | sfdisk -q d/old; ls d; vuumount d/old; cat d/old; ls d
        grep -c $PWD/d/new /proc/self/mountinfo; rmdir d 2>&1 | sed 's/.*: //'; vuumount d/new; ls d; test -e d/new || echo gone
        vumount -t vudevramdisk -o mbr none d/disk0; echo , | sfdisk -q d/disk0; ls d";
    let expected = "new\nnew1\nd\nd/new\nd/new1\nblock special file\nblock special file\n\
        new\nnew1\nold\nold1\nold\nnew\nnew1\nold\n1\nDirectory not empty\nold\ngone\ndisk0\ndisk0p1\nold";
    assert_eq!(r.bash(&format!("{BEFORE}{script}")).line(), expected);
}

fn processes_share_a_position(r: &Runner) {
    let script = "
        printf abcdefgh > letters; dd if=letters of=/dev/hda conv=notrunc status=none
        exec 5< /dev/hda; dd bs=2 count=1 status=none <&5; dd bs=2 count=1 status=none <&5; (dd bs=1 count=1 status=none <&5); sh -c 'dd bs=1 count=1 status=none <&5'; echo
        exec 6<> /dev/hda; (echo one >&6; echo two >&6); echo three >&6; exec 5<&- 6<&-; head -c 14 disk
        grep TracerPid /proc/$$/status | grep -o '0$'; cat /dev/hda | cksum | cut -d' ' -f2; cp /dev/hda copy; cmp copy disk && echo same";
    assert_eq!(with_disk(r, script).line(), "abcdef\none\ntwo\nthree\n0\n67108864\nsame");
}

fn null_takes_all_and_gives_nothing(r: &Runner) {
    let script = "
        vumount -t vudevnull none null; stat -c '%F %t:%T' null; echo x > null; cat null | wc -c; head -c 100000 /dev/zero | tee null | wc -c
        python3 -c 'import os; fd = os.open(\"null\", os.O_RDWR); print(os.lseek(fd, 5, 0), os.write(fd, b\"abc\"), os.read(fd, 3))'";
    assert_eq!(r.bash(&format!("{BEFORE}{script}")).line(), "character special file 1:3\n0\n100000\n0 3 b''");
}

fn tools_make_and_check_file_systems(r: &Runner) {
    let script = r"
        printf 'label: dos\n,32M\n,\n' | sfdisk -q /dev/hda
        mkfs.ext4 -q -L first -U 11111111-2222-3333-4444-555555555555 /dev/hda1; e2fsck -fn /dev/hda1 > log 2>&1 || cat log
        mkfs.vfat -n SECOND -i 12345678 /dev/hda2 > /dev/null; fsck.vfat -n /dev/hda2 | tail -1
        for d in /dev/hda1 /dev/hda2; do blkid -p -o value -s TYPE -s LABEL $d; done; blkid -p -o value -s PTTYPE /dev/hda
        tune2fs -L changed /dev/hda1 > log; e2label /dev/hda1; resize2fs /dev/hda1 20M > log 2>&1 || cat log; e2fsck -fn /dev/hda1 > log 2>&1 || cat log
        debugfs -w -R 'write /etc/passwd copy' /dev/hda1 > log 2>&1; debugfs -R 'cat copy' /dev/hda1 2> log | cmp - /etc/passwd
        mkswap /dev/hda2 > log 2>&1 || cat log; blkid -p -o value -s TYPE /dev/hda2; wipefs -q -a /dev/hda2; wipefs /dev/hda2 | wc -l
        dd if=/dev/zero of=/dev/hda2 bs=1M 2>&1 | sed -n '1p; 3p'; fsck -n /dev/hda1 2> log | tail -1";
    let expected = "/dev/hda2: 1 files, 0/15819 clusters\nfirst\next4\nSECOND\nvfat\ndos\nchanged\nswap\n0\n\
        dd: error writing '/dev/hda2': No space left on device\n31+0 records out";
    let said = with_disk(r, script).line();
    let (most, last) = said.rsplit_once('\n').unwrap_or_default();
    assert_eq!(most, expected);
    assert!(last.starts_with("changed: clean") || last.contains("/dev/hda1: clean"), "{last}");
}

fn logical_partitions_and_guid_tables_are_read(r: &Runner) {
    let script = r"
        printf 'label: dos\nd1: size=10M\nd2: size=40M,type=5\nd5: size=5M\nd6: size=6M\nd7: size=7M\n' | sfdisk -q /dev/hda; ls /dev/hda* | tr '\n' ' '
        for n in 1 2 5 6 7; do blockdev --getsz /dev/hda$n; done | tr '\n' ' '; echo
        printf 'label: gpt\nsize=10M\nsize=20M\n' | sfdisk -q /dev/hda; ls /dev/hda* | tr '\n' ' '; blockdev --getsz /dev/hda2
        dd if=/dev/zero of=/dev/hda bs=512 seek=1 count=1 status=none conv=notrunc; blockdev --rereadpt /dev/hda; ls /dev/hda* | tr '\n' ' '
        dd if=/dev/zero of=/dev/hda bs=512 seek=131071 count=1 status=none; blockdev --rereadpt /dev/hda; ls /dev/hda*";
    let expected = "/dev/hda /dev/hda1 /dev/hda2 /dev/hda5 /dev/hda6 /dev/hda7 20480 2 10240 12288 14336 \n\
        /dev/hda /dev/hda1 /dev/hda2 40960\n/dev/hda /dev/hda1 /dev/hda2 /dev/hda";
    assert_eq!(with_disk(r, script).line(), expected);
}

fn partitions_come_and_go_one_by_one(r: &Runner) {
    let script = r"
        printf 'label: gpt\nsize=10M\nsize=20M\nsize=5M\n' | sfdisk -q /dev/hda; delpart /dev/hda 2; ls /dev/hda* | tr '\n' ' '
        addpart /dev/hda 2 100 50; blockdev --getsz /dev/hda2; delpart /dev/hda 9 2>&1 | sed 's/.*: //'
        exec 5< /dev/hda1; blockdev --rereadpt /dev/hda 2>&1 | sed 's/.*: //'; delpart /dev/hda 1 2>&1 | sed 's/.*: //'; exec 5<&-
        sfdisk -q --delete /dev/hda 2; ls /dev/hda*";
    let expected = "/dev/hda /dev/hda1 /dev/hda3 50\nNo such device or address\nDevice or resource busy\n\
        Device or resource busy\n/dev/hda\n/dev/hda1\n/dev/hda3";
    assert_eq!(with_disk(r, script).line(), expected);
}

fn a_disk_in_memory_is_made_with_options(r: &Runner) {
    let script = "
        vumount -t vudevramdisk none /dev/fd9; blockdev --getsize64 /dev/fd9; head -c 1000 /dev/fd9 | tr -d '\\0' | wc -c
        vumount -t vudevramdisk -o size=8M,mbr none /dev/rda; blockdev --getsize64 /dev/rda; sfdisk -d /dev/rda | grep ^label:; sfdisk -l /dev/rda | grep -c 'identifier: 0x'
        echo , | sfdisk -q /dev/rda; mkfs.ext2 -q /dev/rda1; e2fsck -fn /dev/rda1 > log 2>&1 && echo sound
        vumount -t vudevramdisk -o size=9X none /dev/rdb 2>&1 || true; vuumount /dev/rda; vumount -t vudevramdisk -o size=8M none /dev/rda; blkid -p /dev/rda || echo empty";
    let expected = "1474560\n0\n8388608\nlabel: dos\n1\nsound\n\
        vumount: vudev: option 'size=9X': not a size: a number, K, M, G or T\nempty";
    assert_eq!(r.bash(&format!("{BEFORE}{script}")).line(), expected);
}

fn a_disk_on_a_partition_has_partitions(r: &Runner) {
    let script = r"
        printf 'label: dos\n,2M\n,30M\n' | sfdisk -q /dev/hda; vumount -t vudevpartx /dev/hda2 /dev/inner; printf 'label: dos\n,5M\n,\n' | sfdisk -q /dev/inner
        ls /dev/inner*; mkfs.ext4 -q /dev/inner1; e2fsck -fn /dev/inner1 > log 2>&1 && echo sound; blkid -p -o value -s PTTYPE /dev/hda2
        fsck.ext4 -fn /dev/hda2 > log 2>&1 || echo none; sfdisk -q /dev/hda < /dev/null 2>&1 | grep -c 'in use' || true";
    let expected = "/dev/inner\n/dev/inner1\n/dev/inner2\nsound\ndos\nnone\n1";
    assert_eq!(with_disk(r, script).line(), expected);
}

fn a_read_only_disk_refuses_writes(r: &Runner) {
    let script = r"
        printf 'label: dos\n,2M\n' | sfdisk -q /dev/hda; vuumount /dev/hda; cksum disk > before; vumount -t vudevpartx -o ro disk /dev/hda; blockdev --getro /dev/hda /dev/hda1
        (echo x > /dev/hda1) 2>&1 | sed 's/.*: //'; mkfs.ext4 -q /dev/hda1 > log 2>&1 || echo refused; blockdev --setrw /dev/hda 2>&1 | sed 's/.*: //'
        vumount -t vudevpartx -o ro disk /dev/hdb && cksum disk | diff before - && vuumount /dev/hda && vuumount /dev/hdb
        vumount -t vudevpartx disk /dev/hda; blockdev --setro /dev/hda; (echo x > /dev/hda) 2>&1 | sed 's/.*: //'; blockdev --setrw /dev/hda; echo x > /dev/hda; head -c 1 disk";
    let expected = "1\n1\nOperation not permitted\nrefused\nPermission denied\nOperation not permitted\nx";
    assert_eq!(with_disk(r, script).line(), expected);
}

fn nodes_have_owners_modes_and_numbers(r: &Runner) {
    let script = r"
        stat -c '%u:%g %a' /dev/hda; chown 5:6 /dev/hda; chmod 600 /dev/hda; stat -c '%u:%g %a' /dev/hda
        vumount -t vudevramdisk -o mode=644,uid=7,gid=8,major=99,minor=12,mbr none /dev/rd; echo , | sfdisk -q /dev/rd; stat -c '%u:%g %a %t:%T' /dev/rd /dev/rd1
        setpriv --reuid=1 --regid=1 --clear-groups sh -c 'head -c 1 /dev/rd | wc -c; (echo > /dev/rd) 2>&1 | sed s/.*:.//; (cat /dev/hda) 2>&1 | sed s/.*:.//'
        grep /dev/rd /proc/mounts";
    let expected = "0:0 660\n5:6 600\n7:8 644 63:c\n7:8 644 63:d\n1\nPermission denied\nPermission denied\n\
        none /dev/rd vudevramdisk rw,relatime,mode=644,uid=7,gid=8,major=99,minor=12,mbr 0 0";
    assert_eq!(with_disk(r, script).line(), expected);
}

fn lists_of_devices_show_disks(r: &Runner) {
    let script = r"
        printf 'label: dos\n,32M\n,\n' | sfdisk -q /dev/hda; grep hda /proc/partitions; ls /sys/block | grep hda; ls /sys/class/block | grep hda; ls /sys/dev/block | grep ^3:
        cd /sys/block/hda; cat dev size ro removable hda2/partition hda2/start hda2/size hda1/dev queue/logical_block_size; readlink hda1/subsystem; ls -d hda*; ls holders | wc -l
        cat /sys/class/block/hda1/uevent; /bin/pwd; cd hda1; /bin/pwd; cd -P ../..; /bin/pwd; cd -P ..; ls; cd -P ..; /bin/pwd; ls | grep umvu; realpath /sys/dev/block/3:2
        (echo x > /sys/block/hda/ro) 2>&1 | sed 's/.*: //'; mkdir /sys/block/hda/x 2>&1 | sed 's/.*: //'; rm -f /sys/block/hda/dev 2>&1 | sed 's/.*: //'
        resizepart /dev/hda 2 100; blockdev --getsz /dev/hda2; lsblk -n -r -o NAME,SIZE,TYPE,RO,MAJ:MIN /dev/hda; sfdisk -l -q /dev/hda | wc -l
        cd /; vuumount /dev/hda; grep -c hda /proc/partitions; ls -d /sys/block/hda 2>&1 | sed 's/.*: //'";
    let expected = "   3        0      65536 hda\n   3        1      32768 hda1\n   3        2      31744 hda2\nhda\nhda\nhda1\nhda2\n3:0\n3:1\n3:2\n\
        3:0\n131072\n0\n0\n2\n67584\n63488\n3:1\n512\n../../../../../class/block\nhda1\nhda2\n0\n\
        MAJOR=3\nMINOR=1\nDEVNAME=hda1\nDEVTYPE=partition\nPARTN=1\n/sys/devices/umvu-hda/block/hda\n/sys/devices/umvu-hda/block/hda/hda1\n\
        /sys/devices/umvu-hda/block\nblock\n/sys/devices\numvu-hda\n/sys/devices/umvu-hda/block/hda/hda2\n\
        Permission denied\nPermission denied\nPermission denied\n\
        100\nhda 64M disk 0 3:0\nhda1 32M part 0 3:1\nhda2 50K part 0 3:2\n3\n0\nNo such file or directory";
    assert_eq!(with_disk(r, script).line(), expected);
}

fn lsblk_tells_what_is_on_a_disk(r: &Runner) {
    let script = r"
        printf 'label: gpt\nsize=32M,name=first\nsize=+\n' | sfdisk -q /dev/hda; mkfs.ext4 -q -L one -U 11111111-2222-3333-4444-555555555555 /dev/hda1; mkfs.vfat -n TWO -i 12345678 /dev/hda2 > log
        lsblk -n -r -o NAME,FSTYPE,LABEL,UUID,PARTLABEL,PTTYPE /dev/hda | sed 's/ *$//'; blkid -o device | grep hda; blkid -L one; findfs UUID=1234-5678";
    let expected = "hda     gpt\nhda1 ext4 one 11111111-2222-3333-4444-555555555555 first\nhda2 vfat TWO 1234-5678\n\
        /dev/hda1\n/dev/hda2\n/dev/hda1\n/dev/hda2";
    assert_eq!(with_disk(r, script).line(), expected);
}

fn a_node_made_by_number_is_the_device(r: &Runner) {
    let script = r"
        printf 'label: dos\n,32M\n' | sfdisk -q /dev/hda; mknod node b 3 1; mknod other b 3 9; blockdev --getsz node; echo text > node; head -c 5 /dev/hda1
        (cat other) 2>&1 | sed 's/.*: //'; exec 5< node; vuumount /dev/hda 2>&1; exec 5<&-; vuumount /dev/hda; (cat node) 2>&1 | sed 's/.*: //'";
    let expected = "65536\ntext\nNo such device or address\nvuumount: /dev/hda: busy: a process uses it\nNo such device or address";
    assert_eq!(with_disk(r, script).line(), expected);
}

fn loop_devices_are_made_of_files(r: &Runner) {
    let script = r"
        mkdir dev; truncate -s 10M img; stat -c %t:%T /dev/loop-control; d=$(losetup -f --show img); test -b $d && blockdev --getsize64 $d; losetup -n -O BACK-FILE $d | sed s,.*/,,
        mkfs.ext4 -q $d; e2fsck -fn img > log 2>&1 && echo sound; losetup -j img | sed 's/: .*/:/' | grep -c ^$d:; vuumount /dev/loop-control 2>&1
        losetup -d $d; losetup $d > log 2>&1 || echo unbound; blockdev --getsize64 $d
        e=$(losetup -f --show -r -o 1M --sizelimit 2M img); test $e = $d && blockdev --getsize64 $e; blockdev --getro $e; cmp -i 1048576:0 -n 2097152 img $e && echo same; losetup -d $e
        printf 'label: dos\n,1M\n,2M\n' | sfdisk -q img; d=$(losetup -P -f --show img); ls ${d}p* | sed s,.*p,p,; blockdev --getsz ${d}p2; exec 5< ${d}p1; losetup -d $d; losetup -n -O AUTOCLEAR $d | tr -d ' '; exec 5<&-
        losetup $d > log 2>&1 || echo unbound; losetup -f --show nothing 2>&1 | sed 's/.*: //'; vuumount /dev/loop-control && echo done";
    let expected =
        "a:ed\n10485760\nimg\nsound\n1\nvuumount: /dev/loop-control: busy: something that is mounted uses it\n\
        unbound\n0\n2097152\n1\nsame\np1\np2\n4096\n1\nunbound\nNo such file or directory\ndone";
    assert_eq!(r.bash(&format!("{BEFORE}{script}")).line(), expected);
}

/// Makes a partition with a file system on `/dev/hda`, and tells the sums of it and of the whole disk.
const FILLED: &str = r"
    fill() {
        printf 'label: dos\n,32M\n' | sfdisk -q /dev/hda; mkfs.ext4 -q /dev/hda1; e2fsck -fn /dev/hda1 > log 2>&1 && echo sound
        head -c 3000000 /dev/urandom > random; dd if=random of=/dev/hda bs=4096 seek=10000 status=none conv=notrunc; dd if=/dev/hda bs=4096 skip=10000 status=none | head -c 3000000 | cmp - random
        dd if=/dev/hda of=seen bs=1M status=none; vuumount /dev/hda
    }";

fn an_image_of_virtualbox_is_a_disk(r: &Runner) {
    let script = r"
        for how in off static=on; do
            qemu-img create -q -f vdi $([ $how = off ] || echo -o $how) disk.vdi 64M; vumount -t vudevvdi disk.vdi /dev/hda; blockdev --getsize64 /dev/hda; fill
            qemu-img check -q -f vdi disk.vdi && qemu-img compare -q -F vdi -f raw seen disk.vdi && echo same
            vumount -t vudevvdi -o ro disk.vdi /dev/hda; cmp /dev/hda seen && echo again; e2fsck -fn /dev/hda1 > log 2>&1 && echo sound; vuumount /dev/hda
        done
        truncate -s 3000 text; vumount -t vudevvdi text /dev/hda 2>&1; vumount -t vudevvdi . /dev/hda 2>&1; true";
    let once = "67108864\nsound\nsame\nagain\nsound\n";
    let expected = format!("{once}{once}vumount: text: not a VDI image\nvumount: .: not a file");
    assert_eq!(r.bash(&format!("{BEFORE}{FILLED}\n{script}")).line(), expected);
}

fn an_image_of_vmware_is_a_disk(r: &Runner) {
    let script = r"
        qemu-img create -q -f vmdk disk.vmdk 64M; vumount -t vudevvmdk disk.vmdk /dev/hda; blockdev --getsize64 /dev/hda; fill; qemu-img check -q -f vmdk disk.vmdk && qemu-img compare -q -F vmdk -f raw seen disk.vmdk && echo same
        qemu-img convert -f vmdk -O vmdk -o subformat=streamOptimized disk.vmdk small.vmdk; vumount -t vudevvmdk small.vmdk /dev/hda 2>&1; vumount -t vudevvmdk -o ro small.vmdk /dev/hda; cmp /dev/hda seen && echo again; vuumount /dev/hda
        qemu-img create -q -f vmdk -o subformat=twoGbMaxExtentSparse many.vmdk 64M; vumount -t vudevvmdk many.vmdk /dev/hda 2>&1; qemu-img create -q -f vmdk -b disk.vmdk -F vmdk top.vmdk; vumount -t vudevvmdk top.vmdk /dev/hda 2>&1; true";
    let expected = "67108864\nsound\nsame\nvumount: small.vmdk: writing to a compressed image is not supported\nagain\n\
        vumount: many.vmdk: an image in several files is not supported\nvumount: top.vmdk: an image that is the difference to another is not supported";
    assert_eq!(r.bash(&format!("{BEFORE}{FILLED}\n{script}")).line(), expected);
}

fn an_image_of_hyper_v_is_read(r: &Runner) {
    let script = r"
        head -c 3000000 /dev/urandom > raw; truncate -s 40M raw; printf end >> raw; truncate -s 41M raw
        for how in dynamic fixed; do
            qemu-img convert -f raw -O vhdx -o subformat=$how raw disk.vhdx; vumount -t vudevvhdx disk.vhdx /dev/hda; cmp raw /dev/hda && echo same; blockdev --getro /dev/hda; vuumount /dev/hda
        done
        vumount -t vudevvhdx raw /dev/hda 2>&1; true";
    let expected = "same\n1\nsame\n1\nvumount: raw: not a VHDX image";
    assert_eq!(r.bash(&format!("{BEFORE}{script}")).line(), expected);
}

fn an_image_of_qemu_is_a_disk(r: &Runner) {
    let script = r"
        for how in compat=1.1 compat=0.10 cluster_size=4k,refcount_bits=8 preallocation=metadata lazy_refcounts=on; do
            qemu-img create -q -f qcow2 -o $how disk.qcow2 64M; vumount -t vudevqcow2 disk.qcow2 /dev/hda; fill
            qemu-img check -q disk.qcow2 && qemu-img compare -q -f raw -F qcow2 seen disk.qcow2 && echo same
        done
        qemu-img snapshot -c before disk.qcow2; vumount -t vudevqcow2 disk.qcow2 /dev/hda; echo changed > /dev/hda1; blkdiscard -o 10M -l 8M /dev/hda; blkdiscard -z -o 20M -l 8M /dev/hda
        dd if=/dev/hda bs=1M skip=20 count=8 status=none | tr -d '\0' | wc -c; vuumount /dev/hda; qemu-img check -q disk.qcow2 && echo sound
        qemu-img snapshot -a before disk.qcow2; qemu-img compare -q -f raw -F qcow2 seen disk.qcow2 && echo restored
        qemu-img convert -c -O qcow2 disk.qcow2 small.qcow2; vumount -t vudevqcow2 small.qcow2 /dev/hda; cmp seen /dev/hda && echo same; echo changed > /dev/hda; head -c 8 /dev/hda; vuumount /dev/hda; qemu-img check -q small.qcow2 && echo sound";
    let expected = format!("{}0\nsound\nrestored\nsame\nchanged\nsound", "sound\nsame\n".repeat(5));
    assert_eq!(r.bash(&format!("{BEFORE}{FILLED}\n{script}")).line(), expected);
}

fn an_image_stands_on_another(r: &Runner) {
    let script = r"
        mkdir d; head -c 1M /dev/urandom > d/base.raw; truncate -s 8M d/base.raw; qemu-img create -q -f qcow2 -b base.raw -F raw d/middle.qcow2; qemu-img create -q -f qcow2 -b $PWD/d/middle.qcow2 -F qcow2 top.qcow2 16M
        vumount -t vudevqcow2 top.qcow2 /dev/hda; cmp -n 8388608 /dev/hda d/base.raw && echo same; dd if=/dev/hda bs=1M skip=8 status=none | tr -d '\0' | wc -c
        cksum d/* > before; echo over > /dev/hda; head -c 8 /dev/hda | tail -c 3 | cmp - <(head -c 8 d/base.raw | tail -c 3); vuumount /dev/hda; cksum d/* | diff before - && qemu-img check -q top.qcow2 && echo sound
        qemu-img convert -O raw top.qcow2 all; head -c 5 all; vumount -t vudevqcow2 top.qcow2 /dev/hda; cmp all /dev/hda && echo same; vumount -t vudevqcow2 d/middle.qcow2 /dev/hdb 2>&1; vuumount /dev/hda
        mv d/base.raw d/other; vumount -t vudevqcow2 top.qcow2 /dev/hda 2>&1 | sed s,$PWD/,,; cp d/middle.qcow2 d/base.raw; qemu-img rebase -u -b middle.qcow2 -F qcow2 d/middle.qcow2; vumount -t vudevqcow2 d/middle.qcow2 /dev/hda 2>&1 | tail -c 60";
    let expected =
        "same\n0\nsound\nover\nsame\nvumount: d/middle.qcow2: busy: in use by another device or file system\n\
        vumount: top.qcow2: backing file 'd/middle.qcow2': backing file 'base.raw': no such file or directory\n\
        ";
    let said = r.bash(&format!("{BEFORE}{script}")).line();
    let (most, last) = said.rsplit_once('\n').unwrap_or_default();
    assert_eq!(format!("{most}\n"), expected);
    assert!(last.ends_with("busy") || last.contains("stands on itself") || last.contains("busy"), "{last}");
}

fn images_that_are_damaged_are_named(r: &Runner) {
    let script = r"
        try() { vumount -t vudevqcow2 -o ${2-rw} $1 /dev/hda 2>&1 && vuumount /dev/hda; }
        new() { qemu-img create -q -f qcow2 ${2-} $1 8M; }
        printf text > text; try text; new a; truncate -s 100 a; try a; new b; printf '\377\377' | dd of=b bs=1 seek=36 conv=notrunc status=none; try b
        new c '-o data_file=c.data,data_file_raw=on'; try c; new d '-o compression_type=zstd'; try d; new e '-o extended_l2=on'; try e
        new f; printf '\001' | dd of=f bs=1 seek=79 conv=notrunc status=none; try f; new g; chmod 400 g; test $(id -u) = 0 || try g; try g ro && echo read";
    let expected = "vumount: text: not a qcow2 image\nvumount: a: a damaged image: first table\nvumount: b: a damaged image: first table\n\
        vumount: c: an external data file is not supported\nvumount: d: compression by zstd is not supported\n\
        vumount: e: extended L2 entries is not supported\n\
        vumount: f: a damaged image: not closed when it was last written ('qemu-img check -r all' repairs it)\n\
        vumount: g: cannot be written: permission denied: use option 'ro'\nread";
    assert_eq!(r.bash(&format!("{BEFORE}{script}")).line(), expected);
}

fn a_file_system_on_a_partition_is_mounted(r: &Runner) {
    let script = r"
        vu_insmod vufuse; mkdir m; qemu-img create -q -f qcow2 disk.qcow2 64M; vumount -t vudevqcow2 disk.qcow2 /dev/vdz; printf 'label: dos\n,32M\n,\n' | sfdisk -q /dev/vdz
        mkfs.ext4 -q /dev/vdz1; mkfs.vfat /dev/vdz2 > log; mount -t ext4 /dev/vdz1 m && echo text > m/file; cat m/file
        vuumount /dev/vdz 2>&1; mkfs.ext4 -q /dev/vdz1 2>&1 | grep -c 'is mounted\|in use\|busy'; mount -t ext4 /dev/vdz1 m 2> log || echo refused; blockdev --rereadpt /dev/vdz 2>&1 | sed 's/.*: //'
        umount m; e2fsck -fn /dev/vdz1 > log 2>&1 && echo sound; debugfs -R 'cat file' /dev/vdz1 2> log; mount -t vfat /dev/vdz2 m && cp /etc/passwd m/ && umount m; fsck.vfat -n /dev/vdz2 | tail -1 | cut -d: -f2 | cut -d, -f1
        vuumount /dev/vdz && qemu-img check -q disk.qcow2 && echo closed";
    let expected = "text\nvuumount: /dev/vdz: busy: something that is mounted uses it\n1\nrefused\nDevice or resource busy\nsound\ntext\n 1 files\nclosed";
    assert_eq!(r.bash(&format!("{BEFORE}{script}")).line(), expected);
}

fn mount_makes_a_loop_device(r: &Runner) {
    let script = r"
        vu_insmod vufuse; mkdir m; truncate -s 16M img; mkfs.ext4 -q img
        mount -o loop -t ext4 img m && echo text > m/file; losetup -n -O AUTOCLEAR,BACK-FILE | grep '/img *$' | sed 's, *\(.\).*/,\1 ,'; grep -c '^/dev/loop.* ext4' /proc/mounts
        umount m; losetup -n -O BACK-FILE | grep -c '/img *$'; e2fsck -fn img > log 2>&1 && echo sound; debugfs -R 'cat file' img 2> log
        mount img m && cat m/file; umount m";
    assert_eq!(r.bash(&format!("{BEFORE}{script}")).line(), "1 img\n1\n0\nsound\ntext\ntext");
}
