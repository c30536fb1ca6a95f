//! The door: decode, authorise, act, encode. What takes more than a screen has a file named for its verb.

mod cancel;
mod hand_over;
mod place;
mod refund;
mod resume;
mod vouch;

use std::{sync::Arc, time::Duration};

use holdfast_kernel::{
    Id, Money, RequestId, Sku, Timestamp, id,
    page::{self, PageToken},
    time::to_micros,
};
use holdfast_platform::{
    database,
    identity::{Access, AccessTable, Caller, Role},
    wire,
};
use holdfast_proto::{
    money::v1 as money_pb,
    orders::v1::{self as pb, orders_service_server::OrdersService},
    page::v1 as page_pb,
};
use tokio::time::{self, Instant};
use tonic::{Request, Response, Status as GrpcStatus};

use crate::{
    checkout::Desk,
    domain::{Basket, Delivery, Order, Status},
    error::OrdersError,
    store::{self, ListPlace, Wanted},
    vouchers,
};

/// Who may call what.
pub const ACCESS: AccessTable = &[
    ("PlaceOrder", Access::User),
    ("GetOrder", Access::UserOr(&["realtime"])),
    ("ListOrders", Access::User),
    ("ListOrderEvents", Access::User),
    ("CancelOrder", Access::User),
    ("RefundOrder", Access::Staff),
    ("ResumeOrder", Access::Staff),
    ("ShipOrder", Access::Staff),
    ("DeliverOrder", Access::Staff),
    ("CreateVoucher", Access::Staff),
    ("GetVoucher", Access::Staff),
    ("ListVouchers", Access::Staff),
    ("ChangeVoucher", Access::Staff),
];

const FINGERPRINT_MAX_BYTES: usize = 64;
const REASON_MAX_CHARS: usize = 256;
/// Lines of history one answer holds; an order has a dozen.
const EVENTS_MAX_ENTRIES: i64 = 1_000;
/// How often a call that waits for a purchase looks how it stands.
const WAIT_POLL_MILLIS: u64 = 50;

pub(crate) struct Api {
    desk: Arc<Desk>,
}

impl Api {
    pub(crate) fn new(desk: Arc<Desk>) -> Self {
        Self { desk }
    }

    /// The order, if it exists for this caller.
    async fn visible(&self, caller: &Caller, order: &str) -> Result<Order, OrdersError> {
        let id: Id<id::Order> = order.parse().map_err(|_| OrdersError::UnknownOrder)?;
        let mut db = database::acquire(&self.desk.context.database).await?;
        let order = store::find_order(&mut db, id).await?;
        order
            .filter(|order| caller.may_see(order.user))
            .ok_or(OrdersError::UnknownOrder)
    }

    /// The same for somebody who only looks: a buyer is shown what is kept in memory, if it is theirs.
    async fn shown_to(&self, caller: &Caller, order: &str) -> Result<Order, OrdersError> {
        if caller.peer().is_some() || caller.has(Role::Staff) {
            return self.visible(caller, order).await;
        }
        let id: Id<id::Order> = order.parse().map_err(|_| OrdersError::UnknownOrder)?;
        let order = self
            .desk
            .shown
            .find(id, &self.desk.context.database)
            .await?;
        order
            .filter(|order| caller.may_see(order.user))
            .map(|order| (*order).clone())
            .ok_or(OrdersError::UnknownOrder)
    }

    async fn read(&self, order: Id<id::Order>) -> Result<Order, OrdersError> {
        let mut db = database::acquire(&self.desk.context.database).await?;
        let order = store::find_order(&mut db, order).await?;
        order.ok_or(OrdersError::UnknownOrder)
    }

    /// The order once `is_answer` holds, or as it stands at `until`.
    async fn wait(
        &self,
        order: Id<id::Order>,
        until: Instant,
        is_answer: impl Fn(&Order) -> bool,
    ) -> Result<Order, OrdersError> {
        loop {
            let order = self.read(order).await?;
            if is_answer(&order) || Instant::now() >= until {
                return Ok(order);
            }
            time::sleep(Duration::from_millis(WAIT_POLL_MILLIS)).await;
        }
    }

