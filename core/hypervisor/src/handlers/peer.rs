//! Who is at the other end of an AF_UNIX socket, and who says so in a message: unix(7). For the kernel all guests are of
//! one user; among those who share faked identities, each is shown by its own.
//!
//! Deliberately does not know what else is in messages. Who connected or listened counts by the ids that it has now.

use std::sync::Arc;

use nix::sys::socket::{getsockopt as ask, sockopt};
use umvu_interface::{Capabilities, Credentials, Errno, Result};

use crate::call::{Call, Outcome, Reply, DONE};
use crate::guest;
use crate::handlers::pid;

const SOL_SOCKET: u32 = 1;
const SO_PEERCRED: u32 = 17;
const SO_PEERGROUPS: u32 = 59;
const SCM_CREDENTIALS: u32 = 2;

/// `struct ucred`: process, user, group.
const UCRED: usize = 12;
/// More than the kernel takes in one message by default: `net.core.optmem_max`.
const CONTROL_MAX: u64 = 128 << 10;

/// `getsockopt(fd, level, option, value, length)`: who the peer is.
pub fn getsockopt(call: &Call) -> Outcome {
    let option = call.u32(2);
    if call.state.is_plain() || call.u32(1) != SOL_SOCKET || !matches!(option, SO_PEERCRED | SO_PEERGROUPS) {
        return Ok(Reply::Continue);
    }
    let Some((process, peer)) = peer(call) else { return Ok(Reply::Continue) };
    let asks = call.credentials();
    let room = i32::from_ne_bytes(guest::read_array(call.tid(), call.raw(4))?);
    let room = usize::try_from(room).map_err(|_| Errno::INVAL)?;
    if option == SO_PEERCRED {
        let process = match &call.state.namespaces.pid {
            Some(namespace) => pid::shown(call, namespace, process),
            None => process,
        };
        let ids = [process, asks.user_shown(peer.uid.effective), asks.group_shown(peer.gid.effective)];
        return tell(call, &ids, room.min(UCRED));
    }
    let groups: Vec<u32> = peer.groups.iter().map(|gid| asks.group_shown(*gid)).collect();
    let needed = 4 * groups.len();
    if room < needed {
        call.write(call.raw(4), &length(needed))?;
        return Err(Errno::RANGE.into());
    }
    tell(call, &groups, needed)
}

fn tell(call: &Call, numbers: &[u32], size: usize) -> Outcome {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
    call.write(call.raw(3), &bytes[..size])?;
    call.write(call.raw(4), &length(size))?;
    DONE
}

fn length(size: usize) -> [u8; 4] {
    i32::try_from(size).unwrap_or(i32::MAX).to_ne_bytes()
}

/// The process at the other end of the caller's socket and its ids, if the view has faked them.
fn peer(call: &Call) -> Option<(u32, Arc<Credentials>)> {
    let initial = call.state.view.initial_credentials()?;
    let socket = call.take_fd(call.i32(0)).ok()?;
    let process = u32::try_from(ask(&socket, sockopt::PeerCredentials).ok()?.pid()).ok().filter(|pid| *pid > 0)?;
    let state = call.supervisor.state_of(process)?;
    // In another view the numbers are those of others.
    let is_among_us = state.view.initial_credentials().is_some_and(|theirs| theirs == initial);
    is_among_us.then(|| (process, call.supervisor.credentials(&state)))
}

/// Gives control messages with the host's ids of the caller where its faked ones stand; none where none stand there.
/// `__scm_send` of `net/core/scm.c`.
///
/// # Errors
/// - `EINVAL`: an id that the caller's user namespace does not know.
/// - `EPERM`: ids that are not the caller's.
pub fn control_for_host(call: &Call, address: u64, size: u64) -> Result<Option<Vec<u8>>> {
    let who = call.credentials();
    let word = call.request.abi.word_size();
    // struct cmsghdr, and struct compat_cmsghdr: a length of a word, level and type.
    let header = word + 8;
    if !who.is_faked() || size < (header + UCRED) as u64 || size > CONTROL_MAX {
        return Ok(None);
    }
    let mut control = vec![0; usize::try_from(size).unwrap_or(0)];
    if guest::read_exact(call.tid(), address, &mut control).is_err() {
        return Ok(None);
    }
    let mut is_changed = false;
    let mut rest = &mut control[..];
    while rest.len() >= header {
        let length = usize::try_from(crate::redirect::word_at(call.request.abi, rest)).unwrap_or(usize::MAX);
        if length < header || length > rest.len() {
            break;
        }
        let number = |at: usize| u32::from_ne_bytes(rest[at..at + 4].try_into().unwrap_or_default());
        if (number(word), number(word + 4)) == (SOL_SOCKET, SCM_CREDENTIALS) && length == header + UCRED {
            let ids = [number(header), number(header + 4), number(header + 8)];
            let ids = for_host(call, &who, ids)?;
            rest[header..length].copy_from_slice(&ids.map(u32::to_ne_bytes).concat());
            is_changed = true;
        }
        let next = length.next_multiple_of(word).min(rest.len());
        rest = &mut rest[next..];
    }
    Ok(is_changed.then_some(control))
}

/// `scm_check_creds`; whose process it is, the kernel says.
fn for_host(call: &Call, who: &Credentials, [process, uid, gid]: [u32; 3]) -> Result<[u32; 3]> {
    let uid = who.user_meant(uid).ok_or(Errno::INVAL)?;
    let gid = who.group_meant(gid).ok_or(Errno::INVAL)?;
    let is_user = [who.uid.real, who.uid.effective, who.uid.saved].contains(&uid);
    let is_group = [who.gid.real, who.gid.effective, who.gid.saved].contains(&gid);
    if !(is_user || who.capable(Capabilities::SETUID)) || !(is_group || who.capable(Capabilities::SETGID)) {
        return Err(Errno::PERM);
    }
    let process = call.state.namespaces.pid.as_ref().and_then(|known| known.meant(process)).unwrap_or(process);
    Ok([process, rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()])
}
