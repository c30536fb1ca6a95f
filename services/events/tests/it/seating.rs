//! Seat maps: given, laid out, replaced, told whole and seat by seat.

use std::{collections::BTreeSet, time::Instant};

use holdfast_proto::events::v1 as pb;
use prost::Message as _;

use crate::world::{World, concert, field, reason, seated, standing, tier};

#[tokio::test]
async fn seats_without_positions_are_laid_out_and_told_to_who_does_not_have_them() {
    let world = World::new().await;
    let event = world.published().await.id;
    let layout = world.layout(&world.buyer, &event, 0).await.expect("public");
    assert_eq!(layout.version, 1);
    let stalls = &layout.sections[0];
    assert_eq!(stalls.rows[1].numbers, ["1", "2", "3", "4"]);
    assert!(
        stalls.rows[1].x.is_sorted(),
        "left to right: {:?}",
        stalls.rows[1].x
    );
    assert!(
        stalls.rows[0].y.iter().max() < stalls.rows[1].y.iter().min(),
        "front to back"
    );
    assert_eq!(layout.sections[1].capacity, 500);
    let known = world.layout(&world.buyer, &event, 1).await.expect("public");
    assert_eq!((known.sections, known.version), (Vec::new(), 1));
    let older = world.layout(&world.buyer, &event, 7).await.expect("public");
    assert_eq!(older.sections.len(), 2);
}

#[tokio::test]
async fn a_draft_takes_other_seats_and_what_is_not_named_stays() {
    let world = World::new().await;
    let made = world.create(concert()).await.expect("made");
    let mut drawn = seated("S", &[("A", 2)]);
    drawn.rows[0].numbers = vec!["1".to_owned(), "1a".to_owned()];
    drawn.rows[0].tier = "child".to_owned();
    (drawn.rows[0].x, drawn.rows[0].y) = (vec![-40, 40], vec![900, 910]);
    let before = world
        .layout(&world.staff, &made.id, 0)
        .await
        .expect("there");
    let after = world
        .reseat(&made.id, 1, vec![drawn.clone()])
        .await
        .expect("a draft");
    assert_eq!(after.version, 2);
    assert_eq!(after.sections[0].rows, drawn.rows);
    assert_eq!(after.sections[1], before.sections[1]);
    let shown = world.show(&world.staff, &made.id).await.expect("there");
    assert_eq!(
        (
            shown.version,
            shown.layout_version,
            shown.sections[0].capacity
        ),
        (2, 2, 2)
    );

    let same = world
        .reseat(&made.id, 2, vec![drawn.clone()])
        .await
        .expect("the same");
    assert_eq!(same.version, 2, "what changes nothing is no change");
    let stale = world
        .reseat(&made.id, 1, vec![drawn])
        .await
        .expect_err("stale");
    assert_eq!(reason(&stale), "LAYOUT_CHANGED");
    for (sections, wanted) in [
        (vec![seated("T", &[("A", 1)])], "sections[0].id"),
        (vec![standing("S", 5)], "sections[0].id"),
        (
            vec![standing("floor", 5), standing("floor", 6)],
            "sections[1].id",
        ),
    ] {
        let refused = world.reseat(&made.id, 2, sections).await.expect_err(wanted);
        assert_eq!(field(&refused), wanted);
    }
    world.publish(&made.id).await.expect("published");
    let refused = world.reseat(&made.id, 0, vec![standing("floor", 9)]).await;
    assert_eq!(reason(&refused.expect_err("published")), "EVENT_PUBLISHED");
    assert_eq!(
        world.audited().await,
        ["event_created", "layout_replaced", "event_published"]
    );
}

