//! Archives and images for behaviours: headers of tar as they are wanted, right or wrong, and what `docker save` and
//! OCI layouts are made of.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

/// An archive that is being written.
#[derive(Default)]
pub struct Tar(Vec<u8>);

impl Tar {
    /// Adds an entry: its type, as in the header, its name, what a link leads to, its content.
    #[must_use]
    pub fn entry(mut self, kind: u8, name: &str, link: &str, content: &[u8]) -> Self {
        self.0.extend_from_slice(&header(kind, name, link, content.len()));
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// Adds a file of mode 755.
    #[must_use]
    pub fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(b'0', name, "", content)
    }

    /// Adds a directory.
    #[must_use]
    pub fn directory(self, name: &str) -> Self {
        self.entry(b'5', name, "", b"")
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(b'2', name, target, b"")
    }

    /// Returns the archive, with the blocks that end it.
    #[must_use]
    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// Returns a header in the form of POSIX, with the right sum; owner and group are 0, devices have the number 1:3.
fn header(kind: u8, name: &str, link: &str, size: usize) -> [u8; 512] {
    let mut block = [0; 512];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, b"0000755\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"14000000000\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    put(329, b"0000001\0");
    put(337, b"0000003\0");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Returns the program that runs in any root: busybox, linked statically.
///
/// # Panics
///
/// When it is not installed.
#[must_use]
pub fn busybox() -> Vec<u8> {
    fs::read("/bin/busybox").expect("/bin/busybox of the package busybox-static")
}

/// Returns the layers of an image of busybox: the second one removes, replaces and adds.
#[must_use]
pub fn layers() -> [Vec<u8>; 2] {
    let mut first = Tar::default().directory("bin/").file("bin/busybox", &busybox());
    for applet in
        ["sh", "ls", "cat", "id", "env", "pwd", "stat", "touch", "rm", "sha256sum", "find", "test", "readlink"]
    {
        first = first.symlink(&format!("bin/{applet}"), "busybox");
    }
    let first = first
        .directory("etc/")
        .file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nguest:x:12:13:guest:/home/guest:/bin/sh\n")
        .file("etc/group", b"root:x:0:\nguest:x:13:\nusers:x:20:guest\n")
        .file("etc/gone", b"1\n")
        .file("etc/changed", b"first\n")
        .file("opt/old/one", b"1\n")
        .file("opt/old/two", b"2\n")
        .symlink("lib", "usr/lib")
        .directory("usr/lib/")
        .end();
    let second = Tar::default()
        .file("etc/.wh.gone", b"")
        .file("etc/changed", b"second\n")
        .directory("opt/old/")
        .file("opt/old/.wh..wh..opq", b"")
        .file("opt/old/three", b"3\n")
        .file("lib/through-a-link", b"here\n")
        .end();
    [first, second]
}

/// Returns what the images say of how they are to be run, and the digests of their layers.
fn config() -> String {
    let diff_ids = layers().map(|layer| format!(r#""sha256:{}""#, sha256(&layer))).join(",");
    let config = r#"{"User":"guest","Env":["PATH=/bin","COLOUR=green"],"Entrypoint":["/bin/sh","-c"],
"Cmd":["echo $COLOUR; pwd; id; ls opt/old etc; cat etc/changed lib/through-a-link"],"WorkingDir":"/"}"#;
    let rootfs = format!(r#"{{"type":"layers","diff_ids":[{diff_ids}]}}"#);
    format!(r#"{{"architecture":"amd64","os":"linux","config":{config},"rootfs":{rootfs}}}"#)
}

/// Returns the digest of something, without the name of its algorithm.
#[must_use]
pub fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes what `docker save` writes.
///
/// # Panics
///
/// When it cannot be written.
pub fn docker_save(path: &Path) {
    let [first, second] = layers();
    let config = config();
    let name = format!("{}.json", sha256(config.as_bytes()));
    let manifest =
        format!(r#"[{{"Config":"{name}","RepoTags":["demo/busybox:1"],"Layers":["a/layer.tar","b/layer.tar"]}}]"#);
    let archive = Tar::default()
        .file("a/layer.tar", &first)
        .file("b/layer.tar", &second)
        .file(&name, config.as_bytes())
        .file("manifest.json", manifest.as_bytes())
        .end();
    fs::write(path, archive).expect("the archive of the image");
}

/// Writes the layout of OCI as a directory, of [`layers`] that may have been compressed.
///
/// # Panics
///
/// When it cannot be written.
pub fn oci_layout(directory: &Path, [first, second]: [&[u8]; 2]) {
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("the directory of blobs");
    let put = |content: &[u8]| {
        let name = sha256(content);
        fs::write(blobs.join(&name), content).expect("a blob");
        format!(r#""digest":"sha256:{name}","size":{}"#, content.len())
    };
    let (first, second, config) = (put(first), put(second), put(config().as_bytes()));
    let manifest =
        put(format!(r#"{{"schemaVersion":2,"config":{{{config}}},"layers":[{{{first}}},{{{second}}}]}}"#).as_bytes());
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json",{manifest}}}]}}"#
    );
    fs::write(directory.join("index.json"), index).expect("the index");
    fs::write(directory.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#).expect("the mark of the layout");
}
