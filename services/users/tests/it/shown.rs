//! Profiles kept in memory: for the people they are of, never older than what they wrote.

use holdfast_platform::identity::Role;
use holdfast_testkit::Meter;
use jiff::SignedDuration;
use tonic::Code;

use crate::world::World;

const PROFILES: &str = "users.profiles";

#[tokio::test]
async fn ones_own_profile_is_read_once_until_one_changes_it_and_then_at_once() {
    let meter = Meter::new();
    let _measured = meter.measure();
    let world = World::new().await;
    world.hear(true);
    let nobody = world.profile_seen_by(world.owner()).await;
    assert_eq!(nobody.expect_err("not yet").code(), Code::NotFound);
    let made = world.create_profile("ada@example.com", "Ada").await;
    for _ in 0..3 {
        assert_eq!(world.profile().await, made);
    }
    assert_eq!(meter.reads(PROFILES, ["miss", "hit", "absent"]), [2, 2, 0]);
    let renamed = world.rename("Ada Lovelace", 0).await.expect("renamed");
    assert_eq!(world.profile().await, renamed);
    assert_eq!(meter.reads(PROFILES, ["miss", "hit", "absent"]), [3, 2, 0]);
}

#[tokio::test]
async fn what_is_kept_for_one_is_shown_to_nobody_else() {
    let meter = Meter::new();
    let _measured = meter.measure();
    let world = World::new().await;
    world.hear(true);
    world.create_profile("ada@example.com", "Ada").await;
    world.profile().await;
    let read = meter.reads(PROFILES, ["miss", "hit"]);
    let stranger = world.somebody(Role::User);
    let refused = world.profile_seen_by(&stranger).await;
    assert_eq!(refused.expect_err("a stranger").code(), Code::NotFound);
    for role in [Role::Staff, Role::Admin] {
        let seen = world.profile_seen_by(&world.somebody(role)).await;
        assert_eq!(seen.expect("they may").name, "Ada");
    }
    assert_eq!(
        meter.reads(PROFILES, ["miss", "hit"]),
        read,
        "they read the table"
    );
}

#[tokio::test]
async fn an_erased_person_is_forgotten_with_the_news_of_it() {
    let world = World::new().await;
    world.hear(true);
    world.create_profile("ada@example.com", "Ada").await;
    world.profile().await;
    world.hears_of_deactivation(true).await;
    world.tell().await;
    let refused = world.profile_seen_by(world.owner()).await;
    assert_eq!(refused.expect_err("forgotten").code(), Code::NotFound);
}

#[tokio::test]
async fn what_nobody_told_of_is_read_anew_after_five_minutes() {
    let meter = Meter::new();
    let _measured = meter.measure();
    let world = World::new().await;
    world.hear(true);
    world.create_profile("ada@example.com", "Ada").await;
    world.profile().await;
    world.clock.advance(SignedDuration::from_secs(299));
    world.profile().await;
    assert_eq!(meter.reads(PROFILES, ["miss", "hit"]), [1, 1]);
    world.clock.advance(SignedDuration::from_secs(1));
    world.profile().await;
    assert_eq!(meter.reads(PROFILES, ["miss", "hit"]), [2, 1]);
}
