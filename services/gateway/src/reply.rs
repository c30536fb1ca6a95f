//! An answer as bytes: what is sent is what is stored.

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};

use crate::{error::GatewayError, problems::Problem};

/// A status, the headers that belong to the answer itself, and the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

/// What stands before the body in a stored reply, on a line of its own.
#[derive(Serialize, Deserialize)]
struct Head {
    status: u16,
    headers: Vec<(String, String)>,
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

impl Reply {
    /// 200 with this body.
    pub(crate) fn ok<T: Serialize>(body: &T) -> Self {
        Self::json(StatusCode::OK, body)
    }

    /// 201 with this body, which can be read again at `location`.
    pub(crate) fn created<T: Serialize>(body: &T, location: &str) -> Self {
        let mut reply = Self::json(StatusCode::CREATED, body);
        if let Ok(location) = HeaderValue::from_str(location) {
            reply.headers.push((header::LOCATION, location));
        }
        reply
    }

    /// 204.
    pub(crate) fn nothing() -> Self {
        Self {
            status: StatusCode::NO_CONTENT,
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    /// 304: the client has it.
    pub(crate) fn unchanged() -> Self {
        Self {
            status: StatusCode::NOT_MODIFIED,
            ..Self::nothing()
        }
    }

    /// With the version of what is shown, which `If-Match` compares.
    pub(crate) fn tagged(mut self, version: i64) -> Self {
        let tag = HeaderValue::from_str(&format!("\"{version}\"")).expect("digits are ASCII");
        self.headers.push((header::ETAG, tag));
        self
    }

    /// The same as one run of bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let head = Head {
            status: self.status.as_u16(),
            headers: self
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect(),
        };
        let mut bytes = serde_json::to_vec(&head).expect("texts and a number are JSON");
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// The reply that [`to_bytes`](Self::to_bytes) wrote.
    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Result<Self, GatewayError> {
        let unreadable = || GatewayError::Reply { what: "read back" };
        let bytes = Bytes::from(bytes);
        let end = bytes
            .iter()
            .position(|&byte| byte == b'\n')
            .ok_or_else(unreadable)?;
        let head: Head = serde_json::from_slice(&bytes[..end]).map_err(|_| unreadable())?;
        let headers = head
            .headers
            .iter()
            .map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)))
            .collect::<Option<_>>()
            .ok_or_else(unreadable)?;
        Ok(Self {
            status: StatusCode::from_u16(head.status).map_err(|_| unreadable())?,
            headers,
            body: bytes.slice(end + 1..),
        })
    }

    fn json<T: Serialize>(status: StatusCode, body: &T) -> Self {
        let body = serde_json::to_vec(body).expect("answers have texts as keys");
        Self {
            status,
            headers: vec![(header::CONTENT_TYPE, JSON)],
            body: body.into(),
        }
    }
}

impl From<&Problem> for Reply {
    fn from(problem: &Problem) -> Self {
        Self {
            status: problem.status(),
            headers: vec![(header::CONTENT_TYPE, Problem::CONTENT_TYPE)],
            body: problem.body().into(),
        }
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.body).into_response();
        // axum guesses a content type for bytes; ours are the only ones.
        response.headers_mut().remove(header::CONTENT_TYPE);
        response.headers_mut().extend(self.headers);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_reads_back_as_it_was_written() {
        for reply in [
            Reply::created(&serde_json::json!({"id": "ord_1\n"}), "/v1/orders/ord_1").tagged(7),
            Reply::ok(&serde_json::json!([])),
            Reply::nothing(),
        ] {
            assert_eq!(
                Reply::from_bytes(reply.to_bytes()).expect("readable"),
                reply
            );
        }
    }
}
