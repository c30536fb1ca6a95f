//! What this service tells others: how a payment stands and what became of somebody's points, in ids and figures, and
//! nothing about the person.

use holdfast_kernel::{Money, Timestamp};
use holdfast_platform::{
    message::Topic,
    outbox::{self, Announcement},
    relay::Fold,
};
use serde::Serialize;
use sqlx::PgConnection;

use crate::{
    domain::{Change, News, Payment, State},
    error::PaymentsError,
    points, store,
};

const TOPIC: Topic = Topic::ordinary("holdfast.payments");
/// Its key is the account: whose it is, and of what currency.
const POINTS: Topic = Topic::ordinary("holdfast.points");

/// Changes of accounts told at once.
const TELL_MAX_ENTRIES: i64 = 500;

#[derive(Serialize)]
struct PaymentChanged<'a> {
    payment_id: String,
    purchase_id: &'a str,
    user_id: String,
    status: &'static str,
    amount: Money,
    captured: Money,
    refunded: Money,
    points: i64,
    points_back: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'a str>,
}

#[derive(Serialize)]
struct PointsChanged<'a> {
    user_id: String,
    currency: &'a str,
    balance: i64,
    delta: i64,
    reason: &'a str,
    payment_id: String,
    purchase_id: &'a str,
}

/// Tells what became of accounts of points. What balance a change led to is known to the statement that made it, which
/// therefore writes it down; this makes messages of that.
pub struct Announcer;

#[tonic::async_trait]
impl Fold for Announcer {
    async fn fold(&self, db: &mut PgConnection) -> Result<Vec<Announcement>, sqlx::Error> {
        let news = store::take_point_news(db, TELL_MAX_ENTRIES).await?;
        Ok(news.iter().map(points_changed).collect())
    }
}

fn points_changed(news: &points::News) -> Announcement {
    let currency = news.currency.code();
    let data = PointsChanged {
        user_id: news.user.to_string(),
        currency,
        balance: news.balance,
        delta: news.delta,
        reason: &news.reason,
        payment_id: news.payment.to_string(),
        purchase_id: &news.purchase,
    };
    let key = format!("{}:{currency}", news.user);
    let (version, at) = (news.version, news.changed_at);
    Announcement::new(POINTS, "points.changed", key, version, at, &data)
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
        points: payment.points.all,
        points_back: payment.points.back,
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
