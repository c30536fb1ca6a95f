//! The accept loop on real sockets. Time is virtual: it jumps to the next timer when everybody waits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{Router, routing::get};
use holdfast_gateway::{DRAIN_SECS, HEADER_READ_SECS, Places, serve};
use ipnet::IpNet;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

struct Served {
    address: std::net::SocketAddr,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

async fn serving(router: Router, max_connections: usize) -> Served {
    serving_at(router, Places::new(max_connections, max_connections, &[])).await
}

async fn serving_at(router: Router, places: Places) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(serve(router, listener, places, shutdown.clone()));
    Served {
        address,
        shutdown,
        serving,
    }
}

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("it listens")
    }

    /// A connection that is answered on, or none where the door hangs up.
    async fn ask(&self) -> Option<TcpStream> {
        let mut stream = self.connect().await;
        stream.write_all(REQUEST).await.ok()?;
        let said = read_until(&mut stream, "hello").await;
        said.contains("hello").then_some(stream)
    }

    async fn connect_http2(&self) -> TcpStream {
        let mut stream = self.connect().await;
        let opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        stream.write_all(opening).await.expect("written");
        stream
            .write_all(&frame(SETTINGS, 0, 0, &[]))
            .await
            .expect("written");
        stream
    }

    async fn end(self) {
        self.shutdown.cancel();
        self.serving.await.expect("it ends in order");
    }
}

