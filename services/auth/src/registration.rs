//! How an account comes to be, together with its profile, though the two lie in two services.
//!
//! ```text
//! record the applicant  →  write the profile (users)  →  complete the account and announce it
//! ```
//!
//! Until the last step nobody can log in and the address is free. A crash between the steps is healed by whoever
//! registers that address next, most likely the same person once more: the registration takes over the account that was
//! left on its way, id included, so that no profile is left behind without an account. Of several registrations of one
//! address at once the last to begin completes it, with its own password; the others are told that it is taken.

use holdfast_kernel::{Id, Timestamp, id, time};
use holdfast_platform::{database, failpoint, fault::Fault, identity::Role};
use holdfast_proto::users::v1 as users;
use uuid::Uuid;

use crate::{
    Parts,
    domain::{Applicant, Email},
    error::AuthError,
    messages,
    password::Place,
    store,
};

/// Before and after each commit.
pub const FAILPOINTS: &[&str] = &[
    "auth.recording",
    "auth.recorded",
    "auth.registering",
    "auth.registered",
];

/// What somebody asks to be registered with.
pub(crate) struct Registration {
    pub(crate) email: Email,
    pub(crate) password: String,
    pub(crate) person: Person,
    pub(crate) role: Role,
}

/// What a profile begins with.
pub(crate) struct Person {
    pub(crate) name: String,
    /// Languages they read, as `Accept-Language` names them.
    pub(crate) languages: String,
}

/// What came of it.
pub(crate) struct Registered {
    pub(crate) user: Id<id::User>,
    pub(crate) profile: users::Profile,
    pub(crate) created_at: Timestamp,
}

impl Person {
    /// Somebody who says no more than a name.
    pub(crate) fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            languages: String::new(),
        }
    }
}

/// Registers an account with a password.
pub(crate) async fn register(
    parts: &Parts,
    place: Place,
    registration: Registration,
) -> Result<Registered, AuthError> {
    let Registration {
        email,
        password,
        person,
        role,
    } = registration;
    let about = vec![email.as_str().to_owned(), person.name.clone()];
    let password_hash = parts.passwords.hash(place, password, about).await?;
    let created_at = time::to_micros(parts.context.clock.now());
    let applicant = Applicant {
        user: Id::generate(),
        email,
        password_hash: Some(password_hash),
        role,
        created_at,
        attempt: Uuid::new_v4(),
    };
    enrol(parts, applicant, person).await
}

/// Makes an account with its profile. Fails with [`AuthError::EmailTaken`] where a complete one has the address.
pub(crate) async fn enrol(
    parts: &Parts,
    applicant: Applicant,
    person: Person,
) -> Result<Registered, AuthError> {
    failpoint::hit("auth.recording").await?;
    let mut tx = database::begin(&parts.context.database).await?;
    let user = store::record_applicant(&mut tx, &parts.vault, &applicant)
        .await?
        .ok_or(AuthError::EmailTaken)?;
    database::commit(tx).await?;
    failpoint::hit("auth.recorded").await?;
    let profile = write_profile(parts, user, &applicant.email, person).await?;
    let completed = complete(parts, &[(user, applicant.attempt)]).await?;
    if completed != [user] {
        return Err(AuthError::EmailTaken);
    }
    Ok(Registered {
        user,
        profile,
        created_at: applicant.created_at,
    })
}

/// Writes the profile of an account; one that is written already stays as it is.
pub(crate) async fn write_profile(
    parts: &Parts,
    user: Id<id::User>,
    email: &Email,
    person: Person,
) -> Result<users::Profile, AuthError> {
    let request = users::CreateProfileRequest {
        user_id: user.to_string(),
        email: email.as_str().to_owned(),
        name: person.name,
        languages: person.languages,
    };
    let answer = parts
        .peers
        .users
        .clone()
        .create_profile(parts.context.identity.request(request))
        .await
        .map_err(|status| AuthError::Profile(Fault::from_status(&status)))?;
    answer
        .into_inner()
        .profile
        .ok_or_else(|| AuthError::Profile(Fault::internal("the answer has no profile")))
}

/// Completes accounts whose profiles are written; gives those whose attempt was still the one on its way.
pub(crate) async fn complete(
    parts: &Parts,
    registrations: &[(Id<id::User>, Uuid)],
) -> Result<Vec<Id<id::User>>, AuthError> {
    let now = time::to_micros(parts.context.clock.now());
    let mut tx = database::begin(&parts.context.database).await?;
    let completed = store::complete_registrations(&mut tx, registrations, now).await?;
    messages::announce_registered(&mut tx, &completed, now).await?;
    failpoint::hit("auth.registering").await?;
    database::commit(tx).await?;
    parts.context.wake.wake();
    failpoint::hit("auth.registered").await?;
    Ok(completed)
}
