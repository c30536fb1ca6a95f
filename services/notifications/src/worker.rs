//! Hands mail over: asks users for the address, writes the letter, gives it to the post, and records what came of it.
//!
//! What was handed over and not recorded, because the process died between the two, is handed over again: the same letter
//! with the same Message-ID.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use hmac::{Hmac, KeyInit, Mac};
use holdfast_kernel::{Id, Language, id, time::to_micros};
use holdfast_platform::{
    database, failpoint,
    fault::{Fault, FaultCode},
    service::Context,
};
use lettre::{Address, message::Mailbox};
use sha2::Sha256;
use tokio::{
    sync::Notify,
    time::{self, Instant},
};

use crate::{
    Peers,
    domain::Outcome,
    error::NotificationsError,
    letter::Letter,
    people, points,
    post::{Post, Undelivered},
    store::{self, Claimed},
    texts::Texts,
};

/// How long after news the worker looks: the transaction that carries the news has to commit first.
const SETTLE_MILLIS: u64 = 15;
/// How often mail under way and given up is counted.
const MEASURE_SECS: u64 = 15;

/// What the worker stands on.
pub(crate) struct Desk {
    pub(crate) peers: Peers,
    pub(crate) context: Context,
    pub(crate) texts: Arc<Texts>,
    pub(crate) post: Box<dyn Post>,
    pub(crate) from: Mailbox,
    /// That of people who named none.
    pub(crate) language: Language,
    pub(crate) bell: Bell,
    pub(crate) pace: Pace,
    /// From 0 to 1.
    pub(crate) random: fn() -> f64,
}

/// How fast the worker goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Mails handed over at the same time.
    pub(crate) mails_max: usize,
    /// How long a mail is the worker's own.
    pub(crate) lease: Duration,
    /// How long handing one over may take.
    pub(crate) delivery: Duration,
    /// How often it looks by itself.
    pub(crate) poll: Duration,
}

/// Wakes the worker of this process. A hint: it may ring for nothing, and the worker looks by itself besides.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bell(Arc<Notify>);

/// How a person is reached. Personal: it is shown in no log.
struct Contact {
    address: Address,
    name: String,
    language: Language,
    /// The address as the list of suppressed ones knows it.
    blinded: Vec<u8>,
}

/// A mail on its way to an outcome.
struct Attempt {
    mail: Claimed,
    contact: Result<Contact, Outcome>,
}

impl Bell {
    pub(crate) fn ring(&self) {
        self.0.notify_one();
    }

    async fn rung(&self) {
        self.0.notified().await;
        time::sleep(Duration::from_millis(SETTLE_MILLIS)).await;
    }
}

/// Hands mail over until shutdown.
pub(crate) async fn work(desk: Desk) {
    let shutdown = desk.context.shutdown.clone();
    let mut measured = None;
    while !shutdown.is_cancelled() {
        if measured.is_none_or(|at: Instant| at.elapsed().as_secs() >= MEASURE_SECS) {
            measure(&desk).await;
            measured = Some(Instant::now());
        }
        match turn(&desk).await {
            // There may be more.
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(cause = %Fault::from(error), "cannot hand over mail that is due");
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = desk.bell.rung() => {}
            () = time::sleep(desk.pace.poll) => {}
        }
    }
}

/// Takes mails that are due, as many as go at once, and settles each. Says whether there may be more.
async fn turn(desk: &Desk) -> Result<bool, NotificationsError> {
    let mails = claim(desk).await?;
    if mails.is_empty() {
        return Ok(false);
    }
    let is_full = mails.len() == desk.pace.mails_max;
    let mut attempts = join_all(mails.into_iter().map(|mail| address(desk, mail))).await;
    leave_out_suppressed(desk, &mut attempts).await?;
    let tried = attempts.into_iter().map(|attempt| hand_over(desk, attempt));
    let ended = join_all(tried).await;
    settle(desk, ended).await?;
    Ok(is_full)
}

async fn claim(desk: &Desk) -> Result<Vec<Claimed>, NotificationsError> {
    let now = to_micros(desk.context.clock.now());
    let mut db = database::acquire(&desk.context.database).await?;
    // Most looks find nothing: one round trip for those.
    if !store::is_any_due(&mut db, now).await? {
        return Ok(Vec::new());
    }
    drop(db);
    let mut tx = database::begin(&desk.context.database).await?;
    let most = desk.pace.mails_max as i64;
    let mails = store::claim_due(&mut tx, most, desk.pace.lease, now).await?;
    failpoint::hit(points::CLAIM.0).await?;
    database::commit(tx).await?;
    failpoint::hit(points::CLAIM.1).await?;
    Ok(mails)
}

/// Finds out where a mail has to go.
async fn address(desk: &Desk, mail: Claimed) -> Attempt {
    let contact = contact(desk, mail.news.user).await;
    Attempt { mail, contact }
}

