//! archive: archives (tar, zip, cpio) and images of containers, mounted as they lie there. All headers are read when one
//! is mounted; contents only as files are opened.
//!
//! Architecture invariant: nothing that an archive says is trusted, and nothing in it reaches out of its tree. Knows
//! nothing of processes; the host's files are the source and a directory for contents.

mod cache;
pub mod calendar;
mod compressed;
mod cpio;
#[cfg(test)]
mod damage;
mod digest;
mod entry;
mod fields;
mod format;
mod fs;
mod image;
mod inode;
mod mount;
mod open;
mod source;
mod tar;
mod tree;
mod window;
mod zip;

use std::sync::Arc;

use umvu_interface::{
    FilesystemType, LoadError, Module, ModuleDescriptor, MountError, MountRequest, Mounted, OptionHelp, World,
};

pub use fields::Fields;
pub use format::Format;
pub use image::Config;
pub use open::{config_of, examine, is_layout, Form, Wanted, LIMIT};

/// The module's entry in the list of modules.
pub static MODULE: ModuleDescriptor = ModuleDescriptor {
    name: "archive",
    aliases: &["vuarchive"],
    summary: "archives and images of containers, read where they lie: types tar, zip, cpio, image, archive",
    options: &[],
    mount_options: &[
        OptionHelp { syntax: "image=TAG", help: "of several images this one; the first, if it is not given" },
        OptionHelp { syntax: "limit=SIZE", help: "most that a compressed part may unpack to, 32G if not given" },
        OptionHelp { syntax: "dir=PATH", help: "there is a directory at PATH, in any case; may be repeated" },
        OptionHelp { syntax: "file=PATH", help: "there is a file at PATH, in any case; may be repeated" },
    ],
    load,
};

fn load(options: &[&[u8]]) -> Result<Arc<dyn Module>, LoadError> {
    match options.first() {
        None => Ok(Arc::new(Archives)),
        Some(option) => Err(LoadError::UnknownOption(option.escape_ascii().to_string())),
    }
}

struct Archives;

impl Module for Archives {
    fn filesystem_types(&self) -> Vec<Arc<dyn FilesystemType>> {
        vec![
            Arc::new(Type { names: &["archive"], form: Form::Any }),
            Arc::new(Type { names: &["tar"], form: Form::Archive(Format::Tar) }),
            Arc::new(Type { names: &["zip"], form: Form::Archive(Format::Zip) }),
            Arc::new(Type { names: &["cpio"], form: Form::Archive(Format::Cpio) }),
            Arc::new(Type { names: &["image", "oci"], form: Form::Image }),
        ]
    }
}

struct Type {
    names: &'static [&'static str],
    form: Form,
}

impl FilesystemType for Type {
    fn names(&self) -> &'static [&'static str] {
        self.names
    }

    fn needs_no_source(&self) -> bool {
        false
    }

    fn mount(&self, request: &MountRequest<'_>, world: &dyn World) -> Result<Mounted, MountError> {
        mount::mount(request, world, self.form)
    }
}
