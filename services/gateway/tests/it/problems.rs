//! What clients are told when a service refuses.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use holdfast_gateway::REASONS;
use holdfast_platform::fault::{Fault, FaultCode};
use serde_json::json;
use tonic::Status;

use crate::world::{Told, World};

async fn told_of(world: &World, refusal: Status) -> Told {
    world.catalog.get_product.then(Err(refusal));
    world.get("/v1/products/x").send_nothing().await
}

#[tokio::test]
async fn every_reason_a_service_gives_comes_out_as_its_problem() {
    let world = World::new().await;
    for reason in REASONS {
        let fault = Fault::new(FaultCode::Conflict, reason.reason, "what was got");
        let told = told_of(&world, fault.into()).await;
        assert_eq!(
            told.problem(),
            (reason.status, reason.code.to_owned()),
            "{}",
            reason.reason
        );
        let problem = told.json();
        assert_eq!(problem["title"], reason.title);
        let detail = if reason.status < 500 {
            "what was got"
        } else {
            reason.title
        };
        assert_eq!(problem["detail"], detail);
        let waits = matches!(reason.status, 429 | 503);
        assert_eq!(
            told.header("retry-after").is_some(),
            waits,
            "{}",
            reason.reason
        );
        let explained = world
            .get(problem["type"].as_str().expect("a type"))
            .send_nothing()
            .await;
        assert_eq!(explained.status, 200, "{}", reason.code);
    }
}

#[tokio::test]
async fn figures_and_entries_reach_the_client_in_their_own_types() {
    let world = World::new().await;
    let fault = Fault::new(
        FaultCode::Conflict,
        "OUT_OF_STOCK",
        "sku 0123: 3 asked, 1 left",
    )
    .with("order_id", "ord_1")
    .with("sku", "0123")
    .with("available", 1)
    .with("status", "a figure must not pass for a member")
    .item([
        ("sku", "0123".into()),
        ("requested", 3.into()),
        ("available", 1.into()),
    ]);
    let problem = told_of(&world, fault.into()).await.json();
    assert_eq!(
        problem["errors"],
        json!([{"sku": "0123", "requested": 3, "available": 1}])
    );
    assert_eq!(problem["order_id"], "ord_1");
    assert_eq!(problem["sku"], "0123");
    assert_eq!(problem["available"], 1);
    assert_eq!(problem["status"], 409);
}

#[tokio::test]
async fn a_service_that_says_how_long_to_wait_is_repeated() {
    let world = World::new().await;
    let fault = Fault::new(FaultCode::Exhausted, "TOO_MANY_HOLDS", "50 live holds")
        .retry_after(Duration::from_millis(2_500));
    let told = told_of(&world, fault.into()).await;
    assert_eq!(told.header("retry-after"), Some("3"));
    assert_eq!(told.json()["retry_after"], 3);
}

#[tokio::test]
async fn what_goes_wrong_inside_is_told_to_nobody() {
    let world = World::new().await;
    let leaks = [
        Status::internal("panicked at src/store.rs:12"),
        Status::unavailable("tcp connect error: 10.0.0.7:50054"),
        Status::unknown("postgres://catalog_app@10.0.0.7"),
        Fault::new(FaultCode::Conflict, "NEVER_HEARD_OF", "10.0.0.7").into(),
    ];
    for leak in leaks {
        let told = told_of(&world, leak).await;
        assert!(told.status.is_server_error(), "{told:?}");
        let text = String::from_utf8_lossy(&told.bytes);
        for part in ["10.0.0.7", "src/", "NEVER"] {
            assert!(!text.contains(part), "{text}");
        }
    }
}

#[tokio::test]
async fn a_service_that_is_away_is_503_and_one_that_breaks_its_contract_500() {
    let world = World::new().await;
    let away = told_of(&world, Status::unavailable("gone")).await;
    assert_eq!(away.problem(), (503, "unavailable".into()));
    let late = told_of(&world, Status::deadline_exceeded("late")).await;
    assert_eq!(late.problem(), (503, "unavailable".into()));
    world
        .catalog
        .get_product
        .then(Ok(holdfast_proto::catalog::v1::GetProductResponse {
            product: None,
        }));
    let empty = world.get("/v1/products/x").send_nothing().await;
    assert_eq!(empty.problem(), (500, "internal".into()));
}

