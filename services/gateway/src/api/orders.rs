//! Purchases of goods.

use std::time::Duration;

use axum::{
    Extension,
    extract::{Path, State},
};
use holdfast_platform::identity::Caller;
use holdfast_proto::orders::v1::{self as pb, OrderStatus, payment_method_choice::Choice};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Answer,
    payments::{Method, MethodChoice, TOKEN_MAX_CHARS},
    promised,
    shape::{Money, Page, Slice, instant, moment, optional_moment, paged, word},
};
use crate::{
    Gateway, decode::Query, error::GatewayError, idempotency::Keyed, problems::Problem,
    reply::Reply,
};

/// How long a purchase may take to answer; it answers by itself after 2 s with the status it reached.
const PURCHASE_DEADLINE: Duration = Duration::from_secs(5);

/// How long a purchase stands in line before it is told to come back.
const PURCHASE_LINE_SECS: u64 = 10;

pub(super) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(list_orders, place_order))
        .routes(routes!(one_order))
        .routes(routes!(list_order_events))
        .routes(routes!(cancel_order))
        .routes(routes!(refund_order))
        .routes(routes!(resume_order))
        .routes(routes!(ship_order))
        .routes(routes!(deliver_order))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewOrder {
    /// 1 to 1,000; the same SKU twice is summed.
    #[schema(min_items = 1, max_items = 1000)]
    items: Vec<NewItem>,
    payment_method: MethodChoice,
    /// Not offered yet.
    address_id: Option<String>,
    /// Not offered yet.
    slot_id: Option<String>,
    /// Paid with beside the money, up to what the order costs: a point pays one minor unit.
    #[schema(minimum = 0)]
    points: Option<i64>,
    /// A code that takes something off; lower-case letters count as capitals.
    #[schema(pattern = "^[A-Za-z0-9._-]{3,32}$")]
    voucher: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewItem {
    #[schema(example = "TSHIRT-M", pattern = "^[A-Z0-9._@-]{1,64}$")]
    sku: String,
    #[schema(example = 2, minimum = 1, maximum = 1_000_000)]
    quantity: i64,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Cancellation {
    /// Up to 256 characters.
    #[serde(default)]
    #[schema(max_length = 256)]
    reason: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Resumption {
    /// What was done about it; up to 256 characters, kept in the order's history.
    #[serde(default)]
    #[schema(max_length = 256)]
    reason: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Shipping {
    /// Up to 64 characters.
    #[serde(default)]
    #[schema(example = "Yamato", max_length = 64)]
    carrier: String,
    /// Up to 128 characters.
    #[serde(default)]
    #[schema(example = "4812-3456-7890", max_length = 128)]
    tracking: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Arrival {}

/// For items, which go back to stock, or an amount, which brings nothing back; neither: all that is left.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewRefund {
    #[serde(default)]
    #[schema(max_items = 1000)]
    items: Vec<NewItem>,
    amount: Option<Money>,
    #[serde(default)]
    #[schema(max_length = 256)]
    reason: String,
}

#[derive(Serialize, ToSchema)]
struct Order {
    #[schema(example = "ord_01jd3q8m5ze2vtx0c9k4h7n6wb")]
    id: String,
    user_id: String,
    /// `checkout`, or `booking` when it mirrors one.
    source: String,
    #[schema(example = "confirmed")]
    status: String,
    items: Vec<Item>,
    /// The code that was used; null when none was.
    #[schema(example = "SUMMER10")]
    voucher: Option<String>,
    /// What it took off, all lines together.
    discount: Money,
    /// The sum of the lines, without their discounts.
    subtotal: Money,
    shipping: Money,
    tax: Money,
    points_used: i64,
    /// Of those, what went back.
    points_refunded: i64,
    /// subtotal + shipping + tax - points.
    total: Money,
    refunded: Money,
    currency: String,
    hold_expires_at: Option<String>,
    /// Null until one was begun.
    payment: Option<OrderPayment>,
    /// Null until it was shipped.
    delivery: Option<Delivery>,
    created_at: String,
    updated_at: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Delivery {
    /// Null when nobody said.
    #[schema(example = "Yamato")]
    carrier: Option<String>,
    /// Null when nobody said.
    #[schema(example = "4812-3456-7890")]
    tracking: Option<String>,
    shipped_at: String,
    /// Null until it arrived.
    delivered_at: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Item {
    sku: String,
    name: String,
    quantity: i64,
    unit_price: Money,
    /// Taken off the line by a voucher.
    discount: Money,
    /// `unit_price` × `quantity` − `discount`.
    total: Money,
    refunded_quantity: i64,
}

#[derive(Serialize, ToSchema)]
struct OrderPayment {
    id: String,
    #[schema(example = "captured")]
    status: String,
    /// What the customer must do.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_action: Option<Value>,
}

/// One line of an order's history.
#[derive(Serialize, ToSchema)]
struct OrderEvent {
    #[schema(example = "order.confirmed")]
    r#type: String,
    description: String,
    old_value: Option<String>,
    new_value: Option<String>,
    /// Null when the platform itself acted.
    user_id: Option<String>,
    created_at: String,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// Staff may name another user, or `*` for everybody.
    user_id: Option<String>,
    /// Such as `confirmed`.
    #[param(
        pattern = "^(pending|awaiting_payment|paid|confirmed|shipped|delivered|cancelled|payment_failed|expired|partially_refunded|refunded|needs_attention)?$"
    )]
    status: Option<String>,
    /// Made at that moment or later, such as `2026-12-01T00:00:00Z`.
    #[param(format = DateTime)]
    from: Option<String>,
    /// Made before that moment.
    #[param(format = DateTime)]
    to: Option<String>,
    /// With a line of this SKU.
    #[param(pattern = "^[A-Z0-9._@-]{0,64}$")]
    sku: Option<String>,
    /// 1 to 100; 20 when left out.
    limit: Option<i32>,
    /// `next_cursor` of the slice before.
    cursor: Option<String>,
}

/// Buys goods: answers when the purchase is confirmed, refused or needs the customer, or after 2 s as far as it came.
#[utoipa::path(post, path = "/v1/orders", tag = "orders", request_body = NewOrder,
    params(("idempotency-key" = String, Header)), responses((status = 201, body = Order)))]
async fn place_order(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Keyed { body, once }: Keyed<NewOrder>,
) -> Answer {
    body.refuse_what_is_not_offered()?;
    let mut request = caller.request(pb::PlaceOrderRequest {
        request_id: once.request_id.to_string(),
        fingerprint: once.fingerprint(),
        items: body.items.into_iter().map(Into::into).collect(),
        payment_method: Some(choice(body.payment_method)?),
        points: body.points.unwrap_or_default(),
        voucher: body.voucher,
    });
    request.set_timeout(PURCHASE_DEADLINE);
    let mut orders = gateway.peers.orders.clone();
    let places = gateway.purchases.clone();
    let effect = async move {
        let _place = place_among_purchases(&places).await?;
        let answer = orders.place_order(request).await?.into_inner();
        let order = order(answer.order)?;
        Ok(Reply::created(&order, &format!("/v1/orders/{}", order.id)))
    };
    gateway.replies.once(once, effect).await
}

/// Lists one's own orders, newest first; staff may ask for others'.
#[utoipa::path(get, path = "/v1/orders", tag = "orders", params(Wanted), responses((status = 200, body = Page<Order>)))]
async fn list_orders(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Query(wanted): Query<Wanted>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::ListOrdersRequest {
        status: wanted.status()?.into(),
        from: instant("from", wanted.from.as_deref())?,
        to: instant("to", wanted.to.as_deref())?,
        sku: wanted.sku.unwrap_or_default(),
        user_id: wanted.user_id.unwrap_or_default(),
        page: Some(Slice::new(wanted.limit, wanted.cursor).request()?),
    });
    let answer = gateway
        .peers
        .orders
        .clone()
        .list_orders(request)
        .await
        .map_err(|refused| paged(&refused))?
        .into_inner();
    let orders = answer.orders.into_iter().map(|found| order(Some(found)));
    let orders = orders.collect::<Result<_, _>>()?;
    Ok(Reply::ok(&Page::<Order>::new(orders, answer.page)))
}

/// Shows an order.
#[utoipa::path(get, path = "/v1/orders/{id}", tag = "orders", params(("id" = String, Path)), responses((status = 200, body = Order)))]
async fn one_order(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(order_id): Path<String>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::GetOrderRequest { order_id });
    let answer = gateway
        .peers
        .orders
        .clone()
        .get_order(request)
        .await?
        .into_inner();
    let version = answer.order.as_ref().map_or(0, |order| order.version);
    Ok(Reply::ok(&order(answer.order)?).tagged(version))
}

