//! umvu and the vu_* tools.
