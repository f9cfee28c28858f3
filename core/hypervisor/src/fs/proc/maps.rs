//! The lists of a process's mappings in `/proc`, with the names that files have in the view. Knows no format beyond the
//! place of the name in a line.

use std::collections::HashMap;

use umvu_interface::{Errno, Result};

use crate::call::Call;

/// What `d_path` of `fs/d_path.c` puts behind the path of what has been removed.
const DELETED: &[u8] = b" (deleted)";

/// Whether an object of a process lists mappings.
pub fn is_list(name: &[u8]) -> bool {
    matches!(name, b"maps" | b"smaps")
}

/// Gives a list of the mappings of a process as the caller names files; `None` where the host's names are right.
///
/// # Errors
/// The host's, when its own text cannot be read.
pub fn of(call: &Call, pid: u32, name: &[u8]) -> Result<Option<Vec<u8>>> {
    if call.table().is_host() && call.state.root.is_none() {
        return Ok(None);
    }
    let path = format!("/proc/{pid}/{}", name.escape_ascii());
    let text = std::fs::read(path).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let mut known: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    let mut out = Vec::with_capacity(text.len());
    let copied = copied(call, pid);
    for line in text.split_inclusive(|b| *b == b'\n') {
        let Some(at) = name_in(line) else {
            out.extend_from_slice(line);
            continue;
        };
        let (front, name) = line.split_at(at);
        let name = name.strip_suffix(b"\n").unwrap_or(name);
        if let Some((_, shown)) = copied.as_ref().filter(|(image, _)| image == name) {
            out.extend_from_slice(front);
            out.extend_from_slice(shown);
            out.push(b'\n');
            continue;
        }
        let (path, tail) = match name.strip_suffix(DELETED) {
            Some(path) => (path, DELETED),
            None => (name, &b""[..]),
        };
        let shown = known
            .entry(path.to_vec())
            .or_insert_with(|| call.supervisor.view_path(call, path, 0).unwrap_or_else(|| path.to_vec()));
        out.extend_from_slice(front);
        out.extend_from_slice(shown);
        out.extend_from_slice(tail);
        out.push(b'\n');
    }
    Ok(Some(out))
}

/// What the host calls the copy that a process runs, and what it is a copy of.
fn copied(call: &Call, pid: u32) -> Option<(Vec<u8>, Vec<u8>)> {
    let program = call.supervisor.programs.of_process(pid).filter(|program| program.name.is_some())?;
    let image = rustix::fs::readlink(format!("/proc/{pid}/exe"), Vec::new()).ok()?.into_bytes();
    let table = call.table();
    let path = crate::resolve::path_of(&table, &call.root(&table), &program.place).ok().flatten();
    Some((image, path.unwrap_or_else(|| program.shown.clone())))
}

/// Where the path begins in a line that has one: `show_map_vma` of `fs/proc/task_mmu.c`.
fn name_in(line: &[u8]) -> Option<usize> {
    let at = line.iter().position(|b| matches!(b, b'/' | b'['))?;
    (line[at] == b'/').then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_begins_at_its_first_slash() {
        assert_eq!(name_in(b"00-01 r--p 0 fe:00 3       /bin/x y\n"), Some(27));
        assert_eq!(name_in(b"00-01 r--p 0 00:00 0       [anon:a/b]\n"), None);
        assert_eq!(name_in(b"Rss:                   4 kB\n"), None);
    }
}
