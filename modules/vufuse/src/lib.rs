//! vufuse: images of file systems, mounted where they lie. Each format has a driver that reads, and where it can
//! writes, an image piece by piece.
//!
//! Architecture invariant: nothing that an image says is trusted: numbers are checked, memory is bounded, what goes round
//! in circles ends, and a parser that fails all the same ends its call and not more. Knows nothing of processes.

mod contained;
#[cfg(test)]
mod damage;
mod erofs;
mod examine;
mod ext;
mod fat;
mod format;
mod image;
mod iso9660;
mod mount;
mod options;
mod overlay;
mod owner;
mod part;
mod recent;
mod server;
mod squashfs;
#[cfg(test)]
mod testing;

use std::sync::Arc;

use umvu_interface::{
    FilesystemType, LoadError, Module, ModuleDescriptor, MountError, MountRequest, Mounted, OptionHelp, World,
};

pub use crate::examine::examine;

use crate::format::Format;
use crate::mount::Wanted;
use crate::server::Foreign;

/// The module's entry in the list of modules.
pub static MODULE: ModuleDescriptor = ModuleDescriptor {
    name: "vufuse",
    aliases: &["images"],
    summary: "images of file systems: ext2/3/4 and vfat read and written, squashfs, iso9660, erofs, archives read",
    options: &[],
    mount_options: &[
        OptionHelp { syntax: "offset=SIZE", help: "where in the image the file system begins" },
        OptionHelp { syntax: "sizelimit=SIZE", help: "how much of the image is looked at" },
        OptionHelp {
            syntax: "limit=SIZE",
            help: "what contents that nobody uses may take on the host, 1G if not given",
        },
        OptionHelp { syntax: "memory=SIZE", help: "how much of it in memory: 256M, or a sixteenth of what there is" },
        OptionHelp { syntax: "uid=N", help: "owner of all files (vfat, iso9660); gid= the group" },
        OptionHelp {
            syntax: "umask=MODE",
            help: "permissions that nothing has (vfat); fmask=, dmask= of files, directories",
        },
        OptionHelp { syntax: "mode=MODE", help: "permissions of files (iso9660); dmode= of directories" },
        OptionHelp { syntax: "norock", help: "without Rock Ridge (iso9660); nojoliet without Joliet" },
        OptionHelp { syntax: "noload", help: "read-only, the journal as it is (ext3, ext4)" },
    ],
    load,
};

fn load(options: &[&[u8]]) -> Result<Arc<dyn Module>, LoadError> {
    match options.first() {
        None => Ok(Arc::new(Images)),
        Some(option) => Err(LoadError::UnknownOption(option.escape_ascii().to_string())),
    }
}

struct Images;

impl Module for Images {
    fn filesystem_types(&self) -> Vec<Arc<dyn FilesystemType>> {
        let of = |names, wanted| Arc::new(Type { names, wanted }) as Arc<dyn FilesystemType>;
        let only = |format, names| of(names, Wanted::Only(format));
        vec![
            of(&["vufuse", "auto"], Wanted::Any),
            only(Format::Ext, &["ext4", "vufuseext4", "ext3", "vufuseext3", "ext2", "vufuseext2"]),
            only(Format::Squashfs, &["squashfs", "vufusesquashfs"]),
            only(Format::Iso9660, &["iso9660", "vufuseiso", "vufuseiso9660"]),
            only(Format::Fat, &["vfat", "vufusefat", "msdos", "vufusevfat"]),
            only(Format::Erofs, &["erofs", "vufuseerofs"]),
            of(&["ntfs", "vufusentfs", "ntfs3"], Wanted::Served(Foreign::Ntfs)),
            of(&["exfat", "vufuseexfat"], Wanted::Served(Foreign::Exfat)),
            of(&["vufusearchive"], Wanted::Archive("archive")),
            of(&["vufusetar"], Wanted::Archive("tar")),
            of(&["vufusezip"], Wanted::Archive("zip")),
            of(&["vufusecpio"], Wanted::Archive("cpio")),
        ]
    }
}

struct Type {
    names: &'static [&'static str],
    wanted: Wanted,
}

impl FilesystemType for Type {
    fn names(&self) -> &'static [&'static str] {
        self.names
    }

    fn needs_no_source(&self) -> bool {
        false
    }

    fn mount(&self, request: &MountRequest<'_>, world: &dyn World) -> Result<Mounted, MountError> {
        mount::mount(request, world, self.wanted)
    }
}
