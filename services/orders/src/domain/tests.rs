//! An order through its moves, beside one another: paid, given back, shipped.

use super::{refund::Worth, *};

#[test]
fn an_order_uses_no_more_points_than_it_costs() {
    for (points, fits) in [(0, true), (1_750, true), (1_751, false), (-1, false)] {
        let items = order().items;
        let now = Timestamp::UNIX_EPOCH;
        let made = Order::new(
            Id::generate(),
            Id::generate(),
            items,
            points,
            now,
            vec![1],
            now,
        );
        assert_eq!(made.is_ok(), fits, "{points}");
    }
}

#[test]
fn prices_that_do_not_fit_an_amount_are_refused() {
    let mut dear = order().items;
    dear[0].unit_price = yen(i64::MAX / 2);
    let now = Timestamp::UNIX_EPOCH;
    let refused = Order::new(Id::generate(), Id::generate(), dear, 0, now, vec![1], now);
    assert!(matches!(refused, Err(OrdersError::TooExpensive)));
}

#[test]
fn a_refund_is_worth_its_items_at_the_price_they_were_bought_for() {
    let order = order();
    let part = refund(&order, &items(&[("TSHIRT", 2), ("MUG", 1)]), &[]).expect("a refund");
    assert_eq!(part.amount, yen(1_250));
    let rest = refund(&order, &Share::Rest, &[part]).expect("a refund");
    assert_eq!((rest.amount, rest.units.len()), (yen(500), 1));
}

/// "Given back" of `docs/PRICING.md`, of an order of 1,750 that was paid in part by points.
#[test]
fn a_refund_is_split_as_the_order_was_paid_and_all_of_both_is_back_in_the_end() {
    for points in [0, 1, 300, 999, 1_749, 1_750] {
        for step in [1_750, 875, 100, 7] {
            let mut order = order_using(points);
            let (mut money_back, mut points_back, mut left) = (0, 0, 1_750);
            while left > 0 {
                let value = step.min(left);
                let part = refund(&order, &Share::Amount(yen(value)), &[]).expect("a refund");
                assert_eq!(part.amount.amount + part.points, value);
                order
                    .give_back(&part, Timestamp::UNIX_EPOCH)
                    .expect("given back");
                money_back += part.amount.amount;
                points_back += part.points;
                left -= value;
                assert_eq!(points_back, points * (1_750 - left) / 1_750, "rounded down");
            }
            assert_eq!((money_back, points_back), (1_750 - points, points));
            assert_eq!(order.status, Status::Refunded);
        }
    }
}

#[test]
fn what_was_taken_off_is_not_given_back_and_the_use_goes_with_the_units() {
    let mut items = order().items;
    items[0].discount = yen(100);
    let now = Timestamp::UNIX_EPOCH;
    let order = Order::new(Id::generate(), Id::generate(), items, 0, now, vec![1], now);
    let mut order = order.expect("adds up");
    order.voucher = Some("SUMMER10".parse().expect("a code"));
    assert_eq!(
        (order.total, order.discount().expect("a sum")),
        (yen(1_650), yen(100))
    );
    let claims = ["sku:TSHIRT 3", "sku:MUG 1", "voucher:SUMMER10 1"];
    let told = |claims: Vec<(PoolKey, i64)>| -> Vec<String> {
        claims
            .into_iter()
            .map(|(pool, units)| format!("{pool} {units}"))
            .collect()
    };
    assert_eq!(told(order.claims()), claims);
    assert_eq!(told(order.claims_left()), claims);
    for to in [Status::Paid, Status::Confirmed] {
        order.enter(to, "", None, now).expect("a legal move");
    }
    // 1,400 of the line over three units.
    for want in [466, 467, 467] {
        let part = refund(&order, &items_of("TSHIRT"), &[]).expect("a refund");
        assert_eq!(part.amount, yen(want));
        order.give_back(&part, now).expect("given back");
    }
}

#[test]
fn an_order_that_cost_nothing_is_back_when_its_units_are() {
    let mut items = order().items;
    for item in &mut items {
        item.discount = item.total().expect("a sum");
    }
    let now = Timestamp::UNIX_EPOCH;
    let order = Order::new(Id::generate(), Id::generate(), items, 0, now, vec![1], now);
    let mut order = order.expect("adds up");
    for to in [Status::Paid, Status::Confirmed] {
        order.enter(to, "", None, now).expect("a legal move");
    }
    let part = refund(&order, &items_of("MUG"), &[]).expect("a refund");
    order.give_back(&part, now).expect("given back");
    assert_eq!(order.status, Status::PartiallyRefunded);
    let rest = refund(&order, &Share::Rest, &[]).expect("a refund");
    order.give_back(&rest, now).expect("given back");
    assert_eq!(order.status, Status::Refunded);
}

