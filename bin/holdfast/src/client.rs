//! The public API as the binary's own commands use it: what they do, any client could do.

use std::{fmt, time::Duration};

use holdfast_kernel::RequestId;
use serde_json::Value;

/// How long one call may take; a purchase answers within 5 s whatever happens.
const CALL_TIMEOUT_SECS: u64 = 30;

/// A caller of the public API, nobody in particular until it has a token.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

/// Why a call gave no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server could not be reached or broke off.
    #[error("{url}: {source}")]
    Transport {
        /// What was called.
        url: String,
        /// What went wrong.
        source: reqwest::Error,
    },
    /// The server refused.
    #[error(transparent)]
    Refused(#[from] Box<Problem>),
}

/// A refusal as the server told it (RFC 9457).
#[derive(Debug, Clone, thiserror::Error)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// The stable name of the refusal, such as `out_of_stock`.
    pub code: String,
    /// The text for people.
    pub detail: String,
    /// The whole document.
    pub document: Value,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status, self.code, self.detail)
    }
}

impl Client {
    /// A caller of the server at `base`, such as `http://127.0.0.1:8080`.
    pub fn new(base: &str) -> Self {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(CALL_TIMEOUT_SECS))
            .build()
            .expect("a client without TLS files has nothing to fail on");
        Self {
            http,
            base: base.trim_end_matches('/').to_owned(),
            token: None,
        }
    }

    /// The same caller, logged in.
    #[must_use]
    pub fn with_token(&self, token: impl Into<String>) -> Self {
        Self {
            token: Some(token.into()),
            ..self.clone()
        }
    }

    /// Reads.
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        let request = self.http.get(self.url(path));
        self.send(path, request).await
    }

    /// Makes something; `key` meets the same call made before. Calls that take no key ignore it.
    pub async fn post(
        &self,
        path: &str,
        key: &RequestId,
        body: &Value,
    ) -> Result<Value, ClientError> {
        let request = self
            .http
            .post(self.url(path))
            .header("idempotency-key", key.to_string())
            .json(body);
        self.send(path, request).await
    }

    /// Reads something with the ETag that tells this state of it from others.
    pub async fn get_tagged(&self, path: &str) -> Result<(Value, String), ClientError> {
        let request = self.http.get(self.url(path));
        self.send_tagged(path, request).await
    }

    /// Puts something in place of what is still in the state of this ETag, and gives its new one too.
    pub async fn put_tagged(
        &self,
        path: &str,
        tag: &str,
        body: &Value,
    ) -> Result<(Value, String), ClientError> {
        let request = self.http.put(self.url(path));
        let request = request.header("if-match", tag).json(body);
        self.send_tagged(path, request).await
    }

    /// Removes.
    pub async fn delete(&self, path: &str) -> Result<Value, ClientError> {
        let request = self.http.delete(self.url(path));
        self.send(path, request).await
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn send(
        &self,
        path: &str,
        request: reqwest::RequestBuilder,
    ) -> Result<Value, ClientError> {
        Ok(self.send_tagged(path, request).await?.0)
    }

    async fn send_tagged(
        &self,
        path: &str,
        request: reqwest::RequestBuilder,
    ) -> Result<(Value, String), ClientError> {
        let broke = |source: reqwest::Error| ClientError::Transport {
            url: self.url(path),
            source: source.without_url(),
        };
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let response = request.send().await.map_err(broke)?;
        let status = response.status();
        let tag = response.headers().get("etag");
        let tag = tag.and_then(|tag| tag.to_str().ok()).unwrap_or_default();
        let tag = tag.to_owned();
        let bytes = response.bytes().await.map_err(broke)?;
        let document: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok((document, tag));
        }
        let text = |member: &str| document[member].as_str().unwrap_or_default().to_owned();
        Err(ClientError::Refused(Box::new(Problem {
            status: status.as_u16(),
            code: text("code"),
            detail: text("detail"),
            document,
        })))
    }
}
