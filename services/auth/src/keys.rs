//! What access tokens are signed with: Ed25519 keys, sealed in the database, published as a JWK set.
//!
//! A key is `next` (published, so that everybody knows it before it signs), then `active` (signs), then `retired`
//! (published until the last token it signed is dead; its private half is gone).

use std::fmt;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use holdfast_platform::service::{Context, StartError};
use jsonwebtoken::{
    Algorithm, EncodingKey,
    jwk::{AlgorithmParameters, Jwk},
};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{error::AuthError, store};

const SEAL_PURPOSE: &str = "auth signing keys 1";
const NONCE_BYTES: usize = 24;
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

impl SigningKey {
    /// The active key of the database; makes it and its successor when there are none.
    pub(crate) async fn load_or_make(context: &Context) -> Result<Self, StartError> {
        let seal = XChaCha20Poly1305::new(&context.secrets.key(SEAL_PURPOSE).into());
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
    let now = context.clock.now();
    for state in [KeyState::Active, KeyState::Next] {
        // Another process may start at this moment; whichever key came first is everybody's.
        store::insert_key_if_missing(&mut db, &make(seal)?, state, now).await?;
    }
    store::find_active_key(&mut db)
        .await?
        .ok_or_else(|| AuthError::Unreadable("signing_key has no active key".to_owned()))
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
