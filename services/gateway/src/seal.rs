//! Replies at rest: readable only to whoever still has the idempotency key they were given under.

use chacha20poly1305::{
    ChaCha20Poly1305, Nonce,
    aead::{Aead, KeyInit, Payload},
};
use hkdf::Hkdf;
use sha2::Sha256;
use uuid::Uuid;

use crate::error::GatewayError;

const NONCE_BYTES: usize = 12;
const KEY_BYTES: usize = 32;
const PURPOSE: &[u8] = b"holdfast gateway reply v1";

/// What opens one reply.
pub(crate) struct ReplyKey {
    cipher: ChaCha20Poly1305,
    request_id: Uuid,
}

impl ReplyKey {
    /// The key of the reply to this request. The request's id salts it, so the same words open nothing else.
    pub(crate) fn derive(idempotency_key: &str, request_id: Uuid) -> Self {
        let mut key = [0; KEY_BYTES];
        Hkdf::<Sha256>::new(Some(request_id.as_bytes()), idempotency_key.as_bytes())
            .expand(PURPOSE, &mut key)
            .expect("32 bytes are within what HKDF gives");
        Self {
            cipher: ChaCha20Poly1305::new(&key.into()),
            request_id,
        }
    }

    /// Closes a reply. `nonce` is random: a reply may be stored anew when the first one's time is over.
    pub(crate) fn seal(
        &self,
        nonce: [u8; NONCE_BYTES],
        reply: &[u8],
    ) -> Result<Vec<u8>, GatewayError> {
        let sealed = self
            .cipher
            .encrypt(Nonce::from_slice(&nonce), self.bound_to_request(reply))
            .map_err(|_| GatewayError::Reply { what: "sealed" })?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Opens what [`seal`](Self::seal) closed under the same key for the same request.
    pub(crate) fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, GatewayError> {
        let refused = || GatewayError::Reply { what: "opened" };
        let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES).ok_or_else(refused)?;
        self.cipher
            .decrypt(Nonce::from_slice(nonce), self.bound_to_request(sealed))
            .map_err(|_| refused())
    }

    fn bound_to_request<'a>(&'a self, msg: &'a [u8]) -> Payload<'a, 'a> {
        Payload {
            msg,
            aad: self.request_id.as_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_reply_opens_with_its_own_key_and_request_and_with_nothing_else() {
        let request = Uuid::from_u128(1);
        let key = ReplyKey::derive("checkout-1", request);
        let sealed = key.seal([7; NONCE_BYTES], b"the reply").expect("sealed");
        assert!(!sealed.windows(5).any(|part| part == b"reply"));
        assert_eq!(key.open(&sealed).expect("opened"), b"the reply");

        let mut changed = sealed.clone();
        *changed.last_mut().expect("not empty") ^= 1;
        for (key, sealed) in [
            (ReplyKey::derive("checkout-2", request), &sealed),
            (ReplyKey::derive("checkout-1", Uuid::from_u128(2)), &sealed),
            (ReplyKey::derive("checkout-1", request), &changed),
        ] {
            assert!(key.open(sealed).is_err());
        }
        assert!(key.open(&sealed[..5]).is_err());
    }
}
