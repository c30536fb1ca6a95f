//! Buying: from a basket to an order that is confirmed, refused, or waits for its customer.

use std::collections::HashMap;

use holdfast_kernel::{Id, Money, RequestId, id, time::to_micros};
use holdfast_platform::{database, fault::Fault, identity::Caller, telemetry::trace::carried};
use holdfast_proto::{catalog::v1 as catalog, orders::v1 as pb, users::v1 as users};
use tokio::time::{self, Instant};

use crate::{
    api::{Api, parse_basket, parse_fingerprint, parse_request_id},
    checkout::{Reached, Run},
    domain::{
        Basket, Item, Order, Status,
        voucher::{Code, InvalidCode, Voucher},
    },
    error::{OrdersError, PointsShort},
    saga::Method,
    store,
};

/// A wish to buy, well-formed.
pub(super) struct PlaceOrder {
    request: RequestId,
    fingerprint: Vec<u8>,
    basket: Basket,
    method: Method,
    points: i64,
    voucher: Option<Code>,
}

impl PlaceOrder {
    pub(super) fn parse(request: pb::PlaceOrderRequest) -> Result<Self, OrdersError> {
        Ok(Self {
            request: parse_request_id(&request.request_id)?,
            fingerprint: parse_fingerprint(&request.fingerprint)?,
            basket: parse_basket(request.items)?,
            method: parse_method(request.payment_method)?,
            points: request.points,
            voucher: parse_voucher(request.voucher.as_deref())?,
        })
    }
}

impl Api {
    /// Carries the purchase out, or meets the order that the same request made before.
    pub(super) async fn place(
        &self,
        caller: &Caller,
        wish: PlaceOrder,
    ) -> Result<Order, OrdersError> {
        let until = self.answer_by();
        let user = caller.user()?;
        let id: Id<id::Order> = wish.request.makes();
        let (first, quoted, voucher, known) = tokio::join!(
            self.find(id),
            self.quote(&wish.basket),
            self.voucher(wish.voucher.as_ref()),
            self.check_account(caller)
        );
        if let Some(first) = first? {
            return self.meet(first, user, &wish.fingerprint, until).await;
        }
        known?;
        let now = to_micros(self.desk.context.clock.now());
        let fingerprint = wish.fingerprint.clone();
        let items = match voucher? {
            Some(voucher) => voucher.take_off(quoted?, now)?,
            None => quoted?,
        };
        let order = Order {
            voucher: wish.voucher,
            ..Order::new(id, user, items, wish.points, now, fingerprint, now)?
        };

        // From here on the purchase outlives the call.
        let run = Run::start(self.desk.clone(), order, wish.method);
        let mut turn = self.desk.running.spawn(carried(run.run()));
        let reached = match time::timeout_at(until, &mut turn).await {
            Ok(reached) => reached,
            // Not even an order yet: there is nothing to answer with until there is.
            Err(_) if self.find(id).await?.is_none() => turn.await,
            Err(_) => Ok(Ok(Reached::OnItsWay)),
        };
        match reached.map_err(|panicked| OrdersError::from(Fault::internal(panicked)))?? {
            Reached::Rest(order) if is_answer(&order) => answer(*order),
            // The order may be that of the same request made at the same time.
            Reached::Rest(_) | Reached::OnItsWay => {
                let order = self.read(id).await?;
                self.meet(order, user, &wish.fingerprint, until).await
            }
        }
    }

    /// Answers with the order that this request made, once it has come so far.
    async fn meet(
        &self,
        order: Order,
        user: Id<id::User>,
        fingerprint: &[u8],
        until: Instant,
    ) -> Result<Order, OrdersError> {
        if order.user != user || order.fingerprint != fingerprint {
            return Err(OrdersError::KeyReused);
        }
        if is_answer(&order) {
            return answer(order);
        }
        answer(self.wait(order.id, until, is_answer).await?)
    }

    async fn find(&self, order: Id<id::Order>) -> Result<Option<Order>, OrdersError> {
        let mut db = database::acquire(&self.desk.context.database).await?;
        store::find_order(&mut db, order).await
    }

