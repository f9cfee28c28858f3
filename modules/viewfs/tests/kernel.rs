//! The same tree as the kernel's overlayfs makes and reads it: unions made here are mounted there, and the reverse.
//! Needs the right to mount; where that is missing each test says so and passes.

mod bed;

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use bed::{attribute, Bed};

/// A mount of the kernel's, in a mount namespace of this test's own thread.
struct Kernel {
    merged: PathBuf,
}

impl Kernel {
    /// Mounts the layers of a bed; `None` where this user may not.
    fn mount(bed: &Bed) -> Option<Self> {
        bed.dirs(&["lower", "upper", "upper.work", "merged"]);
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root may mount");
            return None;
        }
        let options = format!(
            "userxattr,lowerdir={},upperdir={},workdir={}",
            bed.path("lower").display(),
            bed.path("upper").display(),
            bed.path("upper.work").display()
        );
        let merged = bed.path("merged");
        let done = Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&merged).output();
        match done {
            Ok(done) if done.status.success() => Some(Self { merged }),
            Ok(done) => {
                eprintln!("skipped: {}", String::from_utf8_lossy(&done.stderr));
                None
            }
            Err(error) => {
                eprintln!("skipped: no mount program: {error}");
                None
            }
        }
    }

    fn run(&self, script: &str) {
        let done = Command::new("sh").args(["-ec", script]).current_dir(&self.merged).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.merged).status();
    }
}

/// The changes of these tests, without directory renames: the kernel does not follow redirects in user attributes.
const SCRIPT: &str = "
    umask 022
    echo more >> etc/hosts
    rm top
    rm -r gone; mkdir gone; echo new > gone/new
    rm -r away
    mkdir -p fresh/deep; echo x > fresh/deep/file
    mv a b
    echo replaced > c; mv c d
    ln etc/hosts linked
    ln -s target link
    chmod 600 mode
    mkdir empty/sub; rmdir empty/sub
";

fn lower(bed: &Bed) {
    bed.file("lower/etc/hosts", "hosts\n").file("lower/top", "").file("lower/gone/x", "").file("lower/away/deep/x", "");
    bed.file("lower/a", "a\n").file("lower/d", "d\n").file("lower/mode", "").dirs(&["lower/empty"]);
}

/// The same changes as [`SCRIPT`] makes.
fn change(tree: &bed::Tree) {
    tree.append("etc/hosts", "more\n").unwrap();
    tree.rm("top").unwrap();
    tree.rm_r("gone").unwrap();
    tree.mkdir("gone").unwrap();
    tree.write("gone/new", "new\n").unwrap();
    tree.rm_r("away").unwrap();
    tree.mkdir("fresh").unwrap();
    tree.mkdir("fresh/deep").unwrap();
    tree.write("fresh/deep/file", "x\n").unwrap();
    tree.mv("a", "b").unwrap();
    tree.write("c", "replaced\n").unwrap();
    tree.mv("c", "d").unwrap();
    tree.link("etc/hosts", "linked").unwrap();
    tree.symlink("target", "link").unwrap();
    tree.chmod("mode", 0o600).unwrap();
    tree.mkdir("empty/sub").unwrap();
    tree.rmdir("empty/sub").unwrap();
}

/// What lies on disk: type, permissions, content, and the marks that both know.
fn on_disk(upper: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut todo = vec![upper.to_path_buf()];
    while let Some(directory) = todo.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let label = path.strip_prefix(upper).unwrap().display().to_string();
            let line = if meta.is_dir() {
                todo.push(path.clone());
                let mark = |name: &str| attribute(&path, name).map(|value| String::from_utf8(value).unwrap());
                let (opaque, impure) = (mark("user.overlay.opaque"), mark("user.overlay.impure"));
                format!("{label}/ {:o} opaque {opaque:?} impure {impure:?}", meta.mode())
            } else if meta.file_type().is_char_device() {
                format!("{label} whiteout {}", meta.rdev())
            } else if meta.is_symlink() {
                format!("{label} -> {}", std::fs::read_link(&path).unwrap().display())
            } else {
                format!("{label} {:o} {:?}", meta.mode(), std::fs::read_to_string(&path).unwrap())
            };
            lines.push(line);
        }
    }
    lines.sort();
    lines
}

/// What programs see.
fn seen(path: &Path) -> Vec<String> {
    let script = "find . -mindepth 1 ! -name '.wh..wh.*' -printf '%p %y %m %l ' -a \
        '(' ! -type f -printf '\\n' -o -exec cat {} ';' ')' | sort";
    let done = Command::new("sh").args(["-c", script]).current_dir(path).output().unwrap();
    assert!(done.status.success());
    String::from_utf8(done.stdout).unwrap().lines().map(str::to_string).collect()
}

#[test]
fn the_upper_layer_is_what_the_kernel_makes() {
    let theirs = Bed::new();
    lower(&theirs);
    let Some(kernel) = Kernel::mount(&theirs) else { return };
    kernel.run(SCRIPT);
    drop(kernel);
    let ours = Bed::new();
    lower(&ours);
    let tree = ours.cow();
    change(&tree);
    drop(tree);
    assert_eq!(on_disk(&ours.path("upper")), on_disk(&theirs.path("upper")));
}

#[test]
fn the_kernel_shows_what_was_changed_here() {
    let bed = Bed::new();
    lower(&bed);
    let tree = bed.cow();
    change(&tree);
    let names = tree.ls("").unwrap();
    drop(tree);
    let reference = Bed::new();
    lower(&reference);
    let Some(plain) = Kernel::mount(&reference) else { return };
    plain.run(SCRIPT);
    let Some(kernel) = Kernel::mount(&bed) else { panic!("the first mount was possible") };
    assert_eq!(seen(&kernel.merged), seen(&plain.merged));
    let listed = std::fs::read_dir(&kernel.merged).unwrap().count();
    assert_eq!(listed, names.len());
}

#[test]
fn what_the_kernel_changed_is_shown_here() {
    let bed = Bed::new();
    lower(&bed);
    let Some(kernel) = Kernel::mount(&bed) else { return };
    kernel.run(SCRIPT);
    drop(kernel);
    let tree = bed.cow();
    assert_eq!(tree.ls("").unwrap(), ["b", "d", "empty", "etc", "fresh", "gone", "link", "linked", "mode"]);
    assert_eq!(tree.ls("gone").unwrap(), ["new"]);
    assert_eq!(tree.read("etc/hosts").unwrap(), "hosts\nmore\n");
    assert_eq!(tree.read("d").unwrap(), "replaced\n");
    assert_eq!(tree.ino("linked"), tree.ino("etc/hosts"));
    assert!(tree.ls("empty").unwrap().is_empty());
    tree.rm_r("gone").unwrap();
    tree.rm_r("etc").unwrap();
    assert!(!tree.exists("etc") && !tree.exists("gone"));
}

#[test]
fn listings_of_attributes_hide_what_the_kernel_hides() {
    let bed = Bed::new();
    lower(&bed);
    let Some(kernel) = Kernel::mount(&bed) else { return };
    kernel.run("echo x >> etc/hosts");
    drop(kernel);
    let tree = bed.cow();
    assert!(tree.find("etc/hosts").unwrap().list_xattr().unwrap().is_empty());
    assert!(tree.find("etc").unwrap().list_xattr().unwrap().is_empty());
}
