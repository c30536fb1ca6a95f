//! What metadata a call carries beside its caller's: its trace; and how much: what a wire takes, in process too.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use tonic::{Code, Status};

use crate::telemetry::trace::{TRACEPARENT, Trace};

/// The most metadata a call or its answer carries, error details included; as HTTP/2 counts.
pub(super) const METADATA_MAX_BYTES: usize = 64 * 1024;

/// The same for the wire's own limit, with room for what HTTP adds.
pub(super) const WIRE_MAX_BYTES: u32 = 72 * 1024;

/// What HTTP/2 counts for an entry beside its text.
const ENTRY_BYTES: usize = 32;

/// Makes an outgoing call part of the trace in which it is made, or of none.
pub(super) fn trace(headers: &mut HeaderMap) {
    match Trace::current() {
        None => headers.remove(TRACEPARENT),
        Some(trace) => headers.insert(TRACEPARENT, trace.to_header()),
    };
}

/// Refuses an outgoing call whose metadata no wire would take.
pub(super) fn check(headers: &HeaderMap) -> Result<(), Status> {
    let got = size(headers);
    if got > METADATA_MAX_BYTES {
        return Err(Status::resource_exhausted(format!(
            "metadata of the call: got {got} bytes, want {METADATA_MAX_BYTES} at most"
        )));
    }
    Ok(())
}

/// Cuts an answer's metadata down to what a wire takes: first its error details go, then all but its status.
///
/// The code decides what the caller does, so it arrives whatever else does not.
pub(super) fn fit(headers: &mut HeaderMap) {
    if size(headers) <= METADATA_MAX_BYTES {
        return;
    }
    tracing::warn!(
        bytes = size(headers),
        "metadata of an answer is too large; details dropped"
    );
    headers.remove("grpc-status-details-bin");
    if size(headers) <= METADATA_MAX_BYTES {
        return;
    }
    let kept = ["content-type", "grpc-status"].map(|name| (name, headers.remove(name)));
    headers.clear();
    for (name, value) in kept {
        value.map(|value| headers.insert(name, value));
    }
}

/// The same for the end of a stream.
pub(super) fn fit_trailers(mut frame: Frame<Bytes>) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        fit(trailers);
    }
    frame
}

/// A status as the end of a stream.
pub(super) fn of_status(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // Its text cannot be sent; its code can.
        trailers.clear();
        trailers.insert("grpc-status", code(status.code()));
    }
    trailers
}

fn code(code: Code) -> HeaderValue {
    HeaderValue::from(i32::from(code))
}

fn size(headers: &HeaderMap) -> usize {
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + ENTRY_BYTES)
        .sum()
}
