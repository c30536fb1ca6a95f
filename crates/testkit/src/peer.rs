//! Scripted peers: what a service's neighbours answer in a test at its door, and what they were asked.
//!
//! ```text
//! holdfast_testkit::scripted_peer! {
//!     /// The ledger, as the test says.
//!     pub struct Inventory: InventoryService {
//!         reserve(ReserveRequest) -> ReserveResponse;
//!         release(ReleaseRequest) -> ReleaseResponse;
//!     }
//! }
//!
//! let inventory = Arc::new(Inventory::default());
//! inventory.reserve.then(Err(Status::unavailable("gone")));   // first
//! inventory.reserve.otherwise(|_| Ok(ReserveResponse { .. })); // ever after
//! let transport = peer::local("inventory", InventoryServiceServer::from_arc(inventory.clone()));
//! …
//! assert_eq!(inventory.reserve.asked().len(), 2);
//! ```

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use holdfast_platform::transport::{self, Door, Routes, Transport};
use tokio::sync::watch;
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{Service, http},
    metadata::MetadataMap,
    server::NamedService,
};

/// How long a test waits for a call that never comes.
const WAIT_MAX_SECS: u64 = 10;

/// Returns a transport to `server`, a generated server over a scripted peer, standing in for the service `name`.
///
/// It passes the same guard as the real one.
pub fn local<S>(name: &'static str, server: S) -> Transport
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    transport::local(Door::new(name, Routes::new(server)))
}

/// One call of a scripted peer: its answers, and what it was asked.
pub struct Script<Q, A> {
    told: Mutex<Told<Q, A>>,
    asked: Mutex<Vec<Asked<Q>>>,
    count: watch::Sender<usize>,
}

struct Told<Q, A> {
    next: VecDeque<Result<A, Status>>,
    otherwise: Option<Box<Rule<Q, A>>>,
}

type Rule<Q, A> = dyn FnMut(&Q) -> Result<A, Status> + Send;

/// A call as it arrived.
#[derive(Debug, Clone)]
pub struct Asked<Q> {
    /// What it said.
    pub message: Q,
    /// What came with it.
    pub metadata: MetadataMap,
}

impl<Q, A> Default for Script<Q, A> {
    fn default() -> Self {
        Self {
            told: Mutex::new(Told {
                next: VecDeque::new(),
                otherwise: None,
            }),
            asked: Mutex::new(Vec::new()),
            count: watch::Sender::new(0),
        }
    }
}

impl<Q: Clone, A> Script<Q, A> {
    /// Adds an answer, given once, after those added before.
    pub fn then(&self, answer: Result<A, Status>) -> &Self {
        lock(&self.told).next.push_back(answer);
        self
    }

    /// Says what is answered when no single answer is left.
    pub fn otherwise(&self, answer: impl FnMut(&Q) -> Result<A, Status> + Send + 'static) -> &Self {
        lock(&self.told).otherwise = Some(Box::new(answer));
        self
    }

    /// All calls so far, in the order they came.
    pub fn asked(&self) -> Vec<Q> {
        (self.calls().into_iter().map(|call| call.message)).collect()
    }

    /// The same with their metadata.
    pub fn calls(&self) -> Vec<Asked<Q>> {
        lock(&self.asked).clone()
    }

    /// Waits until it was asked `count` times in all; panics when that does not come to be.
    pub async fn asked_times(&self, count: usize) {
        let mut counted = self.count.subscribe();
        let limit = Duration::from_secs(WAIT_MAX_SECS);
        let waited = tokio::time::timeout(limit, counted.wait_for(|asked| *asked >= count)).await;
        assert!(
            waited.is_ok(),
            "asked {} times in {WAIT_MAX_SECS} s, waited for {count}",
            *self.count.borrow()
        );
    }

    /// Answers a call by the script. An unscripted one panics, which its caller sees as `Internal`.
    #[expect(clippy::unused_async, reason = "it stands where handlers stand")]
    pub async fn answer(&self, request: Request<Q>) -> Result<Response<A>, Status> {
        let (metadata, _, message) = request.into_parts();
        lock(&self.asked).push(Asked {
            message: message.clone(),
            metadata,
        });
        self.count.send_modify(|count| *count += 1);
        let mut told = lock(&self.told);
        let answer = match (told.next.pop_front(), &mut told.otherwise) {
            (Some(answer), _) => answer,
            (None, Some(rule)) => rule(&message),
            (None, None) => {
                drop(told);
                panic!("no answer is scripted for {}", std::any::type_name::<Q>())
            }
        };
        answer.map(Response::new)
    }
}

