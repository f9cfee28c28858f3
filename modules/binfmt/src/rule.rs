//! A rule: what `register` takes, what the file of an entry shows, and which programs it is for. Follows
//! `fs/binfmt_misc.c` and Documentation/admin-guide/binfmt-misc.rst; knows nothing of where rules are kept.

use umvu_interface::{Program, PROGRAM_HEAD};

/// How a program is recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// By bytes at an offset; a mask says which bits count.
    Magic {
        /// Offset of the bytes.
        offset: usize,
        /// The bytes.
        magic: Vec<u8>,
        /// As long as they are.
        mask: Option<Vec<u8>>,
    },
    /// By what stands behind the last dot of its path.
    Extension(Vec<u8>),
}

/// The flags of a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    /// `P`: the program's own first argument is kept.
    pub preserve_argv0: Flag,
    /// `O`: the interpreter gets the program as an open descriptor.
    pub open_binary: Flag,
    /// `C`: the set-id bits of the program count. Implies `O`.
    pub credentials: Flag,
    /// `F`: the interpreter is opened when the rule is registered.
    pub fix_binary: Flag,
}

/// Whether a flag was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Flag {
    /// It was not.
    #[default]
    Absent,
    /// It was.
    Given,
}

/// A rule as registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Name of its file.
    pub name: Vec<u8>,
    /// What it is for.
    pub pattern: Pattern,
    /// Path of the interpreter.
    pub interpreter: Vec<u8>,
    /// Flags.
    pub flags: Flags,
}

/// `MAX_REGISTER_LENGTH`.
const LONGEST: usize = 1920;
/// The shortest that can be one.
const SHORTEST: usize = 11;

impl Rule {
    /// Reads `:name:type:offset:magic:mask:interpreter:flags`, where `:` is whatever the first byte is: `create_entry`.
    ///
    /// # Errors
    /// Which field is wrong, and how: all are `EINVAL`.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, &'static str> {
        if text.len() < SHORTEST {
            return Err("shorter than any rule");
        }
        if text.len() > LONGEST {
            return Err("longer than 1920 bytes");
        }
        let mut fields = Fields { rest: &text[1..], delimiter: text[0] };
        let name = fields.plain().ok_or("name: not ended")?;
        if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
            return Err("name: empty, or not a file name");
        }
        let pattern = match fields.plain().ok_or("type: not ended")? {
            b"E" => fields.extension()?,
            b"M" => fields.magic()?,
            _ => return Err("type: neither M nor E"),
        };
        let interpreter = fields.plain().ok_or("interpreter: not ended")?;
        if interpreter.is_empty() {
            return Err("interpreter: empty");
        }
        let flags = Flags::parse(fields.rest, fields.delimiter)?;
        Ok(Self { name: name.to_vec(), pattern, interpreter: interpreter.to_vec(), flags })
    }

    /// Whether the rule is for a program: `search_binfmt_handler`.
    pub(crate) fn is_for(&self, program: &Program<'_>) -> bool {
        match &self.pattern {
            Pattern::Extension(extension) => {
                let dot = program.path.iter().rposition(|b| *b == b'.');
                dot.is_some_and(|dot| program.path[dot + 1..] == extension[..])
            }
            Pattern::Magic { offset, magic, mask } => {
                let found = program.head[*offset..].iter().zip(magic);
                found.enumerate().all(|(at, (found, wanted))| {
                    let counts = mask.as_ref().map_or(0xff, |mask| mask[at]);
                    (found ^ wanted) & counts == 0
                })
            }
        }
    }

    /// What the file of the entry shows: `entry_status`.
    pub(crate) fn status(&self, state: &str) -> Vec<u8> {
        let mut text = format!("{state}\ninterpreter ").into_bytes();
        text.extend_from_slice(&self.interpreter);
        text.extend_from_slice(b"\nflags: ");
        text.extend_from_slice(&self.flags.letters());
        text.push(b'\n');
        match &self.pattern {
            Pattern::Extension(extension) => {
                text.extend_from_slice(b"extension .");
                text.extend_from_slice(extension);
            }
            Pattern::Magic { offset, magic, mask } => {
                text.extend_from_slice(format!("offset {offset}\nmagic {}", hex(magic)).as_bytes());
                if let Some(mask) = mask {
                    text.extend_from_slice(format!("\nmask {}", hex(mask)).as_bytes());
                }
            }
        }
        text.push(b'\n');
        text
    }
}

