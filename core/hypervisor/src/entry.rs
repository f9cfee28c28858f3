//! Which call a notification is: by which entry it came, and what its registers mean as a call of x86_64. Knows no
//! particular call but the one that stands for several.

use umvu_interface::Errno;
use umvu_sys::seccomp::Notification;
use umvu_table::i386::{self, Abi, Form, Meaning};
use umvu_table::{Condition, Tier};

use crate::guest;
use umvu_table::{ARCH_I386 as I386, ARCH_X86_64 as X86_64};

/// Bit of the x32 entry.
const X32: u32 = 0x4000_0000;

/// What a guest asks for.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// What is to be done about it.
    pub call: Asked,
    /// Arguments of the x86_64 call.
    pub arguments: [u64; 6],
    /// How what they point to is laid out.
    pub abi: Abi,
}

/// What is to be done about a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The x86_64 call of this number.
    Call(u32),
    /// It is the kernel's own.
    Native,
    /// The guest sees this errno.
    Refused(Errno),
}

impl Request {
    /// Reads what a notification means.
    pub fn of(notification: &Notification) -> Self {
        let number = u32::from_ne_bytes(notification.nr.to_ne_bytes());
        let plain = |call| Self { call, arguments: notification.args, abi: Abi::X86_64 };
        match notification.arch {
            // A negative number is none of x32 either.
            X86_64 if number & X32 == 0 || notification.nr < 0 => plain(Asked::Call(number)),
            I386 => of_i386(notification, number),
            _ => {
                static WARNED: std::sync::Once = std::sync::Once::new();
                WARNED.call_once(|| {
                    let tid = notification.tid;
                    tracing::warn!(tid, "refused a call by the x32 entry: x32 programs do not run in a view");
                });
                plain(Asked::Refused(Errno::NOSYS))
            }
        }
    }

    /// The number of the x86_64 call.
    pub fn number(&self) -> Option<u32> {
        match self.call {
            Asked::Call(number) => Some(number),
            Asked::Native | Asked::Refused(_) => None,
        }
    }
}

fn of_i386(notification: &Notification, number: u32) -> Request {
    // The kernel gives what was in 32-bit registers: arch/x86/include/asm/syscall.h.
    let words = notification.args.map(|word| u32::try_from(word & 0xffff_ffff).unwrap_or(u32::MAX));
    let request = |call, arguments, form| Request { call, arguments, abi: Abi::I386(form) };
    let plain = |call| request(call, words.map(u64::from), Form::Wide);
    if number == umvu_table::VU_CALL {
        return plain(Asked::Call(number));
    }
    // Unknown numbers are not those of x86_64.
    let Some(row) = i386::row(number) else {
        // As in `handlers::dispatch`.
        if i32::try_from(number).is_ok() {
            tracing::warn!(
                tid = notification.tid,
                nr = number,
                "refused a 32-bit system call that the table does not know"
            );
        }
        return plain(Asked::Refused(Errno::NOSYS));
    };
    let (call, arguments, form) = match row.meaning {
        Meaning::Native => return plain(Asked::Native),
        Meaning::Refused(errno) => return plain(Asked::Refused(Errno::from_raw_os_error(errno))),
        Meaning::Call { form, .. } => (row.call(), row.arguments(&words), form),
        Meaning::Multiplexed(_) => match read_words(notification.tid, words[1]) {
            Ok(arguments) => (row.multiplexed(words[0]), arguments, Form::Wide),
            // The kernel reads as many words as the call has, and says what is wrong with them.
            Err(_) => return plain(Asked::Native),
        },
    };
    let asked = match call.map(|call| (call.tier, call.number)) {
        // Where processes are numbered anew, all of these are notified; their handlers know when nothing is to be done.
        Some((Tier::Number, number)) => Asked::Call(number),
        Some((Tier::Notify(_), number)) if call.and_then(|call| call.family) == Some("spawn") => Asked::Call(number),
        Some((Tier::Notify(condition), number)) if condition == Condition::Always || condition.holds(&arguments) => {
            Asked::Call(number)
        }
        Some((Tier::Refuse(errno, _), _)) => Asked::Refused(Errno::from_raw_os_error(errno)),
        _ => Asked::Native,
    };
    request(asked, arguments, form)
}

/// Reads the words of one of several calls: six, or as many as there are.
fn read_words(tid: u32, address: u32) -> umvu_interface::Result<[u64; 6]> {
    let bytes = guest::read_some(tid, u64::from(address), 24)?;
    let mut words = [0; 6];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u64::from(u32::from_ne_bytes(bytes.try_into().unwrap_or_default()));
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(arch: u32, nr: i32, args: [u64; 6]) -> Request {
        Request::of(&Notification { id: 0, tid: 0, nr, arch, instruction_pointer: 0, args })
    }

    #[test]
    fn a_number_means_what_its_entry_says() {
        assert_eq!(request(X86_64, 5, [0; 6]).call, Asked::Call(5));
        let open = request(I386, 5, [7; 6]);
        assert_eq!((open.call, open.arguments, open.abi), (Asked::Call(2), [7; 6], Abi::I386(Form::Wide)));
        let stat = request(I386, 106, [7; 6]);
        assert_eq!((stat.call, stat.abi), (Asked::Call(4), Abi::I386(Form::Narrow)));
        assert_eq!(request(X86_64, 0x4000_0002, [0; 6]).call, Asked::Refused(Errno::NOSYS));
        assert_eq!(request(0xc000_00b7, 2, [0; 6]).call, Asked::Refused(Errno::NOSYS));
        assert_eq!(request(I386, 500, [0; 6]).call, Asked::Refused(Errno::NOSYS));
        assert_eq!(request(I386, 425, [0; 6]).call, Asked::Refused(Errno::NOSYS));
    }

    #[test]
    fn conditions_are_those_of_the_x86_64_call() {
        assert_eq!(request(I386, 340, [0, 7, 0, 0, 0, 0]).call, Asked::Native);
        assert_eq!(request(I386, 340, [0, 10, 0, 0, 0, 0]).call, Asked::Call(302));
    }
}
