//! Profiles kept in memory, opened, for the people they are of.
//!
//! Everybody else reads the table: staff see what is written, and peers that write to a person must not do so a moment
//! after they were erased. What is kept of a person who was erased is forgotten with the news of it.

use std::{sync::Arc, time::Duration};

use holdfast_kernel::{Clock, Id, id};
use holdfast_platform::{
    cache::{Cache, Limits},
    database,
    fault::Fault,
    hearing::Hearing,
};
use sqlx::PgPool;

use crate::{domain::Profile, messages::HEARD, store, vault::Vault};

const LIMITS: Limits = Limits {
    ttl: Duration::from_mins(5),
    absent_ttl: Duration::from_secs(10),
    weight_max_bytes: 8 << 20,
    absent_max_entries: 10_000,
};
/// Of a profile besides its texts, about.
const PROFILE_BYTES: usize = 128;

/// What is kept in memory. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shown(Cache<Arc<Profile>>);

impl Shown {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self(Cache::new("users.profiles", LIMITS, clock, |profile| {
            PROFILE_BYTES + profile.email.len() + profile.name.as_str().len()
        }))
    }

    /// Every process of this service hears whose profile changed, and who was erased.
    pub(crate) fn hearing(&self) -> Hearing {
        Hearing::new("users", HEARD, Arc::new(self.0.clone()))
    }

    /// The profile of this person.
    pub(crate) async fn find(
        &self,
        user: Id<id::User>,
        database: &PgPool,
        vault: &Vault,
    ) -> Result<Option<Arc<Profile>>, Fault> {
        let found = self.0.get_or_fill(user.to_string(), || {
            let (database, vault) = (database.clone(), vault.clone());
            async move { read(user, &database, &vault).await }
        });
        found.await
    }

    /// Says that a profile was written, or may have been: what is asked for from here on is read anew.
    pub(crate) fn forget(&self, user: Id<id::User>) {
        self.0.forget(&user.to_string());
    }
}

async fn read(
    user: Id<id::User>,
    database: &PgPool,
    vault: &Vault,
) -> Result<Option<Arc<Profile>>, Fault> {
    let mut db = database::acquire(database).await?;
    let profile = store::find_profile(&mut db, vault, user).await?;
    Ok(profile.map(Arc::new))
}
