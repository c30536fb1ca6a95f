//! The auth service at its door, with users scripted beside it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use holdfast_auth::{DEFAULTS, MIGRATOR, Operator, Peers, Settings};
use holdfast_platform::{
    cluster::Secrets,
    fault::Fault,
    identity::{
        Access, Claims, Gate, KeySource, PeerIdentity, PeerKey, Role, VERIFIER_PEER, Verifier,
    },
    message::Message,
    outbox,
    service::{Context, StartError},
    transport::{Door, Routes, Slot, Transport, local, open_ended},
};
use holdfast_proto::{
    auth::v1::{self as pb, auth_service_client::AuthServiceClient},
    users::v1::{
        self as users_pb, CreateProfileRequest, CreateProfileResponse, GetProfileRequest,
        GetProfileResponse, GetProfilesRequest, GetProfilesResponse, Profile, UpdateProfileRequest,
        UpdateProfileResponse,
        users_service_client::UsersServiceClient,
        users_service_server::{UsersService, UsersServiceServer},
    },
};
use holdfast_testkit::{FakeClock, Realm, TestDatabase, scripted_peer};
use jiff::SignedDuration;
use serde_json::Value;
use tokio::time::timeout;
use tonic::{Request, Status, Streaming};

pub(crate) const ADA: &str = "ada@example.com";
pub(crate) const PASSWORD: &str = "correct horse battery staple";

pub(crate) const SECRET: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
pub(crate) const ANOTHER_SECRET: &str =
    "1f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";

pub(crate) struct World {
    pub(crate) database: Arc<TestDatabase>,
    pub(crate) clock: FakeClock,
    pub(crate) users: ScriptedUsers,
    pub(crate) verifier: Verifier,
    pub(crate) auth: AuthServiceClient<Transport>,
}

scripted_peer! {
    /// Users, as far as auth asks it.
    struct UsersPeer: UsersService {
        create_profile(CreateProfileRequest) -> CreateProfileResponse;
        get_profile(GetProfileRequest) -> GetProfileResponse;
        get_profiles(GetProfilesRequest) -> GetProfilesResponse;
        update_profile(UpdateProfileRequest) -> UpdateProfileResponse;
        list_addresses(users_pb::ListAddressesRequest) -> users_pb::ListAddressesResponse;
        add_address(users_pb::AddAddressRequest) -> users_pb::AddAddressResponse;
        change_address(users_pb::ChangeAddressRequest) -> users_pb::ChangeAddressResponse;
        remove_address(users_pb::RemoveAddressRequest) -> users_pb::RemoveAddressResponse;
    }
}

/// Writes profiles as the real one does, and fails where it is told to.
#[derive(Clone)]
pub(crate) struct ScriptedUsers {
    peer: Arc<UsersPeer>,
    book: Arc<Mutex<Book>>,
}

#[derive(Default)]
struct Book {
    profiles: Vec<Profile>,
    mishap: Option<Mishap>,
}

