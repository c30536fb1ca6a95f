//! Who calls whom and who listens to whom, read from the services' sources, and drawn.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::tree;

/// Edges from each service to others.
pub type Edges = BTreeMap<String, BTreeSet<String>>;

/// Who calls whom: the fields of each service's `Peers`.
pub fn calls() -> Edges {
    services()
        .into_iter()
        .map(|service| {
            let source = tree::read(&format!("services/{service}/src/lib.rs"));
            let peers = source
                .split_once("pub struct Peers {")
                .and_then(|(_, rest)| rest.split_once('}'))
                .map_or("", |(fields, _)| fields);
            let called = peers
                .lines()
                .filter_map(|line| line.trim().strip_prefix("pub "))
                .filter_map(|field| field.split_once(':'))
                .map(|(name, _)| name.to_owned())
                .collect();
            (service, called)
        })
        .collect()
}

/// Types of messages that each service announces: in its `messages.rs` and its `domain.rs`, every literal like
/// `order.created` that is not something it listens to, and the lines of the audit log, which platform words for all.
pub fn announced() -> Edges {
    kinds(|source| {
        let listened: BTreeSet<String> = listened_in(source);
        let writes_log = source.contains("audit_log::");
        kinds_in(source)
            .into_iter()
            .filter(|kind| !listened.contains(kind))
            .chain(writes_log.then(|| "audit.recorded".to_owned()))
            .collect()
    })
}

/// Types of messages that each service listens to: the `kinds` of its interests.
pub fn listened() -> Edges {
    kinds(listened_in)
}

/// Some cycle among the edges, if there is one.
pub fn cycle(edges: &Edges) -> Option<Vec<String>> {
    fn visit(edges: &Edges, at: &str, path: &mut Vec<String>) -> Option<Vec<String>> {
        if let Some(start) = path.iter().position(|earlier| earlier == at) {
            return Some(path[start..].to_vec());
        }
        path.push(at.to_owned());
        let found = edges
            .get(at)
            .into_iter()
            .flatten()
            .find_map(|next| visit(edges, next, path));
        path.pop();
        found
    }
    edges
        .keys()
        .find_map(|start| visit(edges, start, &mut Vec::new()))
}

/// The two graphs as ARCHITECTURE shows them.
pub fn drawing() -> String {
    let mut text = String::from("```mermaid\ngraph LR\n");
    for (caller, called) in calls() {
        for peer in called {
            writeln!(text, "    {caller} --> {peer}").expect("text takes text");
        }
    }
    let announced = announced();
    for (listener, kinds) in listened() {
        for announcer in announced.keys() {
            let heard: Vec<&str> = kinds
                .iter()
                .filter(|kind| announced[announcer].contains(*kind))
                .map(|kind| {
                    kind.rsplit_once('.')
                        .map_or(kind.as_str(), |(_, what)| what)
                })
                .collect();
            if !heard.is_empty() {
                writeln!(
                    text,
                    "    {announcer} -. \"{}\" .-> {listener}",
                    heard.join(", ")
                )
                .expect("text takes text");
            }
        }
    }
    text.push_str("```\n\n| service | announces |\n|---|---|\n");
    for (service, kinds) in announced.iter().filter(|(_, kinds)| !kinds.is_empty()) {
        let kinds: Vec<String> = kinds.iter().map(|kind| format!("`{kind}`")).collect();
        writeln!(text, "| {service} | {} |", kinds.join(" ")).expect("text takes text");
    }
    text
}

/// The names of all services.
pub fn services() -> Vec<String> {
    tree::folders("services")
}

fn kinds(read: impl Fn(&str) -> BTreeSet<String>) -> Edges {
    services()
        .into_iter()
        .map(|service| {
            let source: String = ["messages", "domain"]
                .map(|file| tree::root().join(format!("services/{service}/src/{file}.rs")))
                .iter()
                .filter_map(|path| std::fs::read_to_string(path).ok())
                .collect();
            (service, read(&source))
        })
        .collect()
}

fn listened_in(source: &str) -> BTreeSet<String> {
    source
        .split("kinds: &[")
        .skip(1)
        .filter_map(|rest| rest.split_once(']'))
        .flat_map(|(list, _)| kinds_in(list))
        .collect()
}

fn kinds_in(source: &str) -> BTreeSet<String> {
    let word = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|letter| letter.is_ascii_lowercase() || letter == b'_')
    };
    // Topics and consumers are named with a dot as well: `holdfast.orders`, `orders.payments`.
    let services = services();
    let names_a_room = |what: &str| what == "holdfast" || services.iter().any(|name| name == what);
    tree::literals(source)
        .into_iter()
        .filter(|literal| {
            literal
                .split_once('.')
                .is_some_and(|(what, happened)| word(what) && word(happened) && !names_a_room(what))
        })
        .collect()
}
