//! statmount and listmount. Knows nothing of where the list comes from.

use umvu_interface::{Capabilities, Errno, Result};

use crate::abi::Bytes;
use crate::call::{Call, Outcome, Reply, DONE};
use crate::guest;
use crate::listing::{self, unique, Entry};
use crate::mounting::attributes::to_attributes;
use crate::mounting::what;

/// Numbers up to this are none: `MNT_UNIQUE_ID_OFFSET` of `fs/namespace.c`.
const OFFSET: u64 = 1 << 31;
/// The root of the namespace: `LSMT_ROOT`.
const ROOT: u64 = u64::MAX;

/// `struct mnt_id_req`.
struct Request {
    id: u64,
    parameter: u64,
    namespace: u64,
}

impl Request {
    /// `copy_mnt_id_req` of `fs/namespace.c`.
    ///
    /// # Errors
    /// - `EFAULT`: not readable.
    /// - `EINVAL`: too small, or a number that is none.
    /// - `E2BIG`: larger than is known, and not zero there.
    fn read(call: &Call) -> Result<Self> {
        const FIRST_SIZE: u32 = 24;
        const SIZE: usize = 32;
        const MOST: u32 = 4096;
        let size = u32::from_ne_bytes(guest::read_array(call.tid(), call.raw(0))?);
        if size > MOST {
            return Err(Errno::TOOBIG);
        }
        if size < FIRST_SIZE {
            return Err(Errno::INVAL);
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(SIZE).max(SIZE)];
        let length = usize::try_from(size).unwrap_or(SIZE);
        guest::read_exact(call.tid(), call.raw(0), &mut bytes[..length])?;
        if bytes[SIZE..].iter().any(|b| *b != 0) {
            return Err(Errno::TOOBIG);
        }
        let word = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_ne_bytes);
        // The upper half of the first word is a descriptor of a namespace since Linux 6.18, or nothing.
        let request = Self { id: word(8), parameter: word(16), namespace: word(24) };
        if word(0) >> 32 != 0 || request.id <= OFFSET {
            return Err(Errno::INVAL);
        }
        if request.namespace != 0 {
            return Err(Errno::NOENT);
        }
        Ok(request)
    }
}

/// What the caller sees.
fn entries(call: &Call) -> Vec<Entry> {
    let table = call.table();
    listing::of(call, &table, &call.root(&table))
}

/// What the caller may ask about beyond what it sees: who administers the view, all of it. `do_statmount` and
/// `do_listmount` of `fs/namespace.c`.
///
/// # Errors
/// - `ENOENT`: there is no mount with number `id`.
/// - `EPERM`: there is, and the caller does not administer the view.
fn beyond(call: &Call, id: u64) -> Result<Vec<Entry>> {
    let table = call.table();
    let mut all = listing::of(call, &table, &table.root());
    if all.iter().all(|entry| unique(entry.id) != id) {
        return Err(Errno::NOENT);
    }
    if !call.credentials().capable(Capabilities::SYS_ADMIN) {
        return Err(Errno::PERM);
    }
    // No path leads there.
    all.iter_mut().for_each(|entry| entry.point.clear());
    Ok(all)
}

/// The fields of `struct statmount` that a request may ask for.
mod wanted {
    pub const SB_BASIC: u64 = 1;
    pub const MNT_BASIC: u64 = 2;
    pub const PROPAGATE_FROM: u64 = 4;
    pub const MNT_ROOT: u64 = 8;
    pub const MNT_POINT: u64 = 0x10;
    pub const FS_TYPE: u64 = 0x20;
    pub const MNT_OPTS: u64 = 0x80;
    pub const SB_SOURCE: u64 = 0x200;
    pub const SUPPORTED_MASK: u64 = 0x1000;
    pub const ALL: u64 =
        SB_BASIC | MNT_BASIC | PROPAGATE_FROM | MNT_ROOT | MNT_POINT | FS_TYPE | MNT_OPTS | SB_SOURCE | SUPPORTED_MASK;
}

/// Size of `struct statmount` without its strings.
const HEAD: usize = 512;

/// `statmount(request, buffer, size, flags)`.
pub fn statmount(call: &Call) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    if call.u32(3) != 0 {
        return Err(Errno::INVAL.into());
    }
    let request = Request::read(call)?;
    let has = |list: &[Entry]| list.iter().find(|entry| unique(entry.id) == request.id).cloned();
    let entry = match has(&entries(call)) {
        Some(entry) => entry,
        None => has(&beyond(call, request.id)?).ok_or(Errno::NOENT)?,
    };
    let bytes = described(&entry, request.parameter);
    let has_strings = bytes.len() > HEAD;
    let size = usize::try_from(call.raw(2)).unwrap_or(usize::MAX);
    if has_strings && size < bytes.len() {
        return Err(Errno::OVERFLOW.into());
    }
    call.write(call.raw(1), &bytes[..bytes.len().min(size)])?;
    DONE
}

