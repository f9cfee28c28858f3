//! What the headers of an ELF object say about how it is loaded, judged as `load_elf_binary` of `fs/binfmt_elf.c`
//! does: what it refuses while the old program is still there is an errno, what it finds too late is a doom. Knows
//! nothing of views; reads from whatever can be read at offsets.

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::header::{Header, ELFCLASS64, ELFDATA2LSB, EM_386, EM_X86_64, ET_DYN, ET_EXEC};
use goblin::elf::program_header::{ProgramHeader, PF_R, PF_W, PF_X, PT_GNU_STACK, PT_INTERP, PT_LOAD};
use umvu_interface::{Errno, Result};
use umvu_loader::plan::Segment;

/// The end of what a program can address: `TASK_SIZE` with four levels of page tables.
const TASK_SIZE: u64 = 0x7fff_ffff_f000;
const PAGE: u64 = 4096;
const PATH_MAX: u64 = 4096;
/// Bytes of a 64-bit header.
pub const HEADER_SIZE: usize = 64;
const PROGRAM_HEADER_SIZE: usize = 56;

/// Reads at an offset; fewer bytes only at the end.
pub trait ReadAt {
    /// Fills a buffer from an offset on, and says how far.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize>;
    /// The size in bytes.
    fn size(&self) -> Result<u64>;
}

impl ReadAt for std::os::fd::OwnedFd {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match rustix::io::pread(self, &mut buffer[done..], offset.saturating_add(done as u64))? {
                0 => break,
                n => done += n,
            }
        }
        Ok(done)
    }

    fn size(&self) -> Result<u64> {
        Ok(u64::try_from(rustix::fs::fstat(self)?.st_size).unwrap_or(0))
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn size(&self) -> Result<u64> {
        Ok(self.len() as u64)
    }
}

/// For which machine an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// x86_64.
    Native,
    /// Another, or the same with 32 bits: not for the loader.
    Foreign,
}

/// An object that can be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Whether its addresses are where it must be.
    pub is_fixed: bool,
    /// Where it begins to run.
    pub entry: u64,
    /// Its parts.
    pub segments: Vec<Segment>,
    /// Lowest address, rounded down to a page.
    pub low: u64,
    /// Highest address, rounded up to a page.
    pub high: u64,
    /// Largest alignment of a part.
    pub alignment: u64,
    /// Address of the program headers.
    pub headers: u64,
    /// Their number.
    pub header_count: u16,
    /// Whether it wants an executable stack.
    pub has_executable_stack: bool,
    /// Start and end of code and data.
    pub code: (u64, u64),
    /// Start and end of data.
    pub data: (u64, u64),
    /// Path of its interpreter.
    pub interpreter: Option<Vec<u8>>,
    /// Whether the kernel would find too late that it cannot be loaded.
    pub is_doomed: bool,
}

/// Says for which machine an object is, by its first bytes. As to the kernel, which reads a header for x86_64 as one of
/// 64 bits, whatever its class says: `elf_check_arch` of `arch/x86/include/asm/elf.h`.
///
/// # Errors
/// - `ENOEXEC`: neither a program nor a library, or broken.
pub fn machine(head: &[u8]) -> Result<Machine> {
    const MACHINE_AT: usize = 18;
    match head.get(MACHINE_AT..MACHINE_AT + 2) {
        Some(number) if *number == EM_X86_64.to_le_bytes() => parse_header(head).map(|_| Machine::Native),
        Some(_) if goblin::elf::Elf::parse_header(head).is_ok() => Ok(Machine::Foreign),
        _ => Err(Errno::NOEXEC),
    }
}

/// Whether an object is one for 32-bit x86.
pub fn is_i386(head: &[u8]) -> bool {
    goblin::elf::Elf::parse_header(head).is_ok_and(|header| header.e_machine == EM_386)
}

fn parse_header(head: &[u8]) -> Result<Header> {
    const CLASS_AND_ORDER: usize = 4;
    let mut bytes: [u8; HEADER_SIZE] = *head.first_chunk().ok_or(Errno::NOEXEC)?;
    bytes[CLASS_AND_ORDER] = ELFCLASS64;
    bytes[CLASS_AND_ORDER + 1] = ELFDATA2LSB;
    let header = goblin::elf::Elf::parse_header(&bytes).map_err(|_| Errno::NOEXEC)?;
    if !matches!(header.e_type, ET_EXEC | ET_DYN) {
        return Err(Errno::NOEXEC);
    }
    Ok(header)
}

/// Judges bytes as a whole program.
pub fn judge(bytes: &[u8]) {
    let head = &bytes[..bytes.len().min(HEADER_SIZE)];
    if machine(head) == Ok(Machine::Native) {
        let _ = object(&bytes.to_vec(), head);
    }
}

