//! The inventory service at its door, on a real database.

use holdfast_platform::{fault::Fault, identity::Role, wire};
use holdfast_proto::{
    inventory::v1::{self as pb, stand_response::Outcome},
    page::v1::PageRequest,
    saga::v1::Command,
};
use tonic::Code;
use world::{World, line};

mod audit;
mod closing;
mod shown;
mod standby;
mod statements;
mod watch;
mod world;

#[tokio::test]
async fn units_go_from_free_to_held_to_sold_and_back() {
    let world = World::new().await;
    world.stock("sku:A", 5).await;
    let hold = world
        .reserve(vec![line("sku:A", 2), line("sku:A", 1)])
        .await
        .expect("free");
    assert_eq!(hold.state(), pb::HoldState::Live);
    assert_eq!(hold.lines, [line("sku:A", 3)]);
    let sold = world.commit(&hold.id).await.expect("live");
    assert_eq!(sold.state(), pb::HoldState::Committed);
    world
        .give_back(&hold.id, vec![line("sku:A", 1)])
        .await
        .expect("sold");
    let pool = world.pool("sku:A").await;
    assert_eq!(
        (pool.capacity, pool.held, pool.sold, pool.available),
        (5, 0, 2, 3)
    );
}

#[tokio::test]
async fn a_refusal_names_every_short_pool_with_what_is_left() {
    let world = World::new().await;
    world.stock("sku:A", 2).await;
    world.stock("sku:B", 1).await;
    let lines = vec![line("sku:A", 3), line("sku:B", 1)];
    let fault = Fault::from_status(&world.reserve(lines).await.expect_err("two are left"));
    assert_eq!(fault.reason(), "INSUFFICIENT_UNITS");
    assert_eq!(fault.items().len(), 1);
    assert_eq!(fault.items()[0]["pool"], "sku:A");
    assert_eq!(fault.items()[0]["requested"], 3);
    assert_eq!(fault.items()[0]["available"], 2);
}

#[tokio::test]
async fn the_public_sees_what_is_available_and_nothing_else() {
    let world = World::new().await;
    world.stock("sku:A", 5).await;
    world.stock("voucher:SUMMER10", 5).await;
    world.stock("limit:concert:somebody", 5).await;
    world.reserve(vec![line("sku:A", 2)]).await.expect("free");
    let request = pb::GetPoolsRequest {
        keys: vec![
            "sku:A".to_owned(),
            "voucher:SUMMER10".to_owned(),
            "limit:concert:somebody".to_owned(),
            "sku:none".to_owned(),
            "nonsense".to_owned(),
        ],
        at: None,
    };
    let answer = world
        .client()
        .get_pools(request)
        .await
        .expect("anyone may ask");
    let seen = pb::Pool {
        key: "sku:A".to_owned(),
        available: 3,
        ..pb::Pool::default()
    };
    assert_eq!(answer.into_inner().pools, [seen]);
}

#[tokio::test]
async fn users_can_neither_take_units_nor_change_capacities() {
    let world = World::new().await;
    let user = world.somebody(Role::User);
    let reserve = world
        .client()
        .reserve(user.ask(pb::ReserveRequest::default()))
        .await;
    assert_eq!(
        reserve.expect_err("no seller").code(),
        Code::PermissionDenied
    );
    let adjust = world
        .client()
        .adjust(user.ask(pb::AdjustRequest::default()))
        .await;
    assert_eq!(adjust.expect_err("no staff").code(), Code::PermissionDenied);
    let stranger = world.client().commit(pb::CommitRequest::default()).await;
    assert_eq!(stranger.expect_err("nobody").code(), Code::Unauthenticated);
}

type Spoil = fn(&mut pb::ReserveRequest);

