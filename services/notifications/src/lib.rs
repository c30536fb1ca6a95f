//! What people are told: a log of it, a list in the app, and mail in their language.
//!
//! Read in this order: `domain` (what is told, and by which rules mail goes), `messages` (the news it comes from),
//! `texts` (the words), `letter` (a mail as it travels), `post` (who takes it: a folder or a mail server), `worker` (who
//! brings it there), `people` (who they are), `api` (the door), [`dead`] (mail that was given up), `store` (the tables),
//! `points` (where tests make it fail), `error` (how it refuses).

mod api;
pub mod dead;
mod domain;
mod error;
mod letter;
mod messages;
mod people;
mod points;
mod post;
mod store;
mod texts;
mod worker;

use std::{path::PathBuf, sync::Arc, time::Duration};

use holdfast_kernel::Language;
use holdfast_platform::{
    identity::Gate,
    service::{Context, Service, StartError, Task},
    transport::Transport,
};
use holdfast_proto::{
    notifications::v1::notifications_service_server::NotificationsServiceServer,
    users::v1::users_service_client::UsersServiceClient,
};
use lettre::message::Mailbox;
use serde::Deserialize;
use sqlx::migrate::Migrator;
use tonic::service::Routes;

use crate::{
    domain::Bounds,
    people::PROFILE_SECS,
    post::{Folder, Post, Smtp},
    texts::Texts,
    worker::{Bell, Desk, Pace},
};

pub use api::ACCESS;
pub use points::FAILPOINTS;

/// The schema of this service.
pub static MIGRATOR: Migrator = sqlx::migrate!();

/// The defaults of [`Settings`], each key with its meaning and unit.
pub const DEFAULTS: &str = include_str!("../settings.toml");

/// The section `[notifications]`; see `settings.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "settings.toml explains each key")]
pub struct Settings {
    pub database_url: String,
    pub owner_database_url: String,
    pub max_connections: u32,
    pub default_locale: String,
    pub shop_name: String,
    pub mail_from: String,
    pub mail: Carrier,
    /// Not empty any more when the service is built.
    pub mail_folder: PathBuf,
    pub smtp_url: String,
    pub mail_secs: u64,
    pub mails_per_day: i64,
    pub too_old_hours: u64,
    pub lease_secs: u64,
    pub poll_millis: u64,
    pub worker_max_mails: usize,
}

/// Who takes mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Carrier {
    /// A folder of files.
    Folder,
    /// A mail server.
    Smtp,
}

/// Whom this service calls.
#[derive(Clone)]
pub struct Peers {
    /// Where people are reached, and by which name.
    pub users: UsersServiceClient<Transport>,
}

/// Longest bound that can be set: a year of hours, a day of seconds.
const HOURS_MAX: u64 = 366 * 24;
const SECS_MAX: u64 = 24 * 60 * 60;
/// Most mails that one worker may hand over at the same time.
const MAILS_MAX: u64 = 1_000;

/// Builds the service. It connects to no mail server yet.
pub fn build(settings: &Settings, peers: Peers, context: Context) -> Result<Service, StartError> {
    check(settings)?;
    let language = Language::parse(&settings.default_locale)
        .ok_or_else(|| refused("default_locale", &settings.default_locale, "en or ja"))?;
    let texts = Texts::load(&settings.shop_name).map_err(|error| StartError::Defect {
        service: "notifications",
        text: format!("a template does not render: {error:#}"),
    })?;
    let texts = Arc::new(texts);
    let bell = Bell::default();
    let bounds = Bounds {
        mails_max: settings.mails_per_day,
        age_max: Duration::from_hours(settings.too_old_hours),
    };
    let consumer = messages::consumer(context.clock.clone(), bounds, bell.clone());
    let api = api::Api::new(peers.clone(), context.clone(), texts.clone(), language);
    let verifier = context.verifier.clone();
    let desk = Desk {
        peers,
        context,
        texts,
        post: post(settings)?,
        from: sender(settings)?,
        language,
        bell,
        pace: Pace {
            mails_max: settings.worker_max_mails,
            lease: Duration::from_secs(settings.lease_secs),
            delivery: Duration::from_secs(settings.mail_secs),
            poll: Duration::from_millis(settings.poll_millis),
        },
        random: rand::random,
    };
    let routes = Routes::new(Gate::new(
        NotificationsServiceServer::new(api),
        ACCESS,
        verifier,
    ));
    Ok(Service {
        consumers: vec![consumer],
        tasks: vec![Task::new("mail worker", worker::work(desk))],
        ..Service::new("notifications", routes)
    })
}

fn post(settings: &Settings) -> Result<Box<dyn Post>, StartError> {
    match settings.mail {
        Carrier::Folder => match Folder::open(&settings.mail_folder) {
            Ok(folder) => Ok(Box::new(folder)),
            Err(error) => Err(StartError::Setting {
                key: "notifications.mail_folder".to_owned(),
                text: format!("{}: {error}", settings.mail_folder.display()),
            }),
        },
        Carrier::Smtp => {
            let timeout = Duration::from_secs(settings.mail_secs);
            match Smtp::open(&settings.smtp_url, timeout) {
                Ok(smtp) => Ok(Box::new(smtp)),
                // The URL may hold a password: it is not repeated.
                Err(_) => Err(StartError::Setting {
                    key: "notifications.smtp_url".to_owned(),
                    text: "wanted a URL such as smtps://user:password@mail.example:465".to_owned(),
                }),
            }
        }
    }
}

fn sender(settings: &Settings) -> Result<Mailbox, StartError> {
    let address = settings.mail_from.parse().map_err(|_| {
        refused(
            "mail_from",
            &settings.mail_from,
            "an address such as no-reply@shop.example",
        )
    })?;
    Ok(Mailbox::new(Some(settings.shop_name.clone()), address))
}

fn check(settings: &Settings) -> Result<(), StartError> {
    let least_lease = settings.mail_secs.saturating_add(2 * PROFILE_SECS);
    for (key, value, least, most) in [
        ("mail_secs", settings.mail_secs, 1, SECS_MAX),
        ("lease_secs", settings.lease_secs, least_lease, SECS_MAX),
        ("too_old_hours", settings.too_old_hours, 1, HOURS_MAX),
        ("poll_millis", settings.poll_millis, 1, SECS_MAX * 1_000),
        (
            "worker_max_mails",
            settings.worker_max_mails as u64,
            1,
            MAILS_MAX,
        ),
    ] {
        if !(least..=most).contains(&value) {
            return Err(refused(key, value, format!("{least} to {most}")));
        }
    }
    if settings.mails_per_day < 0 {
        return Err(refused(
            "mails_per_day",
            settings.mails_per_day,
            "0 or more",
        ));
    }
    let shop = &settings.shop_name;
    if shop.trim().is_empty() || shop.chars().any(char::is_control) {
        return Err(refused("shop_name", shop, "a name on one line"));
    }
    Ok(())
}

fn refused(key: &str, got: impl std::fmt::Debug, wanted: impl std::fmt::Display) -> StartError {
    StartError::Setting {
        key: format!("notifications.{key}"),
        text: format!("got {got:?}, wanted {wanted}"),
    }
}