/// Reads an object for x86_64, whose first bytes are `head`.
///
/// # Errors
/// - `ENOEXEC`: not for x86_64; a broken header, table of program headers, or name of the interpreter.
/// - `EIO`: the name of the interpreter is behind the end of the file.
pub fn object(file: &impl ReadAt, head: &[u8]) -> Result<Object> {
    if machine(head)? != Machine::Native {
        return Err(Errno::NOEXEC);
    }
    let header = parse_header(head)?;
    let headers = program_headers(file, &header)?;
    let mut interpreter = None;
    let mut has_executable_stack = false;
    for header in &headers {
        match header.p_type {
            // The first one counts.
            PT_INTERP if interpreter.is_none() => interpreter = Some(interpreter_name(file, header)?),
            PT_GNU_STACK => has_executable_stack = header.p_flags & PF_X != 0,
            _ => {}
        }
    }
    let mut object = Object {
        is_fixed: header.e_type == ET_EXEC,
        entry: header.e_entry,
        segments: Vec::new(),
        low: u64::MAX,
        high: 0,
        alignment: PAGE,
        headers: 0,
        header_count: header.e_phnum,
        has_executable_stack,
        code: (u64::MAX, 0),
        data: (0, 0),
        interpreter,
        is_doomed: false,
    };
    let size = file.size()?;
    let loads = headers.iter().filter(|h| h.p_type == PT_LOAD);
    let fine = loads.map(|load| object.add(load, header.e_phoff, size)).collect::<Option<Vec<()>>>();
    // An address that is none is found when everything is mapped.
    object.is_doomed = fine.is_none_or(|loads| loads.is_empty()) || object.entry >= TASK_SIZE;
    Ok(object)
}

fn program_headers(file: &impl ReadAt, header: &Header) -> Result<Vec<ProgramHeader>> {
    let count = usize::from(header.e_phnum);
    let size = count * PROGRAM_HEADER_SIZE;
    if usize::from(header.e_phentsize) != PROGRAM_HEADER_SIZE || size == 0 || size > 64 << 10 {
        return Err(Errno::NOEXEC);
    }
    let mut table = vec![0; size];
    if file.read_at(header.e_phoff, &mut table) != Ok(size) {
        return Err(Errno::NOEXEC);
    }
    ProgramHeader::parse(&table, 0, count, Ctx::new(Container::Big, Endian::Little)).map_err(|_| Errno::NOEXEC)
}

fn interpreter_name(file: &impl ReadAt, header: &ProgramHeader) -> Result<Vec<u8>> {
    if !(2..=PATH_MAX).contains(&header.p_filesz) {
        return Err(Errno::NOEXEC);
    }
    let size = usize::try_from(header.p_filesz).map_err(|_| Errno::NOEXEC)?;
    let mut name = vec![0; size];
    if file.read_at(header.p_offset, &mut name)? != size {
        return Err(Errno::IO);
    }
    if name.last() != Some(&0) {
        return Err(Errno::NOEXEC);
    }
    name.truncate(name.iter().position(|b| *b == 0).unwrap_or(0));
    Ok(name)
}

