//! The checkout as text: its files, and what the rules want to know of them.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A file of the checkout.
#[derive(Debug, Clone)]
pub struct File {
    /// Relative to the checkout, with forward slashes.
    pub path: String,
    /// All of it.
    pub text: String,
}

impl File {
    /// Whether the file is of a kind, by what follows the last dot: `rs`, `md`.
    pub fn is(&self, extension: &str) -> bool {
        Path::new(&self.path)
            .extension()
            .is_some_and(|found| found == extension)
    }
}

/// Macros whose rows are each a test.
const TEST_TABLES: [&str; 1] = ["in_every_topology"];
const WORDS_BEFORE_FN: [&str; 2] = ["async", "const"];
const SKIPPED_FOLDERS: [&str; 4] = ["target", ".git", "node_modules", ".holdfast"];

/// The root of the checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("this crate lies two folders deep")
        .to_owned()
}

/// Every text file under a folder of the checkout, in order of their paths.
pub fn files(folder: &str) -> Vec<File> {
    let root = root();
    let mut found = Vec::new();
    walk(&root.join(folder), &root, &mut found);
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

/// Names of the folders directly under a folder of the checkout, in order.
pub fn folders(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(root().join(folder)).expect("the folder is part of the layout");
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// One file of the checkout.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Names of the functions in Rust source that are tests: what stands below `#[test]` or `#[tokio::test]`, and the rows of
/// the tables that make a test of each (`in_every_topology!`).
pub fn tests(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_test = false;
    let mut in_table = false;
    for line in source.lines().map(str::trim) {
        if let Some(name) = function(line) {
            if is_test {
                names.push(name.to_owned());
            }
            is_test = false;
        } else if line == "#[test]" || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if line.ends_with("! {") && TEST_TABLES.iter().any(|table| line.starts_with(table)) {
            in_table = true;
        } else if in_table {
            in_table = line != "}";
            names.extend(line.strip_suffix(',').map(str::to_owned));
        }
    }
    names
}

/// Names of the functions in formatted Rust source, and how many lines each has.
pub fn functions(source: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = source.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let declared = code.split_once("fn ").filter(|(before, _)| {
            (before.split_whitespace())
                .all(|word| word.starts_with("pub") || WORDS_BEFORE_FN.contains(&word))
        });
        if let Some((_, rest)) = declared {
            let name = rest.split(['(', '<']).next().unwrap_or_default();
            let end = format!("{}}}", &line[..line.len() - code.len()]);
            let length = lines[at..]
                .iter()
                .position(|line| *line == end)
                .unwrap_or(0);
            found.push((name.to_owned(), length + 1));
        }
    }
    found
}

/// The name of the function that a line declares.
fn function(line: &str) -> Option<&str> {
    let line = line.strip_prefix("async ").unwrap_or(line);
    line.strip_prefix("fn ")?.split(['(', '<']).next()
}

/// The text of string literals in Rust source, comments left out.
pub fn literals(source: &str) -> Vec<String> {
    source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split('"').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

fn walk(folder: &Path, root: &Path, found: &mut Vec<File>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            if !SKIPPED_FOLDERS.contains(&name.as_str()) {
                walk(&path, root, found);
            }
        } else if let Ok(text) = fs::read_to_string(&path) {
            let path = path.strip_prefix(root).expect("found below the root");
            found.push(File {
                path: path.to_string_lossy().into_owned(),
                text,
            });
        }
    }
}
