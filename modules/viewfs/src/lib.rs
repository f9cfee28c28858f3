//! viewfs: bind, move, merge and copy-on-write unions of trees in a view.