#[test]
fn what_is_promised_counts_as_gone_before_it_is_given_back() {
    let order = order();
    let promised = [refund(&order, &Share::Amount(yen(1_700)), &[]).expect("a refund")];
    for (share, fits) in [
        (Share::Amount(yen(50)), true),
        (Share::Amount(yen(51)), false),
        (items(&[("MUG", 1)]), false),
        (
            Share::Amount(Money::new(1, "USD".parse().expect("a currency"))),
            false,
        ),
    ] {
        assert_eq!(refund(&order, &share, &promised).is_ok(), fits, "{share:?}");
    }
    let all = [refund(&order, &Share::Rest, &[]).expect("a refund")];
    assert!(
        refund(&order, &Share::Rest, &all).is_err(),
        "nothing is left"
    );
}

#[test]
fn a_cancelled_order_stays_cancelled_until_all_of_it_is_back() {
    let mut order = order();
    let part = refund(&order, &items(&[("MUG", 1)]), &[]).expect("a refund");
    let rest = refund(&order, &Share::Rest, std::slice::from_ref(&part)).expect("a refund");
    let now = Timestamp::UNIX_EPOCH;
    order
        .enter(Status::Cancelled, "", None, now)
        .expect("a legal move");
    let change = order.give_back(&part, now).expect("given back");
    assert_eq!(
        (change.news, order.status),
        (Status::PartiallyRefunded, Status::Cancelled)
    );
    let change = order.give_back(&rest, now).expect("given back");
    assert_eq!(
        (change.news, order.status),
        (Status::Refunded, Status::Refunded)
    );
    assert!(order.claims_left().is_empty());
    assert_eq!(order.version, 6, "one for each change");
}

#[test]
fn an_order_ships_once_arrives_once_and_keeps_both_while_money_goes_back() {
    let (mut order, by, now) = (order(), Id::generate(), Timestamp::UNIX_EPOCH);
    let refused = order.clone().deliver(by, now);
    assert!(refused.is_err(), "it has not left");
    let change = order.ship(parcel("1"), by, now).expect("a legal move");
    let change = change.expect("a change");
    assert_eq!(
        (change.description.as_str(), change.actor),
        ("shipped by Yamato as 1", Some(by))
    );
    assert_eq!(order.ship(parcel("1"), by, now).expect("again"), None);

    let part = refund(&order, &items(&[("MUG", 1)]), &[]).expect("a refund");
    order.give_back(&part, now).expect("given back");
    assert_eq!(order.status, Status::PartiallyRefunded);
    for refused in [
        order.clone().ship(parcel("2"), by, now).map(drop),
        (order.clone().enter(Status::Cancelled, "", None, now)).map(drop),
    ] {
        let error = refused.expect_err("it has left").to_string();
        assert!(error.starts_with("an order that is shipped"), "{error}");
    }
    assert!(order.deliver(by, now).expect("a legal move").is_some());
    assert_eq!(order.deliver(by, now).expect("again"), None);
    let refused = order.ship(parcel("1"), by, now).expect_err("it arrived");
    assert!(refused.to_string().contains("delivered"), "{refused}");
}

fn order() -> Order {
    order_using(0)
}

fn order_using(points: i64) -> Order {
    let item = |sku: &str, quantity, price| Item {
        sku: sku.parse().expect("a sku"),
        name: sku.to_owned(),
        quantity,
        unit_price: yen(price),
        discount: yen(0),
        refunded_quantity: 0,
    };
    let items = vec![item("TSHIRT", 3, 500), item("MUG", 1, 250)];
    let now = Timestamp::UNIX_EPOCH;
    let order = Order::new(
        Id::generate(),
        Id::generate(),
        items,
        points,
        now,
        vec![1],
        now,
    );
    let mut order = order.expect("adds up");
    for to in [Status::Paid, Status::Confirmed] {
        order.enter(to, "", None, now).expect("a legal move");
    }
    order
}

fn refund(order: &Order, share: &Share, promised: &[Refund]) -> Result<Refund, OrdersError> {
    let Worth {
        amount,
        points,
        units,
    } = order.refund_share(share, promised)?;
    Ok(Refund {
        id: Id::generate(),
        order: order.id,
        fingerprint: Vec::new(),
        amount,
        points,
        units,
        reason: String::new(),
        requested_by: None,
        state: RefundState::Open,
        created_at: Timestamp::UNIX_EPOCH,
    })
}

fn items(lines: &[(&str, i64)]) -> Share {
    let lines = lines
        .iter()
        .map(|(sku, units)| (sku.parse().expect("a sku"), *units));
    Share::Items(Basket::new(lines.collect()).expect("a basket"))
}

fn items_of(sku: &str) -> Share {
    items(&[(sku, 1)])
}

fn parcel(tracking: &str) -> Parcel {
    Parcel {
        carrier: "Yamato".to_owned(),
        tracking: tracking.to_owned(),
    }
}

fn yen(amount: i64) -> Money {
    Money::new(amount, "JPY".parse().expect("a currency"))
}
