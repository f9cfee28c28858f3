//! An open file of a server. Follows `fs/fuse/file.c`; knows nothing of how its content is kept.

use std::sync::Arc;

use umvu_driver::{Contents, Keep, OpenFile, Range};
use umvu_interface::{Errno, OFlags, Result};

use crate::abi::{FallocateIn, FlushIn, FsyncIn, LseekIn, LseekOut, Opcode, OpenAnswer, ReadIn, ReleaseIn};
use crate::abi::{Wire, WriteIn, WriteOut};
use crate::connection::{Asker, Connection};

/// What a server has opened.
pub struct Handle {
    pub connection: Arc<Connection>,
    /// Who has opened it.
    pub asker: Asker,
    pub node: u64,
    /// The server's number of it.
    pub number: u64,
    /// As told to the server.
    pub flags: OFlags,
    pub answer: OpenAnswer,
}

/// An open regular file.
pub struct ServedFile {
    handle: Handle,
    max_read: usize,
}

impl ServedFile {
    /// Makes one of what was opened; `max_read` is the mount's option.
    pub fn new(handle: Handle, max_read: usize) -> Self {
        Self { handle, max_read }
    }

    fn ask(&self, opcode: Opcode, parts: &[&[u8]]) -> Result<Vec<u8>> {
        let Handle { connection, asker, node, .. } = &self.handle;
        connection.ask_if_known(asker, opcode, *node, parts)
    }

    /// Finds the next place of a kind from an offset: `fuse_lseek`.
    fn seek(&self, offset: u64, whence: u32) -> Result<u64> {
        let body = LseekIn { fh: self.handle.number, offset, whence, padding: 0 }.bytes();
        let answer = self.ask(Opcode::Lseek, &[&body])?;
        LseekOut::whole(&answer).map(|out| out.offset).ok_or(Errno::IO)
    }
}

impl OpenFile for ServedFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let at_once = self.handle.connection.negotiated()?.max_read.min(self.max_read).max(1);
        let mut filled = 0;
        for piece in buffer.chunks_mut(at_once) {
            let offset = offset.checked_add(filled as u64).ok_or(Errno::INVAL)?;
            let body = ReadIn {
                fh: self.handle.number,
                offset,
                size: u32::try_from(piece.len()).map_err(|_| Errno::INVAL)?,
                flags: self.handle.flags.bits(),
                ..ReadIn::default()
            };
            let Handle { connection, asker, node, .. } = &self.handle;
            let got = connection.ask(asker, Opcode::Read, *node, &[&body.bytes()])?;
            // More than was asked for makes no sense.
            piece.get_mut(..got.len()).ok_or(Errno::IO)?.copy_from_slice(&got);
            filled += got.len();
            if got.len() < piece.len() {
                break;
            }
        }
        Ok(filled)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let at_once = self.handle.connection.negotiated()?.max_write;
        let mut at = offset;
        for piece in bytes.chunks(at_once) {
            let size = u32::try_from(piece.len()).map_err(|_| Errno::INVAL)?;
            let body = WriteIn {
                fh: self.handle.number,
                offset: at,
                size,
                flags: self.handle.flags.bits(),
                ..WriteIn::default()
            };
            let Handle { connection, asker, node, .. } = &self.handle;
            let answer = connection.ask(asker, Opcode::Write, *node, &[&body.bytes(), piece])?;
            // A part of it is an error: `fuse_send_write_pages`.
            if WriteOut::whole(&answer).is_none_or(|out| out.size != size) {
                return Err(Errno::IO);
            }
            at = at.checked_add(u64::from(size)).ok_or(Errno::FBIG)?;
        }
        Ok(())
    }

    fn contents_at(&self, offset: u64) -> Result<Contents> {
        const DATA: u32 = 3;
        const HOLE: u32 = 4;
        let unsupported = |errno| if errno == Errno::NOSYS { Errno::OPNOTSUPP } else { errno };
        let data = match self.seek(offset, DATA) {
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => return Ok(Contents::Hole(Range { start: offset, end: u64::MAX })),
            data => data.map_err(unsupported)?,
        };
        if data > offset {
            return Ok(Contents::Hole(Range { start: offset, end: data }));
        }
        let hole = self.seek(offset, HOLE).map_err(unsupported)?;
        // What does not go on would never end.
        if data < offset || hole <= offset {
            return Err(Errno::IO);
        }
        Ok(Contents::Data(Range { start: offset, end: hole }))
    }

    fn allocate(&self, mode: u32, range: Range) -> Result<()> {
        let length = range.end.checked_sub(range.start).ok_or(Errno::INVAL)?;
        let fh = self.handle.number;
        let body = FallocateIn { fh, offset: range.start, length, mode, padding: 0 }.bytes();
        match self.ask(Opcode::Fallocate, &[&body]) {
            Err(Errno::NOSYS) => Err(Errno::OPNOTSUPP),
            answer => answer.map(drop),
        }
    }

    fn flush(&self) -> Result<()> {
        if self.handle.answer.contains(OpenAnswer::NOFLUSH) {
            return Ok(());
        }
        let body = FlushIn { fh: self.handle.number, ..FlushIn::default() }.bytes();
        match self.ask(Opcode::Flush, &[&body]) {
            Err(Errno::NOSYS) => Ok(()),
            answer => answer.map(drop),
        }
    }

    fn sync(&self) -> Result<()> {
        let body = FsyncIn { fh: self.handle.number, ..FsyncIn::default() }.bytes();
        match self.ask(Opcode::Fsync, &[&body]) {
            Err(Errno::NOSYS) => Ok(()),
            answer => answer.map(drop),
        }
    }

    fn keep(&self) -> Keep {
        if self.handle.answer.contains(OpenAnswer::DIRECT_IO) {
            Keep::Never
        } else if self.handle.answer.contains(OpenAnswer::KEEP_CACHE) {
            Keep::SinceEver
        } else {
            Keep::SinceOpened
        }
    }
}

impl Drop for ServedFile {
    fn drop(&mut self) {
        let Handle { connection, asker, node, number, flags, .. } = &self.handle;
        if connection.lacks(Opcode::Open) {
            return;
        }
        let body = ReleaseIn { fh: *number, flags: flags.bits(), ..ReleaseIn::default() }.bytes();
        connection.tell(asker, Opcode::Release, *node, &[&body]);
    }
}