impl Flags {
    /// Reads the last field: `check_special_flags`, one end of line, and nothing else but the delimiter that the
    /// kernel fills its buffer up with.
    fn parse(text: &[u8], delimiter: u8) -> Result<Self, &'static str> {
        let mut flags = Self::default();
        let mut rest = text;
        while let Some((letter, behind)) = rest.split_first() {
            match letter {
                b'P' => flags.preserve_argv0 = Flag::Given,
                b'O' => flags.open_binary = Flag::Given,
                b'C' => (flags.credentials, flags.open_binary) = (Flag::Given, Flag::Given),
                b'F' => flags.fix_binary = Flag::Given,
                b'\n' if behind.is_empty() => {}
                _ => return Err("flags: others than P, O, C and F"),
            }
            rest = behind;
        }
        // The kernel reads on into its filling: one that is a flag, or an end of line, takes it past the end.
        if matches!(delimiter, b'P' | b'O' | b'C' | b'F') || (delimiter == b'\n' && text.last() != Some(&b'\n')) {
            return Err("flags: the delimiter is a flag");
        }
        Ok(flags)
    }

    fn letters(self) -> Vec<u8> {
        let all =
            [(self.preserve_argv0, b'P'), (self.open_binary, b'O'), (self.credentials, b'C'), (self.fix_binary, b'F')];
        all.into_iter().filter(|(flag, _)| *flag == Flag::Given).map(|(_, letter)| letter).collect()
    }
}

/// What is left of a registration.
struct Fields<'a> {
    rest: &'a [u8],
    delimiter: u8,
}

impl<'a> Fields<'a> {
    /// The next field, up to a delimiter.
    fn plain(&mut self) -> Option<&'a [u8]> {
        let at = self.rest.iter().position(|b| *b == self.delimiter || *b == 0);
        // A zero ends the text for strchr(3).
        self.take(at.filter(|at| self.rest[*at] == self.delimiter))
    }

    fn take(&mut self, at: Option<usize>) -> Option<&'a [u8]> {
        match at {
            Some(at) => {
                let field = &self.rest[..at];
                self.rest = &self.rest[at + 1..];
                Some(field)
            }
            None => None,
        }
    }

    /// A field in which `\xHH` hides a delimiter: `scanarg`.
    fn escaped(&mut self, wrong: &'static str) -> Result<&'a [u8], &'static str> {
        let mut at = 0;
        loop {
            let byte = *self.rest.get(at).ok_or(wrong)?;
            if byte == self.delimiter {
                return self.take(Some(at)).ok_or(wrong);
            }
            at += 1;
            if byte == b'\\' && self.rest.get(at) == Some(&b'x') {
                let digits = self.rest.get(at + 1..at + 3).ok_or(wrong)?;
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err(wrong);
                }
                at += 3;
            }
        }
    }

    fn magic(&mut self) -> Result<Pattern, &'static str> {
        let offset = match self.plain().ok_or("offset: not ended")? {
            b"" => 0,
            text => decimal(text).ok_or("offset: not a number")?,
        };
        let magic = until_nul(self.escaped("magic: not ended, or a bad \\x")?);
        if magic.is_empty() {
            return Err("magic: empty");
        }
        let mask = until_nul(self.escaped("mask: not ended, or a bad \\x")?);
        let magic = unescape(magic);
        let mask = (!mask.is_empty()).then(|| unescape(mask));
        if mask.as_ref().is_some_and(|mask| mask.len() != magic.len()) {
            return Err("mask: not as long as the magic");
        }
        if offset.checked_add(magic.len()).is_none_or(|end| end > PROGRAM_HEAD) {
            return Err("magic: reaches behind the first 256 bytes");
        }
        Ok(Pattern::Magic { offset, magic, mask })
    }

    fn extension(&mut self) -> Result<Pattern, &'static str> {
        self.plain().ok_or("offset: not ended")?;
        let extension = self.plain().ok_or("extension: not ended")?;
        if extension.is_empty() || extension.contains(&b'/') {
            return Err("extension: empty, or with a slash");
        }
        self.plain().ok_or("mask: not ended")?;
        Ok(Pattern::Extension(extension.to_vec()))
    }
}

/// A C string ends where the first zero is.
fn until_nul(text: &[u8]) -> &[u8] {
    text.split(|b| *b == 0).next().unwrap_or_default()
}

/// `kstrtoint` for what is not negative: an optional sign, digits, an optional end of line.
fn decimal(text: &[u8]) -> Option<usize> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let value: i32 = std::str::from_utf8(text).ok()?.parse().ok()?;
    usize::try_from(value).ok()
}

