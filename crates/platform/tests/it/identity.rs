//! Who may pass a gate: real tokens, forged ones, and a key source that comes and goes.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use holdfast_kernel::{Clock, Id, id};
use holdfast_platform::{
    fault::{Fault, FaultCode},
    identity::{
        Access, AccessTable, Caller, Gate, PEER_HEADER, PeerIdentity, PeerKey, Role, Verifier,
    },
};
use holdfast_testkit::{FakeClock, Meter, Realm};
use http::{HeaderMap, HeaderValue, Request, Response};
use jiff::SignedDuration;
use jsonwebtoken::{
    Algorithm, EncodingKey, Header,
    jwk::{Jwk, JwkSet},
};
use serde_json::{Value, json};
use tonic::{Code, Status, body::Body, server::NamedService};
use tower::{Service, ServiceExt};

const ISSUER: &str = "https://shop.example";
const AUDIENCE: &str = "holdfast";
const KEY_ID: &str = "first";
const CLUSTER: &[u8] = b"what all processes of this test share";

const TABLE: AccessTable = &[
    ("Public", Access::Public),
    ("Anyone", Access::Anyone),
    ("User", Access::User),
    ("Staff", Access::Staff),
    ("Admin", Access::Admin),
    ("Peers", Access::Peers(&["orders"])),
    ("UserOr", Access::UserOr(&["orders"])),
    ("StaffOr", Access::StaffOr(&["orders"])),
];

/// An issuer with its keys, and a verifier that knows it only by what it publishes.
struct World {
    clock: FakeClock,
    issuer: Arc<Issuer>,
    verifier: Verifier,
}

struct Issuer {
    published: Mutex<Result<Vec<Jwk>, &'static str>>,
    fetches: AtomicUsize,
}

impl World {
    fn new() -> Self {
        let clock = FakeClock::new("2026-12-01T10:00:00Z".parse().expect("a moment"));
        let issuer = Arc::new(Issuer {
            published: Mutex::new(Ok(vec![jwk(1, KEY_ID)])),
            fetches: AtomicUsize::new(0),
        });
        let asked = issuer.clone();
        let verifier = Verifier::new(
            ISSUER,
            AUDIENCE,
            PeerKey::new(CLUSTER),
            Arc::new(clock.clone()),
            Arc::new(move || Box::pin(ready(asked.answer()))),
        );
        Self {
            clock,
            issuer,
            verifier,
        }
    }

    fn pass(&self, secs: i64) {
        self.clock.advance(SignedDuration::from_secs(secs));
    }

    fn claims(&self, role: Role) -> Value {
        let now = self.clock.now().as_second();
        json!({
            "iss": ISSUER, "aud": AUDIENCE, "role": role, "iat": now, "exp": now + 3_600,
            "sub": user().to_string(), "sid": Id::<id::Session>::generate(),
        })
    }

    fn token(&self, role: Role) -> String {
        sign(&header(), &self.claims(role), 1)
    }

    async fn refusal(&self, token: &str) -> Option<FaultCode> {
        let verified = self.verifier.verify(token).await;
        verified.err().map(|fault| fault.code())
    }

    async fn refuses(&self, what: &str, token: &str) {
        let refusal = self.refusal(token).await;
        assert_eq!(refusal, Some(FaultCode::Unauthenticated), "{what}");
    }

    fn peer(&self, name: &'static str) -> PeerIdentity {
        let clock = Arc::new(self.clock.clone());
        PeerIdentity::new(name, PeerKey::new(CLUSTER), clock)
    }

    /// How the gate answers, and whom the handler behind it met.
    async fn call(&self, method: &str, headers: HeaderMap) -> Result<Caller, Code> {
        let server = Server::default();
        let met = server.met.clone();
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = format!("/test.Server/{method}").parse().expect("a path");
        *request.headers_mut() = headers;
        let gate = Gate::new(server, TABLE, self.verifier.clone());
        let Ok(response) = gate.oneshot(request).await;
        let met = met.lock().expect("nobody panics").take();
        match Status::from_header_map(response.headers()) {
            Some(refused) => {
                assert!(met.is_none(), "a refused call reached its handler");
                Err(refused.code())
            }
            None => Ok(met.expect("an answered call met its handler")),
        }
    }
}

