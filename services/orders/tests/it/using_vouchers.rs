//! Orders under a code that takes something off, whose use is taken and given back with the units.

use holdfast_kernel::Timestamp;
use holdfast_platform::{fault::Fault, wire};
use holdfast_proto::{
    money::v1::Money,
    orders::v1::{self as pb, OrderStatus, create_voucher_request::Off},
    payments::v1::PaymentStatus,
};
use tonic::Code;

use crate::{
    line::Break,
    vouchers::ten_percent,
    world::{PRICE, World, new_key, order_of, reason},
};

const CODE: &str = "SUMMER10";

/// Uses held and spent.
fn uses(world: &World) -> (i64, i64) {
    let pool = world.ledger.pool_of("voucher:SUMMER10").expect("a pool");
    (pool.held, pool.sold)
}

fn amount(money: Option<&Money>) -> i64 {
    money.expect("set").amount
}

#[tokio::test]
async fn what_a_code_takes_off_is_off_each_line_off_the_total_and_off_what_is_captured() {
    let world = World::new().await;
    world.has_voucher(CODE, 2).await;
    let key = new_key();
    let basket = [("TSHIRT", 2), ("MUG", 1)];
    let order = world
        .buy_with(&key, "summer10", &basket, "ok")
        .await
        .expect("bought");
    assert_eq!(order.status(), OrderStatus::Confirmed);
    assert_eq!(order.voucher, CODE);
    let lines: Vec<_> = (order.items.iter())
        .map(|item| (amount(item.discount.as_ref()), amount(item.total.as_ref())))
        .collect();
    assert_eq!(lines, [(100, 900), (50, 450)]);
    let figures = [&order.discount, &order.subtotal, &order.total];
    assert_eq!(
        figures.map(|money| amount(money.as_ref())),
        [150, 3 * PRICE - 150, 3 * PRICE - 150]
    );
    assert_eq!(world.till.money(&order.id), (1, 1_350, 0));
    assert_eq!(uses(&world), (0, 1));
    assert_eq!(world.order(&order.id).await, order);
    world.is_sound().await;
}

#[tokio::test]
async fn a_code_of_no_use_is_refused_and_says_why_and_nothing_is_held() {
    let world = World::new().await;
    let at = |text: &str| Some(wire::timestamp(text.parse().expect("a moment")));
    let yen = |amount| Money {
        amount,
        currency: "JPY".to_owned(),
    };
    world.has_voucher("GOOD", 1).await;
    for wish in [
        pb::CreateVoucherRequest {
            valid_from: at("2026-12-02T00:00:00Z"),
            ..ten_percent("EARLY")
        },
        pb::CreateVoucherRequest {
            valid_until: at("2026-12-01T09:00:00Z"),
            ..ten_percent("LATE")
        },
        pb::CreateVoucherRequest {
            least_subtotal: Some(yen(2 * PRICE + 1)),
            ..ten_percent("DEAR")
        },
        pb::CreateVoucherRequest {
            off: Some(Off::AmountOff(Money {
                amount: 1,
                currency: "USD".to_owned(),
            })),
            ..ten_percent("DOLLARS")
        },
    ] {
        world.make_voucher(wish).await.expect("made");
    }
    for (code, why, says) in [
        ("NOBODYS", "VOUCHER_UNKNOWN", "NOBODYS is no voucher"),
        ("n o", "INVALID_ARGUMENT", "wanted 3 to 32"),
        ("", "INVALID_ARGUMENT", "wanted 3 to 32"),
        (
            "EARLY",
            "VOUCHER_NOT_VALID",
            "wanted 2026-12-02T00:00:00Z or later",
        ),
        (
            "LATE",
            "VOUCHER_NOT_VALID",
            "wanted before 2026-12-01T09:00:00Z",
        ),
        (
            "DEAR",
            "VOUCHER_NOT_VALID",
            "got a subtotal of 1000 JPY, wanted 1001 JPY or more",
        ),
        (
            "DOLLARS",
            "VOUCHER_NOT_VALID",
            "got an order in JPY, wanted USD",
        ),
    ] {
        let refused = world
            .buy_with(&new_key(), code, &[("TSHIRT", 2)], "ok")
            .await;
        let refused = refused.expect_err(code);
        let fault = Fault::from_status(&refused);
        assert_eq!(
            (fault.reason(), refused.code()),
            (why, Code::InvalidArgument),
            "{code}"
        );
        assert_eq!(fault.items()[0]["field"], "voucher", "{code}");
        let message = fault.items()[0]["message"].as_str().expect("a message");
        assert!(message.contains(says), "{code}: {message}");
    }
    assert_eq!(world.ledger.holds(), 0);
    assert!(world.announced().await.is_empty());
}

