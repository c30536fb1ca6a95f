//! What became of an order: its history, which nobody rewrites, and the news of it, which go the same way.

use holdfast_kernel::{Id, id};
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Bound;
use crate::{
    domain::{Change, Order},
    error::OrdersError,
    messages,
};

/// One line of an order's history, as it is kept.
#[derive(sqlx::FromRow)]
pub(crate) struct Event {
    pub(crate) r#type: String,
    pub(crate) description: String,
    pub(crate) old_value: String,
    pub(crate) new_value: String,
    pub(crate) user_id: Option<Uuid>,
    pub(crate) created_at: jiff_sqlx::Timestamp,
}

/// The order's history, oldest first.
pub(crate) async fn list_events(
    db: &mut PgConnection,
    order: Id<id::Order>,
    limit: i64,
) -> Result<Vec<Event>, OrdersError> {
    Ok(sqlx::query_as(
        "SELECT type, description, old_value, new_value, user_id, created_at
         FROM order_event WHERE order_id = $1 ORDER BY id LIMIT $2",
    )
    .bind(order.uuid())
    .bind(limit)
    .fetch_all(db)
    .await?)
}

/// Binds ten: the columns of the changes in the order's history, and those of the news of them.
pub(super) fn bind_changes<'q>(
    query: Bound<'q>,
    order: &Order,
    changes: &'q [Change],
) -> Result<Bound<'q>, OrdersError> {
    let news = messages::news_of(order, changes)?;
    let column = |of: fn(&Change) -> &str| changes.iter().map(of).collect::<Vec<_>>();
    let actors = changes.iter().map(|change| change.actor.map(Id::uuid));
    let moments = changes.iter().map(|change| change.at.to_sqlx());
    Ok(query
        .bind(column(|change| messages::kind_of(change.news)))
        .bind(column(|change| &change.description))
        .bind(column(|change| &change.old))
        .bind(column(|change| &change.new))
        .bind(actors.collect::<Vec<_>>())
        .bind(moments.collect::<Vec<_>>())
        .bind(news.message_ids)
        .bind(news.topics)
        .bind(news.keys)
        .bind(news.envelopes))
}
