//! Every SQL statement in a crate's sources, held against the migrated schema.
//!
//! Nobody lists the statements: they are found by reading the sources. What cannot be found by reading, SQL put together
//! at run time, is refused, so nothing escapes. What several statements say alike may be a macro that gives its text, and
//! which `concat!` puts into each of them.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};

/// A statement, and where it is written.
#[derive(Debug, PartialEq, Eq)]
struct Statement {
    /// `src/store.rs:31`
    place: String,
    sql: String,
}

/// Parts of statements, by the macros that give them.
type Parts = HashMap<String, String>;
/// A text, and where in the code it stood.
type Literal = (usize, String);

/// What a literal begins with that is a statement.
const VERBS: [&str; 5] = ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH"];
/// Ways to hand over a statement; it has to be a literal, or a constant, whose literal is found where it is written.
const CHECKED: [&str; 3] = ["sqlx::query", "sqlx::query_as", "sqlx::query_scalar"];
/// Joins literals to one.
const CONCAT: &str = "concat!(";
/// Ways to hand over one that was put together.
const UNCHECKED: [&str; 3] = ["AssertSqlSafe", "QueryBuilder", "raw_sql"];

/// Plans every statement in the sources below `folder`, as far as `belongs` says so of their paths from there, under the
/// role and in the schema of `pool`.
///
/// A statement that names what is not there, does not agree in its types or needs a right that the role has not, panics
/// with its place; so does SQL that is put together at run time, and a folder without any. Sources of tests do not count.
pub async fn assert_statements_fit(
    pool: &PgPool,
    folder: impl AsRef<Path>,
    belongs: impl Fn(&str) -> bool,
) {
    let folder = folder.as_ref();
    let sources: Vec<(String, String)> = (sources(folder).into_iter())
        .map(|path| {
            let name = path.strip_prefix(folder).expect("it was found there");
            let name = name.to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
            (name, text)
        })
        .collect();
    let parts: Parts = sources.iter().flat_map(|(_, text)| parts(text)).collect();
    let mut statements = Vec::new();
    let mut wrong = Vec::new();
    for (name, text) in &sources {
        if !belongs(name) {
            continue;
        }
        match read(name, text, &parts) {
            Ok(found) => statements.extend(found),
            Err(refused) => wrong.extend(refused),
        }
    }
    assert!(
        !statements.is_empty(),
        "no statement was found in {}",
        folder.display()
    );
    let mut db = pool.acquire().await.expect("a connection").detach();
    // A plan for any parameters, for ours are all null.
    db.execute("SET plan_cache_mode = force_generic_plan")
        .await
        .expect("everybody may");
    for (number, Statement { place, sql }) in statements.iter().enumerate() {
        if let Err(error) = plan(&mut db, number, sql).await {
            wrong.push(format!("{place}: {error}\n{sql}"));
        }
    }
    db.close().await.ok();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Has the server plan a statement, which looks at names, types and rights and carries nothing out.
async fn plan(db: &mut PgConnection, number: usize, sql: &str) -> Result<(), sqlx::Error> {
    let name = format!("statement_{number}");
    // Not as plain text, which may be several statements.
    sqlx::query(AssertSqlSafe(format!("PREPARE {name} AS {sql}")))
        .persistent(false)
        .execute(&mut *db)
        .await?;
    let parameters: i32 = sqlx::query_scalar(
        "SELECT cardinality(parameter_types) FROM pg_prepared_statements WHERE name = $1",
    )
    .bind(&name)
    .fetch_one(&mut *db)
    .await?;
    let nulls = vec!["NULL"; parameters.unsigned_abs() as usize].join(", ");
    let arguments = if nulls.is_empty() {
        nulls
    } else {
        format!("({nulls})")
    };
    db.execute(AssertSqlSafe(format!("EXPLAIN EXECUTE {name} {arguments}")))
        .await
        .map(drop)
}

/// Rust and SQL below a folder, but for tests, in order.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for path in entries.flatten().map(|entry| entry.path()) {
        let is_test = path.file_stem().is_some_and(|stem| stem == "tests");
        let is_source = path
            .extension()
            .is_some_and(|kind| kind == "rs" || kind == "sql");
        if path.is_dir() && !is_test {
            found.extend(sources(&path));
        } else if is_source && !is_test {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The macros of a source that give a text and nothing else, with that text.
fn parts(text: &str) -> Vec<(String, String)> {
    let (code, literals) = scan(text);
    (code.match_indices("macro_rules!"))
        .filter_map(|(at, keyword)| {
            let (name, body) = code[at + keyword.len()..].split_once('{')?;
            let (arms, _) = body.split_once('"')?;
            let words: Vec<&str> = arms.split_whitespace().collect();
            if words != ["()", "=>", "{"] {
                return None;
            }
            let (_, text) = literals.iter().find(|(place, _)| *place > at)?;
            Some((name.trim().to_owned(), text.clone()))
        })
        .collect()
}

/// The statements of a source, or where it puts together SQL other than of `parts`.
fn read(name: &str, text: &str, parts: &Parts) -> Result<Vec<Statement>, Vec<String>> {
    if Path::new(name)
        .extension()
        .is_some_and(|kind| kind == "sql")
    {
        let place = format!("{name}:1");
        let sql = text.to_owned();
        return Ok(vec![Statement { place, sql }]);
    }
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    let (code, literals) = scan(text);
    let (literals, strangers) = join(&code, literals, parts);
    let line = |at: usize| code[..at].matches('\n').count() + 1;
    let mut refused = Vec::new();
    for way in UNCHECKED {
        for (at, _) in code.match_indices(way) {
            refused.push(format!("{name}:{}: {way} puts SQL together", line(at)));
        }
    }
    for (at, _) in code.match_indices("sqlx::query") {
        let (way, argument) = code[at..].split_once('(').unwrap_or_default();
        let way = way.split("::<").next().unwrap_or_default();
        let argument = argument.trim_start();
        let is_literal = match argument.strip_prefix(CONCAT) {
            Some(rest) => literals
                .iter()
                .any(|(at, _)| *at == code.len() - rest.len()),
            None => argument.starts_with(|first: char| first == '"' || first.is_ascii_uppercase()),
        };
        if !(CHECKED.contains(&way) && is_literal) {
            let got = argument.split('\n').next().unwrap_or_default();
            refused.push(format!(
                "{name}:{}: {way} is given {got}, wanted a literal",
                line(at)
            ));
        }
    }
    for (at, stranger) in strangers {
        refused.push(format!(
            "{name}:{}: concat! is given {stranger}, wanted literals and macros that give one",
            line(at)
        ));
    }
    if !refused.is_empty() {
        return Err(refused);
    }
    let is_statement = |text: &str| VERBS.contains(&verb_of(text)) && text.trim() != verb_of(text);
    Ok(literals
        .into_iter()
        .filter(|(_, text)| is_statement(text))
        .map(|(at, sql)| Statement {
            place: format!("{name}:{}", line(at)),
            sql,
        })
        .collect())
}

fn verb_of(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

/// Literals, those that a `concat!` joins as the one it makes; beside them what is joined to a statement and is not known.
fn join(code: &str, literals: Vec<Literal>, parts: &Parts) -> (Vec<Literal>, Vec<Literal>) {
    let (mut joined, mut strangers) = (Vec::new(), Vec::new());
    let mut literals = literals.into_iter().peekable();
    for (at, _) in code.match_indices(CONCAT) {
        let start = at + CONCAT.len();
        let end = start + length_to_close(&code[start..]);
        while let Some(before) = literals.next_if(|(place, _)| *place < start) {
            joined.push(before);
        }
        let mut whole = String::new();
        let mut unknown = None;
        for given in code[start..end].split(',').map(str::trim) {
            let name = given.strip_suffix("!()").unwrap_or_default();
            if given == "\"" {
                whole.extend(literals.next().map(|(_, literal)| literal));
            } else if let Some(part) = parts.get(name) {
                whole.push_str(part);
            } else if !given.is_empty() {
                unknown = Some(given.to_owned());
                // `env!("PATH")` has one of its own.
                given.matches('"').for_each(|_| drop(literals.next()));
            }
        }
        match unknown {
            None => joined.push((start, whole)),
            Some(stranger) if VERBS.contains(&verb_of(&whole)) => strangers.push((at, stranger)),
            Some(_) => {}
        }
    }
    joined.extend(literals);
    (joined, strangers)
}

/// How far it is to the parenthesis that closes the one before `code`.
fn length_to_close(code: &str) -> usize {
    let mut depth = 1;
    for (at, letter) in code.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    code.len()
}

/// Splits Rust into its code, with `"` where a literal stood and as many lines, and its literals by their place there.
fn scan(text: &str) -> (String, Vec<Literal>) {
    let mut code = String::new();
    let mut literals = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let raw = raw_start(rest).filter(|_| !ends_in_a_word(&code));
        let (taken, literal) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), None)
        } else if rest.starts_with("/*") {
            (rest.find("*/").map_or(rest.len(), |end| end + 2), None)
        } else if let Some((open, close)) = raw {
            let body = &rest[open..];
            let end = body.find(&close).unwrap_or(body.len());
            let taken = (open + end + close.len()).min(rest.len());
            (taken, Some(body[..end].to_owned()))
        } else if first == '"' {
            let end = closing(&rest[1..], '"');
            (end + 2, Some(unescaped(&rest[1..=end])))
        } else if first == '\'' && (rest.starts_with("'\\") || rest.chars().nth(2) == Some('\'')) {
            // A letter, which may be a quotation mark; all else behind an apostrophe is a lifetime.
            (closing(&rest[1..], '\'') + 2, None)
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        let taken = taken.min(rest.len());
        if let Some(literal) = literal {
            literals.push((code.len(), literal));
            code.push('"');
        }
        code.extend(rest[..taken].matches('\n'));
        rest = &rest[taken..];
    }
    (code, literals)
}

