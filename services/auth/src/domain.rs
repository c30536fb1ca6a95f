//! Accounts and sessions, and the ways they may change.

use std::time::Duration;

use holdfast_kernel::{Id, Timestamp, id};
use holdfast_platform::identity::Role;
use jiff::SignedDuration;
use uuid::{Uuid, uuid};

use crate::error::AuthError;

/// The account under which commands of the machine's owner act.
pub(crate) const OWNER: Uuid = uuid!("01976b1e-0000-7000-8000-000000000001");

/// An e-mail address in the one form in which it is kept and compared: trimmed, lower case, ASCII.
///
/// Two spellings that differ in letter case are one address; no mail provider of note holds otherwise. What lies
/// outside ASCII is refused, for there look-alikes would make two accounts of what people read as one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Email(String);

const EMAIL_MAX_BYTES: usize = 254;
const EMAIL_LOCAL_MAX_BYTES: usize = 64;
const DOMAIN_LABEL_MAX_BYTES: usize = 63;

impl Email {
    pub(crate) fn parse(text: &str) -> Result<Self, AuthError> {
        let text = text.trim();
        let refused = |why| AuthError::EmailRefused { why };
        if text.len() > EMAIL_MAX_BYTES {
            return Err(refused("longer than 254 bytes"));
        }
        let (local, domain) = text.rsplit_once('@').ok_or_else(|| refused("without @"))?;
        let local_is_fine = (1..=EMAIL_LOCAL_MAX_BYTES).contains(&local.len())
            && local
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !b"@\"(),:;<>[\\]".contains(&byte));
        if !local_is_fine {
            return Err(refused("not well formed before the @"));
        }
        let label_is_fine = |label: &str| {
            (1..=DOMAIN_LABEL_MAX_BYTES).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if !domain.split('.').all(label_is_fine) {
            return Err(refused("not well formed after the @"));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// The address of an account nobody writes to; `.invalid` never resolves (RFC 2606).
    pub(crate) fn of_machine(user: Id<id::User>) -> Self {
        Self(format!("{user}@machine.invalid"))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// An account on its way: it exists for nobody until its profile is written.
#[derive(Debug, Clone)]
pub(crate) struct Applicant {
    pub(crate) user: Id<id::User>,
    pub(crate) email: Email,
    /// `None`: nobody logs in by password.
    pub(crate) password_hash: Option<String>,
    pub(crate) role: Role,
    pub(crate) created_at: Timestamp,
    /// Names this registration. Of several for one address the last to begin completes it.
    pub(crate) attempt: Uuid,
}

/// An account that is complete.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) user: Id<id::User>,
    pub(crate) email: Email,
    pub(crate) role: Role,
    /// Whether it may log in.
    pub(crate) is_active: bool,
    pub(crate) password_hash: Option<String>,
    pub(crate) created_at: Timestamp,
    /// The version of its last news on the bus.
    pub(crate) news: i64,
}

/// One login and the family of refresh tokens that comes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) id: Id<id::Session>,
    pub(crate) user: Id<id::User>,
    pub(crate) state: SessionState,
    pub(crate) opened_at: Timestamp,
    /// However often it is refreshed.
    pub(crate) expires_at: Timestamp,
    /// What its client called itself.
    pub(crate) user_agent: UserAgent,
}

/// What a client calls itself, cut to what a person can use to tell sessions apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct UserAgent(String);

/// As the column's check has it.
const USER_AGENT_MAX_CHARS: usize = 200;

/// Wrong passwords, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Guesses {
    pub(crate) failures: i32,
    pub(crate) failed_at: Timestamp,
}

/// How many wrong passwords cost no time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) free: i32,
}

/// Longest time a try waits.
const WAIT_MAX_SECS: u64 = 60;
/// As many doublings of a second as go into it.
const DOUBLINGS_MAX: u32 = 6;

/// A session that was ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) session: Id<id::Session>,
    /// When it would have ended by itself.
    pub(crate) expires_at: Timestamp,
}

/// A session whose access tokens are dead before their time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Revocation {
    pub(crate) session: Id<id::Session>,
    /// From then on they are dead by themselves.
    pub(crate) dead_at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionState {
    /// The refresh token of number `turn` is alive, since `turned_at`.
    Open { turn: i64, turned_at: Timestamp },
    /// Ended by its owner.
    LoggedOut,
    /// Ended because a refresh token came back that had been replaced: somebody has a copy.
    Revoked,
}

/// What showing a refresh token did to its session.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refreshed {
    /// The next token is alive now.
    Turned { session: Session, turn: i64 },
    /// The token was replaced moments ago; its successor is given once more.
    Repeated { session: Session, turn: i64 },
    /// The token was replaced long ago; the session is over for whoever holds its tokens.
    Revoked { session: Session },
}

