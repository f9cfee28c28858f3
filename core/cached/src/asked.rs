//! The driver as it is asked: what it fails with reaches the guest, and it fails alone.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use umvu_driver::{Driver, NodeId};
use umvu_interface::{Caller, Credentials, Errno, Result};

/// A driver, and who asks it when nobody in particular does.
pub struct Asked {
    driver: Arc<dyn Driver>,
    mounter: Credentials,
    tid: u32,
}

impl Asked {
    pub fn new(driver: Arc<dyn Driver>, mounter: Credentials, tid: u32) -> Self {
        Self { driver, mounter, tid }
    }

    /// Asks the driver for somebody.
    ///
    /// # Errors
    /// - `EIO`: it panicked.
    /// - its own.
    pub fn by<T>(&self, caller: &Caller<'_>, ask: impl FnOnce(&dyn Driver, &Caller<'_>) -> Result<T>) -> Result<T> {
        let driver = &*self.driver;
        let ask = || contained(|| ask(driver, caller));
        if driver.may_block() {
            umvu_interface::blocking(ask)
        } else {
            ask()
        }
    }

    /// Asks the driver for nobody in particular: in the name of who has mounted it.
    ///
    /// # Errors
    /// As [`Asked::by`].
    pub fn any<T>(&self, ask: impl FnOnce(&dyn Driver, &Caller<'_>) -> Result<T>) -> Result<T> {
        self.by(&Caller { tid: self.tid, credentials: &self.mounter, umask: 0 }, ask)
    }

    /// Does something for which the driver is asked over and over.
    pub fn waiting<T>(&self, body: impl FnOnce() -> T) -> T {
        if self.driver.may_block() {
            umvu_interface::blocking(body)
        } else {
            body()
        }
    }

    /// Writes all that was changed to the storage.
    ///
    /// # Errors
    /// As [`Asked::by`].
    pub fn sync(&self) -> Result<()> {
        self.any(|driver, _| driver.sync())
    }

    /// Tells the driver that it is not needed any more.
    ///
    /// # Errors
    /// As [`Asked::by`].
    pub fn unmount(&self) -> Result<()> {
        self.any(|driver, _| driver.unmount())
    }

    /// Has the driver give up.
    pub fn abort(&self) {
        self.tell("a file system was not given up", |driver| driver.abort());
    }

    /// Tells the driver that all objects are forgotten.
    pub fn forgets_all(&self) {
        self.tell("objects were not forgotten", |driver| driver.forgets_all());
    }

    fn tell(&self, failed: &str, tell: impl FnOnce(&dyn Driver)) {
        let told = contained(|| {
            tell(&*self.driver);
            Ok(())
        });
        if let Err(errno) = told {
            tracing::warn!(%errno, "{failed}");
        }
    }

    pub fn stamps_writes(&self) -> bool {
        self.driver.stamps_writes()
    }

    /// Says that an object is not needed any more.
    pub fn forget(&self, node: NodeId, lookups: u64) {
        let forgotten = contained(|| {
            self.driver.forget(node, lookups);
            Ok(())
        });
        if let Err(errno) = forgotten {
            tracing::warn!(node, %errno, "an object was not forgotten");
        }
    }

    pub fn admits(&self, who: &Credentials) -> bool {
        self.driver.admits(who)
    }

    pub fn is_ready(&self) -> bool {
        self.driver.is_ready()
    }

    pub fn may_block(&self) -> bool {
        self.driver.may_block()
    }

    pub fn checks_permissions(&self) -> bool {
        self.driver.checks_permissions()
    }

    /// Whether the view judges by access control lists.
    pub fn has_acls(&self) -> bool {
        self.driver.has_acls()
    }
}

/// Does something of a driver's that may panic.
///
/// # Errors
/// - `EIO`: it did.
pub fn contained<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        tracing::error!("a file system driver failed, answered EIO");
        Err(Errno::IO)
    })
}
