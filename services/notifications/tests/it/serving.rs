//! Mail that goes to a mail server, good or bad.

use holdfast_notifications::{Carrier, Settings};

use crate::{
    sink::{Manner, Sink},
    world::{ADDRESS, World, header},
};

async fn with(manners: &[Manner]) -> (World, Sink) {
    let sink = Sink::start(manners).await;
    let url = sink.url.clone();
    let world = World::with(|settings: &mut Settings| {
        settings.mail = Carrier::Smtp;
        settings.smtp_url = url;
        settings.mail_secs = 2;
    });
    (world.await, sink)
}

#[tokio::test]
async fn a_mail_server_is_handed_each_letter_once() {
    let (world, sink) = with(&[]).await;
    for version in 1..=3 {
        world
            .hears(&world.order_news("order.confirmed", version))
            .await;
    }
    world.mails_become(&["sent 1", "sent 1", "sent 1"]).await;
    let letters = sink.taken();
    assert_eq!(letters.len(), 3);
    let mut ids: Vec<&str> = letters
        .iter()
        .map(|letter| header(letter, "Message-ID"))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert!(letters.iter().all(|letter| header(letter, "To") == ADDRESS));
}

#[tokio::test]
async fn an_address_that_does_not_exist_gets_no_further_mail_and_is_kept_nowhere() {
    let (world, sink) = with(&[Manner::KnowsNobody]).await;
    world.hears(&world.order_news("order.confirmed", 1)).await;
    world.mails_become(&["refused 1"]).await;
    world.hears(&world.order_news("order.shipped", 2)).await;
    world.mails_become(&["refused 1", "suppressed 1"]).await;
    assert_eq!(sink.taken(), Vec::<String>::new());
    let kept: String = sqlx::query_scalar(
        "SELECT (SELECT string_agg(mail::text, '') FROM mail)
             || (SELECT string_agg(suppressed_address::text || encode(blinded, 'escape'), '') FROM suppressed_address)",
    )
    .fetch_one(&world.db.app())
    .await
    .expect("rows");
    assert!(kept.contains("mail server: 550 5.1.1"), "{kept}");
    assert!(
        !kept.contains(ADDRESS) && !kept.contains("hanako"),
        "{kept}"
    );
}

#[tokio::test]
async fn a_letter_that_is_not_liked_condemns_no_address() {
    let (world, sink) = with(&[Manner::Dislikes]).await;
    world.hears(&world.order_news("order.confirmed", 1)).await;
    world.mails_become(&["refused 1"]).await;
    world.hears(&world.order_news("order.shipped", 2)).await;
    world.mails_become(&["refused 1", "sent 1"]).await;
    assert_eq!(sink.taken().len(), 1);
}

#[tokio::test]
async fn a_server_that_is_busy_or_silent_is_asked_again_later() {
    let (world, sink) = with(&[Manner::IsBusy, Manner::IsSilent]).await;
    world.hears(&world.order_news("order.confirmed", 1)).await;
    world.mails_become(&["waiting 1"]).await;
    world.pass(60);
    world.mails_become(&["waiting 2"]).await;
    world.pass(240);
    world.mails_become(&["sent 3"]).await;
    assert_eq!(sink.taken().len(), 1);
}

#[tokio::test]
async fn a_letter_whose_fate_is_unknown_is_sent_again_as_the_same_letter() {
    let (world, sink) = with(&[Manner::HangsUp]).await;
    world.hears(&world.order_news("order.confirmed", 1)).await;
    world.mails_become(&["waiting 1"]).await;
    world.pass(60);
    world.mails_become(&["sent 2"]).await;
    let letters = sink.taken();
    assert_eq!(letters.len(), 2);
    assert_eq!(letters[0], letters[1]);
    assert!(header(&letters[0], "Message-ID").starts_with("<ntf_"));
}
