//! Facts about memory, descriptors and state numbers of guests.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};

use rustix::mm::{mmap_anonymous, munmap, MapFlags, ProtFlags};
use rustix::process::{getrlimit, Resource, Rlimit, Signal};
use umvu_sys::guest::{
    open_thread, read_memory, read_memory_vec, set_state_number, state_number, take_fd, write_memory,
};
use umvu_sys::process::{exec, exit_now, fork, Forked};
use umvu_sys::Errno;

use crate::guest::{await_byte, call, pipe, wait, Guest};

const GETPPID: &[i64] = &[libc::SYS_getppid];
/// Above what Linux lets a process number be: `PID_MAX_LIMIT` of linux/threads.h.
const NOBODY: u32 = 1 << 22;

crate::facts![
    memory_of_a_guest_is_read,
    pieces_of_memory_are_read_one_after_the_other,
    a_read_ends_where_the_memory_does,
    memory_of_a_guest_is_written,
    memory_a_guest_cannot_write_is_not_written,
    memory_of_the_caller_is_not_written,
    nobody_has_no_memory_descriptors_or_state,
    a_descriptor_of_a_guest_is_taken,
    a_thread_that_is_no_leader_can_be_opened,
    a_state_number_survives_fork_and_thread,
    a_state_number_survives_exec,
    a_state_number_keeps_the_hard_limit,
];

fn pass(args: [u64; 6]) -> Result<i64, Errno> {
    call(libc::SYS_getppid, args)
}

fn address_of<T: ?Sized>(value: &T) -> u64 {
    std::ptr::from_ref(value).cast::<u8>() as u64
}

/// Two pages of which the second is not mapped; returns the address of the second.
fn edge() -> u64 {
    let start = mapping(ProtFlags::READ | ProtFlags::WRITE);
    let second = std::ptr::without_provenance_mut(start as usize + 4096);
    // SAFETY: the page is ours, and nothing refers to it.
    unsafe { munmap(second, 4096) }.unwrap();
    start + 4096
}

fn mapping(protection: ProtFlags) -> u64 {
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing.
    let start = unsafe { mmap_anonymous(std::ptr::null_mut(), 8192, protection, MapFlags::PRIVATE) };
    start.unwrap() as u64
}

fn memory_of_a_guest_is_read() {
    let text = b"below the stack".to_vec();
    let guest = Guest::start(GETPPID, || i32::from(pass([address_of(&text[..]), 0, 0, 0, 0, 0]).is_err()));
    let call = guest.next();
    let mut buffer = [0; 15];
    assert_eq!(read_memory(call.tid, call.args[0], &mut buffer), Ok(15));
    assert_eq!(&buffer, b"below the stack");
    assert_eq!(read_memory(call.tid, call.args[0], &mut []), Ok(0));
    assert_eq!(read_memory(call.tid, 0, &mut buffer), Err(Errno::FAULT));
    assert_eq!(read_memory(call.tid, u64::MAX, &mut buffer), Err(Errno::FAULT));
    guest.listener.answer(call.id, Ok(0)).unwrap();
    guest.ends_well();
}

fn pieces_of_memory_are_read_one_after_the_other() {
    let (first, second) = (b"abcdef".to_vec(), b"uvwxyz".to_vec());
    let args = [address_of(&first[..]), address_of(&second[..]), 0, 0, 0, 0];
    let guest = Guest::start(GETPPID, || i32::from(pass(args).is_err()));
    let call = guest.next();
    let mut buffer = [0; 6];
    let pieces = [(call.args[1], 3), (call.args[0], 2)];
    assert_eq!(read_memory_vec(call.tid, &pieces, &mut buffer), Ok(5));
    assert_eq!(&buffer, b"uvwab\0");
    assert_eq!(read_memory_vec(call.tid, &[(call.args[0], 2), (0, 2)], &mut buffer), Ok(2));
    guest.listener.answer(call.id, Ok(0)).unwrap();
    guest.ends_well();
}

