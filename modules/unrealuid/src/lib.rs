//! unrealuid: identities that a view fakes.
//!
//! Knows nothing of files: what a faked identity may do with them is the hypervisor's business, by Linux's rules.

use std::sync::Arc;

use umvu_interface::{
    Capabilities, Credentials, Identity, Ids, LoadError, Module, ModuleDescriptor, OptionHelp, Origin,
};

/// The module's entry in the list of modules.
pub static MODULE: ModuleDescriptor = ModuleDescriptor {
    name: "unrealuid",
    aliases: &["unrealuidgid", "vuunrealuid", "vuunrealuidgid"],
    summary: "users and groups of the view's own: every process of the view becomes its root",
    options: &[OptionHelp {
        syntax: "keep",
        help: "processes keep the ids they have until they ask for others, which they may",
    }],
    mount_options: &[],
    load,
};

fn load(options: &[&[u8]]) -> Result<Arc<dyn Module>, LoadError> {
    let mut first = First::Root;
    for option in options {
        match *option {
            b"keep" => first = First::Keep,
            other => return Err(LoadError::UnknownOption(other.escape_ascii().to_string())),
        }
    }
    Ok(Arc::new(UnrealUid { policy: Arc::new(Policy { first }) }))
}

/// What a process is at first.
#[derive(Clone, Copy)]
enum First {
    Root,
    Keep,
}

struct UnrealUid {
    policy: Arc<Policy>,
}

impl Module for UnrealUid {
    fn identity(&self) -> Option<Arc<dyn Identity>> {
        Some(self.policy.clone())
    }
}

struct Policy {
    first: First,
}

impl Identity for Policy {
    fn enter(&self, host: &Credentials) -> Credentials {
        match self.first {
            First::Root => Credentials {
                uid: Ids::all(0),
                gid: Ids::all(0),
                groups: Arc::from([0].as_slice()),
                capabilities: Capabilities::full(),
                securebits: 0,
                origin: Origin::Faked,
                namespace: None,
            },
            First::Keep => {
                let changing = Capabilities::SETUID | Capabilities::SETGID;
                Credentials {
                    capabilities: Capabilities {
                        effective: changing,
                        permitted: Capabilities::ALL,
                        ..Capabilities::full()
                    },
                    origin: Origin::Faked,
                    ..host.clone()
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Credentials {
        Credentials {
            uid: Ids::all(1000),
            gid: Ids::all(1000),
            groups: Arc::from([1000, 4].as_slice()),
            capabilities: Capabilities::none(),
            securebits: 0,
            origin: Origin::Host,
            namespace: None,
        }
    }

    #[test]
    fn without_options_everybody_is_root() {
        let root = load(&[]).unwrap().identity().unwrap().enter(&host());
        assert_eq!((root.uid, root.gid), (Ids::all(0), Ids::all(0)));
        assert!(root.capable(Capabilities::CHOWN) && root.is_faked());
    }

    #[test]
    fn keep_leaves_the_ids_and_grants_the_change() {
        let same = load(&[b"keep"]).unwrap().identity().unwrap().enter(&host());
        assert_eq!((same.uid, same.gid), (Ids::all(1000), Ids::all(1000)));
        assert!(same.capable(Capabilities::SETUID) && !same.capable(Capabilities::CHOWN));
    }

    #[test]
    fn an_unknown_option_is_named() {
        let error = load(&[b"kep"]).err().unwrap();
        assert_eq!(error.to_string(), "unknown option 'kep'");
    }
}
