//! The door: decode, authorise, act, encode.

mod addresses;

use holdfast_kernel::{Id, Language, id, page, time};
use holdfast_platform::{
    database,
    fault::Fault,
    identity::{Access, AccessTable, Caller, Role},
    service::Context,
};
use holdfast_proto::users::v1::{self as pb, users_service_server::UsersService};
use sqlx::{Postgres, Transaction};
use tonic::{Request, Response, Status};

use crate::{
    domain::{self, PersonName, Profile, ProfileChange},
    error::UsersError,
    messages,
    shown::Shown,
    store,
    vault::Vault,
};

/// Who may call what.
pub const ACCESS: AccessTable = &[
    ("CreateProfile", Access::Peers(&["auth"])),
    (
        "GetProfile",
        Access::UserOr(&["orders", "bookings", "notifications"]),
    ),
    ("GetProfiles", Access::Admin),
    ("UpdateProfile", Access::User),
    ("ListAddresses", Access::User),
    ("AddAddress", Access::User),
    ("ChangeAddress", Access::User),
    ("RemoveAddress", Access::User),
];

pub(crate) struct Api {
    context: Context,
    vault: Vault,
    shown: Shown,
}

impl Api {
    pub(crate) fn new(context: Context, vault: Vault, shown: Shown) -> Self {
        Self {
            context,
            vault,
            shown,
        }
    }

    /// Makes what a transaction did to a profile true, and forgets it, whatever came of that; news of it goes out.
    async fn commit(&self, tx: Transaction<'_, Postgres>, user: Id<id::User>) -> Result<(), Fault> {
        let committed = database::commit(tx).await;
        self.shown.forget(user);
        self.context.wake.wake();
        committed
    }
}

#[tonic::async_trait]
impl UsersService for Api {
    /// Writes the profile of a new account; the same account again is the same profile.
    async fn create_profile(
        &self,
        request: Request<pb::CreateProfileRequest>,
    ) -> Result<Response<pb::CreateProfileResponse>, Status> {
        let request = request.into_inner();
        let user = parse_user(&request.user_id)?;
        let name = PersonName::parse(&request.name)?;
        let now = time::to_micros(self.context.clock.now());
        let locale = Language::preferred(&request.languages);
        let profile = Profile::new(user, request.email, name, locale, now);

        let mut tx = database::begin(&self.context.database).await?;
        if store::insert_profile(&mut tx, &self.vault, &profile).await? {
            messages::announce_updated(&mut tx, &profile, now).await?;
        }
        let profile = store::find_profile(&mut tx, &self.vault, user)
            .await?
            .ok_or(UsersError::UnknownUser)?;
        self.commit(tx, user).await?;
        Ok(Response::new(pb::CreateProfileResponse {
            profile: Some(profile.into()),
        }))
    }

    /// One's own profile, or anybody's for staff and peers; another's does not exist for a user.
    async fn get_profile(
        &self,
        request: Request<pb::GetProfileRequest>,
    ) -> Result<Response<pb::GetProfileResponse>, Status> {
        let caller = Caller::of(&request)?;
        let user = parse_user(&request.into_inner().user_id)?;
        if !caller.may_see(user) {
            return Err(UsersError::UnknownUser.into());
        }
        let database = &self.context.database;
        // What is kept in memory is for the person it is of.
        let is_own = caller.peer().is_none() && caller.user()? == user;
        let profile = if is_own {
            let shown = self.shown.find(user, database, &self.vault).await?;
            shown.map(|profile| (*profile).clone())
        } else {
            let mut db = database::acquire(database).await?;
            store::find_profile(&mut db, &self.vault, user).await?
        };
        let profile = profile.ok_or(UsersError::UnknownUser)?;
        Ok(Response::new(pb::GetProfileResponse {
            profile: Some(profile.into()),
        }))
    }

    /// Profiles for a list of accounts.
    async fn get_profiles(
        &self,
        request: Request<pb::GetProfilesRequest>,
    ) -> Result<Response<pb::GetProfilesResponse>, Status> {
        let user_ids = request.into_inner().user_ids;
        if user_ids.len() > page::PAGE_MAX_ENTRIES as usize {
            return Err(UsersError::TooManyUsers {
                got: user_ids.len(),
            }
            .into());
        }
        let users: Vec<_> = user_ids
            .iter()
            .map(|text| parse_user(text))
            .collect::<Result<_, _>>()?;
        let mut db = database::acquire(&self.context.database).await?;
        let profiles = store::find_profiles(&mut db, &self.vault, &users).await?;
        Ok(Response::new(pb::GetProfilesResponse {
            profiles: profiles.into_iter().map(Into::into).collect(),
        }))
    }

