//! A PostgreSQL as providers run it: reached over TCP, and by nobody who does not encrypt.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
};

use holdfast_platform::postmaster::{Account, SUPERUSER};

use crate::{database::prepare, server::Server};

/// Who gets in: over TCP only who encrypts. Passwords are not what tests of this are about.
const RULES: &str = "local all all trust\nhostssl all all 127.0.0.1/32 trust\n";
/// Its one database.
const DATABASE: &str = "postgres";

/// A server of a test's own that demands TLS, gone with this value.
pub struct TlsServer {
    /// Serves as long as this value lives.
    _server: Server,
    port: u16,
}

impl TlsServer {
    /// Starts one that shows this certificate, with a fenced schema for `service` on it; both texts are PEM.
    pub async fn start(service: &'static str, certificate: String, key: String) -> Self {
        let started = tokio::task::spawn_blocking(move || Self::start_server(&certificate, &key));
        let started = started
            .await
            .unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()));
        prepare(&started.url(SUPERUSER, "localhost", ""), &[service]).await;
        started
    }

    fn start_server(certificate: &str, key: &str) -> Self {
        // Nobody else takes it in the moment between, or the test fails.
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let furnish = |data: &Path, account: Option<&Account>| {
            for (name, text) in [
                ("server.crt", certificate),
                ("server.key", key),
                ("pg_hba.conf", RULES),
            ] {
                let file = data.join(name);
                fs::write(&file, text).expect("its folder was just made");
                fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is ours");
                if let Some(account) = account {
                    chown(&file, Some(account.uid), Some(account.gid)).expect("we are root");
                }
            }
        };
        let listens = port.to_string();
        let settings = [
            ("listen_addresses", "127.0.0.1"),
            ("port", listens.as_str()),
            ("ssl", "on"),
        ];
        let server = Server::start_with(furnish, &settings);
        Self {
            _server: server,
            port,
        }
    }

    /// The address under a role, over TCP by the name `host` of this machine, with this query behind it.
    pub fn url(&self, role: &str, host: &str, query: &str) -> String {
        format!("postgres://{role}@{host}:{}/{DATABASE}?{query}", self.port)
    }
}
