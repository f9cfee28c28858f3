//! Programs that the kernel would not find by itself: in a layer of a union, in a tree entered by chroot. Natively the
//! same programs run from the same paths, so each fact is the kernel's first.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;

use rustix::io::Errno;
use umvu_tests::{behaviours, program, works, Runner};

behaviours! {
    in_guest at ANYONE {
        broken_programs_fail_as_the_kernel_has_it,
        a_broken_interpreter_fails_as_the_kernel_has_it,
        what_the_kernel_finds_too_late_ends_the_process,
        a_program_open_for_writing_is_etxtbsy,
        a_program_runs_after_it_was_removed,
        each_name_of_a_program_is_told,
        arguments_of_two_mebibytes_arrive,
        bad_arguments_are_told_before_a_bad_program,
    }
    from_outside at ANYONE {
        every_kind_of_program_is_told_the_truth,
        every_kind_of_musl_program_is_told_the_truth,
        the_interpreter_of_a_script_is_told_the_truth,
        programs_execute_each_other_in_every_form,
        addresses_are_random_unless_that_is_switched_off,
        the_program_is_a_debuggers,
        a_traced_program_is_told_the_truth,
        a_traced_script_gets_its_arguments,
        a_thread_can_execute_a_copy,
        a_program_with_few_descriptors_left_runs,
    }
    from_outside at MOUNTING {
        a_tree_brings_its_own_libc,
        a_tree_without_an_interpreter_is_enoent,
        a_script_in_a_tree_finds_its_interpreter_there,
        a_tree_in_a_tree_is_entered,
        proc_tells_the_truth_in_a_tree,
        strace_works_in_a_tree,
        a_debugger_starts_programs_of_a_tree,
    }
    from_outside at ROOT {
        a_failed_execve_keeps_the_identity,
        a_set_id_program_takes_its_owner,
    }
}

const KINDS: [&str; 6] = ["pie", "fixed", "static", "static_pie", "executable_stack", "large_pages"];

const TRUTH: &str = "told the truth";

fn every_kind_of_program_is_told_the_truth(r: &Runner) {
    for kind in KINDS {
        let from = program(&format!("told_{kind}"));
        let script = format!(
            "cp {} program-with-a-long-name; ./program-with-a-long-name \"$PWD\"/program-with-a-long-name",
            from.display()
        );
        assert_eq!(r.bash(&script).line(), TRUTH, "{kind}");
    }
}

fn every_kind_of_musl_program_is_told_the_truth(r: &Runner) {
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/programs");
    for kind in KINDS {
        let script = format!(
            "flags=$(sed -n 's|^// flags: ||p' {sources}/told_{kind}.c)
            musl-gcc -O1 -D_GNU_SOURCE -o m {sources}/told_{kind}.c $flags && ./m \"$PWD/m\" ./m \"an argument\""
        );
        assert_eq!(r.bash(&script).line(), TRUTH, "{kind}");
    }
}

fn the_interpreter_of_a_script_is_told_the_truth(r: &Runner) {
    let from = program("told_pie");
    // The name of the process and AT_EXECFN are the script's, and the script comes behind the one argument. Of the first
    // line the kernel reads 256 bytes (linux/binfmts.h, BINPRM_BUF_SIZE): two long paths would not fit.
    let script = format!(
        "cp {} interpreter; echo \"#!./interpreter $PWD/interpreter\" > script; chmod +x script; ./script",
        from.display()
    );
    assert_eq!(r.bash(&script).line(), TRUTH);
}

fn programs_execute_each_other_in_every_form(r: &Runner) {
    let forms = program("exec_forms");
    works(fs::copy(&forms, r.dir().join("forms")).map(drop));
    for form in ["execve", "execveat", "fexecve", "at-empty-path", "script-by-fd", "memfd", "vfork", "posix_spawn"] {
        assert_eq!(r.bash(&format!("cp forms copy; ./copy {form}")).line(), "argument from the form", "{form}");
    }
    assert_eq!(r.bash("cp forms copy; ./copy errors").line(), "refused as they should be");
}

