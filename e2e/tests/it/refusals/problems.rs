//! What is sent wrongly: every operation, with each kind of wrong that its description knows.

use anyhow::{Context as _, ensure};
use holdfast_e2e::{Answer, Asking, Door, Operation, contract::Parameter};
use serde_json::{Value, json};

use super::{
    places::{Place, places},
    stage::{Stage, on_stage, unique, written},
    table::row_of,
};

/// Longer than any text that is taken, shorter than a body may be.
const LONG_CHARS: usize = 100_000;
/// More than any list that is taken.
const LONG_ENTRIES: usize = 100_000;
/// Deeper than any body that is read.
const DEEP: usize = 100_000;
/// The most a body may have, and one more.
const BODY_TOO_LARGE_BYTES: usize = 1024 * 1024 + 1;
/// Rows that a refusal may leave: an applicant whose name was refused is no account, and the address stays free; wrong
/// passwords are counted, and told to who audits.
const LEFT: [(&str, &str); 7] = [
    ("POST /v1/users/register", "auth.account"),
    ("POST /v1/users/register", "auth.subject_key"),
    ("POST /v1/users/login", "auth.guessing"),
    ("POST /v1/users/login", "auth.outbox"),
    ("POST /v1/users/login", "bus.message"),
    ("POST /v1/users/login", "bus.topic"),
    ("PUT /v1/users/me/password", "auth.guessing"),
];
/// Texts that have to be right, however long they may be.
const JUDGED: [&str; 5] = ["password", "current", "new", "token", "store"];
/// What may not stand beside what the example has, or has to agree with it: the bound is not theirs alone.
const BOUND_TO_OTHERS: [(&str, &str); 5] = [
    ("POST /v1/events", "sections[0].capacity"),
    ("PUT /v1/events/{id}/layout", "sections[0].capacity"),
    ("PUT /v1/events/{id}/layout", "sections[0].id"),
    ("PUT /v1/events/{id}/layout", "sections[0].name"),
    ("PUT /v1/events/{id}/layout", "sections[0].rows[0].seats"),
];
const KEY: &str = "idempotency-key";
/// Complaints shown of a run; the first are enough to begin with.
const SHOWN_ENTRIES: usize = 40;

/// A request that is wrong in one way, and what has to be told.
struct Wrong {
    what: String,
    asking: Asking,
    told: Told,
}

