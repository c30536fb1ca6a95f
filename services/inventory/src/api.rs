//! The door: decode, act, encode. What may be done is the ledger's to say.

use std::time::Duration;

use futures::stream::BoxStream;
use holdfast_kernel::{PoolKey, RequestId, Timestamp, page, stock::InvalidPoolKey};
use holdfast_platform::{
    database,
    identity::{Access, AccessTable, Caller, Role},
    service::Context,
    wire,
};
use holdfast_proto::{
    inventory::v1::{
        self as pb, inventory_service_server::InventoryService, stand_response::Outcome,
    },
    page::v1 as paging,
    saga::v1::Command,
};
use sqlx::PgConnection;
use tonic::{Request, Response, Status};

use crate::{
    domain::{
        Adjust, Basket, Bind, CapacityChange, CapacityChanges, Commit, Epoch, Extend, Hold, HoldId,
        HoldState, Line, MovementKind, Name, PATIENCE_MAX_SECS, Pool, Refusal, Release, Reserve,
        Return, SetPolicy, Stand, Stood, TEXT_MAX_CHARS, TTL_MAX_SECS, TTL_MIN_SECS, Wish,
    },
    error::{Field, InventoryError},
    ledger::{Ledger, Standing},
    shown::Shown,
    store::{self, Entry, Past},
    watch::{self, View},
};

/// Services that buy and sell on behalf of customers.
const SELLERS: &[&str] = &["orders", "bookings", "tickets", "delivery"];
/// Sellers, and this service itself, which may hear of an order while another of its processes writes.
const BINDERS: &[&str] = &["orders", "bookings", "tickets", "delivery", "inventory"];
/// Services whose things are stocked.
const STOCKERS: &[&str] = &["catalog", "tickets", "delivery", "bookings", "orders"];
/// Kinds of pools of which the public is told nothing: their names are for those who have them.
const PRIVATE_KINDS: [&str; 3] = ["voucher", "limit", "admit"];
/// Pools one call may ask for.
const KEYS_MAX_ENTRIES: usize = 1_000;
/// Of a pool's first movement.
const FIRST_VERSION: i64 = 1;

/// Who may call what. What the public sees of a pool is its key and how much of it is available.
pub const ACCESS: AccessTable = &[
    ("Reserve", Access::Peers(SELLERS)),
    ("Stand", Access::Peers(SELLERS)),
    ("Extend", Access::Peers(SELLERS)),
    ("Bind", Access::Peers(BINDERS)),
    ("Commit", Access::Peers(SELLERS)),
    ("Release", Access::Peers(SELLERS)),
    ("Return", Access::Peers(SELLERS)),
    ("Adjust", Access::StaffOr(STOCKERS)),
    ("SetPolicy", Access::StaffOr(STOCKERS)),
    ("GetPools", Access::Anyone),
    ("Watch", Access::Anyone),
    ("ListPools", Access::Staff),
    ("ListMovements", Access::Staff),
];

pub(crate) struct Api {
    ledger: Ledger,
    context: Context,
    shown: Shown,
}

impl Api {
    pub(crate) fn new(ledger: Ledger, context: Context, shown: Shown) -> Self {
        Self {
            ledger,
            context,
            shown,
        }
    }

    /// What the public sees of these pools.
    async fn publicly(&self, keys: Vec<PoolKey>) -> Result<Vec<pb::Pool>, Status> {
        let public = |key: &PoolKey, available| pb::Pool {
            key: key.to_string(),
            available,
            ..pb::Pool::default()
        };
        if let [key] = keys.as_slice() {
            let available = self.shown.available(key, &self.ledger).await?;
            return Ok(available
                .map(|units| public(key, units))
                .into_iter()
                .collect());
        }
        let standings = self.ledger.look(keys).await?;
        let pools = standings.iter().map(|standing| &standing.pool);
        Ok(pools
            .map(|pool| public(&pool.key, pool.available()))
            .collect())
    }

