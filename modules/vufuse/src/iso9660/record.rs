//! Records of directories, and what the System Use Sharing Protocol and Rock Ridge say in them. Follows ECMA-119, IEEE
//! P1281, P1282, and `fs/isofs/rock.c`.

use umvu_interface::{FileKind, Result, Timestamp};

use crate::image::Image;
use umvu_archive::calendar::days;
use umvu_archive::Fields;

/// Most pieces that what a record says may go on in.
const CONTINUATIONS: usize = 64;
/// Most bytes of each.
const CONTINUATION: usize = 2048;

/// A record as it lies there.
#[derive(Clone, Debug)]
pub struct Record {
    /// Where it lies in the image.
    pub at: u64,
    pub extent: u32,
    pub size: u32,
    pub time: Timestamp,
    pub flags: u8,
    pub is_interleaved: bool,
    pub name: Vec<u8>,
    /// The bytes behind the name.
    pub system: Vec<u8>,
}

/// The record is not shown.
pub const HIDDEN: u8 = 1;
/// It is a directory.
pub const DIRECTORY: u8 = 2;
/// The content goes on in the next record.
pub const GOES_ON: u8 = 0x80;

impl Record {
    /// Reads one out of its bytes; the first says how many these are.
    pub fn parse(at: u64, bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let length = usize::from(fields.u8()?);
        let mut fields = Fields(bytes.get(1..length)?);
        fields.skip(1)?;
        let extent = fields.u32()?;
        fields.skip(4)?;
        let size = fields.u32()?;
        fields.skip(4)?;
        let time = short_time(fields.bytes(7)?);
        let flags = fields.u8()?;
        let is_interleaved = fields.u8()? != 0 || fields.u8()? != 0;
        fields.skip(4)?;
        let name_length = usize::from(fields.u8()?);
        let name = fields.bytes(name_length)?.to_vec();
        if name_length % 2 == 0 {
            fields.skip(1)?;
        }
        Some(Self { at, extent, size, time, flags, is_interleaved, name, system: fields.0.to_vec() })
    }
}

/// Seven bytes of a date.
fn short_time(bytes: &[u8]) -> Timestamp {
    let [year, month, day, hour, minute, second, zone] = bytes else { return Timestamp::default() };
    let zone = i64::from(i8::from_le_bytes([*zone]));
    let days = days(1900 + i64::from(*year), i64::from(*month), i64::from(*day));
    let seconds = days * 86_400 + i64::from(*hour) * 3_600 + i64::from(*minute) * 60 + i64::from(*second);
    Timestamp { seconds: seconds - zone * 900, nanoseconds: 0 }
}

/// Seventeen bytes of a date: digits, hundredths of seconds last.
fn long_time(bytes: &[u8]) -> Option<Timestamp> {
    let mut fields = Fields(bytes);
    let mut number = |digits: usize| {
        let text = std::str::from_utf8(fields.bytes(digits)?).ok()?;
        text.parse::<i64>().ok()
    };
    let days = days(number(4)?, number(2)?, number(2)?);
    let seconds = days * 86_400 + number(2)? * 3_600 + number(2)? * 60 + number(2)?;
    let hundredths = number(2)?;
    let zone = i64::from(i8::from_le_bytes([fields.u8()?]));
    let nanoseconds = u32::try_from(hundredths).ok()?.min(99) * 10_000_000;
    Some(Timestamp { seconds: seconds - zone * 900, nanoseconds })
}

/// What Rock Ridge says of an object.
#[derive(Clone, Debug, Default)]
pub struct RockRidge {
    pub mode: Option<u32>,
    pub links: u32,
    pub uid: u32,
    pub gid: u32,
    pub serial: Option<u32>,
    pub rdev: u64,
    pub name: Option<Vec<u8>>,
    pub target: Option<Vec<u8>>,
    pub creation: Option<Timestamp>,
    pub mtime: Option<Timestamp>,
    pub atime: Option<Timestamp>,
    pub ctime: Option<Timestamp>,
    /// The directory that stands here lies there.
    pub child: Option<u32>,
    /// The directory stands elsewhere.
    pub is_relocated: bool,
    /// Compressed: how much header there is, the logarithm of the block size, and the size unpacked.
    pub zisofs: Option<(u8, u8, u32)>,
}

/// Whether the first record of the root says that there is Rock Ridge: how many bytes are to be passed over.
pub fn skip_of(system: &[u8]) -> Option<usize> {
    // CD-ROM XA puts 14 bytes before it.
    [0, 14].into_iter().find_map(|before| match system.get(before..before + 7)? {
        [b'S', b'P', 7, 1, 0xbe, 0xef, skip] => Some(usize::from(*skip) + before),
        _ => None,
    })
}

impl RockRidge {
    /// Reads what a record says.
    pub fn read(image: &Image, block_size: u64, record: &Record, skip: usize) -> Result<Self> {
        let mut rock = Self::default();
        let mut text = Text::default();
        let mut area = record.system.get(skip..).unwrap_or_default().to_vec();
        for _ in 0..CONTINUATIONS {
            let next = rock.area(image, &area, &mut text)?;
            let Some((block, offset, length)) = next else {
                text.end(&mut rock);
                return Ok(rock);
            };
            let at = u64::from(block) * block_size + u64::from(offset);
            area = image.read_piece(at, length.into(), CONTINUATION)?;
        }
        Err(image.damaged("a record that goes on and on"))
    }

