//! Events as they are planned, change and pass.

use std::collections::BTreeSet;

use super::*;

/// Second 0 is when the event is planned; its sale opens at 100, closes at 200, and it starts at 300.
fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a moment")
}

fn row(label: &str, seats: usize) -> Row {
    Row {
        label: label.to_owned(),
        tier: None,
        numbers: (1..=seats).map(|number| number.to_string()).collect(),
        points: Vec::new(),
    }
}

fn section(id: &str, rows: Vec<Row>) -> Section {
    Section {
        id: id.to_owned(),
        name: id.to_owned(),
        places: Places::seated(Shape::Curved, rows),
    }
}

fn tier(id: &str, section: &str) -> Tier {
    Tier {
        id: id.to_owned(),
        name: id.to_owned(),
        section: section.to_owned(),
        price: 4_500,
        ends_at: None,
    }
}

fn plan() -> Plan {
    Plan {
        name: "Winter concert".to_owned(),
        venue: "Hall".to_owned(),
        starts_at: at(300),
        timezone: Zone::parse("Asia/Tokyo").expect("a zone"),
        currency: "JPY".parse().expect("a currency"),
        per_buyer_limit: Some(6),
        sale: Sale {
            opens_at: Some(at(100)),
            closes_at: Some(at(200)),
            waiting_room: None,
        },
        sections: vec![section("S", vec![row("A", 20), row("B", 22)])],
        tiers: vec![tier("adult", "S"), tier("child", "S")],
    }
}

fn draft() -> Event {
    Event::draft(Id::generate(), plan(), at(0)).expect("a plan that can be taken")
}

fn published() -> Event {
    draft().publish(at(0)).expect("complete")
}

/// Makes something wrong with a plan.
type Spoil = fn(&mut Plan);

