//! The words of `-o`: which are flags of mount(2), and which are left to the type, as mount(8) divides them.
//! Knows no type of file system.

/// Flags that are attributes of a mount and not of a file system: what a bind can be given, mount(2).
pub const ATTRIBUTES: u64 = libc::MS_RDONLY
    | libc::MS_NOSUID
    | libc::MS_NODEV
    | libc::MS_NOEXEC
    | libc::MS_NOATIME
    | libc::MS_NODIRATIME
    | libc::MS_RELATIME
    | libc::MS_STRICTATIME
    | libc::MS_NOSYMFOLLOW;

/// Flags that say what is to be done with existing trees.
pub const OPERATIONS: u64 = libc::MS_BIND | libc::MS_MOVE;

/// What a word does.
#[derive(Clone, Copy)]
enum Effect {
    Set(u64),
    Clear(u64),
    /// Asks for an operation on existing trees, unless a type is given that may have its own use for the word.
    Operation(u64),
    /// How mounts below it are shared: a call of its own.
    Propagation(u64),
    /// Is for fstab alone.
    Nothing,
}

use Effect::{Clear, Nothing, Operation, Propagation, Set};

/// The words that mount(8) calls independent of the file system.
const WORDS: &[(&str, Effect)] = &[
    ("ro", Set(libc::MS_RDONLY)),
    ("rw", Clear(libc::MS_RDONLY)),
    ("nosuid", Set(libc::MS_NOSUID)),
    ("suid", Clear(libc::MS_NOSUID)),
    ("nodev", Set(libc::MS_NODEV)),
    ("dev", Clear(libc::MS_NODEV)),
    ("noexec", Set(libc::MS_NOEXEC)),
    ("exec", Clear(libc::MS_NOEXEC)),
    ("sync", Set(libc::MS_SYNCHRONOUS)),
    ("async", Clear(libc::MS_SYNCHRONOUS)),
    ("dirsync", Set(libc::MS_DIRSYNC)),
    ("mand", Set(libc::MS_MANDLOCK)),
    ("nomand", Clear(libc::MS_MANDLOCK)),
    ("noatime", Set(libc::MS_NOATIME)),
    ("atime", Clear(libc::MS_NOATIME)),
    ("nodiratime", Set(libc::MS_NODIRATIME)),
    ("diratime", Clear(libc::MS_NODIRATIME)),
    ("relatime", Set(libc::MS_RELATIME)),
    ("norelatime", Clear(libc::MS_RELATIME)),
    ("strictatime", Set(libc::MS_STRICTATIME)),
    ("nostrictatime", Clear(libc::MS_STRICTATIME)),
    ("lazytime", Set(libc::MS_LAZYTIME)),
    ("nolazytime", Clear(libc::MS_LAZYTIME)),
    ("iversion", Set(libc::MS_I_VERSION)),
    ("noiversion", Clear(libc::MS_I_VERSION)),
    ("nosymfollow", Set(libc::MS_NOSYMFOLLOW)),
    ("symfollow", Clear(libc::MS_NOSYMFOLLOW)),
    ("silent", Set(libc::MS_SILENT)),
    ("loud", Clear(libc::MS_SILENT)),
    ("remount", Set(libc::MS_REMOUNT)),
    ("bind", Operation(libc::MS_BIND)),
    ("rbind", Operation(libc::MS_BIND | libc::MS_REC)),
    ("move", Operation(libc::MS_MOVE)),
    ("private", Propagation(libc::MS_PRIVATE)),
    ("shared", Propagation(libc::MS_SHARED)),
    ("slave", Propagation(libc::MS_SLAVE)),
    ("unbindable", Propagation(libc::MS_UNBINDABLE)),
    ("rprivate", Propagation(libc::MS_PRIVATE | libc::MS_REC)),
    ("rshared", Propagation(libc::MS_SHARED | libc::MS_REC)),
    ("rslave", Propagation(libc::MS_SLAVE | libc::MS_REC)),
    ("runbindable", Propagation(libc::MS_UNBINDABLE | libc::MS_REC)),
    // "user" and its like let ordinary users mount what fstab names, safely: mount(8).
    ("user", Set(libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC)),
    ("users", Set(libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC)),
    ("owner", Set(libc::MS_NOSUID | libc::MS_NODEV)),
    ("group", Set(libc::MS_NOSUID | libc::MS_NODEV)),
    ("nouser", Nothing),
    ("defaults", Nothing),
    ("auto", Nothing),
    ("noauto", Nothing),
    ("nofail", Nothing),
    ("_netdev", Nothing),
];

