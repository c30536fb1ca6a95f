//! What can run out, and how much of it is left.

use axum::{
    Extension,
    extract::{Path, State},
};
use holdfast_kernel::{PoolKey, RequestId, Sku, Timestamp};
use holdfast_platform::{
    fault::{Fault, FaultCode},
    identity::{Caller, Role},
    wire,
};
use holdfast_proto::inventory::v1 as pb;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Answer, promised,
    shape::{Page, Slice, moment, paged, word},
};
use crate::{
    Gateway,
    decode::{Json, Query},
    error::GatewayError,
    idempotency::Keyed,
    precondition::Expected,
    problems::Problem,
    reply::Reply,
};

pub(super) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(list_pools, create_pool))
        .routes(routes!(one_pool))
        .routes(routes!(adjust))
        .routes(routes!(set_policy))
        .routes(routes!(list_movements))
}

/// What staff see of a pool.
#[derive(Serialize, ToSchema)]
struct Pool {
    #[schema(example = "sku:TSHIRT-M")]
    key: String,
    capacity: i64,
    held: i64,
    sold: i64,
    blocked: i64,
    /// Units that may be sold beyond capacity.
    overbook: i64,
    available: i64,
    /// At or below this many available units it is low; null: never.
    low_at: Option<i64>,
    /// Rises by one with every movement.
    version: i64,
}

/// What everybody sees of a pool.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Availability {
    key: String,
    available: i64,
}

/// A pool, as far as who asks may see it.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Shown {
    Whole(Pool),
    Publicly(Availability),
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewPool {
    /// A bare SKU means `sku:<SKU>`.
    #[schema(
        example = "TSHIRT-M",
        pattern = "^([A-Z0-9._@-]{1,64}|[a-z]{1,16}:[A-Za-z0-9._@:+-]{1,180})$"
    )]
    key: String,
    #[schema(minimum = 0, maximum = 1_000_000_000_000_i64)]
    capacity: i64,
    /// 1 to 256 characters; kept with the movement.
    #[serde(default = "opening")]
    #[schema(min_length = 1, max_length = 256)]
    reason: String,
}

fn opening() -> String {
    "opening stock".to_owned()
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Adjustment {
    /// Added to the capacity; may be negative.
    delta: i64,
    /// 1 to 256 characters; kept with the movement.
    #[schema(example = "counted", min_length = 1, max_length = 256)]
    reason: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Policy {
    #[schema(minimum = 0, maximum = 1_000_000_000_000_i64)]
    overbook: i64,
    /// Null or left out: never low.
    #[schema(minimum = 0)]
    low_at: Option<i64>,
}

/// One entry of a pool's book.
#[derive(Serialize, ToSchema)]
struct Movement {
    version: i64,
    #[schema(example = "reserve")]
    kind: String,
    /// Units moved; of an adjustment the signed change of capacity.
    quantity: i64,
    held_after: i64,
    sold_after: i64,
    capacity_after: i64,
    at: String,
    effective_at: String,
    hold_id: Option<String>,
    actor: String,
    reason: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// What keys begin with, such as `sku:`.
    #[param(max_length = 256)]
    prefix: Option<String>,
    /// 1 to 100; 20 when left out.
    limit: Option<i32>,
    /// `next_cursor` of the slice before.
    cursor: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Past {
    /// The moment to look back to, RFC 3339; left out: now.
    #[param(format = DateTime)]
    at: Option<String>,
}

/// Lists pools by key.
#[utoipa::path(get, path = "/v1/inventory", tag = "stock", params(Wanted), responses((status = 200, body = Page<Pool>)))]
async fn list_pools(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Query(wanted): Query<Wanted>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::ListPoolsRequest {
        prefix: wanted.prefix.unwrap_or_default(),
        page: Some(Slice::new(wanted.limit, wanted.cursor).request()?),
    });
    let answer = gateway
        .peers
        .inventory
        .clone()
        .list_pools(request)
        .await
        .map_err(|refused| paged(&refused))?
        .into_inner();
    let pools = answer.pools.into_iter().map(Pool::from).collect();
    Ok(Reply::ok(&Page::<Pool>::new(pools, answer.page)))
}

/// Begins to keep something in stock.
#[utoipa::path(post, path = "/v1/inventory", tag = "stock", request_body = NewPool,
    params(("idempotency-key" = String, Header)), responses((status = 201, body = Pool)))]
