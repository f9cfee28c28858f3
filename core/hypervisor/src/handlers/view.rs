//! The virtual system call by which the tools speak to the supervisor. Knows nothing of the tools.

use umvu_interface::{Capabilities, Errno, MountError};
use umvu_protocol::{decode, encode, ModuleInfo, Request, TagInfo, REQUEST_MAX, VERSION};

use crate::call::{Call, Outcome, Reply};
use crate::guest;
use crate::mounting::{self, Order};
use crate::resolve::{path_of, Last};

type Answer = umvu_protocol::Reply;

/// `VU_CALL(request, length, reply, capacity)`.
pub fn call(call: &Call) -> Outcome {
    let length = usize::try_from(call.raw(1)).ok().filter(|l| *l <= REQUEST_MAX).ok_or(Errno::INVAL)?;
    let mut bytes = vec![0; length];
    guest::read_exact(call.tid(), call.raw(0), &mut bytes)?;
    let request: Request = decode(&bytes).map_err(|_| Errno::INVAL)?;
    call.check_alive()?;
    let answer = answer(call, request);
    let bytes = encode(&answer).map_err(|_| Errno::NOMEM)?;
    if (bytes.len() as u64) > call.raw(3) {
        return Err(Errno::RANGE.into());
    }
    call.write(call.raw(2), &bytes)?;
    Ok(Reply::Value(i64::try_from(bytes.len()).unwrap_or(0)))
}

fn failed(errno: Errno, message: impl Into<String>) -> Answer {
    Answer::Failed { message: message.into(), errno: errno.raw_os_error() }
}

fn answer(call: &Call, request: Request) -> Answer {
    let view = &call.state.view;
    match request {
        Request::Hello { .. } => Answer::Hello {
            version: VERSION,
            umvu: env!("CARGO_PKG_VERSION").into(),
            depth: view.depth,
            nesting: call.supervisor.nesting == crate::Nesting::Allowed,
        },
        Request::Insert { module, permanent } => match view.insert(call.supervisor.modules, &module, permanent) {
            Ok(_) => Answer::Done,
            Err(error) => failed(error.errno, error.message),
        },
        Request::Remove { module } => {
            mounting::prune(call);
            match view.remove(&module) {
                Ok(_) => Answer::Done,
                Err(error) => failed(error.errno, error.message),
            }
        }
        Request::List => Answer::Modules(modules(call)),
        Request::Mount { source, target, fstype, flags, data } => {
            let fstype = Some(&fstype[..]).filter(|t| !t.is_empty());
            let order = Order { source: Some(&source), target: &target, fstype, flags, data: &data };
            match mounting::mount(call, &order) {
                Ok(()) => Answer::Done,
                Err(error) => unmounted(error),
            }
        }
        Request::Unmount { target, flags } => match mounting::unmount(call, &target, flags) {
            Ok(()) => Answer::Done,
            Err(error) => failed(error.errno, error.message),
        },
        Request::Nest { name } => nest(call, name),
        Request::GetName => {
            Answer::Name { name: view.name.read().clone(), supervisor: std::process::id(), view: view.id }
        }
        Request::SetName { name } => {
            *view.name.write() = name;
            Answer::Done
        }
        Request::Debug { add, remove } => debug(call, &add, &remove),
        Request::DebugTags => Answer::Tags(
            crate::trace::TAGS
                .iter()
                .map(|t| TagInfo { tag: t.0, summary: t.1.into(), on: view.debug.read().contains(&t.0) })
                .collect(),
        ),
        Request::SaveOwners { path } => owners(call, &path, Direction::Save),
        Request::LoadOwners { path } => owners(call, &path, Direction::Load),
        Request::Explain { path } => explain(call, &path),
        Request::Become { uid, gid, groups } => become_(call, uid, gid, groups),
    }
}

/// Why something is not mounted, or who can serve it.
fn unmounted(error: MountError) -> Answer {
    match error.server {
        None => failed(error.errno, error.message),
        Some(server) => Answer::Served {
            programs: server.programs.iter().map(|name| (*name).into()).collect(),
            package: server.package.into(),
            options: server.options.join(&b','),
            message: error.message,
        },
    }
}

fn modules(call: &Call) -> Vec<ModuleInfo> {
    let view = &call.state.view;
    let loaded = view.modules.read().clone();
    let info = |descriptor: &'static umvu_interface::ModuleDescriptor| {
        let found = loaded.iter().find(|m| m.descriptor.name == descriptor.name);
        ModuleInfo {
            name: descriptor.name.into(),
            summary: descriptor.summary.into(),
            aliases: descriptor.aliases.iter().map(|a| (*a).into()).collect(),
            loaded: found.is_some(),
            permanent: found.is_some_and(|m| m.permanent),
            users: if found.is_some() { view.users_of(descriptor.name) } else { 0 },
        }
    };
    call.supervisor.modules.iter().copied().map(info).collect()
}

fn nest(call: &Call, name: Option<Vec<u8>>) -> Answer {
    if call.supervisor.nesting == crate::Nesting::Refused {
        return failed(Errno::PERM, "this view was started with --nonesting");
    }
    let old = &call.state.view;
    let name = name.unwrap_or_else(|| old.name.read().clone());
    let uts = call.state.uts().copy(old.owner.clone());
    let view = old.stacked(call.supervisor.next_id(), name, uts, old.owner.clone());
    let changed = call.change_state(|state| {
        state.view = view;
        state.namespaces.uts = None;
    });
    match changed {
        Ok(()) => Answer::Done,
        Err(errno) => failed(errno, "the process is gone"),
    }
}