/// Lists what happened to an order, oldest first.
#[utoipa::path(get, path = "/v1/orders/{id}/events", tag = "orders", params(("id" = String, Path)),
    responses((status = 200, body = Page<OrderEvent>)))]
async fn list_order_events(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(order_id): Path<String>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::ListOrderEventsRequest { order_id });
    let answer = gateway
        .peers
        .orders
        .clone()
        .list_order_events(request)
        .await?
        .into_inner();
    let events = answer
        .events
        .into_iter()
        .map(event)
        .collect::<Result<_, _>>()?;
    Ok(Reply::ok(&Page::<OrderEvent>::new(events, None)))
}

/// Cancels an order whose delivery has not begun, and gives back what was paid.
#[utoipa::path(post, path = "/v1/orders/{id}/cancel", tag = "orders", request_body = Option<Cancellation>,
    params(("id" = String, Path), ("idempotency-key" = String, Header)), responses((status = 200, body = Order)))]
async fn cancel_order(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(order_id): Path<String>,
    Keyed { body, once }: Keyed<Cancellation>,
) -> Answer {
    let mut request = caller.request(pb::CancelOrderRequest {
        request_id: once.request_id.to_string(),
        fingerprint: once.fingerprint(),
        order_id,
        reason: body.reason,
    });
    request.set_timeout(PURCHASE_DEADLINE);
    let mut orders = gateway.peers.orders.clone();
    let effect = async move {
        let answer = orders.cancel_order(request).await?.into_inner();
        Ok(Reply::ok(&order(answer.order)?))
    };
    gateway.replies.once(once, effect).await
}

