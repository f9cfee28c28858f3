//! The list of all modules: a module exists because it stands here, and nowhere else is one registered.

use umvu_interface::ModuleDescriptor;

/// Every module that `vu_insmod` and `umvu -m` can load.
pub static MODULES: &[&ModuleDescriptor] = &[&umvu_viewfs::MODULE, &umvu_unrealuid::MODULE];

/// Describes the modules and their options for `--help` and the man page of umvu.
pub fn help() -> String {
    let mut text = String::from("Modules:\n");
    for module in MODULES {
        text += &format!("  {:<12}{}\n", module.name, module.summary);
        for option in module.options {
            text += &format!("    ,{:<18}{}\n", option.syntax, option.help);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

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