#[tokio::test]
async fn malformed_requests_name_the_field_and_change_nothing() {
    let world = World::new().await;
    world.stock("sku:A", 5).await;
    let good = World::reserve_request(vec![line("sku:A", 1)]);
    let bad: [(&str, Spoil); 6] = [
        ("request_id", |r| r.request_id = "ord_1".to_owned()),
        ("actor", |r| r.actor = String::new()),
        ("pool", |r| r.lines[0].pool = "A".to_owned()),
        ("lines", |r| r.lines[0].quantity = 0),
        ("ttl", |r| r.ttl = None),
        ("command.epoch", |r| r.command = Some(Command::default())),
    ];
    for (field, spoil) in bad {
        let mut request = good.clone();
        spoil(&mut request);
        let refused = world.seller_reserves(request).await.expect_err(field);
        assert_eq!(refused.code(), Code::InvalidArgument, "{field}");
        assert!(
            refused.message().contains(field),
            "{field}: {}",
            refused.message()
        );
    }
    assert_eq!(world.pool("sku:A").await.available, 5);
}

#[tokio::test]
async fn the_past_reads_as_it_was_though_expiries_were_written_later() {
    let world = World::new().await;
    world.stock("sku:A", 5).await;
    let opened = world.now();
    world.pass(10);
    world.reserve(vec![line("sku:A", 2)]).await.expect("free");
    let held = world.now();
    world.pass(300);
    let sold = world.reserve(vec![line("sku:A", 1)]).await.expect("free");
    world.commit(&sold.id).await.expect("live");
    // The first hold is over here, and nothing is asked of the pool until much later.
    world.pass(300);
    let over = world.now();
    world.pass(3_600);
    world.stock("sku:B", 1).await;
    let at = async |moment| {
        let pools = world.pools_at(&["sku:A", "sku:B"], moment).await;
        assert_eq!(pools.len(), 1, "sku:B was not there yet");
        (pools[0].held, pools[0].sold, pools[0].available)
    };
    assert_eq!(at(opened).await, (0, 0, 5));
    assert_eq!(at(held).await, (2, 0, 3));
    assert_eq!(at(over).await, (0, 1, 4));
}

