//! State diagrams drawn from code into a document, and the test that they are current.

use std::{
    fmt::{Display, Write},
    fs,
    path::Path,
};

const BEGIN: &str = "<!-- states, drawn from code -->\n";
const END: &str = "<!-- end of states -->";

/// Draws `moves` (from, what happened, to) as a Mermaid diagram between the markers `<!-- states, drawn from code -->`
/// and `<!-- end of states -->` of `document`, and panics when it had to change it: look at the difference, commit it.
pub fn assert_states_drawn<S: Display + PartialEq>(
    document: impl AsRef<Path>,
    start: &S,
    moves: &[(S, &str, S)],
) {
    let path = document.as_ref();
    let name = path.display();
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"));
    let (head, rest) = text
        .split_once(BEGIN)
        .unwrap_or_else(|| panic!("{name} has no line {BEGIN}"));
    let (drawn, tail) = rest
        .split_once(END)
        .unwrap_or_else(|| panic!("{name} has no line {END}"));
    let current = draw(start, moves);
    if drawn != current {
        fs::write(path, format!("{head}{BEGIN}{current}{END}{tail}"))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        panic!("the state diagram of {name} was not current and has been drawn anew: commit it");
    }
}

fn draw<S: Display + PartialEq>(start: &S, moves: &[(S, &str, S)]) -> String {
    let mut text = format!("```mermaid\nstateDiagram-v2\n    [*] --> {start}\n");
    for (place, (from, _, to)) in moves.iter().enumerate() {
        let same = |(a, _, b): &&(S, &str, S)| a == from && b == to;
        if moves[..place].iter().any(|earlier| same(&earlier)) {
            continue;
        }
        let whats: Vec<&str> = moves
            .iter()
            .filter(same)
            .map(|(_, what, _)| *what)
            .collect();
        writeln!(text, "    {from} --> {to}: {}", whats.join(", "))
            .expect("a text takes all that is written to it");
    }
    text.push_str("```\n");
    text
}

#[cfg(test)]
mod tests {
    use std::panic;

    use super::*;

    const MOVES: &[(&str, &str, &str)] = &[
        ("open", "close", "closed"),
        ("open", "slam", "closed"),
        ("closed", "open", "open"),
    ];

    #[test]
    fn a_stale_diagram_fails_once_and_is_drawn_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let document = folder.path().join("README.md");
        fs::write(&document, format!("# Door\n{BEGIN}old\n{END}\nmore\n")).expect("written");
        let look = || assert_states_drawn(&document, &"open", MOVES);
        assert!(panic::catch_unwind(look).is_err(), "it was stale");
        look();
        let text = fs::read_to_string(&document).expect("there");
        assert!(
            text.starts_with("# Door\n") && text.ends_with("\nmore\n"),
            "{text}"
        );
        assert!(
            text.contains("    open --> closed: close, slam\n"),
            "{text}"
        );
        assert!(text.contains("    [*] --> open\n"), "{text}");
    }
}
