//! Compiles the sources of this crate once more, as the freestanding image that the library embeds: a static
//! position-independent executable without a C library. Needs what any build of the workspace needs, no more.

use std::env;
use std::path::PathBuf;
use std::process::{exit, Command};

/// What makes the image small, relocatable by its place alone, and free of everything that is not in its sources.
const OPTIONS: &[&str] = &[
    "--edition=2021",
    "--crate-type=bin",
    "--crate-name=umvu_loader_image",
    "--cfg=freestanding",
    "-Cpanic=abort",
    "-Copt-level=2",
    "-Ccodegen-units=1",
    "-Cdebuginfo=0",
    "-Cstrip=symbols",
    "-Coverflow-checks=off",
    "-Cdebug-assertions=off",
    "-Cforce-unwind-tables=no",
    "-Crelocation-model=pie",
    "-Clink-arg=-nostartfiles",
    "-Clink-arg=-nostdlib",
    "-Clink-arg=-static-pie",
    "-Clink-arg=-Wl,-e,umvu_loader_start,--build-id=none,-z,noexecstack,-z,max-page-size=4096,-z,norelro,--gc-sections",
];

fn main() {
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rustc-check-cfg=cfg(freestanding)");
    let variable = |name: &str| env::var_os(name).unwrap_or_default();
    let image = PathBuf::from(variable("OUT_DIR")).join("image");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args(OPTIONS).arg("--target").arg(variable("TARGET")).arg("-o").arg(image).arg("src/lib.rs");
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut option = std::ffi::OsString::from("-Clinker=");
        option.push(linker);
        rustc.arg(option);
    }
    match rustc.status() {
        Ok(status) if status.success() => {}
        Ok(status) => {
            eprintln!("the loader's image: rustc: {status}");
            exit(1);
        }
        Err(error) => {
            eprintln!("the loader's image: rustc: {error}");
            exit(1);
        }
    }
}
