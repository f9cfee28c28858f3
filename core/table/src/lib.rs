//! Every system call of the kernel, its arguments as data and the tier that takes it.
