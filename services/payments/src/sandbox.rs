//! A provider that moves no money: for development, tests and demonstrations.
//!
//! It behaves as a bank would: it commits to a book of its own before it answers, and what it does depends on the token.
//! Waiting goes by the clock it is given, never by sleeping.
//!
//! | token | does |
//! |---|---|
//! | `sandbox_ok` | authorizes, captures |
//! | `sandbox_declined` | refuses to authorize: `card_declined` |
//! | `sandbox_3ds` | wants the customer to prove themselves first |
//! | `sandbox_timeout` | captures without answering; tells so [`TIMEOUT_KNOWN_AFTER_SECS`] later |
//! | `sandbox_late_ok` | authorizes without answering; tells so [`LATE_KNOWN_AFTER_SECS`] after the hold ended |
//! | `sandbox_capture_fails` | authorizes, then refuses to capture: `capture_failed` |
//! | a konbini's name | gives a slip, which [`Sandbox::pay_slip`] settles; refunds take [`SLIP_REFUND_KNOWN_AFTER_SECS`] |

mod book;

use std::sync::Arc;

use holdfast_kernel::{Clock, Id, Money, Timestamp, id, time};
use jiff::SignedDuration;
use sqlx::{PgConnection, PgPool};

use crate::{
    domain::{Method, MethodKind, NextAction, RefundTruth, Truth},
    provider::{Ask, Charge, MethodCheck, Provider, Unknown},
};
use book::{Entry, Move, Row, Standing};

pub use book::{BookFact, audit};

/// Until the outcome of a `sandbox_timeout` capture is told.
pub const TIMEOUT_KNOWN_AFTER_SECS: i64 = 3;
/// From the end of the hold until a `sandbox_late_ok` authorization is told.
pub const LATE_KNOWN_AFTER_SECS: i64 = 5;
/// Until the buyer of a konbini slip has said where a refund shall go.
pub const SLIP_REFUND_KNOWN_AFTER_SECS: i64 = 3;
/// Until a notice that was not taken comes again.
const NOTICE_AGAIN_SECS: i64 = 10;
/// The convenience stores there are.
pub const STORES: [&str; 5] = [
    "familymart",
    "lawson",
    "ministop",
    "seicomart",
    "seven_eleven",
];

const OK: &str = "sandbox_ok";
const DECLINED: &str = "sandbox_declined";
const CHALLENGE: &str = "sandbox_3ds";
const TIMEOUT: &str = "sandbox_timeout";
const LATE_OK: &str = "sandbox_late_ok";
const CAPTURE_FAILS: &str = "sandbox_capture_fails";
const TOKENS: [&str; 6] = [OK, DECLINED, CHALLENGE, TIMEOUT, LATE_OK, CAPTURE_FAILS];

/// The sandbox, with its book in a schema of its own. Cheap to clone.
#[derive(Clone)]
pub struct Sandbox {
    database: PgPool,
    clock: Arc<dyn Clock>,
}

/// What became of something a customer did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acted {
    /// It counts, now or from before.
    Done,
    /// There is nothing of that sort to do.
    NotAsked,
}

/// A notice that waits to be taken, as a provider's webhook would bring it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) id: i64,
    pub(crate) payment: Id<id::Payment>,
}

impl Sandbox {
    /// The sandbox over its own schema.
    pub fn new(database: PgPool, clock: Arc<dyn Clock>) -> Self {
        Self { database, clock }
    }

    /// Ends a 3-D Secure challenge as the customer's bank would.
    pub async fn complete_challenge(
        &self,
        payment: Id<id::Payment>,
        succeeded: bool,
    ) -> Result<Acted, Unknown> {
        let now = self.now();
        let mut tx = self.database.begin().await?;
        let Some(mut row) = book::lock_charge(&mut tx, payment).await? else {
            return Ok(Acted::NotAsked);
        };
        let is_challenge = row.ask.method.token == CHALLENGE;
        let again = if succeeded {
            Standing::Authorized
        } else {
            Standing::Failed
        };
        if is_challenge
            && (row.standing == again || row.standing == Standing::Captured && succeeded)
        {
            return Ok(Acted::Done);
        }
        if !is_challenge || row.standing != Standing::RequiresAction || now >= row.ask.expires_at {
            return Ok(Acted::NotAsked);
        }
        row.standing = again;
        if succeeded {
            book::write_entry(&mut tx, &row, Entry::Authorize, row.ask.amount, now).await?;
        } else {
            row.failure = Some("challenge_failed".to_owned());
        }
        book::save_charge(&mut tx, &row).await?;
        book::write_notice(&mut tx, payment, now).await?;
        tx.commit().await?;
        Ok(Acted::Done)
    }

