//! Who is at the other end of a socket, and who says so in a message: unix(7), `net/core/scm.c`.

use std::io::IoSlice;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::socket::{getsockopt, sendmsg, sockopt, ControlMessage, MsgFlags, UnixCredentials};
use nix::unistd::{getegid, geteuid, getpid, setgroups, setresgid, setresuid, Gid, Uid};
use umvu_tests::{behaviours, works, Runner};

behaviours! {
    in_guest at ANYONE {
        a_pair_is_connected_by_who_made_it,
        own_credentials_can_be_sent,
        messages_with_credentials_carry_the_rest,
    }
    in_guest at USER {
        a_user_sends_no_credentials_of_others,
    }
    in_guest at ROOT {
        root_sends_credentials_of_others,
        who_was_root_sends_no_credentials_of_root,
        a_peer_is_known_by_its_ids,
    }
    from_outside at ANYONE {
        the_groups_of_a_peer_are_told,
        as_much_of_a_peer_is_told_as_there_is_room_for,
    }
}

/// Sends a byte with credentials, and gives the error.
fn send_as(uid: u32, gid: u32) -> Result<usize, nix::Error> {
    let (one, _two) = works(UnixDatagram::pair());
    let who = UnixCredentials::from(nix::libc::ucred { pid: getpid().as_raw(), uid, gid });
    sendmsg::<()>(
        one.as_raw_fd(),
        &[IoSlice::new(b"x")],
        &[ControlMessage::ScmCredentials(&who)],
        MsgFlags::empty(),
        None,
    )
}

fn a_pair_is_connected_by_who_made_it() {
    let (one, _two) = works(UnixDatagram::pair());
    let peer = works(getsockopt(&one, sockopt::PeerCredentials));
    let own = (getpid().as_raw(), geteuid().as_raw(), getegid().as_raw());
    assert_eq!((peer.pid(), peer.uid(), peer.gid()), own);
}

fn own_credentials_can_be_sent() {
    assert_eq!(send_as(geteuid().as_raw(), getegid().as_raw()), Ok(1));
}

fn messages_with_credentials_carry_the_rest() {
    use nix::sys::socket::{recvmsg, ControlMessageOwned};
    let (one, two) = works(UnixDatagram::pair());
    let (end, _other) = works(rustix::pipe::pipe());
    let who = UnixCredentials::from(nix::libc::ucred {
        pid: getpid().as_raw(),
        uid: geteuid().as_raw(),
        gid: getegid().as_raw(),
    });
    let fds = [end.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&fds), ControlMessage::ScmCredentials(&who)];
    let sent = sendmsg::<()>(
        one.as_raw_fd(),
        &[IoSlice::new(b"two"), IoSlice::new(b"parts")],
        &control,
        MsgFlags::empty(),
        None,
    );
    assert_eq!(sent, Ok(8));
    let mut bytes = [0; 16];
    let mut space = nix::cmsg_space!(UnixCredentials, [i32; 1]);
    let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
    let message = works(recvmsg::<()>(two.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty()));
    let passed = works(message.cmsgs()).filter(|c| matches!(c, ControlMessageOwned::ScmRights(fds) if fds.len() == 1));
    assert_eq!((message.bytes, passed.count()), (8, 1));
    assert_eq!(&bytes[..8], b"twoparts");
}

fn a_user_sends_no_credentials_of_others() {
    assert_eq!(send_as(geteuid().as_raw(), 54321), Err(nix::Error::EPERM));
    assert_eq!(send_as(54321, getegid().as_raw()), Err(nix::Error::EPERM));
}

fn root_sends_credentials_of_others() {
    assert_eq!(send_as(54321, 54321), Ok(1));
}

fn who_was_root_sends_no_credentials_of_root() {
    let (user, group) = (Uid::from_raw(33), Gid::from_raw(33));
    works(setgroups(&[]));
    works(setresgid(group, group, group));
    works(setresuid(user, user, user));
    assert_eq!(send_as(33, 33), Ok(1));
    assert_eq!(send_as(0, 33), Err(nix::Error::EPERM));
    assert_eq!(send_as(33, 0), Err(nix::Error::EPERM));
}

fn a_peer_is_known_by_its_ids() {
    let listener = works(std::os::unix::net::UnixListener::bind("socket"));
    works(std::fs::set_permissions("socket", std::os::unix::fs::PermissionsExt::from_mode(0o777)));
    let script = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('socket'); s.recv(1)";
    let mut client = works(Command::new("python3").arg("-c").arg(script).uid(33).gid(44).spawn());
    let (server, _) = works(listener.accept());
    let peer = works(getsockopt(&server, sockopt::PeerCredentials));
    let pid = i32::try_from(client.id()).expect("a pid");
    assert_eq!((peer.pid(), peer.uid(), peer.gid()), (pid, 33, 44));
    drop(server);
    assert!(works(client.wait()).success());
}

const PYTHON: &str = "import os, socket, struct; SO_PEERGROUPS = 59; s, _ = socket.socketpair(); ";

fn the_groups_of_a_peer_are_told(r: &Runner) {
    let script =
        "g = s.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 1024); g = struct.unpack('%dI' % (len(g) // 4), g); \
                  print(sorted(g) == sorted(os.getgroups()))";
    let script = format!("{PYTHON}{script}");
    assert_eq!(r.run(["python3", "-c", &script]).line(), "True");
}

fn as_much_of_a_peer_is_told_as_there_is_room_for(r: &Runner) {
    let script = "get = lambda n: s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, n); whole = get(12); \
                  print(get(8) == whole[:8], get(64) == whole, whole == struct.pack('3i', os.getpid(), os.geteuid(), os.getegid()))";
    let script = format!("{PYTHON}{script}");
    assert_eq!(r.run(["python3", "-c", &script]).line(), "True True True");
}
