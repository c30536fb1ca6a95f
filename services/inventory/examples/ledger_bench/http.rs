//! Reserving over HTTP, on a route that knows nothing but the ledger, beside a route of the same server that knows nothing.
//!
//! Client and server are one process: both routes pay for the client alike.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, bail, ensure};
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use holdfast_inventory::{
    domain::{Basket, Line, Name, Refusal, Reserve},
    ledger::Ledger,
};
use holdfast_kernel::{PoolKey, RequestId};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use crate::{
    drive::{Caller, Run, Span, drive},
    ground::Ground,
    load::Load,
    till::Writing,
};

const PLENTY: i64 = 1_000_000_000;
const ANSWER_MAX_BYTES: usize = 4_096;
const TTL: Duration = Duration::from_mins(10);

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    Hello,
    Reserve,
}

#[derive(Clone)]
struct Counter {
    ledger: Ledger,
    actor: Name,
}

#[derive(Deserialize)]
struct Wish {
    request: String,
    lines: Vec<WishLine>,
}

#[derive(Serialize, Deserialize)]
struct WishLine {
    pool: String,
    quantity: i64,
}

#[derive(Serialize)]
struct Held {
    hold: String,
    expires_at: String,
}

/// One run of a route, at so many connections.
pub(crate) async fn run(
    ground: &mut Ground,
    route: Route,
    load: Load,
    connections: usize,
    span: Span,
) -> anyhow::Result<Run> {
    let field = ground.field(load.pools(), PLENTY).await?;
    let writing = Writing::open(&field, load.pools()).await?;
    let socket = TcpListener::bind("127.0.0.1:0").await?;
    let address = socket.local_addr()?;
    let shutdown = CancellationToken::new();
    let router = router(writing.ledger.clone());
    let ending = shutdown.clone().cancelled_owned();
    let server = tokio::spawn(async move {
        axum::serve(socket, router)
            .with_graceful_shutdown(ending)
            .await
    });

    let bodies: Arc<Vec<String>> = Arc::new(load.wants().iter().map(lines).collect());
    let mut browsers = Vec::with_capacity(connections);
    for at in 0..connections {
        let next = at * bodies.len() / connections;
        browsers.push(Browser::connect(address, route, bodies.clone(), next).await?);
    }
    let (run, browsers) = drive(browsers, span, ground.postmaster).await?;
    let made: i64 = browsers.iter().map(|browser| browser.made).sum();
    drop(browsers);
    shutdown.cancel();
    server.await??;
    writing.close().await?;
    let books = field.audit().await?;
    ensure!(
        books.oversold == 0 && books.drifted == 0 && books.live == made,
        "{books:?}, and {made} were answered"
    );
    Ok(run)
}

fn router(ledger: Ledger) -> Router {
    Router::new()
        .route("/hello", get(async || "hello, world"))
        .route("/reserve", post(reserve))
        .with_state(Counter {
            ledger,
            actor: Name::from("usr_bench"),
        })
}

async fn reserve(
    State(counter): State<Counter>,
    Json(wish): Json<Wish>,
) -> Result<(StatusCode, Json<Held>), (StatusCode, String)> {
    let refused = |error: &dyn std::error::Error| (StatusCode::BAD_REQUEST, error.to_string());
    let mut lines = Vec::with_capacity(wish.lines.len());
    for line in wish.lines {
        let pool: PoolKey = line.pool.parse().map_err(|error| refused(&error))?;
        let units = line.quantity;
        lines.push(Line { pool, units });
    }
    let reserve = Reserve {
        request: wish.request.parse().map_err(|error| refused(&error))?,
        account: None,
        actor: counter.actor.clone(),
        wish: Basket::new(lines).map_err(|error| refused(&error))?.into(),
        ttl: TTL,
        reference: Name::default(),
        epoch: None,
    };
    match counter.ledger.reserve(reserve).await {
        Ok(hold) => {
            let answer = Held {
                hold: hold.id.to_string(),
                expires_at: hold.expires_at.to_string(),
            };
            Ok((StatusCode::CREATED, Json(answer)))
        }
        Err(refusal @ Refusal::InsufficientUnits(_)) => {
            Err((StatusCode::CONFLICT, refusal.to_string()))
        }
        Err(refusal) => Err((StatusCode::SERVICE_UNAVAILABLE, refusal.to_string())),
    }
}

fn lines(want: &crate::load::Want) -> String {
    let lines = want.basket.lines().iter().map(|line| WishLine {
        pool: line.pool.to_string(),
        quantity: line.units,
    });
    serde_json::to_string(&lines.collect::<Vec<_>>()).expect("texts and numbers")
}

/// A connection that sends as little as HTTP allows and reads no more than it has to, so that the server is measured.
struct Browser {
    socket: TcpStream,
    route: Route,
    bodies: Arc<Vec<String>>,
    next: usize,
    made: i64,
    answer: Vec<u8>,
}

impl Browser {
    async fn connect(
        address: SocketAddr,
        route: Route,
        bodies: Arc<Vec<String>>,
        next: usize,
    ) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(Self {
            socket,
            route,
            bodies,
            next,
            made: 0,
            answer: Vec::with_capacity(ANSWER_MAX_BYTES),
        })
    }

    /// Reads one answer and returns its status.
    async fn answer(&mut self) -> anyhow::Result<u16> {
        self.answer.clear();
        loop {
            ensure!(
                self.socket.read_buf(&mut self.answer).await? > 0,
                "the server hung up"
            );
            if let Some(status) = whole(&self.answer)? {
                return Ok(status);
            }
            ensure!(self.answer.len() < ANSWER_MAX_BYTES, "an answer too long");
        }
    }
}

impl Caller for Browser {
    async fn ask(&mut self) -> anyhow::Result<()> {
        let (request, wanted) = match self.route {
            Route::Hello => ("GET /hello HTTP/1.1\r\nhost: bench\r\n\r\n".to_owned(), 200),
            Route::Reserve => {
                let lines = &self.bodies[self.next % self.bodies.len()];
                self.next += 1;
                let request = RequestId::generate();
                let body = format!(r#"{{"request":"{request}","lines":{lines}}}"#);
                let length = body.len();
                let head =
                    "POST /reserve HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json";
                (
                    format!("{head}\r\ncontent-length: {length}\r\n\r\n{body}"),
                    201,
                )
            }
        };
        self.socket.write_all(request.as_bytes()).await?;
        let status = self.answer().await?;
        if status != wanted {
            bail!("{}", String::from_utf8_lossy(&self.answer));
        }
        self.made += i64::from(self.route == Route::Reserve);
        Ok(())
    }
}

/// The status, once the answer is there to its last byte.
fn whole(answer: &[u8]) -> anyhow::Result<Option<u16>> {
    let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&answer[..end])?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_it = name.eq_ignore_ascii_case("content-length");
        is_it.then(|| value.trim().parse::<usize>().ok()).flatten()
    });
    if answer.len() < end + 4 + length.context("an answer without a length")? {
        return Ok(None);
    }
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    status.context("an answer without a status").map(Some)
}
