//! Files of the host that hold the contents of files which the host does not have, so that guests read, map and execute
//! them natively. Knows neither formats nor what is in them.
//!
//! All of it lies in `$XDG_CACHE_HOME/umvu`, or `~/.cache/umvu`, and may be removed at any time; where that cannot be
//! written, it goes to `$TMPDIR`. What is small and only read may lie in memory: in `/dev/shm`, where programs can be
//! executed there.

mod device;
mod private;

pub use device::open_device;
pub use private::{directory, fresh_name, Private};
