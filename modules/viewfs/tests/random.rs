//! Long random sequences of changes, in a union and in a plain directory: every call ends the same way, and both
//! look the same at the end, after remounts and from several threads.

mod bed;

use bed::random::{change, look, populate, seeds, Random};
use bed::{Bed, Tree};

fn compare(bed: Bed, mount: impl Fn(&Bed) -> Tree, layers: impl Fn(&Bed), seed: u64, steps: u32) {
    layers(&bed);
    bed.dirs(&["upper", "plain"]);
    populate(&bed, "plain");
    let plain = bed.mount("/plain", "/", &["bind"]);
    let mut tree = mount(&bed);
    assert_eq!(look(&tree), look(&plain));
    let mut history = Vec::new();
    let mut random = Random(seed);
    for step in 1..=steps {
        let mut same = Random(random.0);
        let (words, theirs) = change(&plain, &mut same);
        let (_, ours) = change(&tree, &mut random);
        history.push(words);
        assert_eq!(ours, theirs, "seed {seed}: {history:#?}");
        if step % 20 == 0 {
            assert_eq!(look(&tree), look(&plain), "seed {seed}: {history:#?}");
        }
        if step % 50 == 0 {
            drop(tree);
            tree = mount(&bed);
            assert_eq!(look(&tree), look(&plain), "seed {seed}, mounted again: {history:#?}");
        }
    }
}

#[test]
fn a_union_of_two_is_a_directory() {
    for seed in seeds(1, 20) {
        compare(Bed::new(), Bed::cow, |bed| populate(bed, "lower"), seed, 200);
    }
}

#[test]
fn a_union_is_a_directory_for_root_of_the_view() {
    let mount = |bed: &Bed| Tree { who: bed::faked(0), ..bed.cow() };
    for seed in seeds(10_000, 20) {
        // Owners are kept in memory here: they do not outlast a mount, the objects do.
        compare(Bed::faked(), mount, |bed| populate(bed, "lower"), seed, 49);
    }
}

#[test]
fn a_union_in_a_union_is_a_directory() {
    // The upper layer takes neither devices nor all attributes.
    let mount = |bed: &Bed| {
        let outer = bed.mount("/changes", "/", &["cow"]);
        bed::nested(&outer, "upper", "lower")
    };
    let layers = |bed: &Bed| {
        populate(bed, "lower");
        bed.dirs(&["upper", "changes"]);
    };
    for seed in seeds(20_000, 20) {
        compare(Bed::new(), mount, layers, seed, 200);
    }
}

#[test]
fn a_union_of_three_is_a_directory() {
    // The middle layer hides what the lowest has too much.
    let layers = |bed: &Bed| {
        populate(bed, "low");
        bed.file("low/b/extra", "").file("low/extra/x", "").file("low/c2", "").dirs(&["high/b"]);
        std::fs::rename(bed.path("low/d"), bed.path("high/d")).unwrap();
        for path in ["high/b/extra", "high/extra", "high/c2"] {
            bed::whiteout(&bed.path(path));
        }
    };
    let mount = |bed: &Bed| bed.overlay(&["lowerdir=/high:/low", "upperdir=/upper"]);
    for seed in seeds(30_000, 20) {
        compare(Bed::new(), mount, layers, seed, 200);
    }
}

#[test]
fn threads_do_not_disturb_each_other() {
    let bed = Bed::new();
    populate(&bed, "lower");
    for name in 0..4 {
        populate(&bed, &format!("lower/own{name}"));
    }
    populate(&bed, "plain");
    let tree = bed.cow();
    std::thread::scope(|scope| {
        for number in 0..4u64 {
            let (bed, tree) = (&bed, &tree);
            scope.spawn(move || {
                // Each thread changes a directory of its own, and stirs the common ones.
                let own = Tree { root: tree.find(&format!("own{number}")).unwrap(), ..tree.again() };
                let mut random = Random(7 + number);
                for _ in 0..300 {
                    let _ = change(&own, &mut random);
                    let stirring = Random(random.below(1 << 40) + 1);
                    let _ = change(tree, &mut { stirring });
                    let _ = tree.root.lookup_path(format!("own{number}/a/b").as_bytes());
                }
                let _ = bed;
            });
        }
    });
    look(&tree);
    let before = look(&tree);
    drop(tree);
    assert_eq!(look(&bed.cow()), before);
}
