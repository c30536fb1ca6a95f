//! What access tokens are signed with: Ed25519 keys, sealed in the database, published as a JWK set.
//!
//! A key is `next` (published, so that everybody knows it before it signs), then `active` (signs), then `retired`
//! (published until the last token it signed is dead; its private half is gone). A task of every process sees to it: one
//! of them turns the keys when the active one is old enough, and all sign with the new one a minute later at most.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use holdfast_kernel::{Timestamp, time};
use holdfast_platform::{
    database,
    service::{Context, StartError},
};
use jiff::SignedDuration;
use jsonwebtoken::{
    Algorithm, EncodingKey,
    jwk::{AlgorithmParameters, Jwk},
};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{error::AuthError, store};

const SEAL_PURPOSE: &str = "auth signing keys 1";
const NONCE_BYTES: usize = 24;
/// How long others may keep the published keys: `max-age` of the gateway's answer.
const KEYS_KEPT: SignedDuration = SignedDuration::from_secs(300);
/// How long a key is published at least before it signs.
const PUBLISHED_MIN: SignedDuration = SignedDuration::from_secs(2 * KEYS_KEPT.as_secs());
/// How often a process looks whether the keys are to be turned, or were.
const LOOK_INTERVAL_SECS: u64 = 60;
/// How much longer than its tokens a retired key is published: processes sign with it until they look again, and clocks
/// lie apart.
const RETIRED_KEPT: SignedDuration = SignedDuration::from_mins(10);
/// What stands before the 32 bytes of an Ed25519 private key in PKCS #8 (RFC 8410).
const PKCS8_HEAD: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// Where a key is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyState {
    Next,
    Active,
}

impl KeyState {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Active => "active",
        }
    }
}

/// The half of a key that everybody may know.
#[derive(Debug, Clone)]
pub(crate) struct PublicKey {
    pub(crate) id: String,
    pub(crate) bytes: Vec<u8>,
}

/// A key as the database holds it.
pub(crate) struct SealedKey {
    pub(crate) public: PublicKey,
    /// Nonce and ciphertext.
    pub(crate) sealed_private: Vec<u8>,
}

/// The key that signs.
pub(crate) struct SigningKey {
    id: String,
    encoding: EncodingKey,
}

/// How long keys live.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyLife {
    /// How long a key signs.
    pub(crate) active: SignedDuration,
    /// How long a token lives that it signed.
    pub(crate) token: SignedDuration,
}

/// The key that signs now, for all who sign in this process. Clones are the same.
#[derive(Clone)]
pub(crate) struct Signer(Arc<RwLock<Arc<SigningKey>>>);

impl Signer {
    pub(crate) fn new(key: SigningKey) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(key))))
    }

    pub(crate) fn key(&self) -> Arc<SigningKey> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Turns keys that are old enough, and signs with the one that is active, until shutdown.
    pub(crate) async fn keep_turning(self, context: Context, life: KeyLife) {
        let seal = seal(&context);
        let mut looks = tokio::time::interval(Duration::from_secs(LOOK_INTERVAL_SECS));
        loop {
            tokio::select! {
                () = context.shutdown.cancelled() => return,
                _ = looks.tick() => {}
            }
            if let Err(error) = self.look(&context, &seal, life).await {
                tracing::warn!(%error, "cannot look after the signing keys");
            }
        }
    }

    async fn look(
        &self,
        context: &Context,
        seal: &XChaCha20Poly1305,
        life: KeyLife,
    ) -> Result<(), AuthError> {
        let now = time::to_micros(context.clock.now());
        turn(context, seal, life, now).await?;
        let mut db = database::acquire(&context.database).await?;
        let active = store::find_active_key(&mut db).await?;
        let active = active.filter(|active| active.public.id != self.key().id);
        if let Some(active) = active {
            let key = open(seal, &active).ok_or_else(|| {
                AuthError::Unreadable(format!("signing_key {} does not open", active.public.id))
            })?;
            tracing::info!(key = key.id(), "signs with another key from now on");
            *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
        }
        Ok(())
    }
}

/// Retires the active key if it is old enough and the next one is known to everybody, and makes one that comes after it.
async fn turn(
    context: &Context,
    seal: &XChaCha20Poly1305,
    life: KeyLife,
    now: Timestamp,
) -> Result<(), AuthError> {
    let mut tx = database::begin(&context.database).await?;
    store::delete_retired_keys(&mut tx, now - life.token - RETIRED_KEPT).await?;
    // Locked: of all processes one turns. The others wait here, and then find the key active no more.
    if let Some(activated_at) = store::lock_active_key(&mut tx).await?
        && now >= activated_at + life.active
        && let Some(published_at) = store::find_next_key(&mut tx).await?
        && now >= published_at + PUBLISHED_MIN
    {
        store::retire_active_key(&mut tx, now).await?;
        store::activate_next_key(&mut tx, now).await?;
    }
    // There is one always, also when the one that signs was made by hand.
    store::insert_key_if_missing(&mut tx, &make(seal)?, KeyState::Next, now).await?;
    database::commit(tx).await?;
    Ok(())
}

