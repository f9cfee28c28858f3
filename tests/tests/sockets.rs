//! Sockets with names in the file system: unix(7).

use std::fs;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{symlink, FileTypeExt};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};

use nix::sys::socket::{
    getsockopt, recvmsg, sendmsg, setsockopt, sockopt, ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr,
};
use rustix::io::Errno;
use umvu_tests::{behaviours, fails, works};

behaviours! {
    in_guest at EVERYWHERE {
        a_bound_socket_is_a_file_and_can_be_connected,
        the_bound_name_is_told_as_it_was_given,
        binding_what_exists_is_eaddrinuse,
        connecting_to_what_nobody_listens_on_is_econnrefused,
        connecting_to_what_is_no_socket_is_econnrefused,
        connecting_to_a_missing_name_is_enoent,
        connecting_with_the_wrong_type_is_eprototype,
        a_name_of_107_bytes_works,
        a_name_through_a_link_is_connected,
        abstract_names_have_no_file,
        datagrams_go_to_a_path_and_tell_their_sender,
        descriptors_are_passed,
        the_peer_is_the_guest,
        credentials_are_passed,
        a_pair_has_no_name,
        a_full_backlog_blocks_and_nonblocking_is_eagain,
        a_removed_name_cannot_be_connected,
        a_renamed_name_can_be_connected,
        the_umask_applies_to_a_bound_socket,
    }
    in_guest at USER {
        a_socket_without_write_permission_is_eacces,
        binding_in_a_protected_directory_is_eacces,
    }
    in_guest at ANYONE {
        an_absolute_name_is_told_as_it_was_given,
        a_name_of_108_bytes_needs_no_end,
        datagrams_to_a_path_tell_who_sent_them,
        many_datagrams_go_to_paths_in_one_call,
        a_socket_bound_where_one_was_removed_is_the_new_one,
        a_waiting_connect_is_let_in,
    }
}

/// The standard library hides errnos behind kinds; this gets them back.
fn errno<T>(result: std::io::Result<T>) -> Result<T, Errno> {
    result.map_err(|e| Errno::from_io_error(&e).expect("an errno"))
}

fn a_bound_socket_is_a_file_and_can_be_connected() {
    let listener = works(UnixListener::bind("socket"));
    assert!(works(fs::metadata("socket")).file_type().is_socket());
    let mut client = works(UnixStream::connect("socket"));
    let (mut server, _) = works(listener.accept());
    works(client.write_all(b"ping"));
    let mut bytes = [0; 4];
    works(server.read_exact(&mut bytes));
    assert_eq!(&bytes, b"ping");
    works(server.write_all(b"pong"));
    works(client.read_exact(&mut bytes));
    assert_eq!(&bytes, b"pong");
    drop(client);
    assert_eq!(works(server.read(&mut bytes)), 0, "the end is seen");
}

fn the_bound_name_is_told_as_it_was_given() {
    works(fs::create_dir("dir"));
    let listener = works(UnixListener::bind("./dir/../socket"));
    let told = works(listener.local_addr());
    assert_eq!(told.as_pathname(), Some("./dir/../socket".as_ref()));
    let client = works(UnixStream::connect("socket"));
    assert_eq!(works(client.peer_addr()).as_pathname(), Some("./dir/../socket".as_ref()));
    let (server, address) = works(listener.accept());
    assert!(address.is_unnamed() && works(server.peer_addr()).is_unnamed());
}

fn binding_what_exists_is_eaddrinuse() {
    works(fs::write("file", b""));
    fails(Errno::ADDRINUSE, errno(UnixListener::bind("file")));
    works(symlink("missing", "dangling"));
    fails(Errno::ADDRINUSE, errno(UnixListener::bind("dangling")));
    let _one = works(UnixListener::bind("socket"));
    fails(Errno::ADDRINUSE, errno(UnixListener::bind("socket")));
    fails(Errno::NOENT, errno(UnixListener::bind("missing/socket")));
    fails(Errno::NOTDIR, errno(UnixListener::bind("file/socket")));
}

fn connecting_to_what_nobody_listens_on_is_econnrefused() {
    drop(works(UnixListener::bind("socket")));
    fails(Errno::CONNREFUSED, errno(UnixStream::connect("socket")));
}

