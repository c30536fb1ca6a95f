//! How services call each other: one client type, whether the callee sits in this process or at the end of a wire.
//!
//! A generated client is made over a [`Transport`]. Where the call goes is decided later, when the process is put
//! together: a [`Slot`] is filled either with a [`Door`] (the callee is in this process) or with a [`Channel`] (it is
//! not). The same `Door` answers both kinds of caller, so both get the same answers:
//!
//! | situation | answer, in process and over TCP |
//! |---|---|
//! | the deadline passes | `DeadlineExceeded`; the handler is dropped |
//! | the caller goes away | the handler is dropped; work that must outlive a call is spawned |
//! | the handler panics | `Internal`, without the panic's text; caller and callee live on |
//! | the callee has [`DOOR_MAX_CALLS`] calls in hand | `Unavailable`, at once |
//! | a message above [`MESSAGE_MAX_BYTES`] | `OutOfRange` |
//! | the callee cannot be reached, or breaks off | `Unavailable`, without addresses |
//! | metadata above 64 KiB | a request: `ResourceExhausted`; an answer: its details are dropped, its code stays |
//! | anything in http extensions | stays behind: only metadata crosses |
//! | the call is made in a [trace](crate::telemetry::trace) | the handler works in it, one step on |
//!
//! A caller that sets no deadline gets [`DEADLINE_DEFAULT_SECS`]. A call made while serving another never outlasts
//! it: what remains of the outer deadline bounds the inner one. Streams that have no natural end are asked for with
//! [`open_ended`].

mod body;
mod deadline;
mod door;
mod metadata;
mod server;
mod slot;

use http::{Request, Response};
use tonic::{Status, body::Body};
use tower::util::BoxCloneSyncService;

pub use self::{
    deadline::{DEADLINE_DEFAULT_SECS, keep_open, open_ended},
    door::{DOOR_MAX_CALLS, Door},
    server::{ServeError, serve_tcp},
    slot::{PeerAddressError, Slot, channel},
};
#[doc(no_inline)]
pub use tonic::{service::Routes, transport::Channel};

/// What every generated client is made over.
///
/// `Sync`, so a client may sit in shared state; its error is [`Status`], because a boxed error cannot be named by the
/// `Send` future of a streaming call.
pub type Transport = BoxCloneSyncService<Request<Body>, Response<Body>, Status>;

/// The largest message either side decodes, 4 MiB: tonic's own limit, the same on both paths.
pub const MESSAGE_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Returns a transport to a callee in this process.
pub fn local(door: Door) -> Transport {
    let slot = Slot::new(door.name());
    slot.fill_local(door);
    slot.transport()
}

/// Returns a transport to the callee `peer` at the other end of `channel`.
pub fn remote(peer: &'static str, channel: Channel) -> Transport {
    let slot = Slot::new(peer);
    slot.fill_remote(channel);
    slot.transport()
}
