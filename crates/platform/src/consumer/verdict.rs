//! What becomes of a message, by its version and what is known of its key.

use crate::{message::TopicKind, parking::Cause};

/// What is known of a key before a message of it is judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct KeyState {
    /// The last version that took effect.
    pub(crate) version: Option<i64>,
    /// Why messages of it lie parked, the graver cause first.
    pub(crate) blocked: Option<Cause>,
}

/// What to do with an arriving message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Handle,
    Drop,
    Gap { expected: i64 },
    Behind,
}

/// Judges a message by its version. `knows_every_key` says whether a key without a state was surely never seen.
pub(crate) fn judge(
    kind: TopicKind,
    version: i64,
    state: KeyState,
    knows_every_key: bool,
) -> Verdict {
    match state.version {
        Some(last) if version <= last => return Verdict::Drop,
        _ => {}
    }
    let expected = match state.version {
        Some(last) => last + 1,
        None if knows_every_key => 1,
        None => version,
    };
    match (kind, state.blocked) {
        (_, Some(Cause::Fault | Cause::Behind)) => Verdict::Behind,
        (TopicKind::Ordinary, _) if version != expected => Verdict::Gap { expected },
        _ => Verdict::Handle,
    }
}