fn connecting_to_what_is_no_socket_is_econnrefused() {
    works(fs::write("file", b""));
    fails(Errno::CONNREFUSED, errno(UnixStream::connect("file")));
    fails(Errno::CONNREFUSED, errno(UnixStream::connect(".")));
    fails(Errno::NOTDIR, errno(UnixStream::connect("file/x")));
}

fn connecting_to_a_missing_name_is_enoent() {
    fails(Errno::NOENT, errno(UnixStream::connect("missing")));
    fails(Errno::NOENT, errno(UnixStream::connect("missing/socket")));
    works(symlink("self", "self"));
    fails(Errno::LOOP, errno(UnixStream::connect("self")));
}

fn connecting_with_the_wrong_type_is_eprototype() {
    let _listener = works(UnixListener::bind("socket"));
    let datagram = works(UnixDatagram::unbound());
    fails(Errno::PROTOTYPE, errno(datagram.connect("socket")));
}

fn a_name_of_107_bytes_works() {
    let name = "s".repeat(107);
    let listener = works(UnixListener::bind(&name));
    works(UnixStream::connect(&name));
    assert_eq!(works(listener.local_addr()).as_pathname(), Some(name.as_ref()));
    // 108 bytes without an end are legal for the kernel, but no library writes them.
    assert!(UnixListener::bind("s".repeat(109)).is_err());
}

fn an_absolute_name_is_told_as_it_was_given() {
    // Short enough for an address, unlike the directory of the test.
    let dir = std::env::temp_dir().join(format!("umvu-tests.{}", std::process::id()));
    works(fs::create_dir(&dir));
    let name = dir.join("socket");
    let listener = works(UnixListener::bind(&name));
    assert_eq!(works(listener.local_addr()).as_pathname(), Some(name.as_path()));
    let client = works(UnixStream::connect(&name));
    assert_eq!(works(client.peer_addr()).as_pathname(), Some(name.as_path()));
    let (one, two) = (works(UnixDatagram::bind(dir.join("one"))), works(UnixDatagram::unbound()));
    works(one.send_to(b"x", dir.join("one")));
    let (_, from) = works(one.recv_from(&mut [0; 1]));
    works(two.send_to(b"back", from.as_pathname().expect("a path")));
    assert_eq!(works(one.recv(&mut [0; 8])), 4);
    works(fs::remove_dir_all(&dir));
}

fn a_name_of_108_bytes_needs_no_end() {
    use rustix::net::{bind, connect, listen, socket, AddressFamily, SocketAddrUnix, SocketType};
    let name = "s".repeat(108);
    let address = works(SocketAddrUnix::new(&name));
    let stream = || works(socket(AddressFamily::UNIX, SocketType::STREAM, None));
    let listener = stream();
    works(bind(&listener, &address));
    works(listen(&listener, 1));
    works(connect(stream(), &address));
    assert!(works(fs::metadata(&name)).file_type().is_socket());
}

fn a_name_through_a_link_is_connected() {
    works(fs::create_dir_all("deep/er"));
    let _listener = works(UnixListener::bind("deep/er/socket"));
    works(symlink("deep/er", "link"));
    works(symlink("link/socket", "socket"));
    works(UnixStream::connect("link/socket"));
    works(UnixStream::connect("socket"));
}

fn abstract_names_have_no_file() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("umvu-tests.{}", std::process::id());
    let address = works(SocketAddr::from_abstract_name(&name));
    let listener = works(UnixListener::bind_addr(&address));
    works(UnixStream::connect_addr(&address));
    assert_eq!(works(listener.local_addr()).as_abstract_name(), Some(name.as_bytes()));
    assert_eq!(works(fs::read_dir(".")).count(), 0);
}

