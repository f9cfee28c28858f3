//! Digests by which images name their parts (image-spec, `descriptor.md`): read, and compared with what is there. What
//! was found right is remembered as long as the file stays as it is. Knows no manifests.

use std::fmt;
use std::io;

use sha2::digest::DynDigest;
use umvu_interface::{Errno, MountError};

use crate::cache::Passed;
use crate::entry::{unreadable, Result};
use crate::source::Source;

/// What a part must hash to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    algorithm: String,
    /// Lower case, as all that write images have it.
    hash: String,
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm, self.hash)
    }
}

impl Digest {
    /// Takes `ALGORITHM:HASH`; none if it has another form.
    pub fn parse(text: &str) -> Option<Self> {
        let (algorithm, hash) = text.split_once(':')?;
        let is_word = |text: &str, takes: fn(&u8) -> bool| !text.is_empty() && text.bytes().all(|byte| takes(&byte));
        let is_digest = is_word(algorithm, u8::is_ascii_alphanumeric) && is_word(hash, u8::is_ascii_hexdigit);
        is_digest.then(|| Self { algorithm: algorithm.to_owned(), hash: hash.to_owned() })
    }

    /// Takes the name of a file that is called by what it holds: `blobs/sha256/HASH`, or `HASH.json`, as `docker save` has
    /// called configurations. None for any other name.
    pub fn of_name(path: &str) -> Option<Self> {
        let hash = path.strip_prefix("blobs/sha256/").or_else(|| path.strip_suffix(".json"))?;
        const DIGITS: usize = 64;
        (hash.len() == DIGITS).then(|| Self::parse(&format!("sha256:{hash}"))).flatten()
    }

    /// Where a layout keeps the part that is called so.
    pub fn path(&self) -> String {
        format!("blobs/{}/{}", self.algorithm, self.hash)
    }

    /// Checks that a source holds what it must; `file` is where its bytes have come from, which says whether they were
    /// compared before.
    ///
    /// # Errors
    /// - `EOPNOTSUPP`: the algorithm is not known
    /// - `EUCLEAN`: it holds something else
    /// - those of reading it
    pub fn verify(&self, source: &Source, file: &Source, name: &str) -> Result<()> {
        let mut hasher: Box<dyn DynDigest> = match self.algorithm.as_str() {
            "sha256" => Box::new(sha2::Sha256::default()),
            "sha512" => Box::new(sha2::Sha512::default()),
            other => {
                let message = format!("{name}: cannot be verified: digests of {other} are not known");
                return Err(MountError::new(Errno::OPNOTSUPP, message));
            }
        };
        let passed = Passed::of(file, &format!("{}-{}", self.algorithm, self.hash));
        if passed.is_known() {
            return Ok(());
        }
        hash(source, &mut *hasher).map_err(|error| unreadable(name, &error))?;
        let found: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if found != self.hash {
            let message = format!("{name}: damaged: its digest is {}:{found}, and should be {self}", self.algorithm);
            return Err(MountError::new(Errno::UCLEAN, message));
        }
        passed.remember();
        Ok(())
    }
}

fn hash(source: &Source, hasher: &mut dyn DynDigest) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let mut at = 0;
    while at < source.length() {
        let count = source.read_at(at, &mut buffer)?;
        if count == 0 {
            // It has become shorter.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hasher.update(&buffer[..count]);
        at += count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    /// From FIPS 180-4's examples.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const ABC_512: &str = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";

    fn source(bytes: &[u8]) -> Source {
        let fd = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let mut file = File::from(fd);
        file.write_all(bytes).unwrap();
        Source::whole(file).unwrap()
    }

    fn verify(digest: &str, bytes: &[u8]) -> Result<()> {
        let source = source(bytes);
        Digest::parse(digest).unwrap().verify(&source, &source, "i: 'x'")
    }

    #[test]
    fn only_what_hashes_to_the_digest_is_taken() {
        verify(&format!("sha256:{ABC}"), b"abc").unwrap();
        verify(&format!("sha512:{ABC_512}"), b"abc").unwrap();
        let error = verify(&format!("sha256:{}", ABC.replace('b', "c")), b"abc").unwrap_err();
        let should = ABC.replace('b', "c");
        assert_eq!(error.errno, Errno::UCLEAN);
        assert_eq!(
            error.message,
            format!("i: 'x': damaged: its digest is sha256:{ABC}, and should be sha256:{should}")
        );
        let error = verify("md5:00", b"abc").unwrap_err();
        assert_eq!(error.message, "i: 'x': cannot be verified: digests of md5 are not known");
    }

    #[test]
    fn names_of_files_may_be_digests() {
        for name in [format!("blobs/sha256/{ABC}"), format!("{ABC}.json")] {
            assert_eq!(Digest::of_name(&name).unwrap().to_string(), format!("sha256:{ABC}"));
        }
        for name in ["config.json", "blobs/sha256/11", &format!("{ABC}/layer.tar")] {
            assert_eq!(Digest::of_name(name), None, "{name}");
        }
        assert_eq!(Digest::parse("sha256:../../x"), None);
    }

    #[test]
    fn what_was_verified_is_not_read_again_until_the_file_changes() {
        let directory = std::env::temp_dir().join(format!("umvu-digest-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("layer");
        std::fs::write(&path, vec![7; 2 << 20]).unwrap();
        let open = || Source::whole(File::open(&path).unwrap()).unwrap();
        let digest = |source: &Source| {
            let mut hasher = sha2::Sha256::default();
            hash(source, &mut hasher).unwrap();
            let hash: String = Box::new(hasher).finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            Digest::parse(&format!("sha256:{hash}")).unwrap()
        };
        let right = digest(&open());
        right.verify(&open(), &open(), "x").unwrap();
        // Other bytes that are said to have come from the same file are not looked at.
        right.verify(&source(b"abc"), &open(), "x").unwrap();
        std::fs::write(&path, vec![7; 3 << 20]).unwrap();
        right.verify(&open(), &open(), "x").unwrap_err();
        std::fs::remove_dir_all(directory).unwrap();
    }
}