    fn answer_by(&self) -> Instant {
        Instant::now() + Duration::from_millis(self.desk.settings.answer_millis)
    }
}

#[tonic::async_trait]
impl OrdersService for Api {
    /// Buys goods.
    async fn place_order(
        &self,
        request: Request<pb::PlaceOrderRequest>,
    ) -> Result<Response<pb::PlaceOrderResponse>, GrpcStatus> {
        let caller = Caller::of(&request)?;
        let wish = place::PlaceOrder::parse(request.into_inner())?;
        let order = self.place(&caller, wish).await?;
        Ok(Response::new(pb::PlaceOrderResponse {
            order: Some(encode(order)?),
        }))
    }

    /// An order as it stands; another's does not exist for a user.
    async fn get_order(
        &self,
        request: Request<pb::GetOrderRequest>,
    ) -> Result<Response<pb::GetOrderResponse>, GrpcStatus> {
        let caller = Caller::of(&request)?;
        let order = self
            .shown_to(&caller, &request.into_inner().order_id)
            .await?;
        Ok(Response::new(pb::GetOrderResponse {
            order: Some(encode(order)?),
        }))
    }

    /// The caller's orders, newest first; staff may ask for another user's or, with `*`, for all.
    async fn list_orders(
        &self,
        request: Request<pb::ListOrdersRequest>,
    ) -> Result<Response<pb::ListOrdersResponse>, GrpcStatus> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let user = match request.user_id.as_str() {
            "" => Some(caller.user()?),
            "*" if caller.has(Role::Staff) => None,
            text => Some(
                (text.parse().ok())
                    .filter(|user| caller.may_see(*user))
                    .ok_or(OrdersError::UnknownUser)?,
            ),
        };
        let wanted = Wanted {
            user,
            status: decode_status(request.status)?,
            sku: parse_sku_wanted(&request.sku)?,
            from: bound(request.from.as_ref(), Timestamp::UNIX_EPOCH),
            to: bound(request.to.as_ref(), Timestamp::MAX),
        };
        let asked = request.page.unwrap_or_default();
        let size = page::page_size(asked.size).map_err(OrdersError::from)?;
        let place: Option<ListPlace> = page::read_token(&asked.token).map_err(OrdersError::from)?;