    /// How these pools stood at a moment.
    async fn pools_at(&self, keys: Vec<PoolKey>, at: Timestamp) -> Result<Vec<pb::Pool>, Status> {
        // The writer says up to where the book goes and which expiries are still to be written; the rest stands in the
        // book, and stays as it is while we read.
        let standings = self.ledger.look(keys).await?;
        let keys: Vec<&str> = standings.iter().map(|s| s.pool.key.as_str()).collect();
        let versions: Vec<i64> = standings.iter().map(|s| s.pool.version).collect();
        let mut db = database::acquire(&self.context.database).await?;
        let past = store::pools_at(&mut db, at, &keys, &versions)
            .await
            .map_err(InventoryError::from)?;
        // Looked at last: what was dropped meanwhile is refused, not left out.
        must_be_kept(&mut db, |since| at >= since).await?;
        Ok(standings
            .iter()
            .filter_map(|now| {
                let then = past.iter().find(|then| then.key == now.pool.key.as_str())?;
                Some(encode_pool(&look_back(now, then, at)))
            })
            .collect())
    }
}

#[tonic::async_trait]
impl InventoryService for Api {
    /// Takes all lines or none.
    async fn reserve(
        &self,
        request: Request<pb::ReserveRequest>,
    ) -> Result<Response<pb::ReserveResponse>, Status> {
        let request = request.into_inner();
        let hold = self
            .ledger
            .reserve(Reserve {
                request: parse_request(&request.request_id)?,
                account: parse_account(&request.account)?,
                actor: parse_name("actor", &request.actor)?,
                wish: parse_wish(request.lines, request.any_of, request.makes)?,
                ttl: parse_ttl(request.ttl)?,
                reference: parse_reference(&request.reference)?,
                epoch: parse_epoch(request.command)?,
            })
            .await?;
        Ok(Response::new(pb::ReserveResponse {
            hold: Some(hold.into()),
        }))
    }

    /// Waits in line for what cannot be had now.
    async fn stand(
        &self,
        request: Request<pb::StandRequest>,
    ) -> Result<Response<pb::StandResponse>, Status> {
        let request = request.into_inner();
        let wish = parse_wish(request.lines, request.any_of, request.makes)?;
        let stood = self
            .ledger
            .stand(Stand {
                request: parse_request(&request.request_id)?,
                account: parse_account(&request.account)?,
                actor: parse_name("actor", &request.actor)?,
                wish: wish.standing().map_err(InventoryError::from)?,
                ttl: parse_ttl(request.ttl)?,
                patience: parse_length("patience", request.patience, PATIENCE_MAX_SECS)?,
                reference: parse_reference(&request.reference)?,
            })
            .await?;
        let outcome = match stood {
            Stood::Waiting(until) => Outcome::Waiting(pb::Waiting {
                expires_at: Some(wire::timestamp(until)),
            }),
            Stood::Granted(hold) => Outcome::Hold(hold.into()),
        };
        Ok(Response::new(pb::StandResponse {
            outcome: Some(outcome),
        }))
    }

    /// Moves a live hold's expiry, never to an earlier moment.
    async fn extend(
        &self,
        request: Request<pb::ExtendRequest>,
    ) -> Result<Response<pb::ExtendResponse>, Status> {
        let request = request.into_inner();
        let hold = self
            .ledger
            .extend(Extend {
                hold: parse_hold(&request.hold_id)?,
                ttl: parse_ttl(request.ttl)?,
                epoch: parse_epoch(request.command)?,
            })
            .await?;
        Ok(Response::new(pb::ExtendResponse {
            hold: Some(hold.into()),
        }))
    }

    /// Notes what a hold is for.
    async fn bind(
        &self,
        request: Request<pb::BindRequest>,
    ) -> Result<Response<pb::BindResponse>, Status> {
        let request = request.into_inner();
        self.ledger
            .bind(Bind {
                hold: parse_hold(&request.hold_id)?,
                reference: parse_name("reference", &request.reference)?,
            })
            .await?;
        Ok(Response::new(pb::BindResponse {}))
    }

    /// Turns held units into sold ones.
    async fn commit(
        &self,
        request: Request<pb::CommitRequest>,
    ) -> Result<Response<pb::CommitResponse>, Status> {
        let request = request.into_inner();
        let hold = self
            .ledger
            .commit(Commit {
                hold: parse_hold(&request.hold_id)?,
                actor: parse_name("actor", &request.actor)?,
                epoch: parse_epoch(request.command)?,
            })
            .await?;
        Ok(Response::new(pb::CommitResponse {
            hold: Some(hold.into()),
        }))
    }

