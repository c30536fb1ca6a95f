//! What clients send, taken strictly: an unknown name, a wrong type or too much of it is refused by its name.

mod objects;

use std::time::Duration;

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Request},
};
use bytes::Bytes;
use http::{HeaderMap, header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_path_to_error::Segment;

use self::objects::Named;
use crate::{error::GatewayError, problems::Problem};

/// Largest body taken.
pub(crate) const BODY_MAX_BYTES: usize = 1024 * 1024;
/// How long a body may take to arrive.
const BODY_READ_SECS: u64 = 10;
/// How much of a body that is too large is read away, and for how long.
const REFUSED_MAX_BYTES: usize = 4 * BODY_MAX_BYTES;
const REFUSED_READ_SECS: u64 = 2;
/// Longest text of a decoding error that is repeated to the client.
const ERROR_MAX_CHARS: usize = 240;

/// A JSON body, strictly. No body at all is an empty object.
pub(crate) struct Json<T>(pub(crate) T);

/// The query string, strictly.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = read_body(&parts.headers, body).await?;
        Ok(Self(json(&bytes)?))
    }
}

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let text = parts.uri.query().unwrap_or_default();
        refuse_nul(text)?;
        let axum::extract::Query(query) = axum::extract::Query::try_from_uri(&parts.uri)
            .map_err(|refused| query_refused(&refused, text))?;
        Ok(Self(query))
    }
}

/// Reads a body within its bounds of size and time.
pub(crate) async fn read_body(headers: &HeaderMap, body: Body) -> Result<Bytes, GatewayError> {
    let too_large = || GatewayError::BodyTooLarge {
        max_bytes: BODY_MAX_BYTES,
    };
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > BODY_MAX_BYTES as u64) {
        tokio::spawn(read_away(body));
        return Err(too_large());
    }
    // Unpacking is work that a few bytes could make without bound.
    let packed = headers.get(header::CONTENT_ENCODING);
    if let Some(encoding) = packed.filter(|encoding| *encoding != "identity") {
        return Err(GatewayError::ContentEncoding {
            got: shortened(&String::from_utf8_lossy(encoding.as_bytes())),
        });
    }
    let reading = Limited::new(body, BODY_MAX_BYTES).collect();
    let bytes = tokio::time::timeout(Duration::from_secs(BODY_READ_SECS), reading)
        .await
        .map_err(|_| GatewayError::BodyTooSlow {
            secs: BODY_READ_SECS,
        })?
        .map_err(|error| {
            if error.is::<LengthLimitError>() {
                too_large()
            } else {
                GatewayError::BodyBroken
            }
        })?
        .to_bytes();
    if bytes.is_empty() {
        return Ok(bytes);
    }
    let media_type = headers
        .get(header::CONTENT_TYPE)
        .map_or("", |value| value.to_str().unwrap_or_default());
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(GatewayError::MediaType {
            got: shortened(media_type),
        });
    }
    Ok(bytes)
}

/// Reads a refused body away, so much of it and so long: a client that is still writing would find the connection closed
/// before it has read why.
async fn read_away(body: Body) {
    let mut rest = Limited::new(body, REFUSED_MAX_BYTES);
    let reading = async { while let Some(Ok(_)) = rest.frame().await {} };
    // Whoever writes on after that is cut off.
    let limit = Duration::from_secs(REFUSED_READ_SECS);
    tokio::time::timeout(limit, reading).await.ok();
}

/// Reads a `T` out of a JSON object.
pub(crate) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, GatewayError> {
    let bytes = if bytes.is_empty() { b"{}" } else { bytes };
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(Named(&mut reader)).map_err(|error| {
        let path = error.path().clone();
        let inner = error.into_inner();
        if inner.is_data() || is_no_word(&inner, bytes) {
            field_refused(&path, &inner.to_string())
        } else {
            GatewayError::MalformedJson {
                text: shortened(&inner.to_string()),
            }
        }
    })?;
    reader.end().map_err(|error| GatewayError::MalformedJson {
        text: shortened(&error.to_string()),
    })?;
    Ok(value)
}

/// Whether the only thing wrong is that a word was wanted and another type is there, which the format takes for an error
/// of writing.
fn is_no_word(error: &serde_json::Error, bytes: &[u8]) -> bool {
    error.to_string().starts_with(NO_WORD) && serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
}

