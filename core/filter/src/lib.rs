//! The seccomp filter, generated from the tables: what they allow stays in the kernel, everything else
//! (unknown numbers too) is notified. Knows nothing of who answers. The hypervisor has it made when it is built.
//!
//! libseccomp knows calls of another architecture by name only, and not the newest ones. So it makes a program for
//! each table as if both were of x86_64, and the two are put behind one look at the architecture.

use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use umvu_table::{i386, Condition, Tier, ARCH_I386 as I386, ARCH_X86_64 as X86_64, ROWS};

pub use umvu_table::Pids;

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// libseccomp refused a rule.
    #[error("seccomp filter: {0}")]
    Library(#[from] libseccomp::error::SeccompError),
    /// The generated program could not be read back.
    #[error("seccomp filter: {0}")]
    Export(#[from] std::io::Error),
}

/// Generates the filter program.
///
/// # Errors
/// libseccomp's, where a rule cannot be expressed.
pub fn program(pids: Pids) -> Result<Vec<libc::sock_filter>, FilterError> {
    let mut long = program_of(ROWS.iter().map(|row| (row.number, tier_with(pids, row.tier, row.family))))?;
    let family = |row: &i386::Row| row.call().and_then(|call| call.family);
    let short = i386::ROWS.iter().map(|row| (row.number, tier_with(pids, row.tier(), family(row))));
    let mut short = program_of(short)?;
    // The one comparison with an architecture; another one is notified.
    for step in short.iter_mut().filter(|step| step.k == X86_64) {
        step.k = I386;
    }
    let code = |code: u32| u16::try_from(code).unwrap_or(0);
    let load = code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS);
    let equal = code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
    let always = code(libc::BPF_JMP | libc::BPF_JA);
    // The distance of a conditional jump has 8 bits only.
    let over = u32::try_from(long.len()).unwrap_or(u32::MAX);
    let mut program = vec![
        libc::sock_filter { code: load, jt: 0, jf: 0, k: ARCHITECTURE_AT },
        libc::sock_filter { code: equal, jt: 0, jf: 1, k: I386 },
        libc::sock_filter { code: always, jt: 0, jf: 0, k: over },
    ];
    program.append(&mut long);
    program.append(&mut short);
    Ok(program)
}

/// The tier of a call where processes can be numbered anew, or not.
fn tier_with(pids: Pids, tier: Tier, family: Option<&str>) -> Tier {
    match (pids, tier) {
        (Pids::Namespaces, Tier::Number) => Tier::Notify(Condition::Always),
        (Pids::Host, Tier::Number) => Tier::Allow,
        // What is forked may be the first process of a namespace, and every number may mean another process.
        (Pids::Namespaces, Tier::Notify(_)) if matches!(family, Some("spawn" | "pid")) => {
            Tier::Notify(Condition::Always)
        }
        (_, tier) => tier,
    }
}

/// Offset of `arch` in `struct seccomp_data`.
const ARCHITECTURE_AT: u32 = 4;

/// Generates the program for the calls of one table, as one for x86_64.
fn program_of(calls: impl Iterator<Item = (u32, Tier)>) -> Result<Vec<libc::sock_filter>, FilterError> {
    let mut filter = ScmpFilterContext::new(ScmpAction::Notify)?;
    // x32 would carry calls past a table made for x86_64.
    filter.set_act_badarch(ScmpAction::Notify)?;
    if !filter.is_arch_present(ScmpArch::Native)? {
        filter.add_arch(ScmpArch::Native)?;
    }
    filter.set_ctl_optimize(2)?;
    for (number, tier) in calls {
        let number = i32::try_from(number).unwrap_or(i32::MAX);
        let call = ScmpSyscall::from(number);
        match &tier {
            Tier::Allow | Tier::Number => {
                filter.add_rule(ScmpAction::Allow, call)?;
            }
            Tier::Refuse(errno, _) => {
                filter.add_rule(ScmpAction::Errno(*errno), call)?;
            }
            Tier::Notify(Condition::Always) => {}
            Tier::Notify(Condition::NonNull(argument)) => {
                let null = ScmpArgCompare::new(u32::from(*argument), ScmpCompareOp::Equal, 0);
                filter.add_rule_conditional(ScmpAction::Allow, call, &[null])?;
            }
            Tier::Notify(Condition::AnyBits(argument, mask)) => {
                let none = ScmpArgCompare::new(u32::from(*argument), ScmpCompareOp::MaskedEqual(*mask), 0);
                filter.add_rule_conditional(ScmpAction::Allow, call, &[none])?;
            }
            Tier::Notify(Condition::In(argument, values)) => {
                for cube in complement(values) {
                    let other =
                        ScmpArgCompare::new(u32::from(*argument), ScmpCompareOp::MaskedEqual(cube.mask), cube.value);
                    filter.add_rule_conditional(ScmpAction::Allow, call, &[other])?;
                }
            }
        }
    }
    let mut file = std::fs::File::from(
        rustix::fs::memfd_create("filter", rustix::fs::MemfdFlags::CLOEXEC)
            .map_err(|errno| FilterError::Export(errno.into()))?,
    );
    filter.export_bpf(&file)?;
    let mut bytes = Vec::new();
    std::io::Seek::rewind(&mut file)?;
    std::io::Read::read_to_end(&mut file, &mut bytes)?;
    Ok(bytes
        .chunks_exact(8)
        .map(|b| libc::sock_filter {
            code: u16::from_ne_bytes([b[0], b[1]]),
            jt: b[2],
            jf: b[3],
            k: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
        })
        .collect())
}

