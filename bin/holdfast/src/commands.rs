//! What can be asked of the binary, a file each.

pub(crate) mod audit;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod mail;
pub(crate) mod messages;
pub(crate) mod migrate;
pub(crate) mod seed;
pub(crate) mod serve;
pub(crate) mod settings;
pub(crate) mod token;
