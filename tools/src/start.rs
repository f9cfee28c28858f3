//! Where umvu hands over to the hypervisor.

pub use umvu_hypervisor::{run, AtEnd, Config, Nesting, Pids, StartError, TraceTarget};
