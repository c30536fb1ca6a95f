//! What a newcomer sees first.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Instant};

use anyhow::{Context as _, ensure};
use holdfast_e2e::Operator;

const README: &str = include_str!("../../../README.md");
/// What stands before the picture of the demo's output.
const PICTURE: &str = "prints something like this:\n\n```text\n";

#[test]
fn the_demo_shows_what_the_readme_says_and_shows_it_again_on_the_same_folder() -> anyhow::Result<()>
{
    let folder = tempfile::Builder::new()
        .prefix("holdfast-demo-")
        .tempdir_in("/tmp")?;
    // PostgreSQL does not run as root; its account has to get through.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let first = demo(folder.path())?;
    let (_, picture) = README
        .split_once(PICTURE)
        .context("README has no picture of the demo")?;
    let (picture, _) = picture.split_once("```").context("the picture ends")?;
    assert_eq!(shape(&first), shape(picture), "{first}");
    for told in [
        "sells 60 products",
        "found      Indigo Work Jacket",
        "it shows 5.0 from 1 in all",
        "409 out_of_stock",
        "402 payment_declined",
    ] {
        ensure!(first.contains(told), "{told:?} is not in\n{first}");
    }

    let started = Instant::now();
    let again = demo(folder.path())?;
    println!(
        "a second demo on the same folder took {:.1?}",
        started.elapsed()
    );
    ensure!(again.contains("it shows 5.0 from 2 in all"), "{again}");
    Ok(())
}

fn demo(folder: &Path) -> anyhow::Result<String> {
    let operator = Operator::of(&folder.join("data"))?;
    operator.done(&["demo", "--exit", "--listen", "127.0.0.1:0"])
}

/// The lines without what differs from run to run: ids, times, places, passwords, and the order in which webhooks came.
fn shape(output: &str) -> Vec<String> {
    let word = |word: &str| {
        let varies = word.contains(|letter: char| letter.is_ascii_digit() || letter == '/');
        if varies { "…" } else { word }.to_owned()
    };
    let line = |line: &str| {
        line.split_whitespace()
            .map(word)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut lines: Vec<String> = output.lines().map(line).collect();
    lines.retain(|line| !line.is_empty());
    lines.sort();
    lines
}
