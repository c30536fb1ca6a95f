//! The accept loop on real sockets. Time is virtual: it jumps to the next timer when everybody waits.

use std::{sync::Arc, time::Duration};

use axum::{Router, routing::get};
use holdfast_gateway::{DRAIN_SECS, HEADER_READ_SECS, serve};
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
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(serve(router, listener, max_connections, shutdown.clone()));
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
    let mut two = served.connect().await;
    two.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .expect("written");
    // An empty SETTINGS frame of ours; theirs comes back: type 4 on stream 0.
    two.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
        .await
        .expect("written");
    let mut head = [0; 9];
    two.read_exact(&mut head).await.expect("a frame");
    assert_eq!((head[3], &head[5..]), (4, [0; 4].as_slice()));
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
