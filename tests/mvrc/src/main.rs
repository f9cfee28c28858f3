//! "Building a MVRC (minimal viable rootless container)": the listing of that talk, its parts put together in their order.
//! It knows nothing of views. What was changed, and why:
//!
//! - `use std::process` and the names of `nix::mount`, `nix::unistd::{chroot, getuid, getgid}`, `std::fs` and
//!   `std::path::Path` are added: the listing uses them without importing them.
//! - the two directories of the author's home are named by the environment, `MVRC_ROOTFS` and `MVRC_CONTAINER`.
//! - the print of the host name, whose argument the listing leaves out, has it. Line breaks are those of rustfmt.

// What the listing is warned of stays: it is printed so.
#![allow(unreachable_code, clippy::all)]

use std::{
    env,
    ffi::CString,
    fs,
    path::{Path, PathBuf},
    process,
};

use nix::{
    mount::{mount, MsFlags},
    sched::{unshare, CloneFlags},
    sys::wait::waitpid,
    unistd::{chroot, execvp, fork, getcwd, geteuid, gethostname, getpid, ForkResult},
};

fn get_proc_info() {
    eprintln!(
        "euid [{}] pid [{}] hostname [{:?}] cwd [{:?}]",
        geteuid(),
        getpid(),
        gethostname().expect("Failed to get the hostname."),
        getcwd().expect("Failed to get the cwd.")
    );
}

fn main() {
    //** Collect Command and Args **/
    let args: Vec<String> = env::args().collect();
    if args.len() < 2 {
        panic!("Usage: <cmd> [args...]\nExample: ls -la");
    }

    // ** Go Rootless **//
    let host_uid = nix::unistd::getuid();
    let host_gid = nix::unistd::getgid();
    let uid_map = format!("0 {} 1", host_uid);
    let gid_map = format!("0 {} 1", host_gid);
    unshare(CloneFlags::CLONE_NEWUSER).expect("Failed to create user namespace");
    std::fs::write("/proc/self/uid_map", uid_map).expect("Failed to write to uid");
    let setgroups_path = PathBuf::from("/proc").join("self").join("setgroups");
    std::fs::write(setgroups_path, "deny").expect("Failed to write to gid setgroup");
    std::fs::write("/proc/self/gid_map", gid_map).expect("Failed to write to gid");

    unshare(CloneFlags::CLONE_NEWUTS).expect("Failed to create uts namespace");

    let cmd = &args[1];
    let argv: Vec<CString> =
        args[1..].iter().map(|s| CString::new(s.as_str()).expect("Not a valid CString: argv")).collect();

    unshare(CloneFlags::CLONE_NEWPID).expect("Failed to create a PID namespace");

    let rootfs = PathBuf::from(env::var_os("MVRC_ROOTFS").expect("MVRC_ROOTFS"));
    let container_dir = PathBuf::from(env::var_os("MVRC_CONTAINER").expect("MVRC_CONTAINER"));

    //** Create mount namespace (isolates your filesystem operations) **//
    unshare(CloneFlags::CLONE_NEWNS).expect("Failed to create a mounted namespace");
    //** Create your container root directory **//
    if !Path::new(&container_dir).exists() {
        fs::create_dir_all(&container_dir).expect("Failed to create path");
    }
    //** Mount/copy your container filesystem into that directory **//
    let source_dir = &rootfs;
    let source = Some(source_dir);
    let target = &container_dir;
    let fstype = None::<&str>;
    let flags = MsFlags::MS_BIND;
    let data = None::<&str>;
    mount(source, target, fstype, flags, data).expect("Failed to Mount Filesystem");

    match unsafe { fork() } {
        Ok(ForkResult::Parent { child, .. }) => {
            waitpid(child, None).expect("Something went wrong waiting for the child's signal to change.");
        }
        Ok(ForkResult::Child) => {
            chroot(&container_dir).expect("chroot failed");
            std::env::set_current_dir("/").expect("Couldn't change current working directory.");
            get_proc_info();
            execvp(&CString::new(cmd.to_owned()).expect("Not a valid CString: cmd"), &argv)
                .expect("Failed to replace current process image [exec]");
        }
        Err(e) => {
            eprintln!("Fork failed: {}", e);
            process::exit(1);
        }
    }
}
