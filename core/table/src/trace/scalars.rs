//! Single registers as text: numbers, flags, commands, modes.
//!
//! It does not look at memory and does not know which call a register belongs to.

use linux_raw_sys::general;

use super::names::{self, flags, name, Names};

/// The part of a register that the kernel takes for a 32-bit argument.
pub(super) fn low(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// The part of a register that the kernel takes for a C `int`.
pub(super) fn int(value: u64) -> i32 {
    i32::from_ne_bytes(low(value).to_ne_bytes())
}

/// Shows hexadecimal digits; zero has no prefix, as strace writes it.
pub(super) fn hexadecimal(value: u64) -> String {
    if value == 0 {
        return "0".to_owned();
    }
    format!("{value:#x}")
}

/// Shows a named `int`, or the number if it has no name.
pub(super) fn named(names: Names, value: u64) -> String {
    match name(names, u64::from(low(value))) {
        Some(name) => name.to_owned(),
        None => int(value).to_string(),
    }
}

/// Shows a type in the lowest four bits, then flags.
pub(super) fn typed(value: u64, types: Names, sets: Names) -> String {
    let rest = value & !0xf;
    match name(types, value & 0xf) {
        Some(name) if rest == 0 => name.to_owned(),
        Some(name) => format!("{name}|{}", flags(rest, &[sets])),
        None => flags(value, &[sets]),
    }
}

/// Shows a user or a group; the one that means "unchanged" as -1.
pub(super) fn identity(value: u64) -> String {
    match low(value) {
        u32::MAX => "-1".to_owned(),
        id => id.to_string(),
    }
}

/// Shows a directory descriptor.
pub(super) fn directory(value: u64) -> String {
    match int(value) {
        general::AT_FDCWD => "AT_FDCWD".to_owned(),
        fd => fd.to_string(),
    }
}

/// Shows an access mode and open flags.
pub(super) fn open_flags(value: u64) -> String {
    let access = match value & u64::from(general::O_ACCMODE) {
        0 => "O_RDONLY",
        1 => "O_WRONLY",
        2 => "O_RDWR",
        _ => "O_ACCMODE",
    };
    match value & !u64::from(general::O_ACCMODE) {
        0 => access.to_owned(),
        rest => format!("{access}|{}", flags(rest, &[names::OPEN])),
    }
}

/// Says whether an open call with these flags may create a file.
pub(super) fn creates(flags: u64) -> bool {
    // O_TMPFILE has the bit of O_DIRECTORY as well, which creates nothing.
    let temporary = u64::from(general::O_TMPFILE & !general::O_DIRECTORY);
    flags & (u64::from(general::O_CREAT) | temporary) != 0
}

/// Shows permission bits in octal with at least three digits, the first of them or the one before it 0.
pub(super) fn mode(value: u32) -> String {
    if value == 0 {
        return "000".to_owned();
    }
    format!("0{value:02o}")
}

/// Shows a file type and permission bits.
pub(super) fn node_mode(value: u32) -> String {
    match name(names::FILE_TYPES, u64::from(value & general::S_IFMT)) {
        Some(name) => format!("{name}|{}", mode(value & !general::S_IFMT)),
        None => mode(value),
    }
}

/// Shows `R_OK`, `W_OK`, `X_OK`, or `F_OK` for none of them.
pub(super) fn access_mode(value: u64) -> String {
    match value {
        0 => "F_OK".to_owned(),
        _ => flags(value, &[names::ACCESS]),
    }
}

/// Shows a device number in the encoding of include/linux/kdev_t.h, new_decode_dev.
pub(super) fn device(value: u32) -> String {
    let major = (value >> 8) & 0xfff;
    let minor = (value & 0xff) | ((value >> 12) & 0xf_ff00);
    format!("makedev({}, {})", hexadecimal(u64::from(major)), hexadecimal(u64::from(minor)))
}

/// Shows a signal, as the kernel counts real-time ones.
pub(super) fn signal(value: u32) -> String {
    match (name(names::SIGNALS, u64::from(value)), value) {
        (Some(name), _) => name.to_owned(),
        (None, 32) => "SIGRTMIN".to_owned(),
        (None, 33..=64) => format!("SIGRT_{}", value - 32),
        (None, _) => int(u64::from(value)).to_string(),
    }
}

/// Shows `MS_*`; the magic number of old is still taken, and ignored: fs/namespace.c, path_mount.
pub(super) fn mount_flags(value: u64) -> String {
    let (magic, mask) = (u64::from(general::MS_MGC_VAL), u64::from(general::MS_MGC_MSK));
    match (value & mask == magic, value & !mask) {
        (false, _) => flags(value, &[names::MOUNT]),
        (true, 0) => "MS_MGC_VAL".to_owned(),
        (true, rest) => format!("MS_MGC_VAL|{}", flags(rest, &[names::MOUNT])),
    }
}

/// Shows `CLONE_*` and the exit signal in the low byte.
pub(super) fn clone_flags(value: u64) -> String {
    let exit_signal = low(value & 0xff);
    match (value & !0xff, exit_signal) {
        (rest, 0) => flags(rest, &[names::CLONE]),
        (0, _) => signal(exit_signal),
        (rest, _) => format!("{}|{}", flags(rest, &[names::CLONE]), signal(exit_signal)),
    }
}

/// Shows `PROT_*`.
pub(super) fn protection(value: u64) -> String {
    match value {
        0 => "PROT_NONE".to_owned(),
        _ => flags(value, &[names::PROTECTION]),
    }
}
