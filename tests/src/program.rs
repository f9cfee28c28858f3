//! Guest programs in C, for what safe Rust cannot do: raw system calls, racing threads, vfork.
//!
//! `programs/NAME.c` is compiled once per change; its first line may name compiler flags:
//! `// flags: -static -pthread`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::SystemTime;

use crate::fresh::build_dir;

/// One compilation at a time in this process.
static COMPILING: Mutex<()> = Mutex::new(());

/// Compiles `programs/NAME.c` and returns the executable.
///
/// # Panics
///
/// When there is no such program or no compiler.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    made(&source(name), &build_dir().join("programs").join(name), &["cc"])
}

/// How a program finds its library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linking {
    /// By its interpreter, when it starts.
    Dynamic,
    /// It brings it along.
    Static,
}

/// Compiles `programs/i386/NAME.c` as a 32-bit program and returns the executable.
///
/// # Panics
///
/// When there is no such program or no compiler: [`has_i386_compiler`].
#[must_use]
pub fn program_for_i386(name: &str, linking: Linking) -> PathBuf {
    let compiler = i386_compiler().expect("a compiler for 32-bit programs");
    let dir = build_dir().join("programs/i386");
    let source = source(&format!("i386/{name}"));
    match linking {
        Linking::Dynamic => made(&source, &dir.join(name), compiler),
        Linking::Static => made(&source, &dir.join(format!("{name}-static")), &[compiler, &["-static"]].concat()),
    }
}

/// Says whether the FUSE servers are here that the suite `fuse` runs, and the tools that judge them.
#[must_use]
pub fn has_fuse_servers() -> bool {
    const ALL: [&str; 12] = [
        "fusermount3",
        "squashfuse",
        "mksquashfs",
        "fuse2fs",
        "mkfs.ext4",
        "debugfs",
        "bindfs",
        "mergerfs",
        "fuse-overlayfs",
        "sshfs",
        "sftp-server",
        "setfattr",
    ];
    let places = ["/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/lib/openssh"];
    ALL.iter().all(|name| places.iter().any(|place| Path::new(place).join(name).exists()))
}

/// Says whether 32-bit programs can be compiled and run here.
#[must_use]
pub fn has_i386_compiler() -> bool {
    i386_compiler().is_some()
}

/// The command that compiles 32-bit programs, Debian's multilib or its cross compiler, if its programs run.
fn i386_compiler() -> Option<&'static [&'static str]> {
    const COMMANDS: [&[&str]; 2] = [&["cc", "-m32"], &["i686-linux-gnu-gcc"]];
    static FOUND: OnceLock<Option<&'static [&'static str]>> = OnceLock::new();
    *FOUND.get_or_init(|| COMMANDS.into_iter().find(|command| runs_what_it_makes(command)))
}

/// Tries a compiler with both ways of linking; what it made is kept, so that the next process need not try.
fn runs_what_it_makes(compiler: &[&str]) -> bool {
    let dir = build_dir().join("programs/i386");
    fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let works = |command: &mut Command| {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    [None, Some("-static")].into_iter().all(|linking| {
        let probe = dir.join(format!("probe-by-{}{}", compiler.concat(), linking.unwrap_or_default()));
        let unfinished = probe.with_extension(std::process::id().to_string());
        let mut compile = Command::new(compiler[0]);
        compile.args(&compiler[1..]).args(linking).arg("-o").arg(&unfinished).arg(source("i386/probe"));
        let is_made = probe.exists() || works(&mut compile) && fs::rename(&unfinished, &probe).is_ok();
        is_made && works(&mut Command::new(&probe))
    })
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("programs").join(format!("{name}.c"))
}

fn made(source: &Path, executable: &Path, compiler: &[&str]) -> PathBuf {
    let dir = executable.parent().expect("an executable is in a directory");
    fs::create_dir_all(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let _one = COMPILING.lock();
    if is_up_to_date(source, executable) {
        return executable.to_owned();
    }
    // Suites run side by side, as processes: one compiles. A program that was replaced while it runs would have no path.
    let lock = fs::File::create(executable.with_extension("lock")).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("a lock");
    if !is_up_to_date(source, executable) {
        compile(source, executable, compiler);
    }
    executable.to_owned()
}

fn is_up_to_date(source: &Path, executable: &Path) -> bool {
    changed(executable).is_some_and(|built| changed(source).is_none_or(|edited| edited < built))
}

fn compile(source: &Path, executable: &Path, compiler: &[&str]) {
    let text = fs::read_to_string(source).unwrap_or_else(|e| panic!("{}: {e}", source.display()));
    let flags = text.lines().next().and_then(|line| line.strip_prefix("// flags:")).unwrap_or_default();
    let unfinished = executable.with_extension(std::process::id().to_string());
    let status = Command::new(compiler[0])
        .args(&compiler[1..])
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-D_GNU_SOURCE", "-o"])
        .arg(&unfinished)
        .arg(source)
        .args(flags.split_whitespace())
        .status()
        .unwrap_or_else(|e| panic!("{}: {e}", compiler[0]));
    assert!(status.success(), "{}: {} failed", source.display(), compiler[0]);
    fs::rename(&unfinished, executable).unwrap_or_else(|e| panic!("{}: {e}", executable.display()));
}

fn changed(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|metadata| metadata.modified()).ok()
}
