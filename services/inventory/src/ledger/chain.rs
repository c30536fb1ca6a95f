//! The hash chain of a pool's book: each movement is sealed together with the one before it.
//!
//! One canonical encoding, so that anybody can check a book with SHA-256 and this page. The hash of a movement is that of
//!
//! | bytes | what |
//! |---|---|
//! | 32 | hash of the movement before; zeros for the first |
//! | 8 | version |
//! | 2 | kind |
//! | 8 each | units, held after, sold after, capacity after |
//! | 8 each | `at`, `effective_at` in microseconds since 1970, UTC |
//! | 16 | hold; zeros when there is none |
//! | 8 + n each | actor, reason, pool key: length in bytes, then UTF-8 |
//!
//! Numbers are big-endian, in two's complement.

use holdfast_kernel::{PoolKey, Timestamp};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::book::PoolId;
use crate::domain::{HoldId, MovementKind, Name};

/// The hash of a movement; of a pool, that of its newest one.
pub(crate) type Head = [u8; 32];

/// The head of a pool without movements.
pub(crate) const BIRTH: Head = [0; 32];

/// One entry of a pool's book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Movement {
    pub(crate) pool: PoolId,
    pub(crate) version: i64,
    pub(crate) kind: MovementKind,
    pub(crate) units: i64,
    pub(crate) held_after: i64,
    pub(crate) sold_after: i64,
    pub(crate) capacity_after: i64,
    pub(crate) at: Timestamp,
    /// When that is not `at`.
    pub(crate) effective_at: Option<Timestamp>,
    pub(crate) hold: Option<HoldId>,
    pub(crate) actor: Name,
    pub(crate) reason: Name,
    pub(crate) hash: Head,
}

/// The hash that belongs to a movement of the pool `key` behind `previous`. Does not look at the one it carries.
pub(crate) fn link(previous: &Head, key: &PoolKey, movement: &Movement) -> Head {
    let effective_at = movement.effective_at.unwrap_or(movement.at);
    let mut hash = Sha256::new();
    hash.update(previous);
    hash.update(movement.version.to_be_bytes());
    hash.update(movement.kind.code().to_be_bytes());
    hash.update(movement.units.to_be_bytes());
    hash.update(movement.held_after.to_be_bytes());
    hash.update(movement.sold_after.to_be_bytes());
    hash.update(movement.capacity_after.to_be_bytes());
    hash.update(movement.at.as_microsecond().to_be_bytes());
    hash.update(effective_at.as_microsecond().to_be_bytes());
    hash.update(movement.hold.map_or(Uuid::nil(), HoldId::uuid));
    for text in [&*movement.actor, &*movement.reason, key.as_str()] {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first() -> (PoolKey, Movement) {
        let movement = Movement {
            pool: PoolId(7),
            version: 1,
            kind: MovementKind::Adjust,
            units: 12,
            held_after: 0,
            sold_after: 0,
            capacity_after: 12,
            at: "2026-12-01T09:30:00.000001Z".parse().expect("a moment"),
            effective_at: None,
            hold: None,
            actor: "usr_1".into(),
            reason: "opening stock".into(),
            hash: BIRTH,
        };
        ("sku:TSHIRT-M".parse().expect("a key"), movement)
    }

    fn u128_pair(hash: &Head) -> (u128, u128) {
        let half = |bytes: &[u8]| u128::from_be_bytes(bytes.try_into().expect("16 bytes"));
        (half(&hash[..16]), half(&hash[16..]))
    }

    #[test]
    fn the_encoding_is_a_promise() {
        let (key, movement) = first();
        let hash = u128_pair(&link(&BIRTH, &key, &movement));
        // Anybody's books depend on this value: a change of it needs a migration of every chain.
        assert_eq!(
            hash,
            (
                0xb0e7_1cfb_c646_d60f_10dc_daee_0553_b313,
                0x1381_b493_1701_fea2_ad46_b7d7_3b99_23f6
            )
        );
    }

    #[test]
    fn every_field_changes_the_hash() {
        let (key, movement) = first();
        let changes: [fn(&mut Movement); 10] = [
            |m| m.version += 1,
            |m| m.kind = MovementKind::Policy,
            |m| m.units += 1,
            |m| m.held_after += 1,
            |m| m.sold_after += 1,
            |m| m.capacity_after += 1,
            |m| m.effective_at = Some(Timestamp::UNIX_EPOCH),
            |m| m.hold = Some(HoldId::new(Uuid::from_u128(1))),
            |m| m.actor = "usr_2".into(),
            |m| m.reason = "usr_".into(),
        ];
        let mut hashes = vec![
            link(&BIRTH, &key, &movement),
            link(&[1; 32], &key, &movement),
            link(&BIRTH, &"sku:TSHIRT-L".parse().expect("a key"), &movement),
        ];
        for change in changes {
            let mut other = movement.clone();
            change(&mut other);
            hashes.push(link(&BIRTH, &key, &other));
        }
        let count = hashes.len();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), count);
    }
}
