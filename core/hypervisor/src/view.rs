//! A view: mounts, modules, identity and names that a tree of processes shares. Knows nothing of calls.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use umvu_interface::{
    ClaimedDevice, Credentials, Errno, FilesystemType, Identity, Module, ModuleDescriptor, PortMap, UserNamespace,
};

use crate::mount::MountTable;
use crate::namespace::{new_number, Uts};

/// A loaded module.
#[derive(Clone)]
pub struct LoadedModule {
    /// Its descriptor.
    pub descriptor: &'static ModuleDescriptor,
    /// The module.
    pub module: Arc<dyn Module>,
    /// Whether it must stay.
    pub permanent: bool,
}

/// The names uname(2) tells, where the view has its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct HostNames {
    pub nodename: Option<Vec<u8>>,
    pub domainname: Option<Vec<u8>>,
    pub release: Option<Vec<u8>>,
}

/// A view.
pub struct View {
    /// Unique within the supervisor.
    pub id: u64,
    /// How many views it stands on.
    pub depth: u32,
    /// Name for people.
    pub name: RwLock<Vec<u8>>,
    /// The mounts.
    pub mounts: ArcSwap<MountTable>,
    /// Counts changes of the mounts.
    pub generation: AtomicU64,
    /// Modules loaded in this view, oldest first.
    pub modules: RwLock<Vec<LoadedModule>>,
    /// What the views below brought.
    pub inherited: Vec<LoadedModule>,
    /// Host and domain name, for who has no others.
    pub uts: Arc<Uts>,
    /// What stat(2) shows as the inode of its mount namespace; 0 for the first view's, which is the host's.
    pub number: u64,
    /// The user namespace that owns its mounts; `None` for the view's own.
    pub owner: Option<Arc<UserNamespace>>,
    /// Debug tags that are on.
    pub debug: RwLock<Vec<u8>>,
    /// Held while the view changes.
    pub change: Mutex<()>,
    plain: AtomicBool,
    /// Whether a process in it has ever had namespaces of its own: then `/proc` is never the host's again.
    has_namespaces: AtomicBool,
    /// Whether a module claims devices.
    claims_devices: AtomicBool,
    /// Ports with other numbers than the host's, the newest module first.
    ports: ArcSwap<Vec<Arc<dyn PortMap>>>,
    host: Arc<Credentials>,
    initial: RwLock<Option<Arc<Credentials>>>,
}

/// Why a module cannot be loaded or unloaded.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ModuleError {
    /// Errno.
    pub errno: Errno,
    /// For people.
    pub message: String,
}

impl View {
    /// Makes a view.
    pub fn new(
        id: u64,
        depth: u32,
        table: MountTable,
        inherited: Vec<LoadedModule>,
        name: Vec<u8>,
        host: Arc<Credentials>,
    ) -> Arc<Self> {
        let mut view = Self::bare(id, depth, table, host);
        (view.inherited, view.name) = (inherited, RwLock::new(name));
        view.update_plain();
        Arc::new(view)
    }

    fn bare(id: u64, depth: u32, table: MountTable, host: Arc<Credentials>) -> Self {
        Self {
            id,
            depth,
            name: RwLock::default(),
            mounts: ArcSwap::from_pointee(table),
            generation: AtomicU64::new(0),
            modules: RwLock::default(),
            inherited: Vec::new(),
            uts: Uts::of_kernel(),
            number: 0,
            owner: None,
            debug: RwLock::default(),
            change: Mutex::default(),
            plain: AtomicBool::new(true),
            has_namespaces: AtomicBool::new(false),
            claims_devices: AtomicBool::new(false),
            ports: ArcSwap::default(),
            host,
            initial: RwLock::default(),
        }
    }

