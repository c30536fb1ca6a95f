//! A mail server as good or bad as a test says; it speaks as much SMTP as it takes to be handed a letter.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// How the server treats one letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Takes,
    /// The reply repeats the address, as servers do.
    KnowsNobody,
    Dislikes,
    IsBusy,
    /// It has the letter, and the connection breaks before it says so.
    HangsUp,
    IsSilent,
}

/// A running server; gone when it is dropped.
pub(crate) struct Sink {
    pub(crate) url: String,
    book: Arc<Book>,
    _serving: JoinSet<()>,
}

#[derive(Default)]
struct Book {
    /// For the next letters; afterwards it takes everything.
    manners: Mutex<VecDeque<Manner>>,
    taken: Mutex<Vec<String>>,
}

impl Sink {
    /// A server that treats its first letters so.
    pub(crate) async fn start(manners: &[Manner]) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("bound");
        let book = Arc::new(Book {
            manners: Mutex::new(manners.iter().copied().collect()),
            ..Book::default()
        });
        let mut serving = JoinSet::new();
        let served = book.clone();
        serving.spawn(async move {
            // Ends its connections when it is dropped.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = socket.accept().await {
                connections.spawn(serve(client, served.clone()));
            }
        });
        Self {
            url: format!("smtp://{address}"),
            book,
            _serving: serving,
        }
    }

    /// The letters it has, in the order they came.
    pub(crate) fn taken(&self) -> Vec<String> {
        self.book.taken.lock().expect("unpoisoned").clone()
    }
}

/// A connection that broke is over; who is to notice is at its other end.
async fn serve(client: TcpStream, book: Arc<Book>) {
    talk(client, &book).await.ok();
}

async fn talk(client: TcpStream, book: &Book) -> std::io::Result<()> {
    let (reading, mut writing) = client.into_split();
    let mut lines = BufReader::new(reading).lines();
    writing.write_all(b"220 sink\r\n").await?;
    let mut manner = Manner::Takes;
    while let Some(line) = lines.next_line().await? {
        let verb: String = line.chars().take(4).collect();
        let reply = match (verb.to_ascii_uppercase().as_str(), manner) {
            ("EHLO", _) => "250-sink\r\n250 8BITMIME".to_owned(),
            ("MAIL", _) => {
                let next = book.manners.lock().expect("unpoisoned").pop_front();
                manner = next.unwrap_or(Manner::Takes);
                "250 2.1.0 ok".to_owned()
            }
            ("RCPT", Manner::KnowsNobody) => format!("550 5.1.1 {line} unknown"),
            ("RCPT", Manner::IsBusy) => "451 4.3.0 busy".to_owned(),
            ("RCPT", Manner::IsSilent) => std::future::pending().await,
            ("DATA", _) => {
                writing.write_all(b"354 go on\r\n").await?;
                let mut letter = String::new();
                while let Some(line) = lines.next_line().await?.filter(|line| line != ".") {
                    letter.push_str(line.strip_prefix('.').unwrap_or(&line));
                    letter.push('\n');
                }
                if manner == Manner::Dislikes {
                    "554 5.7.1 not like this".to_owned()
                } else {
                    book.taken.lock().expect("unpoisoned").push(letter);
                    if manner == Manner::HangsUp {
                        return Ok(());
                    }
                    "250 2.0.0 taken".to_owned()
                }
            }
            ("QUIT", _) => {
                writing.write_all(b"221 bye\r\n").await?;
                return Ok(());
            }
            _ => "250 ok".to_owned(),
        };
        writing.write_all(format!("{reply}\r\n").as_bytes()).await?;
    }
    Ok(())
}
