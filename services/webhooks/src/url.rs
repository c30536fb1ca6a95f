//! URLs that messages may be sent to, as texts: nothing here asks a name server or opens a connection.
//!
//! A URL has one meaning only if every reader takes it alike. What readers are known to disagree about (user names,
//! addresses written in other bases, trailing dots, white space, backslashes) is refused instead of interpreted, and
//! what is left must mean to the HTTP client's own parser what it means here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest URL, in characters.
pub const URL_MAX_CHARS: usize = 2_048;

const NAME_MAX_CHARS: usize = 253;
const LABEL_MAX_CHARS: usize = 63;

/// Where to send: an `http` or `https` URL that has one meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    url: ::url::Url,
    host: Host,
    port: u16,
}

/// The machine a URL names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// To be looked up; lower case, no trailing dot.
    Name(String),
    /// Written out.
    Address(IpAddr),
}

/// Why a text is no URL that anything is sent to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Empty, or too long.
    #[error("{0} characters, wanted 1 to {URL_MAX_CHARS}")]
    Length(usize),
    /// White space, a control or non-ASCII character, or a backslash.
    #[error("got {0:?} in it, wanted visible ASCII without backslashes")]
    Character(char),
    /// Another scheme, or none.
    #[error("wanted https:// or http:// at its beginning")]
    Scheme,
    /// `user:password@`
    #[error("names a user, wanted none: deliveries are signed")]
    UserInfo,
    /// `#part`
    #[error("has a fragment, which is never sent")]
    Fragment,
    /// No port, or none that there is.
    #[error("port is {0:?}, wanted 1 to 65535")]
    Port(String),
    /// An address in another notation, a trailing dot, a character no name has.
    #[error(
        "host is {0:?}, wanted a name, four decimal numbers or an IPv6 address in brackets, written plainly"
    )]
    Host(String),
    /// The general parser takes it for something else.
    #[error("can be read in more than one way")]
    Ambiguous,
}

impl Endpoint {
    /// The URL as it is requested.
    pub fn as_str(&self) -> &str {
        self.url.as_str()
    }

    /// The machine.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, the scheme's own where none was written.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Reads a URL to send to.
pub fn parse(text: &str) -> Result<Endpoint, Refused> {
    let chars = text.chars().count();
    if !(1..=URL_MAX_CHARS).contains(&chars) {
        return Err(Refused::Length(chars));
    }
    let is_plain = |found: char| found.is_ascii_graphic() && found != '\\';
    if let Some(found) = text.chars().find(|found| !is_plain(*found)) {
        return Err(Refused::Character(found));
    }
    if text.contains('#') {
        return Err(Refused::Fragment);
    }
    let (scheme, rest) = text.split_once("://").ok_or(Refused::Scheme)?;
    let usual_port = match scheme.to_ascii_lowercase().as_str() {
        "https" => 443,
        "http" => 80,
        _ => return Err(Refused::Scheme),
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(Refused::UserInfo);
    }
    let (host, port) = split_port(authority)?;
    let host = parse_host(host)?;
    let port = port.map_or(Ok(usual_port), parse_port)?;

    let url = ::url::Url::parse(text).map_err(|_| Refused::Ambiguous)?;
    let agrees = match (url.host(), &host) {
        (Some(::url::Host::Domain(read)), Host::Name(name)) => read == name,
        (Some(::url::Host::Ipv4(read)), Host::Address(IpAddr::V4(address))) => read == *address,
        (Some(::url::Host::Ipv6(read)), Host::Address(IpAddr::V6(address))) => read == *address,
        _ => false,
    };
    if !agrees || url.port_or_known_default() != Some(port) {
        return Err(Refused::Ambiguous);
    }
    Ok(Endpoint { url, host, port })
}

/// Host and port of `host`, `host:port`, `[address]` or `[address]:port`.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), Refused> {
    let refused = || Refused::Host(authority.to_owned());
    let end = match authority.strip_prefix('[') {
        Some(rest) => rest.find(']').ok_or_else(refused)? + "[]".len(),
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(end);
    match rest.strip_prefix(':') {
        Some(port) => Ok((host, Some(port))),
        None if rest.is_empty() => Ok((host, None)),
        None => Err(refused()),
    }
}

fn parse_port(text: &str) -> Result<u16, Refused> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|port| *port > 0);
    port.filter(|_| digits && !text.starts_with('0'))
        .ok_or_else(|| Refused::Port(text.to_owned()))
}

fn parse_host(text: &str) -> Result<Host, Refused> {
    let refused = || Refused::Host(text.to_owned());
    if let Some(inside) = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        let address: Ipv6Addr = inside.parse().map_err(|_| refused())?;
        return Ok(Host::Address(address.into()));
    }
    // Four decimal numbers without leading zeros: the one notation in which all readers agree.
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Ok(Host::Address(address.into()));
    }
    let name = text.to_ascii_lowercase();
    let fits = name.len() <= NAME_MAX_CHARS && name.split('.').all(is_label);
    // What ends in a number is an address to many readers: 2130706433, 0x7f.1, 127.1.
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last
            .strip_prefix("0x")
            .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if !fits || is_number {
        return Err(refused());
    }
    Ok(Host::Name(name))
}

