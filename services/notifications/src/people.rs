//! Who somebody is and which language they read, as users knows.

use std::time::Duration;

use holdfast_kernel::{Id, Language, id};
use holdfast_platform::{fault::Fault, service::Context};
use holdfast_proto::users::v1::{GetProfileRequest, Profile};

use crate::Peers;

/// How long users may take to say who somebody is.
pub(crate) const PROFILE_SECS: u64 = 2;

/// The profile of a person. Personal: it is shown in no log.
pub(crate) async fn profile(
    peers: &Peers,
    context: &Context,
    user: Id<id::User>,
) -> Result<Profile, Fault> {
    let mut request = context.identity.request(GetProfileRequest {
        user_id: user.to_string(),
    });
    request.set_timeout(Duration::from_secs(PROFILE_SECS));
    let answer = peers.users.clone().get_profile(request).await;
    let answer = answer.map_err(|status| Fault::from_status(&status))?;
    Ok(answer.into_inner().profile.unwrap_or_default())
}

/// The language that a person chose, if they chose one.
pub(crate) fn language(profile: &Profile) -> Option<Language> {
    Language::parse(&profile.locale)
}
