//! Accounts as those see them who run the shop, and everybody their own by its id.

use std::collections::HashMap;

use axum::{
    Extension,
    extract::{Path, State},
};
use holdfast_platform::identity::Caller;
use holdfast_proto::{auth::v1 as pb, users::v1 as users_pb};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    super::{
        promised,
        shape::{Page, Slice, moment, paged, told},
    },
    ProfileChange,
};
use crate::{
    Gateway,
    decode::{Json, Query},
    precondition::ExpectedIfAny,
    problems::Problem,
    reply::Reply,
};

pub(super) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(list_accounts))
        .routes(routes!(one_account, change_account, erase_account))
        .routes(routes!(set_role))
        .routes(routes!(set_active))
}

/// Somebody with an account.
#[derive(Serialize, ToSchema)]
struct Account {
    #[schema(example = "usr_01jd3q8m5ze2vtx0c9k4h7n6wb")]
    id: String,
    email: String,
    name: String,
    /// `user`, `staff` or `admin`.
    role: String,
    /// The language of mail and notifications, `en` or `ja`; null: none was named.
    #[schema(example = "en")]
    locale: Option<String>,
    /// Whether it may log in.
    is_active: bool,
    created_at: String,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// The whole address, whatever its letter case.
    email: Option<String>,
    /// 1 to 100; 20 when left out.
    limit: Option<i32>,
    /// `next_cursor` of the slice before.
    cursor: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewRole {
    /// `user`, `staff` or `admin`.
    #[schema(example = "staff", pattern = "^(user|staff|admin)$")]
    role: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Activity {
    is_active: bool,
}

/// Lists accounts, the newest first, or finds the one of an address.
#[utoipa::path(get, path = "/v1/users", tag = "identity", params(Wanted), responses((status = 200, body = Page<Account>)))]
async fn list_accounts(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Query(wanted): Query<Wanted>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::ListAccountsRequest {
        page: Some(Slice::new(wanted.limit, wanted.cursor).request()?),
        email: wanted.email.unwrap_or_default(),
    });
    let answer = gateway
        .peers
        .auth
        .clone()
        .list_accounts(request)
        .await
        .map_err(|refused| paged(&refused))?
        .into_inner();
    let user_ids = answer.accounts.iter().map(|account| account.id.clone());
    let request = caller.request(users_pb::GetProfilesRequest {
        user_ids: user_ids.collect(),
    });
    let profiles = gateway.peers.users.clone().get_profiles(request).await?;
    let mut profiles: HashMap<String, users_pb::Profile> = profiles
        .into_inner()
        .profiles
        .into_iter()
        .map(|profile| (profile.user_id.clone(), profile))
        .collect();
    let accounts = answer.accounts.into_iter().map(|found| {
        let profile = profiles.remove(&found.id).unwrap_or_default();
        account(found, profile)
    });
    let accounts = accounts.collect::<Result<_, _>>()?;
    Ok(Reply::ok(&Page::<Account>::new(accounts, answer.page)))
}

/// Shows an account: one's own, or anybody's to admins. Its ETag is that of the profile.
#[utoipa::path(get, path = "/v1/users/{id}", tag = "identity", params(("id" = String, Path)), responses((status = 200, body = Account)))]
async fn one_account(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Reply, Problem> {
    let found = find(&gateway, &caller, id).await?;
    with_profile(&gateway, &caller, found).await
}

/// Changes a profile: one's own, or anybody's as an admin.
#[utoipa::path(patch, path = "/v1/users/{id}", tag = "identity", request_body = ProfileChange,
    params(("id" = String, Path), ("if-match" = Option<String>, Header, description = "the ETag it was read with")),
    responses((status = 200, body = Account)))]
async fn change_account(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    ExpectedIfAny(expected): ExpectedIfAny,
    Json(asked): Json<ProfileChange>,
) -> Result<Reply, Problem> {
    let found = find(&gateway, &caller, id).await?;
    let request = caller.request(users_pb::UpdateProfileRequest {
        user_id: found.id.clone(),
        name: asked.name,
        expected_version: expected,
        locale: asked.locale,
    });
    let answer = gateway.peers.users.clone().update_profile(request).await?;
    let profile = promised(answer.into_inner().profile, "users", "the profile")?;
    let version = profile.version;
    Ok(Reply::ok(&account(found, profile)?).tagged(version))
}

/// Forgets a person: profile, addresses, e-mail, sessions. What was bought stays in the books, under the id alone.
#[utoipa::path(delete, path = "/v1/users/{id}", tag = "identity", params(("id" = String, Path)), responses((status = 204)))]
async fn erase_account(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::EraseAccountRequest { user_id: id });
    gateway.peers.auth.clone().erase_account(request).await?;
    Ok(Reply::nothing())
}

/// Says what an account may do; its sessions end.
#[utoipa::path(put, path = "/v1/users/{id}/role", tag = "identity", request_body = NewRole, params(("id" = String, Path)),
    responses((status = 200, body = Account)))]
async fn set_role(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Json(asked): Json<NewRole>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::SetRoleRequest {
        user_id: id,
        role: asked.role,
    });
    let answer = gateway.peers.auth.clone().set_role(request).await?;
    let changed = promised(answer.into_inner().account, "auth", "the account")?;
    with_profile(&gateway, &caller, changed).await
}

/// Lets an account log in, or no longer, which ends its sessions.
#[utoipa::path(put, path = "/v1/users/{id}/active", tag = "identity", request_body = Activity, params(("id" = String, Path)),
    responses((status = 200, body = Account)))]
async fn set_active(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Json(asked): Json<Activity>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::SetActiveRequest {
        user_id: id,
        is_active: asked.is_active,
    });
    let answer = gateway.peers.auth.clone().set_active(request).await?;
    let changed = promised(answer.into_inner().account, "auth", "the account")?;
    with_profile(&gateway, &caller, changed).await
}

async fn find(gateway: &Gateway, caller: &Caller, id: String) -> Result<pb::Account, Problem> {
    let request = caller.request(pb::GetAccountRequest { user_id: id });
    let answer = gateway.peers.auth.clone().get_account(request).await?;
    promised(answer.into_inner().account, "auth", "the account")
}

async fn with_profile(
    gateway: &Gateway,
    caller: &Caller,
    found: pb::Account,
) -> Result<Reply, Problem> {
    let request = caller.request(users_pb::GetProfileRequest {
        user_id: found.id.clone(),
    });
    let answer = gateway.peers.users.clone().get_profile(request).await?;
    let profile = promised(answer.into_inner().profile, "users", "the profile")?;
    let version = profile.version;
    Ok(Reply::ok(&account(found, profile)?).tagged(version))
}

fn account(account: pb::Account, profile: users_pb::Profile) -> Result<Account, Problem> {
    Ok(Account {
        created_at: moment(account.created_at.as_ref(), "auth")?,
        id: account.id,
        email: account.email,
        name: profile.name,
        role: account.role,
        locale: told(profile.locale),
        is_active: account.is_active,
    })
}