    /// Gives held units back.
    async fn release(
        &self,
        request: Request<pb::ReleaseRequest>,
    ) -> Result<Response<pb::ReleaseResponse>, Status> {
        let request = request.into_inner();
        let state = self
            .ledger
            .release(Release {
                hold: parse_hold(&request.hold_id)?,
                actor: parse_name("actor", &request.actor)?,
                epoch: parse_epoch(request.command)?,
            })
            .await?;
        Ok(Response::new(pb::ReleaseResponse {
            state: encode_state(state).into(),
        }))
    }

    /// Turns sold units free again.
    async fn r#return(
        &self,
        request: Request<pb::ReturnRequest>,
    ) -> Result<Response<pb::ReturnResponse>, Status> {
        let request = request.into_inner();
        self.ledger
            .give_back(Return {
                request: parse_request(&request.request_id)?,
                hold: parse_hold(&request.hold_id)?,
                actor: parse_name("actor", &request.actor)?,
                basket: parse_basket(request.lines)?,
            })
            .await?;
        Ok(Response::new(pb::ReturnResponse {}))
    }

    /// Changes capacities, all or none.
    async fn adjust(
        &self,
        request: Request<pb::AdjustRequest>,
    ) -> Result<Response<pb::AdjustResponse>, Status> {
        let request = request.into_inner();
        let changes = request.changes.into_iter().map(|change| {
            Ok(CapacityChange {
                pool: parse_key(&change.pool)?,
                delta: change.delta,
                expected: change.expected_capacity_version,
            })
        });
        let changes = changes.collect::<Result<_, InventoryError>>()?;
        let pools = self
            .ledger
            .adjust(Adjust {
                request: parse_request(&request.request_id)?,
                actor: parse_name("actor", &request.actor)?,
                reason: parse_name("reason", &request.reason)?,
                changes: CapacityChanges::new(changes).map_err(InventoryError::from)?,
            })
            .await?;
        Ok(Response::new(pb::AdjustResponse {
            pools: pools.iter().map(encode_pool).collect(),
        }))
    }

    /// Sets overbooking and the low-stock mark.
    async fn set_policy(
        &self,
        request: Request<pb::SetPolicyRequest>,
    ) -> Result<Response<pb::SetPolicyResponse>, Status> {
        let request = request.into_inner();
        if request.low_at.is_some_and(|mark| mark < 0) {
            return Err(invalid("low_at", "wanted 0 or more").into());
        }
        let pool = self
            .ledger
            .set_policy(SetPolicy {
                request: parse_request(&request.request_id)?,
                actor: parse_name("actor", &request.actor)?,
                pool: parse_key(&request.pool)?,
                overbook: request.overbook,
                low_at: request.low_at,
                expected: request.expected_capacity_version,
            })
            .await?;
        Ok(Response::new(pb::SetPolicyResponse {
            pool: Some(encode_pool(&pool)),
        }))
    }

    /// Balances as they stand, or for staff and peers as they stood.
    async fn get_pools(
        &self,
        request: Request<pb::GetPoolsRequest>,
    ) -> Result<Response<pb::GetPoolsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let sees_all = caller.peer().is_some() || caller.has(Role::Staff);
        let request = request.into_inner();
        if request.keys.len() > KEYS_MAX_ENTRIES {
            let text = format!("{}, wanted {KEYS_MAX_ENTRIES} or fewer", request.keys.len());
            return Err(invalid("keys", text).into());
        }
        // What is no key is no pool's key, and unknown keys are left out.
        let keys: Vec<PoolKey> = request
            .keys
            .iter()
            .filter_map(|key| key.parse().ok())
            .filter(|key: &PoolKey| sees_all || !PRIVATE_KINDS.contains(&key.kind()))
            .collect();
        let pools = if !sees_all {
            self.publicly(keys).await?
        } else if let Some(at) = wire::moment(request.at.as_ref()) {
            self.pools_at(keys, at).await?
        } else {
            let standings = self.ledger.look(keys).await?;
            let pools = standings.iter().map(|standing| &standing.pool);
            pools.map(encode_pool).collect()
        };
        Ok(Response::new(pb::GetPoolsResponse { pools }))
    }

    /// Pools by key prefix.
    async fn list_pools(
        &self,
        request: Request<pb::ListPoolsRequest>,
    ) -> Result<Response<pb::ListPoolsResponse>, Status> {
        let request = request.into_inner();
        if request.prefix.chars().count() > TEXT_MAX_CHARS {
            return Err(invalid(
                "prefix",
                format!("wanted {TEXT_MAX_CHARS} characters or fewer"),
            )
            .into());
        }
        let (size, after) = parse_page::<String>(request.page)?;
        let mut db = database::acquire(&self.context.database).await?;
        let after = after.unwrap_or_default();
        let mut keys = store::list_keys(&mut db, &request.prefix, &after, size + 1)
            .await
            .map_err(InventoryError::from)?;
        drop(db);
        let more = keys.len() as i64 > size;
        let page = cut_page(&mut keys, size, more, String::clone);
        let keys = keys
            .iter()
            .map(|key| key.parse().map_err(|error| unreadable("pool.key", &error)))
            .collect::<Result<_, _>>()?;
        let standings = self.ledger.look(keys).await?;
        Ok(Response::new(pb::ListPoolsResponse {
            pools: standings
                .into_iter()
                .map(|standing| encode_pool(&standing.pool))
                .collect(),
            page: Some(page),
        }))
    }

    type WatchStream = BoxStream<'static, Result<pb::WatchResponse, Status>>;

    /// Pools as they are, then as they change.
    async fn watch(
        &self,
        request: Request<pb::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = Caller::of(&request)?;
        let sees_all = caller.peer().is_some() || caller.has(Role::Staff);
        let request = request.into_inner();
        let chars = request.prefix.chars().count();
        if !request.prefix.contains(':') || chars > TEXT_MAX_CHARS {
            let text = format!("wanted a kind, a colon, and {TEXT_MAX_CHARS} characters or fewer");
            return Err(invalid("prefix", text).into());
        }
        let seen = (request.epoch > 0).then_some((request.epoch, request.offset));
        let gone = Refusal::Unavailable("another process writes it");
        let watching = self.ledger.watch(seen).ok_or(gone)?;
        let view = View {
            prefix: request.prefix,
            show: if sees_all { show_all } else { show_publicly },
        };
        let (ledger, database) = (self.ledger.clone(), self.context.database.clone());
        Ok(Response::new(watch::tell(watching, view, ledger, database)))
    }

    /// A pool's book, newest first.
    async fn list_movements(
        &self,
        request: Request<pb::ListMovementsRequest>,
    ) -> Result<Response<pb::ListMovementsResponse>, Status> {
        let request = request.into_inner();
        let key = parse_key(&request.pool)?;
        let (size, before) = parse_page::<i64>(request.page)?;
        let mut db = database::acquire(&self.context.database).await?;
        let pool = store::find_pool(&mut db, &key)
            .await
            .map_err(InventoryError::from)?
            .ok_or_else(|| InventoryError::UnknownPool(key.clone()))?;
        let before = before.unwrap_or(i64::MAX);
        let mut entries = store::list_movements(&mut db, pool, before, size + 1).await?;
        if entries.is_empty() && before > FIRST_VERSION {
            must_be_kept(&mut db, |_| false).await?;
        }
        // Where the book was cut off a page follows that says so.
        let is_cut = |oldest: &Entry| oldest.version > FIRST_VERSION;
        let more = entries.len() as i64 > size || entries.last().is_some_and(is_cut);
        let page = cut_page(&mut entries, size, more, |entry| entry.version);
        Ok(Response::new(pb::ListMovementsResponse {
            movements: entries
                .into_iter()
                .map(|entry| encode_entry(&key, entry))
                .collect(),
            page: Some(page),
        }))
    }
}

