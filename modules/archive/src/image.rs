//! Images of containers: what `docker save` writes, and the layout of OCI (image-spec, `image-layout.md`), be it a
//! directory or an archive. Finds layers and configuration, and compares them with their digests; what layers hold is
//! `tar`'s and `tree`'s business.

use serde::Deserialize;
use umvu_interface::{Errno, MountError};

use crate::digest::Digest;
use crate::entry::{shown, unreadable, Result};
use crate::source::Source;

/// Longest description, in bytes.
const TEXT_MAX: u64 = 16 << 20;
/// An index may name further indexes, so deep.
const DEPTH_MAX: u32 = 4;
/// Most layers: those who make images allow 127.
const LAYERS_MAX: usize = 1024;

/// The files that an image is made of.
pub trait Files {
    /// Opens one by its path in the image; none if it is not there.
    ///
    /// # Errors
    /// Those of opening it.
    fn open(&self, path: &str) -> Result<Option<Source>>;
}

/// What an image says of how it is to be run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Config {
    /// User, or id, with `:GROUP` behind it or not.
    #[serde(rename = "User", deserialize_with = "or_default")]
    pub user: String,
    /// `NAME=VALUE`.
    #[serde(rename = "Env", deserialize_with = "or_default")]
    pub environment: Vec<String>,
    /// What is run.
    #[serde(rename = "Entrypoint", deserialize_with = "or_default")]
    pub entrypoint: Vec<String>,
    /// Its arguments, if none are given; what is run where there is no entry point.
    #[serde(rename = "Cmd", deserialize_with = "or_default")]
    pub command: Vec<String>,
    /// Where.
    #[serde(rename = "WorkingDir", deserialize_with = "or_default")]
    pub directory: String,
}

/// Takes `null` for what is not there.
fn or_default<'de, D, T>(deserializer: D) -> core::result::Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A layer of an image.
pub struct Layer {
    /// What messages call it.
    pub name: String,
    /// As it stands in the image, packed or not.
    pub source: Source,
    /// What the archive in it must hash to, when it is unpacked; none where the image does not say.
    pub digest: Option<Digest>,
}

/// An image.
pub struct Image {
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
    /// What it says of how it is to be run.
    pub config: Config,
}

#[derive(Deserialize)]
struct Saved {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags", default, deserialize_with = "or_default")]
    tags: Vec<String>,
    #[serde(rename = "Layers", default, deserialize_with = "or_default")]
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Whole {
    #[serde(default, deserialize_with = "or_default")]
    config: Config,
    #[serde(default)]
    rootfs: Option<RootFs>,
}

/// The layers that a configuration belongs to.
#[derive(Deserialize)]
struct RootFs {
    #[serde(default, deserialize_with = "or_default")]
    diff_ids: Vec<String>,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    manifests: Vec<Descriptor>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
    #[serde(default, deserialize_with = "or_default")]
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// Reads what an image says of itself; none if the files are not those of an image. `tag` chooses among several.
///
/// # Errors
/// - `ENOENT`: no image has that tag
/// - `EUCLEAN`: it is damaged, or a part is missing
/// - those of reading it
pub fn read(files: &dyn Files, name: &str, tag: Option<&str>) -> Result<Option<Image>> {
    let reader = Reader { files, name };
    if let Some(manifest) = files.open("manifest.json")? {
        return reader.saved(&manifest, tag).map(Some);
    }
    match files.open("index.json")? {
        Some(index) => reader.layout(&index, tag).map(Some),
        None => Ok(None),
    }
}

struct Reader<'a> {
    files: &'a dyn Files,
    name: &'a str,
}

impl Reader<'_> {
    fn damaged(&self, path: &str, why: impl std::fmt::Display) -> MountError {
        MountError::new(Errno::UCLEAN, format!("{}: {why}", self.called(path)))
    }

    /// What messages call a part.
    fn called(&self, path: &str) -> String {
        format!("{}: '{}'", self.name, shown(path.as_bytes()))
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, path: &str, source: &Source) -> Result<T> {
        let text = source.read_all(TEXT_MAX).map_err(|error| unreadable(self.name, &error))?;
        serde_json::from_slice(&text).map_err(|error| self.damaged(path, error))
    }

    fn part(&self, path: &str) -> Result<Source> {
        self.files.open(path)?.ok_or_else(|| self.damaged(path, "is missing"))
    }

    /// Reads a configuration, and puts the digests that it has of the layers beside them.
    fn configured(&self, path: &str, config: &Source, layers: Vec<(String, Source)>) -> Result<Image> {
        let whole: Whole = self.json(path, config)?;
        let mut layers: Vec<Layer> =
            layers.into_iter().map(|(name, source)| Layer { name, source, digest: None }).collect();
        if let Some(RootFs { diff_ids }) = whole.rootfs {
            if diff_ids.len() != layers.len() {
                let why = format!("has digests of {} layers, and the image has {}", diff_ids.len(), layers.len());
                return Err(self.damaged(path, why));
            }
            for (layer, digest) in layers.iter_mut().zip(diff_ids) {
                layer.digest = Some(self.digest(&digest)?);
            }
        }
        Ok(Image { layers, config: whole.config })
    }

    fn digest(&self, text: &str) -> Result<Digest> {
        Digest::parse(text).ok_or_else(|| self.damaged(text, "is no digest"))
    }

    fn layers<T>(&self, layers: Vec<T>, open: impl Fn(T) -> Result<(String, Source)>) -> Result<Vec<(String, Source)>> {
        if layers.len() > LAYERS_MAX {
            return Err(self.damaged("manifest", format_args!("more than {LAYERS_MAX} layers")));
        }
        layers.into_iter().map(open).collect()
    }