fn datagrams_go_to_a_path_and_tell_their_sender() {
    let (one, two) = (works(UnixDatagram::bind("one")), works(UnixDatagram::bind("two")));
    assert_eq!(works(one.send_to(b"hello", "two")), 5);
    let mut bytes = [0; 8];
    let (length, from) = works(two.recv_from(&mut bytes));
    assert_eq!(&bytes[..length], b"hello");
    assert_eq!(from.as_pathname(), Some("one".as_ref()));
    works(two.send_to(b"back", from.as_pathname().expect("a path")));
    assert_eq!(works(one.recv(&mut bytes)), 4);
    fails(Errno::NOENT, errno(one.send_to(b"x", "missing")));
    let to = works(UnixAddr::new("two"));
    works(sendmsg(one.as_raw_fd(), &[IoSlice::new(b"by sendmsg")], &[], MsgFlags::empty(), Some(&to)));
    assert_eq!(works(two.recv(&mut bytes)), 8, "a datagram is cut to the room there is");
}

fn descriptors_are_passed() {
    works(fs::write("file", b"contents"));
    let (one, two) = works(UnixStream::pair());
    let (file, dir) = (works(fs::File::open("file")), works(fs::File::open(".")));
    let fds = [file.as_raw_fd(), dir.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&fds)];
    works(sendmsg::<()>(one.as_raw_fd(), &[IoSlice::new(b"x")], &control, MsgFlags::empty(), None));
    let names = receive_and_use(&two);
    assert_eq!(names, 1);
}

/// Receives a file and a directory, reads the one and counts what the other lists.
fn receive_and_use(socket: &UnixStream) -> usize {
    let mut byte = [0; 1];
    let mut space = nix::cmsg_space!([i32; 2]);
    let mut parts = [IoSliceMut::new(&mut byte)];
    let message = works(recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC));
    let mut received = Vec::new();
    for control in works(message.cmsgs()) {
        if let ControlMessageOwned::ScmRights(fds) = control {
            received = fds;
        }
    }
    assert_eq!(received.len(), 2);
    let through = |fd: i32| format!("/proc/self/fd/{fd}");
    assert_eq!(works(fs::read(through(received[0]))), b"contents");
    works(fs::read_dir(through(received[1]))).count()
}

fn the_peer_is_the_guest() {
    let listener = works(UnixListener::bind("socket"));
    let client = works(UnixStream::connect("socket"));
    let (server, _) = works(listener.accept());
    for socket in [&client, &server] {
        let peer = works(getsockopt(socket, sockopt::PeerCredentials));
        assert_eq!(peer.pid(), i32::try_from(std::process::id()).expect("a pid"));
        assert_eq!(peer.uid(), nix::unistd::getuid().as_raw());
    }
}

fn credentials_are_passed() {
    let (one, two) = works(UnixDatagram::pair());
    works(setsockopt(&two, sockopt::PassCred, &true));
    works(one.send(b"x"));
    let mut byte = [0; 1];
    let mut space = nix::cmsg_space!(nix::sys::socket::UnixCredentials);
    let mut parts = [IoSliceMut::new(&mut byte)];
    let message = works(recvmsg::<()>(two.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty()));
    let pids: Vec<_> = works(message.cmsgs())
        .filter_map(|control| match control {
            ControlMessageOwned::ScmCredentials(who) => Some(who.pid()),
            _ => None,
        })
        .collect();
    assert_eq!(pids, [i32::try_from(std::process::id()).expect("a pid")]);
}

/// The process that sent a datagram, as the kernel tells it.
fn sender_of_datagram(socket: &UnixDatagram) -> Option<i32> {
    let mut byte = [0; 1];
    let mut space = nix::cmsg_space!(nix::sys::socket::UnixCredentials, [i32; 1]);
    let mut parts = [IoSliceMut::new(&mut byte)];
    let message = works(recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty()));
    let mut controls = works(message.cmsgs());
    controls.find_map(|control| match control {
        ControlMessageOwned::ScmCredentials(who) => Some(who.pid()),
        _ => None,
    })
}

fn datagrams_to_a_path_tell_who_sent_them() {
    let receiver = works(UnixDatagram::bind("receiver"));
    works(setsockopt(&receiver, sockopt::PassCred, &true));
    let sender = works(UnixDatagram::unbound());
    let own = i32::try_from(std::process::id()).ok();
    works(sender.send_to(b"x", "receiver"));
    assert_eq!(sender_of_datagram(&receiver), own);
    let fds = [sender.as_raw_fd()];
    let to = works(UnixAddr::new("receiver"));
    let control = [ControlMessage::ScmRights(&fds)];
    works(sendmsg(sender.as_raw_fd(), &[IoSlice::new(b"x")], &control, MsgFlags::empty(), Some(&to)));
    assert_eq!(sender_of_datagram(&receiver), own);
}