#[tokio::test]
async fn the_last_use_goes_to_one_of_two_buyers_and_the_other_holds_nothing() {
    let world = World::new().await;
    world.has_voucher(CODE, 1).await;
    let (one, two) = (new_key(), new_key());
    let (first, second) = tokio::join!(
        world.buy_with(&one, CODE, &[("TSHIRT", 2)], "ok"),
        world.buy_with(&two, CODE, &[("MUG", 1)], "ok"),
    );
    let (won, lost) = match (first, second) {
        (Ok(order), Err(refused)) | (Err(refused), Ok(order)) => (order, refused),
        both => panic!("{both:?}"),
    };
    assert_eq!(won.status(), OrderStatus::Confirmed);
    assert_eq!(
        (reason(&lost).as_str(), lost.code()),
        ("VOUCHER_USED_UP", Code::FailedPrecondition)
    );
    assert_eq!(Fault::from_status(&lost).items()[0]["field"], "voucher");
    let sold = world.ledger.pool("TSHIRT").sold + world.ledger.pool("MUG").sold;
    assert_eq!(
        sold,
        won.items.iter().map(|item| item.quantity).sum::<i64>()
    );
    assert_eq!(uses(&world), (0, 1));
    world.is_sound().await;
}

#[tokio::test]
async fn goods_that_are_short_are_told_before_a_code_that_is_used_up() {
    let world = World::new().await;
    world.has_voucher(CODE, 1).await;
    let one = [("MUG", 1)];
    world
        .buy_with(&new_key(), CODE, &one, "ok")
        .await
        .expect("the last use");
    let refused = world
        .buy_with(&new_key(), CODE, &[("TSHIRT", 11)], "ok")
        .await;
    let fault = Fault::from_status(&refused.expect_err("short of both"));
    assert_eq!(fault.reason(), "OUT_OF_STOCK");
    assert_eq!(fault.items().len(), 1);
}

#[tokio::test]
async fn an_order_that_comes_to_nothing_gives_the_use_back() {
    for (token, status) in [
        ("declined", OrderStatus::PaymentFailed),
        // Sold already when the money cannot be taken.
        ("capture_fails", OrderStatus::PaymentFailed),
        ("challenge", OrderStatus::Cancelled),
    ] {
        let world = World::new().await;
        world.has_voucher(CODE, 1).await;
        let key = new_key();
        let order = order_of(&key);
        world
            .buy_with(&key, CODE, &[("TSHIRT", 2)], token)
            .await
            .ok();
        if status == OrderStatus::Cancelled {
            world.becomes(&order, OrderStatus::AwaitingPayment).await;
            assert_eq!(uses(&world), (1, 0));
            world.cancel(&order).await.expect("cancelled");
        }
        world.becomes(&order, status).await;
        world.rests().await;
        assert_eq!(uses(&world), (0, 0), "{token}");
        world.is_sound().await;
    }
}

#[tokio::test]
async fn a_refund_gives_back_what_was_paid_and_not_the_use() {
    let world = World::new().await;
    world.has_voucher(CODE, 2).await;
    let basket = [("TSHIRT", 3)];
    let order = world
        .buy_with(&new_key(), CODE, &basket, "ok")
        .await
        .expect("bought");
    let mut back = 0;
    for want in [450, 450, 450] {
        let part = world
            .refund(&order.id, &[("TSHIRT", 1)], None)
            .await
            .expect("refunded");
        assert_eq!(amount(part.refunded.as_ref()) - back, want);
        back += want;
    }
    assert_eq!(world.order(&order.id).await.status(), OrderStatus::Refunded);
    assert_eq!(
        (world.ledger.pool("TSHIRT").sold, uses(&world)),
        (0, (0, 1))
    );

    let order = world
        .buy_with(&new_key(), CODE, &basket, "ok")
        .await
        .expect("bought");
    world.cancel(&order.id).await.expect("cancelled");
    world.becomes(&order.id, OrderStatus::Refunded).await;
    world.rests().await;
    assert_eq!(
        (world.ledger.pool("TSHIRT").sold, uses(&world)),
        (0, (0, 2))
    );
    world.is_sound().await;
}

