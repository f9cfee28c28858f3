//! Random sequences of file calls, run on the host and in a view from the same tree: both say the same.

use std::fs;
use std::path::Path;

use umvu_tests::{behaviours, program, Runner};

behaviours! {
    from_outside at INSIDE {
        random_calls_say_what_they_say_on_the_host,
    }
}

const SEEDS: std::ops::RangeInclusive<u32> = 1..=8;
const CALLS_FOR_THE_TREE: &str = "120";
const CALLS: &str = "300";

/// The sequences may leave their directory by `..` a few times.
const DEEP: &str = "w/x/y/z";

fn random_calls_say_what_they_say_on_the_host(r: &Runner) {
    let calls = program("random_calls");
    let calls = calls.to_str().expect("a path in UTF-8");
    for seed in SEEDS {
        let seed_text = seed.to_string();
        let [here, there] = ["host", "view"].map(|place| {
            let directory = format!("{place}{seed}/{DEEP}");
            fs::create_dir_all(r.dir().join(&directory)).expect("a new directory");
            r.outside_text(&in_directory(&directory, &[calls, &seed_text, CALLS_FOR_THE_TREE, "tree"]));
            directory
        });
        let native = r.outside_text(&in_directory(&here, &[calls, &seed_text, CALLS, "user"]));
        let view = r.run(in_directory(&there, &[calls, &seed_text, CALLS, "user"])).line();
        compare(seed, &native, &view, &r.dir());
    }
}

/// A command line that runs `command` in a directory.
fn in_directory<'a>(directory: &'a str, command: &[&'a str]) -> Vec<&'a str> {
    [&["sh", "-c", r#"cd "$0" && exec "$@""#, directory], command].concat()
}

fn compare(seed: u32, native: &str, view: &str, kept: &Path) {
    let differs = native.lines().zip(view.lines()).position(|(native, view)| native != view);
    let at = differs.unwrap_or_else(|| native.lines().count().min(view.lines().count()));
    let around = |text: &str| text.lines().skip(at.saturating_sub(8)).take(12).collect::<Vec<_>>().join("\n");
    let told =
        || format!("seed {seed}, line {at}, in {}\n{}\n--- view\n{}", kept.display(), around(native), around(view));
    assert!(native == view, "{}", told());
}
