//! Servers that answer with whatever bytes: nothing of it makes more of it than errors, or than what could be.

use proptest::prelude::*;
use umvu_driver::{Driver, Listing, ROOT};
use umvu_interface::{FileKind, Name, OFlags, RemoveKind};

use crate::abi::{Dirent, EntryOut, OutHeader, Wire};
use crate::connection::Negotiated;
use crate::reply;
use crate::tests::{as_user, bed, Says};

/// Bytes that are almost of the size of something.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let sizes = prop_oneof![0usize..40, Just(104), Just(128), Just(144), Just(288), Just(80), Just(64), 100usize..400];
    let bytes = prop_oneof![Just(0u8), Just(0xff), Just(0x41), any::<u8>()];
    sizes.prop_flat_map(move |size| proptest::collection::vec(bytes.clone(), size))
}

/// A listing with a few entries, some of which are damaged.
fn listing() -> impl Strategy<Value = Vec<u8>> {
    let name = proptest::collection::vec(any::<u8>(), 0..20);
    let entry = (name, any::<u64>(), 0u32..30, any::<u64>(), prop_oneof![Just(0o100_644u32), any::<u32>()]);
    proptest::collection::vec(entry, 0..6).prop_map(|entries| {
        let mut out = Vec::new();
        for (name, off, namelen, nodeid, mode) in entries {
            let mut told = EntryOut { nodeid, ..EntryOut::default() };
            told.attr.mode = mode;
            told.put(&mut out);
            Dirent { ino: 1, off, namelen, r#type: mode }.put(&mut out);
            out.extend_from_slice(&name);
            out.resize(out.len().next_multiple_of(8), 0);
        }
        out
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn readers_of_answers_take_any_bytes(bytes in prop_oneof![body(), listing()]) {
        let _ = (reply::told(&bytes), reply::told_more(&bytes), reply::numbers(&bytes), reply::created(&bytes));
        let _ = (reply::made(&bytes, FileKind::Regular), reply::looked_up(&bytes), Negotiated::of(&bytes));
        for name in reply::names(&bytes).unwrap_or_default() {
            prop_assert!(!name.is_empty() && !name.contains(&0));
        }
        prop_assert!(reply::target(bytes.clone()).map_or(true, |target| target.len() < 4096 && !target.contains(&0)));
        let mut plain = Vec::new();
        let _ = reply::entries(&bytes, &mut plain);
        let mut listing = Listing::default();
        let _ = reply::entries_found(&bytes, &mut listing, |node| assert_ne!(node, 0));
        for entry in plain.iter().chain(&listing.entries) {
            prop_assert!(!entry.name.is_empty() && !entry.name.iter().any(|byte| matches!(byte, 0 | b'/')));
        }
        prop_assert!(listing.found.iter().all(|(_, found)| found.node > ROOT));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_server_that_talks_nonsense_keeps_nobody(answers in proptest::collection::vec((body(), any::<u8>()), 1..12)) {
        let mut turn = 0;
        let bed = bed(move |asked| {
            let (body, how) = &answers[turn % answers.len()];
            turn += 1;
            let unique = asked.header.unique;
            match how % 5 {
                0 => Says::Error(-i32::from(*how)),
                // With the truth about its length or not; then the answer, so that somebody is answered at all.
                1 => Says::Raw([OutHeader { len: u32::from(*how), error: 0, unique }.bytes(), body.clone()].concat()),
                _ => Says::Body(body.clone()),
            }
        });
        as_user(1000, |who| {
            let name = Name::new(b"name").unwrap();
            let _ = (bed.served.stat(who, ROOT), bed.served.lookup(who, ROOT, &name), bed.served.statfs(who));
            let _ = (bed.served.read_dir_found(who, ROOT), bed.served.readlink(who, 2), bed.served.list_xattr(who, 2));
            let _ = (bed.served.get_xattr(who, 2, b"user.a"), bed.served.remove(who, ROOT, &name, RemoveKind::File));
            if let Ok(file) = bed.served.open(who, 2, OFlags::RDWR) {
                let mut buffer = [0; 300];
                let _ = (file.read_at(0, &mut buffer), file.write_at(3, b"some"), file.contents_at(0), file.sync());
            }
        });
    }
}
