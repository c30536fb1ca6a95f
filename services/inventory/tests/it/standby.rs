//! Two processes of the service on one database: one writes, the other passes on what it is asked.

use std::time::{Duration, Instant};

use futures::future::join_all;
use holdfast_inventory::audit;
use holdfast_kernel::{Id, RequestId, id};
use holdfast_platform::{fault::Fault, identity::Role, wire};
use holdfast_proto::inventory::v1 as pb;
use sqlx::Executor;
use tonic::{Code, Status};

use crate::world::{World, line};

/// How soon another process has to sell, whatever became of the writer.
const TAKEOVER_MAX: Duration = Duration::from_secs(5);
/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// One that writes, and one that stands by.
async fn pair() -> (World, World) {
    let writer = World::reached().await;
    // Who has written something is the writer.
    writer.stock("sku:A", 20).await;
    let standby = writer.another().await;
    (writer, standby)
}

/// All that a caller can see of a refusal.
fn told(status: &Status) -> String {
    let fault = Fault::from_status(status);
    let figures: Vec<_> = fault.figures().collect();
    format!(
        "{:?} {} {:?} {figures:?} {:?}",
        status.code(),
        fault.reason(),
        fault.text(),
        fault.items(),
    )
}

/// Asks the one that stands by, then the one that writes, and holds the second answer against the first.
macro_rules! same_at_both {
    ($writer:ident, $standby:ident, $call:ident, $request:expr) => {{
        let first = $standby.client().$call($request).await;
        let second = $writer.client().$call($request).await;
        let first = first.map(tonic::Response::into_inner);
        let second = second.map(tonic::Response::into_inner);
        let told = |refused| told(&refused);
        let (first, second) = (first.map_err(told), second.map_err(told));
        assert_eq!(first, second, "{}", stringify!($call));
        first
    }};
}