/// Declares a scripted peer: a struct with a [`Script`] for every call, and the generated service trait over it.
///
/// Calls that answer with streams are refused; behind the struct, `unscripted { watch(Request) -> Response as WatchStream; }`
/// names them.
#[macro_export]
macro_rules! scripted_peer {
    ($(#[$doc:meta])* $visible:vis struct $name:ident: $service:path {
        $($call:ident($request:ty) -> $response:ty;)+
    } $(unscripted {
        $($watch:ident($asked:ty) -> $told:ty as $stream:ident;)+
    })?) => {
        $(#[$doc])*
        #[derive(Default)]
        #[allow(clippy::struct_field_names, reason = "the fields are named as the calls")]
        $visible struct $name {
            $($visible $call: $crate::peer::Script<$request, $response>,)+
        }

        #[::tonic::async_trait]
        impl $service for $name {
            $(
                async fn $call(
                    &self,
                    request: ::tonic::Request<$request>,
                ) -> Result<::tonic::Response<$response>, ::tonic::Status> {
                    self.$call.answer(request).await
                }
            )+
            $($(
                type $stream = ::tonic::codegen::BoxStream<$told>;

                async fn $watch(
                    &self,
                    _: ::tonic::Request<$asked>,
                ) -> Result<::tonic::Response<Self::$stream>, ::tonic::Status> {
                    Err(::tonic::Status::unimplemented("streams are not scripted"))
                }
            )+)?
        }
    };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use holdfast_proto::users::v1::{
        self as pb, CreateProfileRequest, CreateProfileResponse, GetProfileRequest,
        GetProfileResponse, GetProfilesRequest, GetProfilesResponse, Profile, UpdateProfileRequest,
        UpdateProfileResponse,
        users_service_client::UsersServiceClient,
        users_service_server::{UsersService, UsersServiceServer},
    };
    use tonic::Code;

    use super::*;

    scripted_peer! {
        struct Users: UsersService {
            create_profile(CreateProfileRequest) -> CreateProfileResponse;
            get_profile(GetProfileRequest) -> GetProfileResponse;
        get_profiles(GetProfilesRequest) -> GetProfilesResponse;
            update_profile(UpdateProfileRequest) -> UpdateProfileResponse;
            list_addresses(pb::ListAddressesRequest) -> pb::ListAddressesResponse;
            add_address(pb::AddAddressRequest) -> pb::AddAddressResponse;
            change_address(pb::ChangeAddressRequest) -> pb::ChangeAddressResponse;
            remove_address(pb::RemoveAddressRequest) -> pb::RemoveAddressResponse;
        }
    }

    fn users() -> (Arc<Users>, UsersServiceClient<Transport>) {
        let users = Arc::new(Users::default());
        let server = UsersServiceServer::from_arc(users.clone());
        (users, UsersServiceClient::new(local("users", server)))
    }

    fn ask(user_id: &str) -> GetProfileRequest {
        GetProfileRequest {
            user_id: user_id.to_owned(),
        }
    }

    #[tokio::test]
    async fn answers_come_in_the_order_of_the_script_and_then_as_otherwise() {
        let (users, mut client) = users();
        users
            .get_profile
            .then(Err(Status::unavailable("gone")))
            .otherwise(|asked| {
                let profile = Profile {
                    user_id: asked.user_id.clone(),
                    ..Profile::default()
                };
                Ok(GetProfileResponse {
                    profile: Some(profile),
                })
            });
        let refused = client.get_profile(ask("usr_1")).await;
        assert_eq!(refused.expect_err("scripted").code(), Code::Unavailable);
        for user in ["usr_2", "usr_3"] {
            let answer = client.get_profile(ask(user)).await.expect("scripted");
            let profile = answer.into_inner().profile.expect("a profile");
            assert_eq!(profile.user_id, user);
        }
        let asked = users.get_profile.asked();
        assert_eq!(asked, [ask("usr_1"), ask("usr_2"), ask("usr_3")]);
        assert!(users.update_profile.asked().is_empty());
    }

    #[tokio::test]
    async fn a_call_without_a_script_is_internal_and_recorded() {
        let (users, mut client) = users();
        let mut request = Request::new(ask("usr_1"));
        request
            .metadata_mut()
            .insert("x-sent", "there".parse().expect("ascii"));
        let refused = client.get_profile(request).await.expect_err("no script");
        assert_eq!(refused.code(), Code::Internal);
        let calls = users.get_profile.calls();
        assert_eq!(calls.len(), 1);
        assert_eq!(calls[0].metadata.get("x-sent").expect("sent"), "there");
    }

    #[tokio::test]
    async fn a_test_can_wait_for_a_call_that_is_yet_to_come() {
        let (users, mut client) = users();
        let calling = tokio::spawn(async move { client.get_profile(ask("usr_1")).await });
        users.get_profile.asked_times(1).await;
        assert_eq!(users.get_profile.asked(), [ask("usr_1")]);
        calling.abort();
    }
}
