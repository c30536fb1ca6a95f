//! Where passwords are judged and hashed: a few at a time, off the threads that serve, behind a bounded queue.
//!
//! A hash is made to cost a core and much memory. Without the bound a thousand logins a second would take both from
//! everybody who is buying; with it they are told to come back.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use holdfast_platform::service::StartError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zxcvbn::{Score, zxcvbn};

use crate::{Settings, error::AuthError};

/// Longest password that is taken.
pub(crate) const PASSWORD_MAX_BYTES: usize = 256;
/// What is told to whom the queue has no place for.
pub(crate) const RETRY_AFTER_SECS: u64 = 1;

const PASSWORD_MIN_CHARS: usize = 8;
const SCORE_MIN: Score = Score::Three;
const HASH_MEMORY_MIN_KIB: u32 = 19_456;
const HASH_PASSES_MIN: u32 = 2;
const HASH_LANES: u32 = 1;

/// Hashes and checks passwords.
pub(crate) struct Passwords {
    hasher: Arc<Hasher>,
    /// Everybody who hashes or waits for it.
    places: Arc<Semaphore>,
    /// Everybody who hashes.
    threads: Arc<Semaphore>,
}

/// A place in the queue; dropping it frees it.
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
}

/// What checking a password found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Wrong,
    Right {
        /// The same password under today's parameters, where the hash checked was made under weaker ones.
        better_hash: Option<String>,
    },
}

struct Hasher {
    argon: Argon2<'static>,
    /// Of a password nobody knows: checked where there is no account, so that there being none does not show.
    dummy: String,
    checked: AtomicUsize,
}

impl Passwords {
    /// Fails when a setting is below its floor.
    pub(crate) async fn new(settings: &Settings) -> Result<Self, StartError> {
        let refused = |key: &str, text: String| StartError::Setting {
            key: format!("auth.{key}"),
            text,
        };
        for (key, got, wanted) in [
            (
                "hash_memory_kib",
                settings.hash_memory_kib,
                HASH_MEMORY_MIN_KIB,
            ),
            ("hash_passes", settings.hash_passes, HASH_PASSES_MIN),
            ("hash_threads", settings.hash_threads, 1),
        ] {
            if got < wanted {
                return Err(refused(key, format!("{got}, wanted {wanted} or more")));
            }
        }
        let (memory_kib, passes) = (settings.hash_memory_kib, settings.hash_passes);
        // It hashes, and whoever else starts in this process has time limits to keep.
        let made = tokio::task::spawn_blocking(move || Hasher::new(memory_kib, passes)).await;
        let hasher = made
            .map_err(|stopped| AuthError::Hash(stopped.to_string()))
            .flatten()
            .map_err(|error| refused("hash_memory_kib", error.to_string()))?;
        let threads = settings.hash_threads as usize;
        Ok(Self {
            hasher: Arc::new(hasher),
            places: Arc::new(Semaphore::new(threads + settings.hash_queue as usize)),
            threads: Arc::new(Semaphore::new(threads)),
        })
    }

    /// Takes a place in the queue, before anything else is done for this caller. Fails with `BUSY` when it is full.
    pub(crate) fn enter(&self) -> Result<Place, AuthError> {
        let place = self.places.clone().try_acquire_owned();
        let free = self.places.available_permits();
        metrics::gauge!("login_hash_places_free").set(free as f64);
        place
            .map(|permit| Place { _permit: permit })
            .map_err(|_| AuthError::Busy)
    }

    /// The hash of a new password, if it is strong enough for somebody whom `about` describes.
    pub(crate) async fn hash(
        &self,
        place: Place,
        password: String,
        about: Vec<String>,
    ) -> Result<String, AuthError> {
        let hasher = self.hasher.clone();
        self.compute(place, move || {
            judge(&password, &about)?;
            hasher.hash(&password)
        })
        .await
    }

    /// Whether this is the password behind `stored`. Without one the answer is no, after the same work.
    pub(crate) async fn check(
        &self,
        place: Place,
        password: String,
        stored: Option<String>,
    ) -> Result<Verdict, AuthError> {
        let hasher = self.hasher.clone();
        self.compute(place, move || hasher.check(&password, stored.as_deref()))
            .await
    }

    /// Runs `work` when a thread is free. It keeps its place to its end even when nobody waits for it any more, for it
    /// keeps its memory as well.
    async fn compute<T: Send + 'static>(
        &self,
        place: Place,
        work: impl FnOnce() -> Result<T, AuthError> + Send + 'static,
    ) -> Result<T, AuthError> {
        let thread = self.threads.clone().acquire_owned().await;
        let thread = thread.expect("this semaphore is never closed");
        let done = tokio::task::spawn_blocking(move || {
            let _held = (place, thread);
            work()
        });
        done.await
            .map_err(|stopped| AuthError::Hash(stopped.to_string()))?
    }
}

impl Hasher {
    fn new(memory_kib: u32, passes: u32) -> Result<Self, AuthError> {
        let params = Params::new(memory_kib, passes, HASH_LANES, None)
            .map_err(|error| AuthError::Hash(error.to_string()))?;
        let mut hasher = Self {
            argon: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            dummy: String::new(),
            checked: AtomicUsize::new(0),
        };
        hasher.dummy = hasher.hash(&uuid::Uuid::new_v4().to_string())?;
        Ok(hasher)
    }

