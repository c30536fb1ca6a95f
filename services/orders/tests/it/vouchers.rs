//! Codes that take something off: made, shown and changed by staff.

use std::time::Duration;

use holdfast_kernel::Timestamp;
use holdfast_platform::{fault::Fault, wire};
use holdfast_proto::{
    money::v1::Money,
    orders::v1::{self as pb, create_voucher_request::Off},
    page::v1::PageRequest,
};
use tonic::{Code, Status};

use crate::{
    line::Break,
    world::{World, new_key, reason},
};

/// Makes a good wish a bad one.
type Spoil = Box<dyn Fn(&mut pb::CreateVoucherRequest)>;

/// Ten per cent off, a hundred times.
pub(crate) fn ten_percent(code: &str) -> pb::CreateVoucherRequest {
    pb::CreateVoucherRequest {
        request_id: new_key(),
        fingerprint: vec![1].into(),
        code: code.to_owned(),
        off: Some(Off::PercentOff(10)),
        uses: 100,
        ..pb::CreateVoucherRequest::default()
    }
}

impl World {
    /// A code that takes 10 % off, so often.
    pub(crate) async fn has_voucher(&self, code: &str, uses: i64) {
        let wish = pb::CreateVoucherRequest {
            uses,
            ..ten_percent(code)
        };
        self.make_voucher(wish).await.expect("made");
    }

    pub(crate) async fn make_voucher(
        &self,
        wish: pb::CreateVoucherRequest,
    ) -> Result<pb::Voucher, Status> {
        let request = self.staff.ask(wish);
        let mut client = self.process.client();
        let answer = self
            .process
            .spawn(async move { client.create_voucher(request).await });
        let answer = answer.await.expect("it lives")?;
        Ok(answer.into_inner().voucher.expect("set"))
    }

    pub(crate) async fn voucher(&self, code: &str) -> Result<pb::Voucher, Status> {
        let request = self.staff.ask(pb::GetVoucherRequest {
            code: code.to_owned(),
        });
        let mut client = self.process.client();
        let answer = self
            .process
            .spawn(async move { client.get_voucher(request).await });
        let answer = answer.await.expect("it lives")?;
        Ok(answer.into_inner().voucher.expect("set"))
    }

    pub(crate) async fn change_voucher(
        &self,
        wish: pb::ChangeVoucherRequest,
    ) -> Result<pb::Voucher, Status> {
        let request = self.staff.ask(wish);
        let mut client = self.process.client();
        let answer = self
            .process
            .spawn(async move { client.change_voucher(request).await });
        let answer = answer.await.expect("it lives")?;
        Ok(answer.into_inner().voucher.expect("set"))
    }
}

#[tokio::test]
async fn a_voucher_is_made_once_and_shown_with_its_uses() {
    let world = World::new().await;
    let mut wish = ten_percent("summer10");
    let until: Timestamp = "2027-01-01T00:00:00Z".parse().expect("a moment");
    wish.valid_until = Some(wire::timestamp(until));
    wish.least_subtotal = Some(Money {
        amount: 1_000,
        currency: "JPY".to_owned(),
    });
    let made = world.make_voucher(wish.clone()).await.expect("made");
    assert_eq!(
        (made.code.as_str(), made.currency.as_str()),
        ("SUMMER10", "JPY")
    );
    assert_eq!((made.uses, made.used, made.held), (100, 0, 0));
    let pool = world.ledger.pool_of("voucher:SUMMER10").expect("a pool");
    assert_eq!(pool.capacity, 100);

    for again in [wish.clone(), wish.clone()] {
        assert_eq!(world.make_voucher(again).await.expect("the same"), made);
    }
    assert_eq!(world.voucher("Summer10").await.expect("there"), made);

    let other_body = pb::CreateVoucherRequest {
        fingerprint: vec![2].into(),
        ..wish.clone()
    };
    let refused = world.make_voucher(other_body).await.expect_err("another");
    assert_eq!(reason(&refused), "IDEMPOTENCY_KEY_REUSED");
    let same_code = world.make_voucher(ten_percent("SUMMER10")).await;
    assert_eq!(reason(&same_code.expect_err("taken")), "VOUCHER_EXISTS");
    let none = world.voucher("WINTER10").await.expect_err("unknown");
    assert_eq!(reason(&none), "UNKNOWN_VOUCHER");
}

