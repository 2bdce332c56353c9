//! Read-only access.
