//! Executable formats that a mounted file system claims, as binfmt_misc does. Knows nothing of how programs are started.

use std::any::Any;
use std::sync::Arc;

/// How many bytes of a program its format is told by: `BINPRM_BUF_SIZE` of include/uapi/linux/binfmts.h.
pub const PROGRAM_HEAD: usize = 256;

/// A program that is about to be executed.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// Its first bytes; what a shorter one lacks is zero.
    pub head: &'a [u8; PROGRAM_HEAD],
    /// The path by which it is executed, as given: that of execve(2), or of the interpreter that a script or a claim
    /// has named.
    pub path: &'a [u8],
    /// Its path in the caller's view, where it has one.
    pub place: Option<&'a [u8]>,
}

/// What is executed instead of a program.
#[derive(Clone, Debug)]
pub struct ProgramClaim {
    /// Path of the interpreter, found in the caller's view; it becomes the first argument, the program's path the
    /// second.
    pub interpreter: Vec<u8>,
    /// The interpreter itself, where it was opened before: what [`World::hold_program`](crate::World::hold_program)
    /// gave.
    pub held: Option<HeldProgram>,
    /// What becomes of the program's own first argument.
    pub argv0: Argv0,
    /// Whether the interpreter gets the program as an open descriptor: `AT_EXECFD` of getauxval(3).
    pub descriptor: ProgramDescriptor,
    /// Whose set-id bits count.
    pub identity: IdentityOf,
}

/// A program that is kept whatever becomes of its path.
#[derive(Clone)]
pub struct HeldProgram(pub Arc<dyn Any + Send + Sync>);

impl std::fmt::Debug for HeldProgram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HeldProgram")
    }
}

/// What becomes of the first argument of a program with an interpreter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argv0 {
    /// It is left out.
    Dropped,
    /// It follows the program's path.
    Kept,
}

/// Whether an interpreter gets its program as an open descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramDescriptor {
    /// It has the path alone.
    None,
    /// `AT_EXECFD` names one.
    Given,
}

/// Whose set-id bits count when a program with an interpreter is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityOf {
    /// The interpreter's.
    Interpreter,
    /// The program's.
    Program,
}
