//! Where somebody has things sent to.

use axum::{
    Extension,
    extract::{Path, State},
};
use holdfast_platform::identity::Caller;
use holdfast_proto::users::v1 as pb;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::super::{
    Answer, promised,
    shape::{Page, moment},
};
use crate::{
    Gateway, decode::Json, idempotency::Keyed, precondition::ExpectedIfAny, problems::Problem,
    reply::Reply,
};

pub(super) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(my_addresses, add_address))
        .routes(routes!(change_address, remove_address))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewAddress {
    #[schema(example = "Ada Lovelace", min_length = 1, max_length = 100)]
    name: String,
    #[schema(example = "12 St James's Square", min_length = 1, max_length = 200)]
    line1: String,
    #[serde(default)]
    #[schema(max_length = 200)]
    line2: String,
    #[schema(example = "London", min_length = 1, max_length = 100)]
    city: String,
    #[serde(default)]
    #[schema(max_length = 100)]
    region: String,
    #[serde(default)]
    #[schema(max_length = 20)]
    postal_code: String,
    /// ISO 3166-1 alpha-2.
    #[schema(example = "GB", pattern = "^[A-Za-z]{2}$")]
    country: String,
    #[serde(default)]
    #[schema(pattern = "^[0-9+(). -]*$", max_length = 32)]
    phone: String,
    location: Option<Location>,
}

/// What is left out stays as it is.
#[expect(
    clippy::option_option,
    reason = "a location that is null and one that is left out are two wishes"
)]
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AddressChange {
    #[schema(min_length = 1, max_length = 100)]
    name: Option<String>,
    #[schema(min_length = 1, max_length = 200)]
    line1: Option<String>,
    #[schema(max_length = 200)]
    line2: Option<String>,
    #[schema(min_length = 1, max_length = 100)]
    city: Option<String>,
    #[schema(max_length = 100)]
    region: Option<String>,
    #[schema(max_length = 20)]
    postal_code: Option<String>,
    /// ISO 3166-1 alpha-2.
    #[schema(pattern = "^[A-Za-z]{2}$")]
    country: Option<String>,
    #[schema(pattern = "^[0-9+(). -]*$", max_length = 32)]
    phone: Option<String>,
    /// null: not known any more.
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<Location>)]
    location: Option<Option<Location>>,
}

/// A place on earth.
#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Location {
    /// Degrees, -90 to 90.
    #[schema(example = 51.5072, minimum = -90, maximum = 90)]
    lat: f64,
    /// Degrees, -180 to 180.
    #[schema(example = -0.1357, minimum = -180, maximum = 180)]
    lng: f64,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Address {
    #[schema(example = "adr_01jd3q8m5ze2vtx0c9k4h7n6wb")]
    id: String,
    name: String,
    line1: String,
    line2: String,
    city: String,
    region: String,
    postal_code: String,
    country: String,
    phone: String,
    location: Option<Location>,
    created_at: String,
}

/// Tells what was said, even null, from what was left out.
#[expect(
    clippy::option_option,
    reason = "a location that is null and one that is left out are two wishes"
)]
fn said<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<Option<Location>>, D::Error> {
    Option::deserialize(reader).map(Some)
}

/// Lists one's addresses, oldest first, all of them.
#[utoipa::path(get, path = "/v1/users/me/addresses", tag = "identity", responses((status = 200, body = Page<Address>)))]
async fn my_addresses(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
) -> Result<Reply, Problem> {
    Ok(Reply::ok(&Page::new(kept(&gateway, &caller).await?, None)))
}

/// Adds an address.
#[utoipa::path(post, path = "/v1/users/me/addresses", tag = "identity", request_body = NewAddress,
    params(("idempotency-key" = String, Header)), responses((status = 201, body = Address)))]
async fn add_address(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Keyed { body, once }: Keyed<NewAddress>,
) -> Answer {
    let request = caller.request(pb::AddAddressRequest {
        request_id: once.request_id.to_string(),
        postal: Some(pb::PostalAddress {
            name: body.name,
            line1: body.line1,
            line2: body.line2,
            city: body.city,
            region: body.region,
            postal_code: body.postal_code,
            country: body.country,
            phone: body.phone,
            location: body.location.map(Into::into),
        }),
    });
    let mut users = gateway.peers.users.clone();
    let effect = async move {
        let answer = users.add_address(request).await?.into_inner();
        let made = promised(answer.address, "users", "the address")?;
        let version = made.version;
        Ok(Reply::created(&address(made)?, "/v1/users/me/addresses").tagged(version))
    };
    gateway.replies.once(once, effect).await
}

/// Changes an address; with `If-Match` only if it is still as it was read.
#[utoipa::path(patch, path = "/v1/users/me/addresses/{id}", tag = "identity", request_body = AddressChange,
    params(("id" = String, Path), ("if-match" = Option<String>, Header, description = "the ETag it was given with")),
    responses((status = 200, body = Address)))]
async fn change_address(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    ExpectedIfAny(expected): ExpectedIfAny,
    Json(change): Json<AddressChange>,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::ChangeAddressRequest {
        address_id: id,
        expected_version: expected,
        name: change.name,
        line1: change.line1,
        line2: change.line2,
        city: change.city,
        region: change.region,
        postal_code: change.postal_code,
        country: change.country,
        phone: change.phone,
        location: change.location.map(|location| pb::LocationChange {
            location: location.map(Into::into),
        }),
    });
    let answer = gateway.peers.users.clone().change_address(request).await?;
    let changed = promised(answer.into_inner().address, "users", "the address")?;
    let version = changed.version;
    Ok(Reply::ok(&address(changed)?).tagged(version))
}

/// Removes an address; with `If-Match` only if it is still as it was read.
#[utoipa::path(delete, path = "/v1/users/me/addresses/{id}", tag = "identity",
    params(("id" = String, Path), ("if-match" = Option<String>, Header, description = "the ETag it was given with")),
    responses((status = 204)))]
async fn remove_address(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    ExpectedIfAny(expected): ExpectedIfAny,
) -> Result<Reply, Problem> {
    let request = caller.request(pb::RemoveAddressRequest {
        address_id: id,
        expected_version: expected,
    });
    gateway.peers.users.clone().remove_address(request).await?;
    Ok(Reply::nothing())
}

/// The caller's addresses.
pub(super) async fn kept(gateway: &Gateway, caller: &Caller) -> Result<Vec<Address>, Problem> {
    let request = caller.request(pb::ListAddressesRequest {});
    let answer = gateway.peers.users.clone().list_addresses(request).await?;
    let addresses = answer.into_inner().addresses.into_iter();
    addresses.map(address).collect()
}

fn address(address: pb::Address) -> Result<Address, Problem> {
    let postal = promised(address.postal, "users", "what the address says")?;
    Ok(Address {
        created_at: moment(address.created_at.as_ref(), "users")?,
        id: address.id,
        name: postal.name,
        line1: postal.line1,
        line2: postal.line2,
        city: postal.city,
        region: postal.region,
        postal_code: postal.postal_code,
        country: postal.country,
        phone: postal.phone,
        location: postal.location.map(|place| Location {
            lat: place.lat,
            lng: place.lng,
        }),
    })
}

impl From<Location> for pb::Location {
    fn from(location: Location) -> Self {
        Self {
            lat: location.lat,
            lng: location.lng,
        }
    }
}
