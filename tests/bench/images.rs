//! `--images`: images of file systems in a view, by the kernel's own drivers on a loop device, and by FUSE servers on the
//! kernel's FUSE. The last two want root and are left out without it.
//!
//! Cold is the first pass after the mount, with no page of the image in the kernel's cache; warm is each one after it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::measure;
use crate::workload::Site;

/// By what means an image is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Means {
    View,
    Loop,
    Fuse,
}

impl Means {
    fn name(self) -> &'static str {
        match self {
            Self::View => "umvu",
            Self::Loop => "kernel loop",
            Self::Fuse => "kernel FUSE",
        }
    }

    /// Those that can be had here.
    fn all() -> Vec<Self> {
        let is_root = nix::unistd::geteuid().is_root();
        let has_nodes = ["/dev/loop-control", "/dev/fuse"].iter().all(|node| Path::new(node).exists());
        if is_root && has_nodes {
            return vec![Self::View, Self::Loop, Self::Fuse];
        }
        let why = if is_root { "no /dev/loop-control or /dev/fuse" } else { "not run by root" };
        eprintln!("bench: kernel loop, kernel FUSE: {why}: left out");
        vec![Self::View]
    }

    /// Functions of bash that mount an image and unmount it.
    fn functions(self, fstype: &str) -> String {
        let (up, down) = match (self, fstype) {
            (Self::View, _) => (format!("vumount -t {fstype}"), "vuumount"),
            (Self::Loop, _) => (format!("mount -o loop -t {fstype}"), "umount"),
            (Self::Fuse, "squashfs") => ("squashfuse".to_owned(), "umount"),
            (Self::Fuse, _) => ("fuse2fs -o fakeroot".to_owned(), "umount"),
        };
        format!("up() {{ {up} \"$@\" 2> /dev/null; }}; down() {{ {down} \"$1\"; }}; trap '! mountpoint -q mnt || down mnt' EXIT\n")
    }

    fn line(self, script: String) -> Vec<OsString> {
        let enter: &[&str] = if self == Self::View { &["umvu", "--norc", "-m", "vufuse"] } else { &[] };
        let script = ["bash", "-euc"].map(OsString::from).into_iter().chain([script.into()]);
        enter.iter().map(OsString::from).chain(script).collect()
    }
}

/// What is done with an image; prints a line for each row, with microseconds.
struct Job {
    image: &'static str,
    fstype: &'static str,
    script: &'static str,
}

const TIMED: &str = r#"
    row() { local name=$1 s e; shift; s=${EPOCHREALTIME/./}; "$@"; e=${EPOCHREALTIME/./}; echo "$name:$((e - s))"; }
    grep_all() { (cd mnt/include; grep -rs define . | wc -l > ../../count 2> /dev/null); }
    run_all() { local i; for i in {1..100}; do mnt/true; done; }
    map_all() { mnt/python -c 'import mmap; f = open("mnt/big"); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); print(sum(m[::4096]))' > count; }
"#;

const TREE: &str =
    "row 'mount' up $image mnt; row 'grep -r, cold' grep_all; for i in 1 2 3; do row 'grep -r, warm' grep_all; done
    mnt/true; row '100 x a program' run_all; map_all; row 'map 32 MiB' map_all; row 'unmount' down mnt";
const MILLION: &str = "row 'a million files: mount' up $image mnt; row 'a million files: list 1000' ls mnt/500 > count; grep -o list.* count; down mnt";
const HUGE: &str =
    "up $image mnt; row '4 GiB: first block' head -c 4096 mnt/huge > count; grep -ao '4 GiB.*' count; down mnt";

const JOBS: [Job; 5] = [
    Job { image: "tree.squashfs", fstype: "squashfs", script: TREE },
    Job { image: "tree.ext4", fstype: "ext4", script: TREE },
    Job { image: "million.squashfs", fstype: "squashfs", script: MILLION },
    Job { image: "million.ext4", fstype: "ext4", script: MILLION },
    Job { image: "huge.squashfs", fstype: "squashfs", script: HUGE },
];

