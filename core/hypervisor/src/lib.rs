//! The supervisor: takes a guest's notified calls and answers them from its view.
