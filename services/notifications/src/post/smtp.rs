//! A mail server, spoken to over SMTP.

use std::{error::Error as _, time::Duration};

use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor, transport::smtp::Error};

use super::{Post, Undelivered};
use crate::letter::Letter;

/// Sends each letter over a connection of its own: one on which a server fell silent cannot hold up the next letter.
pub(crate) struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
}

/// Replies that speak of the recipient's mail box where the server gives no enhanced status code (RFC 5321, 4.2.3).
const MAILBOX_CODES: [&str; 3] = ["550", "551", "553"];
/// Enhanced status codes (RFC 3463) of an address that is none, and of a mail box that is closed.
const MAILBOX_STATUSES: [&str; 2] = ["5.1.", "5.2.1"];

impl Smtp {
    /// The server that a URL such as `smtps://user:password@mail.example:465` names. Connects to nobody yet.
    pub(crate) fn open(url: &str, timeout: Duration) -> Result<Self, Error> {
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(url)?
            .timeout(Some(timeout))
            .build();
        Ok(Self { transport })
    }
}

#[tonic::async_trait]
impl Post for Smtp {
    async fn deliver(&self, letter: &Letter) -> Result<(), Undelivered> {
        let sent = self
            .transport
            .send_raw(&letter.envelope, &letter.bytes)
            .await;
        sent.map(drop).map_err(|error| undelivered(&error))
    }
}

fn undelivered(error: &Error) -> Undelivered {
    let Some(code) = error.status() else {
        let note = if error.is_timeout() {
            "mail server: time-out"
        } else if error.is_tls() {
            "mail server: TLS"
        } else {
            "mail server: no connection, or a broken one"
        };
        return Undelivered::Later(note.to_owned());
    };
    let code = code.to_string();
    // The reply's text may repeat the address; of it only the status is kept.
    let reply = error.source().map(ToString::to_string).unwrap_or_default();
    classify(&code, status_in(&reply), error.is_permanent())
}

fn classify(code: &str, status: Option<&str>, is_permanent: bool) -> Undelivered {
    let note = match status {
        Some(status) => format!("mail server: {code} {status}"),
        None => format!("mail server: {code}"),
    };
    let is_of_mailbox = match status {
        Some(status) => MAILBOX_STATUSES
            .iter()
            .any(|prefix| status.starts_with(prefix)),
        None => MAILBOX_CODES.contains(&code),
    };
    match (is_permanent, is_of_mailbox) {
        (true, true) => Undelivered::NoSuchAddress(note),
        (true, false) => Undelivered::Refused(note),
        (false, _) => Undelivered::Later(note),
    }
}

/// The enhanced status code that a reply begins with: `5.1.1`.
fn status_in(reply: &str) -> Option<&str> {
    let status = reply.split_whitespace().next()?;
    let is_number =
        |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    let mut parts = status.split('.');
    let three = [parts.next()?, parts.next()?, parts.next()?];
    (parts.next().is_none() && three.into_iter().all(is_number)).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_replies_that_speak_of_the_mail_box_condemn_the_address() {
        let note = |text: &str| format!("mail server: {text}");
        let table = [
            (
                "550",
                "5.1.1 no such user",
                true,
                Undelivered::NoSuchAddress(note("550 5.1.1")),
            ),
            (
                "550",
                "No such user here",
                true,
                Undelivered::NoSuchAddress(note("550")),
            ),
            (
                "550",
                "5.7.1 looks like spam",
                true,
                Undelivered::Refused(note("550 5.7.1")),
            ),
            (
                "554",
                "5.2.1 mailbox disabled",
                true,
                Undelivered::NoSuchAddress(note("554 5.2.1")),
            ),
            (
                "552",
                "message too big",
                true,
                Undelivered::Refused(note("552")),
            ),
            (
                "450",
                "4.2.1 greylisted",
                false,
                Undelivered::Later(note("450 4.2.1")),
            ),
            (
                "451",
                "1.2.3.4 is busy",
                false,
                Undelivered::Later(note("451")),
            ),
        ];
        for (code, reply, is_permanent, wanted) in table {
            assert_eq!(
                classify(code, status_in(reply), is_permanent),
                wanted,
                "{code} {reply}"
            );
        }
    }
}
