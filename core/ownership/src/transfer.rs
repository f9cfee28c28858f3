//! Saving and loading a whole store as text, and sweeping out what belongs to no object any more.
//!
//! What a line looks like is the text module's knowledge.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;

use rustix::fs::FileType;

use crate::error::ImportError;
use crate::object::Key;
use crate::store::Store;
use crate::text::Entry;
use crate::walk::walk;

/// What became of the lines of loaded text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Lines that count; in a store in memory, all.
    pub applied: usize,
    /// Lines for which the layer has no object of that device, inode number and type.
    pub unmatched: usize,
}

/// More than any line of the format has.
const LINE_MAX: u64 = 256;

impl Store {
    /// Writes all overrides in the form of fakeroot's `-s`, one object a line.
    ///
    /// A store in memory does not know link counts and writes 1; a layer is walked.
    ///
    /// # Errors
    /// Those of `out`, and those of walking the layer; `EIO` for a malformed mark.
    pub fn export(&self, out: &mut dyn Write) -> Result<(), io::Error> {
        let Some(layer) = &self.layer else {
            return self.table.entries().iter().try_for_each(|entry| writeln!(out, "{entry}"));
        };
        let mut written = HashSet::new();
        walk::<io::Error>(layer.root.as_fd(), &mut |object, stat| {
            let key = Key::from_statx(stat);
            let mode = u32::from(stat.stx_mode);
            let Some(shown) = self.get(object, &key, mode)? else { return Ok(()) };
            let host_type = FileType::from_raw_mode(mode);
            if stat.stx_nlink > 1 && host_type != FileType::Directory && !written.insert(key) {
                return Ok(());
            }
            let nlink = u64::from(stat.stx_nlink);
            let entry = Entry { nlink, ..Entry::new(key.dev, key.ino, &shown, host_type) };
            writeln!(out, "{entry}")
        })
    }

    /// Reads overrides in the form of fakeroot's `-s`, in addition to those there are.
    ///
    /// In a layer, each line is applied to the object that it names. In a store in memory it waits
    /// until its object is first looked at, because it does not say which birth time that has.
    ///
    /// # Errors
    /// - [`ImportError::Io`]: the text could not be read; nothing is changed
    /// - [`ImportError::Syntax`]: a line is malformed; nothing is changed
    /// - [`ImportError::Io`], [`ImportError::Store`]: the layer could not be walked or written; the
    ///   lines up to there are applied
    pub fn import(&self, input: &mut dyn Read) -> Result<Imported, ImportError> {
        let entries = parse(input)?;
        let Some(layer) = &self.layer else {
            self.table.load(&entries);
            return Ok(Imported { applied: entries.len(), unmatched: 0 });
        };
        let mut waiting: HashMap<(u64, u64), Entry> =
            entries.iter().map(|entry| ((entry.dev, entry.ino), *entry)).collect();
        let named = waiting.len();
        walk::<ImportError>(layer.root.as_fd(), &mut |object, stat| {
            let key = Key::from_statx(stat);
            let mode = u32::from(stat.stx_mode);
            let place = (key.dev, key.ino);
            let entry = waiting.get(&place);
            let shown = entry.and_then(|entry| entry.shown_for(FileType::from_raw_mode(mode)));
            if let Some(shown) = shown {
                waiting.remove(&place);
                self.set(object, &key, mode, &shown).map_err(|cause| ImportError::Store { ino: key.ino, cause })?;
            }
            Ok(())
        })?;
        Ok(Imported { applied: named - waiting.len(), unmatched: waiting.len() })
    }

    /// Deletes the records of objects that the layer has no more, and returns how many.
    ///
    /// Such records are harmless, since no new object is taken for an old one; they only take room.
    /// Nothing may change the layer meanwhile.
    ///
    /// # Errors
    /// Those of walking the layer, and of write(2) on the journal.
    pub fn sweep(&self) -> Result<usize, io::Error> {
        let Some(layer) = &self.layer else { return Ok(0) };
        let mut gone: HashSet<Key> = self.table.keys().iter().map(|key| layer.key_outside(key)).collect();
        if gone.is_empty() {
            return Ok(0);
        }
        walk::<io::Error>(layer.root.as_fd(), &mut |_, stat| {
            gone.remove(&Key::from_statx(stat));
            Ok(())
        })?;
        for key in &gone {
            let key = layer.key_within(key);
            self.journal_delete(&key)?;
            self.table.forget(&key);
        }
        Ok(gone.len())
    }
}

fn parse(input: &mut dyn Read) -> Result<Vec<Entry>, ImportError> {
    let mut input = BufReader::new(input);
    let mut entries = Vec::new();
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        if input.by_ref().take(LINE_MAX).read_until(b'\n', &mut text)? == 0 {
            break;
        }
        let bare = text.strip_suffix(b"\n").unwrap_or(&text);
        if bare.is_empty() {
            continue;
        }
        let bare = core::str::from_utf8(bare).map_err(|_| "not text");
        let entry = bare.and_then(Entry::parse);
        entries.push(entry.map_err(|cause| ImportError::Syntax { line, cause })?);
    }
    Ok(entries)
}
