//! fuse: a virtual `/dev/fuse`, the kernel's side of the FUSE protocol in user space.
//!
//! Architecture invariant: knows servers as what they say, and nothing of how guests' files are kept or of system calls.

mod abi;
mod changes;
mod connection;
mod device;
mod driver;
mod file;
mod listing;
mod mount;
mod news;
#[cfg(test)]
mod nonsense;
mod options;
mod reply;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use umvu_interface::{ClaimedDevice, FilesystemType, LoadError, Loaded, Module, ModuleDescriptor, OptionHelp};

use device::Device;
use mount::Type;
use options::Sort;

/// The module's entry in the list of modules.
pub static MODULE: ModuleDescriptor = ModuleDescriptor {
    name: "fuse",
    aliases: &["vudevfuse"],
    summary: "/dev/fuse: FUSE servers as they are, and fusermount, without the kernel's FUSE",
    options: &[],
    mount_options: &[
        OptionHelp { syntax: "fd=N", help: "the server's descriptor of /dev/fuse" },
        OptionHelp { syntax: "rootmode=,user_id=,group_id=", help: "as the kernel has them" },
        OptionHelp { syntax: "default_permissions", help: "the view judges by modes, and not the server" },
        OptionHelp { syntax: "allow_other", help: "others than who mounts are admitted" },
        OptionHelp { syntax: "max_read=N", help: "bytes that are read at once" },
    ],
    load,
};

fn load(options: &[&[u8]]) -> Loaded {
    match options.first() {
        None => Ok(Arc::new(Fuse { device: Arc::default() })),
        Some(option) => Err(LoadError::UnknownOption(option.escape_ascii().to_string())),
    }
}

struct Fuse {
    device: Arc<Device>,
}

impl Module for Fuse {
    fn filesystem_types(&self) -> Vec<Arc<dyn FilesystemType>> {
        [Sort::Plain, Sort::Block].map(|sort| Arc::new(Type { device: self.device.clone(), sort }) as _).into()
    }

    fn devices(&self) -> Vec<Arc<dyn ClaimedDevice>> {
        vec![self.device.clone()]
    }
}