#[tokio::test]
async fn what_cannot_be_a_voucher_is_refused_by_its_field() {
    let world = World::new().await;
    let at = |secs| {
        Some(prost_types::Timestamp {
            seconds: secs,
            nanos: 0,
        })
    };
    let money = |amount, currency: &str| Money {
        amount,
        currency: currency.to_owned(),
    };
    let table: [(&str, Spoil); 10] = [
        ("code", Box::new(|wish| wish.code = "A B".to_owned())),
        ("percent_off", Box::new(|wish| wish.off = None)),
        (
            "percent_off",
            Box::new(|wish| wish.off = Some(Off::PercentOff(101))),
        ),
        (
            "amount_off",
            Box::new(move |wish| wish.off = Some(Off::AmountOff(money(0, "JPY")))),
        ),
        (
            "amount_off.currency",
            Box::new(move |wish| wish.off = Some(Off::AmountOff(money(1, "yen")))),
        ),
        (
            "currency",
            Box::new(|wish| wish.currency = "yen".to_owned()),
        ),
        (
            "least_subtotal",
            Box::new(move |wish| {
                wish.currency = "USD".to_owned();
                wish.least_subtotal = Some(money(1, "JPY"));
            }),
        ),
        (
            "valid_until",
            Box::new(move |wish| {
                wish.valid_from = at(2_000);
                wish.valid_until = at(2_000);
            }),
        ),
        ("uses", Box::new(|wish| wish.uses = 0)),
        ("uses", Box::new(|wish| wish.uses = 1_000_000_001)),
    ];
    for (field, spoil) in table {
        let mut wish = ten_percent("SUMMER10");
        spoil(&mut wish);
        let refused = world.make_voucher(wish).await.expect_err(field);
        let fault = Fault::from_status(&refused);
        assert_eq!(
            (fault.reason(), fault.items()[0]["field"].as_str()),
            ("INVALID_ARGUMENT", Some(field))
        );
    }
    assert!(world.ledger.pool_of("voucher:SUMMER10").is_none());
}

#[tokio::test]
async fn a_voucher_whose_making_broke_off_is_completed_by_the_same_request() {
    for how in [Break::HangsOnTheWay, Break::HangsOnTheWayBack] {
        let mut world = World::new().await;
        world.ledger.line.breaks("adjust", how);
        let wish = ten_percent("SUMMER10");
        let mut client = world.process.client();
        let request = world.staff.ask(wish.clone());
        drop(
            world
                .process
                .spawn(async move { client.create_voucher(request).await }),
        );
        world.ledger.line.hangs().await;
        world.kill_and_restart().await;

        let made = world.make_voucher(wish).await.expect("completed");
        assert_eq!(made.uses, 100, "{how:?}");
        let pool = world.ledger.pool_of("voucher:SUMMER10").expect("a pool");
        assert_eq!(pool.capacity, 100, "{how:?}");
    }
}

#[tokio::test]
async fn a_voucher_whose_making_nobody_completes_has_no_uses_and_can_be_given_some() {
    let world = World::new().await;
    world.ledger.line.breaks("adjust", Break::OnTheWay);
    let broken = world.make_voucher(ten_percent("SUMMER10")).await;
    assert_eq!(
        broken.expect_err("the line broke").code(),
        Code::Unavailable
    );
    let stands = world.voucher("SUMMER10").await.expect("written");
    assert_eq!(stands.uses, 0);

    let change = pb::ChangeVoucherRequest {
        code: "SUMMER10".to_owned(),
        expected_version: stands.version,
        uses: Some(7),
        ..pb::ChangeVoucherRequest::default()
    };
    let changed = world.change_voucher(change).await.expect("changed");
    assert_eq!(changed.uses, 7);
}

#[tokio::test]
async fn uses_that_somebody_keeps_already_make_no_voucher() {
    let world = World::new().await;
    world.ledger.stock_of("voucher:SUMMER10", 3);
    let wish = ten_percent("SUMMER10");
    for _ in 0..2 {
        let refused = world.make_voucher(wish.clone()).await.expect_err("kept");
        assert_eq!(reason(&refused), "POOL_EXISTS");
        let none = world.voucher("SUMMER10").await.expect_err("taken back");
        assert_eq!(reason(&none), "UNKNOWN_VOUCHER");
    }
}

