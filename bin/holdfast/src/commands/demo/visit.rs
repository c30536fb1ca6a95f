//! Somebody who was never here before: registers, finds something by misspelt words, buys it, gets it delivered, and says
//! what it is like.

use anyhow::Context as _;
use holdfast_kernel::RequestId;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Awaited, log_in, money, place, say, until};
use crate::client::{Client, ClientError};

/// What the customer types, looking for an indigo jacket.
const MISSPELT: &str = "indgo jaket";

/// The whole visit, as its customer and the shop's staff live it; gives the messages that are to tell of it.
pub(super) async fn visit(url: &str, staff: &Client) -> anyhow::Result<Vec<Awaited>> {
    let nobody = Client::new(url);
    let secret = RequestId::generate().to_string();
    let email = format!("mei-{secret}@holdfast.example");
    let account = json!({"email": email, "password": secret, "name": "Mei"});
    let account = nobody
        .post("/v1/users/register", &RequestId::generate(), &account)
        .await?;
    let mei = log_in(&nobody, &email, &secret).await?;
    say(&format!("registered Mei, who is {}", text(&account["id"])));

    let product = find(&mei).await?;
    let order = buy(&mei, &product).await?;
    deliver(staff, &order).await?;
    review(&mei, &product).await?;
    Ok(vec![
        Awaited::of("user.registered", &account["id"]),
        Awaited::of("order.confirmed", &order["id"]),
        Awaited::of("order.shipped", &order["id"]),
        Awaited::of("order.delivered", &order["id"]),
        Awaited::of("review.published", &product["id"]),
    ])
}

/// The product that comes first for the misspelt words.
async fn find(customer: &Client) -> anyhow::Result<Value> {
    let words = MISSPELT.replace(' ', "+");
    let found = customer
        .get(&format!("/v1/products?q={words}&limit=1&facets=false"))
        .await?;
    let product = &found["data"][0];
    let name = product["name"].as_str().context("nothing is found")?;
    say(&format!("found      {name}, looking for {MISSPELT:?}"));
    Ok(product.clone())
}

/// One of it, in the first form there is any of; gives the order once it is confirmed.
async fn buy(customer: &Client, product: &Value) -> anyhow::Result<Value> {
    let variants = product["variants"].as_array().into_iter().flatten();
    let mut left = variants.filter(|variant| variant["available"].as_i64() > Some(0));
    let variant = left
        .next()
        .context("what the demo buys is sold out; start with another --data-dir")?;
    let order = place(customer, text(&variant["sku"]), 1, "sandbox_ok").await?;
    let path = format!("/v1/orders/{}", text(&order["id"]));
    let order = until("the order is confirmed", async || {
        let order = customer.get(&path).await?;
        Ok((order["status"] == "confirmed").then_some(order))
    })
    .await?;
    say(&format!(
        "bought     1 × {} for {}: order {} is confirmed",
        text(&product["name"]),
        money(&order["total"]),
        text(&order["id"]),
    ));
    Ok(order)
}

async fn deliver(staff: &Client, order: &Value) -> anyhow::Result<()> {
    let id = text(&order["id"]);
    let parcel = json!({"carrier": "Yamato", "tracking": "4812"});
    for (step, body) in [("ship", parcel), ("deliver", json!({}))] {
        let path = format!("/v1/orders/{id}/{step}");
        staff.post(&path, &RequestId::generate(), &body).await?;
    }
    say(&format!("delivered  order {id}, shipped with Yamato"));
    Ok(())
}

/// Five stars, and what they make of the product's rating.
async fn review(customer: &Client, product: &Value) -> anyhow::Result<()> {
    let path = format!("/v1/products/{}", text(&product["id"]));
    let before = customer.get(&path).await?["rating"]["count"].as_i64();
    let opinion = json!({
        "rating": 5,
        "title": "It fades with me",
        "text": "Worn every day since it came.",
    });
    let (reviews, key) = (format!("{path}/reviews"), RequestId::generate());
    until("who got it delivered may review it", async || {
        match customer.post(&reviews, &key, &opinion).await {
            Ok(review) => Ok(Some(review)),
            // The news of the delivery is on its way.
            Err(ClientError::Refused(problem)) if problem.code == "not_a_buyer" => Ok(None),
            Err(error) => Err(error.into()),
        }
    })
    .await?;
    let written_at = Instant::now();
    let rating = until("the product shows the review", async || {
        let rating = customer.get(&path).await?["rating"].clone();
        Ok((rating["count"].as_i64() > before).then_some(rating))
    })
    .await?;
    say(&format!(
        "reviewed   {} with 5 stars; {} ms later it shows {:.1} from {} in all",
        text(&product["name"]),
        written_at.elapsed().as_millis(),
        rating["average"].as_f64().unwrap_or_default(),
        rating["count"],
    ));
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