/// Gives money back, for items or as an amount.
#[utoipa::path(post, path = "/v1/orders/{id}/refunds", tag = "orders", request_body = NewRefund,
    params(("id" = String, Path), ("idempotency-key" = String, Header)), responses((status = 201, body = Order)))]
async fn refund_order(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(order_id): Path<String>,
    Keyed { body, once }: Keyed<NewRefund>,
) -> Answer {
    if body.amount.is_some() && !body.items.is_empty() {
        return Err(GatewayError::Field {
            field: "amount".to_owned(),
            text: "got it beside items, wanted one of both".to_owned(),
        }
        .into());
    }
    let mut request = caller.request(pb::RefundOrderRequest {
        request_id: once.request_id.to_string(),
        fingerprint: once.fingerprint(),
        order_id,
        items: body.items.into_iter().map(Into::into).collect(),
        amount: body.amount.map(Into::into),
        reason: body.reason,
    });
    request.set_timeout(PURCHASE_DEADLINE);
    let mut orders = gateway.peers.orders.clone();
    let effect = async move {
        let answer = orders.refund_order(request).await?.into_inner();
        let order = order(answer.order)?;
        Ok(Reply::created(&order, &format!("/v1/orders/{}", order.id)))
    };
    gateway.replies.once(once, effect).await
}

/// Sets an order going again that `needs_attention`, once what held it up was seen to.
#[utoipa::path(post, path = "/v1/orders/{id}/resume", tag = "orders", request_body = Option<Resumption>,
    params(("id" = String, Path), ("idempotency-key" = String, Header)), responses((status = 200, body = Order)))]
