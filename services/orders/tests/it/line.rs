//! The line to a peer: breaks off as told, and counts what went over it.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::sync::Notify;
use tonic::{Response, Status};

/// What happens to a call on its way to the peer or back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    /// The peer never hears of it.
    OnTheWay,
    /// The peer does it, and its answer is lost.
    OnTheWayBack,
    /// It hangs before the peer hears of it, until whoever calls is gone.
    HangsOnTheWay,
    /// The peer does it, and the answer hangs until whoever calls is gone.
    HangsOnTheWayBack,
    /// The peer does it, and the answer waits until the test says go on.
    Paused,
    /// It waits until the test says go on, and then reaches the peer.
    PausedOnTheWay,
    /// The peer does it, and the answer waits until the test says go on, and is then lost.
    PausedAndLost,
}

#[derive(Clone, Default)]
pub(crate) struct Line(Arc<State>);

#[derive(Default)]
struct State {
    /// Call, how, and how often still.
    breaks: Mutex<Vec<(&'static str, Break, usize)>>,
    calls: Mutex<Vec<&'static str>>,
    hangs: Notify,
    go_on: Notify,
    paused: AtomicUsize,
}

impl Line {
    /// The next call of that name breaks off.
    pub(crate) fn breaks(&self, call: &'static str, how: Break) {
        self.breaks_often(call, how, 1);
    }

    /// The next calls of that name break off.
    pub(crate) fn breaks_often(&self, call: &'static str, how: Break, times: usize) {
        let mut breaks = self.0.breaks.lock().expect("held briefly");
        breaks.push((call, how, times));
    }

    /// Whole again.
    pub(crate) fn mend(&self) {
        self.0.breaks.lock().expect("held briefly").clear();
    }

    /// How often the peer was called so.
    pub(crate) fn count(&self, call: &str) -> usize {
        let calls = self.0.calls.lock().expect("held briefly");
        calls.iter().filter(|made| **made == call).count()
    }

    /// Waits until a call hangs.
    pub(crate) async fn hangs(&self) {
        self.0.hangs.notified().await;
    }

    /// Lets the paused call go on.
    pub(crate) fn go_on(&self) {
        self.0.go_on.notify_one();
    }

    /// How many calls are paused.
    pub(crate) fn paused(&self) -> usize {
        self.0.paused.load(Relaxed)
    }

    async fn pause(&self) {
        self.0.paused.fetch_add(1, Relaxed);
        self.0.hangs.notify_one();
        self.0.go_on.notified().await;
        self.0.paused.fetch_sub(1, Relaxed);
    }

    pub(crate) async fn over<T>(
        &self,
        call: &'static str,
        act: impl FnOnce() -> Result<T, Status>,
    ) -> Result<Response<T>, Status> {
        self.0.calls.lock().expect("held briefly").push(call);
        let how = {
            let mut breaks = self.0.breaks.lock().expect("held briefly");
            let found = breaks
                .iter_mut()
                .find(|(named, _, left)| *named == call && *left > 0);
            found.map(|(_, how, left)| {
                *left -= 1;
                *how
            })
        };
        let gone = || Status::unavailable("the line broke");
        match how {
            None => act().map(Response::new),
            Some(Break::OnTheWay) => Err(gone()),
            Some(Break::OnTheWayBack) => {
                act()?;
                Err(gone())
            }
            Some(Break::Paused) => {
                let answer = act();
                self.pause().await;
                answer.map(Response::new)
            }
            Some(Break::PausedAndLost) => {
                act()?;
                self.pause().await;
                Err(gone())
            }
            Some(Break::PausedOnTheWay) => {
                self.pause().await;
                act().map(Response::new)
            }
            Some(hang) => {
                if hang == Break::HangsOnTheWayBack {
                    act().ok();
                }
                self.0.hangs.notify_one();
                std::future::pending().await
            }
        }
    }
}