#[expect(clippy::unnecessary_wraps, reason = "one of two ways to show a pool")]
fn show_all(pool: &Pool) -> Option<pb::Pool> {
    Some(encode_pool(pool))
}

/// What the public sees: how much is available, unless the name alone is for those who have it.
fn show_publicly(pool: &Pool) -> Option<pb::Pool> {
    let is_public = !PRIVATE_KINDS.contains(&pool.key.kind());
    is_public.then(|| pb::Pool {
        key: pool.key.to_string(),
        available: pool.available(),
        ..pb::Pool::default()
    })
}

/// What the book said then, without the holds whose time was over then, written down by now or not.
fn look_back(now: &Standing, then: &Past, at: Timestamp) -> Pool {
    let unwritten = now
        .overdue
        .iter()
        .filter(|overdue| overdue.expired_at <= at);
    let expired: i64 = unwritten.map(|overdue| overdue.units).sum();
    Pool {
        key: now.pool.key.clone(),
        capacity: then.capacity_after,
        held: then.held_after - then.expired_since - expired,
        sold: then.sold_after,
        blocked: now.pool.blocked,
        overbook: now.pool.overbook - then.overbook_since,
        low_at: None,
        version: then.version,
        capacity_version: now.pool.capacity_version - then.terms_since,
    }
}