#[tokio::test]
async fn a_voucher_is_changed_as_it_was_looked_at_or_not_at_all() {
    let world = World::new().await;
    let made = world
        .make_voucher(ten_percent("SUMMER10"))
        .await
        .expect("made");
    let end: Timestamp = "2026-12-02T00:00:00Z".parse().expect("a moment");
    let more = pb::ChangeVoucherRequest {
        code: "summer10".to_owned(),
        expected_version: made.version,
        uses: Some(150),
        ..pb::ChangeVoucherRequest::default()
    };
    let changed = world.change_voucher(more.clone()).await.expect("changed");
    assert_eq!((changed.uses, changed.valid_until), (150, None));
    assert_ne!(changed.version, made.version);
    let refused = world
        .change_voucher(more)
        .await
        .expect_err("it has changed");
    let fault = Fault::from_status(&refused);
    assert_eq!(fault.reason(), "VOUCHER_CHANGED");
    assert_eq!(
        fault.figure("version"),
        Some(changed.version.to_string().as_str())
    );

    let ended = pb::ChangeVoucherRequest {
        code: "SUMMER10".to_owned(),
        expected_version: changed.version,
        valid_until: Some(wire::timestamp(end)),
        ..pb::ChangeVoucherRequest::default()
    };
    let ended = world.change_voucher(ended).await.expect("ended");
    assert_eq!(
        (ended.uses, wire::moment(ended.valid_until.as_ref())),
        (150, Some(end))
    );
    let nothing = pb::ChangeVoucherRequest {
        code: "SUMMER10".to_owned(),
        expected_version: ended.version,
        ..pb::ChangeVoucherRequest::default()
    };
    assert_eq!(
        world.change_voucher(nothing).await.expect("as it was"),
        ended
    );
    assert_eq!(world.voucher("SUMMER10").await.expect("there"), ended);
}

#[tokio::test]
async fn of_two_changes_at_once_one_finds_the_voucher_changed() {
    let world = World::new().await;
    let made = world
        .make_voucher(ten_percent("SUMMER10"))
        .await
        .expect("made");
    let change = |uses| pb::ChangeVoucherRequest {
        code: "SUMMER10".to_owned(),
        expected_version: made.version,
        uses: Some(uses),
        ..pb::ChangeVoucherRequest::default()
    };
    // The slow one has looked, and is on its way to the ledger.
    world.ledger.line.breaks("adjust", Break::PausedOnTheWay);
    let slow = world.change_voucher(change(110));
    let quick = async {
        world.ledger.line.hangs().await;
        let changed = world.change_voucher(change(120)).await;
        world.ledger.line.go_on();
        changed
    };
    let (slow, quick) = tokio::join!(slow, quick);
    assert_eq!(quick.expect("changed").uses, 120);
    assert_eq!(
        reason(&slow.expect_err("changed before")),
        "CAPACITY_CHANGED"
    );
    assert_eq!(world.voucher("SUMMER10").await.expect("there").uses, 120);
}

#[tokio::test]
async fn vouchers_are_listed_by_code_page_by_page() {
    let world = World::new().await;
    for code in ["CCC", "AAA", "BBB"] {
        world.make_voucher(ten_percent(code)).await.expect("made");
    }
    let mut client = world.process.client();
    let mut token = String::new();
    let mut pages = Vec::new();
    while pages.len() < 2 {
        let mut request = world.staff.ask(pb::ListVouchersRequest {
            page: Some(PageRequest { size: 2, token }),
        });
        request.set_timeout(Duration::from_secs(5));
        let page = client
            .list_vouchers(request)
            .await
            .expect("a page")
            .into_inner();
        let codes: Vec<String> = page.vouchers.into_iter().map(|it| it.code).collect();
        pages.push(codes.join(" "));
        token = page.page.expect("set").next_token;
    }
    assert_eq!(pages, ["AAA BBB", "CCC"]);
    assert_eq!(token, "");
}