#[tokio::test]
async fn seats_are_told_one_by_one_over_sections_and_pages_that_can_be_taken_up_again() {
    let world = World::new().await;
    let mut wish = concert();
    wish.sections.push(seated("T", &[("A", 2)]));
    wish.tiers.push(tier("balcony", "T", 1_000));
    let event = world.create(wish).await.expect("made").id;
    for size in [1, 3, 7, 8, 9, 10] {
        let (mut ids, mut token) = (Vec::new(), String::new());
        loop {
            let page = world.seats(&event, size, &token).await.expect("a page");
            assert!(page.seats.len() <= size as usize);
            ids.extend(page.seats.into_iter().map(|seat| (seat.id, seat.pool)));
            token = page.next_token;
            if token.is_empty() {
                break;
            }
        }
        let told: Vec<&str> = ids.iter().map(|(id, _)| id.as_str()).collect();
        let wanted = [
            "S-A-1", "S-A-2", "S-A-3", "S-B-1", "S-B-2", "S-B-3", "S-B-4", "T-A-1", "T-A-2",
        ];
        assert_eq!(told, wanted, "by {size}");
        assert_eq!(ids[8].1, format!("seat:{event}:T-A-2"));
    }
    let page = world.seats(&event, 1, "").await.expect("a page");
    world
        .reseat(&event, 1, vec![standing("floor", 9)])
        .await
        .expect("a draft");
    let refused = world.seats(&event, 1, &page.next_token).await;
    assert_eq!(
        reason(&refused.expect_err("another layout")),
        "LAYOUT_CHANGED"
    );
    let refused = world.seats(&event, 5_001, "").await.expect_err("too many");
    assert_eq!(field(&refused), "size");
}

#[tokio::test]
async fn a_stadium_of_50_000_seats_is_kept_small_and_told_in_one_piece() {
    let world = World::new().await;
    let labels: Vec<String> = (1..=25).map(|row| row.to_string()).collect();
    let rows: Vec<(&str, i32)> = labels.iter().map(|row| (row.as_str(), 50)).collect();
    let blocks: Vec<String> = (1..=40).map(|block| format!("B{block}")).collect();
    let wish = pb::CreateEventRequest {
        sections: blocks.iter().map(|block| seated(block, &rows)).collect(),
        tiers: blocks
            .iter()
            .map(|block| tier(block, block, 5_000))
            .collect(),
        ..concert()
    };
    let begun = Instant::now();
    let event = world.create(wish).await.expect("made").id;
    let made = begun.elapsed();
    world.publish(&event).await.expect("published");
    let begun = Instant::now();
    let layout = world.layout(&world.buyer, &event, 0).await.expect("public");
    let told = begun.elapsed();
    let (kept, sent) = (world.bytes_of_seats().await, layout.encoded_len());
    println!(
        "50,000 seats: made in {made:.0?}, {kept} bytes kept; told in {told:.0?}, {sent} bytes"
    );
    assert!(kept < 300_000, "{kept} bytes");
    let rows = layout.sections.iter().flat_map(|section| &section.rows);
    let places: BTreeSet<(i32, i32)> = rows
        .flat_map(|row| row.x.iter().copied().zip(row.y.iter().copied()))
        .collect();
    assert_eq!(places.len(), 50_000, "no seat stands on another");
    let begun = Instant::now();
    let (mut seats, mut token) = (0, String::new());
    loop {
        let page = world.seats(&event, 5_000, &token).await.expect("a page");
        seats += page.seats.len();
        token = page.next_token;
        if token.is_empty() {
            break;
        }
    }
    println!("told one by one in {:.0?}", begun.elapsed());
    assert_eq!(seats, 50_000);
}

#[tokio::test]
async fn an_event_has_at_most_100_000_seats() {
    let world = World::new().await;
    let rows: Vec<String> = (0..200).map(|row| format!("R{row}")).collect();
    let mut rows: Vec<(&str, i32)> = rows.iter().map(|row| (row.as_str(), 500)).collect();
    let of = |rows: &[(&str, i32)]| pb::CreateEventRequest {
        sections: vec![seated("S", rows)],
        tiers: vec![tier("all", "S", 1)],
        ..concert()
    };
    let most = world.create(of(&rows)).await.expect("as many as may be").id;
    let layout = world
        .layout(&world.staff, &most, 0)
        .await
        .expect("in one message");
    assert_eq!(layout.sections[0].capacity, 100_000);
    rows[199].1 += 1;
    let refused = world.create(of(&rows)).await.expect_err("one more");
    assert_eq!(field(&refused), "sections[0].rows[199].seats");
}
