//! What a module may know: inodes, file systems, callers, identities, module descriptors.