/// Values whose bits under `mask` are those of `value`.
#[derive(Clone, Copy, Debug)]
struct Cube {
    mask: u64,
    value: u64,
}

/// Covers all 32-bit values except `values` with cubes: libseccomp takes one comparison per argument and rule, so
/// "none of these" has to be said as "any of those".
fn complement(values: &[u64]) -> Vec<Cube> {
    let mut cubes = Vec::new();
    split(values, Cube { mask: 0, value: 0 }, 32, &mut cubes);
    cubes
}

fn split(values: &[u64], cube: Cube, bits_left: u32, cubes: &mut Vec<Cube>) {
    if !values.iter().any(|v| v & cube.mask == cube.value) {
        cubes.push(cube);
        return;
    }
    if bits_left == 0 {
        return;
    }
    let bit = 1u64 << (bits_left - 1);
    for value in [cube.value, cube.value | bit] {
        split(values, Cube { mask: cube.mask | bit, value }, bits_left - 1, cubes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_complement_has_every_value_but_the_given_ones() {
        let cubes = complement(&[3, 4, 10]);
        for v in 0..2000u64 {
            let covered = cubes.iter().filter(|c| v & c.mask == c.value).count();
            assert_eq!(covered, usize::from(![3, 4, 10].contains(&v)), "{v}");
        }
        assert!(cubes.iter().any(|c| 0xffff_ffff & c.mask == c.value));
    }

    /// What the program answers to a call, as the kernel would run it.
    fn answer(program: &[libc::sock_filter], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let mut data = [number, arch, 0, 0].map(u32::to_ne_bytes).concat();
        data.extend(arguments.map(u64::to_ne_bytes).concat());
        let (mut at, mut value) = (0, 0u32);
        loop {
            let step = program[at];
            let code = u32::from(step.code);
            let jump = |holds: bool| usize::from(if holds { step.jt } else { step.jf });
            at += 1;
            match code {
                c if c == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    let from = step.k as usize;
                    value = u32::from_ne_bytes(data[from..from + 4].try_into().unwrap());
                }
                c if c == libc::BPF_ALU | libc::BPF_AND | libc::BPF_K => value &= step.k,
                c if c == libc::BPF_JMP | libc::BPF_JA => at += step.k as usize,
                c if c == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K => at += jump(value == step.k),
                c if c == libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K => at += jump(value > step.k),
                c if c == libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K => at += jump(value >= step.k),
                c if c == libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K => at += jump(value & step.k != 0),
                c if c == libc::BPF_RET | libc::BPF_K => return step.k,
                other => panic!("instruction {other:#x} at {}", at - 1),
            }
        }
    }

    const ALLOW: u32 = 0x7fff_0000;
    const NOTIFY: u32 = 0x7fc0_0000;

    fn expected(tier: Tier, arguments: &[u64; 6]) -> u32 {
        match tier {
            Tier::Allow | Tier::Number => ALLOW,
            Tier::Refuse(errno, _) => 0x0005_0000 | u32::try_from(errno).unwrap(),
            Tier::Notify(condition) if condition.holds(arguments) => NOTIFY,
            Tier::Notify(_) => ALLOW,
        }
    }

    #[test]
    fn each_call_goes_where_its_table_says() {
        let program = program(Pids::Host).unwrap();
        for value in [0, 1, 2, 3, 4, 10, 11, 20, 35, 200, 0x2_0000, 0xffff_ffff] {
            let arguments = [value; 6];
            for row in ROWS {
                let found = answer(&program, X86_64, row.number, arguments);
                assert_eq!(
                    found,
                    expected(tier_with(Pids::Host, row.tier, row.family), &arguments),
                    "{} {value}",
                    row.name
                );
            }
            for row in i386::ROWS {
                let found = answer(&program, I386, row.number, arguments);
                assert_eq!(
                    found,
                    expected(tier_with(Pids::Host, row.tier(), None), &arguments),
                    "i386 {} {value}",
                    row.name
                );
            }
        }
    }

    #[test]
    fn what_no_table_knows_is_notified() {
        let program = program(Pids::Host).unwrap();
        let none = [0; 6];
        for (arch, number) in
            [(X86_64, 9999), (X86_64, 0x4000_0000), (I386, 9999), (I386, 222), (I386, 0x4000_0000), (0xc000_00b7, 0)]
        {
            assert_eq!(answer(&program, arch, number, none), NOTIFY, "{arch:#x} {number:#x}");
        }
    }

    #[test]
    fn the_program_fits_and_ends_in_a_return() {
        for pids in [Pids::Host, Pids::Namespaces] {
            let program = program(pids).unwrap();
            assert!(program.len() > 50 && program.len() < 4096);
            assert_eq!(u32::from(program[program.len() - 1].code), libc::BPF_RET);
        }
    }
}
