//! binfmt: interpreters for executable formats, as the kernel's binfmt_misc has them, for one view.
//!
//! The rules live in a file system: where it is mounted, its files take and show them; while it is mounted, they hold.
//!
//! Architecture invariant: knows programs as their first bytes and paths, and nothing of how one is started.

mod qemu;
mod rule;
mod rules;

use std::sync::Arc;

use umvu_interface::{
    cause, Errno, FilesystemType, InnerMounts, LoadError, Module, ModuleDescriptor, MountError, MountFlags,
    MountRequest, Mounted, OptionHelp, TextFs, World,
};

use rules::Rules;

/// The module's entry in the list of modules.
pub static MODULE: ModuleDescriptor = ModuleDescriptor {
    name: "binfmt",
    aliases: &["vubinfmt"],
    summary: "interpreters for programs that the kernel cannot execute, as binfmt_misc",
    options: &[],
    mount_options: &[OptionHelp { syntax: "qemu", help: "begins with rules for the user emulators of qemu" }],
    load,
};

fn load(options: &[&[u8]]) -> Result<Arc<dyn Module>, LoadError> {
    match options.first() {
        None => Ok(Arc::new(Binfmt)),
        Some(option) => Err(LoadError::UnknownOption(option.escape_ascii().to_string())),
    }
}

struct Binfmt;

impl Module for Binfmt {
    fn filesystem_types(&self) -> Vec<Arc<dyn FilesystemType>> {
        vec![Arc::new(Type)]
    }
}

struct Type;

/// `BINFMTFS_MAGIC` of linux/magic.h.
const MAGIC: u64 = 0x4249_4e4d;

impl FilesystemType for Type {
    fn names(&self) -> &'static [&'static str] {
        &["vubinfmt", "binfmt_misc"]
    }

    fn mount(&self, request: &MountRequest<'_>, world: &dyn World) -> Result<Mounted, MountError> {
        let rules = Rules::new(prefix(request.source));
        for option in &request.options {
            match &option[..] {
                b"qemu" => add_emulators(&rules, world)?,
                other => {
                    let message = format!("vubinfmt: unknown option '{}'", other.escape_ascii());
                    return Err(MountError::new(Errno::INVAL, message));
                }
            }
        }
        let filesystem = TextFs::new(rules, world.new_device(), MAGIC, &request.caller);
        let root = umvu_interface::Filesystem::root(&*filesystem);
        let (flags, inner) = (MountFlags::empty(), InnerMounts::Covered);
        Ok(Mounted { root, filesystem, shown_type: request.fstype.to_vec(), flags, inner })
    }
}

/// A source that is a path limits the rules to the programs below it; any other word says nothing.
fn prefix(source: &[u8]) -> Option<Vec<u8>> {
    let end = source.iter().rposition(|b| *b != b'/')? + 1;
    source.starts_with(b"/").then(|| source[..end].to_vec())
}

fn add_emulators(rules: &Rules, world: &dyn World) -> Result<(), MountError> {
    let lines = qemu::rules(|path| world.resolve(path.as_bytes()).is_ok());
    if lines.is_empty() {
        return Err(MountError::new(Errno::NOENT, "vubinfmt: option 'qemu': no qemu-user emulator is installed"));
    }
    for line in lines.iter().rev() {
        rules
            .register(line, world)
            .map_err(|errno| MountError::new(errno, format!("vubinfmt: option 'qemu': {}", cause(errno))))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_is_a_path_is_a_limit() {
        assert_eq!(prefix(b"none"), None);
        assert_eq!(prefix(b""), None);
        assert_eq!(prefix(b"/"), None);
        assert_eq!(prefix(b"/srv/arm/"), Some(b"/srv/arm".to_vec()));
    }
}
