//! Every case runs in process and over TCP and expects the same answer.

use std::{future::pending, sync::Arc, time::Duration};

use futures::{StreamExt, future::BoxFuture, stream::BoxStream};
use holdfast_platform::{
    telemetry::trace::Trace,
    transport::{
        self, Door, MESSAGE_MAX_BYTES, Routes, Slot, Transport, channel, local, open_ended,
        serve_tcp,
    },
};
use holdfast_proto::users::v1::{
    AddAddressRequest, AddAddressResponse, ChangeAddressRequest, ChangeAddressResponse,
    CreateProfileRequest, CreateProfileResponse, GetProfileRequest, GetProfileResponse,
    GetProfilesRequest, GetProfilesResponse, ListAddressesRequest, ListAddressesResponse, Profile,
    RemoveAddressRequest, RemoveAddressResponse, UpdateProfileRequest, UpdateProfileResponse,
    users_service_client::UsersServiceClient,
    users_service_server::{UsersService, UsersServiceServer},
};
use tokio::{net::TcpListener, sync::Notify, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, body::Body};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_client::HealthClient,
    health_server::{Health, HealthServer},
};
use tower::ServiceExt;

/// Longer than anything here takes, shorter than anybody's patience.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// A deadline that a call which never ends is given.
const SHORT: Duration = Duration::from_millis(100);

type Behaviour = dyn Fn(
        Request<GetProfileRequest>,
    ) -> BoxFuture<'static, Result<Response<GetProfileResponse>, Status>>
    + Send
    + Sync;

/// A users service that does in `GetProfile` what the test says.
#[derive(Clone)]
struct Stub(Arc<Behaviour>);

#[tonic::async_trait]
impl UsersService for Stub {
    async fn get_profile(
        &self,
        request: Request<GetProfileRequest>,
    ) -> Result<Response<GetProfileResponse>, Status> {
        (self.0)(request).await
    }

    async fn create_profile(
        &self,
        _: Request<CreateProfileRequest>,
    ) -> Result<Response<CreateProfileResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn update_profile(
        &self,
        _: Request<UpdateProfileRequest>,
    ) -> Result<Response<UpdateProfileResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn get_profiles(
        &self,
        _: Request<GetProfilesRequest>,
    ) -> Result<Response<GetProfilesResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn list_addresses(
        &self,
        _: Request<ListAddressesRequest>,
    ) -> Result<Response<ListAddressesResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn add_address(
        &self,
        _: Request<AddAddressRequest>,
    ) -> Result<Response<AddAddressResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn change_address(
        &self,
        _: Request<ChangeAddressRequest>,
    ) -> Result<Response<ChangeAddressResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn remove_address(
        &self,
        _: Request<RemoveAddressRequest>,
    ) -> Result<Response<RemoveAddressResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}

type StreamBehaviour =
    dyn Fn() -> BoxStream<'static, Result<HealthCheckResponse, Status>> + Send + Sync;

/// A service with a streaming call, likewise.
///
/// None of the contracts so far has one. The health protocol's `Watch` stands in, under a name that leads to the door
/// under test instead of the server's own health service.
#[derive(Clone)]
struct StreamStub(Arc<StreamBehaviour>);

#[tonic::async_trait]
impl Health for StreamStub {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let bounded = request.metadata().contains_key("grpc-timeout");
        let mut response = Response::new((self.0)());
        response.metadata_mut().insert(
            "bounded",
            if bounded { "yes" } else { "no" }.parse().expect("ascii"),
        );
        Ok(response)
    }
}