impl Issuer {
    fn answer(&self) -> Result<String, Fault> {
        self.fetches.fetch_add(1, Relaxed);
        match &*self.published.lock().expect("nobody panics") {
            Ok(keys) => {
                let set = JwkSet { keys: keys.clone() };
                Ok(serde_json::to_string(&set).expect("a key set"))
            }
            Err(why) => Err(Fault::unavailable(*why)),
        }
    }

    fn publish(&self, published: Result<Vec<Jwk>, &'static str>) {
        *self.published.lock().expect("nobody panics") = published;
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Relaxed)
    }
}

/// A generated server as the gate sees it: it notes whom it met.
#[derive(Clone, Default)]
struct Server {
    met: Arc<Mutex<Option<Caller>>>,
}

impl NamedService for Server {
    const NAME: &'static str = "test.Server";
}

impl Service<Request<Body>> for Server {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let caller = request.extensions().get::<Caller>().cloned();
        *self.met.lock().expect("nobody panics") = caller;
        ready(Ok(Response::new(Body::empty())))
    }
}

fn user() -> Id<id::User> {
    "usr_00000000000000000000000001".parse().expect("an id")
}

/// An Ed25519 key pair by number (RFC 8410's PKCS #8 before 32 bytes).
fn key(number: u8) -> EncodingKey {
    let head = [
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    EncodingKey::from_ed_der(&[head.as_slice(), &[number; 32]].concat())
}

fn jwk(number: u8, id: &str) -> Jwk {
    let mut jwk = Jwk::from_encoding_key(&key(number), Algorithm::EdDSA).expect("a key pair");
    jwk.common.key_id = Some(id.to_owned());
    jwk
}

fn header() -> Header {
    Header {
        typ: Some("at+jwt".to_owned()),
        kid: Some(KEY_ID.to_owned()),
        ..Header::new(Algorithm::EdDSA)
    }
}

fn sign(header: &Header, claims: &Value, number: u8) -> String {
    jsonwebtoken::encode(header, claims, &key(number)).expect("signed")
}

/// A token with any header at all, signed or not as told.
fn forge(header: &Value, claims: &Value, signature: &str) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", part(header), part(claims))
}

fn bearer(token: &str) -> HeaderMap {
    let value = HeaderValue::try_from(format!("Bearer {token}")).expect("ASCII");
    HeaderMap::from_iter([(http::header::AUTHORIZATION, value)])
}

fn peer_headers(peer: &PeerIdentity) -> HeaderMap {
    peer.request(()).metadata().clone().into_headers()
}

mod tokens {
    use super::*;

    #[tokio::test]
    async fn a_good_token_is_believed_with_its_claims() {
        let world = World::new();
        let claims = world
            .verifier
            .verify(&world.token(Role::Staff))
            .await
            .expect("ours");
        assert_eq!((claims.sub, claims.role), (user(), Role::Staff));
    }

    #[tokio::test]
    async fn no_algorithm_but_the_one_is_taken_whatever_the_header_says() {
        let world = World::new();
        let claims = world.claims(Role::Admin);
        let good = world.token(Role::Admin);
        let signature = good.rsplit('.').next().expect("three parts");
        for alg in [
            "none", "None", "nOnE", "NONE", "", "HS256", "ES256", "RS256", "EdDSA ",
        ] {
            let header = json!({"alg": alg, "typ": "at+jwt", "kid": KEY_ID});
            for signature in ["", signature] {
                world
                    .refuses(alg, &forge(&header, &claims, signature))
                    .await;
            }
        }
        let header = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": KEY_ID});
        world
            .refuses("no signature", &forge(&header, &claims, ""))
            .await;

        // The classic: HMAC with the public key, which everybody has, as its secret.
        let public = serde_json::to_value(jwk(1, KEY_ID)).expect("a key");
        let x = public["x"].as_str().expect("a coordinate");
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(x).expect("base64");
        for secret in [
            bytes.as_slice(),
            x.as_bytes(),
            public.to_string().as_bytes(),
        ] {
            let header = Header {
                alg: Algorithm::HS256,
                ..super::header()
            };
            let secret = EncodingKey::from_secret(secret);
            let token = jsonwebtoken::encode(&header, &claims, &secret).expect("signed");
            world.refuses("HS256 with the public key", &token).await;
        }
    }

