//! What this service tells others: how a payment stands, in ids and figures, and nothing about the person.

use holdfast_kernel::{Money, Timestamp};
use holdfast_platform::{
    message::Topic,
    outbox::{self, Announcement},
};
use serde::Serialize;

use crate::{
    domain::{Change, News, Payment, State},
    error::PaymentsError,
};

const TOPIC: Topic = Topic::ordinary("holdfast.payments");

#[derive(Serialize)]
struct PaymentChanged<'a> {
    payment_id: String,
    purchase_id: &'a str,
    user_id: String,
    status: &'static str,
    amount: Money,
    captured: Money,
    refunded: Money,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'a str>,
}

/// What a change has to tell. The messages of a payment are numbered without a gap, apart from its version.
pub(crate) fn news_of(change: &Change, now: Timestamp) -> Result<outbox::Columns, PaymentsError> {
    let payment = &change.payment;
    let key = payment.id.to_string();
    let data = data_of(payment);
    let first = payment.told - change.news.len() as i64 + 1;
    let news = (first..)
        .zip(&change.news)
        .map(|(version, news)| Announcement::new(TOPIC, kind_of(*news), &key, version, now, &data))
        .collect();
    Ok(outbox::columns(news)?)
}

fn data_of(payment: &Payment) -> PaymentChanged<'_> {
    let money = |amount| Money::new(amount, payment.amount.currency);
    let taken = payment.taken();
    PaymentChanged {
        payment_id: payment.id.to_string(),
        purchase_id: payment.purchase.as_str(),
        user_id: payment.user.to_string(),
        status: payment.status().public(),
        amount: payment.amount,
        captured: money(taken.captured),
        refunded: money(taken.refunded),
        failure: match &payment.state {
            State::Failed(failure) => Some(&failure.reason),
            _ => None,
        },
    }
}

const fn kind_of(news: News) -> &'static str {
    match news {
        News::RequiresAction => "payment.requires_action",
        News::Authorized => "payment.authorized",
        News::Captured => "payment.captured",
        News::Failed => "payment.failed",
        News::Voided => "payment.voided",
        News::Expired => "payment.expired",
        News::PartiallyRefunded => "payment.partially_refunded",
        News::Refunded => "payment.refunded",
        News::RefundFailed => "payment.refund_failed",
    }
}
