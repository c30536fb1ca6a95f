//! What a client holds: an access token, signed, and a refresh token, computed.
//!
//! The n-th refresh token of a family is `HMAC(key, family, n)` beside family and n. None is stored: whoever reads the
//! database cannot refresh, and the successor of a token is the same whoever computes it. A wrong secret is told apart
//! before any row is looked at.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use holdfast_kernel::{Id, Timestamp, id};
use holdfast_platform::{
    identity::{ACCESS_TOKEN_TYPE, Claims, Role},
    service::{Context, StartError},
};
use holdfast_proto::auth::v1 as pb;
use jiff::SignedDuration;
use jsonwebtoken::{Algorithm, Header};
use sha2::Sha256;
use uuid::Uuid;

use crate::{
    Settings,
    domain::Session,
    error::AuthError,
    keys::{KeyLife, Signer},
};

const REFRESH_PREFIX: &str = "hrt_";
const REFRESH_KEY_PURPOSE: &str = "auth refresh tokens 1";
const FAMILY_BYTES: usize = 16;
const TURN_BYTES: usize = 8;
const MAC_BYTES: usize = 32;
const REFRESH_GRACE_MAX_SECS: u32 = 60;
const KEY_ROTATION_MAX_DAYS: u32 = 3_650;
const HOURS_PER_DAY: i64 = 24;

/// Makes tokens.
pub(crate) struct Minter {
    signer: Signer,
    refresh_key: [u8; 32],
    issuer: String,
    audience: String,
    access_lifetime: SignedDuration,
    session_lifetime: SignedDuration,
    grace: SignedDuration,
    key_life: SignedDuration,
}

/// A refresh token whose secret was proved right.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RefreshToken {
    pub(crate) family: Id<id::Session>,
    pub(crate) turn: i64,
}

impl Minter {
    pub(crate) fn new(
        settings: &Settings,
        signer: Signer,
        context: &Context,
    ) -> Result<Self, StartError> {
        for (key, secs, most) in [
            (
                "access_token_secs",
                settings.access_token_secs,
                settings.session_secs,
            ),
            ("session_secs", settings.session_secs, u32::MAX),
            (
                "refresh_grace_secs",
                settings.refresh_grace_secs,
                REFRESH_GRACE_MAX_SECS,
            ),
            (
                "key_rotation_days",
                settings.key_rotation_days,
                KEY_ROTATION_MAX_DAYS,
            ),
        ] {
            if secs == 0 || secs > most {
                return Err(StartError::Setting {
                    key: format!("auth.{key}"),
                    text: format!("{secs}, wanted 1 to {most}"),
                });
            }
        }
        let secs = |secs: u32| SignedDuration::from_secs(secs.into());
        Ok(Self {
            signer,
            refresh_key: context.secrets.key(REFRESH_KEY_PURPOSE),
            issuer: context.verifier.issuer().to_owned(),
            audience: context.verifier.audience().to_owned(),
            access_lifetime: secs(settings.access_token_secs),
            session_lifetime: secs(settings.session_secs),
            grace: secs(settings.refresh_grace_secs),
            key_life: SignedDuration::from_hours(
                HOURS_PER_DAY * i64::from(settings.key_rotation_days),
            ),
        })
    }

    pub(crate) fn key_life(&self) -> KeyLife {
        KeyLife {
            active: self.key_life,
            token: self.access_lifetime,
        }
    }

    pub(crate) fn session_lifetime(&self) -> SignedDuration {
        self.session_lifetime
    }

    pub(crate) fn grace(&self) -> SignedDuration {
        self.grace
    }

    /// What a client gets of an open session whose living refresh token is the one of number `turn`.
    pub(crate) fn tokens(
        &self,
        session: &Session,
        turn: i64,
        role: Role,
        now: Timestamp,
    ) -> Result<pb::Tokens, AuthError> {
        let expires_at = self.access_expiry(session.expires_at, now);
        Ok(pb::Tokens {
            access_token: self.access_token(session, role, now)?,
            expires_in: expires_at.duration_since(now).as_secs(),
            refresh_token: self.refresh_token(session.id, turn),
            refresh_expires_in: session.expires_at.duration_since(now).as_secs(),
        })
    }

    /// An access token of this session.
    pub(crate) fn access_token(
        &self,
        session: &Session,
        role: Role,
        now: Timestamp,
    ) -> Result<String, AuthError> {
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            sub: session.user,
            sid: session.id,
            role,
            iat: now.as_second(),
            exp: self.access_expiry(session.expires_at, now).as_second(),
        };
        let key = self.signer.key();
        let header = Header {
            typ: Some(ACCESS_TOKEN_TYPE.to_owned()),
            kid: Some(key.id().to_owned()),
            ..Header::new(Algorithm::EdDSA)
        };
        Ok(jsonwebtoken::encode(&header, &claims, key.encoding())?)
    }

    /// When an access token made now dies by itself: none outlives its session.
    pub(crate) fn access_expiry(&self, session_expiry: Timestamp, now: Timestamp) -> Timestamp {
        session_expiry.min(now + self.access_lifetime)
    }

    fn refresh_token(&self, family: Id<id::Session>, turn: i64) -> String {
        let mut bytes = Vec::with_capacity(FAMILY_BYTES + TURN_BYTES + MAC_BYTES);
        bytes.extend_from_slice(family.uuid().as_bytes());
        bytes.extend_from_slice(&turn.to_be_bytes());
        let mac = self.refresh_mac(&bytes).finalize().into_bytes();
        bytes.extend_from_slice(&mac);
        format!("{REFRESH_PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Reads a refresh token and proves its secret, looking at no row.
    pub(crate) fn read_refresh_token(&self, text: &str) -> Result<RefreshToken, AuthError> {
        self.prove(text).ok_or(AuthError::RefreshInvalid)
    }

    fn prove(&self, text: &str) -> Option<RefreshToken> {
        let encoded = text.strip_prefix(REFRESH_PREFIX)?;
        let mut bytes = [0; FAMILY_BYTES + TURN_BYTES + MAC_BYTES];
        let length = BASE64_URL_SAFE_NO_PAD
            .decode_slice(encoded, &mut bytes)
            .ok()?;
        if length != bytes.len() {
            return None;
        }
        let (named, mac) = bytes.split_at(FAMILY_BYTES + TURN_BYTES);
        // Takes the same time wherever the difference lies.
        self.refresh_mac(named).verify_slice(mac).ok()?;
        let (family, turn) = named.split_at(FAMILY_BYTES);
        Some(RefreshToken {
            family: Id::new(Uuid::from_slice(family).ok()?),
            turn: i64::from_be_bytes(turn.try_into().ok()?),
        })
    }

    fn refresh_mac(&self, named: &[u8]) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.refresh_key).expect("HMAC takes any key");
        mac.update(named);
        mac
    }
}
