//! The door: decode, authorise, act, encode.

mod accounts;
mod login;
mod password;
mod sessions;

use futures::stream::BoxStream;
use holdfast_kernel::time;
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
    domain::{Email, Ended, Refreshed},
    error::AuthError,
    keys,
    registration::{self, Person, Registration},
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
    ("GetAccount", Access::User),
    ("ListAccounts", Access::Admin),
    ("SetRole", Access::Admin),
    ("SetActive", Access::Admin),
    ("EraseAccount", Access::Admin),
    ("ChangePassword", Access::User),
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
            person: Person {
                name: request.name,
                languages: request.languages,
            },
            role: Role::User,
        };
        let registered = registration::register(&self.parts, place, registration).await?;
        Ok(Response::new(pb::RegisterResponse {
            account: Some(pb::Account {
                id: registered.user.to_string(),
                email: email.as_str().to_owned(),
                name: registered.profile.name,
                locale: registered.profile.locale,
                role: Role::User.as_str().to_owned(),
                created_at: Some(wire::timestamp(registered.created_at)),
                is_active: true,
            }),
        }))
    }

    /// Opens a session. An unknown address and a wrong password get the same answer after the same work.
    async fn login(
        &self,
        request: Request<pb::LoginRequest>,
    ) -> Result<Response<pb::LoginResponse>, Status> {
        let tokens = login::login(&self.parts, request.into_inner()).await?;
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
        let account = store::find_account(&mut tx, &self.parts.vault, session.user)
            .await?
            .filter(|account| account.is_active)
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

    /// One's own account, or anybody's for admins; what is another's does not exist.
    async fn get_account(
        &self,
        request: Request<pb::GetAccountRequest>,
    ) -> Result<Response<pb::GetAccountResponse>, Status> {
        let caller = Caller::of(&request)?;
        let user = accounts::parse_user(&request.into_inner().user_id)?;
        if caller.user()? != user && !caller.has(Role::Admin) {
            return Err(AuthError::UnknownUser.into());
        }
        let account = accounts::get(&self.parts, user).await?;
        Ok(Response::new(pb::GetAccountResponse {
            account: Some(account.into()),
        }))
    }

    /// All accounts, the newest first, or the one of an address.
    async fn list_accounts(
        &self,
        request: Request<pb::ListAccountsRequest>,
    ) -> Result<Response<pb::ListAccountsResponse>, Status> {
        accounts::list(&self.parts, request.into_inner()).await
    }

    /// Says what an account may do.
    async fn set_role(
        &self,
        request: Request<pb::SetRoleRequest>,
    ) -> Result<Response<pb::SetRoleResponse>, Status> {
        let admin = Caller::of(&request)?.user()?;
        let pb::SetRoleRequest { user_id, role } = request.into_inner();
        let (user, role) = (
            accounts::parse_user(&user_id)?,
            role.parse().map_err(AuthError::from)?,
        );
        let account = accounts::set_role(&self.parts, user, role, admin).await?;
        Ok(Response::new(pb::SetRoleResponse {
            account: Some(account.into()),
        }))
    }

    /// Lets an account log in, or no longer.
    async fn set_active(
        &self,
        request: Request<pb::SetActiveRequest>,
    ) -> Result<Response<pb::SetActiveResponse>, Status> {
        let admin = Caller::of(&request)?.user()?;
        let pb::SetActiveRequest { user_id, is_active } = request.into_inner();
        let user = accounts::parse_user(&user_id)?;
        let account = accounts::set_active(&self.parts, user, is_active, admin).await?;
        Ok(Response::new(pb::SetActiveResponse {
            account: Some(account.into()),
        }))
    }

    /// Forgets a person.
    async fn erase_account(
        &self,
        request: Request<pb::EraseAccountRequest>,
    ) -> Result<Response<pb::EraseAccountResponse>, Status> {
        let admin = Caller::of(&request)?.user()?;
        let user = accounts::parse_user(&request.into_inner().user_id)?;
        accounts::erase(&self.parts, user, admin).await?;
        Ok(Response::new(pb::EraseAccountResponse {}))
    }

    /// Gives the caller another password and logs them out everywhere else.
    async fn change_password(
        &self,
        request: Request<pb::ChangePasswordRequest>,
    ) -> Result<Response<pb::ChangePasswordResponse>, Status> {
        let caller = Caller::of(&request)?;
        password::change(&self.parts, logged_in(&caller)?, request.into_inner()).await?;
        Ok(Response::new(pb::ChangePasswordResponse {}))
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