impl Guesses {
    /// How long after the last one they are remembered.
    pub(crate) const KEPT: SignedDuration = SignedDuration::from_hours(1);

    /// How long the next try has to wait: 1, 2, 4 … seconds after the last wrong one, and never more than a minute.
    pub(crate) fn wait(self, patience: Patience, now: Timestamp) -> Duration {
        if !self.is_slow(patience, now) {
            return Duration::ZERO;
        }
        let over = (self.failures - patience.free).unsigned_abs();
        let secs = (1_u64 << over.min(DOUBLINGS_MAX)).min(WAIT_MAX_SECS);
        let passed = now.duration_since(self.failed_at).max(SignedDuration::ZERO);
        Duration::from_secs(secs).saturating_sub(passed.unsigned_abs())
    }

    /// Whether the free ones are used up.
    pub(crate) fn is_slow(self, patience: Patience, now: Timestamp) -> bool {
        self.failures >= patience.free && now.duration_since(self.failed_at) < Self::KEPT
    }

    /// With one more.
    pub(crate) fn after(self, now: Timestamp) -> Self {
        Self {
            failures: self.failures.saturating_add(1),
            failed_at: now,
        }
    }
}

impl Account {
    /// The account with another role, by the hand of `admin`; the role it has changes nothing and is `None`.
    pub(crate) fn with_role(
        &self,
        role: Role,
        admin: Id<id::User>,
    ) -> Result<Option<Self>, AuthError> {
        self.may_be_changed_by(admin)?;
        Ok((self.role != role).then(|| Self {
            role,
            ..self.clone()
        }))
    }

    /// The account as it may log in, or no longer, by the hand of `admin`; `None` when that is so already.
    ///
    /// That it may no longer is news; that it may again is not.
    pub(crate) fn with_active(
        &self,
        is_active: bool,
        admin: Id<id::User>,
    ) -> Result<Option<Self>, AuthError> {
        self.may_be_changed_by(admin)?;
        Ok((self.is_active != is_active).then(|| Self {
            is_active,
            news: self.news + i64::from(!is_active),
            ..self.clone()
        }))
    }

    /// The account as its erasure is told, by the hand of `admin`.
    pub(crate) fn erased(&self, admin: Id<id::User>) -> Result<Self, AuthError> {
        self.may_be_changed_by(admin)?;
        Ok(Self {
            is_active: false,
            news: self.news + 1,
            ..self.clone()
        })
    }

    /// An admin who shuts himself out may be the last one; and who has the machine has this account, whatever it says.
    fn may_be_changed_by(&self, admin: Id<id::User>) -> Result<(), AuthError> {
        if self.user == admin {
            return Err(AuthError::OwnAccount);
        }
        if self.user == Id::new(OWNER) {
            return Err(AuthError::OwnersAccount);
        }
        Ok(())
    }
}

impl Session {
    /// The session of a login, with its first refresh token alive.
    pub(crate) fn open(
        id: Id<id::Session>,
        user: Id<id::User>,
        now: Timestamp,
        lifetime: SignedDuration,
        user_agent: UserAgent,
    ) -> Self {
        Self {
            id,
            user,
            state: SessionState::Open {
                turn: 1,
                turned_at: now,
            },
            opened_at: now,
            expires_at: now + lifetime,
            user_agent,
        }
    }

    /// When tokens of it were given last, as long as it is open.
    pub(crate) fn last_used_at(&self) -> Timestamp {
        match self.state {
            SessionState::Open { turned_at, .. } => turned_at,
            SessionState::LoggedOut | SessionState::Revoked => self.opened_at,
        }
    }

    /// Whether its access tokens hold, as far as they are alive.
    pub(crate) fn is_open(&self, now: Timestamp) -> bool {
        matches!(self.state, SessionState::Open { .. }) && now < self.expires_at
    }

    /// Shows the refresh token of number `shown`, which was proved to be of this family.
    ///
    /// Only the direct predecessor of the living token has grace, and it gets that same token: of many who refresh at
    /// once all end with one token, and none starts a second chain.
    pub(crate) fn refresh(
        self,
        shown: i64,
        now: Timestamp,
        grace: SignedDuration,
    ) -> Result<Refreshed, AuthError> {
        let (turn, turned_at) = match self.state {
            SessionState::Open { turn, turned_at } => (turn, turned_at),
            SessionState::LoggedOut => return Err(AuthError::RefreshInvalid),
            SessionState::Revoked => return Err(AuthError::RefreshReused),
        };
        // A token from the future of this row was made before the database was set back.
        if now >= self.expires_at || shown > turn {
            return Err(AuthError::RefreshInvalid);
        }
        if shown == turn {
            let turn = turn + 1;
            let state = SessionState::Open {
                turn,
                turned_at: now,
            };
            let session = Self { state, ..self };
            return Ok(Refreshed::Turned { session, turn });
        }
        if shown + 1 == turn && now.duration_since(turned_at) < grace {
            return Ok(Refreshed::Repeated {
                session: self,
                turn,
            });
        }
        let state = SessionState::Revoked;
        Ok(Refreshed::Revoked {
            session: Self { state, ..self },
        })
    }
}