enum Told {
    /// This status and code.
    Code(u16, &'static str),
    /// 422 that names the field, whatever its code.
    Field(String),
    /// As [`Field`](Self::Field), or 401 where what is wrong is what somebody would prove who they are with.
    FieldOrDenied(String),
    /// Any refusal: which one is the service's to say.
    Refusal,
    /// Anything but a failure of ours.
    NoFailure,
    /// Anything but a failure of ours and a refusal that names the field: its bound is described as it is.
    NotBy(String),
}

impl Told {
    /// Whether the request may be taken.
    const fn may_be_taken(&self) -> bool {
        matches!(self, Self::NoFailure | Self::NotBy(_))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_sent_wrongly_is_refused_by_name_and_writes_nothing() -> anyhow::Result<()> {
    on_stage(async |stage| {
        let mut complaints = Vec::new();
        let mut asked = 0;
        for operation in stage.contract.operations()? {
            let name = operation.name();
            let row = row_of(&name).with_context(|| format!("{name} has no row"))?;
            let (door, good) = stage.prepare(&operation, row.thing, row.admitted()).await?;
            let mut wrongs = wrong_parameters(&operation, &good);
            wrongs.extend(wrong_bodies(stage, &operation, &good));
            let before = stage.settled_books().await?;
            // What may be taken comes last: by then it is seen that what was refused wrote nothing.
            wrongs.sort_by_key(|wrong| wrong.told.may_be_taken());
            let mut touched = None;
            for mut wrong in wrongs {
                asked += 1;
                if wrong.told.may_be_taken() && touched.is_none() {
                    touched = Some(written(&before, &stage.books().await?));
                }
                // Each is a wish of its own, if it is one at all.
                let keys = |asking: &Asking| {
                    let named = asking.headers.iter().filter(|(name, _)| name == KEY);
                    named.cloned().collect::<Vec<_>>()
                };
                if keys(&wrong.asking) == keys(&good) && !keys(&good).is_empty() {
                    wrong.asking = wrong.asking.with(KEY, &unique());
                }
                if let Err(error) = is_told(&door, &wrong).await {
                    complaints.push(format!("{name}, {}: {error:#}", wrong.what));
                }
            }
            let touched = match touched {
                Some(touched) => touched,
                None => written(&before, &stage.books().await?),
            };
            let touched: Vec<&String> = touched
                .iter()
                .filter(|table| !LEFT.contains(&(name.as_str(), table.as_str())))
                .collect();
            if !touched.is_empty() {
                complaints.push(format!("{name} wrote to {touched:?}"));
            }
        }
        ensure!(asked > 1_000, "only {asked} wrong requests");
        let shown = complaints.len().min(SHOWN_ENTRIES);
        ensure!(
            complaints.is_empty(),
            "{} of {asked}:\n{}",
            complaints.len(),
            complaints[..shown].join("\n")
        );
        Ok(())
    })
    .await
}

async fn is_told(door: &Door, wrong: &Wrong) -> anyhow::Result<()> {
    let answer = door.ask(&wrong.asking).await?;
    ensure!(answer.status < 500, "{}", told(&answer));
    if wrong.told.may_be_taken() && answer.status < 400 {
        return Ok(());
    }
    ensure!(answer.status >= 400, "taken: {}", told(&answer));
    let problem: Value = answer.is(answer.status)?;
    let code = problem["code"].as_str().unwrap_or_default();
    answer.is_refused(answer.status, code)?;
    ensure!(
        problem["type"] == format!("/problems/{code}"),
        "{}",
        told(&answer)
    );
    match &wrong.told {
        Told::FieldOrDenied(_) if answer.status == 401 => {}
        Told::Code(status, code) => {
            answer.is_refused(*status, code)?;
        }
        Told::Field(field) | Told::FieldOrDenied(field) => {
            ensure!(answer.status == 422, "{}", told(&answer));
            let errors = problem["errors"].as_array();
            let named = errors.into_iter().flatten().find(|it| {
                let name = it["field"].as_str().unwrap_or_default();
                name == field
                    || name
                        .strip_prefix(field.as_str())
                        .is_some_and(|rest| rest.starts_with(['.', '[']))
            });
            let named = named.with_context(|| format!("{field} is not named: {problem}"))?;
            says_what_is_wanted(named, &problem)?;
        }
        Told::NotBy(field) => {
            let errors = problem["errors"].as_array();
            let is_named = errors.into_iter().flatten().any(|it| it["field"] == *field);
            ensure!(!is_named, "{}", told(&answer));
        }
        Told::Refusal | Told::NoFailure => {}
    }
    Ok(())
}

/// Words by which a message says what was got or what is wanted.
const WORDS: [&str; 10] = [
    "wanted",
    "is missing",
    "is given twice",
    "is no ",
    "is not",
    "is neither",
    "leave it out",
    "has none",
    "not taken",
    "guess",
];

fn says_what_is_wanted(error: &Value, problem: &Value) -> anyhow::Result<()> {
    let said = format!("{} {}", error["message"], problem["detail"]);
    ensure!(
        WORDS.iter().any(|word| said.contains(word)),
        "says not what is wanted: {problem}"
    );
    let text = problem["detail"].as_str().unwrap_or_default();
    ensure!(text.len() < 1_000, "{} characters of detail", text.len());
    ensure!(
        !text.ends_with('.') && !text.starts_with(|letter: char| letter.is_ascii_uppercase()),
        "detail: {text}"
    );
    Ok(())
}

fn told(answer: &Answer) -> String {
    let text = String::from_utf8_lossy(&answer.bytes);
    format!(
        "{} {}",
        answer.status,
        text.chars().take(300).collect::<String>()
    )
}

fn wrong_parameters(operation: &Operation, good: &Asking) -> Vec<Wrong> {
    let mut wrongs = Vec::new();
    let mut wrong = |what: String, asking: Asking, told: Told| {
        wrongs.push(Wrong { what, asking, told });
    };
    for parameter in &operation.parameters {
        let name = parameter.name.as_str();
        match (parameter.place.as_str(), name) {
            ("path", _) => {
                for text in bad_ids() {
                    let path = operation.path.replace(&format!("{{{name}}}"), &text);
                    let asking = Asking {
                        path,
                        ..good.clone()
                    };
                    let shown: String = text.chars().take(20).collect();
                    wrong(format!("{name} {shown}"), asking, Told::Refusal);
                }
            }
            ("query", _) => {
                for (text, told) in bad_queries(parameter) {
                    let shown: String = text.chars().take(40).collect();
                    wrong(format!("?{shown}"), asked_with(good, &text), told);
                }
            }
            ("header", "idempotency-key") => {
                let refused = |code| Told::Code(400, code);
                wrong(
                    "no key".to_owned(),
                    good.clone().without(name),
                    refused("idempotency_key_required"),
                );
                for key in ["", "a b", "ü", &"k".repeat(256)] {
                    let asking = good.clone().with(name, key);
                    let shown: String = key.chars().take(20).collect();
                    wrong(
                        format!("key {shown:?}"),
                        asking,
                        refused("idempotency_key_invalid"),
                    );
                }
                let mut twice = good.clone();
                twice.headers.push((name.to_owned(), "another".to_owned()));
                wrong(
                    "two keys".to_owned(),
                    twice,
                    refused("idempotency_key_invalid"),
                );
            }
            ("header", "if-match") => {
                if parameter.required {
                    let asking = good.clone().without(name);
                    wrong(
                        "no if-match".to_owned(),
                        asking,
                        Told::Code(428, "precondition_required"),
                    );
                }
                for tag in ["*", "7", "W/\"7\"", "\"x\"", "\"0\"", "\"1\", \"2\"", ""] {
                    let asking = good.clone().with(name, tag);
                    wrong(
                        format!("if-match {tag}"),
                        asking,
                        Told::Field("if-match".to_owned()),
                    );
                }
                let asking = good.clone().with(name, "\"999999\"");
                wrong(
                    "another's if-match".to_owned(),
                    asking,
                    Told::Code(412, "precondition_failed"),
                );
            }
            _ => {}
        }
    }
    if operation.parameters.iter().any(|it| it.place == "query") {
        let field = Told::Field("no_such_parameter".to_owned());
        wrong(
            "unknown query".to_owned(),
            asked_with(good, "no_such_parameter=1"),
            field,
        );
    }
    wrongs
}

fn bad_ids() -> Vec<String> {
    let texts = [
        "x",
        "%00",
        "%0d%0aset-cookie:a=b",
        "ord_",
        "usr_01jd3q8m5ze2vtx0c9k4h7n6wb",
        "..%2f..%2fetc%2fpasswd",
        "1%27%20OR%201=1--",
        "%f0%9f%8e%ab",
        "%ff",
    ];
    let mut texts: Vec<String> = texts.map(str::to_owned).into();
    texts.push("x".repeat(10_000));
    texts
}

fn asked_with(good: &Asking, query: &str) -> Asking {
    Asking {
        path: format!("{}?{query}", good.path),
        ..good.clone()
    }
}

fn bad_queries(parameter: &Parameter) -> Vec<(String, Told)> {
    let name = &parameter.name;
    let refused = || Told::Field(name.clone());
    let with = |value: &str| format!("{name}={value}");
    let is_number = parameter.schema["type"]
        .as_str()
        .is_some_and(|kind| kind == "integer");
    let mut bad = vec![
        (with(&"x".repeat(10_000)), Told::NoFailure),
        (with("%00"), Told::NoFailure),
        (with("%ff"), Told::NoFailure),
        (with("%27%3B+DROP+TABLE+orders%3B--"), Told::NoFailure),
        (format!("{name}=1&{name}=2"), refused()),
    ];
    if is_number {
        for value in ["many", "1.5", "", "99999999999999999999"] {
            bad.push((with(value), refused()));
        }
    }
    if name == "limit" {
        for value in ["0", "-1", "101"] {
            bad.push((with(value), refused()));
        }
    }
    if name == "cursor" {
        for value in ["zz", "AQID", &"A".repeat(600)] {
            bad.push((with(value), refused()));
        }
    }
    bad
}

fn wrong_bodies(stage: &Stage, operation: &Operation, good: &Asking) -> Vec<Wrong> {
    let Some(body) = &operation.body else {
        return Vec::new();
    };
    let mut wrongs = wrong_wrappings(good);
    let example = good.json().unwrap_or_default();
    for place in places(&stage.contract.resolved(&body.schema), &example) {
        let label = if place.name.is_empty() {
            "body"
        } else {
            &place.name
        };
        let mut wrong = |what: String, body: &Value, told: Told| {
            let asking = good.clone().with_json(Some(body));
            wrongs.push(Wrong {
                what: format!("{label} {what}"),
                asking,
                told,
            });
        };
        if place.required && !place.name.is_empty() {
            wrong(
                "left out".to_owned(),
                &place.cut(&example),
                Told::Field(label.to_owned()),
            );
        }
        for (kind, value) in of_every_type() {
            let is_taken = place.takes(kind) || (kind == "integer" && place.takes("number"));
            if !is_taken {
                let body = place.put(&example, value);
                wrong(format!("as {kind}"), &body, Told::Field(label.to_owned()));
            }
        }
        let entry = example.pointer(&format!("{}/0", place.pointer));
        for (what, value, told) in beyond(&place, label, entry) {
            let told = match told {
                Told::NotBy(_) if BOUND_TO_OTHERS.contains(&(operation.name().as_str(), label)) => {
                    Told::NoFailure
                }
                told => told,
            };
            wrong(what, &place.put(&example, value), told);
        }
    }
    wrongs
}

fn of_every_type() -> [(&'static str, Value); 6] {
    [
        ("null", Value::Null),
        ("boolean", json!(true)),
        ("integer", json!(7)),
        ("string", json!("x")),
        ("array", json!([["x"]])),
        ("object", json!({"x": 1})),
    ]
}

/// Values of the right type that nobody can want.
///
/// `entry` is the first one of a list.
fn beyond(place: &Place, label: &str, entry: Option<&Value>) -> Vec<(String, Value, Told)> {
    let field = || Told::Field(label.to_owned());
    let mut values = Vec::new();
    let mut put =
        |what: &str, value: Value, told: Told| values.push((what.to_owned(), value, told));
    if place.takes("string") {
        if place.schema["enum"].is_array() {
            put("of no known word", json!("no such word"), field());
        }
        let longest = place
            .bound("maxLength")
            .map_or(LONG_CHARS, |most| most as usize + 1);
        put(
            "too long",
            json!("x".repeat(longest)),
            Told::FieldOrDenied(label.to_owned()),
        );
        let is_plain = !JUDGED.contains(&place.member())
            && place.schema["pattern"].is_null()
            && place.schema["format"].is_null();
        if let Some(most) = place.bound("maxLength")
            && is_plain
        {
            let longest = json!("x".repeat(most as usize));
            put("of its longest", longest, Told::NotBy(label.to_owned()));
        }
        put("with a NUL", json!("a\u{0}b"), Told::NoFailure);
        put("empty", json!(""), Told::NoFailure);
        put(
            "with a line's end",
            json!("a\r\nBcc: b@example.com"),
            Told::NoFailure,
        );
        put(
            "of a lone surrogate's place",
            json!("\u{fffd}\u{202e}"),
            Told::NoFailure,
        );
    }
    if place.takes("integer") {
        put("with a fraction", json!(1.5), field());
        put("beyond 64 bits", json!(1e30), field());
        for value in [i64::MAX, i64::MIN] {
            put(&format!("of {value}"), json!(value), Told::NoFailure);
        }
        if let Some(least) = place.bound("minimum") {
            put("below its minimum", json!(least - 1), field());
            let least = json!(least);
            put("of its minimum", least, Told::NotBy(label.to_owned()));
        }
        if let Some(most) = place.bound("maximum") {
            put("above its maximum", json!(most + 1), field());
            put("of its maximum", json!(most), Told::NotBy(label.to_owned()));
        }
    }
    if place.takes("array") {
        if place.bound("minItems").is_some_and(|least| least > 0) {
            put("empty", json!([]), field());
        }
        put("too long", json!(vec![1; LONG_ENTRIES]), Told::Refusal);
        if let (Some(most), Some(entry)) = (place.bound("maxItems"), entry) {
            let more = vec![entry.clone(); most as usize + 1];
            put("of one too many", json!(more), field());
        }
    }
    values
}

/// Bodies that are wrong whatever they were to say.
fn wrong_wrappings(good: &Asking) -> Vec<Wrong> {
    let raw = |bytes: Vec<u8>| Asking {
        body: Some(bytes),
        ..good.clone()
    };
    let said = good.body.clone().unwrap_or_default();
    let typed = |kind: &str| good.clone().with("content-type", kind);
    let malformed = || Told::Code(400, "malformed_body");
    let unsupported = || Told::Code(415, "unsupported_media_type");
    let nested = [vec![b'['; DEEP], vec![b']'; DEEP]].concat();
    let nested_in_member = [b"{\"x\":".to_vec(), nested.clone(), b"}".to_vec()].concat();
    let table = [
        (
            "half a body",
            raw(said[..said.len() / 2].to_vec()),
            malformed(),
        ),
        (
            "two bodies",
            raw([said.clone(), said.clone()].concat()),
            malformed(),
        ),
        ("no UTF-8", raw(b"{\"\xff\":1}".to_vec()), malformed()),
        ("NaN", raw(b"{\"x\":NaN}".to_vec()), Told::Refusal),
        ("a deep list", raw(nested), Told::Refusal),
        ("a deep member", raw(nested_in_member), Told::Refusal),
        (
            "too large",
            raw(vec![b' '; BODY_TOO_LARGE_BYTES]),
            Told::Code(413, "body_too_large"),
        ),
        ("text/plain", typed("text/plain"), unsupported()),
        (
            "a form",
            typed("application/x-www-form-urlencoded"),
            unsupported(),
        ),
        (
            "no content type",
            good.clone().without("content-type"),
            unsupported(),
        ),
        (
            "gzip",
            good.clone().with("content-encoding", "gzip"),
            unsupported(),
        ),
    ];
    table
        .into_iter()
        .map(|(what, asking, told)| Wrong {
            what: what.to_owned(),
            asking,
            told,
        })
        .collect()
}