    /// Pays a konbini slip as the customer would at the till.
    pub async fn pay_slip(&self, payment: Id<id::Payment>) -> Result<Acted, Unknown> {
        let now = self.now();
        let mut tx = self.database.begin().await?;
        let Some(mut row) = book::lock_charge(&mut tx, payment).await? else {
            return Ok(Acted::NotAsked);
        };
        if row.ask.method.kind != MethodKind::Konbini {
            return Ok(Acted::NotAsked);
        }
        match row.standing {
            Standing::Captured => return Ok(Acted::Done),
            Standing::RequiresAction if now < row.ask.expires_at => {}
            _ => return Ok(Acted::NotAsked),
        }
        row.take_all();
        book::save_charge(&mut tx, &row).await?;
        book::write_entry(&mut tx, &row, Entry::Capture, row.ask.amount, now).await?;
        book::write_notice(&mut tx, payment, now).await?;
        tx.commit().await?;
        Ok(Acted::Done)
    }

    /// The oldest notices that are due, at most `limit`.
    pub(crate) async fn notices(&self, limit: i64) -> Result<Vec<Notice>, Unknown> {
        let mut db = self.database.acquire().await?;
        book::due_notices(&mut db, self.now(), limit).await
    }

    /// A notice was taken and comes no more.
    pub(crate) async fn take_notice(&self, notice: Notice) -> Result<(), Unknown> {
        let mut db = self.database.acquire().await?;
        book::drop_notice(&mut db, notice.id).await
    }

    /// A notice could not be taken and comes again later.
    pub(crate) async fn put_off_notice(&self, notice: Notice) -> Result<(), Unknown> {
        let mut db = self.database.acquire().await?;
        let due_at = later(self.now(), NOTICE_AGAIN_SECS);
        book::put_off_notice(&mut db, notice.id, due_at).await
    }

    fn now(&self) -> Timestamp {
        time::to_micros(self.clock.now())
    }

    /// A charge that was written before, as it stands. Read behind the statement that left it alone, never in it: that
    /// one's snapshot may be older than what it waited for.
    async fn standing_charge(
        &self,
        db: &mut PgConnection,
        payment: Id<id::Payment>,
    ) -> Result<Charge, Unknown> {
        book::find_charge(db, payment)
            .await?
            .map(|row| self.charge(row))
            .ok_or_else(|| Unknown::because("there is no such charge"))
    }

    fn charge(&self, row: Row) -> Charge {
        let truth = if row.known_at > self.now() {
            Truth::Pending
        } else {
            match row.standing {
                Standing::RequiresAction => Truth::RequiresAction(action(&row.ask)),
                Standing::Authorized => Truth::Authorized,
                Standing::Captured => Truth::Captured,
                Standing::Failed => Truth::Failed {
                    reason: row.failure.unwrap_or_default(),
                },
                Standing::Voided => Truth::Voided,
            }
        };
        Charge {
            refunded: Money::new(row.refunded, row.ask.amount.currency),
            ask: row.ask,
            truth,
            created_at: row.created_at,
        }
    }
}

