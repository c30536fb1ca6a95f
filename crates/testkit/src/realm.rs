//! A realm of its own for a test: keys that sign users and peers, and what the platform hands a service there.

use std::sync::Arc;

use holdfast_kernel::{Clock, Id, id};
use holdfast_platform::{
    cluster::Secrets,
    identity::{
        ACCESS_TOKEN_TYPE, Claims, PeerIdentity, PeerKey, RevocationSource, Role, Verifier,
    },
    outbox::Wake,
    service::Context,
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use tonic::{Request, metadata::MetadataValue};

use crate::FakeClock;

const ISSUER: &str = "test";
const AUDIENCE: &str = "test";
const KEY_ID: &str = "test-key";
const TOKEN_SECS: i64 = 3600;
const SECRET: &str = "5ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4";
/// An Ed25519 key that signs nothing but tests: PKCS #8, and its public half as a JWK set.
const SIGNING_KEY: [u8; 48] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
    0xd4, 0x11, 0x93, 0x35, 0x1a, 0xc1, 0x4a, 0x21, 0x32, 0x15, 0x9f, 0xb1, 0xb4, 0x2c, 0xa2, 0x8b,
    0xb6, 0x21, 0xc8, 0x5c, 0x69, 0x8b, 0xb4, 0xa7, 0xae, 0xce, 0xcc, 0x40, 0x16, 0xa0, 0xcf, 0xf6,
];
const JWKS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","use":"sig","alg":"EdDSA","kid":"test-key",
    "x":"umaRA36zwCq_HToVvR7V5qWgr_PeIcptqN4lz1JX9kE"}]}"#;

/// Signs users and peers, and verifies them; stands at the time of its clock.
#[derive(Clone)]
pub struct Realm {
    clock: FakeClock,
    secrets: Secrets,
}

/// Somebody who can ask: puts a token into requests.
#[derive(Debug, Clone)]
pub struct Asker {
    /// The account.
    pub user: Id<id::User>,
    token: String,
}

impl Realm {
    /// A realm at the time of this clock.
    pub fn new(clock: FakeClock) -> Self {
        Self {
            clock,
            secrets: Secrets::parse(SECRET).expect("64 hexadecimal digits"),
        }
    }

    /// A new account of that role.
    pub fn somebody(&self, role: Role) -> Asker {
        let user = Id::generate();
        Asker {
            user,
            token: self.token(user, role),
        }
    }

    /// An access token of that account, alive for an hour.
    pub fn token(&self, user: Id<id::User>, role: Role) -> String {
        let now = self.clock.now().as_second();
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: user,
            sid: Id::generate(),
            role,
            iat: now,
            exp: now + TOKEN_SECS,
        };
        let header = Header {
            typ: Some(ACCESS_TOKEN_TYPE.to_owned()),
            kid: Some(KEY_ID.to_owned()),
            ..Header::new(Algorithm::EdDSA)
        };
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ed_der(&SIGNING_KEY))
            .expect("a valid key signs")
    }

    /// The identity of a peer service.
    pub fn peer(&self, name: &'static str) -> PeerIdentity {
        PeerIdentity::new(name, self.peer_key(), Arc::new(self.clock.clone()))
    }

    /// What verifies this realm's users and peers.
    pub fn verifier(&self) -> Verifier {
        Verifier::new(
            ISSUER,
            AUDIENCE,
            self.peer_key(),
            Arc::new(self.clock.clone()),
            Arc::new(|| Box::pin(async { Ok(JWKS.to_owned()) })),
        )
    }

    /// The same, told by `revocations` which sessions ended.
    pub fn verifier_told_of_revocations(&self, revocations: RevocationSource) -> Verifier {
        Verifier::told_of_revocations(
            ISSUER,
            AUDIENCE,
            self.peer_key(),
            Arc::new(self.clock.clone()),
            Arc::new(|| Box::pin(async { Ok(JWKS.to_owned()) })),
            revocations,
        )
    }

    /// What the platform hands the service of that name, over that database.
    pub fn context(&self, service: &'static str, database: PgPool) -> Context {
        Context {
            database,
            clock: Arc::new(self.clock.clone()),
            verifier: self.verifier(),
            identity: self.peer(service),
            secrets: self.secrets.clone(),
            wake: Wake::default(),
            shutdown: CancellationToken::new(),
        }
    }

    fn peer_key(&self) -> PeerKey {
        PeerKey::new(&self.secrets.key("peer identity"))
    }
}

impl Asker {
    /// A request in this account's name.
    pub fn ask<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let bearer = MetadataValue::try_from(format!("Bearer {}", self.token));
        request
            .metadata_mut()
            .insert("authorization", bearer.expect("a token is ASCII"));
        request
    }

    /// The token itself, for doors that speak HTTP.
    pub fn token(&self) -> &str {
        &self.token
    }
}

#[cfg(test)]
mod tests {
    use holdfast_kernel::Timestamp;

    use super::*;

    #[tokio::test]
    async fn a_realm_believes_the_tokens_it_signs() {
        let realm = Realm::new(FakeClock::new(Timestamp::UNIX_EPOCH));
        let somebody = realm.somebody(Role::Staff);
        let claims = realm.verifier().verify(somebody.token()).await;
        assert_eq!(claims.expect("its own token").sub, somebody.user);
    }
}
