//! Signatures as Standard Webhooks writes them: HMAC-SHA256 over id, time and body, one for each secret that is live.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Length of a secret.
pub(crate) const SECRET_BYTES: usize = 32;
const SECRET_PREFIX: &str = "whsec_";
const SCHEME: &str = "v1,";

/// What both sides know. Stands in no log.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret([u8; SECRET_BYTES]);

impl Secret {
    pub(crate) const fn new(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(bytes)
    }

    /// The secret that [`to_text`](Self::to_text) wrote.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let encoded = text.strip_prefix(SECRET_PREFIX)?;
        let bytes = BASE64_STANDARD.decode(encoded).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// As it is told to people, once.
    pub(crate) fn to_text(&self) -> String {
        format!("{SECRET_PREFIX}{}", BASE64_STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The header `webhook-signature` of a message sent at this second.
pub(crate) fn sign(secrets: &[Secret], id: &str, at_second: i64, body: &str) -> String {
    let signatures: Vec<String> = secrets
        .iter()
        .map(|secret| {
            let mac = mac(&secret.0, id, &at_second.to_string(), body);
            let mac = mac.finalize().into_bytes();
            format!("{SCHEME}{}", BASE64_STANDARD.encode(mac))
        })
        .collect();
    signatures.join(" ")
}

/// Whether one of the signatures in the header `webhook-signature` is that of this secret, in constant time.
///
/// A receiver also refuses a `webhook-timestamp` that is minutes off its own clock.
pub fn verify(secret: &str, id: &str, timestamp: &str, body: &str, signatures: &str) -> bool {
    let key = secret
        .strip_prefix(SECRET_PREFIX)
        .and_then(|encoded| BASE64_STANDARD.decode(encoded).ok());
    let Some(key) = key else {
        return false;
    };
    signatures.split(' ').any(|signature| {
        let claimed = signature
            .strip_prefix(SCHEME)
            .and_then(|encoded| BASE64_STANDARD.decode(encoded).ok());
        claimed.is_some_and(|claimed| {
            let mac = mac(&key, id, timestamp, body);
            mac.verify_slice(&claimed).is_ok()
        })
    })
}

fn mac(key: &[u8], id: &str, timestamp: &str, body: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in [id, ".", timestamp, ".", body] {
        mac.update(part.as_bytes());
    }
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_the_standards_example() {
        let secret = BASE64_STANDARD
            .decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
            .expect("base 64");
        let body = r#"{"test": 2432232314}"#;
        let mac = mac(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body);
        let mac = BASE64_STANDARD.encode(mac.finalize().into_bytes());
        assert_eq!(mac, "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_signature_holds_for_every_live_secret_and_for_nothing_that_was_changed() {
        let secrets = [[1; SECRET_BYTES], [2; SECRET_BYTES]].map(Secret::new);
        let signed = sign(&secrets, "m", 7, "{}");
        for secret in &secrets {
            assert!(verify(&secret.to_text(), "m", "7", "{}", &signed));
        }
        let (secret, other) = (
            secrets[0].to_text(),
            Secret::new([3; SECRET_BYTES]).to_text(),
        );
        for (secret, id, at, body) in [
            (other.as_str(), "m", "7", "{}"),
            (&secret, "n", "7", "{}"),
            (&secret, "m", "8", "{}"),
            (&secret, "m", "7", "{ }"),
            ("whsec_?", "m", "7", "{}"),
            ("", "m", "7", "{}"),
        ] {
            assert!(
                !verify(secret, id, at, body, &signed),
                "{secret} {id} {at} {body}"
            );
        }
        assert!(!verify(
            &secret,
            "m",
            "7",
            "{}",
            &signed.replace("v1,", "v2,")
        ));
    }

    #[test]
    fn a_secret_shows_in_no_log() {
        assert_eq!(
            format!("{:?}", Secret::new([7; SECRET_BYTES])),
            "Secret(..)"
        );
    }
}
