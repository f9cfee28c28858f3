//! The driver against small servers on the other end of the socket: good ones, silent ones, and those that lie.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::Arc;

use rustix::net::{recv, send, RecvFlags, SendFlags, SocketFlags};
use umvu_driver::{Driver, Keep, ROOT};
use umvu_interface::{
    Caller, Capabilities, Credentials, Errno, FileKind, Ids, Name, OFlags, Origin, RemoveKind, Result, Unsaid,
};

use crate::abi::{Attr, AttrOut, Dirent, EntryOut, InHeader, InitOut, Opcode, OpenOut, OutHeader, ReadIn, Wire};
use crate::abi::{WriteIn, WriteOut};
use crate::connection::Connection;
use crate::driver::Served;
use crate::options::Options;

/// What a server says to a request: an answer, an error, nothing, or bytes of its own making.
pub enum Says {
    Body(Vec<u8>),
    Error(i32),
    Nothing,
    Raw(Vec<u8>),
}

/// A request as the server got it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub header: InHeader,
    pub body: Vec<u8>,
}

impl Asked {
    fn is(&self, opcode: Opcode) -> bool {
        self.header.opcode == opcode.number()
    }
}

/// A mounted server, and the requests it has got.
pub struct Bed {
    pub served: Served,
    asked: Receiver<Asked>,
    /// Dropped, it ends the server.
    server: std::thread::JoinHandle<()>,
}

fn options() -> Options {
    Options {
        descriptor: 0,
        root_mode: FileKind::Directory.bits(),
        user: 1000,
        group: 1000,
        default_permissions: false,
        allow_other: false,
        max_read: None,
        is_block: false,
        block_size: None,
        subtype: None,
    }
}

fn init() -> Says {
    let out = InitOut { major: 7, minor: 31, max_write: 1 << 20, ..InitOut::default() };
    Says::Body(out.bytes())
}

fn serve(fd: &OwnedFd, log: &Sender<Asked>, mut answer: impl FnMut(&Asked) -> Says) {
    let mut buffer = vec![0; 1 << 20];
    loop {
        let Ok((length, _)) = recv(fd, &mut buffer[..], RecvFlags::empty()) else { return };
        if length == 0 {
            return;
        }
        let mut rest = &buffer[..length];
        let header = InHeader::take(&mut rest).unwrap();
        assert_eq!(usize::try_from(header.len), Ok(length));
        let asked = Asked { header, body: rest.to_vec() };
        let _ = log.send(asked.clone());
        let says = if asked.is(Opcode::Init) { init() } else { answer(&asked) };
        let (error, body) = match says {
            Says::Nothing => continue,
            Says::Body(body) => (0, body),
            Says::Error(error) => (error, vec![]),
            Says::Raw(bytes) => {
                let _ = send(fd, &bytes, SendFlags::NOSIGNAL);
                continue;
            }
        };
        let len = u32::try_from(OutHeader::SIZE + body.len()).unwrap();
        let reply = [OutHeader { len, error, unique: header.unique }.bytes(), body].concat();
        let _ = send(fd, &reply, SendFlags::NOSIGNAL);
    }
}

fn bed_with(options: Options, answer: impl FnMut(&Asked) -> Says + Send + 'static) -> Bed {
    let (connection, fd) = Connection::open(SocketFlags::empty()).unwrap();
    let (log, asked) = channel();
    let server = std::thread::spawn(move || serve(&fd, &log, answer));
    connection.begin(|_| {}).unwrap();
    let served = Served::new(connection, options, Arc::default(), Arc::new(Unsaid));
    Bed { served, asked, server }
}

pub fn bed(answer: impl FnMut(&Asked) -> Says + Send + 'static) -> Bed {
    bed_with(options(), answer)
}

fn credentials(id: u32) -> Credentials {
    Credentials {
        uid: Ids::all(id),
        gid: Ids::all(id),
        groups: [].into(),
        capabilities: Capabilities::none(),
        securebits: 0,
        origin: Origin::Host,
        namespace: None,
    }
}

