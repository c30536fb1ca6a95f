//! How e-mails lie in the tables: sealed, each person's under a key of their own, and found by an index that tells nothing.
//!
//! A row of the version before lies in the clear. A process that starts seals those first, a batch a transaction, unless
//! processes of that version still run beside it (`plain_personal_data`): they could not read what they find.

use holdfast_platform::{
    database,
    envelope::{BlindIndex, Envelope, SubjectKey, Unopened},
    service::{Context, StartError},
};

use crate::{Settings, domain::Email, error::AuthError, store};

const PURPOSE: &str = "auth personal data";
const INDEX_PURPOSE: &str = "auth e-mail index 1";
const EMAIL: &str = "account.email";
/// Rows sealed in one transaction.
const BATCH_MAX_ROWS: i64 = 500;

/// Seals and opens what lies in the tables.
#[derive(Clone)]
pub(crate) struct Vault {
    pub(crate) envelope: Envelope,
    index: BlindIndex,
    /// Processes of the version before run beside this one.
    pub(crate) is_plain: bool,
}

/// An e-mail as it lies in its columns.
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
                key: "auth.wrapping_key_version".to_owned(),
                text: format!("{version}, wanted 1 or more"),
            });
        }
        Ok(Self {
            envelope: Envelope::new(&context.secrets, PURPOSE, version),
            index: BlindIndex::new(&context.secrets, INDEX_PURPOSE),
            is_plain: settings.plain_personal_data,
        })
    }

    /// What stands for an e-mail where it is compared.
    pub(crate) fn index(&self, email: &Email) -> [u8; 32] {
        self.index.of(email.as_str())
    }

    /// What stands for these texts, one by one, where something is counted for them.
    pub(crate) fn stands_for(&self, texts: &[&str]) -> [u8; 32] {
        // No text of a length of its own ends where another begins.
        let parts = texts.iter().map(|text| format!("{} {text}", text.len()));
        self.index.of(&parts.collect::<Vec<_>>().join(" "))
    }

    /// An e-mail as it is to lie.
    pub(crate) fn lay(&self, key: &SubjectKey, email: &Email) -> AtRest {
        if self.is_plain {
            return AtRest {
                plain: Some(email.as_str().to_owned()),
                sealed: None,
            };
        }
        AtRest {
            plain: None,
            sealed: Some(key.seal(EMAIL, email.as_str())),
        }
    }
}

impl AtRest {
    /// The e-mail; none where there is none.
    pub(crate) fn read(self, key: Option<&SubjectKey>) -> Result<Option<String>, Unopened> {
        match (self.plain, self.sealed, key) {
            (Some(plain), ..) => Ok(Some(plain)),
            (None, Some(sealed), Some(key)) => key.open(EMAIL, &sealed).map(Some),
            (None, ..) => Ok(None),
        }
    }
}

/// Seals every row that lies in the clear. Killed halfway, it goes on where it was; several processes take turns.
pub(crate) async fn seal_rows(context: &Context, vault: &Vault) -> Result<(), AuthError> {
    if vault.is_plain {
        return Ok(());
    }
    let mut sealed = 0;
    loop {
        let mut tx = database::begin(&context.database).await?;
        let accounts = store::lock_plain_accounts(&mut tx, BATCH_MAX_ROWS).await?;
        for (user, email) in &accounts {
            store::seal_email(&mut tx, vault, *user, email).await?;
        }
        database::commit(tx).await?;
        sealed += accounts.len();
        if accounts.is_empty() {
            if sealed > 0 {
                tracing::info!(sealed, "sealed e-mails that lay in the clear");
            }
            return Ok(());
        }
    }
}