#[tonic::async_trait]
impl Provider for Sandbox {
    fn name(&self) -> &'static str {
        "sandbox"
    }

    async fn validate(&self, method: &Method) -> Result<MethodCheck, Unknown> {
        let token = method.token.as_str();
        Ok(match method.kind {
            MethodKind::Card if TOKENS.contains(&token) => MethodCheck::CanAuthorize,
            MethodKind::Konbini if STORES.contains(&token) => MethodCheck::CapturesAtOnce,
            MethodKind::Card | MethodKind::Konbini => MethodCheck::Invalid,
        })
    }

    async fn authorize(&self, ask: &Ask) -> Result<Charge, Unknown> {
        let now = self.now();
        let (standing, failure) = match ask.method.token.as_str() {
            DECLINED => (Standing::Failed, Some("card_declined")),
            CHALLENGE => (Standing::RequiresAction, None),
            _ if ask.method.kind == MethodKind::Konbini => (Standing::RequiresAction, None),
            _ => (Standing::Authorized, None),
        };
        let known_at = match ask.method.token.as_str() {
            LATE_OK => later(ask.expires_at, LATE_KNOWN_AFTER_SECS),
            _ => now,
        };
        let row = Row {
            failure: failure.map(str::to_owned),
            known_at,
            ..Row::new(ask.clone(), standing, now)
        };
        let mut db = self.database.acquire().await?;
        if book::write_charge(&mut db, &row).await? {
            return Ok(self.charge(row));
        }
        self.standing_charge(&mut db, ask.payment).await
    }

    async fn capture(&self, ask: &Ask) -> Result<Charge, Unknown> {
        let now = self.now();
        let token = ask.method.token.as_str();
        let known_at = match token {
            TIMEOUT => later(now, TIMEOUT_KNOWN_AFTER_SECS),
            _ => now,
        };
        let (to, failure, entry) = match token {
            CAPTURE_FAILS => (Standing::Failed, Some("capture_failed"), None),
            _ => (Standing::Captured, None, Some(Entry::Capture)),
        };
        let capture = Move {
            from: &[Standing::Authorized],
            to,
            failure,
            entry,
            known_at,
        };
        let mut db = self.database.acquire().await?;
        match book::move_charge(&mut db, ask.payment, &capture, now).await? {
            Some(_) if token == TIMEOUT => Err(Unknown::because("sandbox_timeout")),
            Some(row) => Ok(self.charge(row)),
            None => self.standing_charge(&mut db, ask.payment).await,
        }
    }

    async fn void(&self, ask: &Ask) -> Result<Charge, Unknown> {
        let now = self.now();
        let mut db = self.database.acquire().await?;
        let tombstone = Row::new(ask.clone(), Standing::Voided, now);
        if book::write_charge(&mut db, &tombstone).await? {
            return Ok(self.charge(tombstone));
        }
        let void = Move {
            from: &[Standing::RequiresAction, Standing::Authorized],
            to: Standing::Voided,
            failure: None,
            entry: Some(Entry::Void),
            known_at: now,
        };
        match book::move_charge(&mut db, ask.payment, &void, now).await? {
            Some(row) => Ok(self.charge(row)),
            None => self.standing_charge(&mut db, ask.payment).await,
        }
    }

    async fn refund(
        &self,
        ask: &Ask,
        refund: Id<id::Refund>,
        amount: Money,
    ) -> Result<RefundTruth, Unknown> {
        let now = self.now();
        let mut tx = self.database.begin().await?;
        let mut row = book::lock_charge(&mut tx, ask.payment)
            .await?
            .ok_or_else(|| Unknown::because("refund of a charge that is not there"))?;
        let known_at = match book::find_refund(&mut tx, refund).await? {
            Some(known_at) => known_at,
            None if amount.amount > row.captured - row.refunded => {
                return Ok(RefundTruth::Refused {
                    reason: "exceeds_captured".to_owned(),
                });
            }
            None => {
                let known_at = match row.ask.method.kind {
                    MethodKind::Card => now,
                    MethodKind::Konbini => later(now, SLIP_REFUND_KNOWN_AFTER_SECS),
                };
                row.refunded += amount.amount;
                book::save_charge(&mut tx, &row).await?;
                book::insert_refund(&mut tx, &row, refund, amount, now, known_at).await?;
                book::write_entry(&mut tx, &row, Entry::Refund, amount, now).await?;
                if known_at > now {
                    book::write_notice(&mut tx, ask.payment, known_at).await?;
                }
                tx.commit().await?;
                known_at
            }
        };
        Ok(if known_at > self.now() {
            RefundTruth::Pending
        } else {
            RefundTruth::Done
        })
    }

    async fn look(&self, payment: Id<id::Payment>) -> Result<Option<Charge>, Unknown> {
        let mut db = self.database.acquire().await?;
        let row = book::find_charge(&mut db, payment).await?;
        Ok(row.map(|row| self.charge(row)))
    }

    async fn made_between(
        &self,
        from: Timestamp,
        until: Timestamp,
        after: Option<(Timestamp, Id<id::Payment>)>,
        limit: i64,
    ) -> Result<Vec<Charge>, Unknown> {
        let mut db = self.database.acquire().await?;
        let rows = book::charges_between(&mut db, from, until, after, limit).await?;
        Ok(rows.into_iter().map(|row| self.charge(row)).collect())
    }
}

impl From<sqlx::Error> for Unknown {
    fn from(error: sqlx::Error) -> Self {
        Self::because(error)
    }
}

/// Ten digits, so that nobody takes them for a card number.
const CONFIRMATION_NUMBERS: u128 = 10_000_000_000;

fn action(ask: &Ask) -> NextAction {
    match ask.method.kind {
        MethodKind::Card => NextAction::Redirect {
            url: format!("https://sandbox.invalid/challenges/{}", ask.payment),
        },
        MethodKind::Konbini => NextAction::Slip {
            confirmation_number: format!(
                "{:010}",
                ask.payment.uuid().as_u128() % CONFIRMATION_NUMBERS
            ),
            store: ask.method.token.clone(),
            expires_at: ask.expires_at,
        },
    }
}

fn later(moment: Timestamp, secs: i64) -> Timestamp {
    moment
        .checked_add(SignedDuration::from_secs(secs))
        .unwrap_or(Timestamp::MAX)
}
