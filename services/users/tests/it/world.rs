//! One account, and the service as it and others find it.

use std::sync::Arc;

use holdfast_kernel::{Id, Timestamp, id};
use holdfast_platform::{
    identity::Role,
    outbox,
    transport::{Door, Transport},
};
use holdfast_proto::users::v1::{self as pb, users_service_client::UsersServiceClient};
use holdfast_testkit::{Asker, FakeClock, Realm, TestDatabase};
use holdfast_users::{DEFAULTS, Settings};
use sqlx::PgPool;
use tonic::Status;

pub(crate) struct World {
    db: Arc<TestDatabase>,
    realm: Realm,
    transport: Transport,
    owner: Asker,
}

impl World {
    pub(crate) async fn new() -> Self {
        let db = TestDatabase::create("users", &holdfast_users::MIGRATOR).await;
        let realm = Realm::new(FakeClock::new(Timestamp::UNIX_EPOCH));
        let owner = realm.somebody(Role::User);
        let db = Arc::new(db);
        let transport = start(&db, &realm, |_| ()).await;
        Self {
            db,
            realm,
            transport,
            owner,
        }
    }

    /// Another process on the same database.
    pub(crate) async fn another(&self, change: impl FnOnce(&mut Settings)) -> Self {
        Self {
            db: self.db.clone(),
            realm: self.realm.clone(),
            transport: start(&self.db, &self.realm, change).await,
            owner: self.owner.clone(),
        }
    }

    pub(crate) fn database(&self) -> PgPool {
        self.db.app()
    }

    pub(crate) fn user(&self) -> Id<id::User> {
        self.owner.user
    }

    pub(crate) fn client(&self) -> UsersServiceClient<Transport> {
        UsersServiceClient::new(self.transport.clone())
    }

    pub(crate) async fn create_profile(&self, email: &str, name: &str) -> pb::Profile {
        let request = pb::CreateProfileRequest {
            user_id: self.owner.user.to_string(),
            email: email.to_owned(),
            name: name.to_owned(),
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
        let request = pb::UpdateProfileRequest {
            user_id: self.owner.user.to_string(),
            name: name.to_owned(),
            expected_version: version,
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

async fn start(db: &TestDatabase, realm: &Realm, change: impl FnOnce(&mut Settings)) -> Transport {
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
    holdfast_platform::transport::local(Door::new("users", service.routes))
}
