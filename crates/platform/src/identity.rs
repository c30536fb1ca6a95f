//! Who calls: the end user's token, a peer's own signed identity, or both.
//!
//! Every service stands behind a [`Gate`], which verifies what came, refuses calls that its access table does not
//! allow, and hands the handler a [`Caller`]. The gateway's word is not taken for it: a service that trusted its
//! network would serve whoever gets in.
//!
//! A token proves itself; that its session ended meanwhile is told by a [`RevocationSource`].

mod revocation;

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    pin::Pin,
    str::FromStr,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use holdfast_kernel::{Clock, Id, Timestamp, id};
use http::{HeaderMap, Request, Response, header::AUTHORIZATION};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation,
    jwk::{Jwk, JwkSet},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body, metadata::MetadataValue, server::NamedService};
use tower::Service;

use crate::fault::{Fault, FaultCode};

use self::revocation::Revocations;
pub use self::revocation::{
    REVOCATIONS_SILENT_MAX_SECS, RevocationSource, RevocationStream, Revoked, SESSION_BELIEVED_SECS,
};

/// What an account may do; each role may do what the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Buys, and sees its own.
    User,
    /// Runs the shop.
    Staff,
    /// May do everything.
    Admin,
}

impl Role {
    /// The word that tokens and the API use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Staff => "staff",
            Self::Admin => "admin",
        }
    }
}

/// A word that is no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{got:?} is not a role, wanted user, staff or admin")]
pub struct InvalidRole {
    got: String,
}

impl FromStr for Role {
    type Err = InvalidRole;

    fn from_str(text: &str) -> Result<Self, InvalidRole> {
        [Self::User, Self::Staff, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| InvalidRole {
                got: text.chars().take(SHOWN_CHARS).collect(),
            })
    }
}

/// The claims of an access token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The issuer's URL or name.
    pub iss: String,
    /// Whom the token is for.
    pub aud: String,
    /// The account.
    pub sub: Id<id::User>,
    /// The session; ends with logout.
    pub sid: Id<id::Session>,
    /// What the account may do.
    pub role: Role,
    /// Issued, seconds since 1970.
    pub iat: i64,
    /// Dead from then on, seconds since 1970.
    pub exp: i64,
}

/// The `typ` header that tells an access token from any other token of the same issuer (RFC 9068).
pub const ACCESS_TOKEN_TYPE: &str = "at+jwt";
/// What access tokens are signed with, as issuer documents name it.
pub const ACCESS_TOKEN_ALGORITHM: &str = "EdDSA";
/// The peer that a process is when it verifies tokens, for all services in it.
pub const VERIFIER_PEER: &str = "verifier";
/// Metadata key of a peer's signed identity.
pub const PEER_HEADER: &str = "x-holdfast-peer";

const PEER_ISSUER: &str = "holdfast-cluster";
const PEER_TOKEN_TYPE: &str = "peer+jwt";
const PEER_TOKEN_SECS: i64 = 60;
const PEER_TOKEN_REUSED_SECS: i64 = 30;
const CLOCK_LEEWAY_SECS: i64 = 30;
const TOKEN_MAX_BYTES: usize = 4096;
const VERIFIED_MAX_ENTRIES: usize = 10_000;
/// How long no keys are fetched after a fetch, so that made-up key names cannot make us fetch at will.
const KEY_FETCH_PAUSE: Duration = Duration::from_mins(1);
/// The same while not a single key is known: a process that started before its issuer soon serves.
const FIRST_KEY_FETCH_PAUSE: Duration = Duration::from_secs(1);
/// Longest part of a refused text that an error repeats, in characters.
const SHOWN_CHARS: usize = 64;

/// Who is calling, as far as it was proved.
#[derive(Clone, Default)]
pub struct Caller {
    user: Option<Arc<Claims>>,
    peer: Option<Arc<str>>,
    token: Option<Arc<str>>,
}