        let mut db = database::acquire(&self.desk.context.database).await?;
        let mut orders = store::list_orders(&mut db, &wanted, place, size + 1).await?;
        drop(db);
        let more = orders.len() as i64 > size;
        orders.truncate(size as usize);
        let next_token = orders
            .last()
            .filter(|_| more)
            .map(|last| PageToken::after(&(last.created_at.as_microsecond(), last.id.uuid())))
            .unwrap_or_default()
            .into_text();
        Ok(Response::new(pb::ListOrdersResponse {
            orders: orders.into_iter().map(encode).collect::<Result<_, _>>()?,
            page: Some(page_pb::PageInfo { next_token }),
        }))
    }

    /// The order's history, oldest first.
    async fn list_order_events(
        &self,
        request: Request<pb::ListOrderEventsRequest>,
    ) -> Result<Response<pb::ListOrderEventsResponse>, GrpcStatus> {
        let caller = Caller::of(&request)?;
        let order = self
            .visible(&caller, &request.into_inner().order_id)
            .await?;
        let mut db = database::acquire(&self.desk.context.database).await?;
        let events = store::list_events(&mut db, order.id, EVENTS_MAX_ENTRIES).await?;
        Ok(Response::new(pb::ListOrderEventsResponse {
            events: events.into_iter().map(encode_event).collect(),
        }))
    }

    /// Cancels before delivery begins; cancelling twice is cancelling once.
    async fn cancel_order(
        &self,
        request: Request<pb::CancelOrderRequest>,
    ) -> Result<Response<pb::CancelOrderResponse>, GrpcStatus> {
        let caller = Caller::of(&request)?;
        let wish = cancel::CancelOrder::parse(request.into_inner())?;
        let order = self.cancel(&caller, wish).await?;
        Ok(Response::new(pb::CancelOrderResponse {
            order: Some(encode(order)?),
        }))
    }

    /// Gives money back, and with items units.
    async fn refund_order(
        &self,
        request: Request<pb::RefundOrderRequest>,
    ) -> Result<Response<pb::RefundOrderResponse>, GrpcStatus> {
        let caller = Caller::of(&request)?;
        let order = self.refund(&caller, request.into_inner()).await?;
        Ok(Response::new(pb::RefundOrderResponse {
            order: Some(encode(order)?),
        }))
    }

    /// Notes that an order left the house.
    async fn ship_order(
        &self,
        request: Request<pb::ShipOrderRequest>,
    ) -> Result<Response<pb::ShipOrderResponse>, GrpcStatus> {
        let caller = Caller::of(&request)?;
        let word = hand_over::HandOver::parse_ship(request.into_inner())?;
        let order = self.hand_over(&caller, word).await?;
        Ok(Response::new(pb::ShipOrderResponse {
            order: Some(encode(order)?),
        }))
    }

    /// Notes that an order arrived.
    async fn deliver_order(
        &self,
        request: Request<pb::DeliverOrderRequest>,
    ) -> Result<Response<pb::DeliverOrderResponse>, GrpcStatus> {
        let caller = Caller::of(&request)?;
        let word = hand_over::HandOver::parse_deliver(&request.into_inner())?;
        let order = self.hand_over(&caller, word).await?;
        Ok(Response::new(pb::DeliverOrderResponse {
            order: Some(encode(order)?),
        }))
    }

    /// Sets an order going again that needs attention.
    async fn resume_order(
        &self,
        request: Request<pb::ResumeOrderRequest>,
    ) -> Result<Response<pb::ResumeOrderResponse>, GrpcStatus> {
        let caller = Caller::of(&request)?;
        let wish = resume::ResumeOrder::parse(request.into_inner())?;
        let order = self.resume(&caller, wish).await?;
        Ok(Response::new(pb::ResumeOrderResponse {
            order: Some(encode(order)?),
        }))
    }

    /// Makes a voucher with its uses.
    async fn create_voucher(
        &self,
        request: Request<pb::CreateVoucherRequest>,
    ) -> Result<Response<pb::CreateVoucherResponse>, GrpcStatus> {
        let by = Caller::of(&request)?.user()?;
        let now = to_micros(self.desk.context.clock.now());
        let wish = vouch::parse_new(request.into_inner(), by, now)?;
        let made = vouchers::create(&self.desk, wish).await?;
        Ok(Response::new(pb::CreateVoucherResponse {
            voucher: Some(vouch::encode(made)),
        }))
    }

    /// A voucher as it stands.
    async fn get_voucher(
        &self,
        request: Request<pb::GetVoucherRequest>,
    ) -> Result<Response<pb::GetVoucherResponse>, GrpcStatus> {
        let code = vouch::parse_named(&request.into_inner().code)?;
        let found = vouchers::find(&self.desk, &code).await?;
        Ok(Response::new(pb::GetVoucherResponse {
            voucher: Some(vouch::encode(found)),
        }))
    }

    /// All vouchers, by code.
    async fn list_vouchers(
        &self,
        request: Request<pb::ListVouchersRequest>,
    ) -> Result<Response<pb::ListVouchersResponse>, GrpcStatus> {
        let asked = request.into_inner().page.unwrap_or_default();
        let size = page::page_size(asked.size).map_err(OrdersError::from)?;
        let after: Option<String> = page::read_token(&asked.token).map_err(OrdersError::from)?;
        let after = after.unwrap_or_default();
        let mut found = vouchers::list(&self.desk, &after, size + 1).await?;
        let more = found.len() as i64 > size;
        found.truncate(size as usize);
        let next_token = (found.last().filter(|_| more))
            .map(|(last, _)| PageToken::after(&last.code.as_str()))
            .unwrap_or_default()
            .into_text();
        Ok(Response::new(pb::ListVouchersResponse {
            vouchers: found.into_iter().map(vouch::encode).collect(),
            page: Some(page_pb::PageInfo { next_token }),
        }))
    }

    /// Sets until when a voucher is valid, and how often it can be used.
    async fn change_voucher(
        &self,
        request: Request<pb::ChangeVoucherRequest>,
    ) -> Result<Response<pb::ChangeVoucherResponse>, GrpcStatus> {
        let by = Caller::of(&request)?.user()?;
        let now = to_micros(self.desk.context.clock.now());
        let wish = vouch::parse_change(&request.into_inner(), by, now)?;
        let changed = vouchers::change(&self.desk, wish).await?;
        Ok(Response::new(pb::ChangeVoucherResponse {
            voucher: Some(vouch::encode(changed)),
        }))
    }
}