fn debug(call: &Call, add: &[u8], remove: &[u8]) -> Answer {
    if let Some(unknown) = [add, remove].into_iter().find_map(crate::trace::unknown_tag) {
        return failed(Errno::INVAL, format!("{}: no such tag", [unknown].escape_ascii()));
    }
    let mut tags = call.state.view.debug.write();
    tags.retain(|t| !remove.contains(t) && !add.contains(t));
    tags.extend_from_slice(add);
    Answer::Done
}

enum Direction {
    Save,
    Load,
}

fn owners(call: &Call, path: &[u8], direction: Direction) -> Answer {
    use std::io::Write;
    use umvu_interface::{FileKind, Inode, OFlags, Opened};
    let shown = path.escape_ascii().to_string();
    let because = |errno: Errno| failed(errno, format!("{shown}: {}", umvu_interface::cause(errno)));
    let host = call.table().host().mount;
    let store = host.filesystem.as_any().downcast_ref::<umvu_host::HostFs>().and_then(umvu_host::HostFs::ownership);
    let Some(store) = store else {
        return failed(Errno::NOENT, "no owners are faked here: load unrealuid first");
    };
    let open = |inode: &dyn Inode, flags| call.as_caller(|c| inode.open(c, flags));
    let file = match direction {
        Direction::Load => {
            call.object(libc::AT_FDCWD, path, Last::Follow).and_then(|p| open(&*p.inode, OFlags::RDONLY))
        }
        Direction::Save => match call.object(libc::AT_FDCWD, path, Last::Follow) {
            Ok(p) if p.inode.kind() == Ok(FileKind::Regular) => open(&*p.inode, OFlags::WRONLY | OFlags::TRUNC),
            Ok(_) => Err(Errno::INVAL),
            Err(Errno::NOENT) => crate::handlers::tree::parent_and_name(call, path).and_then(|(directory, name)| {
                call.as_caller(|c| directory.inode.create_open(c, &name, 0o600, OFlags::WRONLY)).map(|made| made.1)
            }),
            Err(errno) => Err(errno),
        },
    };
    let fd = match file.and_then(Opened::into_file) {
        Ok(fd) => fd,
        Err(errno) => return because(errno),
    };
    let mut file = std::fs::File::from(fd);
    let result = match direction {
        Direction::Save => {
            store.export(&mut file).map_err(|e| e.to_string()).and_then(|()| file.flush().map_err(|e| e.to_string()))
        }
        Direction::Load => store.import(&mut file).map(drop).map_err(|e| e.to_string()),
    };
    match result {
        Ok(()) => Answer::Done,
        Err(message) => failed(Errno::IO, format!("{shown}: {message}")),
    }
}

fn explain(call: &Call, path: &[u8]) -> Answer {
    use std::fmt::Write;
    let table = call.table();
    let place = match call.object(libc::AT_FDCWD, path, Last::NoFollow) {
        Ok(place) => place,
        Err(errno) => {
            return failed(errno, format!("{}: {}", path.escape_ascii(), umvu_interface::cause(errno)));
        }
    };
    let mut text = String::new();
    let mount = &place.mount;
    let at = path_of(
        &table,
        &call.root(&table),
        &crate::mount::Location { mount: mount.clone(), inode: mount.root.clone() },
    );
    let at = at.ok().flatten().unwrap_or_else(|| b"/".to_vec());
    let _ = writeln!(
        text,
        "mount {}: {} on {} type {}{}",
        mount.id,
        mount.source.escape_ascii(),
        at.escape_ascii(),
        mount.fstype.escape_ascii(),
        mount.module.map(|m| format!(" (module {m})")).unwrap_or_default()
    );
    if let Some(fd) = place.inode.host_fd() {
        if let Ok(host) = rustix::fs::readlink(guest::proc_path(fd), Vec::new()) {
            let _ = writeln!(text, "host object: {}", host.to_bytes().escape_ascii());
        }
    }
    if let Ok(stat) = place.inode.stat() {
        let _ = writeln!(text, "shown: mode {:o}, owner {}:{}, inode {}", stat.mode, stat.uid, stat.gid, stat.ino);
    }
    Answer::Text(text.into_bytes())
}

fn become_(call: &Call, uid: u32, gid: u32, groups: Vec<u32>) -> Answer {
    let old = call.credentials();
    if !old.is_faked() {
        return failed(Errno::PERM, "identities are the host's: load unrealuid first");
    }
    if !old.capable(Capabilities::SETUID | Capabilities::SETGID) {
        return failed(Errno::PERM, "only the root of the view may become somebody else");
    }
    let mut new = (*old).clone();
    new.uid = umvu_interface::Ids::all(uid);
    new.gid = umvu_interface::Ids::all(gid);
    new.groups = groups.into();
    new.capabilities = if uid == 0 { Capabilities::full() } else { Capabilities::none() };
    match call.change_state(|state| state.credentials = Some(new.into())) {
        Ok(()) => Answer::Done,
        Err(errno) => failed(errno, "the process is gone"),
    }
}