    #[tokio::test]
    async fn a_token_of_another_type_is_no_access_token() {
        let world = World::new();
        for typ in [
            None,
            Some("JWT"),
            Some("rt+jwt"),
            Some("peer+jwt"),
            Some("AT+JWT"),
        ] {
            let header = Header {
                typ: typ.map(str::to_owned),
                ..super::header()
            };
            let token = sign(&header, &world.claims(Role::User), 1);
            world.refuses(&format!("{typ:?}"), &token).await;
        }
    }

    #[tokio::test]
    async fn a_key_name_is_a_name_and_nothing_else() {
        let world = World::new();
        for kid in [
            "../../dev/null",
            "/dev/null",
            "' OR 1=1 --",
            "https://evil.example/jwks.json",
            "",
            "FIRST",
            "first ",
            "first\0",
            &"k".repeat(2_000),
        ] {
            let header = Header {
                kid: Some(kid.to_owned()),
                ..super::header()
            };
            let token = sign(&header, &world.claims(Role::User), 1);
            world.refuses(kid, &token).await;
        }
        let header = Header {
            kid: None,
            ..super::header()
        };
        let token = sign(&header, &world.claims(Role::User), 1);
        world.refuses("no key name", &token).await;
    }

    #[tokio::test]
    async fn keys_that_a_token_brings_along_are_not_looked_at() {
        let world = World::new();
        let stranger = 9;
        let header = Header {
            jku: Some("https://evil.example/jwks.json".to_owned()),
            x5u: Some("https://evil.example/key.pem".to_owned()),
            jwk: Some(jwk(stranger, KEY_ID)),
            ..super::header()
        };
        let forged = sign(&header, &world.claims(Role::Admin), stranger);
        world.refuses("signed by the key it brings", &forged).await;
        // Ignored, not feared: the same header over our own signature is fine.
        let ours = sign(&header, &world.claims(Role::User), 1);
        assert_eq!(world.refusal(&ours).await, None);
    }

    #[tokio::test]
    async fn a_token_with_an_extension_it_calls_critical_is_refused() {
        let world = World::new();
        let header = Header {
            crit: Some(vec!["exp".to_owned()]),
            ..super::header()
        };
        let token = sign(&header, &world.claims(Role::User), 1);
        world.refuses("crit", &token).await;
    }

    #[tokio::test]
    async fn a_token_outside_its_time_is_refused_but_small_differences_of_clocks_are_not() {
        let world = World::new();
        let now = world.clock.now().as_second();
        for (claim, at, is_taken) in [
            ("exp", now, false),
            ("exp", now - 3_600, false),
            ("exp", now + 1, true),
            ("iat", now + 31, false),
            ("iat", now + 30, true),
            ("nbf", now + 31, false),
            ("nbf", now + 30, true),
        ] {
            let mut claims = world.claims(Role::User);
            claims[claim] = at.into();
            let refusal = world.refusal(&sign(&super::header(), &claims, 1)).await;
            assert_eq!(refusal.is_none(), is_taken, "{claim} {}", at - now);
        }
    }

    #[tokio::test]
    async fn a_token_of_or_for_somebody_else_is_refused_and_so_is_one_that_does_not_say() {
        let world = World::new();
        for (claim, value) in [
            ("iss", json!("https://evil.example")),
            ("iss", json!("https://shop.example/")),
            ("aud", json!("another")),
            ("aud", json!(["another"])),
            ("role", json!("root")),
            ("sub", json!("ord_00000000000000000000000001")),
            ("exp", json!("tomorrow")),
        ] {
            let mut claims = world.claims(Role::User);
            claims[claim] = value;
            let token = sign(&super::header(), &claims, 1);
            world.refuses(&claims[claim].to_string(), &token).await;
        }
        for claim in ["iss", "aud", "sub", "sid", "role", "iat", "exp"] {
            let mut claims = world.claims(Role::User);
            claims.as_object_mut().expect("an object").remove(claim);
            let token = sign(&super::header(), &claims, 1);
            world.refuses(&format!("no {claim}"), &token).await;
        }
    }