/// `struct statmount` of `include/uapi/linux/mount.h`.
fn described(entry: &Entry, mask: u64) -> Vec<u8> {
    let mut head = Bytes::<HEAD>::new();
    let mut strings: Vec<u8> = Vec::new();
    let mut given = mask & wanted::ALL;
    if mask & wanted::SB_BASIC != 0 {
        head.put(16, entry.device.0.to_ne_bytes());
        head.put(20, entry.device.1.to_ne_bytes());
        let read_only = u32::from(entry.super_options.starts_with(b"ro"));
        head.put(32, read_only.to_ne_bytes());
    }
    if mask & wanted::MNT_BASIC != 0 {
        let small = |id: u64| u32::try_from(id).unwrap_or(0).to_ne_bytes();
        head.put(40, unique(entry.id).to_ne_bytes());
        head.put(48, unique(entry.parent).to_ne_bytes());
        head.put(56, small(entry.id));
        head.put(60, small(entry.parent));
        head.put(64, to_attributes(entry.flags()).to_ne_bytes());
        head.put(72, propagation(&entry.propagation).to_ne_bytes());
    }
    let options = entry.super_options.get(3..).unwrap_or_default();
    let texts: [(u64, usize, &[u8]); 5] = [
        (wanted::FS_TYPE, 36, &entry.fstype),
        (wanted::MNT_ROOT, 104, &entry.root),
        (wanted::MNT_POINT, 108, &entry.point),
        (wanted::MNT_OPTS, 4, options),
        (wanted::SB_SOURCE, 124, &entry.source),
    ];
    for (bit, at, text) in texts.into_iter().filter(|(bit, _, _)| mask & bit != 0) {
        if text.is_empty() {
            given &= !bit;
            continue;
        }
        // Offset 0 is what an absent string has, and holds an empty one.
        if strings.is_empty() {
            strings.push(0);
        }
        head.put(at, u32::try_from(strings.len()).unwrap_or(0).to_ne_bytes());
        strings.extend_from_slice(text);
        strings.push(0);
    }
    if mask & wanted::SUPPORTED_MASK != 0 {
        head.put(144, wanted::ALL.to_ne_bytes());
    }
    head.put(8, given.to_ne_bytes());
    let size = HEAD + strings.len();
    head.put(0, u32::try_from(size).unwrap_or(0).to_ne_bytes());
    [&head.0[..], &strings].concat()
}

/// `MS_SHARED` and its like of optional fields.
fn propagation(fields: &[u8]) -> u64 {
    let is = |prefix: &[u8]| fields.split(|b| *b == b' ').any(|field| field.starts_with(prefix));
    match () {
        () if is(b"shared:") => what::SHARED,
        () if is(b"master:") => what::SLAVE,
        () if is(b"unbindable") => what::UNBINDABLE,
        () => what::PRIVATE,
    }
}

/// `listmount(request, ids, count, flags)`.
pub fn listmount(call: &Call) -> Outcome {
    const REVERSE: u32 = 1;
    const MOST: u64 = 1_000_000;
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    let flags = call.u32(3);
    if flags & !REVERSE != 0 {
        return Err(Errno::INVAL.into());
    }
    if call.raw(2) > MOST {
        return Err(Errno::OVERFLOW.into());
    }
    let request = Request::read(call)?;
    let after = request.parameter;
    if after != 0 && after <= OFFSET {
        return Err(Errno::INVAL.into());
    }
    let list = entries(call);
    let mut ids = match below(&list, request.id) {
        Err(Errno::NOENT) => below(&beyond(call, request.id)?, request.id)?,
        found => found?,
    };
    ids.sort_unstable();
    if flags & REVERSE != 0 {
        ids.reverse();
        ids.retain(|id| after == 0 || *id < after);
    } else {
        ids.retain(|id| *id > after);
    }
    ids.truncate(usize::try_from(call.raw(2)).unwrap_or(0));
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_ne_bytes()).collect();
    call.write(call.raw(1), &bytes)?;
    Ok(Reply::Value(i64::try_from(ids.len()).unwrap_or(0)))
}

/// The numbers of the mounts in the one with number `id`, or of all that are seen.
fn below(list: &[Entry], id: u64) -> Result<Vec<u64>> {
    if id == ROOT {
        return Ok(list.iter().map(|e| unique(e.id)).collect());
    }
    let mut found: Vec<u64> = list.iter().filter(|e| unique(e.id) == id).map(|e| e.id).collect();
    if found.is_empty() {
        return Err(Errno::NOENT);
    }
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(list.iter().filter(|e| e.parent == parent && e.id != parent).map(|e| e.id));
        next += 1;
    }
    Ok(found.into_iter().skip(1).map(unique).collect())
}
