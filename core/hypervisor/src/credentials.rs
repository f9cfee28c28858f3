//! The identity that the kernel knows of the user. Knows nothing of faked ones.

use std::sync::Arc;

use umvu_interface::{Capabilities, Credentials, Ids, Origin};

/// Reads it once: guests cannot change theirs, they run with `no_new_privs`.
pub fn of_host() -> Credentials {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or("").trim().to_owned();
    let ids = |name: &str| {
        let four: Vec<u32> = field(name).split_whitespace().filter_map(|n| n.parse().ok()).collect();
        match four[..] {
            [real, effective, saved, fs] => Ids { real, effective, saved, fs },
            _ => Ids::all(rustix::process::getuid().as_raw()),
        }
    };
    let set = |name: &str| u64::from_str_radix(&field(name), 16).unwrap_or(0);
    let groups: Vec<u32> = field("Groups:").split_whitespace().filter_map(|n| n.parse().ok()).collect();
    Credentials {
        uid: ids("Uid:"),
        gid: ids("Gid:"),
        groups: Arc::from(groups),
        capabilities: Capabilities {
            effective: set("CapEff:"),
            permitted: set("CapPrm:"),
            inheritable: set("CapInh:"),
            bounding: set("CapBnd:"),
            ambient: set("CapAmb:"),
        },
        securebits: 0,
        origin: Origin::Host,
        namespace: None,
    }
}