    #[tokio::test]
    async fn a_changed_token_is_refused_even_when_the_good_one_was_just_believed() {
        let world = World::new();
        let good = world.token(Role::User);
        assert_eq!(world.refusal(&good).await, None);
        let parts: Vec<&str> = good.split('.').collect();
        let mut raised = world.claims(Role::User);
        raised["role"] = json!("admin");
        let raised = BASE64_URL_SAFE_NO_PAD.encode(raised.to_string());
        world
            .refuses("raised", &format!("{}.{raised}.{}", parts[0], parts[2]))
            .await;
        world
            .refuses(
                "by a stranger",
                &sign(&super::header(), &world.claims(Role::User), 9),
            )
            .await;
    }

    #[tokio::test]
    async fn what_is_no_token_at_all_or_too_long_is_refused_without_asking_for_keys() {
        let world = World::new();
        let mut claims = world.claims(Role::User);
        claims["padding"] = json!("x".repeat(100_000));
        let long = sign(&super::header(), &claims, 1);
        for text in [
            "",
            ".",
            "..",
            "a.b.c",
            "hrt_AAAA",
            long.as_str(),
            &"a".repeat(100_000),
        ] {
            world.refuses(&text[..text.len().min(20)], text).await;
        }
        assert_eq!(world.issuer.fetches(), 0);
    }

    #[tokio::test]
    async fn a_token_that_was_believed_dies_with_its_time_all_the_same() {
        let world = World::new();
        let token = world.token(Role::User);
        assert_eq!(world.refusal(&token).await, None);
        world.pass(3_599);
        assert_eq!(world.refusal(&token).await, None);
        world.pass(1);
        world.refuses("expired", &token).await;
    }
}

mod keys {
    use super::*;

    fn token_by(world: &World, kid: &str, number: u8) -> String {
        let header = Header {
            kid: Some(kid.to_owned()),
            ..header()
        };
        sign(&header, &world.claims(Role::User), number)
    }

    #[tokio::test]
    async fn unknown_key_names_cause_one_fetch_a_minute_however_many_come() {
        let world = World::new();
        assert_eq!(world.refusal(&world.token(Role::User)).await, None);
        assert_eq!(world.issuer.fetches(), 1);
        for round in 1..=3 {
            for n in 0..50 {
                world
                    .refuses("unknown", &token_by(&world, &format!("made-up-{n}"), 9))
                    .await;
            }
            assert_eq!(world.issuer.fetches(), round);
            world.pass(60);
        }
    }

    #[tokio::test]
    async fn a_thousand_first_tokens_at_once_make_one_fetch() {
        let world = World::new();
        let tokens: Vec<String> = (0..1_000).map(|_| world.token(Role::User)).collect();
        let verified =
            futures::future::join_all(tokens.iter().map(|token| world.refusal(token))).await;
        assert!(verified.iter().all(Option::is_none));
        assert_eq!(world.issuer.fetches(), 1);
    }

    #[tokio::test]
    async fn a_new_key_is_found_by_the_first_token_it_signed() {
        let world = World::new();
        assert_eq!(world.refusal(&world.token(Role::User)).await, None);
        world
            .issuer
            .publish(Ok(vec![jwk(1, KEY_ID), jwk(2, "second")]));
        world.pass(60);
        assert_eq!(world.refusal(&token_by(&world, "second", 2)).await, None);
        assert_eq!(world.refusal(&token_by(&world, KEY_ID, 1)).await, None);
        world
            .refuses(
                "the right name on another key",
                &token_by(&world, "second", 1),
            )
            .await;
    }

    #[tokio::test]
    async fn known_keys_go_on_while_their_source_is_away_and_nobody_is_logged_out() {
        let world = World::new();
        assert_eq!(world.refusal(&world.token(Role::User)).await, None);
        world.issuer.publish(Err("away"));
        world.pass(60);
        for n in 0..50 {
            // Whether the name is wrong cannot be known: the client must not throw its token away.
            let refusal = world
                .refusal(&token_by(&world, &format!("new-{n}"), 9))
                .await;
            assert_eq!(refusal, Some(FaultCode::Unavailable));
            assert_eq!(world.refusal(&world.token(Role::User)).await, None);
        }
        assert_eq!(world.issuer.fetches(), 2);
    }

