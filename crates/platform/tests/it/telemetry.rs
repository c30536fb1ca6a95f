use holdfast_platform::{
    telemetry,
    transport::{Door, Routes, local},
};
use holdfast_proto::users::v1::{GetProfileRequest, users_service_client::UsersServiceClient};

use crate::child::child;

#[test]
fn a_panic_that_a_door_caught_is_one_entry_with_its_call() {
    let output = child("telemetry::panics_behind_a_door")
        .env_remove("RUST_BACKTRACE")
        .output()
        .expect("it ran");
    let logged = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{logged}");
    let entries: Vec<serde_json::Value> = logged
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")))
        .collect();
    assert_eq!(entries.len(), 1, "{logged}");
    let entry = &entries[0];
    assert_eq!(entry["message"], "panicked");
    assert_eq!(entry["level"], "ERROR");
    assert_eq!(entry["panic"], "on purpose");
    assert_eq!(entry["spans"][0]["service"], "users");
    assert_eq!(
        entry["spans"][0]["path"],
        "/holdfast.users.v1.UsersService/GetProfile"
    );
    let location = entry["location"].as_str().expect("a place");
    assert!(location.contains("telemetry.rs:"), "{location}");
}

#[tokio::test]
#[ignore = "run by the test above, as a child"]
async fn panics_behind_a_door() {
    telemetry::start("info").expect("nothing else logs");
    let router = axum::Router::new().fallback(async || -> () { panic!("on purpose") });
    let door = Door::new("users", Routes::from(router));
    UsersServiceClient::new(local(door))
        .get_profile(GetProfileRequest::default())
        .await
        .expect_err("it panics");
}

#[test]
fn levels_that_cannot_be_read_are_refused_by_what_was_got() {
    let refused = telemetry::start("holdfast=loud").expect_err("no such level");
    assert!(
        refused.to_string().contains("got \"holdfast=loud\""),
        "{refused}"
    );
}
