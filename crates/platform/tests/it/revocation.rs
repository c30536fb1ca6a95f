//! Tokens that are dead before their time: as the stream says, and by asking while it says nothing.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::StreamExt;
use holdfast_kernel::{Clock, Id, id};
use holdfast_platform::{
    fault::{Fault, FaultCode},
    identity::{
        REVOCATIONS_SILENT_MAX_SECS, RevocationSource, RevocationStream, Revoked, Role,
        SESSION_BELIEVED_SECS, Verifier,
    },
};
use holdfast_testkit::{FakeClock, Realm};
use jiff::SignedDuration;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;

/// How long a test waits for what it caused.
const WAIT_MAX: Duration = Duration::from_secs(10);

type News = Result<Vec<Revoked>, Fault>;

/// An issuer whose stream says what the test says, and a verifier that follows it.
struct World {
    realm: Realm,
    clock: FakeClock,
    verifier: Verifier,
    issuer: Arc<Issuer>,
}

struct Issuer {
    /// The stream that was asked for last.
    stream: Mutex<Option<mpsc::UnboundedSender<News>>>,
    streams: watch::Sender<usize>,
    asked: AtomicUsize,
    open: Mutex<Result<bool, &'static str>>,
}

impl World {
    fn new() -> Self {
        let clock = FakeClock::new("2026-12-01T10:00:00Z".parse().expect("a moment"));
        let realm = Realm::new(clock.clone());
        let issuer = Arc::new(Issuer {
            stream: Mutex::default(),
            streams: watch::Sender::new(0),
            asked: AtomicUsize::new(0),
            open: Mutex::new(Ok(true)),
        });
        let verifier = realm.verifier_told_of_revocations(issuer.source());
        tokio::spawn(
            verifier
                .clone()
                .follow_revocations(CancellationToken::new()),
        );
        Self {
            realm,
            clock,
            verifier,
            issuer,
        }
    }

    /// A token and its session.
    async fn login(&self) -> (String, Id<id::Session>) {
        let token = self.realm.somebody(Role::User).token().to_owned();
        let alone = self.realm.verifier();
        let claims = alone.verify(&token).await.expect("the realm's own token");
        (token, claims.sid)
    }

    async fn refusal(&self, token: &str) -> Option<FaultCode> {
        let verified = self.verifier.verify(token).await;
        verified.err().map(|fault| fault.code())
    }

    fn revoked(&self, session: Id<id::Session>) -> Revoked {
        let dead_at = self.clock.now() + SignedDuration::from_hours(1);
        Revoked { session, dead_at }
    }

    /// Says this and waits until it was heard.
    async fn say(&self, news: Vec<Revoked>) {
        let (marker, its_session) = self.login().await;
        let mut all = news;
        all.push(self.revoked(its_session));
        self.issuer.say(Ok(all));
        let heard = async {
            while self.refusal(&marker).await.is_none() {
                tokio::task::yield_now().await;
            }
        };
        timeout(WAIT_MAX, heard).await.expect("the news is heard");
    }

    fn pass(&self, secs: u64) {
        self.clock.advance(SignedDuration::from_secs(secs as i64));
    }
}

impl Issuer {
    fn source(self: &Arc<Self>) -> RevocationSource {
        let (watched, asked) = (self.clone(), self.clone());
        RevocationSource {
            watch: Arc::new(move || {
                let (sender, receiver) = mpsc::unbounded_channel();
                *watched.stream.lock().expect("unpoisoned") = Some(sender);
                watched.streams.send_modify(|count| *count += 1);
                let stream: RevocationStream = UnboundedReceiverStream::new(receiver).boxed();
                Box::pin(async { Ok(stream) })
            }),
            is_open: Arc::new(move |_| {
                asked.asked.fetch_add(1, Relaxed);
                let open = *asked.open.lock().expect("unpoisoned");
                Box::pin(async move { open.map_err(Fault::unavailable) })
            }),
        }
    }

    async fn streams(&self, count: usize) {
        let mut streams = self.streams.subscribe();
        let waited = streams.wait_for(|streams| *streams >= count);
        timeout(WAIT_MAX, waited)
            .await
            .expect("a stream is asked for")
            .expect("the sender lives");
    }

    fn say(&self, news: News) {
        let stream = self.stream.lock().expect("unpoisoned");
        let stream = stream.as_ref().expect("a stream was asked for");
        stream.send(news).expect("followed");
    }
}

#[tokio::test]
async fn a_token_whose_session_ended_is_refused_as_soon_as_that_is_told() {
    let world = World::new();
    world.issuer.streams(1).await;
    let ((here, session), (elsewhere, _)) = (world.login().await, world.login().await);
    world.say(Vec::new()).await;
    assert_eq!(world.refusal(&here).await, None);
    let asked = world.issuer.asked.load(Relaxed);
    world.say(vec![world.revoked(session)]).await;
    assert_eq!(world.refusal(&here).await, Some(FaultCode::Unauthenticated));
    assert_eq!(world.refusal(&elsewhere).await, None);
    assert_eq!(world.issuer.asked.load(Relaxed), asked, "nobody was asked");
}

#[tokio::test]
async fn while_the_stream_is_silent_the_issuer_is_asked_and_believed_for_a_while() {
    let world = World::new();
    world.issuer.streams(1).await;
    let (token, _) = world.login().await;
    world.say(Vec::new()).await;
    world.pass(REVOCATIONS_SILENT_MAX_SECS - 1);
    let before = world.issuer.asked.load(Relaxed);
    assert_eq!(world.refusal(&token).await, None);
    assert_eq!(world.issuer.asked.load(Relaxed), before);

    world.pass(1);
    for _ in 0..2 {
        assert_eq!(world.refusal(&token).await, None);
        assert_eq!(world.issuer.asked.load(Relaxed), before + 1, "asked once");
    }
    *world.issuer.open.lock().expect("unpoisoned") = Ok(false);
    world.pass(SESSION_BELIEVED_SECS);
    let refusal = world.refusal(&token).await;
    assert_eq!(refusal, Some(FaultCode::Unauthenticated));
}

#[tokio::test]
async fn when_nobody_can_say_whether_a_session_is_open_its_token_is_not_taken() {
    let world = World::new();
    let (token, _) = world.login().await;
    *world.issuer.open.lock().expect("unpoisoned") = Err("away");
    let refusal = world.refusal(&token).await;
    assert_eq!(refusal, Some(FaultCode::Unavailable));
}

#[tokio::test]
async fn a_stream_that_breaks_is_asked_for_again_and_what_was_told_stays_true() {
    let world = World::new();
    world.issuer.streams(1).await;
    let ((first, ended), (second, ended_meanwhile)) = (world.login().await, world.login().await);
    world.say(vec![world.revoked(ended)]).await;
    world.issuer.say(Err(Fault::unavailable("gone")));
    world.issuer.streams(2).await;
    world.say(vec![world.revoked(ended_meanwhile)]).await;
    for token in [&first, &second] {
        let refusal = world.refusal(token).await;
        assert_eq!(refusal, Some(FaultCode::Unauthenticated));
    }
}
