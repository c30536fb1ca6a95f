//! The database of a whole installation, for tests that start real processes on it.

use std::sync::atomic::{AtomicU32, Ordering};

use holdfast_platform::database::BUS;

use crate::{
    database::{prepare, statement},
    server::Server,
};

/// A database with the fenced schemas of many services and of the message log, none of them migrated.
///
/// It lives as long as the test process.
#[derive(Debug)]
pub struct Installation {
    database: String,
}

impl Installation {
    /// Makes a database with a schema and its two roles for each of `services`.
    pub async fn create(services: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let server = tokio::task::spawn_blocking(Server::get)
            .await
            .unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()));
        let database = format!("installation_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        statement(server, format!("CREATE DATABASE {database}")).await;
        let schemas: Vec<&str> = services.iter().copied().chain([BUS]).collect();
        prepare(&server.admin_url(&database), &schemas).await;
        Self { database }
    }

    /// The address under a role, such as `orders_app` or `orders_owner`.
    pub fn url(&self, role: &str) -> String {
        Server::get().url(role, &self.database)
    }
}
