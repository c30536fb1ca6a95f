//! Rebuilds the crate when a migration changes, for migrations are compiled in.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