/// The field that a plan is refused for.
fn refused_for(change: impl FnOnce(&mut Plan)) -> String {
    let mut plan = plan();
    change(&mut plan);
    match Event::draft(Id::generate(), plan, at(0)) {
        Err(EventsError::Refused(field)) => field.name,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_readme_shows_the_machine_as_it_is() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    holdfast_testkit::assert_states_drawn(readme, &Phase::Draft, MOVES);
}

/// Walks from the draft by everything that staff and time can do, and finds the moves of the table: no other, and all of them.
#[test]
fn staff_and_time_make_the_moves_of_the_table_and_no_other() {
    let sale = |opens: i64, closes: i64| Change {
        sale: Some(Sale {
            opens_at: Some(at(opens)),
            closes_at: Some(at(closes)),
            waiting_room: None,
        }),
        ..Change::default()
    };
    let mut seen = BTreeSet::new();
    for now in [50, 150, 250] {
        let events = [
            draft(),
            published(),
            published().cancel("ill").expect("cancelled"),
        ];
        for event in events {
            let from = event.phase(at(now));
            let done = [
                event.clone().publish(at(now)),
                event.clone().cancel("ill"),
                event
                    .clone()
                    .change(sale(now + 10, now + 20))
                    .map(|it| it.0),
                event
                    .clone()
                    .change(sale(now - 10, now + 20))
                    .map(|it| it.0),
            ];
            for after in done.into_iter().flatten() {
                seen.insert((from.as_str(), after.phase(at(now)).as_str()));
            }
            seen.insert((from.as_str(), event.phase(at(now + 100)).as_str()));
        }
    }
    seen.retain(|(from, to)| from != to);
    // That a sale opens early is one of its moves, and is drawn as its opening.
    let told: BTreeSet<_> = MOVES
        .iter()
        .map(|(from, _, to)| (from.as_str(), to.as_str()))
        .collect();
    assert_eq!(seen, told);
}

#[test]
fn a_sale_is_open_from_its_first_moment_on_and_not_in_its_last() {
    let event = published();
    for (second, phase) in [
        (99, Phase::Published),
        (100, Phase::OnSale),
        (199, Phase::OnSale),
        (200, Phase::Closed),
    ] {
        assert_eq!(event.phase(at(second)), phase, "at {second}");
    }
    let mut open = plan();
    open.sale = Sale::default();
    let open = Event::draft(Id::generate(), open, at(0)).and_then(|it| it.publish(at(0)));
    let open = open.expect("complete");
    assert_eq!(
        open.phase(at(0)),
        Phase::OnSale,
        "it opens when it is published"
    );
    assert_eq!(
        open.phase(at(300)),
        Phase::Closed,
        "it closes when it starts"
    );
}

#[test]
fn a_sale_ends_with_its_last_tier() {
    let mut plan = plan();
    plan.tiers[0].ends_at = Some(at(120));
    plan.tiers[1].ends_at = Some(at(150));
    assert_eq!(plan.sells_until(), at(150));
    plan.tiers[1].ends_at = None;
    assert_eq!(plan.sells_until(), at(200));
    plan.tiers[1].ends_at = Some(at(1_000));
    assert_eq!(plan.sells_until(), at(200), "no tier outlasts the sale");
}

#[test]
fn a_plan_that_cannot_be_taken_is_refused_by_its_field() {
    let fields: [(&str, Spoil); 17] = [
        ("name", |plan| plan.name = " ".to_owned()),
        ("venue", |plan| plan.venue = "x".repeat(201)),
        ("per_buyer_limit", |plan| plan.per_buyer_limit = Some(1_001)),
        ("sale.opens_at", |plan| plan.sale.opens_at = Some(at(200))),
        ("sale.lobby_opens_at", |plan| {
            plan.sale.waiting_room = Some(WaitingRoom {
                lobby_opens_at: at(100),
                admissions_per_minute: 1,
            });
        }),
        ("sale.admissions_per_minute", |plan| {
            plan.sale.waiting_room = Some(WaitingRoom {
                lobby_opens_at: at(0),
                admissions_per_minute: 0,
            });
        }),
        ("sections[0].id", |plan| {
            plan.sections[0].id = "é".to_owned();
        }),
        ("sections[1].id", |plan| {
            plan.sections.push(section("S", vec![row("A", 1)]));
        }),
        ("sections[1].capacity", |plan| {
            plan.sections.push(Section {
                places: Places::General { capacity: 0 },
                ..section("floor", Vec::new())
            });
        }),
        ("sections[0].rows[1].row", |plan| {
            plan.sections = vec![section("S", vec![row("A", 1), row("A-B", 1)])];
        }),
        ("sections[0].rows[0].seats", |plan| {
            plan.sections = vec![section("S", vec![row("A", 0)])];
        }),
        ("sections[0].rows[1].numbers[0]", |plan| {
            plan.sections = vec![section("S", vec![row("A", 3), row("A", 1)])];
        }),
        ("sections", |plan| {
            plan.sections = vec![section("S", vec![row("A", SEATS_MAX_ENTRIES + 1)])];
        }),
        ("sections[0].rows[0].y", |plan| {
            let far = Point { x: 0, y: 1_000_001 };
            plan.sections = vec![section(
                "S",
                vec![Row {
                    points: vec![far],
                    ..row("A", 1)
                }],
            )];
        }),
        ("tiers[1].id", |plan| plan.tiers[1].id = "adult".to_owned()),
        ("tiers[0].section", |plan| {
            plan.tiers[0].section = "T".to_owned();
        }),
        ("tiers[0].ends_at", |plan| {
            plan.tiers[0].ends_at = Some(at(100));
        }),
    ];
    for (field, change) in fields {
        assert_eq!(refused_for(change), field);
    }
    let of_another_section = refused_for(|plan| {
        plan.sections.push(section("T", vec![row("A", 1)]));
        let bound = Row {
            tier: Some("adult".to_owned()),
            ..row("B", 1)
        };
        plan.sections.push(section("U", vec![bound]));
    });
    assert_eq!(of_another_section, "sections[2].rows[0].tier");
    assert!(Zone::parse("Mars/Olympus").is_err());
    assert_eq!(
        Zone::parse("asia/tokyo").expect("a zone").as_str(),
        "Asia/Tokyo"
    );
}

#[test]
fn an_event_is_published_whole_or_told_all_that_it_lacks() {
    let mut bare = plan();
    bare.sections = vec![section("S", Vec::new()), section("T", vec![row("A", 1)])];
    let bare = Event::draft(Id::generate(), bare, at(0)).expect("a draft lacks what it may");
    let Err(EventsError::EventIncomplete(lacking)) = bare.publish(at(250)) else {
        panic!("it has no seats");
    };
    let fields: Vec<&str> = lacking.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(fields, ["sections[0].rows", "tiers", "sale.closes_at"]);
    assert!(lacking[1].text.contains('T'), "{lacking:?}");
}

#[test]
fn what_is_published_keeps_its_seats_its_money_and_its_tiers_and_may_gain_some() {
    let field = |change: Change| match published().change(change) {
        Err(EventsError::EventPublished { field }) => field,
        other => panic!("{other:?}"),
    };
    let tiers = |tiers: Vec<Tier>| Change {
        tiers: Some(tiers),
        ..Change::default()
    };
    assert_eq!(field(tiers(vec![tier("adult", "S")])), "tiers");
    let sections = Change {
        sections: Some(plan().sections),
        ..Change::default()
    };
    assert_eq!(field(sections), "sections");
    let currency = Change {
        currency: Some("EUR".parse().expect("a currency")),
        ..Change::default()
    };
    assert_eq!(field(currency), "currency");
    let reseated = published().reseat(vec![plan().sections.remove(0)]);
    assert!(matches!(reseated, Err(EventsError::EventPublished { .. })));

    let mut more = plan().tiers;
    more[0].price = 5_000;
    more.push(tier("late", "S"));
    let (after, fields) = published().change(tiers(more)).expect("more of them");
    assert_eq!(fields, ["tiers"]);
    assert_eq!(after.version, published().version + 1);
    assert_eq!(after.layout_version, published().layout_version);
}

#[test]
fn what_changes_nothing_is_no_change() {
    let again = Change {
        name: Some("Winter concert".to_owned()),
        sections: Some(plan().sections),
        ..Change::default()
    };
    let (after, fields) = draft().change(again).expect("taken");
    assert_eq!(
        (after.version, after.layout_version, fields),
        (1, 1, vec![])
    );
}

#[test]
fn a_cancelled_event_stays_as_it_was_and_the_first_reason_stands() {
    let cancelled = published().cancel("ill").expect("cancelled");
    let again = cancelled.clone().cancel("tired").expect("the same");
    assert_eq!(again, cancelled);
    assert_eq!(cancelled.published_at(), Some(at(0)), "the public may know");
    let change = Change {
        name: Some("Summer concert".to_owned()),
        ..Change::default()
    };
    let refused = cancelled.clone().change(change);
    assert!(matches!(refused, Err(EventsError::EventCancelled)));
    let refused = cancelled.publish(at(0));
    assert!(matches!(refused, Err(EventsError::EventCancelled)));
    let never_seen = draft().cancel("no money").expect("cancelled");
    assert_eq!(never_seen.published_at(), None);
}

/// Positions of all seats of sections, laid out.
fn floor(sections: Vec<Section>) -> Vec<Point> {
    let event = Event::draft(
        Id::generate(),
        Plan {
            sections,
            tiers: Vec::new(),
            ..plan()
        },
        at(0),
    );
    let plan = event.expect("taken").plan;
    let rows = plan
        .sections
        .iter()
        .flat_map(|section| section.places.rows());
    rows.flat_map(|row| row.points.clone()).collect()
}

/// The least distance between two seats, in centimetres.
fn closest(points: &[Point]) -> f64 {
    let mut by_x: Vec<&Point> = points.iter().collect();
    by_x.sort_by_key(|point| point.x);
    let mut least = f64::MAX;
    for (at, one) in by_x.iter().enumerate() {
        for other in &by_x[at + 1..] {
            let (x, y) = (f64::from(other.x - one.x), f64::from(other.y - one.y));
            if x >= least {
                break;
            }
            least = least.min(x.hypot(y));
        }
    }
    least
}

#[test]
fn a_hall_is_laid_out_alike_every_time_with_room_between_its_seats_and_symmetrically() {
    let rows = |letters: &str, seats: usize| -> Vec<Row> {
        let letters = letters.chars().enumerate();
        letters
            .map(|(at, letter)| row(&letter.to_string(), seats + 2 * at))
            .collect()
    };
    for shape in [Shape::Curved, Shape::Straight] {
        let sections = || {
            let mut sections = vec![
                section("stalls", rows("ABCDEFGHIJKLMNOPQRST", 30)),
                section("circle", rows("ABCDEFGHIJ", 60)),
                section("balcony", rows("ABCDE", 70)),
            ];
            for section in &mut sections {
                if let Places::Seated { shape: of, .. } = &mut section.places {
                    *of = shape;
                }
            }
            sections
        };
        let points = floor(sections());
        assert_eq!(points, floor(sections()));
        assert!(closest(&points) > 50.0, "{shape:?}: {}", closest(&points));
        let ahead = points.iter().all(|point| point.y > 0);
        assert!(ahead, "{shape:?}: a hall is before its stage");
        let whole: BTreeSet<(i32, i32)> = points.iter().map(|point| (point.x, point.y)).collect();
        let mirrored = points
            .iter()
            .filter(|point| whole.contains(&(-point.x, point.y)));
        assert_eq!(mirrored.count(), points.len(), "{shape:?} is symmetrical");
    }
}

#[test]
fn a_stadium_surrounds_its_field_and_its_blocks_do_not_touch() {
    for shape in [Shape::Curved, Shape::Straight] {
        let blocks = (0..40).map(|block| Section {
            places: Places::seated(shape, (0..25).map(|at| row(&at.to_string(), 50)).collect()),
            ..section(&format!("B{block}"), Vec::new())
        });
        let points = floor(blocks.collect());
        assert_eq!(points.len(), 50_000);
        assert!(closest(&points) > 50.0, "{shape:?}: {}", closest(&points));
        assert!(
            points.iter().any(|point| point.y < 0),
            "{shape:?}: nobody behind"
        );
    }
}

#[test]
fn parts_of_a_row_stand_in_one_line_and_what_has_its_place_keeps_it() {
    let mut best = row("A", 0);
    best.numbers = vec!["3".to_owned(), "4".to_owned()];
    best.tier = Some("adult".to_owned());
    let sections = vec![Section {
        places: Places::seated(Shape::Straight, vec![row("A", 2), best]),
        ..section("S", Vec::new())
    }];
    let mut whole = plan();
    whole.sections = sections;
    let event = Event::draft(Id::generate(), whole, at(0)).expect("taken");
    let rows = event.plan.sections[0].places.rows();
    let line: Vec<Point> = rows.iter().flat_map(|row| row.points.clone()).collect();
    let xs: Vec<i32> = line.iter().map(|point| point.x).collect();
    assert!(
        xs.is_sorted() && line.iter().all(|point| point.y == line[0].y),
        "{line:?}"
    );

    let mut sections = event.plan.sections.clone();
    sections.insert(0, section("front", vec![row("A", 10)]));
    let change = Change {
        sections: Some(sections),
        ..Change::default()
    };
    let before = event.plan.sections[0].clone();
    let (after, _) = event.change(change).expect("taken");
    assert_eq!(after.plan.sections[1], before);
    assert!(after.plan.sections[0].places.rows()[0].points[0].y > 0);
}

#[test]
fn the_id_of_a_seat_reads_in_one_way_only() {
    assert_eq!(seat_id("main-left", "A", "12"), "main-left-A-12");
    let odd = refused_for(|plan| {
        let mut odd = row("A", 1);
        odd.numbers = vec!["1-2".to_owned()];
        plan.sections = vec![section("S", vec![odd])];
    });
    assert_eq!(odd, "sections[0].rows[0].numbers[0]");
}
