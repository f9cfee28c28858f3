//! A fresh directory per behaviour and place, on the file system of the build (a real one, with user
//! extended attributes, where /tmp is often a tmpfs), removed when the behaviour has passed.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// A directory of one running behaviour, with `work`, `home` and `upper` inside.
pub struct FreshDir {
    root: PathBuf,
}

impl FreshDir {
    /// Makes the directory, empty.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    #[must_use]
    pub fn new(name: &Path) -> Self {
        let mut file_name = name.file_name().unwrap_or(OsStr::new("unnamed")).to_owned();
        file_name.push(format!(".{}", std::process::id()));
        let root = build_dir().join("tmp").join(name.with_file_name(file_name));
        for part in ["work", "home", "upper"] {
            let dir = root.join(part);
            fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        }
        Self { root }
    }

    /// Returns the directory the commands start in.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    /// Returns the home directory of the commands.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    /// Returns the upper layer of places that are a union.
    #[must_use]
    pub fn upper(&self) -> PathBuf {
        self.root.join("upper")
    }

    /// Removes the directory; one that cannot be removed is left behind, the verdict stands.
    pub fn remove(&self) {
        // Tests make directories that their owner may not search.
        let _ = std::process::Command::new("chmod").args(["-Rf", "u+rwx"]).arg(&self.root).status();
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// Returns the target directory of the build that this executable belongs to.
///
/// # Panics
///
/// When the executable is not in a target directory.
#[must_use]
pub fn build_dir() -> PathBuf {
    let profile = profile_dir();
    profile.parent().expect("a profile directory has a parent").to_owned()
}

/// Returns the directory with the executables of the build (`target/debug`).
///
/// # Panics
///
/// When the executable is not in a target directory.
#[must_use]
pub fn profile_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("the path of the running executable");
    let dir = exe.parent().expect("an executable is in a directory");
    if dir.file_name() == Some(OsStr::new("deps")) {
        dir.parent().expect("deps is in a profile directory").to_owned()
    } else {
        dir.to_owned()
    }
}