/// What every wish about an order says.
struct Wish {
    request: RequestId,
    fingerprint: Vec<u8>,
    order: Id<id::Order>,
}

impl Wish {
    fn parse(request: &str, fingerprint: &[u8], order: &str) -> Result<Self, OrdersError> {
        Ok(Self {
            request: parse_request_id(request)?,
            fingerprint: parse_fingerprint(fingerprint)?,
            order: order.parse().map_err(|_| OrdersError::UnknownOrder)?,
        })
    }

    /// That it is the one which came first under its id, about that order and with that fingerprint.
    fn is_the_same(&self, order: Id<id::Order>, fingerprint: &[u8]) -> Result<(), OrdersError> {
        if self.order == order && self.fingerprint == fingerprint {
            return Ok(());
        }
        Err(OrdersError::KeyReused)
    }
}

fn parse_request_id(text: &str) -> Result<RequestId, OrdersError> {
    (text.parse()).map_err(|_| OrdersError::field("request_id", "not a UUID"))
}

fn parse_fingerprint(bytes: &[u8]) -> Result<Vec<u8>, OrdersError> {
    if (1..=FINGERPRINT_MAX_BYTES).contains(&bytes.len()) {
        return Ok(bytes.to_vec());
    }
    Err(OrdersError::field(
        "fingerprint",
        format!("{} bytes, wanted 1 to {FINGERPRINT_MAX_BYTES}", bytes.len()),
    ))
}

fn parse_reason(text: String) -> Result<String, OrdersError> {
    parse_line("reason", text, REASON_MAX_CHARS)
}

fn parse_line(name: &str, text: String, max_chars: usize) -> Result<String, OrdersError> {
    let chars = text.chars().count();
    if chars <= max_chars && !text.chars().any(char::is_control) {
        return Ok(text);
    }
    Err(OrdersError::field(
        name,
        format!("{chars} characters, wanted up to {max_chars} without control characters"),
    ))
}

fn parse_basket(items: Vec<pb::ItemRequest>) -> Result<Basket, OrdersError> {
    let mut lines: Vec<(Sku, i64)> = Vec::with_capacity(items.len());
    for (at, item) in items.into_iter().enumerate() {
        let sku = (item.sku.parse())
            .map_err(|error| OrdersError::field(format!("items[{at}].sku"), format!("{error}")))?;
        lines.push((sku, item.quantity));
    }
    Basket::new(lines)
}

fn parse_sku_wanted(text: &str) -> Result<Option<Sku>, OrdersError> {
    if text.is_empty() {
        return Ok(None);
    }
    let sku = (text.parse()).map_err(|error| OrdersError::field("sku", format!("{error}")))?;
    Ok(Some(sku))
}

/// The end of a span of time, or `open` where it has none. No order is older than 1970.
fn bound(end: Option<&prost_types::Timestamp>, open: Timestamp) -> Timestamp {
    wire::moment(end).map_or(open, |moment| moment.max(Timestamp::UNIX_EPOCH))
}

fn decode_status(status: i32) -> Result<Option<Status>, OrdersError> {
    use pb::OrderStatus as Wire;
    let status = Wire::try_from(status)
        .map_err(|_| OrdersError::field("status", format!("{status} is no status of an order")))?;
    Ok(match status {
        Wire::Unspecified => None,
        Wire::Pending => Some(Status::Pending),
        Wire::AwaitingPayment => Some(Status::AwaitingPayment),
        Wire::Paid => Some(Status::Paid),
        Wire::Confirmed => Some(Status::Confirmed),
        Wire::Shipped => Some(Status::Shipped),
        Wire::Delivered => Some(Status::Delivered),
        Wire::Cancelled => Some(Status::Cancelled),
        Wire::PaymentFailed => Some(Status::PaymentFailed),
        Wire::Expired => Some(Status::Expired),
        Wire::PartiallyRefunded => Some(Status::PartiallyRefunded),
        Wire::Refunded => Some(Status::Refunded),
        Wire::NeedsAttention => Some(Status::NeedsAttention),
    })
}

