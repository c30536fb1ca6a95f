//! A ledger that is right and forgets nothing, in memory, and whose line breaks off when told to.

use std::{
    collections::{HashMap, HashSet},
    sync::Mutex,
    time::Duration,
};

use holdfast_kernel::{Clock, Timestamp};
use holdfast_platform::{
    fault::{Fault, FaultCode},
    wire,
};
use holdfast_proto::{
    inventory::v1::{self as pb, HoldState, inventory_service_server::InventoryService},
    saga::v1::Command,
};
use holdfast_testkit::FakeClock;
use serde_json::Value;
use tonic::{Request, Response, Status};

use crate::line::Line;

pub(crate) struct Ledger {
    pub(crate) line: Line,
    clock: FakeClock,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    pools: HashMap<String, Pool>,
    holds: HashMap<String, Hold>,
    returns: HashSet<String>,
    adjustments: HashMap<String, Vec<pb::CapacityChange>>,
    epochs: HashMap<String, i64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pool {
    pub(crate) capacity: i64,
    pub(crate) held: i64,
    pub(crate) sold: i64,
    capacity_version: i64,
}

struct Hold {
    state: HoldState,
    expires_at: Timestamp,
    lines: Vec<(String, i64)>,
    returned: HashMap<String, i64>,
}

impl Ledger {
    pub(crate) fn new(clock: FakeClock) -> Self {
        Self {
            line: Line::default(),
            clock,
            book: Mutex::default(),
        }
    }

    pub(crate) fn stock(&self, sku: &str, capacity: i64) {
        self.stock_of(&format!("sku:{sku}"), capacity);
    }

    /// The same by the whole key.
    pub(crate) fn stock_of(&self, key: &str, capacity: i64) {
        let pool = Pool {
            capacity,
            capacity_version: 1,
            ..Pool::default()
        };
        let mut book = self.book.lock().expect("held briefly");
        book.pools.insert(key.to_owned(), pool);
    }

    /// How the pool stands, holds past their expiry not counted.
    pub(crate) fn pool(&self, sku: &str) -> Pool {
        self.pool_of(&format!("sku:{sku}")).expect("a pool")
    }

    /// The same by its whole key, if there is one.
    pub(crate) fn pool_of(&self, key: &str) -> Option<Pool> {
        let mut book = self.book.lock().expect("held briefly");
        book.expire(self.clock.now());
        book.pools.get(key).copied()
    }

    /// Somebody else buys.
    pub(crate) fn sell(&self, sku: &str, units: i64) {
        let mut book = self.book.lock().expect("held briefly");
        book.expire(self.clock.now());
        let pool = book.pools.get_mut(&format!("sku:{sku}")).expect("a pool");
        assert!(pool.held + pool.sold + units <= pool.capacity, "oversold");
        pool.sold += units;
    }

