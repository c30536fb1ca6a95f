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

/// Types of messages that nobody outside is told of.
const NOT_PUBLIC: &[&str] = &["audit.recorded", "listing.changed"];

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
fn every_message_is_public_or_said_not_to_be() {
    let public = &graph::listened()["webhooks"];
    for (announcer, kinds) in graph::announced() {
        for kind in kinds {
            let is_private = NOT_PUBLIC.contains(&kind.as_str());
            assert!(
                public.contains(&kind) != is_private,
                "{announcer} announces {kind}: name it in `PUBLIC` of the webhooks or in `NOT_PUBLIC` here, not in both"
            );
        }
    }
    assert!(public.contains("order.created"), "{public:?}");
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
        let is_domain = file.path.ends_with("src/domain.rs");
        if !is_domain && !file.path.contains("src/domain/") {
            continue;
        }
        looked_at += usize::from(is_domain);
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
    let tests: BTreeSet<String> = sources()
        .iter()
        .flat_map(|file| tree::tests(&file.text))
        .collect();
    let mut cited = 0;
    for row in table.lines().filter(|line| {
        line.starts_with("| R") || line.starts_with("| S") || line.starts_with("| 1")
    }) {
        for test in row.split('`').skip(1).step_by(2) {
            cited += 1;
            assert!(tests.contains(test), "{test} is cited and is no test");
        }
    }
    assert!(cited > 10, "{cited} tests");
}

#[test]
fn only_functions_that_are_tests_count_as_tests() {
    let source = "
        #[test]
        fn is_one() {}
        #[tokio::test(flavor = \"multi_thread\")]
        #[ignore = \"as a child\"]
        async fn is_one_too() {}
        fn helps() {}
        async fn helps_too<T>() {}
        in_every_topology! {
            is_a_row,
            is_the_last_row,
        }
        async fn is_a_row() {}
        struct NoRow {
            no_row_either: bool,
        }
        // #[test]
        fn was_one() {}
    ";
    assert_eq!(
        tree::tests(source),
        ["is_one", "is_one_too", "is_a_row", "is_the_last_row"]
    );
}

#[test]
fn every_service_that_speaks_sql_holds_it_against_its_schema() {
    let mut speaking = 0;
    for service in graph::services() {
        let says = |folder: &str, what: &str| {
            let files = tree::files(&format!("services/{service}/{folder}"));
            files.iter().any(|file| file.text.contains(what))
        };
        if says("src", "sqlx::query") {
            speaking += 1;
            assert!(
                says("tests", "assert_statements_fit("),
                "{service} has no test of its statements"
            );
        }
    }
    assert!(speaking > 5, "{speaking} services");
}

#[test]
fn every_failpoint_that_is_offered_is_passed_somewhere() {
    let mut offered = 0;
    for service in graph::services() {
        let source: String = (tree::files(&format!("services/{service}/src")).iter())
            .map(|file| file.text.as_str())
            .collect();
        for name in failpoints(&source) {
            offered += 1;
            assert!(is_passed(&source, &name), "{service} never passes {name}");
        }
    }
    assert!(offered > 20, "{offered} failpoints");
}

