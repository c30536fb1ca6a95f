//! The keys of one batch: how far each is, and whether it is blocked.

use std::collections::HashMap;

use sqlx::PgConnection;

use super::{batch::Refusal, store, verdict::KeyState};
use crate::{
    bus::{Place, Record},
    parking::{self, Cause},
};

/// The states of the keys of one batch.
pub(super) struct Keys {
    states: HashMap<String, KeyState>,
    /// By key the version and the offset that brought it.
    advanced: HashMap<String, (i64, i64)>,
    pub(super) knows_every_key: bool,
    /// How many messages of the consumer are parked, once somebody asked.
    parked: Option<i64>,
}

impl Keys {
    pub(super) async fn load(
        conn: &mut PgConnection,
        consumer: &str,
        place: &Place,
        records: &[Record],
        knows_every_key: bool,
    ) -> Result<Self, sqlx::Error> {
        let mut names: Vec<&str> = records.iter().map(|record| record.key.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let states = store::states(conn, consumer, place.topic.name(), &names).await?;
        Ok(Self {
            states,
            advanced: HashMap::new(),
            knows_every_key,
            parked: None,
        })
    }

    pub(super) fn state(&self, key: &str) -> KeyState {
        self.states.get(key).copied().unwrap_or_default()
    }

    /// Parks a record, which blocks its key.
    pub(super) async fn park(
        &mut self,
        conn: &mut PgConnection,
        park: &parking::Park<'_>,
        version: Option<i64>,
        cause: Cause,
        reason: &str,
    ) -> Result<(), Refusal> {
        let parked = match self.parked {
            Some(counted) => counted,
            None => parking::count(conn, park.consumer).await?,
        };
        parking::park(conn, park, parked, version, cause, reason).await?;
        self.parked = Some(parked + 1);
        self.block(&park.record.key, cause);
        Ok(())
    }

    pub(super) fn block(&mut self, key: &str, cause: Cause) {
        self.states.entry(key.to_owned()).or_default().blocked = Some(cause);
    }

    pub(super) fn unblock(&mut self, key: &str) {
        self.states.entry(key.to_owned()).or_default().blocked = None;
    }

    pub(super) fn advance(&mut self, key: &str, version: i64, log_offset: i64) {
        self.states.entry(key.to_owned()).or_default().version = Some(version);
        self.advanced.insert(key.to_owned(), (version, log_offset));
    }

    pub(super) async fn save(
        self,
        conn: &mut PgConnection,
        consumer: &str,
        place: &Place,
    ) -> Result<(), sqlx::Error> {
        if self.advanced.is_empty() {
            return Ok(());
        }
        store::save_versions(conn, consumer, place, &self.advanced).await
    }
}
