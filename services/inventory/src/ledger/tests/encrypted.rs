//! A database that is reached over a network, where somebody may listen or pose as it.

use std::path::Path;

use holdfast_platform::database;
use holdfast_testkit::TlsServer;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

use super::super::{session::Session, writer::Rules};

/// Who signs certificates, and the file that says whom to believe.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: std::path::PathBuf,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let file = folder.join(name);
        let root = params.self_signed(&key).expect("a root");
        std::fs::write(&file, root.pem()).expect("the folder is ours");
        let issuer = Issuer::new(params, key);
        Self { issuer, file }
    }

    /// A certificate made out to `localhost`, and its key.
    fn sign(&self) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }
}

struct Net {
    server: TlsServer,
    ours: Authority,
    others: Authority,
    _folder: TempDir,
}

impl Net {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ours = Authority::new(folder.path(), "ours.pem");
        let others = Authority::new(folder.path(), "others.pem");
        let (certificate, key) = ours.sign();
        let server = TlsServer::start("inventory", certificate, key).await;
        let owner = server.url("inventory_owner", "localhost", "");
        database::migrate(&owner, &crate::MIGRATOR)
            .await
            .expect("a new schema");
        Self {
            server,
            ours,
            others,
            _folder: folder,
        }
    }

    fn url(&self, host: &str, query: &str) -> String {
        let query = query
            .replace("OURS", &self.ours.file.display().to_string())
            .replace("OTHERS", &self.others.file.display().to_string());
        self.server.url("inventory_app", host, &query)
    }
}

#[tokio::test]
async fn the_writer_trusts_a_server_where_the_pools_do_and_nowhere_else() {
    let net = Net::new().await;
    // The server's certificate is made out to localhost by a root that no system knows.
    for (host, query, trusted) in [
        ("localhost", "", true),
        ("localhost", "sslmode=prefer", true),
        ("localhost", "sslmode=require", true),
        ("localhost", "ssl-mode=require&sslrootcert=OTHERS", true),
        ("localhost", "sslmode=verify-ca&sslrootcert=OURS", true),
        ("127.0.0.1", "sslmode=verify-ca&sslrootcert=OURS", true),
        ("localhost", "sslmode=verify-full&ssl-root-cert=OURS", true),
        // It demands what these refuse.
        ("localhost", "sslmode=disable", false),
        ("localhost", "sslmode=allow", false),
        // A root that did not sign, none at all, and one that is not there.
        ("localhost", "sslmode=verify-ca&sslrootcert=OTHERS", false),
        ("localhost", "sslmode=verify-full&sslrootcert=OTHERS", false),
        ("localhost", "sslmode=verify-full", false),
        ("localhost", "sslmode=verify-full&sslrootcert=/none", false),
        // Another name than the certificate's.
        ("127.0.0.1", "sslmode=verify-full&sslrootcert=OURS", false),
    ] {
        let url = net.url(host, query);
        let writer = Session::open(&url, &Rules::default().statement).await;
        let pool = PgConnection::connect(&url).await;
        assert_eq!(
            pool.is_ok(),
            trusted,
            "a pool at {url}: {:?}",
            pool.as_ref().err()
        );
        assert_eq!(
            writer.is_ok(),
            trusted,
            "{url}: {:?}",
            writer.as_ref().err()
        );
        if let Ok(session) = writer {
            let encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
            let row = session.client.query_one(encrypted, &[]).await;
            assert!(row.expect("anybody may ask").get::<_, bool>(0), "{url}");
        }
    }
}
