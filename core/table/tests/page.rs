//! The committed page of calls against the table.

use std::path::Path;
use std::{env, fs};

#[test]
fn the_committed_page_is_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../meta/syscalls.md");
    let page = umvu_table::page::page();
    if env::var_os("UMVU_BLESS").is_some_and(|value| value == "1") {
        fs::write(&path, &page).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        return;
    }
    let committed = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let different = committed.lines().zip(page.lines()).find(|(old, new)| old != new);
    assert!(
        committed == page,
        "meta/syscalls.md is not what the table says (first difference: {different:?}); \
         regenerate it with: UMVU_BLESS=1 cargo test -p umvu-table --test page"
    );
}
