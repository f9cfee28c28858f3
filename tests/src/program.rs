//! Guest programs in C, for what safe Rust cannot do: raw system calls, racing threads, vfork.
//!
//! `programs/NAME.c` is compiled once per change; its first line may name compiler flags:
//! `// flags: -static -pthread`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
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
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs").join(format!("{name}.c"));
    let dir = build_dir().join("programs");
    fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let executable = dir.join(name);
    let _one = COMPILING.lock();
    if changed(&executable).is_none_or(|built| changed(&source).is_some_and(|edited| edited >= built)) {
        compile(&source, &executable);
    }
    executable
}

fn compile(source: &Path, executable: &Path) {
    let text = fs::read_to_string(source).unwrap_or_else(|e| panic!("{}: {e}", source.display()));
    let flags = text.lines().next().and_then(|line| line.strip_prefix("// flags:")).unwrap_or_default();
    // Suites run side by side, as processes: each compiles to a name of its own, the last rename wins.
    let unfinished = executable.with_extension(std::process::id().to_string());
    let status = Command::new("cc")
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-D_GNU_SOURCE", "-o"])
        .arg(&unfinished)
        .arg(source)
        .args(flags.split_whitespace())
        .status()
        .unwrap_or_else(|e| panic!("cc: {e}"));
    assert!(status.success(), "{}: cc failed", source.display());
    fs::rename(&unfinished, executable).unwrap_or_else(|e| panic!("{}: {e}", executable.display()));
}

fn changed(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|metadata| metadata.modified()).ok()
}
