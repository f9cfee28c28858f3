//! A directory of the host as a file system of a view, with the owners that the host does not store.
