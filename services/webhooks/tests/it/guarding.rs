//! Deliveries reach no inside address, whatever a name means at which moment.
//!
//! In these tests 127.0.0.2 stands for the public Internet, and 127.0.0.1 for what must not be reached.

use std::{
    collections::VecDeque,
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use holdfast_proto::webhooks::v1 as pb;
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::{io::AsyncReadExt, net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

use crate::{receiver::Receiver, world::World};

const OUTSIDE: &str = "127.0.0.2";
const INSIDE: &str = "127.0.0.1";

/// The service over a name server that answers these, one after the other, and how often it was asked.
async fn over(answers: Vec<io::Result<Vec<&'static str>>>) -> (World, Arc<AtomicUsize>) {
    let asked = Arc::<AtomicUsize>::default();
    let counted = asked.clone();
    let mut answers = VecDeque::from(answers);
    let lookup = move |name: String| {
        assert_eq!(name, "receiver.example");
        counted.fetch_add(1, SeqCst);
        let answer = answers.pop_front().expect("a try looks the name up once");
        answer.map(|found| {
            found
                .iter()
                .map(|ip| ip.parse::<IpAddr>().expect("an address"))
                .collect()
        })
    };
    let world = World::over(
        |settings| settings.allowed_networks = vec!["127.0.0.2/32".parse().expect("a network")],
        lookup,
    );
    (world.await, asked)
}

/// A receiver outside and one inside, at the same port.
async fn receivers() -> (Receiver, Receiver, String) {
    let outside = Receiver::start_at(&format!("{OUTSIDE}:0")).await;
    let port = outside.address.port();
    let inside = Receiver::start_at(&format!("{INSIDE}:{port}")).await;
    (outside, inside, format!("http://receiver.example:{port}/"))
}

/// Sends one message after the other and gives what came of the last.
async fn send(world: &World, id: &str, number: usize) -> pb::Attempt {
    world
        .order(&format!("ord_{number}"), 1, "order.created")
        .await;
    let mut attempts = world.ended(id, number).await;
    attempts.pop().expect("just ended")
}

#[tokio::test]
async fn a_name_that_changes_its_meaning_is_judged_at_every_try_and_pinned_for_it() {
    let (outside, inside, url) = receivers().await;
    let (world, asked) = over(vec![Ok(vec![OUTSIDE]), Ok(vec![INSIDE]), Ok(vec![OUTSIDE])]).await;
    let (id, secret) = world.subscribe(&url, &["order.*"]).await;
    assert_eq!(
        asked.load(SeqCst),
        0,
        "nothing is looked up for a subscription"
    );

    assert_eq!(send(&world, &id, 1).await.status_code, 200);
    assert_eq!(asked.load(SeqCst), 1);
    let refused = send(&world, &id, 2).await;
    assert_eq!(
        (refused.status_code, refused.error.as_str()),
        (0, "address_refused")
    );
    assert_eq!(refused.state(), pb::DeliveryState::Waiting);
    assert_eq!(send(&world, &id, 3).await.status_code, 200);
    assert_eq!(asked.load(SeqCst), 3, "each try looks the name up once");

    let got = outside.got(2).await;
    assert!(got.iter().all(|got| got.is_signed_with(&secret)));
    assert!(got[0].header("host").starts_with("receiver.example:"));
    assert_eq!(inside.so_far().len(), 0);
}

#[tokio::test]
async fn one_inside_address_among_the_answers_refuses_them_all() {
    let (outside, inside, url) = receivers().await;
    let (world, _) = over(vec![
        Ok(vec![OUTSIDE, INSIDE]),
        Ok(vec![INSIDE, OUTSIDE]),
        Ok(vec![OUTSIDE, "::1"]),
        Ok(vec!["::ffff:127.0.0.2"]),
        Ok(vec!["169.254.169.254"]),
        Ok(vec!["64:ff9b::7f00:2"]),
    ])
    .await;
    let (id, _) = world.subscribe(&url, &["order.*"]).await;
    for number in 1..=6 {
        let attempt = send(&world, &id, number).await;
        assert_eq!(attempt.error, "address_refused", "{number}");
    }
    assert_eq!((outside.so_far().len(), inside.so_far().len()), (0, 0));
}

#[tokio::test]
async fn a_name_server_that_fails_first_and_lies_then_opens_nothing() {
    let (_outside, inside, url) = receivers().await;
    let failing = || Err(io::Error::other("no answer"));
    let (world, _) = over(vec![failing(), Ok(vec![]), Ok(vec![INSIDE])]).await;
    let (id, _) = world.subscribe(&url, &["order.*"]).await;
    for (number, error) in [(1, "dns"), (2, "dns"), (3, "address_refused")] {
        let attempt = send(&world, &id, number).await;
        assert_eq!((attempt.status_code, attempt.error.as_str()), (0, error));
        assert_eq!(
            attempt.state(),
            pb::DeliveryState::Waiting,
            "a failed try, no more"
        );
    }
    assert_eq!(inside.so_far().len(), 0);
}

#[tokio::test]
async fn a_public_address_is_reached_at_the_ports_of_the_web_only() {
    let (world, asked) = over(vec![Ok(vec!["1.1.1.1"])]).await;
    let (id, _) = world
        .subscribe("https://receiver.example:8443/", &["order.*"])
        .await;
    assert_eq!(send(&world, &id, 1).await.error, "address_refused");
    assert_eq!(asked.load(SeqCst), 1);
}

#[tokio::test]
async fn an_address_that_was_allowed_once_is_judged_again_at_every_try() {
    let world = World::new().await;
    let receiver = Receiver::start().await;
    let (id, _) = world.subscribe(&receiver.url(), &["order.*"]).await;
    // The rules became stricter since: the row says what a subscription today could not.
    sqlx::query("UPDATE subscription SET url = 'http://10.0.0.1:80/'")
        .execute(&world.db.owner())
        .await
        .expect("changed");
    assert_eq!(send(&world, &id, 1).await.error, "address_refused");
    assert_eq!(receiver.so_far().len(), 0);
}

#[tokio::test]
async fn who_cannot_prove_its_name_gets_nothing() {
    let (world, _) = over(vec![Ok(vec![OUTSIDE])]).await;
    let (port, handshakes) = impostor().await;
    let plain = Receiver::start_at(&format!("{OUTSIDE}:0")).await;
    let named = format!("https://receiver.example:{port}/");
    let (named, _) = world.subscribe(&named, &["order.created"]).await;
    let plainly = format!("https://{}/", plain.address);
    let (plainly, _) = world.subscribe(&plainly, &["order.created"]).await;
    world.order("ord_1", 1, "order.created").await;
    for id in [named, plainly] {
        let attempt = world.ended(&id, 1).await.pop().expect("just ended");
        assert_eq!((attempt.status_code, attempt.error.as_str()), (0, "tls"));
    }
    assert!(!handshakes.await.expect("it was asked"), "it was believed");
    assert_eq!(plain.so_far().len(), 0);
}

/// A server that shows a certificate for the receiver's name which nobody vouches for: its port, and whether the first
/// who came believed it.
async fn impostor() -> (u16, JoinHandle<bool>) {
    let made = rcgen::generate_simple_self_signed(["receiver.example".to_owned()]);
    let rcgen::CertifiedKey { cert, signing_key } = made.expect("a certificate");
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("they belong together");
    let listener = TcpListener::bind((OUTSIDE, 0)).await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let handshake = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("somebody comes");
        let mut byte = [0];
        match acceptor.accept(stream).await {
            // In TLS 1.3 the server is done before the client has judged: what counts is whether it goes on.
            Ok(mut stream) => matches!(stream.read(&mut byte).await, Ok(1)),
            Err(_) => false,
        }
    });
    (port, handshake)
}