impl Caller {
    /// The caller the gate put into the request.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Self, Status> {
        request
            .extensions()
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Fault::internal("a handler was reached around its gate").into())
    }

    /// The user who acts, or `UNAUTHENTICATED`.
    pub fn user(&self) -> Result<Id<id::User>, Fault> {
        self.user
            .as_ref()
            .map(|claims| claims.sub)
            .ok_or_else(unauthenticated)
    }

    /// The claims of the user's token, where there is a user.
    pub fn claims(&self) -> Option<&Claims> {
        self.user.as_deref()
    }

    /// The peer service that acts on its own account.
    pub fn peer(&self) -> Option<&str> {
        self.peer.as_deref()
    }

    /// Whether the user has at least this role.
    pub fn has(&self, role: Role) -> bool {
        self.user.as_ref().is_some_and(|claims| claims.role >= role)
    }

    /// Whether what belongs to `owner` exists for this caller: its own, or anybody's for staff and peers.
    pub fn may_see(&self, owner: Id<id::User>) -> bool {
        self.peer.is_some()
            || self.has(Role::Staff)
            || self.user.as_ref().is_some_and(|claims| claims.sub == owner)
    }

    /// A request to a peer that goes on in this user's name.
    pub fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(token) = &self.token {
            let value = MetadataValue::try_from(format!("Bearer {token}"))
                .expect("a verified token is ASCII");
            request.metadata_mut().insert(AUTHORIZATION.as_str(), value);
        }
        request
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("user", &self.user.as_ref().map(|claims| claims.sub))
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// Who may call a method at all. Whose things they may touch is the handler's to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody, and who they are is not even looked at: a dead token is no hindrance to getting a living one.
    Public,
    /// Everybody, known or not; but whoever claims to be somebody must be it.
    Anyone,
    /// Whoever is logged in.
    User,
    /// Roles `staff` and `admin`.
    Staff,
    /// Role `admin`.
    Admin,
    /// Only these services.
    Peers(&'static [&'static str]),
    /// Whoever is logged in, and these services.
    UserOr(&'static [&'static str]),
    /// Roles `staff` and `admin`, and these services.
    StaffOr(&'static [&'static str]),
}

/// A service's access table: each of its methods by name, and who may call it. A method left out is refused.
pub type AccessTable = &'static [(&'static str, Access)];

impl Access {
    /// The caller as the handler is to see it: a peer's identity counts only where the rule names that peer, or its
    /// mere presence would open what belongs to others.
    fn admits(self, mut caller: Caller) -> Result<Caller, Fault> {
        let (role, peers): (_, &[&str]) = match self {
            Self::Public | Self::Anyone => return Ok(caller),
            Self::User => (Some(Role::User), &[]),
            Self::Staff => (Some(Role::Staff), &[]),
            Self::Admin => (Some(Role::Admin), &[]),
            Self::Peers(peers) => (None, peers),
            Self::UserOr(peers) => (Some(Role::User), peers),
            Self::StaffOr(peers) => (Some(Role::Staff), peers),
        };
        let nobody = caller.user.is_none() && caller.peer.is_none();
        caller.peer = caller.peer.filter(|peer| peers.contains(&&**peer));
        if caller.peer.is_some() || role.is_some_and(|role| caller.has(role)) {
            return Ok(caller);
        }
        if nobody {
            return Err(unauthenticated());
        }
        Err(Fault::new(
            FaultCode::Forbidden,
            "FORBIDDEN",
            "this account may not do that",
        ))
    }
}

fn unauthenticated() -> Fault {
    Fault::new(
        FaultCode::Unauthenticated,
        "UNAUTHENTICATED",
        "no bearer token, or one that is not valid any more; log in",
    )
}

/// Where the public keys of access tokens come from: gives a JWK set as JSON.
pub type KeySource =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<String, Fault>> + Send>> + Send + Sync>;

/// Verifies access tokens and peers' identities. Cheap to clone.
#[derive(Clone)]
pub struct Verifier(Arc<VerifierState>);

struct VerifierState {
    issuer: String,
    audience: String,
    clock: Arc<dyn Clock>,
    source: KeySource,
    peers: PeerKey,
    keys: Mutex<Keys>,
    /// Held while keys are being fetched, so that a thousand unknown tokens make one fetch.
    fetching: tokio::sync::Mutex<()>,
    /// Tokens that were verified once, by digest; a signature costs more than a look-up.
    verified: Mutex<HashMap<[u8; 32], Arc<Claims>>>,
    /// None: tokens hold until they die by themselves.
    revocations: Option<Revocations>,
}

