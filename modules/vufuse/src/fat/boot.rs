//! The boot sector. Follows `fs/fat/inode.c`, `fat_read_bpb` and `fat_fill_super`, and Microsoft's specification.

use umvu_interface::{Errno, Result};

use crate::image::Image;
use umvu_archive::Fields;

/// How wide the entries of the table are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    Twelve,
    Sixteen,
    ThirtyTwo,
}

/// Where everything lies, in bytes.
#[derive(Clone, Debug)]
pub struct Layout {
    pub width: Width,
    pub cluster_size: u64,
    /// Clusters; they are numbered from 2 on.
    pub clusters: u32,
    /// The tables, one behind the other.
    pub table: u64,
    pub table_size: u64,
    pub tables: u64,
    /// The root of FAT12 and FAT16.
    pub root: u64,
    pub root_size: u64,
    /// The root of FAT32.
    pub root_cluster: u32,
    /// The first cluster.
    pub data: u64,
    /// Where it is said how many clusters are free.
    pub info: Option<u64>,
    /// Where it is said that somebody has it mounted.
    pub state: u64,
}

/// Whether a first sector can be one of a FAT file system.
pub fn is_boot_sector(sector: &[u8]) -> bool {
    parse(sector).is_some()
}

struct Numbers {
    sector: u64,
    per_cluster: u64,
    reserved: u64,
    tables: u64,
    root_entries: u64,
    sectors: u64,
    table_sectors: u64,
    /// Where FAT32 has its root.
    root_cluster: u32,
    info: u16,
    is_wide: bool,
}

fn parse(bytes: &[u8]) -> Option<Numbers> {
    let mut fields = Fields(bytes);
    let jump = fields.u8()?;
    fields.skip(10)?;
    let (sector, per_cluster, reserved, tables) = (fields.u16()?, fields.u8()?, fields.u16()?, fields.u8()?);
    let (root_entries, short_sectors, media, short_table) = (fields.u16()?, fields.u16()?, fields.u8()?, fields.u16()?);
    fields.skip(8)?;
    let (long_sectors, long_table) = (fields.u32()?, fields.u32()?);
    fields.skip(4)?;
    let (root_cluster, info) = (fields.u32()?, fields.u16()?);
    let is_jump = matches!(jump, 0xeb | 0xe9 | 0x00);
    let is_sane = matches!(sector, 512 | 1024 | 2048 | 4096) && per_cluster.is_power_of_two();
    let is_media = media >= 0xf8 || media == 0xf0;
    if !is_jump || !is_sane || !is_media || reserved == 0 || !(1..=4).contains(&tables) {
        return None;
    }
    let is_wide = short_table == 0;
    let numbers = Numbers {
        sector: sector.into(),
        per_cluster: per_cluster.into(),
        reserved: reserved.into(),
        tables: tables.into(),
        root_entries: root_entries.into(),
        sectors: if short_sectors != 0 { short_sectors.into() } else { long_sectors.into() },
        table_sectors: if is_wide { long_table.into() } else { short_table.into() },
        root_cluster,
        info,
        is_wide,
    };
    Some(numbers).filter(|numbers| numbers.sectors != 0 && numbers.table_sectors != 0)
}

impl Layout {
    /// Reads the boot sector.
    ///
    /// # Errors
    /// - `EINVAL`: this is no FAT.
    /// - `EUCLEAN`: it says nonsense.
    pub fn read(image: &Image) -> Result<Self> {
        let bytes = if image.size() >= 512 { image.read_piece(0, 512, 512)? } else { Vec::new() };
        let numbers = parse(&bytes).filter(|_| bytes.ends_with(&[0x55, 0xaa])).ok_or(Errno::INVAL)?;
        let Numbers { sector, per_cluster, reserved, tables, root_entries, sectors, table_sectors, .. } = numbers;
        if sectors * sector > image.size() {
            let (size, there) = (sectors * sector, image.size());
            return Err(image.damaged(format_args!("truncated: {size} bytes, of which {there} are there")));
        }
        let table = reserved * sector;
        let root = table + tables * table_sectors * sector;
        let root_size = (root_entries * 32).next_multiple_of(sector);
        let data = root + root_size;
        let left = (sectors * sector).checked_sub(data).filter(|left| *left >= per_cluster * sector);
        let left = left.ok_or_else(|| image.damaged("a boot sector that leaves no room for files"))?;
        let clusters = u32::try_from(left / (per_cluster * sector)).unwrap_or(u32::MAX);
        let width = match (numbers.is_wide, clusters) {
            (true, _) => Width::ThirtyTwo,
            (false, 0..=4084) => Width::Twelve,
            _ => Width::Sixteen,
        };
        // The table must have a place for each cluster: what it has none for is not used.
        let places = match width {
            Width::Twelve => table_sectors * sector * 2 / 3,
            Width::Sixteen => table_sectors * sector / 2,
            Width::ThirtyTwo => table_sectors * sector / 4,
        };
        let clusters = clusters.min(u32::try_from(places.saturating_sub(2)).unwrap_or(0x0fff_fff4)).min(0x0fff_fff4);
        let info = Some(u64::from(numbers.info) * sector).filter(|info| numbers.is_wide && *info != 0 && *info < table);
        Ok(Self {
            width,
            cluster_size: per_cluster * sector,
            clusters,
            table,
            table_size: table_sectors * sector,
            tables,
            root,
            root_size,
            root_cluster: numbers.root_cluster,
            data,
            info,
            state: if numbers.is_wide { 0x41 } else { 0x25 },
        })
    }

    /// Where a cluster lies, if there is such.
    pub fn place(&self, cluster: u32) -> Option<u64> {
        let number = cluster.checked_sub(2).filter(|number| *number < self.clusters)?;
        Some(self.data + u64::from(number) * self.cluster_size)
    }
}
