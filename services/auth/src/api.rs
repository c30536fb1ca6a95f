//! The door: decode, authorise, act, encode.

mod sessions;

use futures::stream::BoxStream;
use holdfast_kernel::{Id, time};
use holdfast_platform::{
    database,
    fault::Fault,
    identity::{Access, AccessTable, Caller, Claims, Role, VERIFIER_PEER},
    wire,
};
use holdfast_proto::auth::v1::{self as pb, auth_service_server::AuthService};
use tonic::{Request, Response, Status};

use crate::{
    Parts,
    domain::{Email, Ended, Refreshed, Session, UserAgent},
    error::AuthError,
    keys,
    password::Verdict,
    registration::{self, Registration},
    revocation, store,
};

/// Who may call what.
pub const ACCESS: AccessTable = &[
    ("Register", Access::Public),
    ("Login", Access::Public),
    ("Refresh", Access::Public),
    ("Logout", Access::User),
    ("ListSessions", Access::User),
    ("EndSession", Access::User),
    ("WatchRevocations", Access::Peers(&[VERIFIER_PEER])),
    ("IsSessionOpen", Access::Peers(&[VERIFIER_PEER])),
    ("GetKeys", Access::Public),
];

pub(crate) struct Api {
    parts: Parts,
}

impl Api {
    pub(crate) fn new(parts: Parts) -> Self {
        Self { parts }
    }
}

#[tonic::async_trait]
impl AuthService for Api {
    /// Makes an account and its profile; see [`registration`] for what a crash between the two leaves.
    async fn register(
        &self,
        request: Request<pb::RegisterRequest>,
    ) -> Result<Response<pb::RegisterResponse>, Status> {
        let request = request.into_inner();
        let email = Email::parse(&request.email)?;
        let place = self.parts.passwords.enter()?;
        let registration = Registration {
            email: email.clone(),
            password: request.password,
            name: request.name,
            role: Role::User,
        };
        let registered = registration::register(&self.parts, place, registration).await?;
        Ok(Response::new(pb::RegisterResponse {
            account: Some(pb::Account {
                id: registered.user.to_string(),
                email: email.as_str().to_owned(),
                name: registered.name,
                role: Role::User.as_str().to_owned(),
                created_at: Some(wire::timestamp(registered.created_at)),
            }),
        }))
    }

    /// Opens a session. An unknown address and a wrong password get the same answer after the same work.
    async fn login(
        &self,
        request: Request<pb::LoginRequest>,
    ) -> Result<Response<pb::LoginResponse>, Status> {
        let pb::LoginRequest {
            email,
            password,
            user_agent,
        } = request.into_inner();
        let place = self.parts.passwords.enter()?;
        let account = match Email::parse(&email) {
            Ok(email) => {
                let mut db = database::acquire(&self.parts.context.database).await?;
                store::find_account_by_email(&mut db, &email).await?
            }
            Err(_) => None,
        };
        let stored = account
            .as_ref()
            .and_then(|account| account.password_hash.clone());
        let verdict = self.parts.passwords.check(place, password, stored).await?;
        let (Some(account), Verdict::Right { better_hash }) = (account, verdict) else {
            return Err(AuthError::InvalidCredentials.into());
        };

        let now = time::to_micros(self.parts.context.clock.now());
        let lifetime = self.parts.minter.session_lifetime();
        let agent = UserAgent::cut(&user_agent);
        let session = Session::open(Id::generate(), account.user, now, lifetime, agent);
        let tokens = self.parts.minter.tokens(&session, 1, account.role, now)?;
        let mut tx = database::begin(&self.parts.context.database).await?;
        if let Some(better) = better_hash {
            let checked = account.password_hash.as_deref();
            store::replace_password_hash(&mut tx, account.user, checked, &better).await?;
        }
        store::delete_expired_sessions(&mut tx, account.user, now).await?;
        store::insert_sessions(&mut tx, &[session]).await?;
        database::commit(tx).await?;
        Ok(Response::new(pb::LoginResponse {
            tokens: Some(tokens),
        }))
    }

