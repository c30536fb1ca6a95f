//! What a client looked at before it changes it: the version that its `If-Match` names, as an ETag of ours gave it.

use axum::extract::FromRequestParts;
use http::{HeaderMap, header, request::Parts};

use crate::{api::PATH_SHOWN_CHARS, error::GatewayError, problems::Problem};

/// The version that a request names; one that names none is refused (428).
pub(crate) struct Expected(pub(crate) i64);

/// The version that a request names; 0 where it takes whatever stands.
pub(crate) struct ExpectedIfAny(pub(crate) i64);

impl<S: Sync> FromRequestParts<S> for Expected {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let named = if_match(&parts.headers)?;
        Ok(named.map(Self).ok_or(GatewayError::IfMatchRequired)?)
    }
}

impl<S: Sync> FromRequestParts<S> for ExpectedIfAny {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self(if_match(&parts.headers)?.unwrap_or_default()))
    }
}

fn if_match(headers: &HeaderMap) -> Result<Option<i64>, GatewayError> {
    let Some(value) = headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    text.trim()
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .and_then(|digits| digits.parse().ok())
        .filter(|version| *version > 0)
        .map(Some)
        .ok_or_else(|| GatewayError::IfMatchInvalid {
            got: text.chars().take(PATH_SHOWN_CHARS).collect(),
        })
}