    /// Reads an area; gives where it goes on.
    fn area(&mut self, image: &Image, area: &[u8], text: &mut Text) -> Result<Option<(u32, u32, u32)>> {
        let mut left = Fields(area);
        let mut next = None;
        while left.0.len() >= 4 {
            let (Some(signature), Some(length), Some(_version)) = (left.bytes(2), left.u8(), left.u8()) else { break };
            let Some(body) = usize::from(length).checked_sub(4).and_then(|length| left.bytes(length)) else {
                if signature == [0, 0] {
                    break;
                }
                return Err(image.damaged("a record whose fields do not fit in it"));
            };
            let nonsense = || image.damaged("a field of Rock Ridge that says nothing sensible");
            match signature {
                b"CE" => next = Some(continuation(body).ok_or_else(nonsense)?),
                b"ST" => break,
                b"PX" => self.owner(body).ok_or_else(nonsense)?,
                b"PN" => {
                    let mut fields = Fields(body);
                    let mut both = || fields.u32().and_then(|number| fields.skip(4).map(|()| number));
                    let (high, low) = (both().ok_or_else(nonsense)?, both().ok_or_else(nonsense)?);
                    // fs/isofs/rock.c: some put major and minor in the low word, as old systems do.
                    self.rdev = match high {
                        0 if low > 0xff => rustix::fs::makedev(low >> 8, low & 0xff),
                        _ => rustix::fs::makedev(high, low),
                    };
                }
                b"NM" => text.name(body).ok_or_else(nonsense)?,
                b"SL" => text.target(body).ok_or_else(nonsense)?,
                b"TF" => self.times(body).ok_or_else(nonsense)?,
                b"CL" => self.child = Some(Fields(body).u32().ok_or_else(nonsense)?),
                b"RE" => self.is_relocated = true,
                b"ZF" => {
                    if let [b'p', b'z', header, block, size @ ..] = body {
                        self.zisofs = Some((*header, *block, Fields(size).u32().ok_or_else(nonsense)?));
                    }
                }
                _ => {}
            }
        }
        Ok(next)
    }

    fn owner(&mut self, body: &[u8]) -> Option<()> {
        let mut fields = Fields(body);
        let mut both = || fields.u32().and_then(|number| fields.skip(4).map(|()| number));
        let mode = both()?;
        (self.links, self.uid, self.gid) = (both()?, both()?, both()?);
        self.serial = both();
        self.mode = FileKind::from_mode(mode).map(|kind| kind.bits() | (mode & 0o7777));
        Some(())
    }

    fn times(&mut self, body: &[u8]) -> Option<()> {
        let mut fields = Fields(body);
        let flags = fields.u8()?;
        for (bit, place) in [(1, &mut self.creation), (2, &mut self.mtime), (4, &mut self.atime), (8, &mut self.ctime)]
        {
            if flags & bit != 0 {
                *place =
                    if flags & 0x80 != 0 { long_time(fields.bytes(17)?) } else { Some(short_time(fields.bytes(7)?)) };
            }
        }
        Some(())
    }
}

fn continuation(body: &[u8]) -> Option<(u32, u32, u32)> {
    let mut fields = Fields(body);
    let mut both = || fields.u32().and_then(|number| fields.skip(4).map(|()| number));
    Some((both()?, both()?, both()?))
}

/// Names and targets, which come in pieces.
#[derive(Default)]
struct Text {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    /// The last component of the target goes on.
    goes_on: bool,
}

impl Text {
    fn name(&mut self, body: &[u8]) -> Option<()> {
        let (flags, text) = body.split_first()?;
        // `.` and `..` are told by the record itself.
        if flags & 6 == 0 {
            let name = self.name.get_or_insert_default();
            if name.len() + text.len() <= 255 {
                name.extend_from_slice(text);
            }
        }
        Some(())
    }

    fn target(&mut self, body: &[u8]) -> Option<()> {
        /// The longest target.
        const LONGEST: usize = 4096;
        let target = self.target.get_or_insert_default();
        let mut fields = Fields(body);
        fields.skip(1)?;
        while !fields.0.is_empty() {
            let (flags, length) = (fields.u8()?, fields.u8()?);
            let text = fields.bytes(length.into())?;
            if !self.goes_on && !target.is_empty() && !target.ends_with(b"/") {
                target.push(b'/');
            }
            match flags & 0xe {
                0 => target.extend_from_slice(text),
                2 => target.push(b'.'),
                4 => target.extend_from_slice(b".."),
                8 => target.push(b'/'),
                _ => return None,
            }
            self.goes_on = flags & 1 != 0;
            if target.len() > LONGEST {
                return None;
            }
        }
        Some(())
    }

    fn end(self, rock: &mut RockRidge) {
        rock.name = self.name.filter(|name| !name.is_empty());
        rock.target = self.target;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_counted_from_the_epoch() {
        assert_eq!(short_time(&[70, 1, 1, 1, 0, 0, 4]).seconds, 0);
        let time = long_time(b"2026112518303150\x04").unwrap();
        assert_eq!((time.seconds, time.nanoseconds), (1_795_627_831, 500_000_000));
    }
}