#[test]
fn a_failpoint_that_is_only_offered_is_found() {
    let listed = "const FAILPOINTS: &[&str] = &[\"a.b\", \"a.c\", CALL.before];
        const CALL: Points = Points { before: \"a.d\" };
        failpoint::hit(\"a.b\").await?;";
    assert_eq!(failpoints(listed), ["CALL", "a.b", "a.c"]);
    assert!(is_passed(listed, "a.b"));
    assert!(!is_passed(listed, "a.c"));
    assert!(!is_passed(listed, "CALL"));
    assert!(is_passed(&format!("{listed} hit(CALL.before)"), "CALL"));
    let rows = "points! {\n    CLAIM = \"claim\";\n    REST = \"rest\";\n}\nhit(points::REST.0)";
    assert_eq!(failpoints(rows), ["CLAIM", "REST"]);
    assert!(is_passed(rows, "REST"));
    assert!(!is_passed(rows, "CLAIM"));
}

#[test]
fn every_setting_has_a_comment_that_says_what_it_means() {
    let mut settings = 0;
    for file in tree::files("") {
        if !file.path.ends_with("settings.toml") {
            continue;
        }
        settings += file.text.lines().filter(|line| key(line)).count();
        assert_eq!(
            unexplained(&file.text),
            Vec::<String>::new(),
            "{}",
            file.path
        );
    }
    assert!(settings > 30, "{settings} settings");
}

#[test]
fn a_setting_without_a_comment_is_found() {
    let text = "[one]\n# Said.\na = 1\nb = 2\n\n# Where each lies.\n[all]\nc = 3\nd = 4\n";
    assert_eq!(unexplained(text), ["one.b"]);
}

#[test]
fn every_route_says_in_a_comment_what_it_does() {
    let mut routes = 0;
    for file in tree::files("services/gateway/src/api") {
        let lines: Vec<&str> = file.text.lines().map(str::trim).collect();
        for (at, line) in lines.iter().enumerate() {
            if line.starts_with("#[utoipa::path(") {
                routes += 1;
                let said = at > 0 && lines[at - 1].starts_with("///");
                assert!(said, "{}:{}: a route without a comment", file.path, at + 1);
            }
        }
    }
    assert!(routes > 30, "{routes} routes");
}

#[test]
fn the_longest_files_and_functions_are_told() {
    let files = sources();
    let lengths = files
        .iter()
        .map(|file| (file.text.lines().count(), file.path.clone()));
    println!("{}", longest(lengths.collect()));
    let lengths = files.iter().flat_map(|file| {
        let functions = tree::functions(&file.text).into_iter();
        functions.map(|(name, lines)| (lines, format!("{name} in {}", file.path)))
    });
    let lengths: Vec<(usize, String)> = lengths.collect();
    assert!(files.len() > 50, "{} files", files.len());
    assert!(lengths.len() > 500, "{} functions", lengths.len());
    println!("{}", longest(lengths));
}

/// The ten longest, a line each.
fn longest(mut lengths: Vec<(usize, String)>) -> String {
    lengths.sort_unstable_by(|one, other| other.cmp(one));
    let lines: Vec<String> = lengths
        .iter()
        .take(10)
        .map(|(lines, what)| format!("{lines:>6} {what}"))
        .collect();
    lines.join("\n")
}

/// The names by which failpoints are offered: literals or constants of a list, rows of a table.
fn failpoints(source: &str) -> Vec<String> {
    let list = source
        .split_once("FAILPOINTS: &[&str] = &[")
        .and_then(|(_, rest)| rest.split_once(']'))
        .map_or("", |(list, _)| list);
    let constants = list
        .split(',')
        .filter_map(|entry| entry.trim().split_once('.'))
        .map(|(name, _)| name.to_owned())
        .filter(|name| {
            name.bytes()
                .all(|letter| letter.is_ascii_uppercase() || letter == b'_')
        });
    let rows = source
        .split_once("\npoints! {")
        .or_else(|| source.split_once("points! {\n"))
        .and_then(|(_, rest)| rest.split_once("\n}"))
        .map_or("", |(rows, _)| rows);
    let rows = rows
        .lines()
        .filter_map(|row| row.trim().split_once(" = "))
        .map(|(name, _)| name.to_owned());
    let names: BTreeSet<String> = constants.chain(rows).chain(tree::literals(list)).collect();
    names
        .into_iter()
        .filter(|name| !name.contains('$'))
        .collect()
}

/// Whether a failpoint is named where it is neither offered nor declared.
fn is_passed(source: &str, name: &str) -> bool {
    let all = source.match_indices(name).filter(|(at, _)| {
        let before = source[..*at].chars().next_back().unwrap_or(' ');
        let after = source[at + name.len()..].chars().next().unwrap_or(' ');
        let in_a_word = |letter: char| letter.is_alphanumeric() || letter == '_';
        !in_a_word(before) && !in_a_word(after)
    });
    let list = source
        .split_once("FAILPOINTS: &[&str] = &[")
        .map(|(before, rest)| {
            before.len()
                ..before.len()
                    + rest.find(']').unwrap_or_default()
                    + "FAILPOINTS: &[&str] = &[".len()
        });
    let declared = |at: usize| {
        let behind = &source[at + name.len()..];
        source[..at].ends_with("const ") || behind.starts_with(" = \"")
    };
    all.into_iter()
        .any(|(at, _)| !list.as_ref().is_some_and(|list| list.contains(&at)) && !declared(at))
}

fn key(line: &str) -> bool {
    !line.starts_with('#') && line.contains(" = ")
}

/// Keys with no comment directly above them, unless it is their whole section that is explained and no key of it.
fn unexplained(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let is_said = |at: usize| at > 0 && lines[at - 1].starts_with('#');
    let mut found = Vec::new();
    let mut section = (String::new(), false);
    for (at, line) in lines.iter().enumerate() {
        if let Some(name) = line.strip_prefix('[') {
            section = (name.trim_end_matches(']').to_owned(), is_said(at));
        } else if key(line) {
            let name = line.split(" = ").next().unwrap_or_default();
            if is_said(at) {
                section.1 = false;
            } else if !section.1 {
                found.push(format!("{}.{name}", section.0));
            }
        }
    }
    found
}

/// All Rust of the checkout.
fn sources() -> Vec<File> {
    ["crates", "services", "bin", "e2e"]
        .iter()
        .flat_map(|folder| tree::files(folder))
        .filter(|file| file.is("rs"))
        .collect()
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
