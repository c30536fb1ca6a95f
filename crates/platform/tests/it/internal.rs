use axum::{body::Body, http::Request};
use holdfast_platform::internal::{self, Check};
use http_body_util::BodyExt;
use serde_json::json;
use tower::ServiceExt;

async fn get(checks: Vec<Check>, path: &str) -> (u16, String) {
    let routes = internal::routes(checks, internal::record_metrics());
    let request = Request::get(path).body(Body::empty()).expect("a request");
    let response = routes.oneshot(request).await.expect("an answer");
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.expect("a body");
    let text = String::from_utf8(body.to_bytes().to_vec()).expect("text");
    (status, text)
}

fn passing(name: &'static str) -> Check {
    Check::new(name, async || Ok(()))
}

#[tokio::test]
async fn a_process_is_ready_when_every_check_passes() {
    for checks in [vec![], vec![passing("database"), passing("bus")]] {
        let (status, body) = get(checks, "/readyz").await;
        assert_eq!((status, body.as_str()), (200, r#"{"ready":true}"#));
    }
}

#[tokio::test]
async fn a_process_that_is_not_ready_says_which_checks_failed() {
    let checks = vec![
        passing("database"),
        Check::new("bus", async || Err("cannot be reached".to_owned())),
        Check::new("peers", std::future::pending),
    ];
    let (status, body) = get(checks, "/readyz").await;
    let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    let failed = json!({"bus": "cannot be reached", "peers": "no answer within 1000 ms"});
    assert_eq!(status, 503);
    assert_eq!(body, json!({"ready": false, "failed": failed}));
}

#[tokio::test]
async fn a_process_lives_whether_it_is_ready_or_not() {
    let failing = Check::new("bus", async || Err("down".to_owned()));
    assert_eq!(
        get(vec![failing], "/healthz").await,
        (200, "ok\n".to_owned())
    );
}

#[tokio::test]
async fn what_was_measured_is_shown_with_buckets_for_seconds() {
    internal::record_metrics();
    metrics::counter!("sold_total").increment(3);
    metrics::histogram!("checkout_seconds").record(0.003);
    let (status, shown) = get(vec![], "/metrics").await;
    assert_eq!(status, 200);
    assert!(shown.contains("sold_total 3"), "{shown}");
    assert!(
        shown.contains(r#"checkout_seconds_bucket{le="0.005"} 1"#),
        "{shown}"
    );
}