pub fn as_user<T>(id: u32, body: impl FnOnce(&Caller<'_>) -> T) -> T {
    body(&Caller { tid: 0, credentials: &credentials(id), umask: 0o22 })
}

fn attr(mode: u32) -> Attr {
    Attr { ino: 9, mode, nlink: 1, size: 5, ..Attr::default() }
}

fn entry(node: u64, mode: u32) -> Vec<u8> {
    EntryOut { nodeid: node, entry_valid: 1, attr: attr(mode), ..EntryOut::default() }.bytes()
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn stat(bed: &Bed) -> Result<u32> {
    as_user(1000, |who| bed.served.stat(who, ROOT)).map(|told| told.stat.mode)
}

#[test]
fn a_file_is_found_opened_read_written_and_released() {
    let Bed { served, asked, server } = bed(|asked| match asked.header.opcode {
        1 => Says::Body(entry(2, 0o100_644)),
        14 => Says::Body(OpenOut { fh: 77, ..OpenOut::default() }.bytes()),
        15 => {
            let read = ReadIn::whole(&asked.body).unwrap();
            assert_eq!(read.fh, 77);
            let left = 300_000u64.saturating_sub(read.offset).min(u64::from(read.size));
            Says::Body(vec![7; usize::try_from(left).unwrap()])
        }
        16 => {
            let mut rest = &asked.body[..];
            let write = WriteIn::take(&mut rest).unwrap();
            assert_eq!(usize::try_from(write.size), Ok(rest.len()));
            Says::Body(WriteOut { size: write.size, padding: 0 }.bytes())
        }
        _ => Says::Error(-38),
    });
    as_user(1000, |who| {
        let found = served.lookup(who, ROOT, &name("file")).unwrap();
        assert_eq!((found.node, found.told.stat.size), (2, 5));
        let file = served.open(who, found.node, OFlags::RDWR).unwrap();
        assert_eq!(file.keep(), Keep::SinceOpened);
        let mut buffer = vec![0; 400_000];
        assert_eq!(file.read_at(0, &mut buffer), Ok(300_000));
        assert!(buffer[..300_000].iter().all(|byte| *byte == 7));
        file.write_at(1, &vec![1; 200_000]).unwrap();
        // What the server does not know is no error.
        file.flush().unwrap();
        file.sync().unwrap();
        assert_eq!(file.contents_at(0), Err(Errno::OPNOTSUPP));
        drop(file);
        served.forget(found.node, 1);
    });
    drop(served);
    server.join().unwrap();
    let all: Vec<u32> = asked.into_iter().map(|asked| asked.header.opcode).collect();
    for (opcode, times) in [
        (Opcode::Lookup, 1),
        (Opcode::Open, 1),
        (Opcode::Release, 1),
        (Opcode::Forget, 1),
        (Opcode::Destroy, 1),
        (Opcode::Write, 2),
    ] {
        assert_eq!(all.iter().filter(|o| **o == opcode.number()).count(), times, "{opcode:?} in {all:?}");
    }
}

#[test]
fn what_a_server_does_not_know_is_asked_once() {
    let Bed { served, asked, server } = bed(|_| Says::Error(-38));
    as_user(1000, |who| {
        for _ in 0..3 {
            assert_eq!(served.get_xattr(who, 2, b"user.a"), Err(Errno::OPNOTSUPP));
        }
    });
    drop(served);
    server.join().unwrap();
    assert_eq!(asked.into_iter().filter(|asked| asked.is(Opcode::GetXattr)).count(), 1);
}

#[test]
fn answers_that_make_no_sense_are_eio() {
    let header = |asked: &Asked, len: u32, error: i32| OutHeader { len, error, unique: asked.header.unique }.bytes();
    type Lie = Box<dyn Fn(&Asked) -> Says + Send>;
    let lies: Vec<Lie> = vec![
        Box::new(|_| Says::Body(vec![])),
        Box::new(|_| Says::Body(vec![0; 104])),
        Box::new(|_| Says::Body(vec![0; 3000])),
        Box::new(|_| Says::Error(5)),
        Box::new(|_| Says::Error(-512)),
        Box::new(|_| Says::Error(i32::MIN)),
        Box::new(move |asked| Says::Raw(header(asked, 17, 0))),
        Box::new(move |asked| Says::Raw(header(asked, 0, 0))),
        Box::new(move |asked| Says::Raw([header(asked, 17, -2), vec![0]].concat())),
        Box::new(move |asked| Says::Raw([header(asked, u32::MAX, 0), vec![0; 104]].concat())),
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        let bed = bed(move |asked| if asked.is(Opcode::GetAttr) { lie(asked) } else { Says::Error(-38) });
        assert_eq!(stat(&bed), Err(Errno::IO), "lie {number}");
    }
}

#[test]
fn noise_is_passed_over() {
    let bed = bed(|asked| match asked.header.opcode {
        3 => {
            let attr = AttrOut { attr: attr(0o40_755), ..AttrOut::default() }.bytes();
            let len = u32::try_from(OutHeader::SIZE + attr.len()).unwrap();
            Says::Raw([OutHeader { len, error: 0, unique: asked.header.unique }.bytes(), attr].concat())
        }
        // Answers to what nobody has asked, to nothing, and notifications that are none.
        15 => Says::Raw(vec![]),
        14 => Says::Raw(vec![1, 2, 3]),
        18 => Says::Raw(OutHeader { len: 16, error: 99, unique: 0 }.bytes()),
        38 => Says::Error(-38),
        _ => Says::Raw(OutHeader { len: 16, error: 0, unique: 123_456 }.bytes()),
    });
    for opcode in [Opcode::Read, Opcode::Open, Opcode::Release, Opcode::Flush] {
        bed.served.tell(opcode);
    }
    assert_eq!(stat(&bed), Ok(0o40_755));
}

#[test]
fn who_waits_for_a_server_that_ends_is_told_so() {
    let is_asked = Arc::new(AtomicBool::new(false));
    let seen = is_asked.clone();
    let (connection, fd) = Connection::open(SocketFlags::empty()).unwrap();
    let (log, _asked) = channel();
    connection.begin(|_| {}).unwrap();
    let served = Served::new(connection, options(), Arc::default(), Arc::new(Unsaid));
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| as_user(1000, |who| served.stat(who, ROOT).map(drop)));
        scope.spawn(move || {
            serve(&fd, &log, |asked| {
                assert!(asked.is(Opcode::GetAttr));
                seen.store(true, Ordering::Release);
                // It ends in the middle of its work.
                rustix::net::shutdown(&fd, rustix::net::Shutdown::Both).unwrap();
                Says::Nothing
            });
        });
        assert_eq!(waits.join().unwrap(), Err(Errno::CONNABORTED));
    });
    assert!(is_asked.load(Ordering::Acquire));
    assert_eq!(as_user(1000, |who| served.stat(who, ROOT)).err(), Some(Errno::NOTCONN));
}

