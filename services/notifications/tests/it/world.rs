//! A person with an account, and the service as a process that can end and be started again on the same database.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc, time::Duration};

use holdfast_kernel::{Clock, Id, Timestamp, id};
use holdfast_notifications::{Peers, Settings};
use holdfast_platform::{
    consumer::{Consumer, Handling},
    identity::Role,
    message::Message,
    settings,
    transport::{self, Door, Transport},
};
use holdfast_proto::{
    notifications::v1::{self as pb, notifications_service_client::NotificationsServiceClient},
    page::v1::PageRequest,
    users::v1::{
        self as users,
        users_service_client::UsersServiceClient,
        users_service_server::{UsersService, UsersServiceServer},
    },
};
use holdfast_testkit::{Asker, FakeClock, Realm, TestDatabase, peer};
use jiff::SignedDuration;
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time};
use tokio_util::sync::CancellationToken;
use tonic::Status;

holdfast_testkit::scripted_peer! {
    /// Users, who know where people are reached.
    pub(crate) struct Users: UsersService {
        create_profile(users::CreateProfileRequest) -> users::CreateProfileResponse;
        get_profile(users::GetProfileRequest) -> users::GetProfileResponse;
        get_profiles(users::GetProfilesRequest) -> users::GetProfilesResponse;
        update_profile(users::UpdateProfileRequest) -> users::UpdateProfileResponse;
        list_addresses(users::ListAddressesRequest) -> users::ListAddressesResponse;
        add_address(users::AddAddressRequest) -> users::AddAddressResponse;
        change_address(users::ChangeAddressRequest) -> users::ChangeAddressResponse;
        remove_address(users::RemoveAddressRequest) -> users::RemoveAddressResponse;
    }
}

pub(crate) const ADDRESS: &str = "hanako@holdfast.example";
/// How long a test waits for something that never comes.
const WAIT_MAX_SECS: u64 = 30;
const LOOK_AGAIN_MILLIS: u64 = 10;

pub(crate) struct World {
    pub(crate) db: TestDatabase,
    pub(crate) clock: FakeClock,
    pub(crate) realm: Realm,
    pub(crate) users: Arc<Users>,
    pub(crate) person: Asker,
    folder: tempfile::TempDir,
    settings: Settings,
    consumer: Consumer,
    transport: Transport,
    shutdown: CancellationToken,
    worker: JoinHandle<()>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| ()).await
    }

    /// With other settings.
    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let db = TestDatabase::create("notifications", &holdfast_notifications::MIGRATOR).await;
        let clock = FakeClock::new("2026-12-01T09:00:00Z".parse().expect("a moment"));
        let realm = Realm::new(clock.clone());
        let users: Arc<Users> = Arc::default();
        users
            .get_profile
            .otherwise(|asked| Ok(profile(&asked.user_id, ADDRESS)));
        let folder = tempfile::tempdir().expect("a folder");
        let mut settings: Settings =
            settings::Settings::load(&[holdfast_notifications::DEFAULTS], None)
                .and_then(|settings| settings.section("notifications"))
                .expect("the defaults are settings");
        settings.mail_folder = folder.path().join("mail");
        settings.poll_millis = 20;
        change(&mut settings);
        let (consumer, transport, shutdown, worker) = start(&db, &realm, &users, &settings);
        Self {
            person: realm.somebody(Role::User),
            db,
            clock,
            realm,
            users,
            folder,
            settings,
            consumer,
            transport,
            shutdown,
            worker,
        }
    }

    /// Ends the process and starts another one on the same database.
    pub(crate) async fn restart(&mut self) {
        self.shutdown.cancel();
        (&mut self.worker).await.expect("it ends in order");
        let (consumer, transport, shutdown, worker) =
            start(&self.db, &self.realm, &self.users, &self.settings);
        self.consumer = consumer;
        self.transport = transport;
        self.shutdown = shutdown;
        self.worker = worker;
    }

    /// Why the service does not start with another setting.
    pub(crate) fn refuses(&self, change: impl FnOnce(&mut Settings)) -> String {
        let mut settings = self.settings.clone();
        change(&mut settings);
        let users = UsersServiceServer::from_arc(self.users.clone());
        let peers = Peers {
            users: UsersServiceClient::new(peer::local("users", users)),
        };
        let context = self.realm.context("notifications", self.db.app());
        match holdfast_notifications::build(&settings, peers, context) {
            Ok(_) => panic!("it starts"),
            Err(refused) => refused.to_string(),
        }
    }

    pub(crate) fn pass(&self, secs: i64) {
        self.clock.advance(SignedDuration::from_secs(secs));
    }

    /// News of an order of the person's, as orders announces it.
    pub(crate) fn order_news(&self, kind: &str, version: i64) -> Message {
        self.order_news_of(self.person.user, kind, version)
    }

    pub(crate) fn order_news_of(&self, user: Id<id::User>, kind: &str, version: i64) -> Message {
        let order = Id::<id::Order>::new(user.uuid()).to_string();
        let data = json!({
            "order_id": order,
            "user_id": user.to_string(),
            "source": "checkout",
            "status": "any",
            "total": {"amount": 12_500, "currency": "JPY"},
            "refunded": {"amount": 0, "currency": "JPY"},
        });
        message(
            "holdfast.orders",
            kind,
            &order,
            version,
            self.clock.now(),
            data,
        )
    }

    pub(crate) fn registration(&self) -> Message {
        let user = self.person.user.to_string();
        let data = json!({"user_id": user});
        message(
            "holdfast.accounts",
            "user.registered",
            &user,
            1,
            self.clock.now(),
            data,
        )
    }

    /// Lets a message take effect as the bus would.
    pub(crate) async fn hears(&self, message: &Message) {
        self.tries_to_hear(message).await.expect("an effect");
    }

    pub(crate) async fn tries_to_hear(&self, message: &Message) -> Result<(), Handling> {
        let mut tx = self.db.app().begin().await.expect("a transaction");
        self.consumer.handle(&mut tx, message).await?;
        tx.commit().await.expect("committed");
        Ok(())
    }

    pub(crate) async fn list(
        &self,
        languages: &str,
        size: i32,
        token: &str,
    ) -> Result<pb::ListNotificationsResponse, Status> {
        let request = pb::ListNotificationsRequest {
            languages: languages.to_owned(),
            page: Some(PageRequest {
                size,
                token: token.to_owned(),
            }),
        };
        let mut client = self.client();
        let answer = client.list_notifications(self.person.ask(request)).await?;
        Ok(answer.into_inner())
    }

    pub(crate) async fn read(&self, by: &Asker, id: &str) -> Result<pb::Notification, Status> {
        let request = pb::ReadNotificationRequest {
            notification_id: id.to_owned(),
            languages: String::new(),
        };
        let answer = self.client().read_notification(by.ask(request)).await?;
        Ok(answer.into_inner().notification.expect("set"))
    }

    pub(crate) fn client(&self) -> NotificationsServiceClient<Transport> {
        NotificationsServiceClient::new(self.transport.clone())
    }

    /// How the mails stand, in the order people were told: state and tries.
    pub(crate) async fn mails(&self) -> Vec<String> {
        let rows: Vec<(String, i32)> = sqlx::query_as("SELECT state, tries FROM mail ORDER BY seq")
            .fetch_all(&self.db.app())
            .await
            .expect("the table");
        rows.into_iter()
            .map(|(state, tries)| format!("{state} {tries}"))
            .collect()
    }

    /// Waits until the mails stand so.
    pub(crate) async fn mails_become(&self, wanted: &[&str]) {
        let mut last = Vec::new();
        let looking = time::timeout(Duration::from_secs(WAIT_MAX_SECS), async {
            loop {
                last = self.mails().await;
                if last == wanted {
                    return;
                }
                time::sleep(Duration::from_millis(LOOK_AGAIN_MILLIS)).await;
            }
        });
        let ended = looking.await;
        assert!(ended.is_ok(), "wanted {wanted:?}, got {last:?}");
    }

    /// Waits until the only mail was taken so many times and lies free again.
    pub(crate) async fn mail_is_left_after(&self, takes: i64) {
        let looking = time::timeout(Duration::from_secs(WAIT_MAX_SECS), async {
            loop {
                let left: bool = sqlx::query_scalar(
                    "SELECT epoch = $1 AND leased_until = '-infinity' FROM mail",
                )
                .bind(takes)
                .fetch_one(&self.db.app())
                .await
                .expect("one mail");
                if left {
                    return;
                }
                time::sleep(Duration::from_millis(LOOK_AGAIN_MILLIS)).await;
            }
        });
        assert!(looking.await.is_ok(), "not left after {takes} times");
    }

    /// The letters in the folder by their names, sorted.
    pub(crate) fn letters(&self) -> Vec<(String, String)> {
        let mut letters: Vec<_> = fs::read_dir(self.mail_folder())
            .expect("the folder")
            .map(|entry| entry.expect("an entry").path())
            .map(|path| {
                let name = path
                    .file_name()
                    .expect("a name")
                    .to_string_lossy()
                    .into_owned();
                let mode = fs::metadata(&path).expect("a file").permissions().mode();
                assert_eq!(mode & 0o777, 0o600, "{name}");
                (name, fs::read_to_string(&path).expect("a letter"))
            })
            .collect();
        letters.sort();
        letters
    }

    pub(crate) fn mail_folder(&self) -> PathBuf {
        self.folder.path().join("mail")
    }
}