    /// Names and prices as they are now; the order keeps them whatever they become.
    async fn quote(&self, basket: &Basket) -> Result<Vec<Item>, OrdersError> {
        let request = catalog::QuoteVariantsRequest {
            skus: (basket.lines().iter())
                .map(|(sku, _)| sku.to_string())
                .collect(),
            ..catalog::QuoteVariantsRequest::default()
        };
        let mut catalog = self.desk.peers.catalog.clone();
        let answer = catalog
            .quote_variants(self.desk.context.identity.request(request))
            .await?;
        let mut quotes: HashMap<String, catalog::Quote> = (answer.into_inner().quotes.into_iter())
            .map(|quote| (quote.sku.clone(), quote))
            .collect();
        let mut unknown = Vec::new();
        let mut items = Vec::with_capacity(basket.lines().len());
        for (sku, quantity) in basket.lines() {
            let Some(quote) = quotes.remove(sku.as_str()) else {
                unknown.push(sku.clone());
                continue;
            };
            let unit_price = decode_price(quote.price)?;
            items.push(Item {
                sku: sku.clone(),
                name: quote.name,
                quantity: *quantity,
                unit_price,
                discount: Money::zero(unit_price.currency),
                refunded_quantity: 0,
            });
        }
        if unknown.is_empty() {
            Ok(items)
        } else {
            Err(OrdersError::UnknownSku(unknown))
        }
    }

    /// The voucher of that code, as it is now. That it has a use left is seen where that is taken.
    async fn voucher(&self, code: Option<&Code>) -> Result<Option<Voucher>, OrdersError> {
        let Some(code) = code else { return Ok(None) };
        let mut db = database::acquire(&self.desk.context.database).await?;
        let found = store::find_voucher(&mut db, code).await?;
        (found.map(Some)).ok_or_else(|| OrdersError::VoucherUnknown(code.clone()))
    }

    /// Makes sure the buyer's account exists.
    ///
    /// The gate has verified the token, and an account that is closed loses its tokens within a minute; so a token that
    /// was issued recently proves the account, and users is asked only behind long-lived tokens of other issuers.
    async fn check_account(&self, caller: &Caller) -> Result<(), OrdersError> {
        let now = self.desk.context.clock.now().as_second();
        let trusted = self.desk.settings.account_trusted_secs;
        if (caller.claims()).is_some_and(|claims| now - claims.iat <= trusted) {
            return Ok(());
        }
        let request = users::GetProfileRequest {
            user_id: caller.user()?.to_string(),
        };
        let mut users = self.desk.peers.users.clone();
        users.get_profile(caller.request(request)).await?;
        Ok(())
    }
}

/// Whether there is nothing to wait for: the purchase is over, or it is the customer's turn.
fn is_answer(order: &Order) -> bool {
    match order.status {
        Status::Pending | Status::Paid => false,
        Status::AwaitingPayment => {
            (order.payment.as_ref()).is_some_and(|payment| payment.status == "requires_action")
        }
        Status::Confirmed
        | Status::Shipped
        | Status::Delivered
        | Status::Cancelled
        | Status::PaymentFailed
        | Status::Expired
        | Status::PartiallyRefunded
        | Status::Refunded
        | Status::NeedsAttention => true,
    }
}

/// A declined payment is a refusal, today and whenever the same request is made again.
fn answer(order: Order) -> Result<Order, OrdersError> {
    if order.status != Status::PaymentFailed {
        return Ok(order);
    }
    Err(OrdersError::PaymentDeclined {
        order: order.id,
        short: order.points_found.map(|available| PointsShort {
            asked: order.points,
            available,
        }),
    })
}

fn parse_method(choice: Option<pb::PaymentMethodChoice>) -> Result<Method, OrdersError> {
    match choice.and_then(|choice| choice.choice) {
        Some(pb::payment_method_choice::Choice::Id(id)) => Ok(Method::Saved(id)),
        Some(pb::payment_method_choice::Choice::Inline(inline)) => Ok(Method::Inline {
            kind: inline.r#type,
            token: inline.token,
        }),
        None => Err(OrdersError::field("payment_method", "missing")),
    }
}

fn parse_voucher(text: Option<&str>) -> Result<Option<Code>, OrdersError> {
    text.map(str::parse)
        .transpose()
        .map_err(|error: InvalidCode| OrdersError::field("voucher", error.to_string()))
}

fn decode_price(price: Option<holdfast_proto::money::v1::Money>) -> Result<Money, OrdersError> {
    let nonsense = || OrdersError::Nonsense("a quote without a price".to_owned());
    let price = price.ok_or_else(nonsense)?;
    let currency = price.currency.parse().map_err(|_| nonsense())?;
    if price.amount < 0 {
        return Err(nonsense());
    }
    Ok(Money::new(price.amount, currency))
}
