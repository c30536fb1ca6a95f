//! One account, and the service as it and others find it.

use std::sync::Arc;

use holdfast_kernel::{Id, RequestId, Timestamp, id};
use holdfast_platform::{
    consumer::Consumer,
    hearing::Listener,
    identity::Role,
    message::Message,
    outbox,
    transport::{Door, Transport},
};
use holdfast_proto::users::v1::{self as pb, users_service_client::UsersServiceClient};
use holdfast_testkit::{Asker, FakeClock, Realm, TestDatabase};
use holdfast_users::{DEFAULTS, Settings};
use serde_json::json;
use sqlx::PgPool;
use tonic::Status;

pub(crate) struct World {
    db: Arc<TestDatabase>,
    realm: Realm,
    pub(crate) clock: FakeClock,
    process: Process,
    owner: Asker,
}

/// One process of the service.
struct Process {
    transport: Transport,
    consumers: Vec<Consumer>,
    listener: Arc<dyn Listener>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let db = TestDatabase::create("users", &holdfast_users::MIGRATOR).await;
        let clock = FakeClock::new(Timestamp::UNIX_EPOCH);
        let realm = Realm::new(clock.clone());
        let owner = realm.somebody(Role::User);
        let db = Arc::new(db);
        Self {
            process: start(&db, &realm, |_| ()).await,
            db,
            realm,
            clock,
            owner,
        }
    }

    /// Another process on the same database.
    pub(crate) async fn another(&self, change: impl FnOnce(&mut Settings)) -> Self {
        Self {
            process: start(&self.db, &self.realm, change).await,
            db: self.db.clone(),
            realm: self.realm.clone(),
            clock: self.clock.clone(),
            owner: self.owner.clone(),
        }
    }

    /// The one whose profile all calls are about.
    pub(crate) fn owner(&self) -> &Asker {
        &self.owner
    }

    /// Auth's news that the owner's account is not active any more, for good or for a while.
    pub(crate) async fn hears_of_deactivation(&self, erased: bool) {
        let user_id = self.owner.user.to_string();
        let message = Message {
            id: RequestId::generate().uuid(),
            topic: "holdfast.accounts".to_owned(),
            key: user_id.clone(),
            version: 2,
            kind: "user.deactivated".to_owned(),
            at: Timestamp::UNIX_EPOCH,
            traceparent: None,
            data: json!({"user_id": user_id, "erased": erased}),
        };
        for consumer in &self.process.consumers {
            let mut tx = self.db.app().begin().await.expect("a transaction");
            consumer.handle(&mut tx, &message).await.expect("an effect");
            tx.commit().await.expect("committed");
        }
    }

    /// Whether the service hears what is written, and so keeps anything; at first it does not.
    pub(crate) fn hear(&self, hears: bool) {
        self.process.listener.set_hearing(hears);
    }

    /// Lets the service hear all that was announced so far.
    pub(crate) async fn tell(&self) {
        let mut db = self.db.app().acquire().await.expect("a connection");
        let pending = outbox::pending(&mut db, 100).await.expect("the outbox");
        for message in &pending {
            self.process.listener.heard(message);
        }
    }

    pub(crate) fn database(&self) -> PgPool {
        self.db.app()
    }

    pub(crate) fn user(&self) -> Id<id::User> {
        self.owner.user
    }

    pub(crate) fn client(&self) -> UsersServiceClient<Transport> {
        UsersServiceClient::new(self.process.transport.clone())
    }

    pub(crate) async fn create_profile(&self, email: &str, name: &str) -> pb::Profile {
        self.create_profile_of_reader(email, name, "").await
    }

    /// Of somebody who reads these languages.
    pub(crate) async fn create_profile_of_reader(
        &self,
        email: &str,
        name: &str,
        languages: &str,
    ) -> pb::Profile {
        let request = pb::CreateProfileRequest {
            user_id: self.owner.user.to_string(),
            email: email.to_owned(),
            name: name.to_owned(),
            languages: languages.to_owned(),
        };
        let answer = self
            .client()
            .create_profile(self.realm.peer("auth").request(request))
            .await;
        answer
            .expect("a profile")
            .into_inner()
            .profile
            .expect("set")
    }

    pub(crate) async fn rename(&self, name: &str, version: i64) -> Result<pb::Profile, Status> {
        self.change(Some(name), None, version).await
    }

    pub(crate) async fn change(
        &self,
        name: Option<&str>,
        locale: Option<&str>,
        version: i64,
    ) -> Result<pb::Profile, Status> {
        let request = pb::UpdateProfileRequest {
            user_id: self.owner.user.to_string(),
            name: name.map(str::to_owned),
            expected_version: version,
            locale: locale.map(str::to_owned),
        };
        let answer = self
            .client()
            .update_profile(self.owner.ask(request))
            .await?;
        Ok(answer.into_inner().profile.expect("set"))
    }

    pub(crate) async fn profile_seen_by(&self, asker: &Asker) -> Result<pb::Profile, Status> {
        let request = pb::GetProfileRequest {
            user_id: self.owner.user.to_string(),
        };
        let answer = self.client().get_profile(asker.ask(request)).await?;
        Ok(answer.into_inner().profile.expect("set"))
    }

    pub(crate) async fn profile(&self) -> pb::Profile {
        self.profile_seen_by(&self.owner).await.expect("one's own")
    }

    pub(crate) fn somebody(&self, role: Role) -> Asker {
        self.realm.somebody(role)
    }

    /// What was announced, oldest first: kind and version.
    pub(crate) async fn announced(&self) -> Vec<String> {
        let mut db = self.db.app().acquire().await.expect("a connection");
        let pending = outbox::pending(&mut db, 100).await.expect("the outbox");
        pending
            .iter()
            .map(|message| format!("{} v{}", message.kind, message.version))
            .collect()
    }
}

async fn start(db: &TestDatabase, realm: &Realm, change: impl FnOnce(&mut Settings)) -> Process {
    let settings = holdfast_platform::settings::Settings::load(&[DEFAULTS], None);
    let mut settings: Settings = settings
        .and_then(|settings| settings.section("users"))
        .expect("the defaults can be read");
    change(&mut settings);
    let context = realm.context("users", db.app());
    let service = holdfast_users::build(&settings, context).await;
    let service = service.unwrap_or_else(|error| panic!("{error}"));
    for task in service.tasks {
        tokio::spawn(task.work);
    }
    let door = Door::new("users", service.routes);
    Process {
        transport: holdfast_platform::transport::local(door),
        consumers: service.consumers,
        listener: (service.hearing.expect("it hears its own news").listener()).clone(),
    }
}
