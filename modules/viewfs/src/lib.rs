//! viewfs: bind, move, merge and copy-on-write unions of trees in a view.
//!
//! Architecture invariant: knows trees only as inodes of the module interface, and nothing of processes, paths of
//! the host or other modules.

mod mount;
mod options;
mod union;

use std::sync::Arc;

use umvu_interface::{
    FilesystemType, LoadError, Module, ModuleDescriptor, MountError, MountRequest, Mounted, OptionHelp, World,
};

/// The module's entry in the list of modules.
pub static MODULE: ModuleDescriptor = ModuleDescriptor {
    name: "viewfs",
    aliases: &["vufs", "vuviewfs", "vuvufs"],
    summary: "file trees put together: bind, merge and copy-on-write unions",
    options: &[],
    mount_options: MOUNT_OPTIONS,
    load,
};

const MOUNT_OPTIONS: &[OptionHelp] = &[
    OptionHelp { syntax: "bind", help: "SOURCE is seen at TARGET; what is done when no mode is given" },
    OptionHelp { syntax: "move", help: "as bind" },
    OptionHelp { syntax: "merge", help: "SOURCE's entries are seen over TARGET's, which takes all changes" },
    OptionHelp { syntax: "cow", help: "SOURCE takes all changes to TARGET, which stays as it is" },
    OptionHelp { syntax: "mincow", help: "as cow, but only for changes that TARGET refuses" },
    OptionHelp {
        syntax: "except=PATH",
        help: "at PATH below TARGET the tree that is covered is seen; may be repeated",
    },
    OptionHelp { syntax: "nochcopy", help: "changes of mode and owner alone copy nothing" },
    OptionHelp { syntax: "ro", help: "nothing can be changed" },
    OptionHelp {
        syntax: "lowerdir=A:B",
        help: "with upperdir=U and workdir=W a union as of overlayfs, also as -t overlay",
    },
];

fn load(options: &[&[u8]]) -> Result<Arc<dyn Module>, LoadError> {
    match options.first() {
        None => Ok(Arc::new(ViewFs)),
        Some(option) => Err(LoadError::UnknownOption(option.escape_ascii().to_string())),
    }
}

struct ViewFs;

impl Module for ViewFs {
    fn filesystem_types(&self) -> Vec<Arc<dyn FilesystemType>> {
        vec![Arc::new(Type { names: &["viewfs", "vufs"] }), Arc::new(Type { names: &["overlay"] })]
    }
}

/// Both types take the same options; they differ in what a mount without any is.
struct Type {
    names: &'static [&'static str],
}

impl FilesystemType for Type {
    fn names(&self) -> &'static [&'static str] {
        self.names
    }

    fn mount(&self, request: &MountRequest<'_>, world: &dyn World) -> Result<Mounted, MountError> {
        let shown = self.names.first().copied().unwrap_or_default();
        mount::mount(request, world, shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_brings_both_types() {
        let module = load(&[]).unwrap();
        let names: Vec<_> = module.filesystem_types().iter().flat_map(|fstype| fstype.names()).copied().collect();
        assert_eq!(names, ["viewfs", "vufs", "overlay"]);
    }

    #[test]
    fn an_option_of_the_module_is_named_in_the_error() {
        assert_eq!(load(&[b"cow"]).err().unwrap().to_string(), "unknown option 'cow'");
    }
}
