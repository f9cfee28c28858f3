//! Letting go of what umvu was started with: nobody but the guests holds the ends of their pipes.

/// Which standard streams to let go of.
pub enum Streams {
    /// Errors can still be told.
    AllButError,
    /// All three.
    All,
}

/// Replaces standard streams by `/dev/null`.
pub fn detach_standard(which: Streams) {
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    let Ok(null) = rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty()) else { return };
    let _ = rustix::stdio::dup2_stdin(&null);
    let _ = rustix::stdio::dup2_stdout(&null);
    if matches!(which, Streams::All) {
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}

/// Replaces standard streams, and closes everything else that was inherited.
pub fn detach(which: Streams) {
    detach_standard(which);
    if let Err(errno) = umvu_sys::inherited::close_descriptors() {
        tracing::debug!(%errno, "inherited descriptors stay open");
    }
}