fn is_label(label: &str) -> bool {
    (1..=LABEL_MAX_CHARS).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_url_is_taken_as_it_is_written() {
        let name = |text: &str| Host::Name(text.to_owned());
        let address = |text: &str| Host::Address(text.parse().expect("an address"));
        for (text, host, port) in [
            ("https://example.com", name("example.com"), 443),
            ("https://EXAMPLE.com:8443/a?b=c", name("example.com"), 8443),
            (
                "http://a-b.example_x.com:80?q",
                name("a-b.example_x.com"),
                80,
            ),
            (
                "HTTPS://xn--bcher-kva.example/",
                name("xn--bcher-kva.example"),
                443,
            ),
            ("http://receiver/hooks", name("receiver"), 80),
            (
                "http://receiver/a/../<b>|{c}?d='e\"`^%zz",
                name("receiver"),
                80,
            ),
            ("https://192.0.2.7/", address("192.0.2.7"), 443),
            (
                "http://[2001:db8::1]:8080/x@y",
                address("2001:db8::1"),
                8080,
            ),
            (
                "http://[::ffff:127.0.0.1]/",
                address("::ffff:127.0.0.1"),
                80,
            ),
        ] {
            let endpoint = parse(text).unwrap_or_else(|refused| panic!("{text}: {refused}"));
            assert_eq!((endpoint.host(), endpoint.port()), (&host, port), "{text}");
            // What is written down is read again before every try.
            assert_eq!(parse(endpoint.as_str()), Ok(endpoint), "{text}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let host = |text: &str| Refused::Host(text.to_owned());
        let port = |text: &str| Refused::Port(text.to_owned());
        let longest = format!("https://example.com/{}", "x".repeat(URL_MAX_CHARS));
        let label = "a".repeat(LABEL_MAX_CHARS + 1);
        for (text, wanted) in [
            ("", Refused::Length(0)),
            (longest.as_str(), Refused::Length(longest.len())),
            ("https://exa mple.com", Refused::Character(' ')),
            (" https://example.com", Refused::Character(' ')),
            ("https://example.com\t", Refused::Character('\t')),
            ("https://example.com\\@10.0.0.1", Refused::Character('\\')),
            ("https://ex\u{e4}mple.com", Refused::Character('\u{e4}')),
            (
                "https://\u{2460}\u{2461}7.0.0.1",
                Refused::Character('\u{2460}'),
            ),
            ("ftp://example.com", Refused::Scheme),
            ("file:///etc/passwd", Refused::Scheme),
            ("gopher://127.0.0.1:6379/_x", Refused::Scheme),
            ("example.com", Refused::Scheme),
            ("https:example.com", Refused::Scheme),
            ("https://user@example.com", Refused::UserInfo),
            ("https://example.com@127.0.0.1/", Refused::UserInfo),
            ("https://:@127.0.0.1/", Refused::UserInfo),
            ("https://example.com/#127.0.0.1", Refused::Fragment),
            ("https://example.com#@127.0.0.1/", Refused::Fragment),
            ("https://", host("")),
            ("https:///example.com", host("")),
            ("https://?a", host("")),
            ("https://.example.com", host(".example.com")),
            ("https://example..com", host("example..com")),
            ("https://example.com./", host("example.com.")),
            ("https://localhost./", host("localhost.")),
            ("https://127.0.0.1./", host("127.0.0.1.")),
            ("https://2130706433/", host("2130706433")),
            ("https://0x7f000001/", host("0x7f000001")),
            ("https://0x7f.1/", host("0x7f.1")),
            ("https://0X7F.1/", host("0X7F.1")),
            ("https://127.1/", host("127.1")),
            ("https://127.0.1/", host("127.0.1")),
            ("https://0177.0.0.1/", host("0177.0.0.1")),
            ("https://127.0.0.01/", host("127.0.0.01")),
            ("https://017700000001/", host("017700000001")),
            ("https://127.0.0.0x1/", host("127.0.0.0x1")),
            ("https://256.0.0.1/", host("256.0.0.1")),
            ("https://1.2.3.4.5/", host("1.2.3.4.5")),
            ("https://0x/", host("0x")),
            (
                "https://127.0.0.1%2f.example.com/",
                host("127.0.0.1%2f.example.com"),
            ),
            ("https://%31%32%37.0.0.1/", host("%31%32%37.0.0.1")),
            ("https://[::1/", host("[::1")),
            ("https://[::1]x/", host("[::1]x")),
            ("https://[fe80::1%25eth0]/", host("[fe80::1%25eth0]")),
            ("https://[127.0.0.1]/", host("[127.0.0.1]")),
            ("https://[v1.x]/", host("[v1.x]")),
            ("https://-example.com/", host("-example.com")),
            ("https://example-.com/", host("example-.com")),
            ("https://exam!ple.com/", host("exam!ple.com")),
            ("https://xn--/", host("xn--")),
            ("https://xn--a-.example/", host("xn--a-.example")),
            ("https://example.com:/", port("")),
            ("https://example.com:0/", port("0")),
            ("https://example.com:0443/", port("0443")),
            ("https://example.com:+443/", port("+443")),
            ("https://example.com:65536/", port("65536")),
            ("https://example.com:80:80/", port("80:80")),
            ("https://xn--zzzzzzzzz.example/", Refused::Ambiguous),
        ] {
            assert_eq!(parse(text), Err(wanted), "{text}");
        }
        let text = format!("https://{label}.com/");
        assert!(matches!(parse(&text), Err(Refused::Host(_))), "{text}");
    }
}