fn parse_request(text: &str) -> Result<RequestId, InventoryError> {
    text.parse()
        .map_err(|_| invalid("request_id", format!("{:?} is not a UUID", shown(text))))
}

fn parse_hold(text: &str) -> Result<HoldId, InventoryError> {
    text.parse::<RequestId>()
        .map(RequestId::makes)
        .map_err(|_| invalid("hold_id", format!("{:?} is not a UUID", shown(text))))
}

fn parse_key(text: &str) -> Result<PoolKey, InventoryError> {
    text.parse()
        .map_err(|error: InvalidPoolKey| invalid("pool", error.to_string()))
}

fn parse_name(field: &'static str, text: &str) -> Result<Name, InventoryError> {
    let chars = text.chars().count();
    if (1..=TEXT_MAX_CHARS).contains(&chars) && !text.contains('\0') {
        Ok(Name::from(text))
    } else {
        Err(invalid(
            field,
            format!("{chars} characters, wanted 1 to {TEXT_MAX_CHARS}, none of them NUL"),
        ))
    }
}

fn parse_account(text: &str) -> Result<Option<Name>, InventoryError> {
    if text.is_empty() {
        return Ok(None);
    }
    parse_name("account", text).map(Some)
}

fn parse_reference(text: &str) -> Result<Name, InventoryError> {
    if text.is_empty() {
        return Ok(Name::default());
    }
    parse_name("reference", text)
}

fn parse_basket(lines: Vec<pb::Line>) -> Result<Basket, InventoryError> {
    Ok(Basket::new(parse_lines(lines)?)?)
}

fn parse_wish(
    lines: Vec<pb::Line>,
    any_of: Vec<pb::AnyOf>,
    makes: Vec<pb::NewPool>,
) -> Result<Wish, InventoryError> {
    let any_of = any_of.into_iter().map(|group| {
        let alternatives = group.alternatives.into_iter();
        alternatives.map(|one| parse_lines(one.lines)).collect()
    });
    let makes = makes
        .into_iter()
        .map(|new| Ok((parse_key(&new.pool)?, new.capacity)));
    Ok(Wish::new(
        parse_lines(lines)?,
        any_of.collect::<Result<_, InventoryError>>()?,
        makes.collect::<Result<_, InventoryError>>()?,
    )?)
}

fn parse_lines(lines: Vec<pb::Line>) -> Result<Vec<Line>, InventoryError> {
    let lines = lines.into_iter().map(|line| {
        Ok(Line {
            pool: parse_key(&line.pool)?,
            units: line.quantity,
        })
    });
    lines.collect()
}

fn parse_ttl(ttl: Option<prost_types::Duration>) -> Result<Duration, InventoryError> {
    parse_length("ttl", ttl, TTL_MAX_SECS)
}

fn parse_length(
    field: &'static str,
    length: Option<prost_types::Duration>,
    max_secs: u64,
) -> Result<Duration, InventoryError> {
    let bounds = Duration::from_secs(TTL_MIN_SECS)..=Duration::from_secs(max_secs);
    wire::length(length.as_ref())
        .filter(|length| bounds.contains(length))
        .ok_or_else(|| {
            invalid(
                field,
                format!("wanted {TTL_MIN_SECS} to {max_secs} seconds"),
            )
        })
}

fn parse_epoch(command: Option<Command>) -> Result<Epoch, InventoryError> {
    match command {
        None => Ok(None),
        Some(command) if command.epoch >= 1 => Ok(Some(command.epoch)),
        Some(command) => {
            let text = format!("{}, wanted 1 or more", command.epoch);
            Err(invalid("command.epoch", text))
        }
    }
}