    #[tokio::test]
    async fn a_process_that_started_before_its_issuer_serves_a_second_after_it() {
        let world = World::new();
        world.issuer.publish(Err("not up yet"));
        for _ in 0..50 {
            let refusal = world.refusal(&world.token(Role::User)).await;
            assert_eq!(refusal, Some(FaultCode::Unavailable));
        }
        assert_eq!(world.issuer.fetches(), 1);
        world.issuer.publish(Ok(vec![jwk(1, KEY_ID)]));
        world.pass(1);
        assert_eq!(world.refusal(&world.token(Role::User)).await, None);
    }
}

mod gates {
    use super::*;

    #[tokio::test]
    async fn each_rule_lets_in_whom_it_names_and_nobody_else() {
        let world = World::new();
        let (yes, who, no) = ("yes", "who", "no");
        let matrix = [
            // method, nobody, user, staff, admin, orders, catalog
            ("Public", [yes, yes, yes, yes, yes, yes]),
            ("Anyone", [yes, yes, yes, yes, yes, yes]),
            ("User", [who, yes, yes, yes, no, no]),
            ("Staff", [who, no, yes, yes, no, no]),
            ("Admin", [who, no, no, yes, no, no]),
            ("Peers", [who, no, no, no, yes, no]),
            ("UserOr", [who, yes, yes, yes, yes, no]),
            ("StaffOr", [who, no, yes, yes, yes, no]),
        ];
        assert_eq!(matrix.map(|(method, _)| method), TABLE_METHODS);
        let callers = [
            HeaderMap::new(),
            bearer(&world.token(Role::User)),
            bearer(&world.token(Role::Staff)),
            bearer(&world.token(Role::Admin)),
            peer_headers(&world.peer("orders")),
            peer_headers(&world.peer("catalog")),
        ];
        for (method, expected) in matrix {
            let mut got = Vec::new();
            for headers in &callers {
                got.push(match world.call(method, headers.clone()).await {
                    Ok(_) => yes,
                    Err(Code::Unauthenticated) => who,
                    Err(Code::PermissionDenied) => no,
                    Err(other) => panic!("{method}: {other:?}"),
                });
            }
            assert_eq!(got, expected, "{method}");
        }
    }

    const TABLE_METHODS: [&str; 8] = [
        "Public", "Anyone", "User", "Staff", "Admin", "Peers", "UserOr", "StaffOr",
    ];

    #[tokio::test]
    async fn a_method_that_the_table_leaves_out_is_refused_even_to_an_admin() {
        let world = World::new();
        for method in [
            "Forgotten",
            "user",
            "User/",
            "User%20",
            "",
            "Anyone/Forgotten",
        ] {
            let refused = world.call(method, bearer(&world.token(Role::Admin))).await;
            assert_eq!(refused.err(), Some(Code::Unimplemented), "{method:?}");
        }
    }

    #[tokio::test]
    async fn a_claim_that_does_not_hold_is_refused_even_where_anyone_may_enter() {
        let world = World::new();
        let two = {
            let mut headers = bearer(&world.token(Role::User));
            let second = bearer(&world.token(Role::Admin));
            headers.append("authorization", second["authorization"].clone());
            headers
        };
        let scheme = HeaderMap::from_iter([(
            http::header::AUTHORIZATION,
            HeaderValue::from_static("Basic YTpi"),
        )]);
        for headers in [bearer("x.y.z"), bearer(""), two, scheme] {
            let refused = world.call("Anyone", headers.clone()).await;
            assert_eq!(refused.err(), Some(Code::Unauthenticated), "{headers:?}");
            // Public routes do not ask who it is, and tell nobody either.
            let met = world.call("Public", headers).await.expect("public");
            assert!(met.user().is_err() && met.peer().is_none());
        }
        let met = world
            .call("Public", bearer(&world.token(Role::Admin)))
            .await;
        assert!(met.expect("public").user().is_err());
    }

    #[tokio::test]
    async fn a_forged_peer_is_nobody() {
        let world = World::new();
        let now = world.clock.now().as_second();
        let claims = json!({"iss": "holdfast-cluster", "sub": "orders", "exp": now + 60});
        let header = Header {
            typ: Some("peer+jwt".to_owned()),
            ..Header::new(Algorithm::HS256)
        };
        let signed = |header: &Header, claims: &Value, secret: &[u8]| {
            jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(secret)).expect("signed")
        };
        let good = signed(&header, &claims, CLUSTER);
        assert!(world.call("Peers", peer_header(&good)).await.is_ok());

