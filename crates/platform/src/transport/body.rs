//! The answer while it is on its way: what holds for a call's head holds for its stream.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tonic::{Status, body::Body};

use super::deadline;

/// An answer that ends with a gRPC status, whatever happens to what makes it: a passed deadline, a panic, a broken
/// connection. `T` is what it holds on to until then.
pub(super) struct Answer<T> {
    inner: Body,
    deadline: Option<Instant>,
    // Made when the stream first waits: an answer that is already there needs no timer.
    timer: Option<Pin<Box<Sleep>>>,
    on_fault: fn(&T, Status) -> Status,
    held: T,
    ended: bool,
}

impl<T: Send + Unpin + 'static> Answer<T> {
    /// Guards `inner`. `on_fault` turns what broke the stream into what the reader is told.
    pub(super) fn guard(
        inner: Body,
        deadline: Option<Instant>,
        held: T,
        on_fault: fn(&T, Status) -> Status,
    ) -> Body {
        Body::new(Self {
            inner,
            deadline,
            timer: None,
            on_fault,
            held,
            ended: false,
        })
    }

    fn deadline_passed(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.deadline else {
            return false;
        };
        self.timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)))
            .as_mut()
            .poll(cx)
            .is_ready()
    }

    /// Ends the stream here and lets go of whatever was making it.
    fn end_with(&mut self, status: &Status) -> Frame<Bytes> {
        self.ended = true;
        self.inner = Body::empty();
        let mut trailers = HeaderMap::new();
        if status.add_header(&mut trailers).is_err() {
            trailers.clear();
            trailers.insert("grpc-status", (tonic::Code::Internal as i32).into());
        }
        Frame::trailers(trailers)
    }
}

impl<T: Send + Unpin + 'static> http_body::Body for Answer<T> {
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
        let polled = catch_unwind(AssertUnwindSafe(|| {
            deadline::serving_step(this.deadline, || Pin::new(&mut this.inner).poll_frame(cx))
        }));
        let status = match polled {
            Ok(Poll::Pending) if this.deadline_passed(cx) => deadline::passed(),
            Ok(Poll::Ready(Some(Err(fault)))) => (this.on_fault)(&this.held, fault),
            Ok(going_on) => return going_on,
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