fn addresses_are_random_unless_that_is_switched_off(r: &Runner) {
    let script = "cp /bin/cat cat; look() { \"$@\" ./cat /proc/self/maps | sed -n '1s/-.*//p;/heap/s/-.*//p'; }
        a=$(look env); b=$(look env); c=$(look setarch -R); d=$(look setarch -R)
        [ \"$a\" != \"$b\" ] && [ \"$c\" = \"$d\" ] && echo \"$c\" | head -1";
    assert_eq!(r.bash(script).line(), "555555554000");
}

fn the_program_is_a_debuggers(r: &Runner) {
    let script =
        "echo 'int twice(int x) { return 2 * x; } int main(int c, char **v) { (void)v; return twice(c); }' > p.c
        cc -g -O0 -o p p.c
        gdb -nx -batch -ex 'break twice' -ex run -ex 'print x' -ex finish \
            -ex 'info proc exe' -ex continue --args ./p one two 2>&1 |
            grep -E '^(\\$1|Value|exe|\\[Inferior)' | sed -e \"s|$PWD|.|\" -e 's/process [0-9]*/process/'";
    let told = r.bash(script).line();
    assert_eq!(told, "$1 = 3\nValue returned is $2 = 6\nexe = './p'\n[Inferior 1 (process) exited with code 06]");
}

fn a_traced_program_is_told_the_truth(r: &Runner) {
    // The path and the first argument of the program are one string in what env gives to execve, and too short for
    // any other path.
    let script = "cp /bin/bash shell; cp /bin/cat cat
        strace -f -o log env ./shell -c 'echo $0 $1; readlink /proc/$$/exe; read name < /proc/$$/comm; ./cat /dev/null; echo $name' zero one |
            sed \"s|$PWD|.|\"";
    assert_eq!(r.bash(script).line(), "zero one\n./shell\nshell");
}

fn a_traced_script_gets_its_arguments(r: &Runner) {
    let script = "cp /bin/bash shell; echo '#!./shell -e' > s; echo 'echo $0 \"$@\"' >> s; chmod +x s
        strace -f -o log env NAME=value ./s one \"two three\"";
    assert_eq!(r.bash(script).line(), "./s one two three");
}

fn a_thread_can_execute_a_copy(r: &Runner) {
    let script = format!("cp {} thread_exec; ./thread_exec", program("thread_exec").display());
    assert_eq!(r.bash(&script).line(), "one thread, same pid");
}

fn a_program_with_few_descriptors_left_runs(r: &Runner) {
    let script = format!("cp {} hello; ulimit -Sn 3; exec ./hello", program("static_hello").display());
    assert_eq!(r.bash(&script).line(), "hello from a static program");
}

/// A tree with a shell, some programs and their libraries; `\$tree` in scripts.
const TREE: &str = r#"
    tree=$PWD/tree; mkdir -p $tree/bin $tree/proc $tree/lib64
    for p in sh cat readlink echo env true; do
        cp $(type -P $p) $tree/bin
        for l in $(ldd $(type -P $p) | grep -o '/[^ ]*'); do mkdir -p $tree$(dirname $l); cp -Ln $l $tree$l; done
    done
"#;

fn in_tree(r: &Runner, script: &str) -> String {
    r.bash(&format!("{TREE}\n{script}")).line()
}

fn a_tree_brings_its_own_libc(r: &Runner) {
    // Neither the interpreter nor the libraries of the tree are the host's files; musl is not the host's libc either.
    let script = "cp -L /lib/ld-musl-x86_64.so.1 $tree/lib
        echo '#include <stdio.h>
            int main(int c, char **v) { (void)c; printf(\"%s by musl\\n\", v[0]); return 0; }' > m.c
        musl-gcc -o $tree/bin/m m.c; musl-gcc -static -o $tree/bin/s m.c
        chroot $tree /bin/sh -c 'echo by glibc; m; s; cd /; cd ..; echo $PWD bin/m*'; cat $tree/bin/../../m.c | wc -l";
    assert_eq!(in_tree(r, script), "by glibc\nm by musl\ns by musl\n/ bin/m\n2");
}

fn a_tree_without_an_interpreter_is_enoent(r: &Runner) {
    let script = "rm -r $tree/lib64; chroot $tree /bin/true 2>/dev/null || echo $?";
    assert_eq!(in_tree(r, script), "127");
}

fn a_script_in_a_tree_finds_its_interpreter_there(r: &Runner) {
    let script = "printf '#!/bin/sh\\necho $0 $1\\n' > $tree/script; printf '#!/usr/bin/perl\\n' > $tree/perl
        chmod +x $tree/script $tree/perl; chroot $tree /script one; chroot $tree /perl 2>/dev/null || echo $?";
    assert_eq!(in_tree(r, script), "/script one\n127");
}

fn a_tree_in_a_tree_is_entered(r: &Runner) {
    let script = "cp $(command -v chroot) $tree/bin; mkdir $tree/inner
        for l in $(ldd $(command -v chroot) | grep -o '/[^ ]*'); do mkdir -p $tree$(dirname $l); cp -Ln $l $tree$l; done
        cp -r $tree/bin $tree/lib* $tree/inner; echo inner > $tree/inner/name; echo outer > $tree/name
        chroot $tree /bin/chroot /inner /bin/sh -c 'cat /name; cat /../name; echo /*'";
    assert_eq!(in_tree(r, script), "inner\ninner\n/bin /lib /lib64 /name");
}

fn proc_tells_the_truth_in_a_tree(r: &Runner) {
    let from = program("told_pie");
    let script = format!(
        "mount --rbind /proc $tree/proc; cp {} $tree/bin/told
        chroot $tree /bin/sh -c 'readlink /proc/self/exe /proc/self/root /proc/self/cwd; told /bin/told /bin/told'",
        from.display()
    );
    assert_eq!(in_tree(r, &script), format!("/bin/readlink\n/\n/\n{TRUTH}"));
}

fn strace_works_in_a_tree(r: &Runner) {
    let script = "printf '#!/bin/sh\\necho $0 $1; env echo done\\n' > $tree/s; chmod +x $tree/s
        strace -f -o log chroot $tree /s one; grep -c 'exited with 0' log";
    assert_eq!(in_tree(r, script), "/s one\ndone\n2");
}

fn a_debugger_starts_programs_of_a_tree(r: &Runner) {
    // Of the libc of the tree and of another one, linked in every way: a breakpoint is hit, the stack is walked, and the
    // program ends as it does without the debugger.
    let script = r#"cp -L /lib/ld-musl-x86_64.so.1 $tree/lib
        echo '#include <stdio.h>
            int twice(int x) { return 2 * x; }
            int main(int c, char **v) { printf("%s\n", v[1]); return twice(c); }' > p.c
        cc -g -o $tree/bin/glibc p.c; musl-gcc -g -o $tree/bin/musl p.c; musl-gcc -g -static -o $tree/bin/static p.c
        for p in glibc musl static; do
            gdb -nx -batch -ex 'set debuginfod enabled off' -ex 'set breakpoint pending on' \
                -ex 'break twice' -ex run -ex 'print x' -ex bt -ex continue --args chroot $tree /bin/$p one 2>&1 |
                grep -E '^(one|\$1|#[0-9]|\[Inferior)' | sed -e 's/0x[0-9a-f]* in //' -e 's/process [0-9]*/process/' |
                sort | tr '\n' ';'; echo
        done"#;
    let told = "#0  twice (x=2) at p.c:2;#1  main (c=2, v=VECTOR) at p.c:3;$1 = 2;[Inferior 1 (process) exited with code 04];one;";
    let lines: Vec<String> = in_tree(r, script).lines().map(without_vector).collect();
    assert_eq!(lines, [told; 3]);
}

/// Replaces the address of the arguments by a word.
fn without_vector(line: &str) -> String {
    match line.split_once("v=0x") {
        Some((front, behind)) => {
            format!("{front}v=VECTOR{}", behind.trim_start_matches(|c: char| c.is_ascii_hexdigit()))
        }
        None => line.to_owned(),
    }
}

fn a_failed_execve_keeps_the_identity(r: &Runner) {
    // The headers of the copy are fine, and its interpreter is none; it would make whoever executes it root.
    let script = "cp /bin/true p; sed -i 's|/lib64/ld-linux-x86-64.so.2|/etc/passwd\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00|' p
        chmod 4755 p; chmod 777 .
        setpriv --reuid=12 --clear-groups bash -c './p 2>/dev/null || echo $?; id -u'";
    assert_eq!(r.bash(script).line(), "126\n12");
}

fn a_set_id_program_takes_its_owner(r: &Runner) {
    let script = "echo '#include <stdio.h>
            #include <sys/auxv.h>
            #include <unistd.h>
            int main(void) { printf(\"%d %d %lu %lu %lu\\n\", getuid(), geteuid(), getauxval(AT_UID), getauxval(AT_EUID),
                getauxval(AT_SECURE)); return 0; }' > p.c
        cc -o p p.c; chmod 4755 p; chmod 777 .; setpriv --reuid=12 --clear-groups ./p";
    assert_eq!(r.bash(script).line(), "12 0 12 0 1");
}

/// Writes an executable file.
fn executable(path: &str, bytes: &[u8]) {
    let _ = fs::remove_file(path);
    works(fs::write(path, bytes));
    works(fs::set_permissions(path, fs::Permissions::from_mode(0o755)));
}

/// How a file is executed: `Ok` with its end, if it could be.
fn execute(path: &str) -> Result<std::process::ExitStatus, Errno> {
    let mut command = Command::new(path);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    // No core is written for what ends by a signal.
    command.status().map_err(|e| Errno::from_io_error(&e).expect("an errno"))
}

const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;

/// Offsets in a 64-bit ELF header, and in a program header.
mod at {
    pub const TYPE: usize = 16;
    pub const MACHINE: usize = 18;
    pub const ENTRY: usize = 24;
    pub const HEADERS: usize = 32;
    pub const HEADER_SIZE: usize = 54;
    pub const HEADER_COUNT: usize = 56;
    pub const P_OFFSET: usize = 8;
    pub const P_ADDRESS: usize = 16;
    pub const P_FILE_SIZE: usize = 32;
    pub const P_MEMORY_SIZE: usize = 40;
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

fn word(image: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(image[at..at + 8].try_into().expect("eight bytes"))
}

/// Where the first program header of a kind is.
fn header(image: &[u8], kind: u32) -> usize {
    let count = usize::from(u16::from_ne_bytes([image[at::HEADER_COUNT], image[at::HEADER_COUNT + 1]]));
    let table = usize::try_from(word(image, at::HEADERS)).expect("an offset");
    let mut all = (0..count).map(|i| table + 56 * i);
    all.find(|h| image[*h..*h + 4] == kind.to_ne_bytes()).expect("such a header")
}

/// A dynamic program, changed.
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut image = works(fs::read("/bin/true"));
    change(&mut image);
    image
}

fn broken_programs_fail_as_the_kernel_has_it() {
    let huge = u64::MAX / 2;
    let is_broken = |what: &str, change: &dyn Fn(&mut Vec<u8>), errno: Errno| {
        executable("p", &changed(|image| change(image)));
        assert_eq!(execute("./p").err(), Some(errno), "{what}");
    };
    is_broken("the file ends in the header", &|i| i.truncate(40), Errno::NOEXEC);
    is_broken("the file ends before the program headers", &|i| i.truncate(64), Errno::NOEXEC);
    is_broken("machine", &|i| put(i, at::MACHINE, &[83, 0]), Errno::NOEXEC);
    is_broken("type", &|i| put(i, at::TYPE, &[1, 0]), Errno::NOEXEC);
    is_broken("size of a program header", &|i| put(i, at::HEADER_SIZE, &[55, 0]), Errno::NOEXEC);
    is_broken("no program headers", &|i| put(i, at::HEADER_COUNT, &[0, 0]), Errno::NOEXEC);
    is_broken("too many program headers", &|i| put(i, at::HEADER_COUNT, &[255, 255]), Errno::NOEXEC);
    is_broken("wild program headers", &|i| put(i, at::HEADERS, &huge.to_ne_bytes()), Errno::NOEXEC);
    is_broken("program headers behind the end", &|i| put(i, at::HEADERS, &(1u64 << 40).to_ne_bytes()), Errno::NOEXEC);
    let interpreter = |field: usize, value: u64| {
        move |image: &mut Vec<u8>| {
            let at = header(image, PT_INTERP) + field;
            put(image, at, &value.to_ne_bytes());
        }
    };
    is_broken("no name of an interpreter", &interpreter(at::P_FILE_SIZE, 1), Errno::NOEXEC);
    is_broken("too long a name", &interpreter(at::P_FILE_SIZE, 4097), Errno::NOEXEC);
    is_broken("a name without an end", &interpreter(at::P_FILE_SIZE, 5), Errno::NOEXEC);
    is_broken("a name behind the end", &interpreter(at::P_OFFSET, 1 << 40), Errno::IO);
}

/// A program whose interpreter is at a short relative path.
fn interpreted_by(path: &str) -> Vec<u8> {
    changed(|image| {
        let header = header(image, PT_INTERP);
        let offset = usize::try_from(word(image, header + at::P_OFFSET)).expect("an offset");
        let name = [path.as_bytes(), &[0]].concat();
        put(image, offset, &name);
        put(image, header + at::P_FILE_SIZE, &(name.len() as u64).to_ne_bytes());
    })
}

fn a_broken_interpreter_fails_as_the_kernel_has_it() {
    executable("p", &interpreted_by("missing"));
    assert_eq!(execute("./p").err(), Some(Errno::NOENT));
    executable("p", &interpreted_by("."));
    assert_eq!(execute("./p").err(), Some(Errno::ACCESS));
    executable("p", &interpreted_by("p/x"));
    assert_eq!(execute("./p").err(), Some(Errno::NOTDIR));
    executable("p", &interpreted_by("i"));
    works(std::os::unix::fs::symlink("i", "i"));
    assert_eq!(execute("./p").err(), Some(Errno::LOOP));
    works(fs::remove_file("i"));
    executable("i", b"short");
    assert_eq!(execute("./p").err(), Some(Errno::IO));
    executable("i", &[b'x'; 100]);
    assert_eq!(execute("./p").err(), Some(Errno::LIBBAD));
    executable("i", &changed(|image| put(image, at::MACHINE, &[83, 0])));
    assert_eq!(execute("./p").err(), Some(Errno::LIBBAD));
    works(fs::set_permissions("i", fs::Permissions::from_mode(0o644)));
    assert_eq!(execute("./p").err(), Some(Errno::ACCESS));
    let loader = works(fs::canonicalize("/lib64/ld-linux-x86-64.so.2"));
    executable("i", &works(fs::read(loader)));
    assert_eq!(works(execute("./p")).code(), Some(0), "a copy of the right one");
}

fn what_the_kernel_finds_too_late_ends_the_process() {
    let ends = |what: &str, change: &dyn Fn(&mut Vec<u8>)| {
        executable("p", &changed(|image| change(image)));
        let status = works(execute("./p"));
        assert_eq!(status.signal(), Some(libc::SIGSEGV), "{what}: {status}");
    };
    let load = |field: usize, value: u64| {
        move |image: &mut Vec<u8>| {
            let at = header(image, PT_LOAD) + field;
            put(image, at, &value.to_ne_bytes());
        }
    };
    ends("more in the file than in memory", &load(at::P_FILE_SIZE, 1 << 30));
    ends("beyond the address space", &load(at::P_MEMORY_SIZE, 1 << 47));
    ends("wraps around", &load(at::P_MEMORY_SIZE, u64::MAX - 4096));
    ends("an address that is none", &load(at::P_ADDRESS, 1 << 63));
    ends("an offset that is no page's", &load(at::P_OFFSET, 8));
    ends("an entry that is none", &|image| {
        put(image, at::ENTRY, &0x10u64.to_ne_bytes());
        let interpreter = header(image, PT_INTERP);
        put(image, interpreter, &4u32.to_ne_bytes());
    });
}

fn a_program_open_for_writing_is_etxtbsy() {
    works(fs::copy("/bin/true", "p").map(drop));
    let writer = works(fs::File::options().write(true).open("p"));
    assert_eq!(execute("./p").err(), Some(Errno::TXTBSY));
    drop(writer);
    assert_eq!(works(execute("./p")).code(), Some(0));
}

fn a_program_runs_after_it_was_removed() {
    works(fs::copy("/bin/sleep", "p").map(drop));
    let mut running = works(Command::new("./p").arg("100").spawn());
    works(fs::remove_file("p"));
    let exe = works(fs::read_link(format!("/proc/{}/exe", running.id())));
    works(running.kill());
    works(running.wait());
    let here = works(std::env::current_dir());
    assert_eq!(exe, here.join("p (deleted)"));
}

fn each_name_of_a_program_is_told() {
    let told = |path: &str| {
        let output = works(Command::new(path).arg("/proc/self/exe").output());
        std::path::PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end())
    };
    let here = works(std::env::current_dir());
    works(fs::copy("/bin/readlink", "one").map(drop));
    assert_eq!(told("./one"), here.join("one"));
    works(fs::hard_link("one", "two"));
    assert_eq!(told("./two"), here.join("two"));
    assert_eq!(told("./one"), here.join("one"));
    works(fs::rename("one", "three"));
    assert_eq!(told("./three"), here.join("three"));
    works(fs::remove_file("three"));
    works(fs::remove_file("two"));
    works(fs::copy("/bin/readlink", "one").map(drop));
    assert_eq!(told("./one"), here.join("one"), "perhaps with the number of the old one");
}

fn arguments_of_two_mebibytes_arrive() {
    works(fs::copy("/bin/bash", "p").map(drop));
    let arguments = vec!["x".repeat(100_000); 19];
    let output = works(Command::new("./p").args(["-c", "echo $# ${#19}", "p"]).args(&arguments).output());
    assert_eq!(output.stdout, b"19 100000\n");
}

fn bad_arguments_are_told_before_a_bad_program() {
    executable("p", b"no format");
    let mut command = Command::new("./p");
    command.arg("x".repeat(131_072));
    assert_eq!(Errno::from_io_error(&command.exec()), Some(Errno::TOOBIG));
}
