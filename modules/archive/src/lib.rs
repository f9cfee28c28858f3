//! archive: tar archives and images of containers, mounted as they lie there. All headers are read when one is
//! mounted; contents only as files are opened.
//!
//! Architecture invariant: nothing that an archive says is trusted, and nothing in it reaches out of its tree. Knows
//! nothing of processes; the host's files are the source and a directory for contents.

mod cache;
mod compressed;
#[cfg(test)]
mod damage;
mod digest;
mod entry;
mod fs;
mod image;
mod inode;
mod mount;
mod open;
mod source;
mod tar;
mod tree;

use std::sync::Arc;

use umvu_interface::{
    FilesystemType, LoadError, Module, ModuleDescriptor, MountError, MountRequest, Mounted, OptionHelp, World,
};

pub use image::Config;
pub use open::{config_of, is_layout, Form, Wanted, LIMIT};

/// The module's entry in the list of modules.
pub static MODULE: ModuleDescriptor = ModuleDescriptor {
    name: "archive",
    aliases: &["vuarchive"],
    summary: "tar archives and images of containers, read where they lie: types tar, image, archive",
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
            Arc::new(Type { names: &["archive", "vufusearchive"], form: Form::Any }),
            Arc::new(Type { names: &["tar", "vufusetar"], form: Form::Archive }),
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