/// How long the opening of a raw literal is, and what closes it.
fn raw_start(rest: &str) -> Option<(usize, String)> {
    let behind = rest.strip_prefix('r')?;
    let hashes = behind.bytes().take_while(|&byte| byte == b'#').count();
    behind[hashes..]
        .starts_with('"')
        .then(|| (hashes + 2, format!("\"{}", "#".repeat(hashes))))
}

fn ends_in_a_word(code: &str) -> bool {
    code.ends_with(|letter: char| letter.is_alphanumeric() || letter == '_')
}

/// Where the first `mark` is that no backslash stands before.
fn closing(text: &str, mark: char) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        if !escaped && letter == mark {
            return at;
        }
        escaped = !escaped && letter == '\\';
    }
    text.len().saturating_sub(1)
}

/// What a literal with escapes means, as far as statements have them.
fn unescaped(literal: &str) -> String {
    let mut meant = String::new();
    let mut letters = literal.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            meant.push(letter);
            continue;
        }
        match letters.next() {
            Some('n') => meant.push('\n'),
            // The line goes on where the next one has its first letter.
            Some('\n') => while letters.next_if(|letter| letter.is_whitespace()).is_some() {},
            Some(itself) => meant.push(itself),
            None => {}
        }
    }
    meant
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(source: &str) -> Vec<(String, String)> {
        let parts = parts(source).into_iter().collect();
        let statements = read("src/store.rs", source, &parts).expect("nothing put together");
        (statements.into_iter())
            .map(|found| (found.place, found.sql))
            .collect()
    }

    #[test]
    fn statements_are_found_wherever_they_are_written() {
        let source = r##"
            // "SELECT comment"
            /* "SELECT other" */
            const FIND: &str = "SELECT constant";
            fn find<'a>() { sqlx::query(FIND); let quote = '"'; let other = '\''; }
            sqlx::query_as::<_, Row>("SELECT \
                one, '\\x'")
            client
                .prepare(r#"WITH "raw" AS"#)
            "SELECT" "select lower case" "no SELECT"
            sqlx::query_scalar(
                "DELETE FROM \"order\"
                 WHERE id = $1",
            )
            #[cfg(test)]
            mod tests { sqlx::query("SELECT test") }
        "##;
        let at = |line: u32, sql: &str| (format!("src/store.rs:{line}"), sql.to_owned());
        assert_eq!(
            found(source),
            [
                at(4, "SELECT constant"),
                at(6, "SELECT one, '\\x'"),
                at(9, "WITH \"raw\" AS"),
                at(12, "DELETE FROM \"order\"\n                 WHERE id = $1"),
            ]
        );
    }

    #[test]
    fn what_statements_share_is_read_in_each_of_them() {
        let source = r#"
            /// What a row is read from.
            macro_rules! columns {
                () => {
                    "one, (two)"
                };
            }
            const ALL: &str = concat!("SELECT ", columns!(), " FROM t");
            sqlx::query_as(concat!(
                "SELECT ", columns!(), ", 'a, b'",
                " FROM t WHERE one = $1"
            ));
            let name = concat!(env!("HOME"), "/no/statement");
            sqlx::query("DELETE FROM t");
        "#;
        let at = |line: u32, sql: &str| (format!("src/store.rs:{line}"), sql.to_owned());
        assert_eq!(
            found(source),
            [
                at(8, "SELECT one, (two) FROM t"),
                at(9, "SELECT one, (two), 'a, b' FROM t WHERE one = $1"),
                at(14, "DELETE FROM t"),
            ]
        );
    }

    #[test]
    fn sql_that_is_put_together_is_refused_by_its_place() {
        for source in [
            "\nsqlx::query(&text)",
            "\nsqlx::query_as::<_, Row>(\n text)",
            "\nsqlx::query_with(\"SELECT 1\", arguments)",
            "\nexecute(AssertSqlSafe(format!(\"SELECT {column}\")))",
            "\nsqlx::QueryBuilder::new(\"SELECT 1\")",
            "\nsqlx::raw_sql(\"SELECT 1\")",
            "\nsqlx::query(concat!(\"SELECT \", columns!()))",
        ] {
            let refused = read("src/store.rs", source, &Parts::new()).expect_err(source);
            assert!(refused[0].starts_with("src/store.rs:2: "), "{refused:?}");
        }
    }
}
