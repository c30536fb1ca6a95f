//! What travels on the bus: news of one aggregate, in the envelope of CloudEvents 1.0.

use holdfast_kernel::{RequestId, Timestamp};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use uuid::Uuid;

/// A stream of messages about one sort of aggregate, announced by one service.
///
/// The announcing service and each listener declare it alike, as a constant beside their messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topic {
    name: &'static str,
    kind: TopicKind,
}

/// What the versions of a key promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicKind {
    /// Each message tells one change; versions of a key rise by one from 1, and a missing one is waited for.
    Ordinary,
    /// Each message tells the whole present state; versions rise with gaps, and only the newest matters.
    State,
}

/// One piece of news.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The same for the same piece of news, however often it is sent.
    pub id: Uuid,
    /// The stream it is part of: `holdfast.orders`.
    pub topic: String,
    /// The prefixed id of the aggregate it tells of.
    pub key: String,
    /// The aggregate's version that the change made.
    pub version: i64,
    /// What happened: `order.created`.
    pub kind: String,
    /// When it happened.
    pub at: Timestamp,
    /// The trace it belongs to, as W3C writes it.
    pub traceparent: Option<String>,
    /// The rest; ids, never personal data.
    pub data: Value,
}

/// An envelope that is no message.
#[derive(Debug, thiserror::Error)]
pub enum InvalidMessage {
    /// It is no JSON object with a message's attributes.
    #[error("message is not a CloudEvent of ours: {0}")]
    Shape(#[from] serde_json::Error),
    /// An attribute has a value that it cannot have.
    #[error("message attribute {attribute} is {got:?}, wanted {wanted}")]
    Attribute {
        /// Its name in the envelope.
        attribute: &'static str,
        /// Its value, cut short.
        got: String,
        /// What it may be.
        wanted: &'static str,
    },
}

/// Longest envelope, in bytes: what Kafka takes by default, with room for its headers.
pub const ENVELOPE_MAX_BYTES: usize = 900 * 1024;
/// Longest part of a refused value that an error repeats, in characters.
const SHOWN_CHARS: usize = 64;
const SPEC_VERSION: &str = "1.0";
const CONTENT_TYPE: &str = "application/json";

impl Topic {
    /// A topic whose messages each tell one change.
    pub const fn ordinary(name: &'static str) -> Self {
        let kind = TopicKind::Ordinary;
        Self { name, kind }
    }

    /// A topic whose messages each tell the whole present state of their key.
    pub const fn state(name: &'static str) -> Self {
        let kind = TopicKind::State;
        Self { name, kind }
    }

    /// `holdfast.orders`.
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// What the versions of a key promise.
    pub const fn kind(self) -> TopicKind {
        self.kind
    }
}

impl Message {
    /// The id of what `key` of `topic` tells at `version`: the same whenever it is asked for.
    pub fn id_of(topic: &str, key: &str, version: i64) -> Uuid {
        RequestId::derive(&["message", topic, key, &version.to_string()]).uuid()
    }

    /// The message as one JSON object, as it lies on the bus.
    ///
    /// The extension `version` is a text, because integers of CloudEvents end at 2³¹.
    pub fn to_envelope(&self) -> String {
        let envelope = Envelope {
            specversion: SPEC_VERSION.to_owned(),
            id: self.id,
            source: self.topic.clone(),
            kind: self.kind.clone(),
            subject: self.key.clone(),
            time: self.at,
            datacontenttype: CONTENT_TYPE.to_owned(),
            version: self.version.to_string(),
            traceparent: self.traceparent.clone(),
            data: self.data.clone(),
        };
        serde_json::to_string(&envelope).expect("texts, a number and JSON values can be written")
    }

    /// Reads what [`to_envelope`](Self::to_envelope) wrote; attributes it does not know are passed over.
    pub fn from_envelope(envelope: &str) -> Result<Self, InvalidMessage> {
        let envelope: Envelope = serde_json::from_str(envelope)?;
        let refused = |attribute, got: &str, wanted| InvalidMessage::Attribute {
            attribute,
            got: got.chars().take(SHOWN_CHARS).collect(),
            wanted,
        };
        if envelope.specversion != SPEC_VERSION {
            return Err(refused("specversion", &envelope.specversion, "1.0"));
        }
        let version = envelope.version.parse().ok().filter(|version| *version > 0);
        Ok(Self {
            version: version.ok_or_else(|| {
                refused(
                    "version",
                    &envelope.version,
                    "a whole number from 1, as a text",
                )
            })?,
            id: envelope.id,
            topic: envelope.source,
            key: envelope.subject,
            kind: envelope.kind,
            at: envelope.time,
            traceparent: envelope.traceparent,
            data: envelope.data,
        })
    }

    /// The data as the listener's own type for it, which names only the fields it needs.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&self.data)
    }
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    specversion: String,
    id: Uuid,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    subject: String,
    time: Timestamp,
    datacontenttype: String,
    version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    data: Value,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paid() -> Message {
        Message {
            id: Message::id_of("holdfast.orders", "ord_1", 3),
            topic: "holdfast.orders".to_owned(),
            key: "ord_1".to_owned(),
            version: 3,
            kind: "order.paid".to_owned(),
            at: "2026-12-01T09:30:00.25Z".parse().expect("a moment"),
            traceparent: None,
            data: serde_json::json!({ "total": 1250 }),
        }
    }

    #[test]
    fn a_message_reads_back_as_it_was_written_in_the_envelope_of_cloudevents() {
        let mut message = paid();
        message.traceparent =
            Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
        let envelope = message.to_envelope();
        assert_eq!(
            Message::from_envelope(&envelope).expect("just written"),
            message
        );
        let json: Value = serde_json::from_str(&envelope).expect("JSON");
        assert_eq!(json["specversion"], "1.0");
        assert_eq!(json["type"], "order.paid");
        assert_eq!(json["source"], "holdfast.orders");
        assert_eq!(json["subject"], "ord_1");
        assert_eq!(json["time"], "2026-12-01T09:30:00.25Z");
        assert_eq!(json["version"], "3");
    }

    #[test]
    fn what_is_no_message_is_refused_naming_the_attribute() {
        let envelope = paid().to_envelope();
        for (from, to, named) in [
            (
                r#""specversion":"1.0""#,
                r#""specversion":"0.3""#,
                "specversion",
            ),
            (r#""version":"3""#, r#""version":"0""#, "version"),
            (r#""version":"3""#, r#""version":"new""#, "version"),
            (r#""subject":"ord_1","#, "", "subject"),
            (r#"{"spec"#, r#"["spec"#, "CloudEvent"),
        ] {
            assert!(envelope.contains(from), "{envelope}");
            let refused = Message::from_envelope(&envelope.replace(from, to)).expect_err(to);
            assert!(refused.to_string().contains(named), "{refused}");
        }
    }

    #[test]
    fn the_same_news_has_the_same_id_and_other_news_another() {
        let id = Message::id_of("holdfast.orders", "ord_1", 3);
        assert_eq!(id, paid().id);
        assert_ne!(id, Message::id_of("holdfast.orders", "ord_1", 4));
        assert_ne!(id, Message::id_of("holdfast.orders", "ord_2", 3));
        assert_ne!(id, Message::id_of("holdfast.bookings", "ord_1", 3));
    }
}
