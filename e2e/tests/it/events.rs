//! Planning an event, drawing its hall from a file, and what everybody sees of it.

use std::{
    fmt::Write as _,
    fs,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use holdfast_e2e::{Sandbox, Topology, wait};
use serde_json::{Value, json};

use crate::shop::{SETTLE_MAX_SECS, Shop};

in_every_topology! {
    an_event_is_planned_published_and_called_off_before_everybodys_eyes,
}

/// Seats of the stadium that is imported, and how long that may take.
const STADIUM_SEATS: usize = 50_000;
const IMPORT_MAX_SECS: u64 = 10;

async fn an_event_is_planned_published_and_called_off_before_everybodys_eyes(
    shop: &Shop,
) -> anyhow::Result<()> {
    let nobody = shop.sandbox.door()?;
    let made = shop.staff.post("/v1/events", &concert()).await?.is(201)?;
    let path = format!("/v1/events/{}", made["id"].as_str().context("an id")?);
    nobody.get(&path).await?.is_refused(404, "unknown_event")?;
    let publish = format!("{path}/publish");
    let refused = shop.admin.post(&publish, &json!({})).await?;
    let refused = refused.is_refused(409, "event_incomplete")?;
    assert_eq!(
        refused["errors"][0]["field"], "sections[0].rows",
        "{refused}"
    );

    let layout = format!("{path}/layout");
    let read = shop.staff.get(&layout).await?;
    let tag = read
        .header("etag")
        .context("a layout has an ETag")?
        .to_owned();
    let rows = json!([{"row": "A", "seats": 20}, {"row": "B", "seats": 22}]);
    let seats = json!({"sections": [{"id": "S", "kind": "seated", "rows": rows}]});
    let asking = holdfast_e2e::Asking::new("PUT", &layout).with("if-match", &tag);
    let asking = asking.with_json(Some(&seats));
    shop.staff.ask(&asking).await?.is(200)?;
    let stale = shop.staff.ask(&asking).await?;
    stale.is_refused(412, "precondition_failed")?;

    for _ in 0..2 {
        shop.staff.post(&publish, &json!({})).await?.is(200)?;
    }
    let seen = nobody.read(&path).await?;
    assert_eq!(seen["status"], "on_sale", "{seen}");
    assert_eq!(seen["sections"][0]["capacity"], 42, "{seen}");
    let map = nobody.read(&layout).await?;
    assert_eq!(map["sections"][0]["rows"][1]["numbers"][21], "22", "{map}");
    let name = made["name"].as_str().context("a name")?;
    let found = nobody
        .read(&format!("/v1/events?upcoming=true&q={name}"))
        .await?;
    assert_eq!(found["data"][0], seen, "{found}");

    let cancel = format!("{path}/cancel");
    let reason = json!({"reason": "the singer is ill"});
    shop.staff.post(&cancel, &reason).await?.is(200)?;
    let seen = nobody.read(&path).await?;
    assert_eq!(
        (&seen["status"], &seen["reason"]),
        (&json!("cancelled"), &reason["reason"])
    );
    let limit = Duration::from_secs(SETTLE_MAX_SECS);
    let told = wait::until("the feed tells of the event", limit, async || {
        let feed = shop
            .admin
            .read("/v1/messages?types=event.*&limit=100")
            .await?;
        let of_event = feed["data"].as_array().into_iter().flatten();
        let kinds = of_event.filter(|message| message["data"]["event_id"] == made["id"]);
        let kinds: Vec<Value> = kinds.map(|message| message["type"].clone()).collect();
        Ok((kinds.len() == 2).then_some(kinds))
    });
    assert_eq!(told.await?, ["event.published", "event.cancelled"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stadium_is_imported_from_a_file_or_not_at_all() -> anyhow::Result<()> {
    let sandbox = Sandbox::start(Topology::AllInOne).await?;
    let staff = sandbox.somebody(holdfast_e2e::Role::Staff).await?;
    let blocks: Vec<String> = (1..=40).map(|block| format!("B{block}")).collect();
    let mut plan = concert();
    plan["sections"] = blocks
        .iter()
        .map(|id| json!({"id": id, "kind": "seated"}))
        .collect();
    let price = json!({"amount": 6000, "currency": "JPY"});
    plan["tiers"] = (blocks.iter())
        .map(|id| json!({"id": id, "section": id, "price": price}))
        .collect();
    let made = staff.post("/v1/events", &plan).await?.is(201)?;
    let event = made["id"].as_str().context("an id")?;

    let mut rows = "section,row,seat,x,y,tier\n".to_owned();
    for seat in 0..STADIUM_SEATS {
        let (block, of_block) = (seat / 1_250, seat % 1_250);
        let (row, number) = (of_block / 50, of_block % 50);
        let (x, y) = (block * 3_000 + number * 55, 2_000 + row * 95);
        writeln!(
            rows,
            "{},{},{},{x},{y},{}",
            blocks[block],
            row + 1,
            number + 1,
            blocks[block]
        )?;
    }
    let folder = tempfile::tempdir()?;
    let (good, bad) = (
        folder.path().join("good.csv"),
        folder.path().join("bad.csv"),
    );
    fs::write(&good, &rows)?;
    fs::write(&bad, format!("{rows}B1,1,1,0,0,\nB41,1,1,0,0,\n"))?;
    let (good, bad) = (good.display().to_string(), bad.display().to_string());

    let operator = sandbox.operator()?;
    let refused = operator.run(&["import", "seats", event, &bad])?;
    assert!(!refused.status.success(), "two rows are bad");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    for row in ["row 50002", "row 50003"] {
        assert!(said.contains(row), "{said}");
    }
    let path = format!("/v1/events/{event}");
    let capacity = async || -> anyhow::Result<i64> {
        let shown = staff.read(&path).await?;
        let sections = shown["sections"].as_array().context("sections")?;
        Ok(sections
            .iter()
            .filter_map(|section| section["capacity"].as_i64())
            .sum())
    };
    assert_eq!(capacity().await?, 0, "nothing was written");

    let begun = Instant::now();
    operator.done(&["import", "seats", event, &good])?;
    let took = begun.elapsed();
    println!("{STADIUM_SEATS} seats were imported in {took:.1?}");
    assert!(took < Duration::from_secs(IMPORT_MAX_SECS), "{took:?}");
    assert_eq!(capacity().await?, STADIUM_SEATS as i64);
    let begun = Instant::now();
    let map = staff.get(&format!("{path}/layout")).await?;
    println!(
        "their map is {} bytes, told in {:.0?}",
        map.bytes.len(),
        begun.elapsed()
    );
    let tag = map.header("etag").context("an ETag")?.to_owned();
    // What was read can be given again, and is then what it was.
    let copy = folder.path().join("copy.json");
    fs::write(&copy, &map.bytes)?;
    operator.done(&["import", "seats", event, &copy.display().to_string()])?;
    let again = staff.get(&format!("{path}/layout")).await?;
    assert_eq!(again.header("etag"), Some(tag.as_str()));

    staff
        .post(&format!("{path}/publish"), &json!({}))
        .await?
        .is(200)?;
    let late = operator.run(&["import", "seats", event, &good])?;
    assert!(!late.status.success(), "a published event keeps its seats");
    sandbox.audit_is_clean()
}

/// A concert of years to come whose stalls have no seats yet.
fn concert() -> Value {
    let number = holdfast_kernel::RequestId::generate()
        .uuid()
        .simple()
        .to_string();
    let price = |amount: i64| json!({"amount": amount, "currency": "JPY"});
    json!({
        "name": format!("Concert-{number}"), "venue": "Hall", "starts_at": "2090-12-01T10:00:00Z", "timezone": "Asia/Tokyo",
        "currency": "JPY", "per_buyer_limit": 6,
        "sections": [{"id": "S", "name": "Stalls", "kind": "seated"}, {"id": "floor", "kind": "general", "capacity": 500}],
        "tiers": [{"id": "adult", "section": "S", "price": price(4500)}, {"id": "child", "section": "S", "price": price(2000)},
            {"id": "floor", "section": "floor", "price": price(3000)}],
    })
}
