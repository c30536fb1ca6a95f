//! What the door shows, and what audits find.

use holdfast_kernel::{Id, id};
use holdfast_proto::{
    orders::v1::{self as pb, OrderStatus},
    page::v1::PageRequest,
    users::v1::GetProfileResponse,
};

use crate::world::{World, new_key, order_of, reason};

async fn list(
    world: &World,
    asker: &holdfast_testkit::Asker,
    ask: pb::ListOrdersRequest,
) -> pb::ListOrdersResponse {
    let mut client = world.process.client();
    let request = asker.ask(ask);
    let answer = world
        .process
        .spawn(async move { client.list_orders(request).await });
    answer
        .await
        .expect("it lives")
        .expect("a list")
        .into_inner()
}

#[tokio::test]
async fn a_list_runs_newest_first_and_neither_repeats_nor_skips() {
    let world = World::new().await;
    let mut bought = Vec::new();
    for _ in 0..5 {
        world.pass(1);
        bought.insert(
            0,
            world.buy(&[("TSHIRT", 1)], "ok").await.expect("bought").id,
        );
    }
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let ask = pb::ListOrdersRequest {
            page: Some(PageRequest { size: 2, token }),
            ..pb::ListOrdersRequest::default()
        };
        let page = list(&world, &world.customer, ask).await;
        assert!(page.orders.iter().all(|order| order.items.len() == 1));
        seen.extend(page.orders.into_iter().map(|order| order.id));
        token = page.page.expect("set").next_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, bought);
}

#[tokio::test]
async fn a_user_sees_their_own_orders_and_staff_may_see_all_of_one_status() {
    let mut world = World::new().await;
    let mine = world.buy(&[("TSHIRT", 1)], "ok").await.expect("bought").id;
    let waits = world
        .buy(&[("TSHIRT", 1)], "challenge")
        .await
        .expect("on its way")
        .id;
    let me = world.customer.clone();
    world.customer = world
        .realm
        .somebody(holdfast_platform::identity::Role::User);
    let theirs = world.buy(&[("MUG", 1)], "ok").await.expect("bought").id;

    let ids = |page: pb::ListOrdersResponse| {
        let mut ids: Vec<String> = page.orders.into_iter().map(|order| order.id).collect();
        ids.sort();
        ids
    };
    let sorted = |mut ids: Vec<String>| {
        ids.sort();
        ids
    };
    let own = list(&world, &me, pb::ListOrdersRequest::default()).await;
    assert_eq!(ids(own), sorted(vec![mine.clone(), waits]));
    let ask = pb::ListOrdersRequest {
        user_id: "*".to_owned(),
        status: OrderStatus::Confirmed.into(),
        ..pb::ListOrdersRequest::default()
    };
    let all = list(&world, &world.staff, ask.clone()).await;
    assert_eq!(ids(all), sorted(vec![mine, theirs]));
    let mut client = world.process.client();
    let request = me.ask(ask);
    let refused = world
        .process
        .spawn(async move { client.list_orders(request).await });
    assert_eq!(
        reason(&refused.await.expect("it lives").expect_err("no staff")),
        "UNKNOWN_USER"
    );
}

#[tokio::test]
async fn a_list_narrows_to_a_span_of_time_and_a_sku_whoever_asks() {
    let world = World::new().await;
    let mut bought = Vec::new();
    for sku in ["TSHIRT", "MUG", "TSHIRT", "MUG"] {
        world.pass(60);
        bought.push(world.buy(&[(sku, 1)], "ok").await.expect("bought"));
    }
    let made_at = |place: usize| bought[place].created_at;
    for (from, to, sku, want) in [
        (None, None, "TSHIRT", &[2, 0][..]),
        (made_at(1), made_at(3), "", &[2, 1][..]),
        (made_at(1), made_at(3), "MUG", &[1][..]),
        (made_at(3), made_at(1), "", &[][..]),
        (None, None, "NOTHING", &[][..]),
    ] {
        let want: Vec<&str> = want
            .iter()
            .map(|&place| bought[place].id.as_str())
            .collect();
        for (asker, user_id) in [(&world.customer, ""), (&world.staff, "*")] {
            for status in [OrderStatus::Unspecified, OrderStatus::Confirmed] {
                let (mut seen, mut token) = (Vec::new(), String::new());
                loop {
                    let ask = pb::ListOrdersRequest {
                        user_id: user_id.to_owned(),
                        status: status.into(),
                        page: Some(PageRequest { size: 1, token }),
                        from,
                        to,
                        sku: sku.to_owned(),
                    };
                    let slice = list(&world, asker, ask).await;
                    seen.extend(slice.orders.into_iter().map(|order| order.id));
                    token = slice.page.expect("set").next_token;
                    if token.is_empty() {
                        break;
                    }
                }
                assert_eq!(seen, want, "{from:?} {to:?} {sku} {user_id} {status:?}");
            }
        }
    }
}