#[tokio::test]
async fn a_book_is_read_in_pages_newest_first_without_gap_or_repeat() {
    let world = World::new().await;
    world.stock("sku:A", 50).await;
    for _ in 0..6 {
        world.reserve(vec![line("sku:A", 1)]).await.expect("free");
    }
    let mut versions = Vec::new();
    let mut token = String::new();
    loop {
        let request = pb::ListMovementsRequest {
            pool: "sku:A".to_owned(),
            page: Some(PageRequest { size: 3, token }),
        };
        let staff = world.somebody(Role::Staff);
        let answer = world.client().list_movements(staff.ask(request)).await;
        let answer = answer.expect("staff may read").into_inner();
        versions.extend(answer.movements.iter().map(|movement| movement.version));
        token = answer.page.expect("set").next_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(versions, [7, 6, 5, 4, 3, 2, 1]);
}

#[tokio::test]
async fn pools_are_listed_by_prefix() {
    let world = World::new().await;
    for key in ["seat:e:1", "seat:e:2", "seat:f:1", "sku:A"] {
        world.stock(key, 1).await;
    }
    let request = pb::ListPoolsRequest {
        prefix: "seat:e:".to_owned(),
        page: None,
    };
    let staff = world.somebody(Role::Staff);
    let answer = world.client().list_pools(staff.ask(request)).await;
    let pools = answer.expect("staff may read").into_inner().pools;
    let keys: Vec<&str> = pools.iter().map(|pool| pool.key.as_str()).collect();
    assert_eq!(keys, ["seat:e:1", "seat:e:2"]);
}

#[tokio::test]
async fn many_batches_fold_into_one_state_a_pool() {
    let world = World::new().await;
    world.stock("sku:A", 50).await;
    for _ in 0..6 {
        world.reserve(vec![line("sku:A", 1)]).await.expect("free");
    }
    assert_eq!(
        world.announced().await,
        ["stock.updated sku:A v7 available=44"]
    );
    assert_eq!(world.announced().await, Vec::<String>::new());
}

#[tokio::test]
async fn an_expired_hold_is_announced_unless_a_late_commit_took_it_up_again() {
    let world = World::new().await;
    world.stock("sku:A", 5).await;
    let lost = world.reserve(vec![line("sku:A", 1)]).await.expect("free");
    let late = world.reserve(vec![line("sku:A", 1)]).await.expect("free");
    world.pass(600);
    world.commit(&late.id).await.expect("still free");
    world
        .reserve(vec![line("sku:A", 4)])
        .await
        .expect("free again");
    let announced = world.announced().await;
    let expired: Vec<&String> = announced
        .iter()
        .filter(|news| news.starts_with("hold"))
        .collect();
    let id: holdfast_kernel::RequestId = lost.id.parse().expect("a UUID");
    let key = id.makes::<holdfast_kernel::id::Hold>();
    assert_eq!(expired, [&format!("hold.expired {key} v1")]);
}

#[tokio::test]
async fn who_stands_in_line_is_told_what_he_was_granted_and_that_it_ran_out() {
    let world = World::new().await;
    world.stock("sku:A", 1).await;
    let held = world.reserve(vec![line("sku:A", 1)]).await.expect("free");
    let mut ask = World::stand_request(vec![]);
    let alternatives = [1, 2].map(|units| pb::Alternative {
        lines: vec![line("sku:A", units)],
    });
    ask.any_of.push(pb::AnyOf {
        alternatives: alternatives.into(),
    });
    ask.lines.push(line("limit:e:usr_patient", 1));
    ask.makes.push(pb::NewPool {
        pool: "limit:e:usr_patient".to_owned(),
        capacity: 2,
    });
    let waiting = world.stand(&ask).await.expect("he may stand");
    let Outcome::Waiting(pb::Waiting { expires_at }) = waiting else {
        panic!("{waiting:?}");
    };
    let hour = jiff::SignedDuration::from_hours(1);
    assert_eq!(wire::moment(expires_at.as_ref()), Some(world.now() + hour));
    world.release(&held.id).await.expect("live");
    let id: holdfast_kernel::RequestId = ask.request_id.parse().expect("a UUID");
    let key = id.makes::<holdfast_kernel::id::Hold>().to_string();
    let news = world.news().await;
    let granted = news.iter().find(|news| news.kind == "hold.granted");
    let granted = granted.expect("he is told");
    assert_eq!((granted.key.as_str(), granted.version), (key.as_str(), 1));
    assert_eq!(granted.data["reference"], "wait_1");
    assert_eq!(granted.data["account"], "usr_patient");
    assert_eq!(granted.data["taken"], serde_json::json!([0]));
    assert_eq!(
        granted.data["lines"],
        serde_json::json!([
            {"pool": "limit:e:usr_patient", "quantity": 1},
            {"pool": "sku:A", "quantity": 1},
        ])
    );
    // What is between him and the seller is told to nobody.
    assert!(news.iter().all(|news| !news.key.starts_with("limit:")));
    let Outcome::Hold(got) = world.stand(&ask).await.expect("known") else {
        panic!("it was granted");
    };
    assert_eq!((got.id, got.taken), (ask.request_id, vec![0]));
    world.pass(600);
    world.reserve(vec![line("sku:A", 1)]).await.expect("free");
    let told = world.announced().await;
    assert!(told.contains(&format!("hold.expired {key} v2")), "{told:?}");
}

#[tokio::test]
async fn who_waited_in_vain_is_told_that_his_time_is_over() {
    let world = World::new().await;
    world.stock("sku:A", 1).await;
    let ask = World::stand_request(vec![line("sku:A", 2)]);
    let waiting = world.stand(&ask).await.expect("he may stand");
    assert!(matches!(waiting, Outcome::Waiting(_)), "{waiting:?}");
    world.announced().await;
    world.pass(3_600);
    let ended = world.stand(&ask).await.expect_err("his time is over");
    assert_eq!(ended.code(), Code::FailedPrecondition);
    // Written down by the batch that this request rests on.
    world.reserve(vec![line("sku:A", 1)]).await.expect("free");
    let id: holdfast_kernel::RequestId = ask.request_id.parse().expect("a UUID");
    let key = id.makes::<holdfast_kernel::id::Hold>();
    let told = world.announced().await;
    assert!(told.contains(&format!("hold.expired {key} v1")), "{told:?}");
}

#[tokio::test]
async fn a_wish_out_of_bounds_names_what_is_wrong_with_it() {
    let world = World::new().await;
    world.stock("sku:A", 5).await;
    let good = World::reserve_request(vec![line("sku:A", 1)]);
    let group = |count: usize| pb::AnyOf {
        alternatives: vec![
            pb::Alternative {
                lines: vec![line("sku:A", 1)],
            };
            count
        ],
    };
    let bad: [(&str, pb::ReserveRequest); 4] = [
        (
            "any_of: 0 alternatives",
            pb::ReserveRequest {
                any_of: vec![group(0)],
                ..good.clone()
            },
        ),
        (
            "any_of: 17 alternatives",
            pb::ReserveRequest {
                any_of: vec![group(17)],
                ..good.clone()
            },
        ),
        (
            "any_of: 17 groups",
            pb::ReserveRequest {
                any_of: vec![group(1); 17],
                ..good.clone()
            },
        ),
        (
            "makes: sku:A with capacity 1",
            pb::ReserveRequest {
                makes: vec![pb::NewPool {
                    pool: "sku:A".to_owned(),
                    capacity: 1,
                }],
                ..good.clone()
            },
        ),
    ];
    for (text, request) in bad {
        let refused = world.seller_reserves(request).await.expect_err(text);
        assert_eq!(refused.code(), Code::InvalidArgument, "{text}");
        assert!(refused.message().contains(text), "{}", refused.message());
    }
    let lines = (0..257).map(|n| line(&format!("seat:e:{n}"), 1)).collect();
    let refused = world.stand(&World::stand_request(lines)).await;
    let refused = refused.expect_err("too many lines");
    assert!(refused.message().contains("257"), "{}", refused.message());
}

#[tokio::test]
async fn an_order_binds_its_hold_when_the_call_was_lost() {
    let world = World::new().await;
    world.stock("sku:A", 5).await;
    let hold = world.reserve(vec![line("sku:A", 1)]).await.expect("free");
    let id: holdfast_kernel::RequestId = hold.id.parse().expect("a UUID");
    let order = id.makes::<holdfast_kernel::id::Order>();
    for _ in 0..2 {
        world.hear_of_order(&order.to_string()).await;
    }
    let bound = world.commit(&hold.id).await.expect("live");
    assert_eq!(bound.reference, order.to_string());
    // One that has no hold here is no fault.
    world.hear_of_order("ord_00000000000000000000000001").await;
}

#[tokio::test]
async fn a_hold_that_was_reserved_for_an_order_is_not_written_again_when_its_news_comes() {
    let world = World::new().await;
    world.stock("sku:A", 5).await;
    let mut request = World::reserve_request(vec![line("sku:A", 1)]);
    let id: holdfast_kernel::RequestId = request.request_id.parse().expect("a UUID");
    let order = id.makes::<holdfast_kernel::id::Order>().to_string();
    request.reference.clone_from(&order);
    let hold = world.seller_reserves(request).await.expect("free");
    assert_eq!(hold.reference, order);
    let written = world.batches_written().await;
    world.hear_of_order(&order).await;
    assert_eq!(world.batches_written().await, written);
}

#[tokio::test]
async fn the_run_time_role_can_change_nothing_that_was_written_into_the_books() {
    let world = World::new().await;
    world.stock("sku:A", 1).await;
    let rights: Vec<(String, String)> = sqlx::query_as(
        "SELECT table_name::text, privilege_type::text FROM information_schema.role_table_grants
         WHERE table_schema = 'inventory' AND grantee = 'inventory_app'
           AND (table_name LIKE 'movement%' OR table_name IN ('checkpoint', 'closing', 'request'))
           AND privilege_type NOT IN ('SELECT', 'INSERT')",
    )
    .fetch_all(&world.owner())
    .await
    .expect("rights can be read");
    assert_eq!(rights, []);
    let owned: bool = sqlx::query_scalar(
        "SELECT count(*) = 3 AND bool_and(tableowner = 'inventory_owner') FROM pg_tables
         WHERE schemaname = 'inventory' AND starts_with(tablename, 'movement_2')",
    )
    .fetch_one(&world.owner())
    .await
    .expect("tables can be read");
    assert!(owned, "this month and the two after it, made by the owner");
}