async fn create_pool(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Keyed { body, once }: Keyed<NewPool>,
) -> Answer {
    let key = parse_key(&body.key)?;
    let change = pb::CapacityChange {
        pool: key.to_string(),
        delta: body.capacity,
        expected_capacity_version: 0,
    };
    let request = adjusting(&caller, once.request_id, change, body.reason)?;
    let mut inventory = gateway.peers.inventory.clone();
    let effect = async move {
        let answer = inventory.adjust(request).await;
        let answer = answer.map_err(|refused| beyond("capacity", refused))?;
        let pools = answer.into_inner().pools;
        let pool = promised(pools.into_iter().next(), "inventory", "the pool")?;
        let (version, location) = (pool.capacity_version, format!("/v1/inventory/{}", pool.key));
        Ok(Reply::created(&Pool::from(pool), &location).tagged(version))
    };
    gateway.replies.once(once, effect).await
}

/// Shows how much is available; staff see all balances, with an ETag that only capacity and policy move.
#[utoipa::path(get, path = "/v1/inventory/{key}", tag = "stock",
    params(("key" = String, Path, description = "a pool's key; a bare SKU means `sku:<SKU>`"), Past),
    responses((status = 200, body = Shown)))]
async fn one_pool(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(key): Path<String>,
    Query(past): Query<Past>,
) -> Result<Reply, Problem> {
    let key = parse_key(&key)?;
    let request = caller.request(pb::GetPoolsRequest {
        keys: vec![key.to_string()],
        at: past.moment()?.map(wire::timestamp),
    });
    let answer = gateway
        .peers
        .inventory
        .clone()
        .get_pools(request)
        .await?
        .into_inner();
    let pool = answer.pools.into_iter().next().ok_or_else(|| {
        let text = format!("nothing of key {key} is kept in stock");
        Fault::new(FaultCode::NotFound, "UNKNOWN_POOL", text)
    })?;
    if caller.has(Role::Staff) {
        let version = pool.capacity_version;
        return Ok(Reply::ok(&Shown::Whole(pool.into())).tagged(version));
    }
    // No ETag: what the public sees moves with every sale, and the tag does not.
    Ok(Reply::ok(&Shown::Publicly(Availability {
        key: pool.key,
        available: pool.available,
    })))
}

/// Changes a capacity that is still as it was read.
#[utoipa::path(post, path = "/v1/inventory/{key}/adjustments", tag = "stock", request_body = Adjustment,
    params(("key" = String, Path), ("if-match" = String, Header, description = "the pool's ETag"), ("idempotency-key" = String, Header)),
    responses((status = 200, body = Pool)))]
async fn adjust(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(key): Path<String>,
    Expected(expected): Expected,
    Keyed { body, once }: Keyed<Adjustment>,
) -> Answer {
    let change = pb::CapacityChange {
        pool: parse_key(&key)?.to_string(),
        delta: body.delta,
        expected_capacity_version: expected,
    };
    let request = adjusting(&caller, once.request_id, change, body.reason)?;
    let mut inventory = gateway.peers.inventory.clone();
    let effect = async move {
        let answer = inventory.adjust(request).await;
        let answer = answer.map_err(|refused| beyond("delta", refused))?;
        let pools = answer.into_inner().pools;
        let pool = promised(pools.into_iter().next(), "inventory", "the pool")?;
        let version = pool.capacity_version;
        Ok(Reply::ok(&Pool::from(pool)).tagged(version))
    };
    gateway.replies.once(once, effect).await
}

/// Sets overbooking and the low-stock mark of a pool that is still as it was read.
#[utoipa::path(put, path = "/v1/inventory/{key}/policy", tag = "stock", request_body = Policy,
    params(("key" = String, Path), ("if-match" = String, Header, description = "the pool's ETag")),
    responses((status = 200, body = Pool)))]
