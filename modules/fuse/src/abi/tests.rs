//! The layout of the structures against the kernel's header, and against numbers where the header is older.

use std::io::Write;
use std::process::{Command, Stdio};

use super::structures::layout;
use super::*;

/// What a C compiler says of a structure: its size, or the offset of a field. `None` where the header lacks it.
fn as_compiled(structure: &str, fields: &[(&str, usize)]) -> Option<Vec<usize>> {
    let mut program = format!(
        "#include <linux/fuse.h>\n#include <stddef.h>\n#include <stdio.h>\nint main(void) {{\nprintf(\"%zu\\n\", sizeof(struct {structure}));\n"
    );
    for (field, _) in fields {
        let field = field.trim_start_matches("r#");
        program += &format!("printf(\"%zu\\n\", offsetof(struct {structure}, {field}));\n");
    }
    program += "}\n";
    let directory = std::env::temp_dir().join(format!("umvu-fuse-abi-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let binary = directory.join(structure);
    let mut compiler = Command::new("cc")
        .args(["-x", "c", "-", "-o"])
        .arg(&binary)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    compiler.stdin.take().unwrap().write_all(program.as_bytes()).unwrap();
    let compiles = compiler.wait().unwrap().success();
    let said = compiles.then(|| Command::new(&binary).output().unwrap().stdout);
    std::fs::remove_dir_all(&directory).unwrap();
    Some(String::from_utf8(said?).unwrap().lines().map(|line| line.parse().unwrap()).collect())
}

/// `fuse_dirent` ends in a name that takes no place.
#[test]
fn structures_lie_as_the_kernels_header_has_them() {
    let mut compared = 0;
    for (structure, size, fields) in layout() {
        // Fields that got names in later headers have the same place.
        let fields: Vec<_> = fields.into_iter().filter(|(f, _)| !matches!(*f, "open_flags" | "total_extlen")).collect();
        let Some(compiled) = as_compiled(structure, &fields) else { continue };
        let mut ours = vec![size];
        ours.extend(fields.iter().map(|(_, offset)| *offset));
        assert_eq!(ours, compiled, "{structure}");
        compared += 1;
    }
    assert!(compared > 30, "only {compared} structures could be compared");
}

#[test]
fn structures_that_headers_may_lack_have_their_sizes() {
    assert_eq!(StatxTime::SIZE, 16);
    assert_eq!(Statx::SIZE, 256);
    assert_eq!(StatxIn::SIZE, 24);
    assert_eq!(StatxOut::SIZE, 288);
    assert_eq!(SyncFsIn::SIZE, 8);
}

#[test]
fn what_is_put_is_taken() {
    let entry = EntryOut { nodeid: 7, attr: Attr { ino: 9, flags: 3, ..Attr::default() }, ..EntryOut::default() };
    assert_eq!(EntryOut::whole(&entry.bytes()), Some(entry));
    assert_eq!(EntryOut::whole(&entry.bytes()[1..]), None);
    let longer = [entry.bytes(), vec![0]].concat();
    assert_eq!(EntryOut::whole(&longer), None);
}
