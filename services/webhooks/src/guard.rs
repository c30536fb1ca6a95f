//! Keeps deliveries out of our own network: to which addresses they may go at all.
//!
//! Names are looked up here, every answer is judged, and the connection goes to an address that was judged: what the
//! name means a moment later changes nothing. One inside address among the answers refuses them all.

use std::{
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::url::{Endpoint, Host};

/// Looks up the addresses of a name.
pub type Lookup = Arc<
    dyn Fn(String) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> + Send + Sync,
>;

/// Ports at which public addresses are reached.
pub(crate) const PUBLIC_PORTS: [u16; 2] = [443, 80];

/// Judges addresses.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    allowed: Arc<[IpNet]>,
}

/// An address that nothing is sent to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Inside {
    #[error("{0} is no public address")]
    Address(IpAddr),
    #[error("port is {0}, wanted 443 or 80")]
    Port(u16),
}

impl Guard {
    /// Admits public addresses at public ports, and these networks at any.
    pub(crate) fn new(allowed: &[IpNet]) -> Self {
        Self {
            allowed: allowed.into(),
        }
    }

    /// Refuses what will never be admitted, as far as that shows without looking a name up.
    pub(crate) fn check(&self, endpoint: &Endpoint) -> Result<(), Inside> {
        let port = endpoint.port();
        match endpoint.host() {
            Host::Address(address) => self.admit(*address, port),
            Host::Name(_) if self.allowed.is_empty() && !PUBLIC_PORTS.contains(&port) => {
                Err(Inside::Port(port))
            }
            Host::Name(_) => Ok(()),
        }
    }

    fn admit(&self, address: IpAddr, port: u16) -> Result<(), Inside> {
        if self
            .allowed
            .iter()
            .any(|network| network.contains(&address))
        {
            Ok(())
        } else if !is_public(address) {
            Err(Inside::Address(address))
        } else if !PUBLIC_PORTS.contains(&port) {
            Err(Inside::Port(port))
        } else {
            Ok(())
        }
    }
}

/// Looks names up for an HTTP client that only ever goes to this port.
pub(crate) struct Guarded {
    pub(crate) guard: Guard,
    pub(crate) lookup: Lookup,
    /// The client's requests go to this port, or to one that is judged alike.
    pub(crate) port: u16,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let looking = (self.lookup)(name.as_str().to_owned());
        let (guard, port) = (self.guard.clone(), self.port);
        Box::pin(async move {
            let found = looking.await?;
            if found.is_empty() {
                return Err(io::Error::other("the name has no address").into());
            }
            for address in &found {
                guard.admit(*address, port)?;
            }
            // Port 0 stands for the URL's.
            let found = found.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(found) as Addrs)
        })
    }
}

/// Asks this machine's resolver.
pub(crate) fn system_lookup() -> Lookup {
    Arc::new(|name| {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    })
}

/// IPv4 that is not the public Internet: the special-purpose registry of IANA.
#[rustfmt::skip]
const NOT_PUBLIC_V4: [Ipv4Net; 15] = [
    v4([0, 0, 0, 0], 8),        // this network
    v4([10, 0, 0, 0], 8),       // private
    v4([100, 64, 0, 0], 10),    // carriers' own
    v4([127, 0, 0, 0], 8),      // loopback
    v4([169, 254, 0, 0], 16),   // link-local, with the clouds' metadata
    v4([172, 16, 0, 0], 12),    // private
    v4([192, 0, 0, 0], 24),     // protocol assignments
    v4([192, 0, 2, 0], 24),     // documentation
    v4([192, 88, 99, 0], 24),   // 6to4 relays
    v4([192, 168, 0, 0], 16),   // private
    v4([198, 18, 0, 0], 15),    // benchmarks
    v4([198, 51, 100, 0], 24),  // documentation
    v4([203, 0, 113, 0], 24),   // documentation
    v4([224, 0, 0, 0], 4),      // multicast
    v4([240, 0, 0, 0], 4),      // reserved, broadcast
];

