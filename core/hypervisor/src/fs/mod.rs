//! File systems that the hypervisor itself brings.

pub mod proc;
pub mod tmp;