    /// Changes one's own profile, or anybody's as an admin. Fails with `PROFILE_CHANGED` when the version looked at is not the one that stands.
    async fn update_profile(
        &self,
        request: Request<pb::UpdateProfileRequest>,
    ) -> Result<Response<pb::UpdateProfileResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let user = parse_user(&request.user_id)?;
        if caller.user()? != user && !caller.has(Role::Admin) {
            return Err(UsersError::UnknownUser.into());
        }
        let wanted = ProfileChange {
            name: (request.name.as_deref().map(PersonName::parse)).transpose()?,
            locale: (request.locale.as_deref().map(domain::parse_locale)).transpose()?,
        };
        let expected = (request.expected_version != 0).then_some(request.expected_version);
        let now = time::to_micros(self.context.clock.now());

        let mut tx = database::begin(&self.context.database).await?;
        let before = store::lock_profile(&mut tx, &self.vault, user)
            .await?
            .ok_or(UsersError::UnknownUser)?;
        let version_before = before.version;
        let profile = before.change(wanted, expected)?;
        if profile.version != version_before {
            store::save_profile(&mut tx, &self.vault, &profile).await?;
            messages::announce_updated(&mut tx, &profile, now).await?;
        }
        self.commit(tx, user).await?;
        Ok(Response::new(pb::UpdateProfileResponse {
            profile: Some(profile.into()),
        }))
    }

    /// The caller's addresses.
    async fn list_addresses(
        &self,
        request: Request<pb::ListAddressesRequest>,
    ) -> Result<Response<pb::ListAddressesResponse>, Status> {
        let user = Caller::of(&request)?.user()?;
        let mut db = database::acquire(&self.context.database).await?;
        let addresses = store::list_addresses(&mut db, &self.vault, user).await?;
        Ok(Response::new(pb::ListAddressesResponse {
            addresses: addresses.into_iter().map(Into::into).collect(),
        }))
    }

    /// Adds an address to the caller's.
    async fn add_address(
        &self,
        request: Request<pb::AddAddressRequest>,
    ) -> Result<Response<pb::AddAddressResponse>, Status> {
        let user = Caller::of(&request)?.user()?;
        let address = addresses::add(self, user, request.into_inner()).await?;
        Ok(Response::new(pb::AddAddressResponse {
            address: Some(address.into()),
        }))
    }

    /// Changes one of the caller's addresses.
    async fn change_address(
        &self,
        request: Request<pb::ChangeAddressRequest>,
    ) -> Result<Response<pb::ChangeAddressResponse>, Status> {
        let user = Caller::of(&request)?.user()?;
        let address = addresses::change(self, user, request.into_inner()).await?;
        Ok(Response::new(pb::ChangeAddressResponse {
            address: Some(address.into()),
        }))
    }

    /// Removes one of the caller's addresses.
    async fn remove_address(
        &self,
        request: Request<pb::RemoveAddressRequest>,
    ) -> Result<Response<pb::RemoveAddressResponse>, Status> {
        let user = Caller::of(&request)?.user()?;
        addresses::remove(self, user, &request.into_inner()).await?;
        Ok(Response::new(pb::RemoveAddressResponse {}))
    }
}

fn parse_user(text: &str) -> Result<Id<id::User>, UsersError> {
    text.parse().map_err(|_| UsersError::UserIdRefused {
        got: text.chars().take(64).collect(),
    })
}

impl From<Profile> for pb::Profile {
    fn from(profile: Profile) -> Self {
        Self {
            user_id: profile.user.to_string(),
            email: profile.email,
            name: profile.name.as_str().to_owned(),
            locale: (profile.locale.map(Language::tag))
                .unwrap_or_default()
                .to_owned(),
            created_at: Some(holdfast_platform::wire::timestamp(profile.created_at)),
            version: profile.version,
        }
    }
}
