//! Guessing passwords is made slow, and shuts nobody out for good.
//!
//! Wrong passwords are counted for the account that was tried, known or not, and for the place they came from. Past a few
//! free ones each try has to wait, longer every time up to a minute; what waited long enough takes the one try there is,
//! so a hundred at once are still one. An hour without a wrong one forgets them all. The owner of an account that is
//! guessed at from elsewhere does not wait with the guessers: from a place where the account was logged in to lately, tries
//! are counted for themselves.

use std::time::Duration;

use holdfast_kernel::{Id, Timestamp, id};
use jiff::SignedDuration;
use sqlx::PgConnection;

use crate::{
    domain::{Guesses, Patience},
    error::AuthError,
    store,
    vault::Vault,
};

/// Of one account.
const ACCOUNT: Patience = Patience { free: 10 };
/// From one place, where many people may sit.
const PLACE: Patience = Patience { free: 50 };
/// How long an account is known at a place after a login there.
const FAMILIAR: SignedDuration = SignedDuration::from_hours(24 * 30);

/// Rows that a wrong password tidies up at most; more than the two it makes, so that they grow no heap.
const FORGOTTEN_MAX_ROWS: i64 = 10;

/// A login that may be tried.
pub(crate) struct Try {
    buckets: Vec<Bucket>,
    place: Option<[u8; 32]>,
}

struct Bucket {
    key: [u8; 32],
    patience: Patience,
    /// What was known when it was asked.
    seen: Option<Guesses>,
    /// Counted before it is known how it ends, for it was the one there was.
    is_counted: bool,
    /// A right password says that whoever tries here knows it; one account's says nothing of those tried from its place.
    is_forgiving: bool,
}

/// Lets a password be tried, or says how long to wait.
///
/// `email` is what was sent, an address or not; `place` may be empty.
pub(crate) async fn allow(
    db: &mut PgConnection,
    vault: &Vault,
    email: &str,
    account: Option<Id<id::User>>,
    place: &str,
    now: Timestamp,
) -> Result<Try, AuthError> {
    let place_key = (!place.is_empty()).then(|| vault.stands_for(&["place", place]));
    let mut is_familiar = false;
    if let Some((account, place)) = account.zip(place_key.as_ref()) {
        is_familiar = store::is_familiar(db, account, place, now - FAMILIAR).await?;
    }
    let bucket = |key, patience, is_forgiving| Bucket {
        key,
        patience,
        seen: None,
        is_counted: false,
        is_forgiving,
    };
    let mut buckets = Vec::new();
    if is_familiar {
        let key = vault.stands_for(&["account at place", email, place]);
        buckets.push(bucket(key, ACCOUNT, true));
    } else {
        let key = vault.stands_for(&["account", email]);
        buckets.push(bucket(key, ACCOUNT, true));
        buckets.extend(place_key.map(|key| bucket(key, PLACE, false)));
    }
    // All are asked before any is taken from: who has to wait for one uses up no other.
    for bucket in &mut buckets {
        bucket.seen = store::find_guesses(db, &bucket.key).await?;
        let wait = bucket.wait(now);
        if !wait.is_zero() {
            return Err(AuthError::Guessing { wait });
        }
    }
    for bucket in &mut buckets {
        bucket.take(db, now).await?;
    }
    Ok(Try {
        buckets,
        place: place_key,
    })
}

impl Try {
    /// The password was wrong.
    pub(crate) async fn failed(
        self,
        db: &mut PgConnection,
        now: Timestamp,
    ) -> Result<(), AuthError> {
        store::forget_guesses(db, now - Guesses::KEPT, FORGOTTEN_MAX_ROWS).await?;
        for bucket in self.buckets.iter().filter(|bucket| !bucket.is_counted) {
            store::count_guess(db, &bucket.key, now, now - Guesses::KEPT).await?;
        }
        Ok(())
    }

    /// The password was right: it was no guess, and the account is known at this place from now on.
    pub(crate) async fn succeeded(
        self,
        db: &mut PgConnection,
        account: Id<id::User>,
        now: Timestamp,
    ) -> Result<(), AuthError> {
        for bucket in self.buckets.iter().filter(|bucket| bucket.is_forgiving) {
            store::forgive_guesses(db, &bucket.key).await?;
        }
        if let Some(place) = &self.place {
            store::note_familiar(db, account, place, now, now - FAMILIAR).await?;
        }
        Ok(())
    }
}

impl Bucket {
    fn wait(&self, now: Timestamp) -> Duration {
        let wait = |guesses: Guesses| guesses.wait(self.patience, now);
        self.seen.map_or(Duration::ZERO, wait)
    }

    /// Of all who waited for a try one takes it; the others see that it is gone, and wait again.
    async fn take(&mut self, db: &mut PgConnection, now: Timestamp) -> Result<(), AuthError> {
        let Some(seen) = self.seen.filter(|seen| seen.is_slow(self.patience, now)) else {
            return Ok(());
        };
        if !store::take_guess(db, &self.key, &seen, now).await? {
            let wait = seen.after(now).wait(self.patience, now);
            return Err(AuthError::Guessing { wait });
        }
        self.is_counted = true;
        Ok(())
    }
}