const fn encode_status(status: Status) -> pb::OrderStatus {
    use pb::OrderStatus as Wire;
    match status {
        Status::Pending => Wire::Pending,
        Status::AwaitingPayment => Wire::AwaitingPayment,
        Status::Paid => Wire::Paid,
        Status::Confirmed => Wire::Confirmed,
        Status::Shipped => Wire::Shipped,
        Status::Delivered => Wire::Delivered,
        Status::Cancelled => Wire::Cancelled,
        Status::PaymentFailed => Wire::PaymentFailed,
        Status::Expired => Wire::Expired,
        Status::PartiallyRefunded => Wire::PartiallyRefunded,
        Status::Refunded => Wire::Refunded,
        Status::NeedsAttention => Wire::NeedsAttention,
    }
}

fn encode(order: Order) -> Result<pb::Order, OrdersError> {
    let nothing = Money::zero(order.total.currency);
    let subtotal = encode_money(order.value()?);
    let discount = encode_money(order.discount()?);
    let items = order
        .items
        .into_iter()
        .map(|item| {
            Ok(pb::Item {
                total: Some(encode_money(item.total()?)),
                sku: item.sku.to_string(),
                name: item.name,
                quantity: item.quantity,
                unit_price: Some(encode_money(item.unit_price)),
                discount: Some(encode_money(item.discount)),
                refunded_quantity: item.refunded_quantity,
            })
        })
        .collect::<Result<_, OrdersError>>()?;
    let (payment_id, payment_status, next_action) =
        order.payment.map_or_else(Default::default, |payment| {
            (payment.id.to_string(), payment.status, payment.next_action)
        });
    let (parcel, shipped_at, delivered_at) = match order.delivery {
        Delivery::Waiting => (None, None, None),
        Delivery::Shipped { parcel, at } => (Some(parcel), Some(at), None),
        Delivery::Delivered {
            parcel,
            shipped_at,
            at,
        } => (Some(parcel), Some(shipped_at), Some(at)),
    };
    let (carrier, tracking) =
        parcel.map_or_else(Default::default, |parcel| (parcel.carrier, parcel.tracking));
    Ok(pb::Order {
        id: order.id.to_string(),
        user_id: order.user.to_string(),
        source: order.source.as_str().to_owned(),
        status: encode_status(order.status).into(),
        items,
        subtotal: Some(subtotal),
        shipping: Some(encode_money(nothing)),
        tax: Some(encode_money(nothing)),
        points_used: order.points,
        points_refunded: order.points_refunded,
        voucher: (order.voucher).map_or_else(String::new, |code| code.to_string()),
        discount: Some(discount),
        total: Some(encode_money(order.total)),
        refunded: Some(encode_money(order.refunded)),
        hold_expires_at: Some(wire::timestamp(order.hold_expires_at)),
        payment_id,
        payment_status,
        next_action,
        created_at: Some(wire::timestamp(order.created_at)),
        updated_at: Some(wire::timestamp(order.updated_at)),
        version: order.version,
        carrier,
        tracking,
        shipped_at: shipped_at.map(wire::timestamp),
        delivered_at: delivered_at.map(wire::timestamp),
    })
}

fn encode_event(event: store::Event) -> pb::OrderEvent {
    pb::OrderEvent {
        r#type: event.r#type,
        description: event.description,
        old_value: event.old_value,
        new_value: event.new_value,
        user_id: (event.user_id)
            .map(|user| Id::<id::User>::new(user).to_string())
            .unwrap_or_default(),
        created_at: Some(wire::timestamp(event.created_at.into())),
    }
}

fn encode_money(money: Money) -> money_pb::Money {
    money_pb::Money {
        amount: money.amount,
        currency: money.currency.to_string(),
    }
}