impl SigningKey {
    /// The active key of the database; makes it and its successor when there are none.
    pub(crate) async fn load_or_make(context: &Context) -> Result<Self, StartError> {
        let seal = seal(context);
        let key = match load_or_make(context, &seal).await {
            Ok(key) => key,
            Err(AuthError::Database(source)) => {
                return Err(StartError::Database {
                    service: "auth",
                    source,
                });
            }
            Err(other) => {
                return Err(StartError::Database {
                    service: "auth",
                    source: sqlx::Error::Decode(other.to_string().into()),
                });
            }
        };
        open(&seal, &key).ok_or_else(|| StartError::Setting {
            key: "the installation's secret".to_owned(),
            text: format!(
                "does not open signing key {} of schema auth, wanted the secret it was sealed under",
                key.public.id
            ),
        })
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn encoding(&self) -> &EncodingKey {
        &self.encoding
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// The keys as a JWK set (RFC 7517), as JSON.
pub(crate) fn jwk_set(keys: &[PublicKey]) -> String {
    let keys: Vec<_> = keys
        .iter()
        .map(|key| {
            json!({
                "kty": "OKP",
                "crv": "Ed25519",
                "x": BASE64_URL_SAFE_NO_PAD.encode(&key.bytes),
                "kid": key.id,
                "use": "sig",
                "alg": "EdDSA",
            })
        })
        .collect();
    json!({ "keys": keys }).to_string()
}

async fn load_or_make(context: &Context, seal: &XChaCha20Poly1305) -> Result<SealedKey, AuthError> {
    let mut db = context.database.acquire().await?;
    if let Some(key) = store::find_active_key(&mut db).await? {
        return Ok(key);
    }
    let now = time::to_micros(context.clock.now());
    for state in [KeyState::Active, KeyState::Next] {
        // Another process may start at this moment; whichever key came first is everybody's.
        store::insert_key_if_missing(&mut db, &make(seal)?, state, now).await?;
    }
    store::find_active_key(&mut db)
        .await?
        .ok_or_else(|| AuthError::Unreadable("signing_key has no active key".to_owned()))
}

fn seal(context: &Context) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&context.secrets.key(SEAL_PURPOSE).into())
}

fn make(seal: &XChaCha20Poly1305) -> Result<SealedKey, AuthError> {
    let private: [u8; 32] = rand::random();
    let jwk = Jwk::from_encoding_key(&encoding(&private), Algorithm::EdDSA)?;
    let AlgorithmParameters::OctetKeyPair(pair) = jwk.algorithm else {
        return Err(AuthError::Unreadable(
            "an Ed25519 key is no key pair".to_owned(),
        ));
    };
    let bytes = BASE64_URL_SAFE_NO_PAD
        .decode(&pair.x)
        .map_err(|error| AuthError::Unreadable(error.to_string()))?;
    // RFC 7638: exactly these members, in this order, without white space.
    let thumbprint = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, pair.x);
    let id = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(thumbprint));
    let nonce: [u8; NONCE_BYTES] = rand::random();
    // Sealed together with its name, so that rows cannot be swapped.
    let payload = Payload {
        msg: &private,
        aad: id.as_bytes(),
    };
    let sealed = seal
        .encrypt(XNonce::from_slice(&nonce), payload)
        .map_err(|error| AuthError::Unreadable(error.to_string()))?;
    Ok(SealedKey {
        public: PublicKey { id, bytes },
        sealed_private: [nonce.as_slice(), &sealed].concat(),
    })
}

fn open(seal: &XChaCha20Poly1305, key: &SealedKey) -> Option<SigningKey> {
    let (nonce, sealed) = key.sealed_private.split_at_checked(NONCE_BYTES)?;
    let payload = Payload {
        msg: sealed,
        aad: key.public.id.as_bytes(),
    };
    let private = seal.decrypt(XNonce::from_slice(nonce), payload).ok()?;
    Some(SigningKey {
        id: key.public.id.clone(),
        encoding: encoding(private.as_slice().try_into().ok()?),
    })
}

fn encoding(private: &[u8; 32]) -> EncodingKey {
    EncodingKey::from_ed_der(&[PKCS8_HEAD.as_slice(), private].concat())
}
