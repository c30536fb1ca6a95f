//! What goes out by mail.

use std::{fs, os::unix::fs::PermissionsExt};

use holdfast_kernel::Clock as _;
use holdfast_notifications::{Settings, dead};
use jiff::SignedDuration;
use serde_json::json;
use tonic::Status;

use crate::world::{ADDRESS, World, header, profile, profile_of_reader};

#[tokio::test]
async fn news_goes_out_once_each_in_the_order_it_happened() {
    let world = World::new().await;
    let registered = world.registration();
    world.hears(&registered).await;
    world.pass(1);
    let confirmed = world.order_news("order.confirmed", 3);
    world.hears(&confirmed).await;
    let news = [registered, confirmed];
    // A message may come again as long as the bus keeps it.
    world.hears(&world.order_news("order.created", 1)).await;
    for message in &news {
        world.hears(message).await;
    }
    world.mails_become(&["sent 1", "sent 1"]).await;
    let letters = world.letters();
    let subjects: Vec<&str> = (letters.iter())
        .map(|(_, letter)| header(letter, "Subject"))
        .collect();
    assert_eq!(letters.len(), 2, "{letters:?}");
    assert_eq!(subjects[0], "Welcome to Holdfast");
    assert!(subjects[1].starts_with("Order ord_"), "{subjects:?}");
    assert!(
        letters
            .iter()
            .all(|(_, letter)| header(letter, "To") == ADDRESS)
    );
    let mode = fs::metadata(world.mail_folder())
        .expect("the folder")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test]
async fn a_confirmation_says_what_was_paid_and_earned_in_points() {
    let world = World::new().await;
    let mut confirmed = world.order_news("order.confirmed", 3);
    confirmed.data["points_used"] = json!(1_300);
    confirmed.data["points_earned"] = json!(112);
    world.hears(&confirmed).await;
    world.mails_become(&["sent 1"]).await;
    let letter = &world.letters()[0].1;
    for line in ["Points used: 1,300.", "Points earned: 112."] {
        assert!(letter.contains(line), "{letter}");
    }
}

#[tokio::test]
async fn mail_is_in_the_language_of_the_profile() {
    let world = World::new().await;
    (world.users.get_profile)
        .otherwise(|asked| Ok(profile_of_reader(&asked.user_id, ADDRESS, "ja")));
    world.hears(&world.registration()).await;
    world.mails_become(&["sent 1"]).await;
    let letters = world.letters();
    let letter = &letters[0].1;
    // "Holdfast へようこそ" as a header carries it.
    assert!(
        header(letter, "Subject").starts_with("Holdfast =?utf-8?"),
        "{letter}"
    );
}

#[tokio::test]
async fn mail_that_was_given_up_goes_out_once_it_is_revived() {
    let world = World::new().await;
    let folder = world.mail_folder();
    fs::remove_dir(&folder).expect("removed");
    fs::write(&folder, "no folder").expect("written");
    let stays_dead = world.order_news("order.confirmed", 3);
    for message in [&world.registration(), &stays_dead] {
        world.hears(message).await;
    }
    for (tries, secs) in [(1, 60), (2, 240), (3, 960), (4, 3_840)] {
        let wanted = format!("waiting {tries}");
        world.mails_become(&[&wanted, &wanted]).await;
        world.pass(secs);
    }
    world.mails_become(&["dead 5", "dead 5"]).await;
    fs::remove_file(&folder).expect("removed");
    fs::create_dir(&folder).expect("made");

    let mut db = world.db.app().acquire().await.expect("a connection");
    let listed = dead::list(&mut db).await.expect("a list");
    let told: Vec<(&str, i32)> = (listed.iter())
        .map(|mail| (mail.kind.as_str(), mail.tries))
        .collect();
    assert_eq!(told, [("user.registered", 5), ("order.confirmed", 5)]);
    assert!(listed[0].note.starts_with("mail folder: "), "{listed:?}");
    let one = Some(listed[0].notification);
    for wanted in [1, 0] {
        let revived = dead::revive(&mut db, one, world.clock.now()).await;
        assert_eq!(revived.expect("revived"), wanted);
    }
    world.mails_become(&["sent 1", "dead 5"]).await;
    let revived = dead::revive(&mut db, None, world.clock.now()).await;
    assert_eq!(revived.expect("revived"), 1);
    world.mails_become(&["sent 1", "sent 1"]).await;
    assert_eq!(world.letters().len(), 2);
    assert_eq!(dead::list(&mut db).await.expect("a list"), []);
}