/// How many entries, and behind which key.
fn parse_page<T: serde::de::DeserializeOwned>(
    page: Option<paging::PageRequest>,
) -> Result<(i64, Option<T>), InventoryError> {
    let page = page.unwrap_or_default();
    Ok((page::page_size(page.size)?, page::read_token(&page.token)?))
}

/// Refuses when movements were dropped, unless what is asked of `kept` is.
async fn must_be_kept(
    db: &mut PgConnection,
    kept: impl FnOnce(Timestamp) -> bool,
) -> Result<(), InventoryError> {
    match store::kept_since(db).await? {
        Some(since) if !kept(since) => Err(InventoryError::NotKept(since)),
        _ => Ok(()),
    }
}

/// Cuts off the entry that only showed that there are more.
fn cut_page<T, K: serde::Serialize>(
    entries: &mut Vec<T>,
    size: i64,
    more: bool,
    key: impl Fn(&T) -> K,
) -> paging::PageInfo {
    entries.truncate(size as usize);
    let last = entries.last().filter(|_| more);
    paging::PageInfo {
        next_token: last.map_or_else(String::new, |last| {
            page::PageToken::after(&key(last)).into_text()
        }),
    }
}

fn invalid(name: &'static str, text: impl Into<String>) -> InventoryError {
    InventoryError::Invalid(Field {
        name: name.to_owned(),
        text: text.into(),
    })
}

fn unreadable(column: &str, error: &impl ToString) -> InventoryError {
    InventoryError::Unreadable(format!("{column}: {}", error.to_string()))
}

fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

impl From<Hold> for pb::Hold {
    fn from(hold: Hold) -> Self {
        Self {
            id: hold.id.uuid().to_string(),
            state: encode_state(hold.state).into(),
            expires_at: Some(wire::timestamp(hold.expires_at)),
            lines: hold
                .lines
                .into_iter()
                .map(|line| pb::Line {
                    pool: line.pool.to_string(),
                    quantity: line.units,
                })
                .collect(),
            reference: hold.reference.to_string(),
            taken: hold.taken.iter().copied().map(u32::from).collect(),
        }
    }
}

fn encode_state(state: HoldState) -> pb::HoldState {
    match state {
        HoldState::Live => pb::HoldState::Live,
        HoldState::Committed => pb::HoldState::Committed,
        HoldState::Released => pb::HoldState::Released,
        HoldState::Expired => pb::HoldState::Expired,
    }
}

fn encode_pool(pool: &Pool) -> pb::Pool {
    pb::Pool {
        available: pool.available(),
        capacity: pool.capacity,
        held: pool.held,
        sold: pool.sold,
        blocked: pool.blocked,
        overbook: pool.overbook,
        low_at: pool.low_at,
        version: pool.version,
        capacity_version: pool.capacity_version,
        key: pool.key.to_string(),
    }
}

fn encode_entry(key: &PoolKey, entry: Entry) -> pb::Movement {
    pb::Movement {
        pool: key.to_string(),
        version: entry.version,
        kind: encode_kind(entry.kind).into(),
        quantity: entry.units,
        held_after: entry.held_after,
        sold_after: entry.sold_after,
        capacity_after: entry.capacity_after,
        at: Some(wire::timestamp(entry.at)),
        effective_at: Some(wire::timestamp(entry.effective_at)),
        hold_id: entry.hold.map_or_else(String::new, |hold| hold.to_string()),
        actor: entry.actor,
        reason: entry.reason,
    }
}

fn encode_kind(kind: MovementKind) -> pb::MovementKind {
    match kind {
        MovementKind::Reserve => pb::MovementKind::Reserve,
        MovementKind::Commit => pb::MovementKind::Commit,
        MovementKind::Release => pb::MovementKind::Release,
        MovementKind::Expire => pb::MovementKind::Expire,
        MovementKind::Retake => pb::MovementKind::Retake,
        MovementKind::Return => pb::MovementKind::Return,
        MovementKind::Adjust => pb::MovementKind::Adjust,
        MovementKind::Policy => pb::MovementKind::Policy,
    }
}