/// The only IPv6 that is routed as public; loopback, unique local, link-local, multicast, mapped IPv4 and NAT64 lie
/// outside.
const PUBLIC_V6: Ipv6Net = v6([0x2000, 0], 3);

/// What of it is not.
#[rustfmt::skip]
const NOT_PUBLIC_V6: [Ipv6Net; 4] = [
    v6([0x2001, 0], 23),        // protocol assignments, with Teredo and ORCHID
    v6([0x2001, 0x0db8], 32),   // documentation
    v6([0x2002, 0], 16),        // 6to4: an IPv4 address in disguise
    v6([0x3fff, 0], 20),        // documentation
];

const fn v4(octets: [u8; 4], bits: u8) -> Ipv4Net {
    let [a, b, c, d] = octets;
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits)
}

const fn v6(front: [u16; 2], bits: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(front[0], front[1], 0, 0, 0, 0, 0, 0), bits)
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !NOT_PUBLIC_V4
            .iter()
            .any(|network| network.contains(&address)),
        IpAddr::V6(address) => {
            PUBLIC_V6.contains(&address)
                && !NOT_PUBLIC_V6
                    .iter()
                    .any(|network| network.contains(&address))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::url;

    fn guard(allowed: &[&str]) -> Guard {
        let allowed: Vec<IpNet> = allowed
            .iter()
            .map(|network| network.parse().expect("a network"))
            .collect();
        Guard::new(&allowed)
    }

    fn check(guard: &Guard, text: &str) -> Result<(), Inside> {
        guard.check(&url::parse(text).unwrap_or_else(|refused| panic!("{text}: {refused}")))
    }

    #[test]
    fn addresses_that_are_not_public_are_refused_in_every_family() {
        let guard = guard(&[]);
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "[::]",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:8.8.8.8]",
            "[::7f00:1]",
            "[64:ff9b::7f00:1]",
            "[64:ff9b:1::1]",
            "[100::1]",
            "[2001::1]",
            "[2001:0:7f00:1::]",
            "[2001:10::1]",
            "[2001:20::1]",
            "[2001:db8::1]",
            "[2002:7f00:1::]",
            "[3fff::1]",
            "[5f00::1]",
            "[fc00::1]",
            "[fd00:ec2::254]",
            "[fe80::1]",
            "[febf::1]",
            "[fec0::1]",
            "[ff02::1]",
        ] {
            let refused = check(&guard, &format!("https://{address}/")).expect_err(address);
            assert!(
                matches!(refused, Inside::Address(_)),
                "{address}: {refused}"
            );
        }
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.0.0.1",
            "128.0.0.1",
            "169.253.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "192.167.0.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "[2606:4700::1111]",
            "[2001:4860::8888]",
            "[2400:cb00::1]",
            "[2a00:1450::1]",
        ] {
            assert_eq!(
                check(&guard, &format!("https://{address}/")),
                Ok(()),
                "{address}"
            );
        }
    }

    #[test]
    fn other_ports_than_the_two_of_the_web_are_refused_outside_allowed_networks() {
        let strict = guard(&[]);
        for text in [
            "https://1.1.1.1:8443/",
            "http://1.1.1.1:22/",
            "https://example.com:6379/",
        ] {
            assert!(
                matches!(check(&strict, text), Err(Inside::Port(_))),
                "{text}"
            );
        }
        for text in [
            "https://1.1.1.1:80/",
            "http://example.com:443/",
            "http://example.com/",
        ] {
            assert_eq!(check(&strict, text), Ok(()), "{text}");
        }
        let open = guard(&["127.0.0.0/8", "fd00::/8"]);
        for text in [
            "http://127.0.0.1:41234/",
            "http://[fd00::7]:1/",
            "http://example.com:8080/",
        ] {
            assert_eq!(check(&open, text), Ok(()), "{text}");
        }
        for text in [
            "http://10.0.0.1/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]:80/",
        ] {
            assert!(
                matches!(check(&open, text), Err(Inside::Address(_))),
                "{text}"
            );
        }
        assert_eq!(
            check(&open, "http://1.1.1.1:8080/"),
            Err(Inside::Port(8080))
        );
    }
}
