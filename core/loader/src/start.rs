//! The way through: plan, mappings, what is told to the kernel and to the program, the jump.

use core::cell::UnsafeCell;
use core::mem::size_of;

use crate::calls::{self, error, PROT_EXEC, PROT_GROWSDOWN, PROT_READ, PROT_WRITE};
use crate::leave::leave;
use crate::map::{self, PROGRAM_BASE};
use crate::plan::{placement, Plan, Segment, CAPACITY, DOOMED, EXECUTABLE_STACK, NONE, RANDOMIZE, RANDOMIZE_BREAK};
use crate::stack::{tag, Stack};

const PAGE: u64 = 4096;

/// The one buffer.
#[repr(align(8))]
struct Buffer(UnsafeCell<[u8; CAPACITY]>);

// SAFETY: the loader has one thread.
unsafe impl Sync for Buffer {}

static BUFFER: Buffer = Buffer(UnsafeCell::new([0; CAPACITY]));

/// `struct prctl_mm_map` of linux/prctl.h.
#[repr(C)]
struct Memory {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_break: u64,
    current_break: u64,
    start_stack: u64,
    argument_start: u64,
    argument_end: u64,
    environment_start: u64,
    environment_end: u64,
    auxiliary: u64,
    auxiliary_size: u32,
    executable: u32,
}

/// Called by the first instruction, with the stack pointer as the kernel gave it and the range of the image.
pub(crate) extern "C" fn start(pointer: u64, image_start: u64, image_end: u64) -> ! {
    let buffer = BUFFER.0.get().cast::<u8>();
    let size = calls::ask(buffer, CAPACITY as u64);
    if error(size).is_some() || size > CAPACITY as u64 {
        die();
    }
    // SAFETY: the buffer is static, aligned and longer than that, and nobody writes to it any more.
    let bytes: &'static [u8] = unsafe { core::slice::from_raw_parts(buffer, size as usize) };
    match run(bytes, pointer) {
        Some((entry, stack)) => {
            let image = (image_start, (image_end + PAGE - 1) & !(PAGE - 1));
            leave(entry, stack.pointer, stack.get(tag::VDSO), image)
        }
        None => die(),
    }
}

/// Ends the process as the kernel does when a program turns out not to be loadable too late: by a fault, which no
/// disposition and no mask of the signal keeps off.
pub(crate) fn die() -> ! {
    const NO_ADDRESS: u64 = 1 << 63;
    // SAFETY: the address is not canonical, so nothing is written.
    unsafe { core::arch::asm!("mov byte ptr [{0}], 0", "ud2", in(reg) NO_ADDRESS, options(noreturn)) }
}

/// Loads what the plan says, and returns where it begins to run, and on which stack.
fn run(bytes: &[u8], pointer: u64) -> Option<(u64, Stack)> {
    let (plan, segments, strings) = parts(bytes)?;
    if plan.flags & DOOMED != 0 {
        return None;
    }
    const ADDR_NO_RANDOMIZE: u64 = 0x004_0000;
    let is_random = plan.flags & RANDOMIZE != 0 && calls::personality() & ADDR_NO_RANDOMIZE == 0;
    let random = |index: usize| if is_random { plan.random.get(index).copied() } else { None };
    let count = plan.program.segments as usize;
    let bias = map::object(&plan.program, segments.get(..count)?, random(0))?;
    let mut interpreter_bias = None;
    let mut entry = plan.program.entry.wrapping_add(bias);
    if plan.interpreter.fd != NONE {
        let bias = map::object(&plan.interpreter, segments.get(count..)?, random(0))?;
        interpreter_bias = Some(bias);
        entry = plan.interpreter.entry.wrapping_add(bias);
    }
    let (path, strings) = strings.split_at_checked(plan.path_size as usize)?;
    let old = Stack::at(pointer);
    let top = old.top();
    let stack = old.retell(plan, path, strings)?;
    stack.tell_objects(plan, bias, interpreter_bias);
    let break_random = if plan.flags & RANDOMIZE_BREAK != 0 { random(1) } else { None };
    tell_kernel(plan, bias, &stack, break_random);
    calls::close(plan.program.fd);
    if plan.interpreter.fd != NONE {
        calls::close(plan.interpreter.fd);
    }
    if plan.flags & EXECUTABLE_STACK != 0 {
        let protection = PROT_READ | PROT_WRITE | PROT_EXEC | PROT_GROWSDOWN;
        // SAFETY: the stack only gains a right.
        unsafe { calls::protect(top - PAGE, PAGE, protection) };
    }
    Some((entry, stack))
}

/// Takes the plan apart; `None` if it is shorter than it says.
fn parts(bytes: &[u8]) -> Option<(&Plan, &[Segment], &[u8])> {
    if bytes.len() < size_of::<Plan>() {
        return None;
    }
    let (head, rest) = bytes.split_at(size_of::<Plan>());
    // SAFETY: the buffer is aligned for it, long enough, and any bytes are a plan.
    let plan = unsafe { &*head.as_ptr().cast::<Plan>() };
    let count = plan.program.segments.checked_add(plan.interpreter.segments)? as usize;
    let size = count.checked_mul(size_of::<Segment>())?;
    if rest.len() < size {
        return None;
    }
    let (table, strings) = rest.split_at(size);
    // SAFETY: both structures are made of words, so the table is aligned; it is long enough, and any bytes are segments.
    let segments = unsafe { core::slice::from_raw_parts(table.as_ptr().cast::<Segment>(), count) };
    Some((plan, segments, strings))
}

/// Tells the kernel what `/proc` shows of the process. A kernel that is built without `PR_SET_MM_MAP` goes on showing
/// the loader's.
fn tell_kernel(plan: &Plan, bias: u64, stack: &Stack, random: Option<u64>) {
    const PR_SET_NAME: u64 = 15;
    const PR_SET_MM: u64 = 35;
    const PR_SET_MM_MAP: u64 = 14;
    /// What `arch_randomize_brk` of `arch/x86/kernel/process.c` adds at most.
    const BREAK_RANGE: u64 = 1 << 30;
    calls::control(PR_SET_NAME, [plan.name.as_ptr() as u64, 0, 0, 0]);
    let end = match (plan.program.placement, plan.interpreter.fd) {
        // Out of the way of mappings: the end of load_elf_binary.
        (placement::ANYWHERE, NONE) => PROGRAM_BASE,
        _ => plan.start_break.wrapping_add(bias),
    };
    let start_break = end.wrapping_add(random.unwrap_or(0) % BREAK_RANGE) & !(PAGE - 1);
    let arguments = stack.argument_strings();
    let environment = stack.environment_strings();
    let (auxiliary, auxiliary_size) = stack.auxiliary();
    let memory = Memory {
        start_code: plan.start_code.wrapping_add(bias),
        end_code: plan.end_code.wrapping_add(bias),
        start_data: plan.start_data.wrapping_add(bias),
        end_data: plan.end_data.wrapping_add(bias),
        start_break,
        current_break: start_break,
        start_stack: stack.pointer,
        argument_start: arguments.start,
        argument_end: arguments.end,
        environment_start: environment.start,
        environment_end: environment.end,
        auxiliary,
        auxiliary_size: auxiliary_size as u32,
        executable: u32::MAX,
    };
    let size = size_of::<Memory>() as u64;
    calls::control(PR_SET_MM, [PR_SET_MM_MAP, core::ptr::from_ref(&memory) as u64, size, 0]);
}
