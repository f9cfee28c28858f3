//! A process that is killed in the middle of a change leaves the union as it was before the change or after it.

mod bed;

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use bed::random::{change, look, populate, seeds, Random};
use bed::{Bed, Tree};

const VARIABLE: &str = "UMVU_TEST_CRASH";

/// The change with a number, if it is one that happens at one moment: not those that programs make of several.
fn step(tree: &Tree, seed: u64, number: u64) {
    let mut random = Random(seed.wrapping_mul(1_000_003) + number * 7919 + 1);
    for _ in 0..8 {
        random.below(1);
    }
    let mut ahead = Random(random.0);
    let (_, _, _, kind) = (ahead.path(), ahead.path(), ahead.below(1000), ahead.below(16));
    if !matches!(kind, 0 | 1 | 7) {
        let _ = change(tree, &mut random);
    }
}

#[test]
fn a_killed_process_leaves_whole_changes() {
    if let Some(work) = std::env::var_os(VARIABLE) {
        let work = work.into_string().unwrap();
        let (seed, path) = work.split_once(' ').unwrap();
        let bed = Bed::of(path.into());
        let tree = bed.cow();
        for number in 0.. {
            step(&tree, seed.parse().unwrap(), number);
            std::io::stderr().write_all(b".").unwrap();
        }
    }
    let mut in_between = 0;
    for seed in seeds(1, 25) {
        let bed = Bed::new();
        bed.dirs(&["upper", "plain"]);
        populate(&bed, "lower");
        populate(&bed, "plain");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_killed_process_leaves_whole_changes", "--nocapture"])
            .env(VARIABLE, format!("{seed} {}", bed.path("").display()))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut progress = child.stderr.take().unwrap();
        let mut done = vec![0; usize::try_from(20 + seed % 97 * 7).unwrap()];
        progress.read_exact(&mut done).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        progress.read_to_end(&mut done).unwrap();

        let plain = bed.mount("/plain", "/", &["bind"]);
        let count = u64::try_from(done.len()).unwrap();
        (0..count).for_each(|number| step(&plain, seed, number));
        let seen = look(&bed.cow());
        let before = look(&plain);
        if seen != before {
            step(&plain, seed, count);
            assert_eq!(seen, look(&plain), "seed {seed}, killed after {count}");
            in_between += 1;
        }
        assert!(!bed.path("upper/.wh..wh.umvu/#0").exists());
    }
    eprintln!("{in_between} were killed between a change and its report");
}