    pub(crate) fn holds(&self) -> usize {
        self.book.lock().expect("held briefly").holds.len()
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

impl Book {
    fn expire(&mut self, now: Timestamp) {
        for hold in self.holds.values_mut() {
            if hold.state == HoldState::Live && hold.expires_at <= now {
                hold.state = HoldState::Expired;
                for (pool, units) in &hold.lines {
                    self.pools.get_mut(pool).expect("reserved from it").held -= units;
                }
            }
        }
    }

    fn fence(&mut self, command: Option<Command>) -> Result<(), Status> {
        let command = command.expect("every command names its saga");
        assert!(
            !command.step.is_empty() && command.epoch >= 1,
            "{command:?}"
        );
        let seen = self.epochs.entry(command.saga_id).or_default();
        if command.epoch < *seen {
            return Err(conflict("STALE_EPOCH").into());
        }
        *seen = command.epoch;
        Ok(())
    }

    fn short(&self, lines: &[(String, i64)]) -> Option<Fault> {
        let mut fault = conflict("INSUFFICIENT_UNITS");
        let mut short = false;
        for (key, units) in lines {
            let Some(pool) = self.pools.get(key) else {
                return Some(
                    Fault::new(FaultCode::NotFound, "UNKNOWN_POOL", "no such pool")
                        .item([("pool", Value::from(key.as_str()))]),
                );
            };
            let available = pool.capacity - pool.held - pool.sold;
            if available < *units {
                short = true;
                fault = fault.item([
                    ("pool", Value::from(key.as_str())),
                    ("requested", Value::from(*units)),
                    ("available", Value::from(available)),
                ]);
            }
        }
        short.then_some(fault)
    }

    fn adjust(&mut self, change: &pb::CapacityChange) -> Result<(), Status> {
        let stands = self.pools.get(&change.pool).copied().unwrap_or_default();
        if stands.capacity_version != change.expected_capacity_version {
            let reason = match change.expected_capacity_version {
                0 => "POOL_EXISTS",
                _ => "CAPACITY_CHANGED",
            };
            return Err(conflict(reason).into());
        }
        let capacity = stands.capacity + change.delta;
        if capacity < stands.held + stands.sold {
            return Err(conflict("BELOW_COMMITTED").into());
        }
        let adjusted = Pool {
            capacity,
            capacity_version: stands.capacity_version + 1,
            ..stands
        };
        self.pools.insert(change.pool.clone(), adjusted);
        Ok(())
    }

    fn show_pool(&self, key: &str) -> Option<pb::Pool> {
        let pool = self.pools.get(key)?;
        Some(pb::Pool {
            key: key.to_owned(),
            capacity: pool.capacity,
            held: pool.held,
            sold: pool.sold,
            capacity_version: pool.capacity_version,
            ..pb::Pool::default()
        })
    }

    fn show(&self, id: &str) -> pb::Hold {
        let hold = &self.holds[id];
        pb::Hold {
            id: id.to_owned(),
            state: hold.state.into(),
            expires_at: Some(wire::timestamp(hold.expires_at)),
            ..pb::Hold::default()
        }
    }
}

fn conflict(reason: &'static str) -> Fault {
    Fault::new(FaultCode::Conflict, reason, "the ledger refuses")
}

fn ended(state: HoldState) -> Status {
    let state = match state {
        HoldState::Committed => "committed",
        HoldState::Released => "released",
        HoldState::Expired => "expired",
        _ => unreachable!("it lives"),
    };
    conflict("HOLD_ENDED").with("state", state).into()
}

fn unknown() -> Status {
    Fault::new(FaultCode::NotFound, "UNKNOWN_HOLD", "no such hold").into()
}

fn summed(lines: Vec<pb::Line>) -> Vec<(String, i64)> {
    let mut sums: Vec<(String, i64)> = Vec::new();
    for line in lines {
        assert!(line.quantity > 0, "{line:?}");
        match sums.iter_mut().find(|(pool, _)| *pool == line.pool) {
            Some((_, units)) => *units += line.quantity,
            None => sums.push((line.pool, line.quantity)),
        }
    }
    sums
}

fn later(now: Timestamp, ttl: Option<prost_types::Duration>) -> Timestamp {
    let ttl: Duration = wire::length(ttl.as_ref()).expect("a ttl");
    assert!(ttl >= Duration::from_secs(1), "{ttl:?}");
    now + ttl
}

#[tonic::async_trait]
impl InventoryService for Ledger {
    async fn reserve(
        &self,
        request: Request<pb::ReserveRequest>,
    ) -> Result<Response<pb::ReserveResponse>, Status> {
        let ask = request.into_inner();
        self.line
            .over("reserve", || {
                let now = self.now();
                let mut book = self.book.lock().expect("held briefly");
                book.expire(now);
                book.fence(ask.command)?;
                let lines = summed(ask.lines);
                if let Some(hold) = book.holds.get(&ask.request_id) {
                    return match hold.state {
                        HoldState::Live | HoldState::Committed if hold.lines == lines => {
                            Ok(pb::ReserveResponse {
                                hold: Some(book.show(&ask.request_id)),
                            })
                        }
                        HoldState::Live | HoldState::Committed => {
                            Err(conflict("HOLD_MISMATCH").into())
                        }
                        state => Err(ended(state)),
                    };
                }
                if let Some(fault) = book.short(&lines) {
                    return Err(fault.into());
                }
                for (pool, units) in &lines {
                    book.pools.get_mut(pool).expect("looked at").held += units;
                }
                let hold = Hold {
                    state: HoldState::Live,
                    expires_at: later(now, ask.ttl),
                    lines,
                    returned: HashMap::new(),
                };
                book.holds.insert(ask.request_id.clone(), hold);
                Ok(pb::ReserveResponse {
                    hold: Some(book.show(&ask.request_id)),
                })
            })
            .await
    }

    async fn stand(
        &self,
        _: Request<pb::StandRequest>,
    ) -> Result<Response<pb::StandResponse>, Status> {
        Err(Status::unimplemented("not for orders"))
    }

    async fn extend(
        &self,
        request: Request<pb::ExtendRequest>,
    ) -> Result<Response<pb::ExtendResponse>, Status> {
        let ask = request.into_inner();
        self.line
            .over("extend", || {
                let now = self.now();
                let mut book = self.book.lock().expect("held briefly");
                book.expire(now);
                book.fence(ask.command)?;
                let hold = book.holds.get_mut(&ask.hold_id).ok_or_else(unknown)?;
                if hold.state != HoldState::Live {
                    return Err(ended(hold.state));
                }
                hold.expires_at = hold.expires_at.max(later(now, ask.ttl));
                Ok(pb::ExtendResponse {
                    hold: Some(book.show(&ask.hold_id)),
                })
            })
            .await
    }

    async fn commit(
        &self,
        request: Request<pb::CommitRequest>,
    ) -> Result<Response<pb::CommitResponse>, Status> {
        let ask = request.into_inner();
        self.line
            .over("commit", || {
                let mut book = self.book.lock().expect("held briefly");
                book.expire(self.now());
                book.fence(ask.command)?;
                let hold = book.holds.get(&ask.hold_id).ok_or_else(unknown)?;
                let (state, lines) = (hold.state, hold.lines.clone());
                match state {
                    HoldState::Committed => {}
                    HoldState::Live => {
                        for (pool, units) in &lines {
                            let pool = book.pools.get_mut(pool).expect("reserved from it");
                            pool.held -= units;
                            pool.sold += units;
                        }
                    }
                    HoldState::Expired => {
                        if let Some(fault) = book.short(&lines) {
                            return Err(fault.into());
                        }
                        for (pool, units) in &lines {
                            book.pools.get_mut(pool).expect("looked at").sold += units;
                        }
                    }
                    _ => return Err(ended(state)),
                }
                let hold = book.holds.get_mut(&ask.hold_id).expect("just there");
                hold.state = HoldState::Committed;
                Ok(pb::CommitResponse {
                    hold: Some(book.show(&ask.hold_id)),
                })
            })
            .await
    }

    async fn release(
        &self,
        request: Request<pb::ReleaseRequest>,
    ) -> Result<Response<pb::ReleaseResponse>, Status> {
        let ask = request.into_inner();
        self.line
            .over("release", || {
                let now = self.now();
                let mut book = self.book.lock().expect("held briefly");
                book.expire(now);
                book.fence(ask.command)?;
                let tombstone = || Hold {
                    state: HoldState::Released,
                    expires_at: now,
                    lines: Vec::new(),
                    returned: HashMap::new(),
                };
                let hold = book
                    .holds
                    .entry(ask.hold_id.clone())
                    .or_insert_with(tombstone);
                let (state, lines) = (hold.state, hold.lines.clone());
                if state == HoldState::Committed {
                    return Err(conflict("HOLD_COMMITTED").into());
                }
                hold.state = HoldState::Released;
                if state == HoldState::Live {
                    for (pool, units) in &lines {
                        book.pools.get_mut(pool).expect("reserved from it").held -= units;
                    }
                }
                Ok(pb::ReleaseResponse {
                    state: HoldState::Released.into(),
                })
            })
            .await
    }

    async fn r#return(
        &self,
        request: Request<pb::ReturnRequest>,
    ) -> Result<Response<pb::ReturnResponse>, Status> {
        let ask = request.into_inner();
        self.line
            .over("return", || {
                let mut book = self.book.lock().expect("held briefly");
                book.expire(self.now());
                if book.returns.contains(&ask.request_id) {
                    return Ok(pb::ReturnResponse {});
                }
                let hold = book.holds.get_mut(&ask.hold_id).ok_or_else(unknown)?;
                if hold.state != HoldState::Committed {
                    return Err(conflict("HOLD_NOT_COMMITTED").into());
                }
                let back = summed(ask.lines);
                for (pool, units) in &back {
                    let sold = hold.lines.iter().find(|(key, _)| key == pool);
                    let sold = sold.map_or(0, |(_, units)| *units);
                    if hold.returned.get(pool).copied().unwrap_or_default() + units > sold {
                        return Err(conflict("RETURN_EXCEEDS_SOLD").into());
                    }
                }
                for (pool, units) in &back {
                    *hold.returned.entry(pool.clone()).or_default() += units;
                }
                for (pool, units) in &back {
                    book.pools.get_mut(pool).expect("sold from it").sold -= units;
                }
                book.returns.insert(ask.request_id);
                Ok(pb::ReturnResponse {})
            })
            .await
    }

    async fn bind(
        &self,
        _: Request<pb::BindRequest>,
    ) -> Result<Response<pb::BindResponse>, Status> {
        Err(Status::unimplemented("orders leave that to the message"))
    }

    async fn adjust(
        &self,
        request: Request<pb::AdjustRequest>,
    ) -> Result<Response<pb::AdjustResponse>, Status> {
        let ask = request.into_inner();
        self.line
            .over("adjust", || {
                let mut book = self.book.lock().expect("held briefly");
                book.expire(self.now());
                match book.adjustments.get(&ask.request_id) {
                    Some(first) if *first == ask.changes => {}
                    Some(_) => return Err(conflict("REQUEST_MISMATCH").into()),
                    None => {
                        for change in &ask.changes {
                            book.adjust(change)?;
                        }
                        (book.adjustments).insert(ask.request_id, ask.changes.clone());
                    }
                }
                let pools = ask.changes.iter().map(|change| &change.pool);
                Ok(pb::AdjustResponse {
                    pools: pools.filter_map(|key| book.show_pool(key)).collect(),
                })
            })
            .await
    }

    async fn set_policy(
        &self,
        _: Request<pb::SetPolicyRequest>,
    ) -> Result<Response<pb::SetPolicyResponse>, Status> {
        Err(Status::unimplemented("not for orders"))
    }

    async fn get_pools(
        &self,
        request: Request<pb::GetPoolsRequest>,
    ) -> Result<Response<pb::GetPoolsResponse>, Status> {
        let keys = request.into_inner().keys;
        self.line
            .over("get_pools", || {
                let mut book = self.book.lock().expect("held briefly");
                book.expire(self.now());
                Ok(pb::GetPoolsResponse {
                    pools: keys.iter().filter_map(|key| book.show_pool(key)).collect(),
                })
            })
            .await
    }

    async fn list_pools(
        &self,
        _: Request<pb::ListPoolsRequest>,
    ) -> Result<Response<pb::ListPoolsResponse>, Status> {
        Err(Status::unimplemented("not for orders"))
    }

    type WatchStream = tonic::codegen::BoxStream<pb::WatchResponse>;

    async fn watch(
        &self,
        _: Request<pb::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not for orders"))
    }

    async fn list_movements(
        &self,
        _: Request<pb::ListMovementsRequest>,
    ) -> Result<Response<pb::ListMovementsResponse>, Status> {
        Err(Status::unimplemented("not for orders"))
    }
}
