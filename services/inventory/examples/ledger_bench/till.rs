//! The ways of taking what can run out, each behind the same three calls.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use holdfast_inventory::{
    domain::{Commit, HoldId, Name, Refusal, Release, Reserve},
    ledger::{Ledger, LedgerOptions},
};
use holdfast_kernel::RequestId;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    ground::Field,
    load::{self, Want},
    one_statement, row_locks,
    row_locks::End,
    sessions::{CONNECTIONS, Sessions},
};

/// Longer than any run: nothing expires.
const TTL: Duration = Duration::from_hours(1);
const LEASE: Duration = Duration::from_secs(4);
/// Keys that one look asks for.
const LOOK_MAX_KEYS: usize = 1_000;

/// How units are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    RowLocks,
    OneStatement,
    GroupCommit,
}

/// A way at work on a database.
pub(crate) enum Till {
    RowLocks(Sessions<row_locks::Session>),
    OneStatement(Sessions<one_statement::Session>),
    GroupCommit(Writing),
}

/// The project's own ledger, with its writer.
pub(crate) struct Writing {
    pub(crate) ledger: Ledger,
    actor: Name,
    shutdown: CancellationToken,
    work: JoinHandle<()>,
}

impl Way {
    pub(crate) const ALL: [Self; 3] = [Self::RowLocks, Self::OneStatement, Self::GroupCommit];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RowLocks => "A",
            Self::OneStatement => "C",
            Self::GroupCommit => "ours",
        }
    }

    /// Sets to work on a database with so many pools.
    pub(crate) async fn open(self, field: &Field, pools: i32) -> anyhow::Result<Till> {
        match self {
            Self::RowLocks => {
                let mut sessions = Vec::with_capacity(CONNECTIONS);
                while sessions.len() < CONNECTIONS {
                    sessions.push(row_locks::Session::open(field.connect().await?).await?);
                }
                Ok(Till::RowLocks(Sessions::new(sessions)))
            }
            Self::OneStatement => {
                let mut sessions = Vec::with_capacity(CONNECTIONS);
                while sessions.len() < CONNECTIONS {
                    sessions.push(one_statement::Session::open(field.connect().await?).await?);
                }
                Ok(Till::OneStatement(Sessions::new(sessions)))
            }
            Self::GroupCommit => Ok(Till::GroupCommit(Writing::open(field, pools).await?)),
        }
    }
}

impl Till {
    /// Whether there was enough; everything else that can happen is an error.
    pub(crate) async fn reserve(&self, request: RequestId, want: &Want) -> anyhow::Result<bool> {
        match self {
            Self::RowLocks(sessions) => sessions.take().await?.reserve(request, want, TTL).await,
            Self::OneStatement(sessions) => {
                sessions.take().await?.reserve(request, want, TTL).await
            }
            Self::GroupCommit(writing) => writing.reserve(request, want).await,
        }
    }

    /// Ends a live hold.
    pub(crate) async fn end(&self, request: RequestId, end: End) -> anyhow::Result<()> {
        match self {
            Self::RowLocks(sessions) => sessions.take().await?.end(request, end).await,
            Self::OneStatement(_) => bail!("one statement only reserves"),
            Self::GroupCommit(writing) => writing.end(HoldId::new(request.uuid()), end).await,
        }
    }

    /// Closes every connection.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        match self {
            Self::RowLocks(_) | Self::OneStatement(_) => Ok(()),
            Self::GroupCommit(writing) => writing.close().await,
        }
    }
}

impl Writing {
    /// Starts a writer and waits until it knows the pools.
    pub(crate) async fn open(field: &Field, pools: i32) -> anyhow::Result<Self> {
        let options = LedgerOptions {
            reached_at: None,
            database_url: field.url("inventory_app"),
            lease: LEASE,
            account_max_holds: u32::MAX,
            live_max_holds: usize::MAX,
            reading: Arc::new(|database| database),
            changed: Arc::new(|_| {}),
        };
        let shutdown = CancellationToken::new();
        let (ledger, work) = Ledger::new(options, shutdown.clone());
        let writing = Self {
            ledger,
            actor: Name::from("usr_bench"),
            shutdown,
            work: tokio::spawn(work),
        };
        let keys: Vec<_> = (1..=pools)
            .map(|pool| load::key(pool).parse())
            .collect::<Result<_, _>>()?;
        for keys in keys.chunks(LOOK_MAX_KEYS) {
            let known = writing.ledger.look(keys.to_vec()).await?;
            anyhow::ensure!(
                known.len() == keys.len(),
                "the ledger does not see all pools"
            );
        }
        Ok(writing)
    }

    pub(crate) async fn reserve(&self, request: RequestId, want: &Want) -> anyhow::Result<bool> {
        let reserve = Reserve {
            request,
            account: None,
            actor: self.actor.clone(),
            wish: want.basket.clone().into(),
            ttl: TTL,
            reference: Name::default(),
            epoch: None,
        };
        match self.ledger.reserve(reserve).await {
            Ok(_) => Ok(true),
            Err(Refusal::InsufficientUnits(_)) => Ok(false),
            Err(refusal) => Err(refusal.into()),
        }
    }

    async fn end(&self, hold: HoldId, end: End) -> anyhow::Result<()> {
        let actor = self.actor.clone();
        match end {
            End::Commit => {
                let commit = Commit {
                    hold,
                    actor,
                    epoch: None,
                };
                self.ledger.commit(commit).await?;
            }
            End::Release => {
                let release = Release {
                    hold,
                    actor,
                    epoch: None,
                };
                self.ledger.release(release).await?;
            }
        }
        Ok(())
    }

    pub(crate) async fn close(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        self.work.await.context("the writer panicked")
    }
}
