//! One device number for a tree whose objects lie on several: which of them an inode number came from is kept in
//! its high bits, as the kernel's `xino`. Knows which file systems are the kernel's own windows on itself.

use parking_lot::RwLock;
use umvu_interface::{FsStat, InodeRef, Result};

/// Where the number of the device stands in an inode number.
const SHIFT: u32 = 48;

/// File systems that show the kernel's own state (`linux/magic.h`): a copy of their files would mean nothing.
const KERNEL_STATE: [u64; 17] = [
    0x0000_9fa0, // proc
    0x6265_6572, // sysfs
    0x0000_1cd1, // devpts
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0x1980_0202, // mqueue
    0x4249_4e4d, // binfmt_misc
    0xcafe_4a11, // bpf
    0x6165_676c, // pstore
    0xde5e_81e4, // efivarfs
    0x6265_6570, // configfs
    0x6573_5543, // fusectl
    0x6e73_6673, // nsfs
    0xf97c_ff8c, // selinuxfs
];

/// A device that objects of the union lie on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Device {
    dev: u64,
    /// Order in which it was met; 0 is the bottom layer's.
    index: u64,
    /// Whether its objects are shown and changed as they are.
    pub(crate) is_kernel_state: bool,
}

impl Device {
    /// Gives the number shown for an inode of this device.
    pub(crate) fn ino(&self, ino: u64) -> u64 {
        ino ^ (self.index << SHIFT)
    }
}

/// The devices met so far.
#[derive(Default)]
pub(crate) struct Devices {
    known: RwLock<Vec<Device>>,
}

impl Devices {
    /// Finds a device; `numbers` is asked for its file system the first time.
    pub(crate) fn get(&self, dev: u64, numbers: impl FnOnce() -> Result<FsStat>) -> Device {
        if let Some(known) = self.find(dev) {
            return known;
        }
        let is_kernel_state = numbers().is_ok_and(|numbers| KERNEL_STATE.contains(&numbers.magic));
        let mut known = self.known.write();
        if let Some(device) = known.iter().find(|device| device.dev == dev) {
            return *device;
        }
        let index = u64::try_from(known.len()).unwrap_or(u64::MAX);
        let device = Device { dev, index, is_kernel_state };
        known.push(device);
        device
    }

    /// Finds the device that an object of a layer lies on.
    pub(crate) fn of(&self, inode: &InodeRef, dev: u64) -> Device {
        self.get(dev, || inode.filesystem().statfs(&**inode))
    }

    /// Finds a device that has been met.
    pub(crate) fn find(&self, dev: u64) -> Option<Device> {
        self.known.read().iter().find(|device| device.dev == dev).copied()
    }
}