#[derive(Default)]
struct Keys {
    by_id: HashMap<String, DecodingKey>,
    /// When they were last asked for, whatever came of it.
    asked_at: Option<Timestamp>,
    /// Nothing came of it.
    is_source_away: bool,
}

/// What only verifying needs to read besides the claims.
#[derive(Deserialize)]
struct SignedClaims {
    #[serde(flatten)]
    claims: Claims,
    nbf: Option<i64>,
}

impl Verifier {
    /// A verifier of `issuer`'s tokens for `audience`, which also knows peers by the cluster's secret.
    pub fn new(
        issuer: impl Into<String>,
        audience: impl Into<String>,
        peers: PeerKey,
        clock: Arc<dyn Clock>,
        source: KeySource,
    ) -> Self {
        Self::build(issuer.into(), audience.into(), peers, clock, source, None)
    }

    /// The same, which does not take tokens of sessions that ended. It has to be made to
    /// [follow](Self::follow_revocations) them.
    pub fn told_of_revocations(
        issuer: impl Into<String>,
        audience: impl Into<String>,
        peers: PeerKey,
        clock: Arc<dyn Clock>,
        source: KeySource,
        revocations: RevocationSource,
    ) -> Self {
        let revocations = Revocations::new(revocations, clock.clone());
        let revocations = Some(revocations);
        Self::build(
            issuer.into(),
            audience.into(),
            peers,
            clock,
            source,
            revocations,
        )
    }

    fn build(
        issuer: String,
        audience: String,
        peers: PeerKey,
        clock: Arc<dyn Clock>,
        source: KeySource,
        revocations: Option<Revocations>,
    ) -> Self {
        Self(Arc::new(VerifierState {
            issuer,
            audience,
            clock,
            source,
            peers,
            keys: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
            verified: Mutex::default(),
            revocations,
        }))
    }

    /// Follows which sessions end, until shutdown. One of all clones has to.
    pub async fn follow_revocations(self, shutdown: CancellationToken) {
        match &self.0.revocations {
            Some(revocations) => revocations.follow(shutdown).await,
            None => shutdown.cancelled().await,
        }
    }

    /// Whose tokens are taken.
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// For whom the tokens must be.
    pub fn audience(&self) -> &str {
        &self.0.audience
    }

    /// The caller that these headers prove; nobody at all where they claim nothing.
    ///
    /// Fails with `UNAUTHENTICATED` when they claim something that does not hold.
    pub async fn caller(&self, headers: &HeaderMap) -> Result<Caller, Fault> {
        let mut caller = Caller::default();
        if let Some(value) = only(headers, AUTHORIZATION.as_str())? {
            let token = value
                .split_once(' ')
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
                .map(|(_, token)| token.trim())
                .ok_or_else(unauthenticated)?;
            caller.user = Some(self.verify(token).await?);
            caller.token = Some(Arc::from(token));
        }
        if let Some(token) = only(headers, PEER_HEADER)? {
            caller.peer = Some(self.0.peers.verify(token, self.0.clock.now())?);
        }
        Ok(caller)
    }

    /// The claims of an access token, if it is one of ours, alive, and of a session that is open.
    pub async fn verify(&self, token: &str) -> Result<Arc<Claims>, Fault> {
        let claims = self.verify_alone(token).await?;
        match &self.0.revocations {
            Some(revocations) if !revocations.holds(claims.sid).await? => Err(unauthenticated()),
            _ => Ok(claims),
        }
    }

    /// The claims of an access token, as far as it proves itself.
    async fn verify_alone(&self, token: &str) -> Result<Arc<Claims>, Fault> {
        if token.len() > TOKEN_MAX_BYTES {
            return Err(unauthenticated());
        }
        let digest: [u8; 32] = Sha256::digest(token).into();
        let now = self.0.clock.now().as_second();
        let known = lock(&self.0.verified).get(&digest).cloned();
        let outcome = if known.is_some() { "hit" } else { "miss" };
        metrics::counter!("holdfast_cache_reads_total", "cache" => "identity.tokens", "outcome" => outcome)
            .increment(1);
        if let Some(claims) = known {
            return if claims.exp > now {
                Ok(claims)
            } else {
                Err(unauthenticated())
            };
        }
        let claims = Arc::new(self.verify_signature(token, now).await?);
        let mut verified = lock(&self.0.verified);
        if verified.len() >= VERIFIED_MAX_ENTRIES {
            verified.retain(|_, claims| claims.exp > now);
        }
        // Full of living tokens: forget them all rather than grow or keep a costly order of use.
        if verified.len() >= VERIFIED_MAX_ENTRIES {
            verified.clear();
        }
        verified.insert(digest, claims.clone());
        Ok(claims)
    }