const NO_WORD: &str = "expected value";

/// No database takes the character of value zero in a text.
fn refuse_nul(query: &str) -> Result<(), GatewayError> {
    match query.split('&').find(|pair| pair.contains("%00")) {
        None => Ok(()),
        Some(pair) => Err(GatewayError::Field {
            field: shortened(pair.split('=').next().unwrap_or_default()),
            text: objects::NO_NUL.to_owned(),
        }),
    }
}

fn query_refused(refused: &axum::extract::rejection::QueryRejection, query: &str) -> GatewayError {
    let text = refused.body_text();
    let text = text
        .strip_prefix("Failed to deserialize query string: ")
        .unwrap_or(&text);
    let (field, text) = match text.split_once(": ") {
        Some((field, text)) if !field.contains(' ') => {
            (field.to_owned(), said_of_value(query, field, text))
        }
        _ => match named_in(text) {
            Some((name, text)) => (name, text),
            None => ("query".to_owned(), said(text)),
        },
    };
    GatewayError::Field { field, text }
}

/// Says what was got too, which the readers of single values leave out.
fn said_of_value(query: &str, field: &str, text: &str) -> String {
    let wanted = match text {
        "invalid digit found in string"
        | "cannot parse integer from empty string"
        | "number too large to fit in target type"
        | "number too small to fit in target type" => "a whole number",
        "provided string was not `true` or `false`" => "true or false",
        text => return said(text),
    };
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let got = pairs.find_map(|(name, value)| (name == field).then_some(value));
    shortened(&format!(
        "got {:?}, wanted {wanted}",
        got.unwrap_or_default()
    ))
}

/// Says in this API's manner what serde says in its own.
fn field_refused(path: &serde_path_to_error::Path, text: &str) -> GatewayError {
    // The place in the text is noise beside the name of the field.
    let text = text.rsplit_once(" at line ").map_or(text, |(text, _)| text);
    if let Some((name, said)) = named_in(text) {
        return GatewayError::Field {
            field: inside(path, &name),
            text: said,
        };
    }
    let field = match path.iter().next() {
        None => "body".to_owned(),
        Some(_) => path.to_string(),
    };
    GatewayError::Field {
        field,
        text: said(text),
    }
}

/// The field that serde's text itself names, and what is wrong with it.
fn named_in(text: &str) -> Option<(String, String)> {
    let quoted = |rest: &str| rest.split('`').next().map(ToOwned::to_owned);
    if let Some(rest) = text.strip_prefix("missing field `") {
        return Some((quoted(rest)?, "is missing".to_owned()));
    }
    if let Some(rest) = text.strip_prefix("duplicate field `") {
        return Some((quoted(rest)?, "is given twice".to_owned()));
    }
    let rest = text.strip_prefix("unknown field `")?;
    let known = rest
        .split_once("expected ")
        .map_or("none", |(_, known)| known.trim_start_matches("one of "));
    let known = known.replace('`', "");
    let text = format!("is no field here, wanted one of {known}");
    Some((shortened(&quoted(rest)?), shortened(&text)))
}

/// `items[0]` and `sku` are `items[0].sku`; a path that ends with the name already stays.
fn inside(path: &serde_path_to_error::Path, name: &str) -> String {
    let last = path.iter().next_back();
    match last {
        None => name.to_owned(),
        Some(Segment::Map { key }) if key == name => path.to_string(),
        Some(_) => format!("{path}.{name}"),
    }
}

fn said(text: &str) -> String {
    if text.starts_with(NO_WORD) {
        return "got another type, wanted one of the words for it".to_owned();
    }
    let text = match text.split_once(", expected ") {
        Some((got, wanted)) => {
            let got = got
                .trim_start_matches("invalid type: ")
                .trim_start_matches("unknown variant ")
                .trim_start_matches("invalid value: ");
            let got = match got {
                "sequence" => "a list",
                "map" => "an object",
                got => got,
            };
            let wanted = match wanted {
                "i64" | "i32" | "u32" | "u64" => "a whole number",
                "a string" => "a text",
                "bool" | "a boolean" => "true or false",
                "a sequence" => "a list",
                wanted if wanted.starts_with("struct ") || wanted == "a map" => "an object",
                wanted => wanted,
            };
            format!("got {got}, wanted {wanted}")
        }
        None => text.to_owned(),
    };
    shortened(&text)
}

