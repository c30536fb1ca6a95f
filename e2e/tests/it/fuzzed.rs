//! What fuzzing found worth keeping, read again by the same functions on every run.

use std::{fs, path::Path};

use holdfast_e2e::fuzzed;

fn replay(target: &str, read: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let kept: Vec<_> = fs::read_dir(&folder)
        .expect("every target has a corpus")
        .map(|entry| entry.expect("a file").path())
        .collect();
    assert!(kept.len() >= 8, "{target}: {} kept", kept.len());
    for file in kept {
        read(&fs::read(file).expect("readable"));
    }
}

#[test]
fn the_kept_product_files_are_read_or_refused_by_their_rows() {
    replay("product_file", fuzzed::product_file);
}

#[test]
fn the_kept_cursors_lead_to_their_place_or_are_refused() {
    replay("cursor", fuzzed::cursor);
}

#[test]
fn the_kept_authorizations_are_nobodys() {
    replay("authorization", fuzzed::authorization);
}

#[test]
fn the_kept_urls_of_webhooks_name_one_machine_or_are_refused() {
    replay("webhook_url", fuzzed::webhook_url);
}