    async fn verify_signature(&self, token: &str, now: i64) -> Result<Claims, Fault> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| unauthenticated())?;
        // `crit` names extensions without which the token must not be taken; we know none.
        if header.alg != Algorithm::EdDSA
            || header.typ.as_deref() != Some(ACCESS_TOKEN_TYPE)
            || header.crit.is_some()
        {
            return Err(unauthenticated());
        }
        let key_id = header.kid.ok_or_else(unauthenticated)?;
        let key = self.key(&key_id).await?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[&self.0.issuer]);
        validation.set_audience(&[&self.0.audience]);
        // Judged below, by the clock that was handed in.
        validation.validate_exp = false;
        let SignedClaims { claims, nbf } =
            jsonwebtoken::decode::<SignedClaims>(token, &key, &validation)
                .map_err(|_| unauthenticated())?
                .claims;
        let begins = claims.iat.max(nbf.unwrap_or(claims.iat));
        if claims.exp <= now || begins > now + CLOCK_LEEWAY_SECS {
            return Err(unauthenticated());
        }
        Ok(claims)
    }

    /// The key of that name. An unknown name makes at most one fetch a minute, or anybody could make us fetch.
    ///
    /// Fails with `UNAVAILABLE` while the source is away, for then nobody can say that the name is wrong.
    async fn key(&self, key_id: &str) -> Result<DecodingKey, Fault> {
        if let Some(key) = self.known_key(key_id) {
            return Ok(key);
        }
        let _one_at_a_time = self.0.fetching.lock().await;
        if let Some(key) = self.known_key(key_id) {
            return Ok(key);
        }
        let now = self.0.clock.now();
        if let Some(fault) = lock(&self.0.keys).resting(now) {
            return Err(fault);
        }
        {
            // Noted first, as if it had failed: the caller may go away while we wait.
            let mut keys = lock(&self.0.keys);
            keys.asked_at = Some(now);
            keys.is_source_away = true;
        }
        let by_id = self.fetch().await?;
        *lock(&self.0.keys) = Keys {
            by_id,
            asked_at: Some(now),
            is_source_away: false,
        };
        self.known_key(key_id).ok_or_else(unauthenticated)
    }

    async fn fetch(&self) -> Result<HashMap<String, DecodingKey>, Fault> {
        let text = (self.0.source)().await.map_err(Fault::unavailable)?;
        let set: JwkSet = serde_json::from_str(&text).map_err(Fault::unavailable)?;
        Ok(set.keys.iter().filter_map(named_key).collect())
    }

    fn known_key(&self, key_id: &str) -> Option<DecodingKey> {
        lock(&self.0.keys).by_id.get(key_id).cloned()
    }
}

impl Keys {
    /// What to answer for an unknown name when it is too early to ask again.
    fn resting(&self, now: Timestamp) -> Option<Fault> {
        let pause = if self.by_id.is_empty() {
            FIRST_KEY_FETCH_PAUSE
        } else {
            KEY_FETCH_PAUSE
        };
        if now.duration_since(self.asked_at?).unsigned_abs() >= pause {
            return None;
        }
        Some(if self.is_source_away {
            Fault::unavailable("the keys of access tokens could not be fetched a moment ago")
        } else {
            unauthenticated()
        })
    }
}

/// The value of a header that may come once at most: of two, one reader would take the first and another the last.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Fault> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(unauthenticated());
    }
    value.to_str().map(Some).map_err(|_| unauthenticated())
}

fn named_key(jwk: &Jwk) -> Option<(String, DecodingKey)> {
    Some((jwk.common.key_id.clone()?, DecodingKey::from_jwk(jwk).ok()?))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .expect("nothing panics while it holds this lock")
}

