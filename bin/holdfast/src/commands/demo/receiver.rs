//! What an integrator builds: an address that takes messages, and believes those that are signed.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use holdfast_kernel::RequestId;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{OnceCell, mpsc},
};

use crate::client::Client;

/// The network that the demo's receiver is in; deliveries go nowhere private that no setting allows.
pub(super) const NETWORK: &str = "127.0.0.1/32";
/// What the webhook is known by in the list of webhooks, where later demos find it.
const DESCRIPTION: &str = "the demo's receiver";
/// Messages that wait to be told of.
const WAITING_MAX_MESSAGES: usize = 1_000;
/// What it is told of: of each thing that happens the message that an integrator waits for.
const TYPES: [&str; 7] = [
    "user.registered",
    "order.confirmed",
    "order.payment_failed",
    "order.refunded",
    "order.shipped",
    "order.delivered",
    "review.published",
];

/// A receiver on loopback.
pub(super) struct Receiver {
    address: SocketAddr,
    secret: Arc<OnceCell<String>>,
    told: mpsc::Receiver<Value>,
}

/// What its handler needs.
#[derive(Clone)]
struct Inbox {
    secret: Arc<OnceCell<String>>,
    told: mpsc::Sender<Value>,
}

impl Receiver {
    /// Listens until the process ends.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("listen for webhooks on loopback")?;
        let address = listener.local_addr()?;
        let (sender, told) = mpsc::channel(WAITING_MAX_MESSAGES);
        let secret = Arc::<OnceCell<String>>::default();
        let inbox = Inbox {
            secret: secret.clone(),
            told: sender,
        };
        let router = Router::new().route("/", post(take)).with_state(inbox);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self {
            address,
            secret,
            told,
        })
    }

    /// Subscribes to [`TYPES`], in place of the receivers of earlier demos.
    pub(super) async fn subscribe(&self, admin: &Client) -> anyhow::Result<()> {
        let webhooks = admin.get("/v1/webhooks?limit=100").await?;
        for webhook in webhooks["data"].as_array().into_iter().flatten() {
            if webhook["description"] == DESCRIPTION {
                let id = webhook["id"].as_str().unwrap_or_default();
                admin.delete(&format!("/v1/webhooks/{id}")).await?;
            }
        }
        let body = json!({
            "url": format!("http://{}/", self.address),
            "types": TYPES,
            "description": DESCRIPTION,
        });
        let key = RequestId::generate();
        let made = admin.post("/v1/webhooks", &key, &body).await?;
        let secret = made["secret"].as_str();
        let secret = secret.context("a webhook's secret is told when it is made")?;
        self.secret.set(secret.to_owned())?;
        Ok(())
    }

    /// Waits for the next message that was signed for us, however long it takes.
    pub(super) async fn next(&mut self) -> Option<Value> {
        self.told.recv().await
    }
}

/// Believes a message that carries our secret's signature. One whose time is long past is left to a real receiver.
async fn take(State(inbox): State<Inbox>, headers: HeaderMap, body: String) -> StatusCode {
    let header = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default()
    };
    let secret = inbox.secret.get().map(String::as_str).unwrap_or_default();
    let is_signed = holdfast_webhooks::verify(
        secret,
        header("webhook-id"),
        header("webhook-timestamp"),
        &body,
        header("webhook-signature"),
    );
    if !is_signed {
        return StatusCode::UNAUTHORIZED;
    }
    match serde_json::from_str(&body) {
        Ok(message) => match inbox.told.try_send(message) {
            Ok(()) => StatusCode::NO_CONTENT,
            // It is sent again.
            Err(_) => StatusCode::SERVICE_UNAVAILABLE,
        },
        Err(_) => StatusCode::BAD_REQUEST,
    }
}