    /// A view that starts with all that `self` has, but for the names of the host.
    pub fn stacked(&self, id: u64, name: Vec<u8>, uts: Arc<Uts>, owner: Option<Arc<UserNamespace>>) -> Arc<Self> {
        let mut inherited = self.inherited.clone();
        inherited.extend(self.modules.read().iter().cloned());
        let mut view = Self::bare(id, self.depth + 1, (**self.mounts.load()).clone(), self.host.clone());
        (view.inherited, view.name, view.uts) = (inherited, RwLock::new(name), uts);
        (view.number, view.owner) = (new_number(), owner);
        view.has_namespaces = AtomicBool::new(self.has_namespaces.load(Ordering::Acquire));
        view.update_plain();
        Arc::new(view)
    }

    /// Records that a process in it has namespaces of its own.
    pub fn gets_namespaces(&self) {
        if !self.has_namespaces.swap(true, Ordering::AcqRel) {
            self.update_plain();
        }
    }

    /// Whether files and identities are just the host's.
    pub fn is_plain(&self) -> bool {
        self.plain.load(Ordering::Acquire)
    }

    /// Decides anew whether files and identities are just the host's, and which ports are not.
    pub fn update_plain(&self) {
        let identity = self.identity();
        let has_own = self.has_namespaces.load(Ordering::Acquire);
        let claims = self.device(|_| true).is_some();
        self.claims_devices.store(claims, Ordering::Release);
        self.ports.store(Arc::new(self.port_maps()));
        let plain = self.mounts.load().is_host() && identity.is_none() && !has_own && !claims;
        *self.initial.write() = identity.map(|i| Arc::new(i.enter(&self.host)));
        self.plain.store(plain, Ordering::Release);
    }

    /// The identity of processes that have none of their own; `None` where the kernel's is the truth.
    pub fn initial_credentials(&self) -> Option<Arc<Credentials>> {
        self.initial.read().clone()
    }

    /// The newest identity claimed.
    pub fn identity(&self) -> Option<Arc<dyn Identity>> {
        let newest = self.modules.read().iter().rev().find_map(|m| m.module.identity());
        newest.or_else(|| self.inherited.iter().rev().find_map(|m| m.module.identity()))
    }

    /// Finds a file system type, the newest module first.
    pub fn filesystem_type(&self, name: &[u8]) -> Option<(&'static str, Arc<dyn FilesystemType>)> {
        let base = name.split(|b| *b == b'.').next().unwrap_or_default();
        let answers = |t: &Arc<dyn FilesystemType>| {
            let name = if t.has_subtypes() { base } else { name };
            t.names().iter().any(|n| n.as_bytes() == name)
        };
        let find = |m: &LoadedModule| {
            let found = m.module.filesystem_types().into_iter().find(answers)?;
            Some((m.descriptor.name, found))
        };
        let own = self.modules.read().iter().rev().find_map(find);
        own.or_else(|| self.inherited.iter().rev().find_map(find))
    }

    /// Finds a device that a module claims, the newest module first.
    pub fn device(&self, is_it: impl Fn(&dyn ClaimedDevice) -> bool) -> Option<Arc<dyn ClaimedDevice>> {
        let find = |m: &LoadedModule| m.module.devices().into_iter().find(|device| is_it(&**device));
        let own = self.modules.read().iter().rev().find_map(find);
        own.or_else(|| self.inherited.iter().rev().find_map(find))
    }

    /// Whether a module claims devices.
    pub fn claims_devices(&self) -> bool {
        self.claims_devices.load(Ordering::Acquire)
    }

    fn port_maps(&self) -> Vec<Arc<dyn PortMap>> {
        let own = self.modules.read();
        own.iter().rev().chain(self.inherited.iter().rev()).filter_map(|m| m.module.ports()).collect()
    }

    /// Whether some port has another number in the view than on the host.
    pub fn maps_ports(&self) -> bool {
        !self.ports.load().is_empty()
    }

    /// The number on the host of a port of the view; `None` if it is the same.
    pub fn port_on_host(&self, port: u16) -> Option<u16> {
        self.ports.load().iter().find_map(|map| map.on_host(port))
    }