async fn resume_order(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(order_id): Path<String>,
    Keyed { body, once }: Keyed<Resumption>,
) -> Answer {
    let mut request = caller.request(pb::ResumeOrderRequest {
        request_id: once.request_id.to_string(),
        fingerprint: once.fingerprint(),
        order_id,
        reason: body.reason,
    });
    request.set_timeout(PURCHASE_DEADLINE);
    let mut orders = gateway.peers.orders.clone();
    let effect = async move {
        let answer = orders.resume_order(request).await?.into_inner();
        Ok(Reply::ok(&order(answer.order)?))
    };
    gateway.replies.once(once, effect).await
}

/// Notes that an order left the house.
#[utoipa::path(post, path = "/v1/orders/{id}/ship", tag = "orders", request_body = Option<Shipping>,
    params(("id" = String, Path), ("idempotency-key" = String, Header)), responses((status = 200, body = Order)))]
async fn ship_order(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(order_id): Path<String>,
    Keyed { body, once }: Keyed<Shipping>,
) -> Answer {
    let request = caller.request(pb::ShipOrderRequest {
        request_id: once.request_id.to_string(),
        fingerprint: once.fingerprint(),
        order_id,
        carrier: body.carrier,
        tracking: body.tracking,
    });
    let mut orders = gateway.peers.orders.clone();
    let effect = async move {
        let answer = orders.ship_order(request).await?.into_inner();
        Ok(Reply::ok(&order(answer.order)?))
    };
    gateway.replies.once(once, effect).await
}

/// Notes that an order that was shipped has arrived.
#[utoipa::path(post, path = "/v1/orders/{id}/deliver", tag = "orders", request_body = Option<Arrival>,
    params(("id" = String, Path), ("idempotency-key" = String, Header)), responses((status = 200, body = Order)))]
async fn deliver_order(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(order_id): Path<String>,
    Keyed {
        body: Arrival {},
        once,
    }: Keyed<Arrival>,
) -> Answer {
    let request = caller.request(pb::DeliverOrderRequest {
        request_id: once.request_id.to_string(),
        fingerprint: once.fingerprint(),
        order_id,
    });
    let mut orders = gateway.peers.orders.clone();
    let effect = async move {
        let answer = orders.deliver_order(request).await?.into_inner();
        Ok(Reply::ok(&order(answer.order)?))
    };
    gateway.replies.once(once, effect).await
}

/// Waits in line for a place among the purchases in hand.
///
/// A rush waits here, where waiting costs nothing, and not for the few connections of every service behind.
async fn place_among_purchases(places: &Semaphore) -> Result<SemaphorePermit<'_>, GatewayError> {
    let wait = Duration::from_secs(PURCHASE_LINE_SECS);
    match tokio::time::timeout(wait, places.acquire()).await {
        Ok(Ok(place)) => Ok(place),
        Ok(Err(_)) | Err(_) => Err(GatewayError::TooManyRunning),
    }
}

impl NewOrder {
    fn refuse_what_is_not_offered(&self) -> Result<(), GatewayError> {
        let refused = if self.address_id.is_some() {
            ("address_id", "addresses")
        } else if self.slot_id.is_some() {
            ("slot_id", "delivery slots")
        } else {
            return Ok(());
        };
        let (field, what) = refused;
        Err(GatewayError::NotAvailable { field, what })
    }
}

impl Wanted {
    fn status(&self) -> Result<OrderStatus, GatewayError> {
        let Some(text) = &self.status else {
            return Ok(OrderStatus::Unspecified);
        };
        let name = format!("{STATUS_PREFIX}{}", text.to_ascii_uppercase());
        OrderStatus::from_str_name(&name)
            .filter(|status| *status != OrderStatus::Unspecified)
            .ok_or_else(|| GatewayError::Field {
                field: "status".to_owned(),
                text: "wanted a status of orders, such as confirmed".to_owned(),
            })
    }
}