async fn contact(desk: &Desk, user: Id<id::User>) -> Result<Contact, Outcome> {
    let asked = people::profile(&desk.peers, &desk.context, user).await;
    let profile = asked.map_err(|fault| match fault.code() {
        FaultCode::NotFound => Outcome::NoAddress,
        _ if fault.is_transient() => Outcome::PutOff("users is away"),
        _ => Outcome::Failed(format!("users: {}", fault.reason())),
    })?;
    let address: Address = profile.email.parse().map_err(|_| Outcome::NoAddress)?;
    Ok(Contact {
        blinded: blind(desk, &profile.email),
        language: people::language(&profile).unwrap_or(desk.language),
        address,
        name: profile.name,
    })
}

/// The address as only this installation can recognize it.
fn blind(desk: &Desk, address: &str) -> Vec<u8> {
    let key = desk.context.secrets.key("suppressed mail addresses");
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes keys of any length");
    mac.update(address.trim().to_lowercase().as_bytes());
    mac.finalize().into_bytes().to_vec()
}

async fn leave_out_suppressed(
    desk: &Desk,
    attempts: &mut [Attempt],
) -> Result<(), NotificationsError> {
    let known = |attempt: &Attempt| Some(attempt.contact.as_ref().ok()?.blinded.clone());
    let blinded: Vec<Vec<u8>> = attempts.iter().filter_map(known).collect();
    if blinded.is_empty() {
        return Ok(());
    }
    let mut db = database::acquire(&desk.context.database).await?;
    let suppressed = store::suppressed(&mut db, &blinded).await?;
    for attempt in attempts {
        if known(attempt).is_some_and(|blinded| suppressed.contains(&blinded)) {
            attempt.contact = Err(Outcome::Suppressed);
        }
    }
    Ok(())
}

/// Writes the letter and gives it to the post. Returns what came of it, and to whom it went.
async fn hand_over(desk: &Desk, attempt: Attempt) -> (Claimed, Outcome, Option<Contact>) {
    let Attempt { mail, contact } = attempt;
    let contact = match contact {
        Ok(contact) => contact,
        Err(outcome) => return (mail, outcome, None),
    };
    let outcome = match write(desk, &mail, &contact) {
        Err(error) => {
            tracing::error!(notification = %mail.news.id, cause = %error, "a letter cannot be written");
            Outcome::Failed("the letter cannot be written".to_owned())
        }
        Ok(letter) => match time::timeout(desk.pace.delivery, desk.post.deliver(&letter)).await {
            Ok(Ok(())) => Outcome::Sent,
            Ok(Err(Undelivered::NoSuchAddress(note))) => Outcome::Bounced(note),
            Ok(Err(Undelivered::Refused(note))) => Outcome::Refused(note),
            Ok(Err(Undelivered::Later(note))) => Outcome::Failed(note),
            Err(_) => Outcome::Failed("took too long".to_owned()),
        },
    };
    (mail, outcome, Some(contact))
}

fn write(
    desk: &Desk,
    mail: &Claimed,
    contact: &Contact,
) -> Result<Letter, Box<dyn std::error::Error + Send + Sync>> {
    let news = &mail.news;
    let text = (desk.texts).tell(contact.language, news.kind, &news.facts)?;
    let page = (desk.texts).letter(contact.language, text, &contact.name)?;
    let to = contact.address.clone();
    let letter = Letter::write(news.id, news.happened_at, &desk.from, to, page)?;
    Ok(letter)
}

/// Records what came of each, and whom not to write to any more.
async fn settle(
    desk: &Desk,
    ended: Vec<(Claimed, Outcome, Option<Contact>)>,
) -> Result<(), NotificationsError> {
    let now = to_micros(desk.context.clock.now());
    let mut bounced = Vec::new();
    let mut settled = Vec::with_capacity(ended.len());
    for (mail, outcome, contact) in ended {
        if let (Outcome::Bounced(note), Some(contact)) = (&outcome, contact) {
            bounced.push((contact.blinded, note.clone()));
        }
        let stands = outcome.settle(mail.tries, now, (desk.random)());
        metrics::counter!("holdfast_mail_tries", "outcome" => stands.state.as_str()).increment(1);
        settled.push((mail.news.id, mail.epoch, stands));
    }
    let mut tx = database::begin(&desk.context.database).await?;
    store::settle(&mut tx, &settled, now).await?;
    for (blinded, note) in bounced {
        store::suppress(&mut tx, &blinded, &note, now).await?;
    }
    failpoint::hit(points::SETTLE.0).await?;
    database::commit(tx).await?;
    failpoint::hit(points::SETTLE.1).await?;
    Ok(())
}

async fn measure(desk: &Desk) {
    let measured = async {
        let mut db = database::acquire(&desk.context.database).await?;
        Ok::<_, NotificationsError>(store::measure(&mut db).await?)
    };
    match measured.await {
        Ok(figures) => {
            metrics::gauge!("holdfast_mails_waiting").set(figures.waiting as f64);
            metrics::gauge!("holdfast_mails_dead").set(figures.dead as f64);
        }
        Err(error) => tracing::warn!(cause = %Fault::from(error), "cannot count mail"),
    }
}