#[test]
fn only_who_has_mounted_is_admitted() {
    let bed = bed(|_| Says::Body(AttrOut { attr: attr(0o40_755), ..AttrOut::default() }.bytes()));
    assert_eq!(as_user(1001, |who| bed.served.stat(who, ROOT)).err(), Some(Errno::ACCESS));
    assert_eq!(as_user(0, |who| bed.served.stat(who, ROOT)).err(), Some(Errno::ACCESS));
    assert!(stat(&bed).is_ok());
    let open = bed_with(Options { allow_other: true, ..options() }, |_| {
        Says::Body(AttrOut { attr: attr(0o40_755), ..AttrOut::default() }.bytes())
    });
    assert!(as_user(1001, |who| open.served.stat(who, ROOT)).is_ok());
}

#[test]
fn a_listing_is_read_to_its_end() {
    let bed = bed(|asked| match asked.header.opcode {
        27 => Says::Body(OpenOut { fh: 3, ..OpenOut::default() }.bytes()),
        28 => {
            let read = ReadIn::whole(&asked.body).unwrap();
            if read.offset >= 1000 {
                return Says::Body(vec![]);
            }
            let mut out = vec![];
            for number in read.offset..1000 {
                let name = format!("entry-{number}");
                let size = (24 + name.len()).next_multiple_of(8);
                if out.len() + size > usize::try_from(read.size).unwrap() {
                    break;
                }
                let namelen = u32::try_from(name.len()).unwrap();
                let start = out.len();
                Dirent { ino: number + 2, off: number + 1, namelen, r#type: 8 }.put(&mut out);
                out.extend_from_slice(name.as_bytes());
                out.resize(start + size, 0);
            }
            Says::Body(out)
        }
        _ => Says::Error(-38),
    });
    let entries = as_user(1000, |who| bed.served.read_dir(who, ROOT)).unwrap();
    assert_eq!(entries.len(), 1000);
    assert_eq!(&*entries[999].name, b"entry-999");
}

#[test]
fn a_server_of_another_version_is_refused() {
    let (connection, fd) = Connection::open(SocketFlags::empty()).unwrap();
    connection.begin(|_| {}).unwrap();
    let served = Served::new(connection, options(), Arc::default(), Arc::new(Unsaid));
    let mut buffer = vec![0; 4096];
    let (length, _) = recv(&fd, &mut buffer[..], RecvFlags::empty()).unwrap();
    let header = InHeader::take(&mut &buffer[..length]).unwrap();
    let body = InitOut { major: 6, ..InitOut::default() }.bytes();
    let reply = OutHeader { len: 80, error: 0, unique: header.unique }.bytes();
    send(&fd, &[reply, body].concat(), SendFlags::NOSIGNAL).unwrap();
    assert_eq!(as_user(1000, |who| served.remove(who, ROOT, &name("x"), RemoveKind::File)), Err(Errno::CONNREFUSED));
}

#[test]
fn many_objects_are_forgotten_at_once_when_the_server_is_slow() {
    let (connection, fd) = Connection::open(SocketFlags::empty()).unwrap();
    connection.begin(|_| {}).unwrap();
    let (log, asked) = channel();
    let served = Served::new(connection, options(), Arc::default(), Arc::new(Unsaid));
    let first = std::thread::scope(|scope| {
        let waits = scope.spawn(|| stat_of(&served));
        let mut buffer = vec![0; 4096];
        for body in [
            InitOut { major: 7, minor: 31, ..InitOut::default() }.bytes(),
            AttrOut { attr: attr(0o40_755), ..AttrOut::default() }.bytes(),
        ] {
            let (length, _) = recv(&fd, &mut buffer[..], RecvFlags::empty()).unwrap();
            let header = InHeader::take(&mut &buffer[..length]).unwrap();
            let len = u32::try_from(16 + body.len()).unwrap();
            send(
                &fd,
                &[OutHeader { len, error: 0, unique: header.unique }.bytes(), body].concat(),
                SendFlags::NOSIGNAL,
            )
            .unwrap();
        }
        waits.join().unwrap()
    });
    assert!(first.is_ok());
    // Nobody reads: soon they have to wait.
    for node in 2..50_002 {
        served.forget(node, 3);
    }
    let server = std::thread::spawn(move || serve(&fd, &log, |_| Says::Body(vec![])));
    // What is collected is not sent at the end any more. It follows the first of these, and the second follows it.
    for _ in 0..2 {
        assert!(stat_of(&served).is_err(), "an answer without attributes");
    }
    drop(served);
    server.join().unwrap();
    let mut forgotten = 0;
    let mut batches = 0;
    for asked in asked {
        if asked.is(Opcode::Forget) {
            forgotten += 1;
        } else if asked.is(Opcode::BatchForget) {
            batches += 1;
            forgotten += (asked.body.len() - 8) / 16;
        }
    }
    assert_eq!(forgotten, 50_000);
    assert!(batches > 0);
}

fn stat_of(served: &Served) -> Result<()> {
    as_user(1000, |who| served.stat(who, ROOT)).map(drop)
}

impl Served {
    /// Sends a request for its own sake.
    fn tell(&self, opcode: Opcode) {
        self.connection().tell(&crate::connection::Asker::default(), opcode, 2, &[]);
    }
}