/// What befalls the next call.
#[derive(Clone, Copy)]
pub(crate) enum Mishap {
    AwayBeforeWriting,
    AwayAfterWriting,
    NameRefused,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| ()).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let database = Arc::new(TestDatabase::create("auth", &MIGRATOR).await);
        let start = "2026-12-01T10:00:00Z".parse().expect("a moment");
        let clock = FakeClock::new(start);
        let users = ScriptedUsers::new();
        let started = start_auth(&database, &clock, &users, SECRET, change).await;
        let (verifier, auth) = started.unwrap_or_else(|error| panic!("{error}"));
        Self {
            database,
            clock,
            users,
            verifier,
            auth,
        }
    }

    /// Another process on the same database.
    pub(crate) async fn another(&self, change: impl FnOnce(&mut Settings)) -> Self {
        let started = self.start(SECRET, change).await;
        let (verifier, auth) = started.unwrap_or_else(|error| panic!("{error}"));
        Self {
            database: self.database.clone(),
            clock: self.clock.clone(),
            users: self.users.clone(),
            verifier,
            auth,
        }
    }

    pub(crate) async fn start(
        &self,
        secret: &str,
        change: impl FnOnce(&mut Settings),
    ) -> Result<(Verifier, AuthServiceClient<Transport>), StartError> {
        start_auth(&self.database, &self.clock, &self.users, secret, change).await
    }

    pub(crate) async fn operator(&self) -> Operator {
        let (context, peers, _) = parts(&self.database, &self.clock, &self.users, SECRET);
        Operator::open(&settings(|_| ()), peers, context)
            .await
            .expect("the database is up")
    }

    pub(crate) async fn register(&self, email: &str, password: &str) -> Result<pb::Account, Fault> {
        let request = pb::RegisterRequest {
            email: email.to_owned(),
            password: password.to_owned(),
            name: "Ada".to_owned(),
            languages: "ja".to_owned(),
        };
        match self.auth.clone().register(request).await {
            Ok(answer) => Ok(answer.into_inner().account.expect("an account")),
            Err(status) => Err(Fault::from_status(&status)),
        }
    }

    pub(crate) async fn login(&self, email: &str, password: &str) -> Result<pb::Tokens, Fault> {
        self.try_login(email, password)
            .await
            .map_err(|status| Fault::from_status(&status))
    }

    pub(crate) async fn try_login(
        &self,
        email: &str,
        password: &str,
    ) -> Result<pb::Tokens, Status> {
        let request = pb::LoginRequest {
            email: email.to_owned(),
            password: password.to_owned(),
            user_agent: "a test".to_owned(),
            client_address: String::new(),
        };
        let answer = self.auth.clone().login(request).await?;
        Ok(answer.into_inner().tokens.expect("tokens"))
    }

    /// A login from an address.
    pub(crate) async fn login_from(
        &self,
        place: &str,
        email: &str,
        password: &str,
    ) -> Result<pb::Tokens, Fault> {
        let request = pb::LoginRequest {
            email: email.to_owned(),
            password: password.to_owned(),
            user_agent: "a test".to_owned(),
            client_address: place.to_owned(),
        };
        match self.auth.clone().login(request).await {
            Ok(answer) => Ok(answer.into_inner().tokens.expect("tokens")),
            Err(status) => Err(Fault::from_status(&status)),
        }
    }

    pub(crate) async fn change_password(
        &self,
        token: &str,
        current: &str,
        new: &str,
    ) -> Result<(), Fault> {
        let request = pb::ChangePasswordRequest {
            current: current.to_owned(),
            new: new.to_owned(),
        };
        let changed = self
            .auth
            .clone()
            .change_password(bearing(token, request))
            .await;
        changed
            .map(drop)
            .map_err(|status| Fault::from_status(&status))
    }

    /// Ada, registered and logged in.
    pub(crate) async fn ada(&self) -> pb::Tokens {
        self.register(ADA, PASSWORD).await.expect("registered");
        self.login(ADA, PASSWORD).await.expect("logged in")
    }

    /// The next tokens, or the reason why there are none.
    pub(crate) async fn refresh(&self, refresh_token: &str) -> Result<pb::Tokens, String> {
        let request = pb::RefreshRequest {
            refresh_token: refresh_token.to_owned(),
        };
        match self.auth.clone().refresh(request).await {
            Ok(answer) => Ok(answer.into_inner().tokens.expect("tokens")),
            Err(status) => Err(Fault::from_status(&status).reason().to_owned()),
        }
    }

    pub(crate) async fn logout(&self, token: &str) -> Result<(), Fault> {
        match self
            .auth
            .clone()
            .logout(bearing(token, pb::LogoutRequest {}))
            .await
        {
            Ok(_) => Ok(()),
            Err(status) => Err(Fault::from_status(&status)),
        }
    }

    /// The caller's open sessions.
    pub(crate) async fn sessions(&self, token: &str) -> Vec<pb::Session> {
        let request = bearing(token, pb::ListSessionsRequest {});
        let answer = self.auth.clone().list_sessions(request).await;
        answer.expect("listed").into_inner().sessions
    }

    pub(crate) async fn end_session(&self, token: &str, session_id: &str) -> Result<(), Fault> {
        let session_id = session_id.to_owned();
        let request = bearing(token, pb::EndSessionRequest { session_id });
        let ended = self.auth.clone().end_session(request).await;
        ended
            .map(drop)
            .map_err(|status| Fault::from_status(&status))
    }

    /// Follows what is revoked from now on, as processes do.
    pub(crate) async fn watch(&self) -> Watching {
        let mut request = open_ended(pb::WatchRevocationsRequest {});
        *request.metadata_mut() = self.verifying().request(()).into_parts().0;
        let answer = self.auth.clone().watch_revocations(request).await;
        let mut watching = Watching {
            stream: answer.expect("a stream").into_inner(),
            snapshot: Vec::new(),
        };
        watching.snapshot = watching.next().await;
        watching
    }

    pub(crate) async fn is_open(&self, session_id: &str) -> bool {
        let session_id = session_id.to_owned();
        let request = self
            .verifying()
            .request(pb::IsSessionOpenRequest { session_id });
        let answer = self.auth.clone().is_session_open(request).await;
        answer.expect("answered").into_inner().open
    }

    fn verifying(&self) -> PeerIdentity {
        let key = PeerKey::new(&secrets(SECRET).key("peers"));
        PeerIdentity::new(VERIFIER_PEER, key, Arc::new(self.clock.clone()))
    }

    pub(crate) async fn claims(&self, access_token: &str) -> Arc<Claims> {
        self.verifier
            .verify(access_token)
            .await
            .expect("a token of ours")
    }

    pub(crate) fn pass(&self, secs: i64) {
        self.clock.advance(SignedDuration::from_secs(secs));
    }

    /// What was announced of accounts, oldest first: kind and version.
    pub(crate) async fn announced(&self) -> Vec<String> {
        let news = self.outbox("holdfast.accounts").await;
        news.iter()
            .map(|message| format!("{} v{}", message.kind, message.version))
            .collect()
    }

    /// What was written down for the audit log, oldest first.
    pub(crate) async fn audited(&self) -> Vec<Value> {
        let lines = self.outbox("holdfast.audit").await;
        lines.into_iter().map(|line| line.data).collect()
    }

    async fn outbox(&self, topic: &str) -> Vec<Message> {
        let mut db = self.database.app().acquire().await.expect("a connection");
        let mut pending = outbox::pending(&mut db, 500).await.expect("the outbox");
        pending.retain(|message| message.topic == topic);
        pending
    }

    /// The token of somebody new with this role.
    pub(crate) async fn somebody(&self, role: Role) -> String {
        let minted = self.operator().await.mint_accounts(role, 1).await;
        minted.expect("minted").remove(0)
    }

    pub(crate) async fn account(&self, token: &str, user_id: &str) -> Result<pb::Account, Fault> {
        let user_id = user_id.to_owned();
        let request = bearing(token, pb::GetAccountRequest { user_id });
        match self.auth.clone().get_account(request).await {
            Ok(answer) => Ok(answer.into_inner().account.expect("an account")),
            Err(status) => Err(Fault::from_status(&status)),
        }
    }

    pub(crate) async fn set_role(
        &self,
        token: &str,
        user_id: &str,
        role: &str,
    ) -> Result<pb::Account, Fault> {
        let request = pb::SetRoleRequest {
            user_id: user_id.to_owned(),
            role: role.to_owned(),
        };
        match self.auth.clone().set_role(bearing(token, request)).await {
            Ok(answer) => Ok(answer.into_inner().account.expect("an account")),
            Err(status) => Err(Fault::from_status(&status)),
        }
    }

    pub(crate) async fn erase(&self, token: &str, user_id: &str) -> Result<(), Fault> {
        let user_id = user_id.to_owned();
        let request = bearing(token, pb::EraseAccountRequest { user_id });
        let erased = self.auth.clone().erase_account(request).await;
        erased
            .map(drop)
            .map_err(|status| Fault::from_status(&status))
    }

    pub(crate) async fn set_active(
        &self,
        token: &str,
        user_id: &str,
        is_active: bool,
    ) -> Result<pb::Account, Fault> {
        let request = pb::SetActiveRequest {
            user_id: user_id.to_owned(),
            is_active,
        };
        match self.auth.clone().set_active(bearing(token, request)).await {
            Ok(answer) => Ok(answer.into_inner().account.expect("an account")),
            Err(status) => Err(Fault::from_status(&status)),
        }
    }

    pub(crate) async fn count(&self, table: &'static str) -> i64 {
        sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
            .fetch_one(&self.database.app())
            .await
            .expect("a table")
    }

    pub(crate) async fn password_hash(&self) -> String {
        sqlx::query_scalar("SELECT password_hash FROM account")
            .fetch_one(&self.database.app())
            .await
            .expect("one account")
    }
}

