//! What this service tells others, folded from what the writer's batches changed, and what it listens to.

use std::collections::BTreeSet;

use holdfast_kernel::{Id, Timestamp, id};
use holdfast_platform::{
    consumer::{Consumer, Handler, Handling, Interest},
    fault::Fault,
    identity::PeerIdentity,
    message::{Message, Topic},
    outbox::Announcement,
    relay::Fold,
    transport::Transport,
};
use holdfast_proto::inventory::v1::{
    BindRequest, inventory_service_client::InventoryServiceClient,
};
use serde::Serialize;
use sqlx::PgConnection;

use crate::{
    domain::{Bind, HoldId, MADE_KINDS, Name, Refusal},
    ledger::{Ledger, WhoWrites},
    store,
};

/// How pools stand, but those that come to be with whoever first names them: they are between him and the seller, and are
/// too many. Only the last word on a key matters.
const STOCK: Topic = Topic::state("holdfast.stock");
/// What makes wrong what is kept in memory.
pub(crate) const HEARD: &[Topic] = &[STOCK];
/// Pools that sank to their mark; a topic of its own, for within one a key's version is told once.
const STOCK_LOW: Topic = Topic::state("holdfast.stock_low");
/// What became of holds without their holder, and of requests in line.
const HOLDS: Topic = Topic::ordinary("holdfast.holds");
/// Declared as orders declares it.
const ORDERS: Topic = Topic::ordinary("holdfast.orders");

/// Batches folded at once.
const FOLD_MAX_BATCHES: i64 = 100;

#[derive(Serialize)]
struct Stock<'a> {
    pool: &'a str,
    capacity: i64,
    held: i64,
    sold: i64,
    blocked: i64,
    available: i64,
    capacity_version: i64,
}

#[derive(Serialize)]
struct StockLow<'a> {
    pool: &'a str,
    available: i64,
    low_at: Option<i64>,
}

#[derive(Serialize)]
struct HoldExpired<'a> {
    hold_id: String,
    reference: &'a str,
    expired_at: Timestamp,
}

#[derive(Serialize)]
struct HoldGranted<'a> {
    hold_id: String,
    reference: &'a str,
    account: &'a str,
    lines: Vec<GrantedLine<'a>>,
    /// Of each group of alternatives the one that was taken, from 0.
    taken: &'a [u8],
    expires_at: Timestamp,
}

#[derive(Serialize)]
struct GrantedLine<'a> {
    pool: &'a str,
    quantity: i64,
}

/// Turns what batches changed into the last state of each pool, and news of holds that expired.
pub(crate) struct Announcer;

#[tonic::async_trait]
impl Fold for Announcer {
    /// Reads the state as it is now, not as the batch left it: who is told gets the newest, however long this waited.
    async fn fold(&self, conn: &mut PgConnection) -> Result<Vec<Announcement>, sqlx::Error> {
        let changes = store::take_changes(conn, FOLD_MAX_BATCHES).await?;
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let (mut pools, mut low) = (BTreeSet::new(), BTreeSet::new());
        let (mut granted, mut expired) = (BTreeSet::new(), BTreeSet::new());
        let mut at = Timestamp::UNIX_EPOCH;
        for change in changes {
            pools.extend(change.pools);
            low.extend(change.low);
            granted.extend(change.granted);
            expired.extend(change.expired);
            at = at.max(Timestamp::from(change.at));
        }
        let mut news = Vec::new();
        let pools: Vec<i32> = pools.into_iter().collect();
        for pool in store::pool_states(conn, &pools).await? {
            if MADE_KINDS.iter().any(|kind| is_of_kind(&pool.key, kind)) {
                continue;
            }
            let available = pool.available();
            let stock = Stock {
                pool: &pool.key,
                capacity: pool.capacity,
                held: pool.held,
                sold: pool.sold,
                blocked: pool.blocked,
                available,
                capacity_version: pool.capacity_version,
            };
            let version = pool.version;
            news.push(Announcement::new(
                STOCK,
                "stock.updated",
                &pool.key,
                version,
                at,
                &stock,
            ));
            if low.contains(&pool.id) {
                let sunk = StockLow {
                    pool: &pool.key,
                    available,
                    low_at: pool.low_at,
                };
                news.push(Announcement::new(
                    STOCK_LOW,
                    "stock.low",
                    &pool.key,
                    version,
                    at,
                    &sunk,
                ));
            }
        }
        let granted: Vec<uuid::Uuid> = granted.into_iter().collect();
        for hold in store::granted_holds(conn, &granted).await? {
            let lines = hold.pools.iter().zip(&hold.units);
            let data = HoldGranted {
                hold_id: hold.id.to_string(),
                reference: &hold.reference,
                account: &hold.account,
                lines: lines
                    .map(|(pool, units)| GrantedLine {
                        pool,
                        quantity: *units,
                    })
                    .collect(),
                taken: &hold.taken,
                expires_at: hold.expires_at.into(),
            };
            let key = HoldId::new(hold.id);
            news.push(Announcement::new(HOLDS, "hold.granted", key, 1, at, &data));
        }
        let expired: Vec<uuid::Uuid> = expired.into_iter().collect();
        // A hold that was taken up again by a late commit, or given up, has not expired after all.
        for hold in store::expired_holds(conn, &expired).await? {
            let key = HoldId::new(hold.id);
            let data = HoldExpired {
                hold_id: hold.id.to_string(),
                reference: &hold.reference,
                expired_at: hold.expires_at.into(),
            };
            let version = if hold.was_granted { 2 } else { 1 };
            let expired = Announcement::new(HOLDS, "hold.expired", key, version, at, &data);
            news.push(expired);
        }
        Ok(news)
    }
}