#[tokio::test]
async fn every_call_is_done_once_and_answered_alike_wherever_it_is_asked() {
    let (writer, standby) = pair().await;
    let staff = writer.somebody(Role::Staff);
    let id = || RequestId::generate().to_string();
    let ttl = || Some(wire::duration(Duration::from_mins(20)));
    let actor = || "usr_buyer".to_owned();

    let adjust = pb::AdjustRequest {
        request_id: id(),
        actor: actor(),
        reason: "opening stock".to_owned(),
        changes: vec![pb::CapacityChange {
            pool: "sku:B".to_owned(),
            delta: 7,
            expected_capacity_version: 0,
        }],
    };
    same_at_both!(writer, standby, adjust, staff.ask(adjust.clone())).expect("a new pool");
    let policy = pb::SetPolicyRequest {
        request_id: id(),
        actor: actor(),
        pool: "sku:B".to_owned(),
        overbook: 1,
        low_at: None,
        expected_capacity_version: 1,
    };
    same_at_both!(writer, standby, set_policy, staff.ask(policy.clone())).expect("as it stands");

    let reserve = World::reserve_request(vec![line("sku:A", 3), line("sku:B", 1)]);
    let made = same_at_both!(writer, standby, reserve, writer.seller(reserve.clone()));
    let hold_id = made.expect("free").hold.expect("set").id;
    let extend = pb::ExtendRequest {
        hold_id: hold_id.clone(),
        ttl: ttl(),
        command: None,
    };
    same_at_both!(writer, standby, extend, writer.seller(extend.clone())).expect("live");
    let bind = pb::BindRequest {
        hold_id: hold_id.clone(),
        reference: "ord_1".to_owned(),
    };
    same_at_both!(writer, standby, bind, writer.seller(bind.clone())).expect("live");
    let commit = pb::CommitRequest {
        hold_id: hold_id.clone(),
        actor: actor(),
        command: None,
    };
    same_at_both!(writer, standby, commit, writer.seller(commit.clone())).expect("live");
    let back = pb::ReturnRequest {
        request_id: id(),
        hold_id,
        actor: actor(),
        lines: vec![line("sku:A", 1)],
    };
    same_at_both!(writer, standby, r#return, writer.seller(back.clone())).expect("sold");
    let given_up = World::reserve_request(vec![line("sku:A", 5)]);
    let release = pb::ReleaseRequest {
        hold_id: given_up.request_id.clone(),
        actor: actor(),
        command: None,
    };
    writer.seller_reserves(given_up).await.expect("free");
    same_at_both!(writer, standby, release, writer.seller(release.clone())).expect("live");

    let keys = vec!["sku:A".to_owned(), "sku:B".to_owned()];
    let get = pb::GetPoolsRequest { keys, at: None };
    let seen = same_at_both!(writer, standby, get_pools, writer.seller(get.clone()));
    let figures = |pool: &pb::Pool| (pool.capacity, pool.held, pool.sold, pool.available);
    let seen: Vec<_> = seen.expect("peers may").pools.iter().map(figures).collect();
    assert_eq!(seen, [(20, 0, 2, 18), (7, 0, 1, 7)]);
    // Who asks goes along: the public is told less.
    let seen = same_at_both!(writer, standby, get_pools, get.clone()).expect("anyone may");
    assert_eq!(figures(&seen.pools[0]), (0, 0, 0, 18));
    let list = pb::ListPoolsRequest::default();
    let listed = same_at_both!(writer, standby, list_pools, staff.ask(list.clone()));
    assert_eq!(listed.expect("staff may").pools.len(), 2);
    let book = pb::ListMovementsRequest {
        pool: "sku:A".to_owned(),
        page: None,
    };
    let book = same_at_both!(writer, standby, list_movements, staff.ask(book.clone()));
    assert_eq!(book.expect("staff may").movements.len(), 6);
}

#[tokio::test]
async fn every_refusal_arrives_whole() {
    let (writer, standby) = pair().await;
    let staff = writer.somebody(Role::Staff);
    let reason = |told: &str| told.split(' ').nth(1).map(str::to_owned);

    let short = World::reserve_request(vec![line("sku:A", 21)]);
    let refused = same_at_both!(writer, standby, reserve, writer.seller(short.clone()));
    let refused = refused.expect_err("twenty are there");
    assert_eq!(reason(&refused).as_deref(), Some("INSUFFICIENT_UNITS"));
    assert!(refused.contains(r#""requested": Number(21)"#), "{refused}");

    let late = pb::AdjustRequest {
        request_id: RequestId::generate().to_string(),
        actor: "usr_staff".to_owned(),
        reason: "counted".to_owned(),
        changes: vec![pb::CapacityChange {
            pool: "sku:A".to_owned(),
            delta: 1,
            expected_capacity_version: 7,
        }],
    };
    let refused = same_at_both!(writer, standby, adjust, staff.ask(late.clone()));
    let refused = refused.expect_err("it stands at 1");
    assert_eq!(reason(&refused).as_deref(), Some("CAPACITY_CHANGED"));
    assert!(
        refused.contains(r#"("capacity_version", "1")"#),
        "{refused}"
    );

    let unknown = pb::CommitRequest {
        hold_id: RequestId::generate().to_string(),
        actor: "usr_buyer".to_owned(),
        command: None,
    };
    let refused = same_at_both!(writer, standby, commit, writer.seller(unknown.clone()));
    let refused = refused.expect_err("no such hold");
    assert_eq!(reason(&refused).as_deref(), Some("UNKNOWN_HOLD"));

    let malformed = pb::ReserveRequest::default();
    let refused = same_at_both!(writer, standby, reserve, writer.seller(malformed.clone()));
    let refused = refused.expect_err("no request id");
    assert_eq!(reason(&refused).as_deref(), Some("INVALID_ARGUMENT"));

    let user = writer.somebody(Role::User);
    let forbidden = World::reserve_request(vec![line("sku:A", 1)]);
    let refused = same_at_both!(writer, standby, reserve, user.ask(forbidden.clone()));
    let refused = refused.expect_err("no seller");
    assert_eq!(reason(&refused).as_deref(), Some("FORBIDDEN"));
}

#[tokio::test]
async fn a_call_that_was_passed_on_once_is_not_passed_on_again() {
    let (writer, standby) = pair().await;
    let reserve = World::reserve_request(vec![line("sku:A", 1)]);
    let mut passed_on = writer.seller(reserve.clone());
    let mark = "1".parse().expect("ascii");
    passed_on
        .metadata_mut()
        .insert("x-holdfast-forwarded", mark);
    let refused = standby.client().reserve(passed_on).await;
    assert_eq!(refused.expect_err("it stands by").code(), Code::Unavailable);
    let hold = standby.seller_reserves(reserve).await;
    hold.expect("asked for the first time, it is passed on");
}

#[tokio::test]
async fn a_writer_that_nobody_can_reach_makes_the_others_unavailable() {
    let writer = World::new().await;
    writer.stock("sku:A", 20).await;
    let standby = writer.another().await;
    let refused = standby.reserve(vec![line("sku:A", 1)]).await;
    assert_eq!(refused.expect_err("it stands by").code(), Code::Unavailable);
}

#[tokio::test]
async fn an_order_heard_of_by_a_process_that_stands_by_is_bound_to_its_hold() {
    let (writer, standby) = pair().await;
    let order: Id<id::Order> = Id::generate();
    let reserve = pb::ReserveRequest {
        request_id: order.uuid().to_string(),
        ..World::reserve_request(vec![line("sku:A", 1)])
    };
    writer.seller_reserves(reserve.clone()).await.expect("free");
    standby.hear_of_order(&order.to_string()).await;
    let bound = writer.seller_reserves(reserve).await.expect("its own");
    assert_eq!(bound.reference, order.to_string());
    // It mirrors a booking, and has no hold.
    let without: Id<id::Order> = Id::generate();
    standby.hear_of_order(&without.to_string()).await;
}

/// Asks again, with the same id, until somebody knows.
async fn insist(world: &World, reserve: &pb::ReserveRequest) -> Result<pb::Hold, Status> {
    let asked = Instant::now();
    loop {
        match world.seller_reserves(reserve.clone()).await {
            Err(status) if Fault::from_status(&status).is_transient() => {
                assert!(asked.elapsed() < PATIENCE, "{status}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            answer => return answer,
        }
    }
}

/// Thirty buyers at the standby for twenty units: while they ask, `struck` happens to the writer.
async fn twenty_of_thirty_buy(standby: &World, struck: impl Future<Output = ()>) {
    let requests: Vec<_> = (0..30)
        .map(|number| pb::ReserveRequest {
            account: format!("usr_{number}"),
            ..World::reserve_request(vec![line("sku:A", 1)])
        })
        .collect();
    let buyers = join_all(requests.iter().map(|request| insist(standby, request)));
    let ((), answers) = tokio::join!(struck, buyers);
    let (bought, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(bought.len(), 20);
    for status in refused.into_iter().filter_map(Result::err) {
        let fault = Fault::from_status(&status);
        assert_eq!(fault.reason(), "INSUFFICIENT_UNITS");
    }
    // Asked once more, with the ids of those who bought, it sells nothing more.
    for hold in bought.into_iter().flatten() {
        let again = pb::ReserveRequest {
            request_id: hold.id.clone(),
            ..World::reserve_request(hold.lines.clone())
        };
        let known = standby.seller_reserves(again).await.expect("its own");
        assert_eq!(known, hold);
    }
    assert_eq!(standby.pool("sku:A").await.held, 20);
    let mut db = standby.owner().acquire().await.expect("a connection");
    let audit = audit(&mut db, &standby.seal_key(), |_| {}).await;
    let audit = audit.expect("it can run");
    assert_eq!(audit.findings, []);
}

#[tokio::test]
async fn a_killed_writer_is_followed_by_the_one_that_stood_by_and_nothing_is_sold_twice() {
    let (writer, standby) = pair().await;
    standby.stock("sku:B", 1).await;
    let killed = async {
        writer.kill().await;
        let died = Instant::now();
        let first = World::reserve_request(vec![line("sku:B", 1)]);
        insist(&standby, &first).await.expect("free");
        println!("the next sold {:?} after the kill", died.elapsed());
        assert!(died.elapsed() < TAKEOVER_MAX, "{:?}", died.elapsed());
    };
    twenty_of_thirty_buy(&standby, killed).await;
}

#[tokio::test]
async fn a_writer_whose_connection_is_cut_is_followed_or_goes_on_and_nothing_is_sold_twice() {
    let (writer, standby) = pair().await;
    standby.stock("sku:B", 2).await;
    let cut = async {
        let sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'holdfast ledger'";
        let owner = sqlx::PgPool::connect(&writer.admin_url()).await;
        let cut = owner.expect("a connection").execute(sessions).await;
        cut.expect("the superuser may");
        let since = Instant::now();
        for world in [&standby, &writer] {
            let first = World::reserve_request(vec![line("sku:B", 1)]);
            insist(world, &first).await.expect("free");
        }
        println!("both sold {:?} after the cut", since.elapsed());
        assert!(since.elapsed() < TAKEOVER_MAX, "{:?}", since.elapsed());
    };
    twenty_of_thirty_buy(&standby, cut).await;
}