/// What a process hears that follows revocations.
pub(crate) struct Watching {
    stream: Streaming<pb::WatchRevocationsResponse>,
    /// What mattered when it began.
    pub(crate) snapshot: Vec<String>,
}

impl Watching {
    /// The sessions that the next answer names.
    pub(crate) async fn next(&mut self) -> Vec<String> {
        let news = timeout(HEARD_MAX, self.stream.message()).await;
        let news = news.expect("in time").expect("a stream").expect("no end");
        let sessions = news.revoked.into_iter();
        sessions.map(|revoked| revoked.session_id).collect()
    }

    /// The sessions that the next answer that names any names.
    pub(crate) async fn ended(&mut self) -> Vec<String> {
        loop {
            let ended = self.next().await;
            if !ended.is_empty() {
                return ended;
            }
        }
    }
}

/// How long a test waits for what is told.
const HEARD_MAX: Duration = Duration::from_secs(20);

impl ScriptedUsers {
    fn new() -> Self {
        let (peer, book) = (
            Arc::new(UsersPeer::default()),
            Arc::<Mutex<Book>>::default(),
        );
        let written = book.clone();
        peer.create_profile
            .otherwise(move |request| written.lock().expect(UNPOISONED).create_profile(request));
        Self { peer, book }
    }

    pub(crate) fn befall(&self, mishap: Mishap) {
        self.book.lock().expect(UNPOISONED).mishap = Some(mishap);
    }

