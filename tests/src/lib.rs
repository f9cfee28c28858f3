//! Behaviour tests: each runs natively first and inside a view second.