impl From<NewItem> for pb::ItemRequest {
    fn from(item: NewItem) -> Self {
        Self {
            sku: item.sku,
            quantity: item.quantity,
        }
    }
}

fn choice(choice: MethodChoice) -> Result<pb::PaymentMethodChoice, GatewayError> {
    let choice = match choice {
        MethodChoice::Saved(id) if id.len() > TOKEN_MAX_CHARS => {
            return Err(GatewayError::Field {
                field: "payment_method".to_owned(),
                text: format!("got {} characters, wanted pm_…", id.chars().count()),
            });
        }
        MethodChoice::Saved(id) => Choice::Id(id),
        MethodChoice::Inline(method) => {
            let Method { r#type, token } = method.read("payment_method.")?;
            Choice::Inline(pb::InlineMethod { r#type, token })
        }
    };
    Ok(pb::PaymentMethodChoice {
        choice: Some(choice),
    })
}

const STATUS_PREFIX: &str = "ORDER_STATUS_";

fn order(order: Option<pb::Order>) -> Result<Order, Problem> {
    let order = promised(order, "orders", "the order")?;
    let status = word(order.status().as_str_name(), STATUS_PREFIX);
    let money = |amount: Option<holdfast_proto::money::v1::Money>| {
        promised(amount, "orders", "an amount").map(Money::from)
    };
    let total = money(order.total)?;
    Ok(Order {
        status,
        items: order
            .items
            .into_iter()
            .map(item)
            .collect::<Result<_, _>>()?,
        voucher: told(order.voucher),
        discount: taken_off(order.discount, &total),
        subtotal: money(order.subtotal)?,
        shipping: money(order.shipping)?,
        tax: money(order.tax)?,
        points_used: order.points_used,
        points_refunded: order.points_refunded,
        refunded: money(order.refunded)?,
        currency: total.currency.clone(),
        total,
        hold_expires_at: optional_moment(order.hold_expires_at.as_ref()),
        payment: payment(order.payment_id, order.payment_status, &order.next_action)?,
        delivery: optional_moment(order.shipped_at.as_ref()).map(|shipped_at| Delivery {
            carrier: told(order.carrier),
            tracking: told(order.tracking),
            shipped_at,
            delivered_at: optional_moment(order.delivered_at.as_ref()),
        }),
        created_at: moment(order.created_at.as_ref(), "orders")?,
        updated_at: optional_moment(order.updated_at.as_ref()),
        id: order.id,
        user_id: order.user_id,
        source: order.source,
    })
}

fn item(item: pb::Item) -> Result<Item, Problem> {
    let total = promised(item.total, "orders", "a line's total")?.into();
    Ok(Item {
        sku: item.sku,
        name: item.name,
        quantity: item.quantity,
        unit_price: promised(item.unit_price, "orders", "a price")?.into(),
        discount: taken_off(item.discount, &total),
        total,
        refunded_quantity: item.refunded_quantity,
    })
}

/// Orders that were made before there were vouchers tell of none.
fn taken_off(discount: Option<holdfast_proto::money::v1::Money>, of: &Money) -> Money {
    discount.map_or_else(
        || Money {
            amount: 0,
            currency: of.currency.clone(),
        },
        Money::from,
    )
}

fn payment(id: String, status: String, next_action: &str) -> Result<Option<OrderPayment>, Problem> {
    if id.is_empty() {
        return Ok(None);
    }
    let next_action = match next_action {
        "" => None,
        json => {
            let parsed = serde_json::from_str(json).ok();
            Some(promised(parsed, "orders", "a next action that is JSON")?)
        }
    };
    Ok(Some(OrderPayment {
        id,
        status,
        next_action,
    }))
}

fn event(event: pb::OrderEvent) -> Result<OrderEvent, Problem> {
    Ok(OrderEvent {
        created_at: moment(event.created_at.as_ref(), "orders")?,
        r#type: event.r#type,
        description: event.description,
        old_value: told(event.old_value),
        new_value: told(event.new_value),
        user_id: told(event.user_id),
    })
}

/// What a peer leaves empty was not told.
fn told(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
