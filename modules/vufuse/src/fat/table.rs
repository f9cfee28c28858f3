//! The table that chains clusters. What is changed is written at once, to all copies of it. Follows `fs/fat/fatent.c`.

use std::collections::HashMap;
use std::sync::Arc;

use umvu_interface::{Errno, Result};

use crate::image::Image;

use super::boot::{Layout, Width};

/// What is kept of the table: pages of 4 KiB, as many.
const PAGE: u64 = 4096;
const PAGES: usize = 512;

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Free,
    Next(u32),
    End,
    Bad,
}

/// The table.
pub struct Table {
    image: Arc<Image>,
    layout: Arc<Layout>,
    pages: HashMap<u64, Vec<u8>>,
    /// Free clusters, once they were counted.
    free: Option<u32>,
    /// Where a free one is looked for.
    hint: u32,
}

impl Table {
    pub fn new(image: Arc<Image>, layout: Arc<Layout>) -> Self {
        Self { image, layout, pages: HashMap::new(), free: None, hint: 2 }
    }

    fn page(&mut self, number: u64) -> Result<&mut Vec<u8>> {
        if !self.pages.contains_key(&number) {
            if self.pages.len() >= PAGES {
                self.pages.clear();
            }
            let start = number * PAGE;
            let length = self.layout.table_size.saturating_sub(start).min(PAGE);
            let page = self.image.read_piece(self.layout.table + start, length, 4096)?;
            self.pages.insert(number, page);
        }
        self.pages.get_mut(&number).ok_or(Errno::IO)
    }

    fn byte(&mut self, at: u64) -> Result<u8> {
        let within = usize::try_from(at % PAGE).unwrap_or(0);
        self.page(at / PAGE)?.get(within).copied().ok_or(Errno::IO)
    }

    fn bytes<const COUNT: usize>(&mut self, at: u64) -> Result<[u8; COUNT]> {
        let mut bytes = [0; COUNT];
        for (offset, byte) in bytes.iter_mut().enumerate() {
            *byte = self.byte(at + offset as u64)?;
        }
        Ok(bytes)
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        for copy in 0..self.layout.tables {
            self.image.write(self.layout.table + copy * self.layout.table_size + at, bytes)?;
        }
        for (offset, byte) in bytes.iter().enumerate() {
            let at = at + offset as u64;
            let within = usize::try_from(at % PAGE).unwrap_or(0);
            if let Some(place) = self.page(at / PAGE)?.get_mut(within) {
                *place = *byte;
            }
        }
        Ok(())
    }

    /// What the entry of a cluster says.
    ///
    /// # Errors
    /// - `EUCLEAN`: there is no such cluster, or it leads to none.
    pub fn get(&mut self, cluster: u32) -> Result<Link> {
        if self.layout.place(cluster).is_none() {
            return Err(self.image.damaged(format_args!("cluster {cluster}, which is not there")));
        }
        let at = u64::from(cluster);
        let (value, limit) = match self.layout.width {
            Width::Twelve => {
                let pair = u16::from_le_bytes(self.bytes(at + at / 2)?);
                (u32::from(if cluster % 2 == 0 { pair & 0xfff } else { pair >> 4 }), 0xff7)
            }
            Width::Sixteen => (u16::from_le_bytes(self.bytes(at * 2)?).into(), 0xfff7),
            Width::ThirtyTwo => (u32::from_le_bytes(self.bytes(at * 4)?) & 0x0fff_ffff, 0x0fff_fff7),
        };
        Ok(match value {
            0 => Link::Free,
            value if value == limit => Link::Bad,
            value if value > limit => Link::End,
            value if self.layout.place(value).is_some() => Link::Next(value),
            value => {
                return Err(self.image.damaged(format_args!("cluster {cluster} leads to {value}, which is not there")))
            }
        })
    }