#[tokio::test]
async fn money_that_comes_late_takes_the_use_again_or_goes_back_when_it_is_gone() {
    for is_gone in [false, true] {
        let world = World::new().await;
        world.has_voucher(CODE, 1).await;
        let key = new_key();
        let order = order_of(&key);
        world
            .buy_with(&key, CODE, &[("TSHIRT", 2)], "timeout")
            .await
            .expect("on its way");
        world.becomes(&order, OrderStatus::AwaitingPayment).await;
        world.hold_expires(&order).await;
        world.becomes(&order, OrderStatus::Expired).await;
        world.rests().await;
        assert_eq!(uses(&world), (0, 0));
        if is_gone {
            let rival = world.buy_with(&new_key(), CODE, &[("MUG", 1)], "ok").await;
            rival.expect("the use is free");
        }
        world.provider_says(&order, PaymentStatus::Captured).await;
        let ends = if is_gone {
            OrderStatus::Refunded
        } else {
            OrderStatus::Confirmed
        };
        world.becomes(&order, ends).await;
        world.rests().await;
        assert_eq!(uses(&world), (0, 1), "gone: {is_gone}");
        world.is_sound().await;
    }
}

#[tokio::test]
async fn the_same_request_meets_its_order_when_the_code_has_ended_or_is_used_up() {
    let world = World::new().await;
    world.has_voucher(CODE, 1).await;
    let key = new_key();
    let basket = [("TSHIRT", 1)];
    let order = world
        .buy_with(&key, CODE, &basket, "ok")
        .await
        .expect("bought");
    let stands = world.voucher(CODE).await.expect("there");
    assert_eq!((stands.uses, stands.used, stands.held), (1, 1, 0));
    let end: Timestamp = "2026-12-01T08:00:00Z".parse().expect("a moment");
    let change = pb::ChangeVoucherRequest {
        code: CODE.to_owned(),
        expected_version: stands.version,
        valid_until: Some(wire::timestamp(end)),
        ..pb::ChangeVoucherRequest::default()
    };
    let ended = world
        .change_voucher(change)
        .await
        .expect("using it moves no version");
    let again = world
        .buy_with(&key, CODE, &basket, "ok")
        .await
        .expect("the same order");
    assert_eq!(again, order);
    let late = world.buy_with(&new_key(), CODE, &basket, "ok").await;
    assert_eq!(
        reason(&late.expect_err("it has ended")),
        "VOUCHER_NOT_VALID"
    );

    let fewer = pb::ChangeVoucherRequest {
        code: CODE.to_owned(),
        expected_version: ended.version,
        uses: Some(0),
        ..pb::ChangeVoucherRequest::default()
    };
    let refused = world.change_voucher(fewer).await.expect_err("one is used");
    assert_eq!(reason(&refused), "BELOW_COMMITTED");
}

#[tokio::test]
async fn what_is_wholly_taken_off_is_bought_without_a_payment() {
    let world = World::new().await;
    let wish = pb::CreateVoucherRequest {
        off: Some(Off::PercentOff(100)),
        ..ten_percent(CODE)
    };
    world.make_voucher(wish).await.expect("made");
    let order = world
        .buy_with(&new_key(), CODE, &[("TSHIRT", 2)], "declined")
        .await;
    let order = order.expect("nothing to pay");
    assert_eq!(
        (order.status(), order.payment_id.as_str()),
        (OrderStatus::Confirmed, "")
    );
    let part = world
        .refund(&order.id, &[("TSHIRT", 1)], None)
        .await
        .expect("returned");
    assert_eq!(part.status(), OrderStatus::PartiallyRefunded);
    let all = world.refund(&order.id, &[], None).await.expect("returned");
    assert_eq!(all.status(), OrderStatus::Refunded);
    world.rests().await;
    world.is_sound().await;
}

#[tokio::test]
async fn whoever_dies_at_whichever_command_the_use_is_spent_once_or_free_again() {
    for (command, token) in [
        ("reserve", "ok"),
        ("commit", "ok"),
        ("release", "declined"),
        ("return", "capture_fails"),
    ] {
        for how in [Break::HangsOnTheWay, Break::HangsOnTheWayBack] {
            let mut world = World::new().await;
            world.has_voucher(CODE, 1).await;
            world.ledger.line.breaks(command, how);
            let key = new_key();
            drop(world.start_buying_with(&key, CODE, &[("TSHIRT", 2)], token));
            world.ledger.line.hangs().await;
            world.kill_and_restart().await;
            // Asked again, as a client does.
            world
                .buy_with(&key, CODE, &[("TSHIRT", 2)], token)
                .await
                .ok();
            let (ends, spent) = match token {
                "ok" => (OrderStatus::Confirmed, 1),
                _ => (OrderStatus::PaymentFailed, 0),
            };
            world.becomes(&order_of(&key), ends).await;
            world.rests().await;
            assert_eq!(uses(&world), (0, spent), "{command} {how:?}");
            world.is_sound().await;
        }
    }
}
