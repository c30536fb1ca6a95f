//! Accounts, sessions, signing keys: who somebody is.