#[tokio::test]
async fn the_history_tells_each_change_who_made_it_and_from_what_to_what() {
    let world = World::new().await;
    let order = world.buy(&[("TSHIRT", 2)], "ok").await.expect("bought").id;
    world
        .refund(&order, &[("TSHIRT", 1)], None)
        .await
        .expect("refunded");
    let request = world
        .customer
        .ask(pb::ListOrderEventsRequest { order_id: order });
    let mut client = world.process.client();
    let events = world
        .process
        .spawn(async move { client.list_order_events(request).await });
    let events = events
        .await
        .expect("it lives")
        .expect("a history")
        .into_inner()
        .events;
    let told: Vec<_> = events
        .iter()
        .map(|event| {
            let who = match event.user_id.as_str() {
                "" => "nobody",
                user if user == world.customer.user.to_string() => "customer",
                _ => "staff",
            };
            (
                event.r#type.as_str(),
                event.old_value.as_str(),
                event.new_value.as_str(),
                who,
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("order.created", "", "pending", "customer"),
            ("order.paid", "pending", "paid", "nobody"),
            ("order.confirmed", "paid", "confirmed", "nobody"),
            (
                "order.partially_refunded",
                "confirmed",
                "partially_refunded",
                "staff"
            ),
        ]
    );
    assert_eq!(events[3].description, "500 JPY refunded: did not fit");
}

#[tokio::test]
async fn an_audit_sees_an_order_that_was_changed_behind_the_services_back() {
    let world = World::new().await;
    let order = world.buy(&[("TSHIRT", 2)], "ok").await.expect("bought").id;
    sqlx::query("UPDATE orders SET status = 'refunded'")
        .execute(&world.db.owner())
        .await
        .expect("changed");
    let mut db = world.db.app().acquire().await.expect("a connection");
    let facts = holdfast_orders::audit(&mut db, None, 10)
        .await
        .expect("an audit");
    assert_eq!(facts.len(), 1);
    assert_eq!(facts[0].order.to_string(), order);
    assert!(!facts[0].is_open);
    assert_eq!(facts[0].illegal_history.len(), 1, "{:?}", facts[0]);
    let behind = holdfast_orders::audit(&mut db, Some(facts[0].order), 10)
        .await
        .expect("an audit");
    assert!(behind.is_empty());
}

#[tokio::test]
async fn users_is_asked_only_about_accounts_whose_token_is_old() {
    let world = World::with("account_trusted_secs", 60).await;
    world.buy(&[("TSHIRT", 1)], "ok").await.expect("bought");
    assert!(world.users.get_profile.asked().is_empty());
    world.pass(61);
    world
        .users
        .get_profile
        .then(Ok(GetProfileResponse::default()));
    world.buy(&[("TSHIRT", 1)], "ok").await.expect("bought");
    let gone = holdfast_platform::fault::Fault::new(
        holdfast_platform::fault::FaultCode::NotFound,
        "UNKNOWN_USER",
        "no such user",
    );
    world.users.get_profile.then(Err(gone.into()));
    let key = new_key();
    let refused = world
        .buy_again(&key, &[("TSHIRT", 1)], "ok")
        .await
        .expect_err("no account");
    assert_eq!(reason(&refused), "UNKNOWN_USER");
    assert!(world.find(&order_of(&key)).await.is_none());
    assert_eq!(world.users.get_profile.asked().len(), 2);
    world.is_sound().await;
}

#[tokio::test]
async fn an_id_of_another_kind_names_no_order() {
    let world = World::new().await;
    for id in ["", "ord_1", &Id::<id::Payment>::generate().to_string()] {
        assert!(world.find(id).await.is_none(), "{id}");
    }
}
