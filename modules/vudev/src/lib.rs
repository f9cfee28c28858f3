//! vudev: character and block devices that the kernel does not have, by mounting: `vumount -t vudevpartx disk /dev/hda`.
//!
//! A device is a file system whose root is the device node. A disk shows its partitions beside its mount point, and
//! describes itself below `/sys`, as outposts ([`umvu_interface::Filesystem::outpost`]).
//!
//! Architecture invariant: a device knows storages and offsets, and nothing of how a read or an ioctl gets to it.

mod disk;
mod image;
mod ioctl;
mod loops;
mod node;
mod null;
mod open;
mod options;
mod partition;
mod sys;
mod types;

use std::sync::Arc;

use umvu_interface::{ClaimedDevice, FilesystemType, LoadError, Module, ModuleDescriptor, OptionHelp};

/// The module's entry in the list of modules.
pub static MODULE: ModuleDescriptor = ModuleDescriptor {
    name: "vudev",
    aliases: &[],
    summary: "devices: disks in files and images, RAM disks, loop devices, null",
    options: &[],
    mount_options: &[
        OptionHelp { syntax: "ro", help: "the device refuses writes" },
        OptionHelp { syntax: "size=N", help: "size of a vudevramdisk: 1440K if none is given" },
        OptionHelp { syntax: "mbr", help: "a vudevramdisk begins with an empty partition table" },
        OptionHelp { syntax: "mode=M", help: "permission bits of the node: 660" },
        OptionHelp { syntax: "uid=N", help: "its owner: who mounts" },
        OptionHelp { syntax: "gid=N", help: "its group" },
        OptionHelp { syntax: "major=N", help: "its numbers: 3 and one of its own" },
        OptionHelp { syntax: "minor=N", help: "the second of them" },
    ],
    load,
};

fn load(options: &[&[u8]]) -> Result<Arc<dyn Module>, LoadError> {
    match options.first() {
        None => Ok(Arc::new(Vudev)),
        Some(option) => Err(LoadError::UnknownOption(option.escape_ascii().to_string())),
    }
}

struct Vudev;

impl Module for Vudev {
    fn filesystem_types(&self) -> Vec<Arc<dyn FilesystemType>> {
        types::all()
    }

    fn devices(&self) -> Vec<Arc<dyn ClaimedDevice>> {
        vec![Arc::new(loops::ControlNode)]
    }
}