    fn hash(&self, password: &str) -> Result<String, AuthError> {
        self.argon
            .hash_password(password.as_bytes())
            .map(|hash| hash.to_string())
            .map_err(|error| AuthError::Hash(error.to_string()))
    }

    fn check(&self, password: &str, stored: Option<&str>) -> Result<Verdict, AuthError> {
        let unreadable = |error: &dyn std::fmt::Display| {
            AuthError::Unreadable(format!("account.password_hash: {error}"))
        };
        let hash = PasswordHash::new(stored.unwrap_or(&self.dummy)).map_err(|e| unreadable(&e))?;
        let params = Params::try_from(&hash).map_err(|e| unreadable(&e))?;
        let is_right = self
            .argon
            .verify_password(password.as_bytes(), &hash)
            .is_ok();
        self.checked.fetch_add(1, Relaxed);
        if !is_right || stored.is_none() {
            return Ok(Verdict::Wrong);
        }
        let wanted = self.argon.params();
        let is_weaker = params.m_cost() < wanted.m_cost() || params.t_cost() < wanted.t_cost();
        let better_hash = is_weaker.then(|| self.hash(password)).transpose()?;
        Ok(Verdict::Right { better_hash })
    }
}

/// Refuses what can be guessed, with the reason.
fn judge(password: &str, about: &[String]) -> Result<(), AuthError> {
    let bytes = password.len();
    if bytes > PASSWORD_MAX_BYTES {
        return Err(AuthError::PasswordTooLong { bytes });
    }
    let chars = password.chars().count();
    if chars < PASSWORD_MIN_CHARS {
        return Err(AuthError::WeakPassword {
            why: format!("{chars} characters, wanted {PASSWORD_MIN_CHARS} or more"),
        });
    }
    let mut known: Vec<&str> = about.iter().map(String::as_str).collect();
    known.push("holdfast");
    let judged = zxcvbn(password, &known);
    if judged.score() >= SCORE_MIN {
        return Ok(());
    }
    let mut why = Vec::new();
    if let Some(feedback) = judged.feedback() {
        why.extend(feedback.warning().map(|warning| warning.to_string()));
        why.extend(feedback.suggestions().iter().map(ToString::to_string));
    }
    if why.is_empty() {
        why.push("it can be guessed, use more or rarer words".to_owned());
    }
    Err(AuthError::WeakPassword {
        why: why.join(" ").trim_end_matches('.').to_lowercase(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> Settings {
        holdfast_platform::settings::Settings::load(&[crate::DEFAULTS], None)
            .and_then(|settings| settings.section("auth"))
            .expect("the defaults can be read")
    }

    fn hasher(passes: u32) -> Hasher {
        Hasher::new(HASH_MEMORY_MIN_KIB, passes).expect("parameters within their bounds")
    }

    #[test]
    fn an_unknown_account_costs_the_same_hash_and_is_never_right() {
        let hasher = hasher(HASH_PASSES_MIN);
        let stored = hasher.hash("a password").expect("a hash");
        let cost = |phc: &str| phc.rsplitn(3, '$').last().map(str::to_owned);
        assert_eq!(cost(&hasher.dummy), cost(&stored));
        for (done, stored) in [(1, Some(stored.as_str())), (2, None)] {
            assert_eq!(hasher.check("another", stored).ok(), Some(Verdict::Wrong));
            assert_eq!(hasher.checked.load(Relaxed), done);
        }
        assert!(
            stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{stored}"
        );
    }

    #[test]
    fn a_hash_of_weaker_parameters_is_made_anew_and_one_of_todays_is_not() {
        let (weaker, today) = (hasher(2), hasher(3));
        let old = weaker.hash("a password").expect("a hash");
        let Ok(Verdict::Right {
            better_hash: Some(new),
        }) = today.check("a password", Some(&old))
        else {
            panic!("the password is right and its hash is old");
        };
        let kept = Verdict::Right { better_hash: None };
        assert_eq!(today.check("a password", Some(&new)).ok(), Some(kept));
        assert_eq!(
            today.check("b password", Some(&old)).ok(),
            Some(Verdict::Wrong)
        );
    }

    #[test]
    fn a_password_that_can_be_guessed_is_refused_with_the_reason() {
        let about = [
            "ada.lovelace@example.com".to_owned(),
            "Ada Lovelace".to_owned(),
        ];
        for (password, reason) in [
            ("short", "5 characters"),
            ("password1", "common"),
            ("aaaaaaaaaaaa", "repeat"),
            ("Ada Lovelace", "word"),
        ] {
            let refused = judge(password, &about).expect_err(password).to_string();
            assert!(refused.contains(reason), "{password}: {refused}");
        }
        assert!(judge("correct horse battery staple", &about).is_ok());
        assert!(judge(&"x".repeat(PASSWORD_MAX_BYTES + 1), &about).is_err());
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once_and_a_finished_hash_frees_its_place() {
        let settings = Settings {
            hash_threads: 1,
            hash_queue: 1,
            ..defaults()
        };
        let passwords = Passwords::new(&settings)
            .await
            .expect("settings within their bounds");
        let (first, second) = (passwords.enter(), passwords.enter());
        let (Ok(first), Ok(second)) = (first, second) else {
            panic!("one hashes and one waits");
        };
        assert!(matches!(passwords.enter(), Err(AuthError::Busy)));
        drop(second);
        let checked = passwords.check(first, "a password".to_owned(), None).await;
        assert_eq!(checked.ok(), Some(Verdict::Wrong));
        assert_eq!(passwords.places.available_permits(), 2);
    }
}