async fn set_policy(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(key): Path<String>,
    Expected(expected): Expected,
    Json(asked): Json<Policy>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::SetPolicyRequest {
        // Setting is repeatable by nature, and the version keeps a late repetition out.
        request_id: RequestId::generate().to_string(),
        actor: caller.user()?.to_string(),
        pool: parse_key(&key)?.to_string(),
        overbook: asked.overbook,
        low_at: asked.low_at,
        expected_capacity_version: expected,
    });
    let answer = gateway
        .peers
        .inventory
        .clone()
        .set_policy(request)
        .await
        .map_err(|refused| beyond("overbook", refused))?
        .into_inner();
    let pool = promised(answer.pool, "inventory", "the pool")?;
    let version = pool.capacity_version;
    Ok(Reply::ok(&Pool::from(pool)).tagged(version))
}

/// Lists a pool's book, newest first.
#[utoipa::path(get, path = "/v1/inventory/{key}/movements", tag = "stock", params(("key" = String, Path), Slice),
    responses((status = 200, body = Page<Movement>)))]
async fn list_movements(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(key): Path<String>,
    Query(slice): Query<Slice>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::ListMovementsRequest {
        pool: parse_key(&key)?.to_string(),
        page: Some(slice.request()?),
    });
    let answer = gateway
        .peers
        .inventory
        .clone()
        .list_movements(request)
        .await
        .map_err(|refused| paged(&refused))?
        .into_inner();
    let movements = answer
        .movements
        .into_iter()
        .map(movement)
        .collect::<Result<_, _>>()?;
    Ok(Reply::ok(&Page::<Movement>::new(movements, answer.page)))
}

fn adjusting(
    caller: &Caller,
    request_id: RequestId,
    change: pb::CapacityChange,
    reason: String,
) -> Result<tonic::Request<pb::AdjustRequest>, Problem> {
    Ok(caller.request(pb::AdjustRequest {
        request_id: request_id.to_string(),
        actor: caller.user()?.to_string(),
        reason,
        changes: vec![change],
    }))
}

/// The ledger's refusal of a change, in the words of this door, where one change has one field.
fn beyond(field: &str, refused: tonic::Status) -> Problem {
    Problem::from(refused).calling("changes", field)
}

fn parse_key(text: &str) -> Result<PoolKey, GatewayError> {
    let refused = |text: String| GatewayError::Field {
        field: "key".to_owned(),
        text,
    };
    if text.contains(':') {
        text.parse()
            .map_err(|error: holdfast_kernel::stock::InvalidPoolKey| refused(error.to_string()))
    } else {
        text.parse::<Sku>()
            .map(|sku| sku.pool())
            .map_err(|error| refused(error.to_string()))
    }
}

impl Past {
    fn moment(&self) -> Result<Option<Timestamp>, GatewayError> {
        let Some(text) = &self.at else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| GatewayError::Field {
            field: "at".to_owned(),
            text: "wanted a moment such as 2026-12-01T10:00:00Z".to_owned(),
        })
    }
}

impl From<pb::Pool> for Pool {
    fn from(pool: pb::Pool) -> Self {
        Self {
            key: pool.key,
            capacity: pool.capacity,
            held: pool.held,
            sold: pool.sold,
            blocked: pool.blocked,
            overbook: pool.overbook,
            available: pool.available,
            low_at: pool.low_at,
            version: pool.version,
        }
    }
}

fn movement(movement: pb::Movement) -> Result<Movement, Problem> {
    Ok(Movement {
        kind: word(movement.kind().as_str_name(), KIND_PREFIX),
        at: moment(movement.at.as_ref(), "inventory")?,
        effective_at: moment(movement.effective_at.as_ref(), "inventory")?,
        version: movement.version,
        quantity: movement.quantity,
        held_after: movement.held_after,
        sold_after: movement.sold_after,
        capacity_after: movement.capacity_after,
        hold_id: (!movement.hold_id.is_empty()).then_some(movement.hold_id),
        actor: movement.actor,
        reason: (!movement.reason.is_empty()).then_some(movement.reason),
    })
}

const KIND_PREFIX: &str = "MOVEMENT_KIND_";
