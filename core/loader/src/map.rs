//! Maps an ELF object: `elf_load`, `load_elf_interp` and the loop of `load_elf_binary` in `fs/binfmt_elf.c`.

use crate::calls::{
    self, error, EPERM, MAP_ANONYMOUS, MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_NORESERVE, MAP_PRIVATE, PROT_EXEC,
    PROT_NONE, PROT_READ, PROT_WRITE,
};
use crate::plan::{placement, Object, Segment};

const PAGE: u64 = 4096;

/// `ELF_ET_DYN_BASE` of `arch/x86/include/asm/elf.h`: two thirds of the address space.
pub(crate) const PROGRAM_BASE: u64 = 0x5555_5555_4000;

/// `mmap_rnd_bits` as most kernels have it.
const RANDOM_BITS: u32 = 28;

fn page_down(address: u64) -> u64 {
    address & !(PAGE - 1)
}

fn page_up(address: u64) -> u64 {
    page_down(address.wrapping_add(PAGE - 1))
}

/// Maps an object and returns what is to be added to its addresses; `None` if that fails.
pub(crate) fn object(object: &Object, segments: &[Segment], random: Option<u64>) -> Option<u64> {
    let bias = reserve(object, random)?;
    for segment in segments {
        map_segment(object.fd, segment, bias)?;
    }
    Some(bias)
}

/// Finds a place where all of the object's range is free.
fn reserve(object: &Object, random: Option<u64>) -> Option<u64> {
    let length = object.high.checked_sub(object.low)?;
    let align_down = |address: u64| address & !(object.alignment - 1);
    let wanted = match object.placement {
        placement::FIXED => Some(object.low),
        placement::PROGRAM => {
            let shift = (random.unwrap_or(0) & ((1 << RANDOM_BITS) - 1)) * PAGE;
            Some(align_down(PROGRAM_BASE.wrapping_add(shift)).wrapping_add(object.low % object.alignment))
        }
        _ => None,
    };
    if let Some(start) = wanted {
        if is_free(start, length) {
            return Some(start.wrapping_sub(object.low));
        }
        if object.placement == placement::FIXED {
            return None;
        }
    }
    let slack = if object.alignment > PAGE { object.alignment } else { 0 };
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    // SAFETY: without MAP_FIXED the kernel takes what is free.
    let found = unsafe { calls::map(0, length.checked_add(slack)?, PROT_NONE, flags, u64::MAX, 0) };
    if error(found).is_some() {
        return None;
    }
    // SAFETY: it was just mapped, and is used by nobody.
    unsafe { calls::unmap(found, length.wrapping_add(slack)) };
    let mut start = align_down(found.wrapping_add(slack)).wrapping_add(object.low % object.alignment);
    if start.wrapping_add(length) > found.wrapping_add(length).wrapping_add(slack) {
        start = start.wrapping_sub(object.alignment);
    }
    Some(start.wrapping_sub(object.low))
}

/// Whether nothing is mapped in a range. There is one thread, so it stays free.
fn is_free(start: u64, length: u64) -> bool {
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
    // SAFETY: nothing is replaced.
    let found = unsafe { calls::map(start, length, PROT_NONE, flags, u64::MAX, 0) };
    if error(found).is_some() {
        return false;
    }
    // SAFETY: it was just mapped, and is used by nobody.
    unsafe { calls::unmap(found, length) };
    // Linux before 4.17 takes the flag for a mere wish.
    found == start
}

fn map_segment(fd: u64, segment: &Segment, bias: u64) -> Option<()> {
    let address = segment.address.wrapping_add(bias);
    let within = address % PAGE;
    if segment.file_size > 0 {
        let length = segment.file_size.wrapping_add(within);
        map_file(fd, address - within, length, segment.protection, segment.offset.wrapping_sub(within))?;
    }
    if segment.memory_size <= segment.file_size {
        return Some(());
    }
    let zero_start = address.wrapping_add(segment.file_size);
    let zero_end = address.wrapping_add(segment.memory_size);
    let fresh = if segment.file_size > 0 {
        if segment.protection & PROT_WRITE != 0 {
            clear(zero_start, page_up(zero_start));
        }
        page_up(zero_start)
    } else {
        page_down(zero_start)
    };
    let length = page_up(zero_end).wrapping_sub(fresh);
    if page_up(zero_end) <= fresh {
        return Some(());
    }
    let protection = PROT_READ | PROT_WRITE | (segment.protection & PROT_EXEC);
    // SAFETY: the range is part of what was found free for the object.
    let mapped = unsafe { calls::map(fresh, length, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, u64::MAX, 0) };
    error(mapped).is_none().then_some(())
}

fn map_file(fd: u64, start: u64, length: u64, protection: u64, offset: u64) -> Option<()> {
    // SAFETY: the range is part of what was found free for the object.
    let mapped = unsafe { calls::map(start, length, protection, MAP_PRIVATE | MAP_FIXED, fd, offset) };
    match error(mapped) {
        None => Some(()),
        // The host keeps the layer on a file system mounted noexec; the view's own flag was judged before.
        Some(EPERM) if protection & PROT_EXEC != 0 => copy_file(fd, start, length, protection, offset),
        Some(_) => None,
    }
}

/// Fills memory from a file that cannot be mapped.
fn copy_file(fd: u64, start: u64, length: u64, protection: u64, offset: u64) -> Option<()> {
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    // SAFETY: the range is part of what was found free for the object.
    let mapped = unsafe { calls::map(start, length, PROT_READ | PROT_WRITE, flags, u64::MAX, 0) };
    if error(mapped).is_some() {
        return None;
    }
    let mut done = 0;
    while done < length {
        // SAFETY: this part of the new mapping is used by nobody yet.
        let count = unsafe { calls::read(fd, start.wrapping_add(done), length - done, offset.wrapping_add(done)) };
        match error(count) {
            None if count == 0 => break,
            None => done = done.wrapping_add(count),
            Some(_) => return None,
        }
    }
    // SAFETY: the loader does nothing more with it than clear its last page, which keeps PROT_WRITE where it has it.
    let protected = unsafe { calls::protect(start, length, protection) };
    error(protected).is_none().then_some(())
}

fn clear(from: u64, to: u64) {
    let mut at = from;
    while at < to {
        // SAFETY: the bytes are the rest of the last page of a writable mapping that was just made.
        unsafe { (at as *mut u8).write_volatile(0) };
        at = at.wrapping_add(1);
    }
}