impl Object {
    /// Adds a part; `None` if the kernel could not map it.
    fn add(&mut self, load: &ProgramHeader, headers: u64, size: u64) -> Option<()> {
        let (address, offset) = (load.p_vaddr, load.p_offset);
        let memory_end = address.checked_add(load.p_memsz)?;
        if address >= TASK_SIZE || memory_end > TASK_SIZE || load.p_filesz > load.p_memsz {
            return None;
        }
        let file_end = offset.checked_add(load.p_filesz)?;
        // An offset that is negative to the kernel, or no page's.
        if i64::try_from(file_end.checked_add(PAGE)?).is_err() {
            return None;
        }
        if load.p_filesz > 0 && address % PAGE != offset % PAGE {
            return None;
        }
        let is_writable = load.p_flags & PF_W != 0;
        let zeroes_in_file = load.p_memsz > load.p_filesz && load.p_filesz > 0 && file_end % PAGE != 0;
        // The page whose rest is to be cleared is not in the file: padzero of fs/binfmt_elf.c.
        if zeroes_in_file && is_writable && file_end / PAGE >= size.div_ceil(PAGE) {
            return None;
        }
        if load.p_align.is_power_of_two() && load.p_align > self.alignment && load.p_align < TASK_SIZE / 4 {
            self.alignment = load.p_align;
        }
        if (offset..file_end).contains(&headers) {
            self.headers = headers - offset + address;
        }
        self.low = self.low.min(address / PAGE * PAGE);
        self.high = self.high.max(memory_end.next_multiple_of(PAGE));
        let end = address + load.p_filesz;
        self.code.0 = self.code.0.min(address);
        if load.p_flags & PF_X != 0 {
            self.code.1 = self.code.1.max(end);
        }
        self.data = (self.data.0.max(address), self.data.1.max(end));
        let protections = [(PF_R, 1), (PF_W, 2), (PF_X, 4)];
        let protection = protections.iter().filter(|(flag, _)| load.p_flags & flag != 0).map(|(_, bit)| bit).sum();
        self.segments.push(Segment {
            address,
            offset,
            file_size: load.p_filesz,
            memory_size: load.p_memsz,
            protection,
        });
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A header with a table of program headers behind it.
    fn image(kind: u16, entry: u64, headers: &[[u64; 7]]) -> Vec<u8> {
        let mut image = b"\x7fELF\x02\x01\x01".to_vec();
        image.resize(HEADER_SIZE, 0);
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(16, &kind.to_le_bytes());
        put(18, &EM_X86_64.to_le_bytes());
        put(24, &entry.to_le_bytes());
        put(32, &(HEADER_SIZE as u64).to_le_bytes());
        put(54, &56u16.to_le_bytes());
        put(56, &u16::try_from(headers.len()).unwrap().to_le_bytes());
        image.extend(headers.iter().flatten().flat_map(|word| word.to_le_bytes()));
        image
    }

    /// Type and flags, offset, address, physical address, size in the file, in memory, alignment.
    fn load(offset: u64, address: u64, file_size: u64, memory_size: u64) -> [u64; 7] {
        [5 << 32 | u64::from(PT_LOAD), offset, address, address, file_size, memory_size, PAGE]
    }

    fn parsed(image: &Vec<u8>) -> Result<Object> {
        object(image, &image[..image.len().min(256)])
    }

    /// What the loader relies on.
    fn check(object: &Object) {
        assert!(object.alignment.is_power_of_two() && object.alignment >= PAGE);
        for segment in &object.segments {
            let end = segment.address + segment.memory_size;
            assert!(object.low <= segment.address && end <= object.high && object.high <= TASK_SIZE);
            assert!(segment.file_size <= segment.memory_size);
            assert!(segment.file_size == 0 || segment.address % PAGE == segment.offset % PAGE);
            assert!(segment.offset.checked_add(segment.file_size).is_some());
        }
    }

    #[test]
    fn a_program_is_described() {
        let object = parsed(&image(ET_DYN, 0x40, &[load(0, 0, 0x100, 0x100), load(0x100, 0x1100, 8, 0x2000)])).unwrap();
        check(&object);
        assert!(!object.is_fixed && !object.is_doomed && object.interpreter.is_none());
        assert_eq!((object.low, object.high, object.headers, object.header_count), (0, 0x4000, 64, 2));
        assert_eq!((object.code, object.data), ((0, 0x1108), (0x1100, 0x1108)));
    }

    #[test]
    fn what_cannot_be_mapped_is_doomed() {
        for segment in [
            load(0, TASK_SIZE, 0, 8),
            load(0, 0x1000, 0, u64::MAX),
            load(0, 0x1000, 9, 8),
            load(1, 0x1000, 8, 8),
            load(u64::MAX - 7, u64::MAX - 7, 8, 8),
            load(i64::MAX as u64 & !(PAGE - 1), 0x1000, 8, 8),
        ] {
            assert!(parsed(&image(ET_EXEC, 0, &[segment])).unwrap().is_doomed, "{segment:x?}");
        }
        let note = [4, 0, 0, 0, 0, 0, 0];
        assert!(parsed(&image(ET_EXEC, 0, &[note])).unwrap().is_doomed, "nothing to map");
    }

    #[test]
    fn the_machine_alone_decides() {
        let mut image = image(ET_DYN, 0, &[load(0, 0, 8, 8)]);
        image[4] = 1;
        assert!(parsed(&image).is_ok(), "the kernel does not look at the class");
        image[18] = 183;
        image[4] = 2;
        assert_eq!(machine(&image), Ok(Machine::Foreign));
        assert_eq!(parsed(&image), Err(Errno::NOEXEC));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = parsed(&bytes).map(|object| check(&object));
        }

        #[test]
        fn any_headers_are_judged(
            kind in 0u16..4,
            entry in any::<u64>(),
            headers in prop::collection::vec(prop::array::uniform7(prop_oneof![
                any::<u64>(), 0u64..8, 0u64..0x10_0000, Just(TASK_SIZE), Just(u64::MAX), Just(5 << 32 | 1)
            ]), 0..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut image = image(kind, entry, &headers);
            let _ = parsed(&image).map(|object| check(&object));
            image.truncate(cut.index(image.len()));
            let _ = parsed(&image).map(|object| check(&object));
        }
    }
}