    fn set(&mut self, cluster: u32, link: Link) -> Result<()> {
        let value = match link {
            Link::Free => 0,
            Link::Next(next) => next,
            Link::End => 0x0fff_ffff,
            Link::Bad => return Err(Errno::INVAL),
        };
        let at = u64::from(cluster);
        let [first, second, third, fourth] = value.to_le_bytes();
        match self.layout.width {
            Width::Twelve => {
                let place = at + at / 2;
                let old = u16::from_le_bytes(self.bytes(place)?);
                let short = u16::from_le_bytes([first, second]) & 0xfff;
                let new = if cluster % 2 == 0 { (old & 0xf000) | short } else { (old & 0xf) | (short << 4) };
                self.write(place, &new.to_le_bytes())
            }
            Width::Sixteen => self.write(at * 2, &[first, second]),
            Width::ThirtyTwo => {
                let [.., top] = self.bytes::<4>(at * 4)?;
                self.write(at * 4, &[first, second, third, (top & 0xf0) | fourth])
            }
        }
    }

    /// Follows a chain to its end; each run of clusters that lie one behind the other is `(first, count)`.
    ///
    /// # Errors
    /// - `EUCLEAN`: it goes round in circles, or leads to what is free.
    pub fn chain(&mut self, first: u32) -> Result<Vec<(u32, u32)>> {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        let (mut at, mut count) = (first, 0u32);
        loop {
            let link = self.get(at)?;
            match runs.last_mut() {
                Some((start, length)) if start.checked_add(*length) == Some(at) => *length += 1,
                _ => runs.push((at, 1)),
            }
            count += 1;
            match link {
                Link::End => return Ok(runs),
                Link::Next(next) if count <= self.layout.clusters => at = next,
                Link::Next(_) => return Err(self.image.damaged("a chain of clusters that goes round in circles")),
                Link::Free | Link::Bad => {
                    return Err(self
                        .image
                        .damaged(format_args!("a chain of clusters that leads to {at}, which is free")))
                }
            }
        }
    }

    /// Takes a free cluster, as the end of a chain, and hangs it to the one before.
    ///
    /// # Errors
    /// - `ENOSPC`: there is none.
    pub fn take(&mut self, before: Option<u32>) -> Result<u32> {
        let count = self.layout.clusters;
        let start = before.map_or(self.hint, |before| before + 1);
        for step in 0..count {
            let cluster = 2 + (start.saturating_sub(2).wrapping_add(step)) % count;
            if self.get(cluster) != Ok(Link::Free) {
                continue;
            }
            // The new end first: whoever is killed in between loses a cluster, not a file.
            self.set(cluster, Link::End)?;
            if let Some(before) = before {
                self.set(before, Link::Next(cluster))?;
            }
            self.hint = cluster + 1;
            self.free = self.free.map(|free| free.saturating_sub(1));
            return Ok(cluster);
        }
        self.free = Some(0);
        Err(Errno::NOSPC)
    }

    /// Frees clusters.
    pub fn free(&mut self, clusters: impl IntoIterator<Item = u32>) -> Result<()> {
        for cluster in clusters {
            self.set(cluster, Link::Free)?;
            self.free = self.free.map(|free| free + 1);
            self.hint = self.hint.min(cluster);
        }
        Ok(())
    }

    /// Makes a cluster the end of its chain.
    pub fn end(&mut self, cluster: u32) -> Result<()> {
        self.set(cluster, Link::End)
    }

    /// Counts the free clusters, once.
    pub fn count_free(&mut self) -> Result<u32> {
        if let Some(free) = self.free {
            return Ok(free);
        }
        let mut free = 0;
        for cluster in 2..self.layout.clusters + 2 {
            if self.get(cluster) == Ok(Link::Free) {
                free += 1;
            }
        }
        self.free = Some(free);
        Ok(free)
    }

    /// Writes how many clusters are free to where that is said.
    pub fn write_info(&mut self) -> Result<()> {
        let Some(info) = self.layout.info else { return Ok(()) };
        let free = self.count_free()?;
        let sector = self.image.read_piece(info, 512, 512)?;
        if sector.starts_with(b"RRaA") && sector[484..488] == *b"rrAa" {
            self.image.write(info + 488, &free.to_le_bytes())?;
            self.image.write(info + 492, &self.hint.to_le_bytes())?;
        }
        Ok(())
    }
}
