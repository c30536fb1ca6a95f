//! Everything one is known by, to take away.

use axum::{Extension, extract::State};
use holdfast_platform::identity::Caller;
use holdfast_proto::{auth::v1 as auth_pb, users::v1 as users_pb};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    super::{
        promised,
        shape::{moment, told},
    },
    addresses::{self, Address},
    logged_in,
    sessions::{self, Session},
};
use crate::{Gateway, problems::Problem, reply::Reply};

pub(super) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new().routes(routes!(export))
}

/// What is held of a person: here whole, and where the rest is read.
#[derive(Serialize, ToSchema)]
struct Export {
    account: ExportedAccount,
    addresses: Vec<Address>,
    sessions: Vec<Session>,
    /// What other parts of the shop hold under this account's id.
    elsewhere: Vec<Elsewhere>,
}

#[derive(Serialize, ToSchema)]
struct ExportedAccount {
    id: String,
    email: String,
    name: String,
    role: String,
    #[schema(example = "ja")]
    locale: Option<String>,
    created_at: String,
}

#[derive(Serialize, ToSchema)]
struct Elsewhere {
    holds: &'static str,
    /// The path under which it is read.
    at: &'static str,
}

const ELSEWHERE: [Elsewhere; 3] = [
    Elsewhere {
        holds: "orders, with what was paid for them and their history",
        at: "/v1/orders",
    },
    Elsewhere {
        holds: "payment methods that were saved",
        at: "/v1/payment-methods",
    },
    Elsewhere {
        holds: "what they were told",
        at: "/v1/notifications",
    },
];

/// Gives everything that is held of oneself, and says where the rest is.
#[utoipa::path(get, path = "/v1/users/me/export", tag = "identity", responses((status = 200, body = Export)))]
async fn export(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
) -> Result<Reply, Problem> {
    let user_id = logged_in(&caller)?.sub.to_string();
    let request = caller.request(auth_pb::GetAccountRequest {
        user_id: user_id.clone(),
    });
    let answer = gateway.peers.auth.clone().get_account(request).await?;
    let account = promised(answer.into_inner().account, "auth", "the account")?;
    let request = caller.request(users_pb::GetProfileRequest { user_id });
    let answer = gateway.peers.users.clone().get_profile(request).await?;
    let profile = promised(answer.into_inner().profile, "users", "the profile")?;
    Ok(Reply::ok(&Export {
        account: ExportedAccount {
            created_at: moment(account.created_at.as_ref(), "auth")?,
            id: account.id,
            email: account.email,
            name: profile.name,
            role: account.role,
            locale: told(profile.locale),
        },
        addresses: addresses::kept(&gateway, &caller).await?,
        sessions: sessions::open(&gateway, &caller).await?,
        elsewhere: ELSEWHERE.into(),
    }))
}
