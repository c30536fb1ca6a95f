//! What comes from outside and is read by us, as functions of any bytes at all.
//!
//! Each is a target of `fuzz/`, which feeds it whatever it thinks of, and a test, which feeds it what was kept in
//! `fuzz/corpus`. They panic where something is wrong.

use holdfast::products::ProductFile;
use holdfast_kernel::{
    Timestamp,
    page::{PageToken, read_token},
};
use holdfast_testkit::{FakeClock, Realm};
use holdfast_webhooks::url::{self, Host};
use http::Uri;
use reqwest::Url;
use serde_json::Value;

/// More than the message of a refused file says of its faults.
const FAULTS_MAX_BYTES: usize = 1024 * 1024;

/// A product file is read, or refused by rows that can be shown.
pub fn product_file(bytes: &[u8]) {
    if let Err(faults) = ProductFile::read(bytes) {
        let told = faults.to_string();
        assert!(told.contains("row "), "{told}");
        assert!(told.len() < FAULTS_MAX_BYTES, "{} bytes", told.len());
    }
}

/// A cursor is a place in a list, whose own cursor leads to the same place, or it is refused.
pub fn cursor(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(Some(place)) = read_token::<(String, i64)>(&text) {
        let again = PageToken::after(&place).into_text();
        assert_eq!(read_token(&again), Ok(Some(place)), "{text:?}");
    }
    read_token::<(Timestamp, uuid::Uuid)>(&text).ok();
    read_token::<Value>(&text).ok();
}

/// An `Authorization` that we did not give is nobody's.
pub fn authorization(bytes: &[u8]) {
    let Ok(value) = reqwest::header::HeaderValue::from_bytes(bytes) else {
        return;
    };
    let mut headers = reqwest::header::HeaderMap::new();
    headers.insert(reqwest::header::AUTHORIZATION, value);
    let verifier = Realm::new(FakeClock::new(Timestamp::UNIX_EPOCH)).verifier();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime without drivers needs nothing");
    let caller = runtime.block_on(verifier.caller(&headers));
    assert!(
        caller.is_err(),
        "{:?} was believed",
        String::from_utf8_lossy(bytes)
    );
}

/// A URL that messages are sent to is the same when it is read again, and names one machine and port to every reader.
pub fn webhook_url(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(endpoint) = url::parse(&text) else {
        return;
    };
    assert_eq!(url::parse(endpoint.as_str()).as_ref(), Ok(&endpoint));
    let read = Url::parse(&text).expect("what is sent to is a URL");
    assert_eq!(machine(read.host_str()), *endpoint.host(), "{text:?}");
    assert_eq!(read.port_or_known_default(), Some(endpoint.port()));
    assert!(read.username().is_empty() && read.password().is_none());
    // Not every character that a URL may have is one to this reader.
    if let Ok(read) = endpoint.as_str().parse::<Uri>() {
        assert_eq!(machine(read.host()), *endpoint.host(), "{text:?}");
    }
}

/// The machine that stands in a URL, addresses of IPv6 in brackets.
fn machine(written: Option<&str>) -> Host {
    let written = written.expect("a URL that is sent to has a host");
    let inside = written.trim_start_matches('[').trim_end_matches(']');
    let name = |_| Host::Name(written.to_ascii_lowercase());
    inside.parse().map_or_else(name, Host::Address)
}