    /// The number in the view of a port of the host; `None` if it is the same.
    pub fn port_in_view(&self, port: u16) -> Option<u16> {
        self.ports.load().iter().find_map(|map| map.in_view(port))
    }

    /// All file system types, for `/proc/filesystems`.
    pub fn filesystem_types(&self) -> Vec<Arc<dyn FilesystemType>> {
        let own = self.modules.read();
        self.inherited.iter().chain(own.iter()).flat_map(|m| m.module.filesystem_types()).collect()
    }

    /// Replaces the mount table; the caller holds `change`.
    pub fn set_mounts(&self, table: MountTable) {
        self.mounts.store(Arc::new(table));
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.update_plain();
    }

    /// How many mounts of this view use a module.
    pub fn users_of(&self, module: &str) -> u32 {
        let table = self.mounts.load();
        let used = table.mounts().iter().chain(table.detached());
        let count = used.filter(|m| m.module == Some(module)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Loads a module: `name[,option...]`.
    ///
    /// # Errors
    /// - `ENOENT`: unknown name.
    /// - `EEXIST`: already loaded in this view.
    /// - `EINVAL`: bad option.
    pub fn insert(
        &self,
        known: &[&'static ModuleDescriptor],
        text: &[u8],
        permanent: bool,
    ) -> Result<&'static ModuleDescriptor, ModuleError> {
        let mut parts = text.split(|b| *b == b',');
        let name = parts.next().unwrap_or_default();
        let options: Vec<&[u8]> = parts.collect();
        let shown = name.escape_ascii().to_string();
        let descriptor = find(known, name).ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|d| d.name).collect();
            ModuleError {
                errno: Errno::NOENT,
                message: format!("{shown}: no such module: there are {}", names.join(", ")),
            }
        })?;
        let _change = self.change.lock();
        if self.modules.read().iter().any(|m| m.descriptor.name == descriptor.name) {
            return Err(ModuleError { errno: Errno::EXIST, message: format!("{shown}: already loaded") });
        }
        let module = (descriptor.load)(&options)
            .map_err(|error| ModuleError { errno: Errno::INVAL, message: format!("{shown}: {error}") })?;
        self.modules.write().push(LoadedModule { descriptor, module, permanent });
        if self.identity().is_some() {
            for mount in self.mounts.load().mounts() {
                mount.filesystem.fake_ownership();
            }
        }
        self.update_plain();
        Ok(descriptor)
    }

    /// Unloads a module.
    ///
    /// # Errors
    /// - `ENOENT`: not loaded in this view.
    /// - `EPERM`: loaded for good.
    /// - `EBUSY`: in use by mounts.
    pub fn remove(&self, name: &[u8]) -> Result<&'static ModuleDescriptor, ModuleError> {
        let shown = name.escape_ascii().to_string();
        let _change = self.change.lock();
        let at = self
            .modules
            .read()
            .iter()
            .position(|m| answers_to(m.descriptor, name))
            .ok_or_else(|| ModuleError { errno: Errno::NOENT, message: format!("{shown}: not loaded") })?;
        let loaded = self.modules.read()[at].clone();
        if loaded.permanent {
            return Err(ModuleError { errno: Errno::PERM, message: format!("{shown}: loaded as permanent") });
        }
        let users = self.users_of(loaded.descriptor.name);
        if users > 0 {
            let plural = if users == 1 { "mount" } else { "mounts" };
            return Err(ModuleError { errno: Errno::BUSY, message: format!("{shown}: in use by {users} {plural}") });
        }
        self.modules.write().remove(at);
        self.update_plain();
        Ok(loaded.descriptor)
    }
}

fn answers_to(descriptor: &ModuleDescriptor, name: &[u8]) -> bool {
    descriptor.name.as_bytes() == name || descriptor.aliases.iter().any(|a| a.as_bytes() == name)
}

fn find(known: &[&'static ModuleDescriptor], name: &[u8]) -> Option<&'static ModuleDescriptor> {
    known.iter().copied().find(|d| answers_to(d, name))
}
