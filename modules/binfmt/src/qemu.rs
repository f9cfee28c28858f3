//! Ready rules for the user emulators of qemu: what the programs of each architecture begin with, and where Debian puts
//! its emulator. Knows nothing of how rules are kept.

/// An architecture that qemu has an emulator for.
struct Architecture {
    /// As in `qemu-NAME`.
    name: &'static str,
    /// `EI_CLASS`: 1 for 32 bits, 2 for 64.
    class: u8,
    order: Order,
    /// `e_machine` of elf(5).
    machine: u16,
    /// For those that the flags of the header must tell apart: whether `EF_MIPS_ABI2` is set.
    abi2: Option<Abi2>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Abi2 {
    Unset,
    Set,
}

const fn plain(name: &'static str, class: u8, order: Order, machine: u16) -> Architecture {
    Architecture { name, class, order, machine, abi2: None }
}

const fn mips(name: &'static str, order: Order, abi2: Abi2) -> Architecture {
    Architecture { name, class: 1, order, machine: 8, abi2: Some(abi2) }
}

/// Those of Debian, without the ones of a PC.
const ARCHITECTURES: &[Architecture] = &[
    plain("aarch64", 2, Order::Little, 0xb7),
    plain("alpha", 2, Order::Little, 0x9026),
    plain("arm", 1, Order::Little, 0x28),
    plain("armeb", 1, Order::Big, 0x28),
    plain("cris", 1, Order::Little, 0x4c),
    plain("hexagon", 1, Order::Little, 0xa4),
    plain("hppa", 1, Order::Big, 0x0f),
    plain("loongarch64", 2, Order::Little, 0x102),
    plain("m68k", 1, Order::Big, 0x04),
    plain("microblaze", 1, Order::Big, 0xbaab),
    mips("mips", Order::Big, Abi2::Unset),
    plain("mips64", 2, Order::Big, 0x08),
    plain("mips64el", 2, Order::Little, 0x08),
    mips("mipsel", Order::Little, Abi2::Unset),
    mips("mipsn32", Order::Big, Abi2::Set),
    mips("mipsn32el", Order::Little, Abi2::Set),
    plain("ppc", 1, Order::Big, 0x14),
    plain("ppc64", 2, Order::Big, 0x15),
    plain("ppc64le", 2, Order::Little, 0x15),
    plain("riscv32", 1, Order::Little, 0xf3),
    plain("riscv64", 2, Order::Little, 0xf3),
    plain("s390x", 2, Order::Big, 0x16),
    plain("sh4", 1, Order::Little, 0x2a),
    plain("sh4eb", 1, Order::Big, 0x2a),
    plain("sparc", 1, Order::Big, 0x02),
    plain("sparc32plus", 1, Order::Big, 0x12),
    plain("sparc64", 2, Order::Big, 0x2b),
    plain("xtensa", 1, Order::Little, 0x5e),
    plain("xtensaeb", 1, Order::Big, 0x5e),
];

impl Architecture {
    /// The first bytes of its programs, and the bits of them that count.
    fn pattern(&self) -> (Vec<u8>, Vec<u8>) {
        /// Where `e_flags` ends in a 32-bit header.
        const FLAGS_END: usize = 40;
        let word = |value: u16| match self.order {
            Order::Little => value.to_le_bytes(),
            Order::Big => value.to_be_bytes(),
        };
        let data = if self.order == Order::Little { 1 } else { 2 };
        let mut magic = vec![0x7f, b'E', b'L', b'F', self.class, data, 1];
        magic.resize(16, 0);
        magic.extend(word(2));
        magic.extend(word(self.machine));
        let mut mask = vec![0xff; 16];
        // Any system, and any version of its interface.
        (mask[7], mask[8]) = (0, 0);
        // A program, or a shared object that is one.
        mask.extend(word(0xfffe));
        mask.extend([0xff; 2]);
        if let Some(abi2) = self.abi2 {
            const BIT: u8 = 0x20;
            magic.resize(FLAGS_END, 0);
            mask.resize(FLAGS_END, 0);
            let at = if self.order == Order::Little { FLAGS_END - 4 } else { FLAGS_END - 1 };
            mask[at] = BIT;
            magic[at] = if abi2 == Abi2::Set { BIT } else { 0 };
        }
        (magic, mask)
    }
}

/// Gives the lines to register for every emulator that is there.
pub(crate) fn rules(exists: impl Fn(&str) -> bool) -> Vec<Vec<u8>> {
    ARCHITECTURES.iter().filter_map(|architecture| line(architecture, &exists)).collect()
}

fn line(architecture: &Architecture, exists: &impl Fn(&str) -> bool) -> Option<Vec<u8>> {
    let name = architecture.name;
    // By the first name Debian's emulators know that the program's own first argument follows.
    let places = [
        (format!("/usr/libexec/qemu-binfmt/{name}-binfmt-P"), "OPF"),
        (format!("/usr/bin/qemu-{name}-static"), "OF"),
        (format!("/usr/bin/qemu-{name}"), "OF"),
    ];
    let (interpreter, flags) = places.into_iter().find(|(path, _)| exists(path))?;
    let (magic, mask) = architecture.pattern();
    Some(format!(":qemu-{name}:M::{}:{}:{interpreter}:{flags}", escaped(&magic), escaped(&mask)).into_bytes())
}

fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::Rule;
    use umvu_interface::{Program, PROGRAM_HEAD};

    #[test]
    fn every_emulator_has_a_rule_that_can_be_registered() {
        let all = rules(|path| path.ends_with("-static"));
        assert_eq!(all.len(), ARCHITECTURES.len());
        for line in &all {
            Rule::parse(line).unwrap();
        }
        assert!(rules(|_| false).is_empty());
    }

    #[test]
    fn no_rule_is_for_the_programs_of_another() {
        let all: Vec<Rule> = rules(|_| true).iter().map(|line| Rule::parse(line).unwrap()).collect();
        for (at, architecture) in ARCHITECTURES.iter().enumerate() {
            let mut head = [0; PROGRAM_HEAD];
            let (magic, _) = architecture.pattern();
            head[..magic.len()].copy_from_slice(&magic);
            let program = Program { head: &head, path: b"/x", place: None };
            let claims: Vec<usize> = (0..all.len()).filter(|i| all[*i].is_for(&program)).collect();
            assert_eq!(claims, [at], "{}", architecture.name);
        }
    }
}
