//! The answer while it is on its way: what holds for a call's head holds for its stream.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body};

use super::{deadline, metadata};
use crate::telemetry::trace::Trace;

/// An answer that ends with a gRPC status, whatever happens to what makes it: a passed deadline, a panic, a broken
/// connection. It holds on to its source until then.
pub(super) struct Answer<S> {
    inner: Body,
    until: Until,
    // Made when the stream first waits: an answer that is already there needs no timer.
    cut: Option<Pin<Box<dyn Future<Output = Status> + Send>>>,
    source: S,
    // The rest of a stream is made outside of the call that began it, and stays part of its trace.
    trace: Option<Trace>,
    ended: bool,
}

/// What an answer comes from.
pub(super) trait Source: Send + Unpin + 'static {
    /// Says what the reader is told when the stream broke with `fault`.
    fn broke_off(&self, fault: Status) -> Status {
        fault
    }
}

impl Source for () {}

/// When an answer is cut off that has not ended by itself.
pub(super) enum Until {
    /// The deadline of its call, if it has one.
    Deadline(Option<Instant>),
    /// The closing of the server it goes through.
    Closing(CancellationToken),
}

impl<S: Source> Answer<S> {
    /// Guards `inner`, in the trace that this is called in.
    pub(super) fn guard(inner: Body, until: Until, source: S) -> Body {
        Body::new(Self {
            inner,
            until,
            cut: None,
            source,
            trace: Trace::current(),
            ended: false,
        })
    }

    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let inner = Pin::new(&mut self.inner);
        let step = || match self.until {
            Until::Deadline(deadline) => deadline::serving_step(deadline, || inner.poll_frame(cx)),
            Until::Closing(_) => inner.poll_frame(cx),
        };
        match self.trace {
            Some(trace) => trace.scope_sync(step),
            None => step(),
        }
    }

    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        let cut = match &self.until {
            Until::Deadline(None) => return Poll::Pending,
            Until::Deadline(Some(deadline)) => {
                let deadline = *deadline;
                self.cut
                    .get_or_insert_with(|| Box::pin(deadline::elapsed(deadline)))
            }
            Until::Closing(closing) => self.cut.get_or_insert_with(|| {
                let closing = closing.clone();
                Box::pin(async move {
                    closing.cancelled().await;
                    Status::unavailable("the callee is shutting down")
                })
            }),
        };
        cut.as_mut().poll(cx)
    }

    /// Ends the stream here and lets go of whatever was making it.
    fn end_with(&mut self, status: &Status) -> Frame<Bytes> {
        self.ended = true;
        self.inner = Body::empty();
        Frame::trailers(metadata::of_status(status))
    }
}

impl<S: Source> http_body::Body for Answer<S> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let polled = catch_unwind(AssertUnwindSafe(|| this.poll_inner(cx)));
        let status = match polled {
            Ok(Poll::Pending) => ready!(this.poll_cut(cx)),
            Ok(Poll::Ready(Some(Err(fault)))) => this.source.broke_off(fault),
            Ok(going_on) => return going_on.map_ok(metadata::fit_trailers),
            Err(_panic) => super::door::panicked(),
        };
        Poll::Ready(Some(Ok(this.end_with(&status))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