/// `string_unescape_inplace` with `UNESCAPE_HEX`: one or two digits behind `\x`.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.strip_prefix(b"x").filter(|_| *first == b'\\').map_or(&[][..], |digits| digits);
        let count = digits.iter().take(2).take_while(|b| b.is_ascii_hexdigit()).count();
        let value = std::str::from_utf8(&digits[..count]).ok().and_then(|d| u8::from_str_radix(d, 16).ok());
        match value {
            Some(value) => {
                out.push(value);
                rest = &digits[count..];
            }
            None => {
                out.push(*first);
                rest = behind;
            }
        }
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARM: &[u8] = br":arm:M::\x7fELF\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x28\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-arm:";

    fn program<'a>(head: &'a [u8; PROGRAM_HEAD], path: &'a [u8]) -> Program<'a> {
        Program { head, path, place: None }
    }

    fn head(bytes: &[u8]) -> [u8; PROGRAM_HEAD] {
        let mut head = [0; PROGRAM_HEAD];
        head[..bytes.len()].copy_from_slice(bytes);
        head
    }

    #[test]
    fn the_rule_of_the_tutorial_is_for_arm() {
        let rule = Rule::parse(ARM).unwrap();
        let elf =
            |kind: u8, machine: u8| head(&[127, 69, 76, 70, 1, 1, 1, 9, 0, 0, 0, 0, 0, 0, 0, 0, kind, 0, machine, 0]);
        assert!(rule.is_for(&program(&elf(2, 0x28), b"/x")));
        assert!(rule.is_for(&program(&elf(3, 0x28), b"/x")));
        assert!(!rule.is_for(&program(&elf(2, 0x3e), b"/x")));
        let shown = String::from_utf8(rule.status("enabled")).unwrap();
        assert_eq!(
            shown,
            "enabled\ninterpreter /usr/bin/qemu-arm\nflags: \noffset 0\n\
             magic 7f454c4601010100000000000000000002002800\nmask ffffffffffffff00fffffffffffffffffeffffff\n"
        );
    }

    #[test]
    fn an_extension_stands_behind_the_last_dot() {
        let rule = Rule::parse(b",j,E,,jar,,/bin/java,PO\n").unwrap();
        let none = head(b"");
        assert!(rule.is_for(&program(&none, b"/a/b.jar")));
        assert!(!rule.is_for(&program(&none, b"/a/b.jar.gz")));
        assert!(!rule.is_for(&program(&none, b"jar")));
        assert_eq!(rule.status("disabled"), b"disabled\ninterpreter /bin/java\nflags: PO\nextension .jar\n");
    }

    #[test]
    fn credentials_imply_an_open_program() {
        let rule = Rule::parse(b":n:M:4:abc::/i:FC").unwrap();
        assert_eq!(rule.status("enabled"), b"enabled\ninterpreter /i\nflags: OCF\noffset 4\nmagic 616263\n");
    }

    #[test]
    fn what_is_wrong_is_told_by_its_field() {
        let wrong = |text: &[u8]| Rule::parse(text).unwrap_err().split(':').next().unwrap().to_owned();
        assert_eq!(wrong(b"::M::abcd::/i:"), "name");
        assert_eq!(wrong(b":a/b:M::abcd::/i:"), "name");
        assert_eq!(wrong(b":..:M::abcd::/i:"), "name");
        assert_eq!(wrong(b":a:X::abcd::/i:"), "type");
        assert_eq!(wrong(b":a:MM::abcd::/i:"), "type");
        assert_eq!(wrong(b":a:M:x:abcd::/i:"), "offset");
        assert_eq!(wrong(b":a:M:-1:abcd::/i:"), "offset");
        assert_eq!(wrong(b":a:M:99999999999:abcd::/i:"), "offset");
        assert_eq!(wrong(b":a:M:0:::/interp:"), "magic");
        assert_eq!(wrong(br":a:M:0:\xg0::/i:"), "magic");
        assert_eq!(wrong(b":a:M:253:abcd::/i:"), "magic");
        assert_eq!(wrong(b":a:M:0:abcd:ab:/i:"), "mask");
        assert_eq!(wrong(b":a:M:0:abcd:::"), "interpreter");
        assert_eq!(wrong(b":a:E::jar/x::/i:"), "extension");
        assert_eq!(wrong(b":a:E::jar::/i:Q"), "flags");
        assert_eq!(wrong(b":a:E::jar::/i:P\n\n"), "flags");
        assert_eq!(wrong(b":a:E::"), "shorter than any rule");
        assert_eq!(wrong(&[b'a'; 1921]), "longer than 1920 bytes");
    }

    #[test]
    fn no_text_makes_the_parser_panic() {
        // A small generator of its own: every prefix of some rules, with each byte replaced in turn.
        for rule in [ARM, b":n:M:4:a\\x41c:\\xff\\xff\\xff:/i:FC\n", b",j,E,,jar,,/bin/java,PO\n"] {
            for end in 0..=rule.len() {
                let _ = Rule::parse(&rule[..end]);
            }
            for at in 0..rule.len() {
                for byte in [0, b'\\', b'x', b':', b',', b'/', b'\n', 0xff, b'P'] {
                    let mut text = rule.to_vec();
                    text[at] = byte;
                    if let Ok(rule) = Rule::parse(&text) {
                        rule.is_for(&program(&head(b"\x7fELF"), b"/a.jar"));
                        rule.status("enabled");
                    }
                }
            }
        }
    }
}