fn hello() -> Router {
    Router::new().route("/", get(async || "hello"))
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    let mut chunk = [0; 1024];
    while !String::from_utf8_lossy(&text).contains(end) {
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(read) => text.extend_from_slice(&chunk[..read]),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test(start_paused = true)]
async fn who_opens_a_connection_and_does_not_get_to_the_point_is_cut_off() {
    let served = serving(hello(), 100).await;
    let beginnings: [&[u8]; 6] = [
        b"",
        b"G",
        b"PRI * HTTP/2.0\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        REQUEST,
    ];
    for beginning in beginnings {
        let begun = Instant::now();
        let mut stream = served.connect().await;
        stream.write_all(beginning).await.expect("written");
        let mut rest = Vec::new();
        // A reset is an end too.
        stream.read_to_end(&mut rest).await.ok();
        let secs = begun.elapsed().as_secs();
        assert!(
            secs <= 2 * HEADER_READ_SECS,
            "{beginning:?} lasted {secs} s"
        );
        let answered = String::from_utf8_lossy(&rest).contains("hello");
        assert_eq!(answered, beginning == REQUEST);
    }
    served.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_letter_every_few_seconds_does_not_keep_a_connection() {
    let served = serving(hello(), 100).await;
    let begun = Instant::now();
    let mut stream = served.connect().await;
    for letter in REQUEST.chunks(1) {
        if stream.write_all(letter).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    let said = read_until(&mut stream, "hello").await;
    assert!(!said.contains("hello"), "{said}");
    assert!(begun.elapsed().as_secs() <= 3 * REQUEST.len() as u64);
    served.end().await;
}

#[tokio::test(start_paused = true)]
async fn work_that_takes_its_time_is_not_mistaken_for_a_silent_client() {
    let slow = get(async || {
        tokio::time::sleep(Duration::from_secs(5 * HEADER_READ_SECS)).await;
        "hello"
    });
    let served = serving(Router::new().route("/", slow), 100).await;
    let mut stream = served.connect().await;
    stream.write_all(REQUEST).await.expect("written");
    assert!(read_until(&mut stream, "hello").await.contains("hello"));
    served.end().await;
}

#[tokio::test]
async fn both_protocols_are_spoken_on_one_port() {
    let served = serving(hello(), 100).await;
    let mut one = served.connect().await;
    one.write_all(REQUEST).await.expect("written");
    assert!(
        read_until(&mut one, "hello")
            .await
            .starts_with("HTTP/1.1 200")
    );
    // Settings of ours, of which there are none; theirs come back.
    let mut two = served.connect_http2().await;
    let mut head = [0; 9];
    two.read_exact(&mut head).await.expect("a frame");
    assert_eq!((head[3], &head[5..]), (SETTINGS, [0; 4].as_slice()));
    drop((one, two));
    served.end().await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let served = serving(hello(), 100).await;
    let mut stream = served.connect().await;
    let mut head = b"GET / HTTP/1.1\r\nhost: x\r\ncookie: ".to_vec();
    head.extend(std::iter::repeat_n(b'c', 100_000));
    head.extend(b"\r\n\r\n");
    stream.write_all(&head).await.ok();
    let said = read_until(&mut stream, "\r\n\r\n").await;
    assert!(
        said.starts_with("HTTP/1.1 431") || said.is_empty(),
        "{said}"
    );
    served.end().await;
}

/// Two requests to whoever reads the first one's length otherwise than we do, or none at all.
#[tokio::test]
async fn a_request_whose_end_can_be_read_in_two_ways_is_one_request_at_most() {
    let echo = |body: bytes::Bytes| async move { format!("heard {} bytes", body.len()) };
    let router = || Router::new().route("/", axum::routing::post(echo));
    let served = serving(router().route("/hidden", get(async || "hidden")), 100).await;
    let hidden = "GET /hidden HTTP/1.1\r\nhost: x\r\n\r\n";
    let length = hidden.len();
    let chunked = format!("0\r\n\r\n{hidden}");
    let both = chunked.len();
    for head in [
        format!("content-length: {both}\r\ntransfer-encoding: chunked\r\n\r\n{chunked}"),
        format!("transfer-encoding: chunked\r\ncontent-length: {both}\r\n\r\n{chunked}"),
        format!("content-length: 0\r\ncontent-length: {length}\r\n\r\n{hidden}"),
        format!("content-length: 0, {length}\r\n\r\n{hidden}"),
        format!("content-length: +{length}\r\n\r\n{hidden}"),
        format!("content-length : {length}\r\n\r\n{hidden}"),
        format!(" content-length: {length}\r\n\r\n{hidden}"),
        format!("transfer-encoding: gzip, chunked, identity\r\n\r\n{chunked}"),
        format!("transfer-encoding: xchunked\r\n\r\n{chunked}"),
        format!("transfer-encoding: chunked\r\n\r\n0x0\r\n\r\n{hidden}"),
        format!("x: y\rcontent-length: {length}\r\n\r\n{hidden}"),
    ] {
        let mut stream = served.connect().await;
        let request = format!("POST / HTTP/1.1\r\nhost: x\r\n{head}");
        stream.write_all(request.as_bytes()).await.expect("written");
        stream.shutdown().await.ok();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).await.ok();
        let said = String::from_utf8_lossy(&said);
        assert!(!said.contains("hidden"), "{head:?}: {said}");
    }
    served.end().await;
}

#[tokio::test(start_paused = true)]
async fn two_thousand_who_send_a_byte_every_ten_seconds_are_all_cut_off_and_others_are_served() {
    const SLOW: usize = 2_000;
    let served = serving(hello(), SLOW + 1).await;
    let mut slow = Vec::with_capacity(SLOW);
    for _ in 0..SLOW {
        let mut stream = served.connect().await;
        stream.write_all(b"G").await.expect("written");
        slow.push(stream);
    }
    let mut quick = served.connect().await;
    quick.write_all(REQUEST).await.expect("written");
    assert!(read_until(&mut quick, "hello").await.contains("hello"));
    drop(quick);
    let begun = Instant::now();
    for mut stream in slow {
        tokio::time::sleep(Duration::from_millis(1)).await;
        stream.write_all(b"E").await.ok();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.ok();
        assert!(rest.is_empty());
    }
    assert!(begun.elapsed().as_secs() <= 3 * HEADER_READ_SECS);
    served.end().await;
}

#[tokio::test]
async fn at_the_limit_a_further_client_waits_for_a_place() {
    let served = serving(hello(), 1).await;
    let mut first = served.connect().await;
    first.write_all(REQUEST).await.expect("written");
    assert!(read_until(&mut first, "hello").await.contains("hello"));
    let mut second = served.connect().await;
    second.write_all(REQUEST).await.expect("written");
    drop(first);
    assert!(read_until(&mut second, "hello").await.contains("hello"));
    drop(second);
    served.end().await;
}

#[tokio::test]
async fn one_address_has_so_many_places_and_no_more_and_gets_them_back() {
    let served = serving_at(hello(), Places::new(100, 2, &[])).await;
    let mut first = served.ask().await.expect("a place");
    let second = served.ask().await.expect("a place");
    assert!(served.ask().await.is_none());
    drop(second);
    // The door hears of it in its own time.
    while served.ask().await.is_none() {}
    first.write_all(REQUEST).await.expect("written");
    assert!(read_until(&mut first, "hello").await.contains("hello"));
    drop(first);
    served.end().await;

    let proxies: IpNet = "127.0.0.0/8".parse().expect("a network");
    let served = serving_at(hello(), Places::new(100, 2, &[proxies])).await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(served.ask().await.expect("a proxy is not bound"));
    }
    drop(clients);
    served.end().await;
}

#[tokio::test]
async fn who_opens_and_takes_back_a_hundred_thousand_requests_is_cut_off() {
    let (begun, others) = (Arc::new(AtomicUsize::new(0)), hello());
    let counted = begun.clone();
    let slow = get(async move || {
        counted.fetch_add(1, Relaxed);
        std::future::pending::<&str>().await
    });
    let served = serving(others.route("/slow", slow), 100).await;
    let stream = served.connect_http2().await;
    let (mut reader, mut writer) = stream.into_split();
    let told = tokio::spawn(async move {
        let mut told = Vec::new();
        reader.read_to_end(&mut told).await.ok();
        told
    });
    for number in 0..100_000_u32 {
        let stream = 2 * number + 1;
        let mut both = frame(HEADERS, END_HEADERS | END_STREAM, stream, GET_SLOW);
        both.extend(frame(RST_STREAM, 0, stream, &CANCEL));
        if writer.write_all(&both).await.is_err() {
            break;
        }
    }
    drop(writer);
    let told = told.await.expect("read to its end");
    assert!(says_goodbye(&told));
    let begun = begun.load(Relaxed);
    assert!(begun < 100_000, "{begun} requests were begun");
    let mut other = served.ask().await.expect("a place");
    other.write_all(REQUEST).await.expect("written");
    assert!(read_until(&mut other, "hello").await.contains("hello"));
    drop(other);
    served.end().await;
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let served = serving(hello(), 100).await;
    let (mut reader, mut writer) = served.connect_http2().await.into_split();
    let told = tokio::spawn(async move {
        let mut told = Vec::new();
        reader.read_to_end(&mut told).await.ok();
        told
    });
    let opening = frame(HEADERS, END_STREAM, 1, GET_SLOW);
    writer.write_all(&opening).await.expect("written");
    // `x: ` and 4,000 letters, never indexed, which a decoder has to look at each time.
    let mut field = vec![0x00, 0x01, b'x', 0x7f, 0xa1, 0x1e];
    field.extend([b'a'; 4_000]);
    let mut sent = 0_usize;
    while sent < CONTINUED_MAX_BYTES {
        let more = frame(CONTINUATION, 0, 1, &field);
        if writer.write_all(&more).await.is_err() {
            break;
        }
        sent += more.len();
    }
    drop(writer);
    let told = told.await.expect("read to its end");
    assert!(
        says_goodbye(&told) || sent < CONTINUED_MAX_BYTES,
        "{sent} bytes were taken"
    );
    served.end().await;
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: [u8; 4] = [0, 0, 0, 8];
/// GET, http, `/slow`, `x`: the first two by their places in HPACK's table.
const GET_SLOW: &[u8] = b"\x82\x86\x04\x05/slow\x01\x01x";
/// What no head of ours needs.
const CONTINUED_MAX_BYTES: usize = 64 * 1024 * 1024;

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("small").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Whether one of these frames ends the connection.
fn says_goodbye(mut frames: &[u8]) -> bool {
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = frames {
        if *kind == GOAWAY {
            return true;
        }
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        frames = rest.get(length..).unwrap_or_default();
    }
    false
}

#[tokio::test(start_paused = true)]
async fn at_shutdown_requests_in_hand_are_answered_and_new_ones_are_not() {
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let handler = {
        let (begun, go_on) = (begun.clone(), go_on.clone());
        get(async move || {
            begun.notify_one();
            go_on.notified().await;
            "hello"
        })
    };
    let served = serving(Router::new().route("/", handler), 100).await;
    let mut stream = served.connect().await;
    stream.write_all(REQUEST).await.expect("written");
    begun.notified().await;
    served.shutdown.cancel();
    while TcpStream::connect(served.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    go_on.notify_one();
    let said = read_until(&mut stream, "hello").await;
    assert!(
        said.contains("hello") && said.contains("connection: close"),
        "{said}"
    );
    served.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_never_ends_does_not_hold_up_the_end_for_ever() {
    let begun = Arc::new(Notify::new());
    let handler = {
        let begun = begun.clone();
        get(async move || {
            begun.notify_one();
            std::future::pending::<&str>().await
        })
    };
    let served = serving(Router::new().route("/", handler), 100).await;
    let mut stream = served.connect().await;
    stream.write_all(REQUEST).await.expect("written");
    begun.notified().await;
    let asked = Instant::now();
    served.end().await;
    assert_eq!(asked.elapsed().as_secs(), DRAIN_SECS);
}
