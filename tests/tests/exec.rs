//! Starting programs: execve and its kin, interpreters, what a new program inherits and what it is told.

use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::Errno;
use umvu_tests::{behaviours, fails, program, works, Runner};

behaviours! {
    in_guest at EVERYWHERE {
        a_script_runs_by_its_interpreter,
        a_script_gets_one_argument_from_its_first_line,
        an_interpreter_may_be_a_script,
        five_interpreters_in_a_row_are_eloop,
        a_missing_interpreter_is_enoent,
        a_file_without_format_is_enoexec,
        an_empty_file_is_enoexec,
        a_file_without_execute_permission_is_eacces,
        a_directory_is_eacces,
        a_missing_program_is_enoent,
        a_file_on_the_way_is_enotdir,
        a_program_through_a_link_keeps_its_argument_zero,
        proc_self_exe_is_the_program,
        the_name_of_the_process_is_the_files,
        a_running_program_cannot_be_written,
        arguments_too_long_are_e2big,
        close_on_exec_closes_and_others_stay,
        a_copied_program_runs_from_where_it_is,
        an_unreadable_program_runs,
        a_renamed_program_runs_by_its_new_name,
        a_relative_interpreter_starts_at_the_working_directory,
    }
    from_outside at EVERYWHERE {
        every_form_of_exec_works,
        a_static_program_runs,
        a_position_dependent_program_runs,
        the_loader_can_be_called_by_name,
        preloaded_libraries_are_loaded,
        the_command_line_and_environment_are_shown_in_proc,
        exec_from_a_thread_ends_the_others,
        setuid_programs_run_without_their_privilege,
    }
}

fn script(path: &str, text: &str) {
    works(fs::write(path, text));
    works(fs::set_permissions(path, fs::Permissions::from_mode(0o755)));
}