/// Makes the images.
fn prepare(work: &Path) -> Result<(), String> {
    let script = r#"
        mkdir mnt tree; cp -r /usr/include tree/; cp /bin/true tree/true; cp "$(readlink -f /usr/bin/python3)" tree/python; head -c 32M /dev/urandom > tree/big
        mksquashfs tree tree.squashfs -quiet -no-progress > /dev/null; truncate -s 700M tree.ext4; mke2fs -q -F -t ext4 -d tree tree.ext4 > /dev/null
        m=$(mktemp -d -p /dev/shm bench.XXXXXX || mktemp -d); trap 'rm -rf $m' EXIT
        python3 -c 'import os, sys
for d in range(1000):
    os.mkdir(f"{sys.argv[1]}/{d}")
    for f in range(1000): os.mknod(f"{sys.argv[1]}/{d}/{f}")' $m
        mksquashfs $m million.squashfs -quiet -no-progress > /dev/null; truncate -s 2G million.ext4; mke2fs -q -F -t ext4 -N 1100000 -d $m million.ext4 > /dev/null
        mkdir empty; mksquashfs empty huge.squashfs -quiet -no-progress -comp lz4 -p "huge f 644 0 0 yes | head -c 4294967296" > /dev/null"#;
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let made = Command::new("bash").args(["-euc", script]).current_dir(work).env("PATH", path).status();
    match made {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{}: images: {status}", work.display())),
        Err(e) => Err(format!("bash: {e}")),
    }
}

/// Lets the kernel forget the pages of an image.
fn evict(image: &Path) -> Result<(), String> {
    let said = |e: std::io::Error| format!("{}: {e}", image.display());
    let file = File::open(image).map_err(said)?;
    file.sync_all().map_err(said)?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).map_err(|e| said(e.into()))
}

/// Milliseconds of each row, by means.
type Rows = Vec<(String, BTreeMap<Means, Vec<f64>>)>;

/// Measures, prints the table, and returns a sentence for each bar that is not kept.
///
/// # Errors
///
/// A sentence, when something cannot be run.
pub fn run(rounds: usize) -> Result<Vec<String>, String> {
    let site = Site::empty()?;
    let work = site.work();
    eprintln!("images: being made, which takes some minutes");
    prepare(&work)?;
    let means = Means::all();
    let mut rows = Rows::new();
    for Job { image, fstype, script } in JOBS {
        for round in 0..rounds {
            for turn in 0..means.len() {
                let means = means[(turn + round) % means.len()];
                eprintln!("{image} {}/{rounds} {}", round + 1, means.name());
                let path = PathBuf::from(&work).join(image);
                evict(&path)?;
                let script = format!("{}{TIMED}image={image}\n{script}", means.functions(fstype));
                let run = measure::line(means.name(), &work, means.line(script))?;
                add(&mut rows, fstype, means, &run.output);
                let cpu = format!("{image}: CPU of all");
                add_one(&mut rows, cpu, means, run.cpu.as_secs_f64() * 1e3);
            }
        }
    }
    print!("{}", table(&rows, &means));
    let broken = broken(&rows);
    let _ = fs::remove_dir_all(&work);
    site.remove();
    Ok(broken)
}

fn add(rows: &mut Rows, fstype: &str, means: Means, output: &str) {
    for line in output.lines() {
        if let Some((name, micros)) = line.rsplit_once(':') {
            if let Ok(micros) = micros.parse::<u32>() {
                add_one(rows, format!("{fstype}: {name}"), means, f64::from(micros) / 1e3);
            }
        }
    }
}

fn add_one(rows: &mut Rows, name: String, means: Means, milliseconds: f64) {
    let at = rows.iter().position(|(of, _)| *of == name).unwrap_or_else(|| {
        rows.push((name, BTreeMap::new()));
        rows.len() - 1
    });
    rows[at].1.entry(means).or_default().push(milliseconds);
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn table(rows: &Rows, means: &[Means]) -> String {
    let mut text = format!("{:<40}", "wall");
    for one in means {
        let _ = write!(text, "{:>16}", one.name());
    }
    text.push('\n');
    for (name, cells) in rows {
        let _ = write!(text, "{name:<40}");
        for one in means {
            let shown = cells.get(one).map_or("-".to_owned(), |cell| format!("{:.1} ms", median(cell)));
            let _ = write!(text, "{shown:>16}");
        }
        text.push('\n');
    }
    text
}

/// At least as fast as FUSE; warm within twice of the kernel's own; a million files in 100 ms.
fn broken(rows: &Rows) -> Vec<String> {
    let mut broken = Vec::new();
    for (name, cells) in rows {
        let of = |means| cells.get(&means).map(|cell| median(cell));
        let Some(ours) = of(Means::View) else { continue };
        let mut check = |what: &str, bar: Option<f64>| {
            if bar.is_some_and(|bar| ours > bar) {
                broken.push(format!("{name}: {ours:.1} ms, {what} {:.1} ms", bar.unwrap_or_default()));
            }
        };
        if name.contains("grep") {
            check("kernel FUSE", of(Means::Fuse));
        }
        if name.contains("warm") {
            check("twice the kernel's own", of(Means::Loop).map(|own| own * 2.0));
        }
        if name.ends_with("files: mount") {
            check("bar", Some(100.0));
        }
    }
    broken
}
