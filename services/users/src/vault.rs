//! How what we hold of persons lies in the tables: sealed, each person under a key of their own.
//!
//! A row of the version before lies in the clear. A process that starts seals those first, a batch a transaction, unless
//! processes of that version still run beside it (`plain_personal_data`): they could not read what they find.

use holdfast_platform::{
    database,
    envelope::{Envelope, SubjectKey, Unopened},
    service::{Context, StartError},
};

use crate::{Settings, error::UsersError, store};

const PURPOSE: &str = "users personal data";
/// Rows sealed in one transaction.
const BATCH_MAX_ROWS: i64 = 500;

/// Seals and opens what lies in the tables.
#[derive(Clone)]
pub(crate) struct Vault {
    pub(crate) envelope: Envelope,
    /// Processes of the version before run beside this one.
    pub(crate) is_plain: bool,
}

/// A value as it lies in its two columns.
#[derive(Debug, Default)]
pub(crate) struct AtRest {
    pub(crate) plain: Option<String>,
    pub(crate) sealed: Option<Vec<u8>>,
}

impl Vault {
    pub(crate) fn new(settings: &Settings, context: &Context) -> Result<Self, StartError> {
        let version = settings.wrapping_key_version;
        if version == 0 || i32::try_from(version).is_err() {
            return Err(StartError::Setting {
                key: "users.wrapping_key_version".to_owned(),
                text: format!("{version}, wanted 1 or more"),
            });
        }
        Ok(Self {
            envelope: Envelope::new(&context.secrets, PURPOSE, version),
            is_plain: settings.plain_personal_data,
        })
    }

    /// A value as it is to lie in `place`.
    pub(crate) fn lay(&self, key: &SubjectKey, place: &str, value: &str) -> AtRest {
        if self.is_plain {
            return AtRest {
                plain: Some(value.to_owned()),
                sealed: None,
            };
        }
        AtRest {
            plain: None,
            sealed: Some(key.seal(place, value)),
        }
    }
}

impl AtRest {
    /// The value; none where there is none.
    pub(crate) fn read(
        self,
        key: Option<&SubjectKey>,
        place: &str,
    ) -> Result<Option<String>, Unopened> {
        // In the clear wins: only processes that do not seal write it.
        match (self.plain, self.sealed, key) {
            (Some(plain), ..) => Ok(Some(plain)),
            (None, Some(sealed), Some(key)) => key.open(place, &sealed).map(Some),
            (None, ..) => Ok(None),
        }
    }
}

/// Seals every row that lies in the clear. Killed halfway, it goes on where it was; several processes take turns.
pub(crate) async fn seal_rows(context: &Context, vault: &Vault) -> Result<(), UsersError> {
    if vault.is_plain {
        return Ok(());
    }
    let mut sealed = 0;
    loop {
        let mut tx = database::begin(&context.database).await?;
        let profiles = store::lock_plain_profiles(&mut tx, vault, BATCH_MAX_ROWS).await?;
        for profile in &profiles {
            store::save_profile(&mut tx, vault, profile).await?;
        }
        database::commit(tx).await?;
        sealed += profiles.len();
        if profiles.is_empty() {
            if sealed > 0 {
                tracing::info!(sealed, "sealed profiles that lay in the clear");
            }
            return Ok(());
        }
    }
}
