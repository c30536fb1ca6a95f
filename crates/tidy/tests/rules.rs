//! The rules.

use std::collections::BTreeSet;

use holdfast_tidy::{
    graph,
    tree::{self, File},
};

/// What may stand on what: packages whose name begins with the first, and those they may name.
const ARROWS: &[(&str, &[&str])] = &[
    ("crates/kernel", &[]),
    ("crates/proto", &[]),
    ("crates/tidy", &[]),
    ("crates/platform", &["holdfast-kernel"]),
    ("crates/testkit", &["holdfast-kernel", "holdfast-platform"]),
    (
        "services/",
        &["holdfast-kernel", "holdfast-platform", "holdfast-proto"],
    ),
];

const ROOMS_WITHOUT_A_NOUN: [&str; 8] = [
    "util", "utils", "helper", "helpers", "common", "misc", "shared", "manager",
];

const DRAWN: (&str, &str) = (
    "<!-- drawn from the sources: make graph -->\n",
    "<!-- end of the drawing -->",
);

#[test]
fn crates_stand_only_on_what_lies_below_them() {
    let mut wrong = Vec::new();
    for file in manifests() {
        let Some((_, allowed)) = ARROWS
            .iter()
            .find(|(folder, _)| file.path.starts_with(folder))
        else {
            continue;
        };
        // What only tests need may point up.
        let linked = file
            .text
            .split("[dev-dependencies]")
            .next()
            .unwrap_or_default();
        for line in linked.lines() {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if name.starts_with("holdfast") && !allowed.contains(&name) {
                wrong.push(format!("{} links {name}", file.path));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn no_service_calls_in_a_circle_and_every_callee_exists() {
    let calls = graph::calls();
    assert_eq!(graph::cycle(&calls), None);
    let known: BTreeSet<&String> = calls.keys().collect();
    for (caller, called) in &calls {
        for peer in called {
            assert!(
                known.contains(peer),
                "{caller} calls {peer}, which is no service"
            );
        }
    }
    assert!(
        !calls["orders"].is_empty(),
        "the reader of peers reads nothing"
    );
}

#[test]
fn every_message_that_is_listened_to_is_announced_by_somebody() {
    let announced: BTreeSet<String> = graph::announced().into_values().flatten().collect();
    for (listener, kinds) in graph::listened() {
        for kind in kinds {
            assert!(
                announced.contains(&kind),
                "{listener} waits for {kind}, which nobody announces"
            );
        }
    }
    assert!(
        announced.contains("order.created"),
        "the reader of messages reads nothing"
    );
}

#[test]
fn the_drawing_in_the_architecture_is_the_one_the_sources_make() {
    let page = tree::read("ARCHITECTURE.md");
    let (before, rest) = page
        .split_once(DRAWN.0)
        .expect("ARCHITECTURE.md has a place for the drawing");
    let (drawn, after) = rest.split_once(DRAWN.1).expect("the place ends");
    let current = graph::drawing();
    if drawn == current {
        return;
    }
    // `make graph` asks for the new drawing; everybody else is told that the old one is wrong.
    if std::env::var_os("HOLDFAST_DRAW").is_some() {
        let page = format!("{before}{}{current}{}{after}", DRAWN.0, DRAWN.1);
        std::fs::write(tree::root().join("ARCHITECTURE.md"), page).expect("written");
        return;
    }
    assert_eq!(drawn, current, "run `make graph`");
}

#[test]
fn domains_know_nothing_of_input_and_output() {
    let mut looked_at = 0;
    for file in tree::files("services") {
        if !file.path.ends_with("src/domain.rs") {
            continue;
        }
        looked_at += 1;
        let code = file.text.split("#[cfg(test)]").next().unwrap_or_default();
        for word in [
            "sqlx",
            "tonic::",
            "tokio",
            "holdfast_proto",
            "async fn",
            "Clock",
        ] {
            assert!(!code.contains(word), "{} says {word}", file.path);
        }
    }
    assert!(looked_at >= 5, "{looked_at} domains");
}

#[test]
fn every_call_has_a_line_that_says_who_may_and_a_comment_that_says_what_it_does() {
    let mut calls = 0;
    for file in tree::files("proto") {
        let Some(service) = file.path.strip_suffix("_service.proto") else {
            continue;
        };
        let service = service.rsplit('/').next().expect("a path has a last part");
        let access = access_table(service);
        let mut comment = false;
        for line in file.text.lines().map(str::trim) {
            if let Some(call) = line.strip_prefix("rpc ") {
                let name = call.split('(').next().unwrap_or_default();
                calls += 1;
                assert!(comment, "{}: {name} has no comment", file.path);
                assert!(
                    access.contains(&format!("\"{name}\"")),
                    "{service}: nobody may call {name}: its access table has no line for it"
                );
            }
            comment = line.starts_with("//");
        }
    }
    assert!(calls > 30, "{calls} calls");
}

#[test]
fn every_reason_a_service_gives_has_its_problem_at_the_gateway() {
    let problems = tree::read("services/gateway/src/problems.rs");
    let mut reasons = 0;
    for service in graph::services().iter().filter(|name| *name != "gateway") {
        let errors = tree::read(&format!("services/{service}/src/error.rs"));
        for reason in tree::literals(&errors)
            .iter()
            .filter(|literal| is_reason(literal))
        {
            reasons += 1;
            assert!(
                problems.contains(&format!("\"{reason}\"")),
                "{service} gives {reason}, and the gateway does not know it"
            );
        }
    }
    assert!(reasons > 20, "{reasons} reasons");
}

#[test]
fn every_room_has_a_noun() {
    let wrong: Vec<String> = tree::files("")
        .into_iter()
        .map(|file| file.path)
        .filter(|path| {
            path.split('/')
                .map(|part| part.split('.').next().unwrap_or_default())
                .any(|part| ROOMS_WITHOUT_A_NOUN.contains(&part))
        })
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn documents_link_to_what_exists() {
    let mut wrong = Vec::new();
    for file in documents() {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for target in file
            .text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") {
                continue;
            }
            if !tree::root().join(folder).join(path).exists() {
                wrong.push(format!("{} links to {target}", file.path));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn documents_name_commands_that_exist() {
    let makefile = tree::read("Makefile");
    let commands = tree::read("bin/holdfast/src/lib.rs").to_lowercase();
    let mut named = 0;
    for file in documents() {
        for code in file.text.split('`').skip(1).step_by(2) {
            let mut words = code.split_whitespace();
            match (words.next(), words.next()) {
                (Some("make"), Some(target)) if !target.contains('=') => {
                    named += 1;
                    assert!(
                        makefile.contains(&format!("\n{target}:")),
                        "{}: make {target}",
                        file.path
                    );
                }
                (Some("holdfast"), Some(command))
                    if command.bytes().all(|letter| letter.is_ascii_lowercase()) =>
                {
                    named += 1;
                    let variant = [format!("    {command}("), format!("    {command},")];
                    assert!(
                        variant
                            .iter()
                            .any(|variant| commands.contains(variant.as_str())),
                        "{}: holdfast {command}",
                        file.path
                    );
                }
                _ => {}
            }
        }
    }
    assert!(named > 3, "{named} commands");
}

#[test]
fn every_situation_in_the_table_names_a_test_that_exists() {
    let table = tree::read("docs/SITUATIONS.md");
    let tests: BTreeSet<String> = ["crates", "services", "bin", "e2e"]
        .iter()
        .flat_map(|folder| tree::files(folder))
        .filter(|file| file.is("rs"))
        .flat_map(|file| {
            file.text
                .lines()
                .filter_map(|line| line.trim().trim_start_matches("async ").strip_prefix("fn "))
                .filter_map(|line| line.split('(').next())
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect();
    let mut cited = 0;
    for row in table.lines().filter(|line| {
        line.starts_with("| R") || line.starts_with("| S") || line.starts_with("| 1")
    }) {
        for test in row.split('`').skip(1).step_by(2) {
            cited += 1;
            assert!(tests.contains(test), "{test} is cited and does not exist");
        }
    }
    assert!(cited > 10, "{cited} tests");
}

#[test]
fn the_longest_files_are_told() {
    let mut lengths: Vec<(usize, String)> = ["crates", "services", "bin", "e2e"]
        .iter()
        .flat_map(|folder| tree::files(folder))
        .filter(|file| file.is("rs"))
        .map(|file| (file.text.lines().count(), file.path))
        .collect();
    lengths.sort_unstable_by(|one, other| other.cmp(one));
    for (lines, path) in lengths.iter().take(10) {
        println!("{lines:>6} {path}");
    }
    assert!(lengths.len() > 50, "{} files", lengths.len());
}

fn manifests() -> Vec<File> {
    let files = tree::files("");
    files
        .into_iter()
        .filter(|file| file.path.ends_with("Cargo.toml"))
        .collect()
}

fn documents() -> Vec<File> {
    let files = tree::files("");
    files.into_iter().filter(|file| file.is("md")).collect()
}

fn access_table(service: &str) -> String {
    let source = tree::files(&format!("services/{service}/src"))
        .into_iter()
        .find(|file| file.text.contains("pub const ACCESS: AccessTable"))
        .unwrap_or_else(|| panic!("{service} has no access table"));
    let (_, table) = source
        .text
        .split_once("pub const ACCESS: AccessTable")
        .expect("just found");
    table.split("];").next().unwrap_or_default().to_owned()
}

fn is_reason(text: &str) -> bool {
    text.len() > 3
        && text.contains('_')
        && text
            .bytes()
            .all(|letter| letter.is_ascii_uppercase() || letter == b'_')
}
