//! A receiver on loopback, which answers as a test says and remembers what it got.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Response, StatusCode},
};
use standardwebhooks::{HEADER_WEBHOOK_SIGNATURE, Webhook};
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    task::JoinHandle,
};

/// How long a test waits for a delivery that never comes.
const WAIT_MAX_SECS: u64 = 10;

/// Serves until it is dropped.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    state: Arc<Inbox>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Inbox {
    answers: Mutex<VecDeque<Answer>>,
    got: Mutex<Vec<Got>>,
    count: watch::Sender<usize>,
    release: Notify,
}

/// How it answers one delivery; 200 when nobody says.
pub(crate) enum Answer {
    Status(u16),
    /// With a header.
    With(u16, &'static str, String),
    /// Not before the test says so.
    Held(u16),
    /// A body without an end.
    Endless,
}

/// A delivery as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0").await
    }

    pub(crate) async fn start_at(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::<Inbox>::default();
        let router = Router::new().fallback(take).with_state(state.clone());
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("serves");
        });
        Self {
            address,
            state,
            serving,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hooks?of=us", self.address)
    }

    pub(crate) fn answers(&self, answers: impl IntoIterator<Item = Answer>) {
        lock(&self.state.answers).extend(answers);
    }

    /// From now on it answers 200.
    pub(crate) fn answers_nothing_more(&self) {
        lock(&self.state.answers).clear();
    }

    /// Lets a delivery be answered that is being held.
    pub(crate) fn release(&self) {
        self.state.release.notify_one();
    }

    /// All that arrived, once there is so much; panics when that does not come to be.
    pub(crate) async fn got(&self, count: usize) -> Vec<Got> {
        let mut counted = self.state.count.subscribe();
        let limit = Duration::from_secs(WAIT_MAX_SECS);
        let waited = tokio::time::timeout(limit, counted.wait_for(|got| *got >= count)).await;
        let got = self.so_far();
        assert!(
            waited.is_ok(),
            "{} deliveries, waited for {count}",
            got.len()
        );
        got
    }

    pub(crate) fn so_far(&self) -> Vec<Got> {
        lock(&self.state.got).clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        let value = value.unwrap_or_else(|| panic!("no header {name}: {:?}", self.headers));
        value.to_str().expect("a text")
    }

    pub(crate) fn id(&self) -> &str {
        self.header("webhook-id")
    }

    pub(crate) fn at_second(&self) -> i64 {
        let timestamp = self.header("webhook-timestamp");
        timestamp.parse().expect("seconds")
    }

    /// What the independent library says of it, at whatever time it was sent.
    pub(crate) fn is_signed_with(&self, secret: &str) -> bool {
        let library = Webhook::new(secret).expect("a secret of the standard's form");
        let wanted = library
            .sign(self.id(), self.at_second(), &self.body)
            .expect("a text");
        self.header(HEADER_WEBHOOK_SIGNATURE)
            .split(' ')
            .any(|signature| signature == wanted)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

async fn take(State(inbox): State<Arc<Inbox>>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let answer = lock(&inbox.answers).pop_front();
    lock(&inbox.got).push(Got { headers, body });
    inbox.count.send_modify(|count| *count += 1);
    let answered = |status: u16| {
        let mut response = Response::new(Body::from("what a receiver says is its own"));
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        response
    };
    match answer {
        None => answered(200),
        Some(Answer::Status(status)) => answered(status),
        Some(Answer::With(status, name, value)) => {
            let mut response = answered(status);
            let value = value.parse().expect("a header");
            response.headers_mut().insert(name, value);
            response
        }
        Some(Answer::Held(status)) => {
            inbox.release.notified().await;
            answered(status)
        }
        Some(Answer::Endless) => {
            let part = || Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 8 * 1024]));
            let body = futures::stream::repeat_with(part);
            Response::new(Body::from_stream(body))
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
