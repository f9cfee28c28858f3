//! What is measured: everyday work, each a script of sh that prints what it saw, so that a subject that
//! did something else is found out.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use umvu_tests::fresh::build_dir;

use crate::subject::Subject;

/// Installing and removing a package of 300 files.
const INSTALL: &str = "apt-get";

/// One row of the table.
pub struct Workload {
    /// Its name in the table.
    pub name: &'static str,
    /// A script of sh, run in the directory of [`Site::work`]; prints the same everywhere.
    pub script: &'static str,
}

impl Workload {
    /// Returns all of them.
    #[must_use]
    pub fn all() -> Vec<Self> {
        // Through a pipe: tar and grep do less when they notice /dev/null.
        [
            ("find", "find /usr | wc -l"),
            ("ls -lR", "ls -lR /usr/share | wc -l"),
            ("tar", "tar cf - /usr/include 2>/dev/null | wc -c"),
            ("grep -r", "grep -r define /usr/include | wc -l"),
            ("git status", "cd tree && git -c safe.directory='*' status --porcelain | wc -l"),
            ("500 x true", "i=0; while [ $i -lt 500 ]; do /bin/true; i=$((i+1)); done; echo $i"),
            // In a union it is a program of the upper layer, which the kernel does not find by itself.
            ("500 x own true", "cp /bin/true own; i=0; while [ $i -lt 500 ]; do ./own; i=$((i+1)); done; echo $i"),
            ("make -j2", "cd c && make -s clean && make -s -j2 && ar t lib.a | wc -l"),
            (
                "python",
                "for i in 1 2 3 4 5; do /usr/bin/python3 -c 'import json, re, subprocess, http.client; print(1)'; done",
            ),
            (
                INSTALL,
                "apt-get install -y -qq ../package.deb >/dev/null 2>&1 && dpkg -L umvu-bench | wc -l && apt-get purge -y -qq umvu-bench >/dev/null 2>&1",
            ),
        ]
        .map(|(name, script)| Self { name, script })
        .into()
    }

    /// Returns what is done in a tree of Debian with a compiler, as its root.
    #[must_use]
    pub fn all_in_a_tree() -> Vec<Self> {
        [
            (
                "tree: 500 x true",
                "export PATH=/usr/bin:/bin; i=0; while [ $i -lt 500 ]; do /bin/true; i=$((i+1)); done; echo $i",
            ),
            (
                "tree: apt-get",
                "export PATH=/usr/sbin:/usr/bin:/sbin:/bin; a='apt-get -y -qq -o APT::Sandbox::User=root'
                $a install /bench/package.deb >/dev/null 2>&1 && dpkg -L umvu-bench | wc -l && $a purge umvu-bench >/dev/null 2>&1",
            ),
            ("tree: make -j2", "export PATH=/usr/bin:/bin; cd /bench/c && make -s clean && make -s -j2 && ar t lib.a | wc -l"),
        ]
        .map(|(name, script)| Self { name, script })
        .into()
    }

    /// Says whether a subject can do this at all: installing a package needs a root that is one's own. The filter that
    /// does nothing is measured in single calls only.
    #[must_use]
    pub fn is_for(&self, subject: Subject) -> bool {
        subject != Subject::Filter && (self.name != INSTALL || subject == Subject::CowRoot)
    }
}

/// The directory the workloads find their input in.
pub struct Site {
    root: PathBuf,
}

impl Site {
    /// Makes the directory with nothing in it.
    ///
    /// # Errors
    ///
    /// A sentence, when it cannot be made.
    pub fn empty() -> Result<Self, String> {
        let root = build_dir().join("tmp").join(format!("bench.{}", std::process::id()));
        let site = Self { root };
        for part in ["work", "upper"] {
            fs::create_dir_all(site.root.join(part)).map_err(|e| format!("{}: {e}", site.root.display()))?;
        }
        Ok(site)
    }

    /// Makes the trees that the workloads work on.
    ///
    /// # Errors
    ///
    /// A sentence, when they cannot be made.
    pub fn prepare() -> Result<Self, String> {
        let site = Self::empty()?;
        let script = r#"
            mkdir tree c
            for d in $(seq 200); do mkdir tree/$d; for f in $(seq 50); do echo "$d $f" > tree/$d/$f; done; done
            cd tree; git init -q; git add .; git -c user.name=bench -c user.email=bench@localhost commit -q -m all; cd ../c
            for i in $(seq 30); do printf '#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\nint f%s(int a) { return printf("%%d", a); }\n' $i > f$i.c; done
            printf 'OBJS=%s\nlib.a: $(OBJS)\n\tar rc $@ $(OBJS)\n%%.o: %%.c\n\tcc -O1 -c -o $@ $<\nclean:\n\trm -f $(OBJS) lib.a\n' "$(echo f{1..30}.o)" > Makefile
            cd ..; mkdir -p ../package/DEBIAN ../package/usr/share/umvu-bench
            printf 'Package: umvu-bench\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: input of a benchmark\n' > ../package/DEBIAN/control
            for i in $(seq 300); do echo $i > ../package/usr/share/umvu-bench/$i; done
            dpkg-deb --root-owner-group -b ../package ../package.deb >/dev/null"#;
        let made = Command::new("bash").args(["-euc", script]).current_dir(site.work()).status();
        match made {
            Ok(status) if status.success() => Ok(site),
            Ok(status) => Err(format!("{}: input: {status}", site.root.display())),
            Err(e) => Err(format!("bash: {e}")),
        }
    }

    /// Puts the input of [`Workload::all_in_a_tree`] into a tree, as `/bench`.
    ///
    /// # Errors
    ///
    /// A sentence, when it cannot be put there.
    pub fn prepare_tree(&self, tree: &Path) -> Result<(), String> {
        let input = tree.join("bench");
        fs::create_dir_all(&input).map_err(|e| format!("{}: {e}", input.display()))?;
        let status = Command::new("cp")
            .arg("-r")
            .arg(self.work().join("c"))
            .arg(self.root.join("package.deb"))
            .arg(&input)
            .status();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{}: cp: {status}", input.display())),
            Err(e) => Err(format!("cp: {e}")),
        }
    }

    /// Returns the directory with the input.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    /// Returns the writable layer of the union.
    #[must_use]
    pub fn upper(&self) -> PathBuf {
        self.root.join("upper")
    }

    /// Removes everything.
    pub fn remove(&self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}