    /// What `docker save` writes.
    fn saved(&self, manifest: &Source, tag: Option<&str>) -> Result<Image> {
        let images: Vec<Saved> = self.json("manifest.json", manifest)?;
        let tags: Vec<String> = images.iter().flat_map(|image| image.tags.clone()).collect();
        let found = match tag {
            None => images.into_iter().next(),
            Some(tag) => images.into_iter().find(|image| image.tags.iter().any(|known| is_tag(known, tag))),
        };
        let image = found.ok_or_else(|| self.no_image(tag, &tags))?;
        let config = self.named_part(&image.config)?;
        let layers =
            self.layers(image.layers, |path| Ok((format!("{}: {path}", self.name), self.named_part(&path)?)))?;
        self.configured(&image.config, &config, layers)
    }

    /// A part that the manifest calls by a path, which may be its digest.
    fn named_part(&self, path: &str) -> Result<Source> {
        let source = self.part(path)?;
        if let Some(digest) = Digest::of_name(path) {
            digest.verify(&source, &source, &self.called(path))?;
        }
        Ok(source)
    }

    fn no_image(&self, tag: Option<&str>, tags: &[String]) -> MountError {
        let message = match tag {
            None => format!("{}: has no image", self.name),
            Some(tag) => format!("{}: has no image '{tag}', but {}", self.name, tags.join(", ")),
        };
        MountError::new(Errno::NOENT, message)
    }

    fn layout(&self, index: &Source, tag: Option<&str>) -> Result<Image> {
        let mut manifest: Manifest = self.json("index.json", index)?;
        let mut tag = tag;
        for _ in 0..DEPTH_MAX {
            if let Some(config) = &manifest.config {
                let (path, source) = self.blob(config)?;
                let layers = self.layers(manifest.layers, |layer| {
                    if layer.media_type.ends_with("+encrypted") {
                        return Err(self.damaged(&layer.digest, "the layer is encrypted"));
                    }
                    let (path, source) = self.blob(&layer)?;
                    Ok((format!("{}: {path}", self.name), source))
                })?;
                return self.configured(&path, &source, layers);
            }
            let chosen = self.choose(&manifest.manifests, tag)?;
            tag = None;
            let (path, source) = self.blob(chosen)?;
            manifest = self.json(&path, &source)?;
        }
        Err(self.damaged("index.json", "leads to no image"))
    }

    /// Chooses the image for this machine, or, for want of one, the first.
    fn choose<'d>(&self, all: &'d [Descriptor], tag: Option<&str>) -> Result<&'d Descriptor> {
        const TAG: &str = "org.opencontainers.image.ref.name";
        const FULL: &str = "io.containerd.image.name";
        let names = |one: &'d Descriptor| [one.annotations.get(FULL), one.annotations.get(TAG)].into_iter().flatten();
        let tagged = |one: &&Descriptor| match tag {
            None => true,
            Some(tag) => {
                [FULL, TAG].iter().any(|key| one.annotations.get(*key).is_some_and(|known| is_tag(known, tag)))
            }
        };
        let arch = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let fits = |one: &&&Descriptor| {
            one.platform.as_ref().is_none_or(|platform| platform.os == "linux" && platform.architecture == arch)
        };
        let candidates: Vec<&Descriptor> = all.iter().filter(tagged).collect();
        let chosen = candidates.iter().find(fits).or(candidates.first()).copied();
        chosen.ok_or_else(|| {
            let tags: Vec<String> = all.iter().flat_map(names).cloned().collect();
            self.no_image(tag, &tags)
        })
    }

    fn blob(&self, of: &Descriptor) -> Result<(String, Source)> {
        let digest = self.digest(&of.digest)?;
        let path = digest.path();
        let source = self.part(&path)?;
        if source.length() != of.size {
            let why = format!("is {} bytes long, and should have {}", source.length(), of.size);
            return Err(self.damaged(&path, why));
        }
        digest.verify(&source, &source, &self.called(&path))?;
        Ok((path, source))
    }
}

/// Whether a tag is meant by a name that may leave out the registry or the version.
fn is_tag(known: &str, wanted: &str) -> bool {
    let without_version = |name: &str| match name.rsplit_once(':') {
        Some((front, version)) if !version.contains('/') => front.to_owned(),
        _ => name.to_owned(),
    };
    let ends = |known: &str| known == wanted || known.strip_suffix(wanted).is_some_and(|front| front.ends_with('/'));
    ends(known) || ends(&without_version(known)) || known.rsplit_once(':').is_some_and(|(_, version)| version == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_may_be_cut_short() {
        for wanted in ["docker.io/library/busybox:1.36", "busybox:1.36", "busybox", "library/busybox", "1.36"] {
            assert!(is_tag("docker.io/library/busybox:1.36", wanted), "{wanted}");
        }
        for wanted in ["box", "busybox:1.35", "alpine"] {
            assert!(!is_tag("docker.io/library/busybox:1.36", wanted), "{wanted}");
        }
    }

    #[test]
    fn what_is_null_or_not_there_is_empty() {
        let text = r#"{"config":{"Cmd":["sh"],"Entrypoint":null,"Env":null,"Labels":{}},"rootfs":{}}"#;
        let config = serde_json::from_str::<Whole>(text).unwrap().config;
        assert_eq!(config, Config { command: vec!["sh".to_owned()], ..Config::default() });
        assert_eq!(serde_json::from_str::<Whole>(r#"{"config":null}"#).unwrap().config, Config::default());
    }
}