        let untyped = Header::new(Algorithm::HS256);
        let expired = json!({"iss": "holdfast-cluster", "sub": "orders", "exp": now - 30});
        let foreign = json!({"iss": "elsewhere", "sub": "orders", "exp": now + 60});
        for (what, token) in [
            ("another secret", signed(&header, &claims, b"guessed")),
            ("no secret", signed(&header, &claims, b"")),
            ("no type", signed(&untyped, &claims, CLUSTER)),
            ("expired", signed(&header, &expired, CLUSTER)),
            ("another issuer", signed(&header, &foreign, CLUSTER)),
            (
                "no algorithm",
                forge(&json!({"alg": "none", "typ": "peer+jwt"}), &claims, ""),
            ),
            ("a name alone", "orders".to_owned()),
            ("a user's token", world.token(Role::Admin)),
        ] {
            let refused = world.call("Peers", peer_header(&token)).await;
            assert_eq!(refused.err(), Some(Code::Unauthenticated), "{what}");
        }
        let as_user = world.call("User", bearer(&good)).await;
        assert_eq!(
            as_user.err(),
            Some(Code::Unauthenticated),
            "a peer's token as a user's"
        );
        let mut two = peer_header(&good);
        two.append(PEER_HEADER, HeaderValue::from_static("second"));
        assert_eq!(
            world.call("Peers", two).await.err(),
            Some(Code::Unauthenticated)
        );
    }

    fn peer_header(token: &str) -> HeaderMap {
        let value = HeaderValue::try_from(token).expect("ASCII");
        HeaderMap::from_iter([(http::HeaderName::from_static(PEER_HEADER), value)])
    }

    #[tokio::test]
    async fn a_peer_that_a_route_does_not_name_adds_nothing_to_the_user_it_comes_with() {
        let world = World::new();
        let stranger = Id::generate();
        for (peer, sees_strangers) in [("catalog", false), ("orders", true)] {
            let mut headers = bearer(&world.token(Role::User));
            headers.extend(peer_headers(&world.peer(peer)));
            let met = world.call("UserOr", headers).await.expect("a user");
            assert_eq!(met.may_see(stranger), sees_strangers, "{peer}");
            assert!(met.may_see(user()), "{peer}");
        }
    }

    #[tokio::test]
    async fn a_peers_identity_is_made_anew_before_it_is_too_old() {
        let world = World::new();
        let orders = world.peer("orders");
        let first = peer_headers(&orders);
        for _ in 0..20 {
            assert!(world.call("Peers", peer_headers(&orders)).await.is_ok());
            world.pass(29);
        }
        assert_eq!(
            world.call("Peers", first).await.err(),
            Some(Code::Unauthenticated)
        );
    }

    #[tokio::test]
    async fn a_call_in_a_users_name_carries_the_user_and_not_the_peer_before_it() {
        let world = World::new();
        let mut headers = bearer(&world.token(Role::User));
        headers.extend(peer_headers(&world.peer("orders")));
        let met = world.call("UserOr", headers).await.expect("both");
        let onward = met.request(()).metadata().clone().into_headers();
        let met = world.call("UserOr", onward).await.expect("the user");
        assert_eq!((met.user().ok(), met.peer()), (Some(user()), None));
    }

    #[test]
    fn a_caller_shown_in_a_log_shows_no_token() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let world = World::new();
        let token = world.token(Role::User);
        let met = runtime
            .block_on(world.call("User", bearer(&token)))
            .expect("a user");
        let shown = format!("{met:?}");
        let signature = token.rsplit('.').next().expect("three parts");
        assert!(
            shown.contains("usr_") && !shown.contains(signature),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn a_token_that_was_verified_once_is_known_again() {
    let meter = Meter::new();
    let _measured = meter.measure();
    let realm = Realm::new(FakeClock::new(holdfast_kernel::Timestamp::UNIX_EPOCH));
    let verifier = realm.verifier();
    let asker = realm.somebody(Role::User);
    for _ in 0..3 {
        verifier.verify(asker.token()).await.expect("a sound token");
    }
    verifier.verify("another").await.expect_err("no token");
    assert_eq!(meter.reads("identity.tokens", ["miss", "hit"]), [2, 2]);
}
