//! Those outside are told what happened, through the public door and back.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use holdfast_e2e::wait;
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::shop::{SETTLE_MAX_SECS, Shop, buy, id_of, settles};

in_every_topology! {
    a_purchase_is_told_to_who_subscribed_and_kept_for_who_fetches,
}

const LIMIT: Duration = Duration::from_secs(SETTLE_MAX_SECS);

async fn a_purchase_is_told_to_who_subscribed_and_kept_for_who_fetches(
    shop: &Shop,
) -> anyhow::Result<()> {
    let receiver = Receiver::start().await?;
    let body = json!({"url": format!("http://{}/", receiver.address), "types": ["order.*"]});
    let refused = shop.staff.post("/v1/webhooks", &body).await?;
    refused.is_refused(403, "forbidden")?;
    let made = shop
        .admin
        .post_keyed("/v1/webhooks", "told-once", &body)
        .await?;
    let again = shop
        .admin
        .post_keyed("/v1/webhooks", "told-once", &body)
        .await?;
    assert_eq!(made.bytes, again.bytes);
    let webhook = made.is(201)?;
    let path = format!(
        "/v1/webhooks/{}",
        webhook["id"].as_str().unwrap_or_default()
    );
    let shown = shop.admin.read(&path).await?;
    assert_eq!(shown["secret"], Value::Null, "{shown}");
    let library = Webhook::new(webhook["secret"].as_str().unwrap_or_default())?;

    let (buyer, sku) = (shop.buyer().await?, shop.sell(1).await?);
    let order = id_of(&buy(&buyer, &sku, 1, "sandbox_ok").await?.is(201)?)?;
    settles(&buyer, &order, "confirmed").await?;
    let got = wait::until("the webhook of the order", LIMIT, async || {
        let confirmed = |got: &Got| {
            let message = got.json();
            message["type"] == "order.confirmed" && message["subject"] == order.as_str()
        };
        Ok(receiver.got().into_iter().find(confirmed))
    })
    .await?;
    library.verify(&got.body, &got.headers)?;
    let tampered = got.body.iter().rev().copied().collect::<Vec<u8>>();
    assert!(library.verify(&tampered, &got.headers).is_err());
    let message = got.json();
    let id = message["id"].as_str().unwrap_or_default();
    assert_eq!(got.headers["webhook-id"], id);

    // Others buy in this shop too: what was sent of this order is among what was tried.
    let tries = wait::until("the delivery in the list", LIMIT, async || {
        let tries = shop
            .admin
            .read(&format!("{path}/deliveries?limit=100"))
            .await?;
        let tries = tries["data"].as_array().cloned().unwrap_or_default();
        Ok(tries
            .into_iter()
            .find(|one| one["message_id"] == id && one["status_code"] == 204))
    })
    .await?;
    assert_eq!(tries["state"], "delivered", "{tries}");

    let mut after = String::new();
    let fetched = wait::until("the message in the feed", LIMIT, async || {
        let page = format!("/v1/messages?limit=100&types=order.confirmed{after}");
        let page = shop.admin.read(&page).await?;
        after = format!(
            "&after={}",
            page["next_cursor"].as_str().unwrap_or_default()
        );
        let data = page["data"].as_array().cloned().unwrap_or_default();
        Ok(data.into_iter().find(|one| one["id"] == id))
    })
    .await?;
    assert_eq!(fetched, message);

    let again = json!({"message_id": id});
    let replayed = shop.admin.post(&format!("{path}/replay"), &again).await?;
    assert_eq!(replayed.is(200)?["scheduled"], 1);
    wait::until("the webhook again", LIMIT, async || {
        let same = receiver
            .got()
            .into_iter()
            .filter(|got| got.headers["webhook-id"] == id);
        Ok((same.count() == 2).then_some(()))
    })
    .await?;

    shop.admin.delete(&path).await?.is(204)?;
    let gone = shop.admin.get(&path).await?;
    gone.is_refused(404, "unknown_webhook")?;
    Ok(())
}

/// An integrator's server on loopback.
struct Receiver {
    address: SocketAddr,
    inbox: Arc<Mutex<Vec<Got>>>,
    serving: JoinHandle<()>,
}

#[derive(Clone)]
struct Got {
    headers: HeaderMap,
    body: Bytes,
}

impl Receiver {
    async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let inbox = Arc::<Mutex<Vec<Got>>>::default();
        let router = Router::new().fallback(take).with_state(inbox.clone());
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("serves");
        });
        Ok(Self {
            address,
            inbox,
            serving,
        })
    }

    fn got(&self) -> Vec<Got> {
        let inbox = self.inbox.lock();
        inbox.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

async fn take(
    State(inbox): State<Arc<Mutex<Vec<Got>>>>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let mut inbox = inbox.lock().unwrap_or_else(PoisonError::into_inner);
    inbox.push(Got { headers, body });
    StatusCode::NO_CONTENT
}
