//! What the owner of the machine may do without a password: `holdfast token`, and the logins of `seed` and `demo`.

use std::sync::Arc;

use holdfast_kernel::{Id, id, time};
use holdfast_platform::{
    database,
    fault::Fault,
    identity::Role,
    service::{Context, StartError},
};
use tokio::task::{JoinError, JoinSet};
use uuid::Uuid;

use crate::{
    Parts, Peers, Settings,
    domain::{Applicant, Email, OWNER, Session, UserAgent},
    error::AuthError,
    registration::{self, Person, Registration},
    store,
};

/// Most accounts one call mints.
pub const MINT_MAX_ACCOUNTS: u32 = 100_000;

const MINT_BATCH_ACCOUNTS: u32 = 500;
const MINT_MAX_CALLS: usize = 8;

/// Makes accounts beside the door. Whoever holds the secret and the database may.
pub struct Operator {
    parts: Arc<Parts>,
}

impl Operator {
    /// Stands on the same parts as [`build`](crate::build); the server may be up or down.
    pub async fn open(
        settings: &Settings,
        peers: Peers,
        context: Context,
    ) -> Result<Self, StartError> {
        let parts = Parts::make(settings, peers, context).await?;
        Ok(Self {
            parts: Arc::new(parts),
        })
    }

    /// Makes `count` accounts that nobody logs in to by password, with their profiles and a session each, and gives
    /// their access tokens. At most [`MINT_MAX_ACCOUNTS`].
    pub async fn mint_accounts(&self, role: Role, count: u32) -> Result<Vec<String>, Fault> {
        if count > MINT_MAX_ACCOUNTS {
            return Err(AuthError::TooManyAccounts(count).into());
        }
        let mut tokens = Vec::with_capacity(count as usize);
        for first in (0..count).step_by(MINT_BATCH_ACCOUNTS as usize) {
            let batch = MINT_BATCH_ACCOUNTS.min(count - first);
            tokens.extend(self.mint_batch(role, batch).await?);
        }
        Ok(tokens)
    }

    /// An access token of the account under which commands of the machine's owner act, which may do everything.
    ///
    /// It is the same account every time: what a command asks for again, after it was cut short, meets what it asked for
    /// before.
    pub async fn own_token(&self) -> Result<String, Fault> {
        let parts = &self.parts;
        let user = Id::new(OWNER);
        let owner = Applicant {
            user,
            email: Email::of_machine(user),
            password_hash: None,
            role: Role::Admin,
            created_at: time::to_micros(parts.context.clock.now()),
            attempt: Uuid::new_v4(),
        };
        match registration::enrol(parts, owner, Person::named(user.to_string())).await {
            Ok(_) | Err(AuthError::EmailTaken) => {}
            Err(error) => return Err(error.into()),
        }
        let mut tokens = self.open_sessions(&[user], Role::Admin).await?;
        Ok(tokens.remove(0))
    }

    /// Sees to it that this account exists, with this password and role; one that exists keeps its name.
    pub async fn ensure_account(
        &self,
        email: &str,
        password: &str,
        name: &str,
        role: Role,
    ) -> Result<Id<id::User>, Fault> {
        let email = Email::parse(email).map_err(Fault::from)?;
        let mut db = database::acquire(&self.parts.context.database).await?;
        let account = store::find_account_by_email(&mut db, &self.parts.vault, &email).await?;
        drop(db);
        let place = self.parts.passwords.enter()?;
        let Some(account) = account else {
            let registration = Registration {
                email,
                password: password.to_owned(),
                person: Person::named(name),
                role,
            };
            let registered = registration::register(&self.parts, place, registration).await?;
            return Ok(registered.user);
        };
        let about = vec![email.as_str().to_owned(), name.to_owned()];
        let passwords = &self.parts.passwords;
        let hash = passwords.hash(place, password.to_owned(), about).await?;
        let mut db = database::acquire(&self.parts.context.database).await?;
        store::reset_account(&mut db, account.user, role.as_str(), &hash).await?;
        Ok(account.user)
    }

    async fn mint_batch(&self, role: Role, count: u32) -> Result<Vec<String>, AuthError> {
        let parts = &self.parts;
        let now = time::to_micros(parts.context.clock.now());
        let machines: Vec<Applicant> = (0..count)
            .map(|_| {
                let user = Id::generate();
                Applicant {
                    user,
                    email: Email::of_machine(user),
                    password_hash: None,
                    role,
                    created_at: now,
                    attempt: Uuid::new_v4(),
                }
            })
            .collect();
        let mut tx = database::begin(&parts.context.database).await?;
        store::record_machines(&mut tx, &parts.vault, &machines).await?;
        database::commit(tx).await?;
        self.write_profiles(&machines).await?;
        let registrations: Vec<_> = machines
            .iter()
            .map(|machine| (machine.user, machine.attempt))
            .collect();
        registration::complete(parts, &registrations).await?;

        let users: Vec<_> = machines.iter().map(|machine| machine.user).collect();
        self.open_sessions(&users, role).await
    }

    async fn open_sessions(
        &self,
        users: &[Id<id::User>],
        role: Role,
    ) -> Result<Vec<String>, AuthError> {
        let parts = &self.parts;
        let now = time::to_micros(parts.context.clock.now());
        let lifetime = parts.minter.session_lifetime();
        let sessions: Vec<Session> = users
            .iter()
            .map(|user| {
                let agent = UserAgent::cut("holdfast token");
                Session::open(Id::generate(), *user, now, lifetime, agent)
            })
            .collect();
        let mut db = database::acquire(&parts.context.database).await?;
        store::insert_sessions(&mut db, &sessions).await?;
        sessions
            .iter()
            .map(|session| parts.minter.access_token(session, role, now))
            .collect()
    }

    /// A few at a time: users commits each of them.
    async fn write_profiles(&self, machines: &[Applicant]) -> Result<(), AuthError> {
        let mut calls = JoinSet::new();
        for machine in machines {
            if calls.len() == MINT_MAX_CALLS {
                finished(calls.join_next().await)?;
            }
            let parts = self.parts.clone();
            let (user, email) = (machine.user, machine.email.clone());
            calls.spawn(async move {
                let machine = Person::named(user.to_string());
                registration::write_profile(&parts, user, &email, machine).await
            });
        }
        while !calls.is_empty() {
            finished(calls.join_next().await)?;
        }
        Ok(())
    }
}

fn finished<T>(call: Option<Result<Result<T, AuthError>, JoinError>>) -> Result<(), AuthError> {
    match call {
        None | Some(Ok(Ok(_))) => Ok(()),
        Some(Ok(Err(error))) => Err(error),
        Some(Err(stopped)) => Err(AuthError::Profile(Fault::internal(stopped))),
    }
}