fn is_of_kind(key: &str, kind: &str) -> bool {
    key.split_once(':').is_some_and(|(of, _)| of == kind)
}

/// Binds holds to the orders that were made for them, where the call that should have done so was lost.
struct Binder {
    ledger: Ledger,
    /// This service's, which passes calls on to whoever writes.
    own_door: InventoryServiceClient<Transport>,
    identity: PeerIdentity,
}

/// Listens for orders.
pub(crate) fn binder(
    ledger: Ledger,
    own_door: InventoryServiceClient<Transport>,
    identity: PeerIdentity,
) -> Consumer {
    const INTERESTS: &[Interest] = &[Interest {
        topic: ORDERS,
        kinds: &["order.created"],
    }];
    let binder = Binder {
        ledger,
        own_door,
        identity,
    };
    Consumer::new("inventory.orders", INTERESTS, binder)
}

#[tonic::async_trait]
impl Handler for Binder {
    /// Goes through the writer, as everything does that changes a hold. Binding twice is binding once, so it does no
    /// harm that this is not part of the transaction.
    async fn handle(&self, _conn: &mut PgConnection, message: &Message) -> Result<(), Handling> {
        let order: Id<id::Order> = message.key.parse().map_err(Handling::permanent)?;
        match self.ledger.who_writes().await {
            WhoWrites::Us | WhoWrites::Undecided => self.bind_here(order, &message.key).await,
            WhoWrites::Another(_) => self.bind_elsewhere(order, &message.key).await,
        }
    }
}

impl Binder {
    async fn bind_here(&self, order: Id<id::Order>, reference: &str) -> Result<(), Handling> {
        let bind = Bind {
            hold: HoldId::new(order.uuid()),
            reference: Name::from(reference),
        };
        match self.ledger.bind(bind).await {
            // An order without a hold: it mirrors a booking, or who it is of waited in vain.
            Ok(()) | Err(Refusal::UnknownHold(_) | Refusal::HoldEnded { .. }) => Ok(()),
            Err(refusal @ Refusal::Unavailable(_)) => Err(Handling::transient(refusal)),
            Err(refusal) => Err(Handling::permanent(refusal)),
        }
    }

    async fn bind_elsewhere(&self, order: Id<id::Order>, reference: &str) -> Result<(), Handling> {
        let request = self.identity.request(BindRequest {
            hold_id: order.uuid().to_string(),
            reference: reference.to_owned(),
        });
        let Err(status) = self.own_door.clone().bind(request).await else {
            return Ok(());
        };
        let fault = Fault::from_status(&status);
        match fault.reason() {
            "UNKNOWN_HOLD" | "HOLD_ENDED" => Ok(()),
            _ if fault.is_transient() => Err(Handling::transient(fault)),
            _ => Err(Handling::permanent(fault)),
        }
    }
}