pub(crate) fn profile(user: &str, address: &str) -> users::GetProfileResponse {
    profile_of_reader(user, address, "")
}

/// Of somebody who named this language.
pub(crate) fn profile_of_reader(
    user: &str,
    address: &str,
    locale: &str,
) -> users::GetProfileResponse {
    users::GetProfileResponse {
        profile: Some(users::Profile {
            user_id: user.to_owned(),
            email: address.to_owned(),
            name: "Hanako".to_owned(),
            locale: locale.to_owned(),
            ..users::Profile::default()
        }),
    }
}

/// A header of a letter.
pub(crate) fn header<'a>(letter: &'a str, name: &str) -> &'a str {
    letter
        .lines()
        .take_while(|line| !line.is_empty())
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .unwrap_or_else(|| panic!("no {name} in\n{letter}"))
}

fn start(
    db: &TestDatabase,
    realm: &Realm,
    users: &Arc<Users>,
    settings: &Settings,
) -> (Consumer, Transport, CancellationToken, JoinHandle<()>) {
    let context = realm.context("notifications", db.app());
    let shutdown = context.shutdown.clone();
    let server = UsersServiceServer::from_arc(users.clone());
    let peers = Peers {
        users: UsersServiceClient::new(peer::local("users", server)),
    };
    let mut service = holdfast_notifications::build(settings, peers, context).expect("built");
    let worker = service.tasks.pop().expect("the mail worker");
    let consumer = service.consumers.pop().expect("the teller");
    let transport = transport::local(Door::new("notifications", service.routes));
    (consumer, transport, shutdown, tokio::spawn(worker.work))
}

fn message(
    topic: &str,
    kind: &str,
    key: &str,
    version: i64,
    at: Timestamp,
    data: Value,
) -> Message {
    Message {
        id: Message::id_of(topic, key, version),
        topic: topic.to_owned(),
        key: key.to_owned(),
        version,
        kind: kind.to_owned(),
        at,
        traceparent: None,
        data,
    }
}
