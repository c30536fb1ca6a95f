//! A mail as it travels: headers and the two forms of its text.

use std::fmt;

use holdfast_kernel::{Id, Timestamp, id};
use lettre::{
    Address, Message,
    address::Envelope,
    message::{
        Mailbox, MultiPart, MultiPartKind, SinglePart,
        header::{Header, HeaderName, HeaderValue},
    },
};

use crate::texts::Page;

/// A mail, ready to be handed over. Personal: it is shown in no log.
pub(crate) struct Letter {
    pub(crate) id: Id<id::Notification>,
    pub(crate) happened_at: Timestamp,
    pub(crate) envelope: Envelope,
    pub(crate) bytes: Vec<u8>,
}

/// Why there can be no letter.
#[derive(Debug, thiserror::Error)]
#[error("a letter cannot be written: {0}")]
pub(crate) struct Unwritten(#[from] lettre::error::Error);

impl Letter {
    /// The letter of a notification: the same bytes whenever it is written for the same words and people, with the same
    /// Message-ID by which a mail box drops the second of two.
    pub(crate) fn write(
        id: Id<id::Notification>,
        happened_at: Timestamp,
        from: &Mailbox,
        to: Address,
        page: Page,
    ) -> Result<Self, Unwritten> {
        let parts = MultiPart::builder()
            .kind(MultiPartKind::Alternative)
            .boundary(id.to_string())
            .singlepart(SinglePart::plain(page.text))
            .singlepart(SinglePart::html(page.html));
        let message = Message::builder()
            .from(from.clone())
            .to(Mailbox::new(None, to))
            .subject(page.subject)
            .date(happened_at.into())
            .message_id(Some(format!("<{id}@{}>", from.email.domain())))
            .header(AutoSubmitted)
            .multipart(parts)?;
        Ok(Self {
            id,
            happened_at,
            envelope: message.envelope().clone(),
            bytes: message.formatted(),
        })
    }
}

impl fmt::Debug for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Letter")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Tells other machines not to answer (RFC 3834), so that no two of them write to each other for ever.
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(subject: &str) -> String {
        let from: Mailbox = "Holdfast <no-reply@holdfast.example>"
            .parse()
            .expect("a mailbox");
        let page = Page {
            subject: subject.to_owned(),
            text: "承りました".to_owned(),
            html: "<p>承りました</p>".to_owned(),
        };
        let to = "hanako@holdfast.example".parse().expect("an address");
        let written = Letter::write(
            Id::new(uuid::Uuid::nil()),
            Timestamp::UNIX_EPOCH,
            &from,
            to,
            page,
        );
        String::from_utf8(written.expect("a letter").bytes).expect("mail is ASCII")
    }

    #[test]
    fn a_letter_written_twice_is_the_same_to_the_byte() {
        let letter = letter("ご注文を承りました");
        assert_eq!(letter, self::letter("ご注文を承りました"));
        for header in [
            "Message-ID: <ntf_00000000000000000000000000@holdfast.example>\r\n",
            "Date: Thu, 01 Jan 1970 00:00:00 +0000\r\n",
            "To: hanako@holdfast.example\r\n",
            "Auto-Submitted: auto-generated\r\n",
            "multipart/alternative",
            "Subject: =?utf-8?b?",
        ] {
            assert!(letter.contains(header), "{header:?} is not in\n{letter}");
        }
    }

    #[test]
    fn a_subject_begins_no_header_of_its_own() {
        let letter = letter("Hello\r\nBcc: all@holdfast.example");
        let bcc = letter.lines().find(|line| line.starts_with("Bcc"));
        assert_eq!(bcc, None, "{letter}");
    }
}