#[tokio::test]
async fn what_was_handed_over_and_not_recorded_is_handed_over_again_as_the_same_letter() {
    let mut world = World::new().await;
    world.hears(&world.order_news("order.confirmed", 3)).await;
    world.mails_become(&["sent 1"]).await;
    let before = world.letters();
    // As a worker leaves it that dies between the two: the letter is out and the book says that it is under way.
    world.restart().await;
    fs::remove_file(world.mail_folder().join(&before[0].0)).expect("removed");
    sqlx::query("UPDATE mail SET state = 'waiting', tries = 0, due_at = told_at, leased_until = told_at + interval '60 s'")
        .execute(&world.db.app())
        .await
        .expect("written");
    assert_eq!(world.letters(), []);
    world.pass(61);
    world.mails_become(&["sent 1"]).await;
    assert_eq!(
        world.letters(),
        before,
        "the same name, Message-ID and bytes"
    );
}

#[tokio::test]
async fn news_that_is_old_when_first_heard_of_is_listed_and_not_mailed() {
    let world = World::new().await;
    let mut old = world.order_news("order.confirmed", 3);
    old.at -= SignedDuration::from_secs(24 * 60 * 60 + 1);
    world.hears(&old).await;
    world.hears(&world.order_news("order.shipped", 4)).await;
    world.mails_become(&["too_old 0", "sent 1"]).await;
    assert_eq!(world.letters().len(), 1);
    let list = world.list("", 0, "").await.expect("a list");
    assert_eq!(list.notifications.len(), 2);
}

#[tokio::test]
async fn one_person_gets_so_many_mails_a_day_and_another_is_not_affected() {
    let world = World::with(|settings: &mut Settings| settings.mails_per_day = 2).await;
    for version in 1..=3 {
        world
            .hears(&world.order_news("order.confirmed", version))
            .await;
    }
    let other = world
        .realm
        .somebody(holdfast_platform::identity::Role::User);
    world
        .hears(&world.order_news_of(other.user, "order.confirmed", 1))
        .await;
    world
        .mails_become(&["sent 1", "sent 1", "too_many 0", "sent 1"])
        .await;
    world.pass(24 * 60 * 60 + 1);
    world.hears(&world.order_news("order.confirmed", 4)).await;
    world
        .mails_become(&["sent 1", "sent 1", "too_many 0", "sent 1", "sent 1"])
        .await;
}

#[tokio::test]
async fn mail_waits_for_users_without_losing_a_try_and_goes_to_nobody_who_is_gone() {
    let world = World::new().await;
    for answer in [
        Err(Status::unavailable("away")),
        Err(Status::unavailable("away")),
    ] {
        world.users.get_profile.then(answer);
    }
    world.hears(&world.order_news("order.confirmed", 3)).await;
    for takes in 1..=2 {
        world.mail_is_left_after(takes).await;
        assert_eq!(world.mails().await, ["waiting 0"]);
        if takes == 1 {
            world.pass(11);
        }
    }
    world.users.get_profile.then(Err(Status::not_found("gone")));
    world.pass(11);
    world.mails_become(&["no_address 1"]).await;

    let user = world.person.user.to_string();
    world
        .users
        .get_profile
        .then(Ok(profile(&user, "a\r\nBcc: all@holdfast.example")));
    world.hears(&world.order_news("order.shipped", 4)).await;
    world.mails_become(&["no_address 1", "no_address 1"]).await;
    assert_eq!(world.letters(), []);
}

#[tokio::test]
async fn a_folder_that_takes_nothing_is_tried_five_times_and_then_given_up() {
    let world = World::new().await;
    let folder = world.mail_folder();
    fs::remove_dir(&folder).expect("removed");
    fs::write(&folder, "no folder").expect("written");
    world.hears(&world.order_news("order.confirmed", 3)).await;
    for (wanted, secs) in [
        ("waiting 1", 60),
        ("waiting 2", 240),
        ("waiting 3", 960),
        ("waiting 4", 3_840),
    ] {
        world.mails_become(&[wanted]).await;
        world.pass(secs);
    }
    world.mails_become(&["dead 5"]).await;
}

type Change = fn(&mut Settings);

#[tokio::test]
async fn a_setting_that_cannot_be_is_refused_by_its_name() {
    let world = World::new().await;
    let changes: [(&str, Change); 4] = [
        ("default_locale", |settings| {
            settings.default_locale = "tlh".to_owned();
        }),
        ("mail_from", |settings| {
            settings.mail_from = "a\nb".to_owned();
        }),
        ("lease_secs", |settings| {
            settings.lease_secs = settings.mail_secs;
        }),
        ("shop_name", |settings| {
            settings.shop_name = "A\r\nBcc: all".to_owned();
        }),
    ];
    for (key, change) in changes {
        let refused = world.refuses(change);
        assert!(
            refused.starts_with(&format!("setting notifications.{key}: ")),
            "{refused}"
        );
    }
}
