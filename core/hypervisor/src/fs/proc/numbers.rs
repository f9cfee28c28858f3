//! The numbers of processes in the texts of `/proc/PID`, where a pid namespace gives them others than the host. Knows no
//! other fields.

use std::sync::Arc;

use umvu_interface::Result;

use super::text::host;
use super::ProcInode;
use crate::call::Call;
use crate::namespace::PidNamespace;
use crate::state::ProcessState;

/// Lines of `status` that hold numbers of processes.
const LINES: [&[u8]; 8] = [b"Tgid", b"Pid", b"PPid", b"TracerPid", b"NStgid", b"NSpid", b"NSpgid", b"NSsid"];

/// Whether a line of `status` with this name holds numbers of processes.
pub fn is_line(name: &[u8]) -> bool {
    LINES.contains(&name)
}

/// The number that a process has in the namespace of a procfs; 0 where it has none.
fn shown(call: &Call, namespace: Option<&Arc<PidNamespace>>, pid: u32) -> u32 {
    match namespace {
        Some(namespace) if call.supervisor.is_in(namespace, pid) => namespace.shown(pid),
        Some(_) => 0,
        None => pid,
    }
}

/// Such a line of `status`, behind the colon; `None` where the host's is right. `line` is the host's.
pub fn line(call: &Call, inode: &ProcInode, of: &ProcessState, pid: u32, name: &[u8], line: &[u8]) -> Option<String> {
    let outer = inode.namespace();
    let number: u32 = std::str::from_utf8(&line[name.len() + 1..]).ok()?.split_whitespace().next()?.parse().ok()?;
    if !name.starts_with(b"NS") {
        return outer.map(|outer| format!("\t{}\n", shown(call, Some(outer), number)));
    }
    // From the namespace of the procfs inwards to that of the process: proc_pid_status of fs/proc/array.c.
    let mut levels = Vec::new();
    let mut at = of.namespaces.pid.as_ref().filter(|own| own.is_within(outer));
    while let Some(here) = at.filter(|here| outer != Some(here)) {
        levels.push(here);
        at = here.parent.as_ref();
    }
    if levels.is_empty() && outer.is_none() {
        return None;
    }
    let is_group = matches!(name, b"NSpgid" | b"NSsid");
    let one = |namespace| match is_group {
        true => shown(call, Some(namespace), number),
        false => namespace.shown(if name == b"NSpid" { pid } else { number }),
    };
    let inner = levels.iter().rev().map(|level| format!("\t{}", one(level)));
    Some(format!("\t{}{}\n", shown(call, outer, number), inner.collect::<String>()))
}

/// The text of `stat` in the procfs of a pid namespace.
///
/// # Errors
/// The host's, when its own text cannot be read.
pub fn stat(call: &Call, inode: &ProcInode, pid: u32) -> Result<Option<Vec<u8>>> {
    let Some(namespace) = inode.namespace() else { return Ok(None) };
    let text = host(&format!("/proc/{pid}/stat"))?;
    let Some(behind_name) = text.iter().rposition(|b| *b == b')').map(|at| at + 1) else { return Ok(None) };
    let name = text.iter().position(|b| *b == b' ').unwrap_or(0);
    let fields = String::from_utf8_lossy(&text[behind_name..]).into_owned();
    // Behind the name: state, parent, group, session, terminal, its group.
    const NUMBERS: [usize; 4] = [1, 2, 3, 5];
    let told = fields.split_whitespace().enumerate().map(|(index, field)| match field.parse::<u32>() {
        Ok(number) if NUMBERS.contains(&index) => shown(call, Some(namespace), number).to_string(),
        _ => field.to_owned(),
    });
    let told: Vec<String> = told.collect();
    let own = shown(call, Some(namespace), pid).to_string().into_bytes();
    Ok(Some([&own[..], &text[name..behind_name], b" ", told.join(" ").as_bytes(), b"\n"].concat()))
}