    pub(crate) fn profiles(&self) -> Vec<Profile> {
        self.book.lock().expect(UNPOISONED).profiles.clone()
    }
}

const UNPOISONED: &str = "nobody panics with the book open";

impl Book {
    fn create_profile(
        &mut self,
        request: &CreateProfileRequest,
    ) -> Result<CreateProfileResponse, Status> {
        let mishap = self.mishap.take();
        match mishap {
            Some(Mishap::AwayBeforeWriting) => return Err(Status::unavailable("away")),
            Some(Mishap::NameRefused) => return Err(Fault::invalid("name", "too long").into()),
            Some(Mishap::AwayAfterWriting) | None => (),
        }
        let known = self
            .profiles
            .iter()
            .find(|profile| profile.user_id == request.user_id)
            .cloned();
        let profile = known.unwrap_or_else(|| {
            let profile = Profile {
                user_id: request.user_id.clone(),
                email: request.email.clone(),
                name: request.name.clone(),
                created_at: None,
                version: 1,
                locale: request.languages.clone(),
            };
            self.profiles.push(profile.clone());
            profile
        });
        if mishap.is_some() {
            return Err(Status::unavailable("away"));
        }
        Ok(CreateProfileResponse {
            profile: Some(profile),
        })
    }
}

/// A request that carries this token, whatever it is.
pub(crate) fn bearing<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().expect("ASCII");
    request.metadata_mut().insert("authorization", value);
    request
}

async fn start_auth(
    database: &TestDatabase,
    clock: &FakeClock,
    users: &ScriptedUsers,
    secret: &str,
    change: impl FnOnce(&mut Settings),
) -> Result<(Verifier, AuthServiceClient<Transport>), StartError> {
    let (context, peers, own) = parts(database, clock, users, secret);
    let verifier = context.verifier.clone();
    let service = holdfast_auth::build(settings(change), peers, context).await?;
    own.fill_local(Door::new("auth", service.routes));
    for task in service.tasks {
        tokio::spawn(task.work);
    }
    Ok((verifier, AuthServiceClient::new(own.transport())))
}

/// What a process has when auth starts in it: a verifier that will ask this auth for its keys, and users.
fn parts(
    database: &TestDatabase,
    clock: &FakeClock,
    users: &ScriptedUsers,
    secret: &str,
) -> (Context, Peers, Slot) {
    let mut context = Realm::new(clock.clone()).context("auth", database.app());
    context.secrets = secrets(secret);
    let peer_key = PeerKey::new(&context.secrets.key("peers"));
    context.identity = PeerIdentity::new("auth", peer_key.clone(), context.clock.clone());

    let own = Slot::new("auth");
    let keys = AuthServiceClient::new(own.transport());
    let source: KeySource = Arc::new(move || {
        let mut keys = keys.clone();
        Box::pin(async move {
            match keys.get_keys(pb::GetKeysRequest {}).await {
                Ok(answer) => Ok(answer.into_inner().jwks),
                Err(status) => Err(Fault::from_status(&status)),
            }
        })
    });
    let issuer = "https://shop.example";
    let clock = context.clock.clone();
    context.verifier = Verifier::new(issuer, "holdfast", peer_key, clock, source);

    let server = UsersServiceServer::from_arc(users.peer.clone());
    let only_auth = &[("CreateProfile", Access::Peers(&["auth"]))];
    let door = Gate::new(server, only_auth, context.verifier.clone());
    let peers = Peers {
        users: UsersServiceClient::new(local(Door::new("users", Routes::new(door)))),
    };
    (context, peers, own)
}

fn secrets(text: &str) -> Secrets {
    Secrets::parse(text).expect("64 hexadecimal digits")
}

fn settings(change: impl FnOnce(&mut Settings)) -> Settings {
    let settings = holdfast_platform::settings::Settings::load(&[DEFAULTS], None);
    let mut settings = settings
        .and_then(|settings| settings.section("auth"))
        .expect("the defaults can be read");
    change(&mut settings);
    settings
}