/// Of a long text the middle is left out, for what was got stands before what is wanted.
fn shortened(text: &str) -> String {
    let chars = text.chars().count();
    if chars <= ERROR_MAX_CHARS {
        return text.to_owned();
    }
    let end = ERROR_MAX_CHARS / 2;
    let head: String = text.chars().take(end).collect();
    let tail: String = text.chars().skip(chars - end).collect();
    format!("{head}…{tail}")
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only whether it can be read is looked at")]
    struct Basket {
        items: Vec<Line>,
        note: Option<String>,
        gift: Option<Gift>,
        way: Option<Way>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only whether it can be read is looked at")]
    struct Gift {
        wrap: Option<Box<Wrap>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only whether it can be read is looked at")]
    struct Wrap {
        color: String,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    #[expect(dead_code, reason = "only whether it can be read is looked at")]
    enum Way {
        By { carrier: String },
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only whether it can be read is looked at")]
    struct Line {
        sku: String,
        quantity: i64,
    }

    fn refusal(body: &str) -> String {
        json::<Basket>(body.as_bytes()).expect_err(body).to_string()
    }

    #[test]
    fn a_body_that_is_refused_is_refused_by_the_name_of_its_field() {
        let table = [
            (
                r#"{"items":[{"sku":"A"}]}"#,
                "items[0].quantity: is missing",
            ),
            ("", "items: is missing"),
            (
                r#"{"items":[{"sku":"A","quantity":"2"}]}"#,
                "items[0].quantity: got string \"2\", wanted a whole number",
            ),
            (
                r#"{"items":[{"sku":"A","quantity":2.5}]}"#,
                "items[0].quantity: got floating point `2.5`, wanted a whole number",
            ),
            (
                r#"{"items":[{"sku":7,"quantity":1}]}"#,
                "items[0].sku: got integer `7`, wanted a text",
            ),
            (r#"{"items":{}}"#, "items: got an object, wanted a list"),
            (
                r#"{"items":[["A",1]]}"#,
                "items[0]: got a list, wanted an object",
            ),
            (
                r#"{"items":[{"sku":"A","quantity":1}],"gift":[null]}"#,
                "gift: got a list, wanted an object",
            ),
            (
                r#"{"items":[],"gift":{"wrap":["red"]}}"#,
                "gift.wrap: got a list, wanted an object",
            ),
            (
                r#"{"items":[],"way":{"by":["post"]}}"#,
                "way.by: got a list, wanted an object",
            ),
            (
                r#"{"items":[],"coupon":"X"}"#,
                "coupon: is no field here, wanted one of items, note, gift, way",
            ),
            (
                r#"{"items":[{"sku":"A","quantity":1,"price":0}]}"#,
                "items[0].price: is no field here, wanted one of sku or quantity",
            ),
            (
                r#"{"items":[],"way":7}"#,
                "way: got another type, wanted one of the words for it",
            ),
            (r#"{"items":[],"way":"fly"}"#, "way: got `fly`, wanted `by`"),
            (
                r#"{"items":[],"note":"a\u0000b"}"#,
                "note: got a text with a NUL character, wanted one without",
            ),
            (r#"{"items":[],"items":[]}"#, "items: is given twice"),
            ("[]", "body: got a list, wanted an object"),
        ];
        for (body, want) in table {
            assert_eq!(refusal(body), want, "{body}");
        }
    }

    #[test]
    fn what_is_not_json_is_told_apart_from_json_that_does_not_fit() {
        for body in ["{", "{} x", "{'items':[]}", &"{\"a\":".repeat(100_000)] {
            let refused = json::<serde_json::Value>(body.as_bytes()).expect_err("refused");
            assert!(
                matches!(refused, GatewayError::MalformedJson { .. }),
                "{refused}"
            );
        }
    }

    #[test]
    fn a_refusal_never_repeats_a_long_text() {
        let body = format!(
            r#"{{"items":[{{"sku":"A","quantity":"{}"}}]}}"#,
            "x".repeat(100_000)
        );
        let said = refusal(&body);
        assert!(
            said.len() < 1_000 && said.ends_with("wanted a whole number"),
            "{said}"
        );
    }
}
