//! Owners, modes and device numbers that the host cannot store for an ordinary user.
