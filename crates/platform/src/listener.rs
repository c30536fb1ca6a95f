//! Sockets a process listens on.

use std::{io, net::SocketAddr};

use tokio::net::TcpListener;

/// A bound socket and the address it really has, which is what a port of 0 turned into.
#[derive(Debug)]
pub struct Listener {
    /// Accepts connections.
    pub socket: TcpListener,
    /// Where others reach it.
    pub address: SocketAddr,
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: cannot listen on {address:?}: {source}")]
pub struct ListenError {
    setting: String,
    address: String,
    source: io::Error,
}

/// Binds `address`, such as `127.0.0.1:8080`, or port 0 for any free one; `setting` names where the address came from.
pub async fn bind(setting: &str, address: &str) -> Result<Listener, ListenError> {
    let refused = |source| ListenError {
        setting: setting.to_owned(),
        address: address.to_owned(),
        source,
    };
    let socket = TcpListener::bind(address).await.map_err(refused)?;
    let address = socket.local_addr().map_err(refused)?;
    Ok(Listener { socket, address })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_of_zero_becomes_a_real_one() {
        let listener = bind("gateway.listen", "127.0.0.1:0").await.expect("a port");
        assert_ne!(listener.address.port(), 0);
        let taken = bind("gateway.listen", &listener.address.to_string()).await;
        let refused = taken.expect_err("it is taken").to_string();
        assert!(
            refused.starts_with("gateway.listen: cannot listen on "),
            "{refused}"
        );
    }
}
