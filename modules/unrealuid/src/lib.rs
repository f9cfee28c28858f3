//! unrealuid: identities that a view fakes.
