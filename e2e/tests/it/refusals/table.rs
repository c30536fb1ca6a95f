//! Who is told what: of every operation a row.
//!
//! A new operation needs a new row. What it says is checked against the operation's audience too: a row cannot let in
//! whom the description keeps out.

use super::stage::Thing;

/// Who asks, in the order of a row's statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    /// Without a token.
    Nobody,
    /// Whose thing it is, where it is anybody's.
    Owner,
    /// Another user.
    Other,
    Staff,
    Admin,
}

pub(crate) const ASKERS: [Asker; 5] = [
    Asker::Nobody,
    Asker::Owner,
    Asker::Other,
    Asker::Staff,
    Asker::Admin,
];

/// An operation, what must be there before it is asked, and the status that each of [`ASKERS`] is told.
pub(crate) struct Row {
    pub(crate) operation: &'static str,
    pub(crate) thing: Thing,
    pub(crate) told: [u16; 5],
}

const fn row(operation: &'static str, thing: Thing, told: [u16; 5]) -> Row {
    Row {
        operation,
        thing,
        told,
    }
}

#[rustfmt::skip]
pub(crate) const TABLE: &[Row] = &[
    //                                                                nobody owner other staff admin
    row("GET /healthz", Thing::Nothing,                                 [200, 200, 200, 200, 200]),
    row("GET /readyz", Thing::Nothing,                                  [200, 200, 200, 200, 200]),
    row("GET /v1/{service}/healthz", Thing::Nothing,                    [200, 200, 200, 200, 200]),
    row("GET /.well-known/openid-configuration", Thing::Nothing,        [200, 200, 200, 200, 200]),
    row("GET /.well-known/jwks.json", Thing::Nothing,                   [200, 200, 200, 200, 200]),
    row("POST /v1/users/register", Thing::NewEmail,                     [201, 201, 201, 201, 201]),
    row("POST /v1/users/login", Thing::Nothing,                         [200, 200, 200, 200, 200]),
    row("POST /v1/users/refresh", Thing::RefreshToken,                  [200, 200, 200, 200, 200]),
    row("POST /v1/users/logout", Thing::SomebodyNew,                    [401, 204, 204, 204, 204]),
    row("GET /v1/users/me", Thing::Nothing,                             [401, 200, 200, 200, 200]),
    row("PATCH /v1/users/me", Thing::SomebodyNew,                       [401, 200, 200, 200, 200]),
    row("PUT /v1/users/me/password", Thing::Ada,                        [401, 204, 204, 204, 204]),
    row("GET /v1/users/me/export", Thing::Nothing,                      [401, 200, 200, 200, 200]),
    row("GET /v1/users/me/sessions", Thing::Nothing,                    [401, 200, 200, 200, 200]),
    row("DELETE /v1/users/me/sessions/{id}", Thing::Session,            [401, 204, 404, 404, 404]),
    row("GET /v1/users/me/addresses", Thing::Nothing,                   [401, 200, 200, 200, 200]),
    row("POST /v1/users/me/addresses", Thing::SomebodyNew,              [401, 201, 201, 201, 201]),
    row("PATCH /v1/users/me/addresses/{id}", Thing::Address,            [401, 200, 404, 404, 404]),
    row("DELETE /v1/users/me/addresses/{id}", Thing::Address,           [401, 204, 404, 404, 404]),
    row("GET /v1/users", Thing::Nothing,                                [401, 403, 403, 403, 200]),
    row("GET /v1/users/{id}", Thing::OwnersAccount,                     [401, 200, 404, 404, 200]),
    row("PATCH /v1/users/{id}", Thing::OwnersAccount,                   [401, 200, 404, 404, 200]),
    row("DELETE /v1/users/{id}", Thing::Account,                        [401, 403, 403, 403, 204]),
    row("PUT /v1/users/{id}/role", Thing::Account,                      [401, 403, 403, 403, 200]),
    row("PUT /v1/users/{id}/active", Thing::Account,                    [401, 403, 403, 403, 200]),
    row("GET /v1/products", Thing::Nothing,                             [200, 200, 200, 200, 200]),
    row("POST /v1/products", Thing::NewSku,                             [401, 403, 403, 403, 201]),
    row("POST /v1/product-batches", Thing::NewSkuOfMany,                [401, 403, 403, 403, 201]),
    row("POST /v1/product-publications", Thing::Draft,                  [401, 403, 403, 403, 204]),
    row("GET /v1/products/{id}", Thing::Product,                        [200, 200, 200, 200, 200]),
    row("PATCH /v1/products/{id}", Thing::Product,                      [401, 403, 403, 403, 200]),
    row("DELETE /v1/products/{id}", Thing::Product,                     [401, 403, 403, 403, 204]),
    row("POST /v1/products/{id}/variants", Thing::NewVariant,           [401, 403, 403, 403, 201]),
    row("PATCH /v1/products/{id}/variants/{sku}", Thing::Variant,       [401, 403, 403, 403, 200]),
    row("DELETE /v1/products/{id}/variants/{sku}", Thing::Variant,      [401, 403, 403, 403, 204]),
    row("GET /v1/categories", Thing::Nothing,                           [200, 200, 200, 200, 200]),
    row("POST /v1/categories", Thing::NewSlug,                          [401, 403, 403, 403, 201]),
    row("GET /v1/categories/{slug}", Thing::Category,                   [200, 200, 200, 200, 200]),
    row("PATCH /v1/categories/{slug}", Thing::Category,                 [401, 403, 403, 403, 200]),
    row("DELETE /v1/categories/{slug}", Thing::Category,                [401, 403, 403, 403, 204]),
    row("GET /v1/events", Thing::Nothing,                               [200, 200, 200, 200, 200]),
    row("POST /v1/events", Thing::Nothing,                              [401, 403, 403, 201, 201]),
    row("GET /v1/events/{id}", Thing::Event,                            [200, 200, 200, 200, 200]),
    row("PATCH /v1/events/{id}", Thing::DraftOfEvent,                   [401, 403, 403, 200, 200]),
    row("GET /v1/events/{id}/layout", Thing::Event,                     [200, 200, 200, 200, 200]),
    row("PUT /v1/events/{id}/layout", Thing::DraftOfEvent,              [401, 403, 403, 200, 200]),
    row("POST /v1/events/{id}/publish", Thing::DraftOfEvent,            [401, 403, 403, 200, 200]),
    row("POST /v1/events/{id}/cancel", Thing::Event,                    [401, 403, 403, 200, 200]),
    row("GET /v1/inventory", Thing::Nothing,                            [401, 403, 403, 200, 200]),
    row("POST /v1/inventory", Thing::NewKey,                            [401, 403, 403, 201, 201]),
    row("GET /v1/inventory/{key}", Thing::Pool,                         [200, 200, 200, 200, 200]),
    row("POST /v1/inventory/{key}/adjustments", Thing::Pool,            [401, 403, 403, 200, 200]),
    row("PUT /v1/inventory/{key}/policy", Thing::Pool,                  [401, 403, 403, 200, 200]),
    row("GET /v1/inventory/{key}/movements", Thing::Pool,               [401, 403, 403, 200, 200]),
    row("GET /v1/orders", Thing::Nothing,                               [401, 200, 200, 200, 200]),
    row("POST /v1/orders", Thing::Nothing,                              [401, 201, 201, 201, 201]),
    row("GET /v1/orders/{id}", Thing::Order,                            [401, 200, 404, 200, 200]),
    row("GET /v1/orders/{id}/events", Thing::Order,                     [401, 200, 404, 200, 200]),
    row("POST /v1/orders/{id}/cancel", Thing::Order,                    [401, 200, 404, 200, 200]),
    row("POST /v1/orders/{id}/refunds", Thing::Order,                   [401, 403, 403, 201, 201]),
    row("POST /v1/orders/{id}/resume", Thing::Order,                    [401, 403, 403, 409, 409]),
    row("POST /v1/orders/{id}/ship", Thing::Order,                      [401, 403, 403, 200, 200]),
    row("POST /v1/orders/{id}/deliver", Thing::ShippedOrder,            [401, 403, 403, 200, 200]),
    row("GET /v1/vouchers", Thing::Nothing,                             [401, 403, 403, 200, 200]),
    row("POST /v1/vouchers", Thing::NewCode,                            [401, 403, 403, 201, 201]),
    row("GET /v1/vouchers/{code}", Thing::Voucher,                      [401, 403, 403, 200, 200]),
    row("PATCH /v1/vouchers/{code}", Thing::Voucher,                    [401, 403, 403, 200, 200]),
    row("GET /v1/points", Thing::Nothing,                               [401, 200, 200, 200, 200]),
    row("GET /v1/products/{id}/reviews", Thing::Product,                [200, 200, 200, 200, 200]),
    row("POST /v1/products/{id}/reviews", Thing::Delivered,             [401, 201, 403, 403, 403]),
    row("GET /v1/reviews/{id}", Thing::Review,                          [200, 200, 200, 200, 200]),
    row("PATCH /v1/reviews/{id}", Thing::Review,                        [401, 200, 404, 404, 404]),
    row("DELETE /v1/reviews/{id}", Thing::Review,                       [401, 204, 404, 404, 404]),
    row("POST /v1/reviews/{id}/moderate", Thing::Review,                [401, 403, 403, 200, 200]),
    row("GET /v1/notifications", Thing::Nothing,                        [401, 200, 200, 200, 200]),
    row("POST /v1/notifications/{id}/read", Thing::Notification,        [401, 200, 404, 404, 404]),
    row("GET /v1/payment-methods", Thing::Nothing,                      [401, 200, 200, 200, 200]),
    row("POST /v1/payment-methods", Thing::Nothing,                     [401, 201, 201, 201, 201]),
    row("GET /v1/payments/{id}", Thing::Payment("sandbox_ok"),          [401, 200, 404, 200, 200]),
    row("POST /v1/payments/{id}/sandbox/complete", Thing::Payment("sandbox_3ds"), [401, 200, 404, 200, 200]),
    row("POST /v1/payments/{id}/sandbox/pay", Thing::Slip,              [401, 200, 404, 200, 200]),
    row("GET /v1/webhooks", Thing::Nothing,                             [401, 403, 403, 403, 200]),
    row("POST /v1/webhooks", Thing::Nothing,                            [401, 403, 403, 403, 201]),
    row("GET /v1/webhooks/{id}", Thing::Webhook,                        [401, 403, 403, 403, 200]),
    row("DELETE /v1/webhooks/{id}", Thing::Webhook,                     [401, 403, 403, 403, 204]),
    row("POST /v1/webhooks/{id}/enable", Thing::Webhook,                [401, 403, 403, 403, 200]),
    row("POST /v1/webhooks/{id}/rotate", Thing::Webhook,                [401, 403, 403, 403, 200]),
    row("POST /v1/webhooks/{id}/replay", Thing::Webhook,                [401, 403, 403, 403, 200]),
    row("GET /v1/webhooks/{id}/deliveries", Thing::Webhook,             [401, 403, 403, 403, 200]),
    row("GET /v1/messages", Thing::Nothing,                             [401, 403, 403, 403, 200]),
];

impl Row {
    /// Somebody who may ask this, the owner before others.
    pub(crate) fn admitted(&self) -> Asker {
        let refusals = [401, 403, 404];
        let told = |asker: &Asker| self.told[*asker as usize];
        let mut askers = [Asker::Owner, Asker::Staff, Asker::Admin].into_iter();
        let admitted = askers.find(|asker| !refusals.contains(&told(asker)));
        admitted.expect("an operation is for somebody")
    }
}

/// The row of an operation.
pub(crate) fn row_of(operation: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.operation == operation)
}
