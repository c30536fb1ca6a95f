//! Profiles: what a person told us of themselves.