    /// Replaces a refresh token by its successor. One that was replaced before ends the session.
    async fn refresh(
        &self,
        request: Request<pb::RefreshRequest>,
    ) -> Result<Response<pb::RefreshResponse>, Status> {
        let minter = &self.parts.minter;
        let shown = minter.read_refresh_token(&request.into_inner().refresh_token)?;

        let mut tx = database::begin(&self.parts.context.database).await?;
        let session = store::lock_session(&mut tx, shown.family)
            .await?
            .ok_or(AuthError::RefreshInvalid)?;
        // Read after the lock was waited for: the grace of a predecessor counts from when it was replaced.
        let now = time::to_micros(self.parts.context.clock.now());
        let (session, turn) = match session.refresh(shown.turn, now, minter.grace())? {
            Refreshed::Turned { session, turn } => {
                store::save_session(&mut tx, &session).await?;
                (session, turn)
            }
            Refreshed::Repeated { session, turn } => (session, turn),
            Refreshed::Revoked { session } => {
                store::save_session(&mut tx, &session).await?;
                let ended = Ended {
                    session: session.id,
                    expires_at: session.expires_at,
                };
                revocation::revoke(&mut tx, minter, &[ended], now).await?;
                database::commit(tx).await?;
                self.parts.revocations.ring();
                tracing::warn!(user = %session.user, session = %session.id, "a replaced refresh token came back");
                return Err(AuthError::RefreshReused.into());
            }
        };
        let account = store::find_account(&mut tx, session.user)
            .await?
            .ok_or(AuthError::RefreshInvalid)?;
        let tokens = minter.tokens(&session, turn, account.role, now)?;
        database::commit(tx).await?;
        Ok(Response::new(pb::RefreshResponse {
            tokens: Some(tokens),
        }))
    }

    /// Ends the caller's session; ending it twice is ending it once.
    async fn logout(
        &self,
        request: Request<pb::LogoutRequest>,
    ) -> Result<Response<pb::LogoutResponse>, Status> {
        let caller = Caller::of(&request)?;
        let claims = logged_in(&caller)?;
        sessions::end(&self.parts, claims.sid, claims.sub).await?;
        Ok(Response::new(pb::LogoutResponse {}))
    }

    /// The sessions in which the caller is logged in.
    async fn list_sessions(
        &self,
        request: Request<pb::ListSessionsRequest>,
    ) -> Result<Response<pb::ListSessionsResponse>, Status> {
        let caller = Caller::of(&request)?;
        sessions::list(&self.parts, logged_in(&caller)?).await
    }

    /// Logs the caller out elsewhere, or here.
    async fn end_session(
        &self,
        request: Request<pb::EndSessionRequest>,
    ) -> Result<Response<pb::EndSessionResponse>, Status> {
        let caller = Caller::of(&request)?;
        let session = sessions::parse(&request.into_inner().session_id)?;
        sessions::end_own(&self.parts, session, logged_in(&caller)?).await
    }

    type WatchRevocationsStream = BoxStream<'static, Result<pb::WatchRevocationsResponse, Status>>;

    /// All that was revoked and matters still, then each session as it ends.
    async fn watch_revocations(
        &self,
        _: Request<pb::WatchRevocationsRequest>,
    ) -> Result<Response<Self::WatchRevocationsStream>, Status> {
        Ok(Response::new(sessions::watch(&self.parts)))
    }

    /// Asked by whoever heard nothing for too long.
    async fn is_session_open(
        &self,
        request: Request<pb::IsSessionOpenRequest>,
    ) -> Result<Response<pb::IsSessionOpenResponse>, Status> {
        let session = sessions::parse(&request.into_inner().session_id)?;
        sessions::is_open(&self.parts, session).await
    }

    /// The keys to know tokens by, those that will sign soon and those that signed till lately among them.
    async fn get_keys(
        &self,
        _: Request<pb::GetKeysRequest>,
    ) -> Result<Response<pb::GetKeysResponse>, Status> {
        let mut db = database::acquire(&self.parts.context.database).await?;
        let keys = store::list_public_keys(&mut db).await?;
        Ok(Response::new(pb::GetKeysResponse {
            jwks: keys::jwk_set(&keys),
        }))
    }
}

fn logged_in(caller: &Caller) -> Result<&Claims, Fault> {
    caller
        .claims()
        .ok_or_else(|| Fault::internal("the gate let nobody through as a user"))
}
