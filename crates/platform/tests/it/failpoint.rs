use std::os::unix::process::ExitStatusExt;

use holdfast_platform::failpoint;

use crate::child::child;

const POINTS: &[&str] = &["orders.recorded", "payments.captured"];

#[test]
fn a_kill_ends_the_process_there_and_then() {
    let output = child("failpoint::passes_its_points")
        .env(failpoint::ENVIRONMENT, "payments.captured=kill@nth(2)")
        .output()
        .expect("it ran");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.signal(), Some(9), "{printed}");
    assert!(printed.contains("round 1"), "{printed}");
    assert!(!printed.contains("round 2"), "{printed}");
}

#[test]
fn an_error_is_injected_from_the_environment_and_nothing_when_it_is_empty() {
    for (armed, injected) in [("orders.recorded=error", true), ("", false)] {
        let output = child("failpoint::passes_its_points")
            .env(failpoint::ENVIRONMENT, armed)
            .output()
            .expect("it ran");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{printed}");
        let told = printed.contains("failpoint orders.recorded");
        assert_eq!(told, injected, "{armed:?}: {printed}");
    }
}

#[tokio::test]
#[ignore = "run by the tests above, as a child"]
async fn passes_its_points() {
    failpoint::arm(POINTS.iter().copied()).expect("the parent writes it right");
    for round in 1..=2 {
        for point in POINTS {
            if let Err(injected) = failpoint::hit(point).await {
                println!("{injected}");
            }
        }
        println!("round {round}");
    }
}