/// The cluster's secret as the key that signs and verifies peers' identities.
#[derive(Clone)]
pub struct PeerKey {
    signing: EncodingKey,
    verifying: DecodingKey,
}

#[derive(Serialize, Deserialize)]
struct PeerClaims {
    iss: String,
    sub: String,
    exp: i64,
}

impl PeerKey {
    /// The key for peers, derived from the installation's secret: [`Secrets::key`](crate::cluster::Secrets::key).
    pub fn new(secret: &[u8]) -> Self {
        Self {
            signing: EncodingKey::from_secret(secret),
            verifying: DecodingKey::from_secret(secret),
        }
    }

    fn verify(&self, token: &str, now: Timestamp) -> Result<Arc<str>, Fault> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[PEER_ISSUER]);
        validation.validate_exp = false;
        let token = jsonwebtoken::decode::<PeerClaims>(token, &self.verifying, &validation)
            .map_err(|_| unauthenticated())?;
        let fresh = token.claims.exp > now.as_second() - CLOCK_LEEWAY_SECS;
        if !fresh || token.header.typ.as_deref() != Some(PEER_TOKEN_TYPE) {
            return Err(unauthenticated());
        }
        Ok(Arc::from(token.claims.sub))
    }
}

/// A service's own identity, for what it does in nobody's name: sagas, workers, consumers. Cheap to clone.
#[derive(Clone)]
pub struct PeerIdentity(Arc<PeerIdentityState>);

struct PeerIdentityState {
    name: &'static str,
    key: PeerKey,
    clock: Arc<dyn Clock>,
    token: Mutex<Option<(i64, MetadataValue<tonic::metadata::Ascii>)>>,
}

impl PeerIdentity {
    /// The identity of the service of that name.
    pub fn new(name: &'static str, key: PeerKey, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(PeerIdentityState {
            name,
            key,
            clock,
            token: Mutex::default(),
        }))
    }

    /// A request to a peer in this service's own name.
    pub fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert(PEER_HEADER, self.token());
        request
    }

    fn token(&self) -> MetadataValue<tonic::metadata::Ascii> {
        let now = self.0.clock.now().as_second();
        let mut held = lock(&self.0.token);
        if let Some((made_at, token)) = held.as_ref()
            && (*made_at..*made_at + PEER_TOKEN_REUSED_SECS).contains(&now)
        {
            return token.clone();
        }
        let header = Header {
            typ: Some(PEER_TOKEN_TYPE.to_owned()),
            ..Header::new(Algorithm::HS256)
        };
        let claims = PeerClaims {
            iss: PEER_ISSUER.to_owned(),
            sub: self.0.name.to_owned(),
            exp: now + PEER_TOKEN_SECS,
        };
        let token = jsonwebtoken::encode(&header, &claims, &self.0.key.signing)
            .expect("an HMAC over plain claims always succeeds");
        let token = MetadataValue::try_from(token).expect("a JWT is ASCII");
        *held = Some((now, token.clone()));
        token
    }
}

/// Stands before a generated server: verifies who calls and whether they may.
#[derive(Clone)]
pub struct Gate<S> {
    inner: S,
    access: AccessTable,
    verifier: Verifier,
}

impl<S> Gate<S> {
    /// Puts the gate before `server`.
    pub fn new(server: S, access: AccessTable, verifier: Verifier) -> Self {
        Self {
            inner: server,
            access,
            verifier,
        }
    }
}

impl<S: NamedService> NamedService for Gate<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The clone that `poll_ready` prepared is the one to call; a fresh one takes its place.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let (access, verifier) = (self.access, self.verifier.clone());
        Box::pin(async move {
            let method = request.uri().path().rsplit('/').next().unwrap_or_default();
            let rule = access.iter().find(|(name, _)| *name == method);
            let Some((_, rule)) = rule else {
                return Ok(Status::unimplemented("no such method").into_http());
            };
            let caller = match rule {
                Access::Public => Ok(Caller::default()),
                _ => verifier.caller(request.headers()).await,
            };
            match caller.and_then(|caller| rule.admits(caller)) {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                    inner.call(request).await
                }
                Err(fault) => Ok(Status::from(fault).into_http()),
            }
        })
    }
}
