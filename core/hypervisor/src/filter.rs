//! The seccomp filter that guests take, as `umvu_filter` made it when this crate was built. Knows nothing of the tables.

use umvu_table::Pids;

static HOST: &[libc::sock_filter] = &include!(concat!(env!("OUT_DIR"), "/filter-host.rs"));
static NAMESPACES: &[libc::sock_filter] = &include!(concat!(env!("OUT_DIR"), "/filter-namespaces.rs"));

/// Gives the program of a view whose processes are numbered so.
pub fn program(pids: Pids) -> &'static [libc::sock_filter] {
    match pids {
        Pids::Host => HOST,
        Pids::Namespaces => NAMESPACES,
    }
}
