//! The public API as a test sees it: what was answered, to the byte.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use holdfast_kernel::RequestId;
use reqwest::Method;
use serde_json::Value;

/// How long one call may take; the server itself promises 5 s.
const CALL_MAX_SECS: u64 = 30;

/// Where somebody calls the public API.
#[derive(Clone, Debug)]
pub struct Door {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

/// A request in full.
#[derive(Clone, Debug)]
pub struct Asking {
    /// Any word.
    pub method: String,
    /// With its query.
    pub path: String,
    /// Beside the token.
    pub headers: Vec<(String, String)>,
    /// As it goes over the line.
    pub body: Option<Vec<u8>>,
}

/// What a call was answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// What was asked, for people who read a failure.
    asked: String,
    /// HTTP status.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub bytes: Vec<u8>,
}

impl Door {
    /// The API at `base`, for nobody in particular.
    pub fn new(base: &str) -> Self {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(CALL_MAX_SECS))
            .build()
            .expect("a client without TLS files has nothing to fail on");
        Self {
            http,
            base: base.to_owned(),
            token: None,
        }
    }

    /// The same caller on connections of its own: those of another runtime end with it.
    #[must_use]
    pub fn reconnected(&self) -> Self {
        Self {
            http: Self::new(&self.base).http,
            ..self.clone()
        }
    }

    /// The same API, for the bearer of a token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..self.clone()
        }
    }

    /// Reads.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(Method::GET, path, &[], None).await
    }

    /// Reads what has to be there.
    pub async fn read(&self, path: &str) -> anyhow::Result<Value> {
        self.get(path).await?.is(200)
    }

    /// Posts a wish that nobody repeats.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.post_keyed(path, &RequestId::generate().to_string(), body)
            .await
    }

    /// Posts a wish under a key.
    pub async fn post_keyed(&self, path: &str, key: &str, body: &Value) -> anyhow::Result<Answer> {
        let key = ("idempotency-key", key);
        self.send(Method::POST, path, &[key], Some(body)).await
    }

    /// Posts a wish without a key.
    pub async fn post_without_key(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.send(Method::POST, path, &[], Some(body)).await
    }

    /// Changes what still has this ETag.
    pub async fn patch_if(&self, path: &str, tag: &str, body: &Value) -> anyhow::Result<Answer> {
        let tag = ("if-match", tag);
        self.send(Method::PATCH, path, &[tag], Some(body)).await
    }

    /// Deletes what still has this ETag.
    pub async fn delete_if(&self, path: &str, tag: &str) -> anyhow::Result<Answer> {
        let tag = ("if-match", tag);
        self.send(Method::DELETE, path, &[tag], None).await
    }

    /// Puts, where keys are not asked for.
    pub async fn put(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.send(Method::PUT, path, &[], Some(body)).await
    }

    /// Changes, where keys are not asked for.
    pub async fn patch(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.send(Method::PATCH, path, &[], Some(body)).await
    }

    /// Deletes.
    pub async fn delete(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(Method::DELETE, path, &[], None).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let mut asking = Asking::new(method.as_str(), path);
        for (name, value) in headers {
            asking = asking.with(name, value);
        }
        self.ask(&asking.with_json(body)).await
    }

    /// Asks whatever is to be asked.
    pub async fn ask(&self, asking: &Asking) -> anyhow::Result<Answer> {
        let Asking { method, path, .. } = asking;
        let asked = format!("{method} {path}");
        let method = Method::from_bytes(method.as_bytes())?;
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        for (name, value) in &asking.headers {
            request = request.header(name, value);
        }
        if let Some(body) = &asking.body {
            request = request.body(body.clone());
        }
        let response = request.send().await.with_context(|| asked.clone())?;
        let status = response.status().as_u16();
        let headers = response.headers().iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes());
            (name.to_string(), value.into_owned())
        });
        let headers = headers.collect();
        let bytes = response
            .bytes()
            .await
            .with_context(|| asked.clone())?
            .to_vec();
        Ok(Answer {
            asked,
            status,
            headers,
            bytes,
        })
    }
}

impl Asking {
    /// A request with nothing but its method and path.
    pub fn new(method: &str, path: &str) -> Self {
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            body: None,
        }
    }

    /// With this header instead of the one of that name.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self = self.without(name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without the header of that name.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    /// With this body, where there is one.
    #[must_use]
    pub fn with_json(self, body: Option<&Value>) -> Self {
        match body {
            Some(body) => Self {
                body: Some(body.to_string().into_bytes()),
                ..self.with("content-type", "application/json")
            },
            None => self,
        }
    }

    /// The body, where it is JSON.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(self.body.as_deref()?).ok()
    }
}

impl Answer {
    /// The body of an answer that has to have this status.
    pub fn is(&self, status: u16) -> anyhow::Result<Value> {
        ensure!(
            self.status == status,
            "{}: got {} {}, wanted {status}",
            self.asked,
            self.status,
            String::from_utf8_lossy(&self.bytes)
        );
        if self.bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&self.bytes)
            .with_context(|| format!("{}: {}", self.asked, String::from_utf8_lossy(&self.bytes)))
    }

    /// The problem of an answer that has to refuse in this way.
    pub fn is_refused(&self, status: u16, code: &str) -> anyhow::Result<Value> {
        let problem = self.is(status)?;
        ensure!(
            problem["code"] == code && problem["status"] == status,
            "{}: got {problem}, wanted {code}",
            self.asked
        );
        ensure!(
            self.header("content-type") == Some("application/problem+json"),
            "{}: a problem of type {:?}",
            self.asked,
            self.header("content-type")
        );
        Ok(problem)
    }

    /// A header of the answer.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}
