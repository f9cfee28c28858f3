//! The seccomp filter, generated from the table: what the table allows stays in the kernel, everything else
//! (unknown numbers too) is notified. Knows nothing of who answers.

use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use umvu_table::{Condition, Tier, ROWS};

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
pub fn program() -> Result<Vec<libc::sock_filter>, FilterError> {
    let mut filter = ScmpFilterContext::new(ScmpAction::Notify)?;
    // The i386 entry (int 0x80) and x32 would carry calls past a table made for x86_64.
    filter.set_act_badarch(ScmpAction::Notify)?;
    if !filter.is_arch_present(ScmpArch::Native)? {
        filter.add_arch(ScmpArch::Native)?;
    }
    filter.set_ctl_optimize(2)?;
    for row in ROWS {
        let number = i32::try_from(row.number).unwrap_or(i32::MAX);
        let call = ScmpSyscall::from(number);
        match &row.tier {
            Tier::Allow => {
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

    #[test]
    fn the_program_fits_and_ends_in_a_return() {
        let program = program().unwrap();
        assert!(program.len() > 50 && program.len() < 4096);
        assert_eq!(u32::from(program[program.len() - 1].code), libc::BPF_RET);
    }
}