fn users<F>(behaviour: impl Fn(Request<GetProfileRequest>) -> F + Send + Sync + 'static) -> Routes
where
    F: Future<Output = Result<Response<GetProfileResponse>, Status>> + Send + 'static,
{
    let stub = Stub(Arc::new(move |request| Box::pin(behaviour(request))));
    Routes::new(UsersServiceServer::new(stub))
}

fn streams<S>(behaviour: impl Fn() -> S + Send + Sync + 'static) -> Routes
where
    S: futures::Stream<Item = Result<HealthCheckResponse, Status>> + Send + 'static,
{
    let server = HealthServer::new(StreamStub(Arc::new(move || Box::pin(behaviour()))));
    let watch = server.map_request(|request: http::Request<axum::body::Body>| {
        at("/grpc.health.v1.Health/Watch", request).map(Body::new)
    });
    axum::Router::new().route_service(WATCH, watch).into()
}

const WATCH: &str = "/holdfast.users.v1.UsersService/Watch";

fn at<B>(path: &'static str, mut request: http::Request<B>) -> http::Request<B> {
    *request.uri_mut() = http::Uri::from_static(path);
    request
}

fn profile(name: impl Into<String>) -> Response<GetProfileResponse> {
    Response::new(GetProfileResponse {
        profile: Some(Profile {
            name: name.into(),
            ..Profile::default()
        }),
    })
}

fn named(answer: Response<GetProfileResponse>) -> String {
    answer.into_inner().profile.expect("a profile").name
}

/// The two ways to the same door.
struct Paths {
    paths: [(&'static str, Transport); 2],
    _server: Server,
}

/// A door opened over TCP; closed when dropped.
struct Server {
    port: u16,
    closing: CancellationToken,
    task: JoinHandle<Result<(), transport::ServeError>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn open(door: Door) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let closing = CancellationToken::new();
    let task = tokio::spawn(serve_tcp(vec![door], listener, None, closing.clone()));
    Server {
        port,
        closing,
        task,
    }
}

fn reach(server: &Server) -> Transport {
    let url = format!("http://127.0.0.1:{}", server.port);
    transport::remote("users", channel("users", &url).expect("a good address"))
}

async fn both(door: Door) -> Paths {
    let server = open(door.clone()).await;
    Paths {
        paths: [("in process", local(door)), ("over TCP", reach(&server))],
        _server: server,
    }
}

impl Paths {
    fn users(&self) -> impl Iterator<Item = (&'static str, UsersServiceClient<Transport>)> {
        (self.paths.iter())
            .map(|(path, transport)| (*path, UsersServiceClient::new(transport.clone())))
    }

    fn streams(&self) -> impl Iterator<Item = (&'static str, HealthClient<Transport>)> {
        (self.paths.iter()).map(|(path, transport)| {
            let transport = transport.clone().map_request(|request| at(WATCH, request));
            (*path, HealthClient::new(Transport::new(transport)))
        })
    }
}

fn ask() -> GetProfileRequest {
    GetProfileRequest::default()
}

fn ask_within(limit: Duration) -> Request<GetProfileRequest> {
    let mut request = Request::new(ask());
    request.set_timeout(limit);
    request
}

/// A profile named as the deadline that the callee was told.
fn told(request: &Request<GetProfileRequest>) -> Response<GetProfileResponse> {
    let timeout = request.metadata().get("grpc-timeout");
    profile(timeout.expect("a deadline").to_str().expect("ascii"))
}

/// Tells when it is dropped.
struct Dropped(Arc<Notify>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

async fn soon<F: Future>(what: &str, path: &str, event: F) -> F::Output {
    timeout(WAIT_MAX, event)
        .await
        .unwrap_or_else(|_| panic!("{path}: waited in vain until {what}"))
}

#[tokio::test]
async fn a_call_is_the_next_step_of_the_trace_it_is_made_in() {
    let paths = both(Door::new(
        "users",
        users(async |_| Ok(profile(Trace::current().expect("a trace").to_string()))),
    ))
    .await;
    for (path, mut client) in paths.users() {
        let trace = Trace::begin();
        let step = trace.scope(client.get_profile(ask())).await;
        let step = named(step.expect(path));
        assert!(step.contains(&trace.id().to_string()), "{path}: {step}");
        assert_ne!(step, trace.to_string(), "{path}");
        // What a caller writes by hand is no trace it is part of.
        let mut request = Request::new(ask());
        let forged = trace.to_string().parse().expect("ascii");
        request.metadata_mut().insert("traceparent", forged);
        let begun = named(client.get_profile(request).await.expect(path));
        assert!(!begun.contains(&trace.id().to_string()), "{path}: {begun}");
    }
}

#[tokio::test]
async fn the_rest_of_a_stream_is_part_of_the_trace_that_began_it() {
    let paths = both(Door::new(
        "users",
        streams(|| {
            let traced = Trace::current();
            futures::stream::unfold(0, move |count| async move {
                tokio::task::yield_now().await;
                assert_eq!(Trace::current(), traced);
                assert!(traced.is_some());
                let answer = HealthCheckResponse { status: count };
                (count < 3).then_some((Ok(answer), count + 1))
            })
        }),
    ))
    .await;
    for (path, mut client) in paths.streams() {
        let answer = client.watch(HealthCheckRequest::default()).await;
        let told = answer.expect(path).into_inner();
        let told: Vec<_> = told.map(|one| one.expect(path).status).collect().await;
        assert_eq!(told, [0, 1, 2], "{path}");
    }
}

#[tokio::test]
async fn answers_and_metadata_cross_in_both_directions() {
    let paths = both(Door::new(
        "users",
        users(async |request| {
            let mut response = profile(request.get_ref().user_id.clone());
            let sent = request.metadata().get("x-sent").cloned();
            response
                .metadata_mut()
                .insert("x-back", sent.expect("the caller sent it"));
            Ok(response)
        }),
    ))
    .await;
    for (path, mut client) in paths.users() {
        let mut request = Request::new(GetProfileRequest {
            user_id: "usr_1".into(),
        });
        request
            .metadata_mut()
            .insert("x-sent", "there".parse().expect("ascii"));
        let response = client.get_profile(request).await.expect(path);
        assert_eq!(response.metadata().get("x-back").expect(path), "there");
        let profile = response.into_inner().profile.expect(path);
        assert_eq!(profile.name, "usr_1", "{path}");
    }
}

#[tokio::test]
async fn a_refusal_crosses_with_its_details() {
    // As large as the errors of a basket of a thousand lines.
    let details = vec![7_u8; 20_000];
    let sent = details.clone();
    let paths = both(Door::new(
        "users",
        users(move |_| {
            let details = sent.clone().into();
            async move {
                Err(Status::with_details(
                    Code::FailedPrecondition,
                    "sold out – ausverkauft",
                    details,
                ))
            }
        }),
    ))
    .await;
    for (path, mut client) in paths.users() {
        let refused = client.get_profile(ask()).await.expect_err(path);
        assert_eq!(refused.code(), Code::FailedPrecondition, "{path}");
        assert_eq!(refused.message(), "sold out – ausverkauft", "{path}");
        assert_eq!(refused.details(), details, "{path}");
    }
}

#[tokio::test]
async fn a_refusal_with_details_too_large_for_a_wire_keeps_its_code() {
    let paths = both(Door::new(
        "users",
        users(async |_| {
            Err(Status::with_details(
                Code::FailedPrecondition,
                "sold out",
                vec![7_u8; 200_000].into(),
            ))
        }),
    ))
    .await;
    for (path, mut client) in paths.users() {
        let refused = client.get_profile(ask()).await.expect_err(path);
        assert_eq!(refused.code(), Code::FailedPrecondition, "{path}");
        assert_eq!(refused.message(), "sold out", "{path}");
        assert_eq!(refused.details(), b"", "{path}");
    }
}

#[tokio::test]
async fn metadata_too_large_for_a_wire_is_refused() {
    let paths = both(Door::new("users", users(async |_| Ok(profile(""))))).await;
    for (path, mut client) in paths.users() {
        let mut request = Request::new(ask());
        request
            .metadata_mut()
            .insert("x-sent", "x".repeat(200_000).parse().expect("ascii"));
        let refused = client.get_profile(request).await.expect_err(path);
        assert_eq!(refused.code(), Code::ResourceExhausted, "{path}");
    }
}

#[tokio::test]
async fn a_passed_deadline_is_deadline_exceeded_and_ends_the_handler() {
    let gone = Arc::new(Notify::new());
    let watched = gone.clone();
    let paths = both(Door::new(
        "users",
        users(move |_| {
            let dropped = Dropped(watched.clone());
            async move {
                let _dropped = dropped;
                pending().await
            }
        }),
    ))
    .await;
    for (path, mut client) in paths.users() {
        let refused = client.get_profile(ask_within(SHORT)).await.expect_err(path);
        assert_eq!(refused.code(), Code::DeadlineExceeded, "{path}");
        assert_eq!(
            refused.message(),
            "the deadline of the call has passed",
            "{path}"
        );
        soon("the handler was dropped", path, gone.notified()).await;
    }
}

#[tokio::test]
async fn a_callee_keeps_the_deadline_of_a_caller_that_does_not() {
    let door = Door::new("users", users(async |_| pending().await));
    // Straight at the door, past the caller's guard.
    let mut careless = UsersServiceClient::new(door);
    let refused = soon("the callee gave up", "in process", async {
        careless.get_profile(ask_within(SHORT)).await
    })
    .await
    .expect_err("it never answers");
    assert_eq!(refused.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_caller_keeps_its_deadline_when_the_peer_accepts_and_never_answers() {
    let mute = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", mute.local_addr().expect("it is bound"));
    let holding = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok(connection) = mute.accept().await {
            held.push(connection);
        }
    });
    let transport = transport::remote("users", channel("users", &url).expect("an address"));
    let mut client = UsersServiceClient::new(transport);
    let refused = soon("the caller gave up", "over TCP", async {
        client.get_profile(ask_within(SHORT)).await
    });
    let refused = refused.await.expect_err("it never answers");
    assert_eq!(refused.code(), Code::DeadlineExceeded);
    assert_eq!(refused.message(), "the deadline of the call has passed");
    holding.abort();
}

#[tokio::test]
async fn a_call_without_a_deadline_gets_the_default_one() {
    let paths = both(Door::new(
        "users",
        users(async |request| {
            let timeout = request.metadata().get("grpc-timeout");
            Ok(profile(
                timeout.expect("a deadline").to_str().expect("ascii"),
            ))
        }),
    ))
    .await;
    for (path, mut client) in paths.users() {
        let response = client.get_profile(ask()).await.expect(path);
        let timeout = response.into_inner().profile.expect(path).name;
        assert_eq!(timeout, "2000000u", "{path}");
    }
}

#[tokio::test]
async fn what_remains_of_a_deadline_bounds_the_calls_made_under_it() {
    let behind = both(Door::new(
        "users",
        users(async |request| Ok(told(&request))),
    ))
    .await;
    for (inner_path, inner) in behind.users() {
        let front = both(Door::new(
            "users",
            users(move |_| {
                let mut inner = inner.clone();
                async move { inner.get_profile(ask()).await }
            }),
        ))
        .await;
        for (path, mut client) in front.users() {
            let path = format!("{path}, then {inner_path}");
            let outer = Duration::from_millis(1_500);
            let response = client.get_profile(ask_within(outer)).await.expect(&path);
            let name = response.into_inner().profile.expect(&path).name;
            let micros: u128 = name.trim_end_matches('u').parse().expect(&name);
            assert!(micros < outer.as_micros(), "{path}: {name}");
        }
    }
}

#[tokio::test]
async fn a_panic_is_internal_without_its_text_and_both_sides_live_on() {
    let paths = both(Door::new(
        "users",
        users(async |request| {
            assert!(request.get_ref().user_id != "usr_bad", "secret of usr_bad");
            Ok(profile("fine"))
        }),
    ))
    .await;
    for (path, mut client) in paths.users() {
        let bad = GetProfileRequest {
            user_id: "usr_bad".into(),
        };
        let refused = client.get_profile(bad).await.expect_err(path);
        assert_eq!(refused.code(), Code::Internal, "{path}");
        assert_eq!(
            refused.message(),
            "the callee failed unexpectedly",
            "{path}"
        );
        client.get_profile(ask()).await.expect(path);
    }
}

#[tokio::test]
async fn extensions_stay_on_their_own_side() {
    #[derive(Clone)]
    struct Secret;
    let paths = both(Door::new(
        "users",
        users(async |request| {
            let leaked = request.extensions().get::<Secret>().is_some();
            let mut response = profile(if leaked { "leaked" } else { "clean" });
            response.extensions_mut().insert(Secret);
            Ok(response)
        }),
    ))
    .await;
    for (path, mut client) in paths.users() {
        let mut request = Request::new(ask());
        request.extensions_mut().insert(Secret);
        let response = client.get_profile(request).await.expect(path);
        assert!(response.extensions().get::<Secret>().is_none(), "{path}");
        let profile = response.into_inner().profile.expect(path);
        assert_eq!(profile.name, "clean", "{path}");
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_the_handler() {
    let (started, gone) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (starting, going) = (started.clone(), gone.clone());
    let paths = both(Door::new(
        "users",
        users(move |_| {
            let dropped = Dropped(going.clone());
            starting.notify_one();
            async move {
                let _dropped = dropped;
                pending().await
            }
        }),
    ))
    .await;
    for (path, mut client) in paths.users() {
        let call = tokio::spawn(async move { client.get_profile(ask_within(WAIT_MAX)).await });
        soon("the handler began", path, started.notified()).await;
        call.abort();
        soon("the handler was dropped", path, gone.notified()).await;
    }
}

#[tokio::test]
async fn one_call_too_many_is_refused_at_once_and_the_place_is_given_back() {
    let (started, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (starting, finishing) = (started.clone(), finish.clone());
    let routes = users(move |_| {
        let finish = finishing.clone();
        starting.notify_one();
        async move {
            finish.notified().await;
            Ok(profile(""))
        }
    });
    let paths = both(Door::with_limit("users", routes, 1)).await;
    for (path, client) in paths.users() {
        let mut first = client.clone();
        let first = tokio::spawn(async move { first.get_profile(ask_within(WAIT_MAX)).await });
        soon("the first call began", path, started.notified()).await;
        let refused = client.clone().get_profile(ask()).await.expect_err(path);
        assert_eq!(refused.code(), Code::Unavailable, "{path}");
        assert_eq!(
            refused.message(),
            "users has too many calls in hand",
            "{path}"
        );
        finish.notify_one();
        soon("the first call ended", path, first)
            .await
            .expect("it did not panic")
            .expect(path);
        finish.notify_one();
        client.clone().get_profile(ask()).await.expect(path);
        soon("the call began", path, started.notified()).await;
    }
}

#[tokio::test]
async fn a_message_above_the_limit_is_out_of_range_in_both_directions() {
    let paths = both(Door::new(
        "users",
        users(async |request| {
            let grow = request.get_ref().user_id == "grow";
            Ok(profile(if grow {
                "x".repeat(MESSAGE_MAX_BYTES)
            } else {
                String::new()
            }))
        }),
    ))
    .await;
    for (path, mut client) in paths.users() {
        for user_id in ["grow".to_owned(), "x".repeat(MESSAGE_MAX_BYTES)] {
            let outcome = client.get_profile(GetProfileRequest { user_id }).await;
            assert_eq!(outcome.expect_err(path).code(), Code::OutOfRange, "{path}");
        }
        // A little below passes.
        let user_id = "x".repeat(MESSAGE_MAX_BYTES - 100);
        client
            .get_profile(GetProfileRequest { user_id })
            .await
            .expect(path);
    }
}

#[tokio::test]
async fn a_call_that_nobody_serves_is_unimplemented() {
    let paths = both(Door::new("users", streams(futures::stream::pending))).await;
    for (path, mut client) in paths.users() {
        let refused = client.get_profile(ask()).await.expect_err(path);
        assert_eq!(refused.code(), Code::Unimplemented, "{path}");
    }
}

#[tokio::test]
async fn a_peer_that_cannot_be_reached_is_unavailable_without_its_address() {
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        listener.local_addr().expect("it is bound").port()
    };
    let hangs_up = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let hangs_up_port = hangs_up.local_addr().expect("it is bound").port();
    let hanging_up = tokio::spawn(async move { while hangs_up.accept().await.is_ok() {} });
    for (what, port) in [("refused", nobody), ("hung up", hangs_up_port)] {
        let url = format!("http://127.0.0.1:{port}");
        let transport = transport::remote("users", channel("users", &url).expect("an address"));
        let refused = UsersServiceClient::new(transport)
            .get_profile(ask())
            .await
            .expect_err(what);
        assert_eq!(refused.code(), Code::Unavailable, "{what}");
        assert_eq!(refused.message(), "users cannot be reached", "{what}");
    }
    hanging_up.abort();
}

#[tokio::test]
async fn a_slot_nobody_filled_is_unavailable_and_works_once_it_is_filled() {
    let slot = Slot::new("users");
    let mut client = UsersServiceClient::new(slot.transport());
    let refused = client.get_profile(ask()).await.expect_err("it is empty");
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(refused.message(), "users has not started");
    slot.fill_local(Door::new("users", users(async |_| Ok(profile("")))));
    client.get_profile(ask()).await.expect("it is filled");
}

#[tokio::test]
async fn a_peer_that_comes_back_is_reached_again() {
    let door = Door::new("users", users(async |_| Ok(profile(""))));
    let server = open(door.clone()).await;
    let mut client = UsersServiceClient::new(reach(&server));
    client.get_profile(ask()).await.expect("it serves");

    let port = server.port;
    server.closing.cancel();
    let mut server = server;
    soon("the server ended", "over TCP", &mut server.task)
        .await
        .expect("it did not panic")
        .expect("it ended well");
    let refused = client.get_profile(ask()).await.expect_err("it is gone");
    assert_eq!(refused.code(), Code::Unavailable);

    let listener = TcpListener::bind(("127.0.0.1", port))
        .await
        .expect("free again");
    let again = tokio::spawn(serve_tcp(
        vec![door],
        listener,
        None,
        CancellationToken::new(),
    ));
    client.get_profile(ask()).await.expect("it is back");
    again.abort();
}

#[tokio::test]
async fn addresses_no_peer_can_have_are_refused_by_name() {
    for url in [
        "",
        "users",
        "users:50052",
        "ftp://users:1",
        "http://users",
        "http://users:1/path",
    ] {
        let refused = channel("users", url).expect_err(url).to_string();
        assert!(refused.starts_with("peers.users: got "), "{refused}");
    }
}

#[tokio::test]
async fn a_stream_that_panics_or_outlasts_its_deadline_ends_with_its_status() {
    let one = || Ok(HealthCheckResponse::default());
    for (behaviour, code) in [
        ("panics", Code::Internal),
        ("hangs", Code::DeadlineExceeded),
    ] {
        let paths = both(Door::new(
            "users",
            streams(move || {
                futures::stream::iter([one()]).chain(futures::stream::once(async move {
                    assert!(behaviour != "panics", "secret");
                    pending().await
                }))
            }),
        ))
        .await;
        for (path, mut client) in paths.streams() {
            let mut request = Request::new(HealthCheckRequest::default());
            request.set_timeout(SHORT);
            let mut stream = client.watch(request).await.expect(path).into_inner();
            let ended = soon("the stream ended", path, async {
                loop {
                    match stream.message().await {
                        Ok(message) => assert!(message.is_some(), "{path}: ended well"),
                        Err(status) => return status,
                    }
                }
            });
            assert_eq!(ended.await.code(), code, "{path}: {behaviour}");
        }
    }
}

#[tokio::test]
async fn an_open_ended_stream_has_no_deadline_and_other_streams_do() {
    let paths = both(Door::new("users", streams(futures::stream::pending))).await;
    for (path, mut client) in paths.streams() {
        let ask = HealthCheckRequest::default;
        let bounded = client.watch(ask()).await.expect(path);
        let is_bounded = |metadata: &tonic::metadata::MetadataMap| {
            metadata.get("bounded").expect("the stub sends it") == "yes"
        };
        assert!(is_bounded(bounded.metadata()), "{path}");
        let unbounded = client.watch(open_ended(ask())).await.expect(path);
        assert!(!is_bounded(unbounded.metadata()), "{path}");
    }
}

#[tokio::test]
async fn a_stream_holds_its_place_until_it_ends() {
    let paths = both(Door::with_limit(
        "users",
        streams(futures::stream::pending),
        1,
    ))
    .await;
    for (path, mut client) in paths.streams() {
        let ask = || open_ended(HealthCheckRequest::default());
        let stream = client.watch(ask()).await.expect(path);
        let refused = client.watch(ask()).await.expect_err(path);
        assert_eq!(refused.code(), Code::Unavailable, "{path}");
        drop(stream);
        soon("the place was given back", path, async {
            while client.watch(ask()).await.is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_server_that_closes_ends_open_ended_streams_and_lets_calls_in_hand_finish() {
    let (started, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (starting, finishing) = (started.clone(), finish.clone());
    let calls = users(move |_| {
        let finish = finishing.clone();
        starting.notify_one();
        async move {
            finish.notified().await;
            Ok(profile("finished"))
        }
    });
    let watches = streams(futures::stream::pending).into_axum_router();
    let routes = Routes::from(watches.merge(calls.into_axum_router()));
    let mut server = open(Door::new("users", routes)).await;
    let transport = reach(&server);
    let watching = transport.clone().map_request(|request| at(WATCH, request));
    let mut stream = HealthClient::new(Transport::new(watching))
        .watch(open_ended(HealthCheckRequest::default()))
        .await
        .expect("it serves")
        .into_inner();
    let mut client = UsersServiceClient::new(transport);
    let call = tokio::spawn(async move { client.get_profile(ask_within(WAIT_MAX)).await });
    soon("the call began", "over TCP", started.notified()).await;

    server.closing.cancel();
    let ended = soon("the stream ended", "over TCP", stream.message()).await;
    assert_eq!(ended.expect_err("it ends").code(), Code::Unavailable);
    finish.notify_one();
    let answer = soon("the call ended", "over TCP", call)
        .await
        .expect("it did not panic");
    let profile = answer.expect("an answer").into_inner().profile;
    assert_eq!(profile.expect("a profile").name, "finished");
    soon("the server ended", "over TCP", &mut server.task)
        .await
        .expect("it did not panic")
        .expect("it ended well");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_unavailable() {
    // A server with a runtime of its own, so that its connections end as those of a killed process do.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let stream = || futures::stream::iter([Ok(HealthCheckResponse::default())]);
    let routes = streams(move || stream().chain(futures::stream::pending()));
    let server = runtime.spawn(open(Door::new("users", routes)));
    let server = server.await.expect("it opened");
    let watching = reach(&server).map_request(|request| at(WATCH, request));
    let mut stream = HealthClient::new(Transport::new(watching))
        .watch(open_ended(HealthCheckRequest::default()))
        .await
        .expect("it serves")
        .into_inner();
    stream
        .message()
        .await
        .expect("it serves")
        .expect("a first message");
    runtime.shutdown_background();
    let broken = soon("the break was seen", "over TCP", stream.message()).await;
    let broken = broken.expect_err("it broke");
    assert_eq!(broken.code(), Code::Unavailable);
    assert_eq!(broken.message(), "users cannot be reached");
}

#[tokio::test]
async fn a_tcp_server_tells_its_health() {
    let server = open(Door::new("users", users(async |_| Ok(profile(""))))).await;
    let mut health = HealthClient::new(reach(&server));
    for service in ["", "users"] {
        let request = HealthCheckRequest {
            service: service.into(),
        };
        let answer = health.check(request).await.expect("an answer").into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
}
