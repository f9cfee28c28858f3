//! The list of all modules: a module exists because it stands here, and nowhere else is one registered.

use umvu_interface::ModuleDescriptor;

/// Every module that `vu_insmod` and `umvu -m` can load.
pub static MODULES: &[&ModuleDescriptor] = &[
    &umvu_viewfs::MODULE,
    &umvu_unrealuid::MODULE,
    &umvu_archive::MODULE,
    &umvu_binfmt::MODULE,
    &umvu_vudev::MODULE,
    &umvu_vufuse::MODULE,
    &umvu_fuse::MODULE,
    &umvu_ports::MODULE,
];

/// Splits what `-m` was given into modules with their options: a word behind a comma is a module of its own if it is
/// the name of one, an option of the module before it otherwise.
pub fn split(given: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let is_module = |word: &[u8]| {
        MODULES.iter().any(|m| m.name.as_bytes() == word || m.aliases.iter().any(|alias| alias.as_bytes() == word))
    };
    let mut out: Vec<Vec<u8>> = Vec::new();
    for text in given {
        let mut is_first = true;
        for word in text.split(|byte| *byte == b',') {
            match out.last_mut() {
                Some(last) if !is_first && !is_module(word) => {
                    last.push(b',');
                    last.extend_from_slice(word);
                }
                _ => out.push(word.to_vec()),
            }
            is_first = false;
        }
    }
    out
}

/// Whether what was asked for, with its options, is the module of that name.
pub fn is_one(asked: &[u8], name: &str) -> bool {
    let word = asked.split(|byte| *byte == b',').next().unwrap_or_default();
    let known = MODULES.iter().find(|module| module.name == name);
    known.is_some_and(|m| m.name.as_bytes() == word || m.aliases.iter().any(|alias| alias.as_bytes() == word))
}

/// Describes the modules and their options for `--help` and the man page of umvu.
pub fn help() -> String {
    let mut text = String::from("Modules:\n");
    for module in MODULES {
        text += &format!("  {:<11} {}\n", module.name, module.summary);
        for option in module.options {
            text += &format!("    ,{:<17} {}\n", option.syntax, option.help);
        }
        for option in module.mount_options {
            text += &format!("    -o {:<15} {}\n", option.syntax, option.help);
        }
    }
    text
}

/// Describes the options of the modules' file system types for `--help` and the man page of vumount.
pub fn mount_help() -> String {
    let mut text = String::new();
    for module in MODULES.iter().filter(|module| !module.mount_options.is_empty()) {
        text += &format!("Options of -t {}:\n", module.name);
        for option in module.mount_options {
            text += &format!("  {:<15} {}\n", option.syntax, option.help);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_behind_a_comma_is_a_module_if_it_is_the_name_of_one() {
        let given = [b"viewfs,unrealuid,keep".to_vec(), b"keep".to_vec()];
        assert_eq!(split(given), [b"viewfs".to_vec(), b"unrealuid,keep".to_vec(), b"keep".to_vec()]);
    }

    #[test]
    fn no_two_modules_share_a_name() {
        let mut names: Vec<&str> = MODULES
            .iter()
            .flat_map(|module| [module.name].iter().chain(module.aliases).copied().collect::<Vec<_>>())
            .collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
