//! Has the seccomp filters made of the tables, and writes them down as constants: making one takes longer than all else
//! that a start does.

use std::fmt::Write;
use std::path::PathBuf;

use umvu_filter::Pids;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for (pids, name) in [(Pids::Host, "filter-host.rs"), (Pids::Namespaces, "filter-namespaces.rs")] {
        if let Err(why) = write(pids, name) {
            eprintln!("{name}: {why}");
            std::process::exit(1);
        }
    }
}

fn write(pids: Pids, name: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut text = String::from("[\n");
    for step in umvu_filter::program(pids)? {
        let (code, jt, jf, k) = (step.code, step.jt, step.jf, step.k);
        writeln!(text, "    libc::sock_filter {{ code: {code}, jt: {jt}, jf: {jf}, k: {k} }},")?;
    }
    text.push_str("]\n");
    let directory = std::env::var_os("OUT_DIR").ok_or("no OUT_DIR")?;
    std::fs::write(PathBuf::from(directory).join(name), text)?;
    Ok(())
}
