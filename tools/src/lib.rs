//! umvu and the vu_* tools: command lines, messages to the supervisor, and what people read.
//!
//! Each tool is a module with its `Options` (the command line, from which completions and man pages come too) and
//! a `run`; the programs in `bin/` only join the two. The tools know the protocol, not the supervisor behind it;
//! only [`launch`] starts one.

pub mod accounts;
pub mod client;
pub mod debug;
pub mod docs;
pub mod enter;
pub mod insmod;
pub mod launch;
pub mod log;
pub mod lsmod;
pub mod modules;
pub mod mount;
pub mod mount_words;
pub mod nested;
pub mod plan;
pub mod program;
pub mod rc;
pub mod report;
pub mod rmmod;
pub mod root;
mod served;
pub mod start;
pub mod su;
pub mod uname;
pub mod unmount;