fn run(path: &str, args: &[&str]) -> Result<String, Errno> {
    let output = Command::new(path).args(args).output().map_err(|e| Errno::from_io_error(&e).expect("an errno"))?;
    assert!(output.status.success(), "{path}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

fn a_script_runs_by_its_interpreter() {
    script("script", "#!/bin/sh\necho \"$0 $1 $#\"\n");
    assert_eq!(works(run("./script", &["one", "two"])), "./script one 2");
}

fn a_script_gets_one_argument_from_its_first_line() {
    script("script", "#! /bin/echo  one two \n");
    assert_eq!(works(run("./script", &["three"])), "one two ./script three");
}

fn an_interpreter_may_be_a_script() {
    script("outer", "#!/bin/sh\necho outer \"$@\"\n");
    let here = works(std::env::current_dir());
    script("inner", &format!("#!{}/outer arg\n", here.display()));
    if here.as_os_str().len() < 200 {
        let told = works(run("./inner", &["x"]));
        assert_eq!(told, "outer arg ./inner x");
    }
}

fn five_interpreters_in_a_row_are_eloop() {
    script("s0", "#!/bin/sh\necho end\n");
    for number in 1..=6 {
        script(&format!("s{number}"), &format!("#!./s{}\n", number - 1));
    }
    assert_eq!(works(run("./s4", &[])), "end");
    fails(Errno::LOOP, run("./s6", &[]));
}

fn a_missing_interpreter_is_enoent() {
    script("script", "#!/missing/interpreter\n");
    fails(Errno::NOENT, run("./script", &[]));
}

fn a_file_without_format_is_enoexec() {
    script("file", "echo no first line\n");
    fails(Errno::NOEXEC, run("./file", &[]));
    script("short", "#!\n");
    fails(Errno::NOEXEC, run("./short", &[]));
    script("elf", "\x7fELFthis is none");
    fails(Errno::NOEXEC, run("./elf", &[]));
}

fn an_empty_file_is_enoexec() {
    script("file", "");
    fails(Errno::NOEXEC, run("./file", &[]));
}

fn a_file_without_execute_permission_is_eacces() {
    works(fs::write("file", "#!/bin/sh\n"));
    fails(Errno::ACCESS, run("./file", &[]));
    works(fs::copy("/bin/true", "true"));
    works(fs::set_permissions("true", fs::Permissions::from_mode(0o644)));
    fails(Errno::ACCESS, run("./true", &[]));
    script("script", "#!./file\n");
    fails(Errno::ACCESS, run("./script", &[]));
}

fn a_directory_is_eacces() {
    works(fs::create_dir("dir"));
    fails(Errno::ACCESS, run("./dir", &[]));
}

fn a_missing_program_is_enoent() {
    fails(Errno::NOENT, run("./missing", &[]));
    works(symlink("missing", "dangling"));
    fails(Errno::NOENT, run("./dangling", &[]));
    works(symlink("self", "self"));
    fails(Errno::LOOP, run("./self", &[]));
}

fn a_file_on_the_way_is_enotdir() {
    script("file", "#!/bin/sh\n");
    fails(Errno::NOTDIR, run("./file/x", &[]));
}

fn a_program_through_a_link_keeps_its_argument_zero() {
    script("script", "#!/bin/sh\necho $0\n");
    works(symlink("script", "link"));
    assert_eq!(works(run("./link", &[])), "./link");
    let output = works(Command::new("sh").arg0("other").args(["-c", "echo $0"]).output());
    assert_eq!(output.stdout, b"other\n");
}

fn proc_self_exe_is_the_program() {
    let cat = works(fs::canonicalize("/bin/cat"));
    assert_eq!(
        works(run("/bin/readlink", &["/proc/self/exe"])),
        works(fs::canonicalize("/bin/readlink")).to_string_lossy()
    );
    works(fs::copy(cat, "copy"));
    works(fs::copy("/bin/readlink", "mine"));
    let here = works(std::env::current_dir());
    assert_eq!(works(run("./mine", &["/proc/self/exe"])), here.join("mine").to_string_lossy());
}

fn the_name_of_the_process_is_the_files() {
    assert_eq!(works(run("cat", &["/proc/self/comm"])), "cat");
    works(fs::copy("/bin/cat", "a-name-longer-than-fifteen"));
    assert_eq!(works(run("./a-name-longer-than-fifteen", &["/proc/self/comm"])), "a-name-longer-t");
    script("script", "#!/bin/sh\nread name < /proc/self/comm; echo $name\n");
    assert_eq!(works(run("./script", &[])), "script");
}

fn a_running_program_cannot_be_written() {
    works(fs::copy("/bin/sleep", "sleep"));
    let mut running = works(Command::new("./sleep").arg("1000").spawn());
    let wrote = fs::File::options().write(true).open("sleep");
    works(running.kill());
    works(running.wait());
    assert_eq!(wrote.err().and_then(|e| e.raw_os_error()), Some(libc::ETXTBSY));
    works(fs::File::options().write(true).open("sleep"));
}

fn arguments_too_long_are_e2big() {
    // One string is at most 32 pages.
    works(run("/bin/true", &[&"x".repeat(131_071)]));
    fails(Errno::TOOBIG, run("/bin/true", &[&"x".repeat(131_072)]));
    let many = vec!["x".repeat(100_000); 40];
    fails(Errno::TOOBIG, run("/bin/true", &many.iter().map(String::as_str).collect::<Vec<_>>()));
    let fit = vec!["y".repeat(100_000); 10];
    works(run("/bin/true", &fit.iter().map(String::as_str).collect::<Vec<_>>()));
}

fn close_on_exec_closes_and_others_stay() {
    use rustix::fs::{open, Mode, OFlags};
    use std::os::fd::AsRawFd;
    let stays = works(open("/usr", OFlags::RDONLY, Mode::empty()));
    let goes = works(open("/usr", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()));
    let link = |number: i32| format!("readlink /proc/self/fd/{number} || echo closed");
    let told = works(run("sh", &["-c", &link(stays.as_raw_fd())]));
    assert_eq!(told, "/usr");
    let told = works(run("sh", &["-c", &link(goes.as_raw_fd())]));
    assert_eq!(told, "closed");
}

fn a_copied_program_runs_from_where_it_is() {
    works(fs::create_dir("bin"));
    works(fs::copy("/bin/echo", "bin/say"));
    assert_eq!(works(run("bin/say", &["hello"])), "hello");
    works(fs::rename("bin", "moved"));
    assert_eq!(works(run("moved/say", &["again"])), "again");
    fails(Errno::NOENT, run("bin/say", &["gone"]));
}

fn an_unreadable_program_runs() {
    works(fs::copy("/bin/ls", "ls"));
    works(fs::set_permissions("ls", fs::Permissions::from_mode(0o111)));
    works(fs::create_dir("dir"));
    works(fs::write("dir/file", b""));
    assert_eq!(works(run("./ls", &["dir"])), "file");
}

fn a_renamed_program_runs_by_its_new_name() {
    works(fs::copy("/bin/echo", "old"));
    works(fs::rename("old", "new"));
    assert_eq!(works(run("./new", &["x"])), "x");
    works(fs::copy("/bin/true", "replacement"));
    works(fs::rename("replacement", "new"));
    assert_eq!(works(run("./new", &["x"])), "");
}

fn a_relative_interpreter_starts_at_the_working_directory() {
    works(fs::create_dir("dir"));
    works(fs::copy("/bin/echo", "dir/say"));
    script("script", "#!dir/say\n");
    assert_eq!(works(run("./script", &["x"])), "./script x");
    script("dir/script", "#!say\n");
    fails(Errno::NOENT, run("dir/script", &[]));
}

fn every_form_of_exec_works(r: &Runner) {
    let forms = program("exec_forms");
    for form in ["execve", "execveat", "fexecve", "at-empty-path", "script-by-fd", "memfd", "vfork", "posix_spawn"] {
        let finished = r.run([forms.as_os_str(), form.as_ref()]);
        assert_eq!(finished.line(), "argument from the form", "{form}");
    }
    let refused = r.run([forms.as_os_str(), "errors".as_ref()]);
    assert_eq!(refused.line(), "refused as they should be");
}

fn a_static_program_runs(r: &Runner) {
    assert_eq!(r.run([program("static_hello")]).line(), "hello from a static program");
}

fn a_position_dependent_program_runs(r: &Runner) {
    assert_eq!(r.run([program("fixed_hello")]).line(), "hello from a fixed address");
}

fn the_loader_can_be_called_by_name(r: &Runner) {
    assert_eq!(
        r.bash("$(ls /lib64/ld-linux-x86-64.so.2 || ls /lib/ld-*.so* | head -1) /bin/echo loaded").line(),
        "loaded"
    );
}

fn preloaded_libraries_are_loaded(r: &Runner) {
    let script = "echo 'int getpid(void) { return 4242; }' > fake.c; cc -shared -fPIC -o fake.so fake.c
        LD_PRELOAD=$PWD/fake.so python3 -c 'import os; print(os.getpid())'";
    assert_eq!(r.bash(script).line(), "4242");
}

fn the_command_line_and_environment_are_shown_in_proc(r: &Runner) {
    let told = r.run(["env", "-i", "NAME=value", "/bin/cat", "/proc/self/cmdline", "/proc/self/environ"]).success();
    assert_eq!(told, b"/bin/cat\0/proc/self/cmdline\0/proc/self/environ\0NAME=value\0");
}

fn exec_from_a_thread_ends_the_others(r: &Runner) {
    assert_eq!(r.run([program("thread_exec")]).line(), "one thread, same pid");
}

fn setuid_programs_run_without_their_privilege(r: &Runner) {
    // Under no_new_privs, which a filter of an ordinary user needs, the bit is there but has no effect.
    let finished = r.bash("stat -c %a $(command -v su); su --version | grep -c su");
    assert_eq!(finished.line(), "4755\n1");
}