/// Words of fstab that carry a value.
const FSTAB_PREFIXES: &[&[u8]] = &[b"x-", b"X-", b"comment="];

/// The words of a mount, divided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Divided {
    /// `MS_*` flags of mount(2).
    pub flags: u64,
    /// Propagation flags, each for a call of its own.
    pub propagation: Vec<u64>,
    /// What is left to the type, joined by commas again.
    pub data: Vec<u8>,
}

/// Whether the words `bind`, `rbind` and `move` are operations on existing trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operations {
    /// They are: no type is given.
    OfMount,
    /// They are left to the type.
    OfType,
}

impl Divided {
    /// Adds a list of words separated by commas; `\,` is a comma that belongs to a word.
    pub fn add(&mut self, list: &[u8], operations: Operations) {
        for word in split(list) {
            match effect(word) {
                Some(Operation(_)) if operations == Operations::OfType => self.leave(word),
                Some(Set(flags) | Operation(flags)) => self.flags |= flags,
                Some(Clear(flags)) => self.flags &= !flags,
                Some(Propagation(flags)) => self.propagation.push(flags),
                Some(Nothing) => {}
                None => self.leave(word),
            }
        }
    }

    fn leave(&mut self, word: &[u8]) {
        if !self.data.is_empty() {
            self.data.push(b',');
        }
        self.data.extend_from_slice(word);
    }
}

fn effect(word: &[u8]) -> Option<Effect> {
    if word.is_empty() || FSTAB_PREFIXES.iter().any(|prefix| word.starts_with(prefix)) {
        return Some(Nothing);
    }
    WORDS.iter().find(|(known, _)| known.as_bytes() == word).map(|(_, effect)| *effect)
}

/// Splits at commas that no backslash precedes; backslashes stay for whoever reads the words.
fn split(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut escaped = false;
    list.split(move |&byte| {
        let ends = byte == b',' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divided(list: &str, operations: Operations) -> Divided {
        let mut divided = Divided::default();
        divided.add(list.as_bytes(), operations);
        divided
    }

    #[test]
    fn generic_words_are_flags_and_the_rest_is_data() {
        let divided = divided("ro,cow,nosuid,except=/proc,x-systemd.a=b,defaults", Operations::OfType);
        assert_eq!(divided.flags, libc::MS_RDONLY | libc::MS_NOSUID);
        assert_eq!(divided.data, b"cow,except=/proc");
    }

    #[test]
    fn the_last_of_two_contrary_words_wins() {
        assert_eq!(divided("ro,rw", Operations::OfMount).flags, 0);
        assert_eq!(divided("rw,ro", Operations::OfMount).flags, libc::MS_RDONLY);
    }

    #[test]
    fn a_type_may_have_its_own_move() {
        assert_eq!(divided("move", Operations::OfType).data, b"move");
        assert_eq!(divided("move", Operations::OfMount).flags, libc::MS_MOVE);
    }

    #[test]
    fn an_escaped_comma_does_not_end_a_word() {
        let divided = divided(r"lowerdir=/a\,ro:/b,ro", Operations::OfType);
        assert_eq!((divided.flags, divided.data.as_slice()), (libc::MS_RDONLY, br"lowerdir=/a\,ro:/b".as_slice()));
    }

    #[test]
    fn an_escaped_backslash_does_not_escape_the_comma() {
        assert_eq!(divided(r"a\\,ro", Operations::OfType).flags, libc::MS_RDONLY);
    }

    #[test]
    fn propagation_is_kept_apart() {
        assert_eq!(divided("rprivate,ro", Operations::OfMount).propagation, [libc::MS_PRIVATE | libc::MS_REC]);
    }
}
