//! Addresses: adding, changing, removing. What is another's does not exist.

use holdfast_kernel::{Id, RequestId, id, time};
use holdfast_platform::{database, wire};
use holdfast_proto::users::v1 as pb;
use sqlx::PgConnection;

use super::Api;
use crate::{
    domain::{ADDRESSES_MAX, Address, Location, PostalAddress},
    error::UsersError,
    store,
};

/// Adds an address under the id that the request makes, so that asking again finds it.
pub(super) async fn add(
    api: &Api,
    user: Id<id::User>,
    request: pb::AddAddressRequest,
) -> Result<Address, UsersError> {
    let request_id: RequestId = request
        .request_id
        .parse()
        .map_err(|_| UsersError::RequestIdRefused)?;
    let postal = request
        .postal
        .ok_or(UsersError::Missing { field: "postal" })?;
    let address = Address {
        id: request_id.makes(),
        user,
        postal: decode(postal).check()?,
        created_at: time::to_micros(api.context.clock.now()),
        version: 1,
    };
    let mut tx = database::begin(&api.context.database).await?;
    // Locked, so that many at once do not go over the bound together.
    store::lock_profile(&mut tx, &api.vault, user)
        .await?
        .ok_or(UsersError::UnknownUser)?;
    if let Some(first) = store::find_address(&mut tx, &api.vault, address.id).await? {
        // It may have been changed since; then it is still the one this request made.
        let is_same = first.user == user && (first.version > 1 || first.postal == address.postal);
        return is_same.then_some(first).ok_or(UsersError::RequestMismatch);
    }
    if store::count_addresses(&mut tx, user).await? >= ADDRESSES_MAX {
        return Err(UsersError::TooManyAddresses);
    }
    store::insert_address(&mut tx, &api.vault, &address).await?;
    database::commit(tx).await?;
    Ok(address)
}

pub(super) async fn change(
    api: &Api,
    user: Id<id::User>,
    request: pb::ChangeAddressRequest,
) -> Result<Address, UsersError> {
    let id = parse(&request.address_id)?;
    let expected = (request.expected_version != 0).then_some(request.expected_version);
    let mut tx = database::begin(&api.context.database).await?;
    let before = own(&mut tx, api, user, id).await?;
    let version_before = before.version;
    let postal = changed(before.postal.clone(), request);
    let address = before.change(postal, expected)?;
    if address.version != version_before {
        store::save_address(&mut tx, &api.vault, &address).await?;
    }
    database::commit(tx).await?;
    Ok(address)
}

pub(super) async fn remove(
    api: &Api,
    user: Id<id::User>,
    request: &pb::RemoveAddressRequest,
) -> Result<(), UsersError> {
    let id = parse(&request.address_id)?;
    let expected = (request.expected_version != 0).then_some(request.expected_version);
    let mut tx = database::begin(&api.context.database).await?;
    own(&mut tx, api, user, id).await?.is_at(expected)?;
    store::delete_address(&mut tx, id).await?;
    database::commit(tx).await?;
    Ok(())
}

/// The caller's address, which nobody else changes until the transaction ends.
async fn own(
    db: &mut PgConnection,
    api: &Api,
    user: Id<id::User>,
    id: Id<id::Address>,
) -> Result<Address, UsersError> {
    store::lock_address(db, &api.vault, id)
        .await?
        .filter(|address| address.user == user)
        .ok_or(UsersError::UnknownAddress)
}

fn parse(text: &str) -> Result<Id<id::Address>, UsersError> {
    text.parse().map_err(|_| UsersError::UnknownAddress)
}

fn changed(postal: PostalAddress, request: pb::ChangeAddressRequest) -> PostalAddress {
    let location = match request.location {
        Some(change) => change.location.map(Into::into),
        None => postal.location,
    };
    PostalAddress {
        name: request.name.unwrap_or(postal.name),
        line1: request.line1.unwrap_or(postal.line1),
        line2: request.line2.unwrap_or(postal.line2),
        city: request.city.unwrap_or(postal.city),
        region: request.region.unwrap_or(postal.region),
        postal_code: request.postal_code.unwrap_or(postal.postal_code),
        country: request.country.unwrap_or(postal.country),
        phone: request.phone.unwrap_or(postal.phone),
        location,
    }
}

fn decode(postal: pb::PostalAddress) -> PostalAddress {
    PostalAddress {
        name: postal.name,
        line1: postal.line1,
        line2: postal.line2,
        city: postal.city,
        region: postal.region,
        postal_code: postal.postal_code,
        country: postal.country,
        phone: postal.phone,
        location: postal.location.map(Into::into),
    }
}

impl From<pb::Location> for Location {
    fn from(location: pb::Location) -> Self {
        Self {
            lat: location.lat,
            lng: location.lng,
        }
    }
}

impl From<Address> for pb::Address {
    fn from(address: Address) -> Self {
        let postal = address.postal;
        Self {
            id: address.id.to_string(),
            postal: Some(pb::PostalAddress {
                name: postal.name,
                line1: postal.line1,
                line2: postal.line2,
                city: postal.city,
                region: postal.region,
                postal_code: postal.postal_code,
                country: postal.country,
                phone: postal.phone,
                location: postal
                    .location
                    .map(|Location { lat, lng }| pb::Location { lat, lng }),
            }),
            created_at: Some(wire::timestamp(address.created_at)),
            version: address.version,
        }
    }
}