fn many_datagrams_go_to_paths_in_one_call() {
    use nix::sys::socket::{sendmmsg, MultiHeaders};
    let receiver = works(UnixDatagram::bind("receiver"));
    let sender = works(UnixDatagram::unbound());
    let to = works(UnixAddr::new("receiver"));
    let parts = [[IoSlice::new(b"one")], [IoSlice::new(b"three")]];
    let mut headers = MultiHeaders::preallocate(2, None);
    let sent: Vec<usize> =
        works(sendmmsg(sender.as_raw_fd(), &mut headers, &parts, [Some(to), Some(to)], [], MsgFlags::empty()))
            .map(|message| message.bytes)
            .collect();
    assert_eq!(sent, [3, 5]);
    for length in [3, 5] {
        assert_eq!(works(receiver.recv(&mut [0; 8])), length);
    }
}

fn a_socket_bound_where_one_was_removed_is_the_new_one() {
    let old = works(UnixListener::bind("socket"));
    works(fs::remove_file("socket"));
    let new = works(UnixListener::bind("socket"));
    drop(old);
    works(UnixStream::connect("socket"));
    works(new.accept());
    assert_eq!(works(fs::read_dir(".")).count(), 1);
}

fn a_waiting_connect_is_let_in() {
    use nix::sys::socket::{bind, listen, socket, AddressFamily, Backlog, SockFlag, SockType};
    let listener = works(socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None));
    works(bind(listener.as_raw_fd(), &works(UnixAddr::new("socket"))));
    works(listen(&listener, works(Backlog::new(0))));
    let listener = UnixListener::from(listener);
    let clients: Vec<_> = (0..20).map(|_| std::thread::spawn(|| works(UnixStream::connect("socket")))).collect();
    for _ in &clients {
        works(listener.accept());
    }
    for client in clients {
        client.join().expect("a client");
    }
}

fn a_pair_has_no_name() {
    let (one, _two) = works(UnixStream::pair());
    assert!(works(one.local_addr()).is_unnamed());
}

fn a_full_backlog_blocks_and_nonblocking_is_eagain() {
    use nix::sys::socket::{bind, connect, listen, socket, AddressFamily, Backlog, SockFlag, SockType};
    let stream = |flags| works(socket(AddressFamily::Unix, SockType::Stream, flags, None));
    let listener = stream(SockFlag::empty());
    let address = works(UnixAddr::new("socket"));
    works(bind(listener.as_raw_fd(), &address));
    works(listen(&listener, works(Backlog::new(0))));
    let first = stream(SockFlag::empty());
    works(connect(first.as_raw_fd(), &address));
    let second = stream(SockFlag::SOCK_NONBLOCK);
    assert_eq!(connect(second.as_raw_fd(), &address).err(), Some(nix::errno::Errno::EAGAIN));
}

fn a_removed_name_cannot_be_connected() {
    let _listener = works(UnixListener::bind("socket"));
    works(fs::remove_file("socket"));
    fails(Errno::NOENT, errno(UnixStream::connect("socket")));
}

fn a_renamed_name_can_be_connected() {
    let listener = works(UnixListener::bind("socket"));
    works(fs::rename("socket", "renamed"));
    works(UnixStream::connect("renamed"));
    works(listener.accept());
}

fn the_umask_applies_to_a_bound_socket() {
    use std::os::unix::fs::PermissionsExt;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let _listener = works(UnixListener::bind("socket"));
    assert_eq!(works(fs::metadata("socket")).permissions().mode() & 0o777, 0o700);
}

fn a_socket_without_write_permission_is_eacces() {
    use std::os::unix::fs::PermissionsExt;
    let _listener = works(UnixListener::bind("socket"));
    works(fs::set_permissions("socket", fs::Permissions::from_mode(0o500)));
    fails(Errno::ACCESS, errno(UnixStream::connect("socket")));
}

fn binding_in_a_protected_directory_is_eacces() {
    fails(Errno::ACCESS, errno(UnixListener::bind("/etc/umvu-tests.socket")));
}