impl UserAgent {
    /// Keeps what can be shown.
    pub(crate) fn cut(text: &str) -> Self {
        let shown = text.chars().filter(|letter| !letter.is_control());
        Self(shown.take(USER_AGENT_MAX_CHARS).collect())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: SignedDuration = SignedDuration::from_secs(10);

    fn secs(secs: i64) -> SignedDuration {
        SignedDuration::from_secs(secs)
    }

    fn session() -> Session {
        let (id, user) = (Id::new(Uuid::from_u128(1)), Id::new(Uuid::from_u128(2)));
        let (now, agent) = (Timestamp::UNIX_EPOCH, UserAgent::default());
        Session::open(id, user, now, secs(86_400), agent)
    }

    #[test]
    fn an_address_has_one_form() {
        let parsed = Email::parse("  Ada.L+x@Example.COM ").expect("an address");
        assert_eq!(parsed.as_str(), "ada.l+x@example.com");
        assert!(Email::parse("root@localhost").is_ok());
        for refused in [
            "",
            "ada",
            "@example.com",
            "ada@",
            "ada@example..com",
            "ada@-example.com",
            "a b@example.com",
            "ada@b@example.com",
            "\"ada\"@example.com",
            "аda@example.com",
            "ada@exämple.com",
            "ada@example.com\r\nbcc: all",
            &format!("{}@example.com", "a".repeat(65)),
            &format!("ada@{}.com", "a".repeat(300)),
        ] {
            assert!(Email::parse(refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn guesses_wait_longer_each_time_but_never_more_than_a_minute_and_are_forgotten_in_an_hour() {
        let (patience, now) = (Patience { free: 3 }, Timestamp::UNIX_EPOCH);
        let wait = |failures, passed: i64| {
            let guesses = Guesses {
                failures,
                failed_at: now,
            };
            guesses.wait(patience, now + secs(passed)).as_secs()
        };
        assert_eq!([wait(1, 0), wait(2, 0)], [0, 0]);
        assert_eq!(
            [wait(3, 0), wait(4, 0), wait(5, 0), wait(8, 0)],
            [1, 2, 4, 32]
        );
        assert_eq!([wait(9, 0), wait(10, 0), wait(i32::MAX, 0)], [60, 60, 60]);
        assert_eq!([wait(9, 59), wait(9, 60), wait(9, 3_600)], [1, 0, 0]);
        assert_eq!(wait(9, -5), 60, "a clock that was set back");
    }

    #[test]
    fn what_a_client_calls_itself_is_cut_to_what_can_be_shown() {
        let cut = UserAgent::cut(&format!("curl\r\n{}", "é".repeat(300)));
        assert_eq!(cut.as_str().chars().count(), USER_AGENT_MAX_CHARS);
        assert!(cut.as_str().starts_with("curlé"), "{}", cut.as_str());
    }

    #[test]
    fn grace_ends_after_its_seconds_and_is_the_direct_predecessors_alone() {
        let now = Timestamp::UNIX_EPOCH;
        let turn = |session: Session, shown, now| match session.refresh(shown, now, GRACE) {
            Ok(Refreshed::Turned { session, turn }) => (session, turn),
            other => panic!("{other:?}"),
        };
        let (session, second) = turn(session(), 1, now);
        assert_eq!(second, 2);
        let at_the_last_moment = now + secs(10) - SignedDuration::from_micros(1);
        assert!(matches!(
            session.clone().refresh(1, at_the_last_moment, GRACE),
            Ok(Refreshed::Repeated { turn: 2, .. })
        ));
        assert!(matches!(
            session.clone().refresh(1, now + secs(10), GRACE),
            Ok(Refreshed::Revoked { .. })
        ));
        let (session, third) = turn(session, 2, now);
        assert_eq!(third, 3);
        assert!(matches!(
            session.refresh(1, now, GRACE),
            Ok(Refreshed::Revoked { .. })
        ));
    }

    #[test]
    fn a_session_ends_with_its_lifetime_however_fresh_its_token_is() {
        let end = Timestamp::UNIX_EPOCH + secs(86_400);
        let last = end - SignedDuration::from_micros(1);
        assert!(session().refresh(1, last, GRACE).is_ok());
        assert!(matches!(
            session().refresh(1, end, GRACE),
            Err(AuthError::RefreshInvalid)
        ));
    }

    #[test]
    fn a_token_the_row_does_not_know_yet_revokes_nothing() {
        assert!(matches!(
            session().refresh(2, Timestamp::UNIX_EPOCH, GRACE),
            Err(AuthError::RefreshInvalid)
        ));
    }
}