/// The reasons that stand in a source file: every text in capitals of a table of errors, the first one after each
/// `Fault::new(` elsewhere.
fn reasons_in(source: &str, is_table: bool) -> Vec<String> {
    let production = source.split("#[cfg(test)]").next().unwrap_or_default();
    let texts: Vec<&str> = if is_table {
        production.split('"').skip(1).step_by(2).collect()
    } else {
        let made = production.split("Fault::new(").skip(1);
        made.filter_map(|rest| rest.split('"').nth(1)).collect()
    };
    texts
        .into_iter()
        .filter(|text| {
            text.len() > 2
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
        })
        .map(ToOwned::to_owned)
        .collect()
}

fn sources(folder: &Path, found: &mut Vec<(bool, String)>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a readable file");
            found.push((path.ends_with("error.rs"), text));
        }
    }
}

#[test]
fn the_table_knows_every_reason_that_a_service_can_give() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = Vec::new();
    sources(&root.join("crates/platform/src"), &mut found);
    for service in fs::read_dir(root.join("services")).expect("services") {
        sources(&service.expect("a service").path().join("src"), &mut found);
    }
    let known: BTreeSet<&str> = REASONS.iter().map(|reason| reason.reason).collect();
    let given: BTreeSet<String> = found
        .iter()
        .flat_map(|(is_table, source)| reasons_in(source, *is_table))
        .collect();
    assert!(given.len() > 10, "the sources were found: {given:?}");
    let unknown: Vec<_> = given
        .iter()
        .filter(|reason| !known.contains(reason.as_str()))
        .collect();
    assert!(unknown.is_empty(), "no problem stands for {unknown:?}");
    assert_eq!(known.len(), REASONS.len(), "each reason stands once");
}

#[test]
fn a_code_means_one_status_and_one_title() {
    for one in REASONS {
        for other in REASONS.iter().filter(|other| other.code == one.code) {
            assert_eq!(
                (one.status, one.title),
                (other.status, other.title),
                "{}",
                one.code
            );
        }
        let plain = one
            .code
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        assert!(plain, "{}", one.code);
    }
}

#[test]
fn the_contracts_name_no_reason_that_the_table_does_not_know() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let mut texts = Vec::new();
    contracts(&root, &mut texts);
    let known: BTreeSet<&str> = REASONS.iter().map(|reason| reason.reason).collect();
    let mut unknown = BTreeSet::new();
    for text in &texts {
        for (at, line) in text
            .lines()
            .enumerate()
            .filter(|(_, line)| line.contains("Refuses:"))
        {
            let comment: Vec<&str> =
                std::iter::once(line.split("Refuses:").nth(1).unwrap_or_default())
                    .chain(
                        text.lines()
                            .skip(at + 1)
                            .take_while(|line| line.trim().starts_with("//")),
                    )
                    .collect();
            for word in comment
                .join(" ")
                .split(|letter: char| !(letter.is_ascii_uppercase() || letter == '_'))
            {
                if word.trim_matches('_').contains('_') && !known.contains(word) {
                    unknown.insert(word.to_owned());
                }
            }
        }
    }
    assert!(unknown.is_empty(), "no problem stands for {unknown:?}");
}

fn contracts(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("contracts") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            contracts(&path, found);
        } else {
            found.push(fs::read_to_string(&path).expect("a readable file"));
        }
    }
}

#[test]
fn the_reading_of_sources_finds_reasons_on_one_line_and_on_several() {
    let source = "Fault::new(FaultCode::Conflict, \"A_B\", text)\nFault::new(\n  NotFound,\n  \"CDE\",\n \"there\")";
    assert_eq!(reasons_in(source, false), ["A_B", "CDE"]);
    assert_eq!(reasons_in("let f = conflict(\"X_Y\");", true), ["X_Y"]);
}
