//! How the writer comes to its database: the way the service's pools come there by the same URL.
//!
//! The pools' own driver reads the URL, so that both go to the same place and take the same care; the writer's driver is
//! told what came of it.
//!
//! | `sslmode` | the connection |
//! |---|---|
//! | `disable`, `allow` | is open to whoever listens |
//! | `prefer`, which is the default | is encrypted if the server offers it, whoever the server is |
//! | `require` | is encrypted, whoever the server is |
//! | `verify-ca` | and the server's certificate comes from a root of this system or of `sslrootcert` |
//! | `verify-full` | and is made out to the URL's host |
//!
//! Password and certificates have to be in the URL: the pools look for them in the environment too, the writer does not.

use std::{sync::Arc, time::Duration};

use percent_encoding::percent_decode_str;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_postgres::{Client, Config, Connection, NoTls, config::SslMode, tls::TlsStream};
use tokio_postgres_rustls::MakeRustlsConnect;
use url::Url;

use super::session::Failure;

/// How long connecting may take, the handshakes included.
const CONNECT_TIMEOUT_SECS: u64 = 5;
/// How long what was sent may go unacknowledged by the other machine until the connection counts as lost.
const UNACKNOWLEDGED_MAX_SECS: u64 = 5;

/// Connects as `url` says. The connection ends with the client.
pub(super) async fn connect(url: &str) -> Result<Client, Failure> {
    let way = Way::read(url)?;
    let limit = Duration::from_secs(CONNECT_TIMEOUT_SECS);
    let connecting = async {
        Ok(match way.tls()? {
            None => attend(way.config.connect(NoTls).await?),
            Some(tls) => attend(way.config.connect(MakeRustlsConnect::new(tls)).await?),
        })
    };
    let late = |_| Failure::Unreachable(format!("no connection within {CONNECT_TIMEOUT_SECS} s"));
    timeout(limit, connecting).await.map_err(late)?
}

fn attend<S, T>((client, connection): (Client, Connection<S, T>)) -> Client
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: TlsStream + Unpin + Send + 'static,
{
    // Ends when the client is dropped or the connection breaks, which every waiting query is told.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the ledger's connection ended");
        }
    });
    client
}

/// What a database's URL says.
struct Way {
    config: Config,
    mode: PgSslMode,
    root: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

impl Way {
    fn read(text: &str) -> Result<Self, Failure> {
        let useless =
            |error: &dyn std::fmt::Display| Failure::Unreachable(format!("database URL: {error}"));
        let url = Url::parse(text).map_err(|error| useless(&error))?;
        let read: PgConnectOptions = text.parse().map_err(|error: sqlx::Error| useless(&error))?;
        let mut config = Config::new();
        match read.get_socket() {
            Some(folder) => config.host_path(folder),
            None => config.host(read.get_host()),
        };
        config
            .port(read.get_port())
            .user(read.get_username())
            .application_name("holdfast ledger")
            .tcp_user_timeout(Duration::from_secs(UNACKNOWLEDGED_MAX_SECS));
        if let Some(name) = read.get_database() {
            config.dbname(name);
        }
        if let Some(options) = read.get_options() {
            config.options(options);
        }
        if let Some(password) = url.password() {
            config.password(percent_decode_str(password).collect::<Vec<u8>>());
        }
        let mode = match (read.get_ssl_mode(), read.get_socket()) {
            // No server offers it there.
            (PgSslMode::Prefer, Some(_)) => PgSslMode::Disable,
            (mode, _) => mode,
        };
        config.ssl_mode(match mode {
            PgSslMode::Disable | PgSslMode::Allow => SslMode::Disable,
            PgSslMode::Prefer => SslMode::Prefer,
            PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull => SslMode::Require,
        });
        let mut way = Self {
            config,
            mode,
            root: None,
            certificate: None,
            key: None,
        };
        // What the pools' driver takes but does not give back, under the names it knows.
        for (name, value) in url.query_pairs() {
            let value = value.into_owned();
            match &*name {
                "password" => drop(way.config.password(value)),
                "sslrootcert" | "ssl-root-cert" | "ssl-ca" => way.root = Some(value),
                "sslcert" | "ssl-cert" => way.certificate = Some(value),
                "sslkey" | "ssl-key" => way.key = Some(value),
                _ => {}
            }
        }
        Ok(way)
    }

    /// How to encrypt, if at all.
    fn tls(&self) -> Result<Option<ClientConfig>, Failure> {
        let provider = Arc::new(ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match self.mode {
            PgSslMode::Disable | PgSslMode::Allow => return Ok(None),
            PgSslMode::Prefer | PgSslMode::Require => Lenient::toward_all(&provider),
            PgSslMode::VerifyCa => Lenient::toward_names(self.roots(&provider)?, &provider),
            PgSslMode::VerifyFull => self.roots(&provider)?,
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::Unreachable(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let (certificate, key) = match (&self.certificate, &self.key) {
            (None, None) => return Ok(Some(config.with_no_client_auth())),
            (Some(certificate), Some(key)) => (certificate, key),
            _ => {
                let text = "database URL: sslcert and sslkey need each other";
                return Err(Failure::Unreachable(text.to_owned()));
            }
        };
        let key_read = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
        config
            .with_client_auth_cert(certificates(certificate)?, key_read)
            .map(Some)
            .map_err(|error| unusable(certificate, &error))
    }

    /// Believes in the system's roots, and in those of `sslrootcert`.
    fn roots(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, Failure> {
        let mut roots = RootCertStore::empty();
        // One that cannot be read is one fewer to believe in.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(file) = &self.root {
            for root in certificates(file)? {
                roots.add(root).map_err(|error| unusable(file, &error))?;
            }
        }
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|error| Failure::Unreachable(format!("roots of certificates: {error}")))
    }
}

fn certificates(file: &str) -> Result<Vec<CertificateDer<'static>>, Failure> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| unusable(file, &error))
}

fn unusable(file: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::Unreachable(format!("{file}: {error}"))
}

/// Asks less of a certificate than a browser would. That the server has its key is always asked.
#[derive(Debug)]
struct Lenient {
    /// Who must have signed it; `None`: anybody.
    roots: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl Lenient {
    fn toward_all(provider: &Arc<CryptoProvider>) -> Arc<Self> {
        Arc::new(Self {
            roots: None,
            provider: provider.clone(),
        })
    }

    fn toward_names(roots: Arc<WebPkiServerVerifier>, provider: &Arc<CryptoProvider>) -> Arc<Self> {
        Arc::new(Self {
            roots: Some(roots),
            provider: provider.clone(),
        })
    }
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(roots) = &self.roots else {
            return Ok(ServerCertVerified::assertion());
        };
        let verified =
            roots.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // Looked at last, when all else was in order.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
