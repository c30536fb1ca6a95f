//! The architecture's rules as tests: what CONTRIBUTING says of folders, arrows, tables and documents, and a compiler
//! cannot check. The rules are in `tests/rules.rs`; here is what they read.

pub mod graph;
pub mod tree;
