//! Disks in images that are no plain rows of bytes: one file for each format. An image is a file, which grows as it is
//! written.

pub mod qcow2;
pub mod vdi;
pub mod vhdx;
pub mod vmdk;

/// Why an image is not used: it names what is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It is none of this format.
    #[error("not a {0} image")]
    Foreign(&'static str),
    /// It says something that cannot be.
    #[error("a damaged image: {0}")]
    Damaged(String),
    /// It has something that is not known here.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// Another image that it stands on is not to be had.
    #[error("backing file '{name}': {reason}")]
    Backing {
        /// Its name, as the image tells it.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The host's.
    #[error("{}", umvu_interface::cause(*.0))]
    Host(umvu_interface::Errno),
}

impl From<std::io::Error> for ImageError {
    fn from(error: std::io::Error) -> Self {
        match umvu_interface::Errno::from_io_error(&error) {
            Some(errno) => Self::Host(errno),
            None => Self::Damaged(error.to_string().to_lowercase()),
        }
    }
}

impl ImageError {
    /// What mount(2) returns.
    pub fn errno(&self) -> umvu_interface::Errno {
        use umvu_interface::Errno;
        match self {
            Self::Foreign(_) | Self::Unsupported(_) | Self::Backing { .. } => Errno::INVAL,
            Self::Damaged(_) => Errno::UCLEAN,
            Self::Host(errno) => *errno,
        }
    }
}

/// The errno of a failed read or write.
fn io_errno(error: &std::io::Error) -> umvu_interface::Errno {
    umvu_interface::Errno::from_io_error(error).unwrap_or(umvu_interface::Errno::IO)
}
