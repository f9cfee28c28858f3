//! Telling the hypervisor that a call will wait for somebody who may be one of its guests. Knows nothing of threads.

use std::sync::OnceLock;

static TELL: OnceLock<fn()> = OnceLock::new();

/// Says what is done on a thread before it waits: once, by the hypervisor.
pub fn on_blocking(tell: fn()) {
    let _ = TELL.set(tell);
}

/// Does something that may wait for a guest, such as one that serves a file system: another thread takes the calls
/// that this one would have taken meanwhile.
pub fn blocking<T>(body: impl FnOnce() -> T) -> T {
    if let Some(tell) = TELL.get() {
        tell();
    }
    body()
}