fn a_read_ends_where_the_memory_does() {
    let guest = Guest::start(GETPPID, || i32::from(pass([edge(), 0, 0, 0, 0, 0]).is_err()));
    let call = guest.next();
    let mut buffer = [1; 4096];
    assert_eq!(read_memory(call.tid, call.args[0] - 10, &mut buffer), Ok(10));
    assert_eq!(&buffer[..11], &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(read_memory(call.tid, call.args[0], &mut buffer), Err(Errno::FAULT));
    guest.listener.answer(call.id, Ok(0)).unwrap();
    guest.ends_well();
}

fn memory_of_a_guest_is_written() {
    let guest = Guest::start(GETPPID, || {
        let mut buffer = [0_u8; 8];
        let address = std::ptr::from_mut(&mut buffer).cast::<u8>().expose_provenance() as u64;
        pass([address, 0, 0, 0, 0, 0]).unwrap();
        i32::from(std::hint::black_box(buffer) != *b"written\0")
    });
    let call = guest.next();
    assert_eq!(write_memory(call.tid, call.args[0], b"written"), Ok(7));
    assert_eq!(write_memory(call.tid, 0, b"written"), Err(Errno::FAULT));
    guest.listener.answer(call.id, Ok(0)).unwrap();
    guest.ends_well();
}

fn memory_a_guest_cannot_write_is_not_written() {
    let guest = Guest::start(GETPPID, || {
        let readable = mapping(ProtFlags::READ);
        i32::from(pass([readable, edge(), 0, 0, 0, 0]).is_err())
    });
    let call = guest.next();
    assert_eq!(write_memory(call.tid, call.args[0], b"no"), Err(Errno::FAULT));
    assert_eq!(write_memory(call.tid, call.args[1] - 1, b"no"), Ok(1));
    guest.listener.answer(call.id, Ok(0)).unwrap();
    guest.ends_well();
}

fn memory_of_the_caller_is_not_written() {
    let buffer = [0_u8; 2];
    assert_eq!(write_memory(std::process::id(), address_of(&buffer), b"no"), Err(Errno::SRCH));
    assert_eq!(buffer, [0; 2]);
}

fn nobody_has_no_memory_descriptors_or_state() {
    for tid in [0, NOBODY, u32::MAX] {
        assert_eq!(read_memory(tid, 1, &mut [0]), Err(Errno::SRCH));
        assert_eq!(write_memory(tid, 1, &[0]), Err(Errno::SRCH));
        assert_eq!(state_number(tid), Err(Errno::SRCH));
        assert_eq!(set_state_number(tid, 1), Err(Errno::SRCH));
        // the kernel says EINVAL for what cannot be a number at all, and we then look for its process in vain
        assert_eq!(open_thread(tid).err(), Some(Errno::SRCH));
    }
}

fn a_descriptor_of_a_guest_is_taken() {
    let guest = Guest::start(GETPPID, || {
        let (_read, write) = pipe();
        let number = u64::try_from(write.as_raw_fd()).unwrap();
        i32::from(pass([number, 0, 0, 0, 0, 0]).is_err())
    });
    let call = guest.next();
    let thread = open_thread(call.tid).unwrap();
    let taken = take_fd(thread.as_fd(), call.args[0].try_into().unwrap()).unwrap();
    assert!(rustix::io::fcntl_getfd(&taken).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    assert_eq!(rustix::io::write(&taken, b"x"), Ok(1));
    assert_eq!(take_fd(thread.as_fd(), 9999).err(), Some(Errno::BADF));
    guest.listener.answer(call.id, Ok(0)).unwrap();
    guest.ends_well();
}

fn a_thread_that_is_no_leader_can_be_opened() {
    let guest = Guest::start(GETPPID, || {
        let (_read, write) = pipe();
        let number = u64::try_from(write.as_raw_fd()).unwrap();
        std::thread::spawn(move || i32::from(pass([number, 0, 0, 0, 0, 0]).is_err())).join().unwrap()
    });
    let call = guest.next();
    assert_ne!(call.tid, guest.pid);
    let thread = open_thread(call.tid).unwrap();
    take_fd(thread.as_fd(), call.args[0].try_into().unwrap()).unwrap();
    guest.listener.answer(call.id, Ok(0)).unwrap();
    guest.ends_well();
}

fn a_state_number_survives_fork_and_thread() {
    let guest = Guest::start(GETPPID, || {
        pass([0; 6]).unwrap();
        match fork().unwrap() {
            Forked::Child => exit_now(std::thread::spawn(|| i32::from(pass([0; 6]).is_err())).join().unwrap()),
            Forked::Parent(child) => wait(child).exit_status().unwrap_or(102),
        }
    });
    let call = guest.next();
    set_state_number(call.tid, 0x1_0000_0001).unwrap();
    assert_eq!(state_number(call.tid), Ok(0x1_0000_0001));
    guest.listener.answer(call.id, Ok(0)).unwrap();
    let call = guest.next();
    assert_ne!(call.tid, guest.pid);
    assert_eq!(state_number(call.tid), Ok(0x1_0000_0001), "in a thread of a child");
    set_state_number(call.tid, 2).unwrap();
    assert_eq!(state_number(guest.pid), Ok(0x1_0000_0001), "the parent keeps its own");
    guest.listener.answer(call.id, Ok(0)).unwrap();
    guest.ends_well();
}

fn a_state_number_survives_exec() {
    let (executed, mut executed_in) = pipe();
    let mut guest = Guest::start(GETPPID, || {
        pass([0; 6]).unwrap();
        executed_in.write_all(b"r").unwrap();
        exec(c"/bin/sleep", &[c"sleep".into(), c"1000".into()], &[]);
        103
    });
    let call = guest.next();
    set_state_number(call.tid, 77).unwrap();
    guest.listener.answer(call.id, Ok(0)).unwrap();
    drop(executed_in);
    assert_eq!(await_byte(&executed), Some(b'r'));
    assert_eq!(await_byte(&executed), None, "the program that is executed closes the guest's end");
    assert_eq!(state_number(guest.pid), Ok(77));
    guest.kill(Signal::KILL);
    assert_eq!(guest.wait().terminating_signal(), Some(libc::SIGKILL));
}

fn a_state_number_keeps_the_hard_limit() {
    let guest = Guest::start(GETPPID, || {
        rustix::process::setrlimit(Resource::Locks, Rlimit { current: Some(3), maximum: Some(1000) }).unwrap();
        pass([0; 6]).unwrap();
        i32::from(getrlimit(Resource::Locks) != Rlimit { current: Some(1000), maximum: Some(1000) })
    });
    let call = guest.next();
    assert_eq!(state_number(call.tid), Ok(3));
    assert_eq!(set_state_number(call.tid, 1001), Err(Errno::INVAL));
    set_state_number(call.tid, 1000).unwrap();
    guest.listener.answer(call.id, Ok(0)).unwrap();
    guest.ends_well();
}
