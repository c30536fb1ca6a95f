//! Other ways to say a method or a path than those that are described.

use anyhow::ensure;
use holdfast_e2e::{Asking, Operation};

use super::{stage::on_stage, table::Asker};

const METHODS: [&str; 10] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "BREW",
];
const OVERRIDES: [&str; 3] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_method_that_is_not_described_is_not_done_whoever_asks() -> anyhow::Result<()> {
    on_stage(async |stage| {
        for (path, described) in stage.contract.paths() {
            let operation = any_operation(&stage.contract.operations()?, &path);
            let at = operation.example()?.path;
            for method in METHODS {
                let reads = method == "HEAD" && described.iter().any(|it| it == "GET");
                if reads || described.iter().any(|it| it == method) {
                    continue;
                }
                for asker in [Asker::Nobody, Asker::Admin] {
                    let answer = stage.door(asker).ask(&Asking::new(method, &at)).await?;
                    ensure!(
                        answer.status == 405,
                        "{asker:?} {method} {at}: {}",
                        answer.status
                    );
                    let allow = answer.header("allow").unwrap_or_default();
                    let mut allowed: Vec<&str> = allow.split(", ").collect();
                    allowed.retain(|it| *it != "HEAD");
                    allowed.sort_unstable();
                    let mut wanted = described.clone();
                    wanted.sort_unstable();
                    ensure!(allowed == wanted, "{method} {at} allows {allow}");
                    if method != "HEAD" {
                        answer.is_refused(405, "method_not_allowed")?;
                    }
                }
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_get_stays_a_get_whatever_its_headers_say_and_a_head_is_one_without_a_body()
-> anyhow::Result<()> {
    on_stage(async |stage| {
        for operation in stage.contract.operations()? {
            if operation.method != "GET" {
                continue;
            }
            let asking = operation.example()?;
            for asker in [Asker::Nobody, Asker::Other, Asker::Admin] {
                let door = stage.door(asker);
                let plain = door.ask(&asking).await?;
                for name in OVERRIDES {
                    let dressed = asking.clone().with(name, "DELETE");
                    let answer = door.ask(&dressed).await?;
                    ensure!(
                        answer.status == plain.status,
                        "{asker:?} {}",
                        operation.name()
                    );
                }
                let head = Asking {
                    method: "HEAD".to_owned(),
                    ..asking.clone()
                };
                let head = door.ask(&head).await?;
                ensure!(
                    (head.status, head.bytes.len()) == (plain.status, 0),
                    "{asker:?} HEAD {}: {}",
                    operation.path,
                    head.status
                );
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_is_one_path_and_not_its_likes() -> anyhow::Result<()> {
    on_stage(async |stage| {
        for operation in stage.contract.operations()? {
            let asking = operation.example()?;
            let path = &asking.path;
            for like in [
                format!("{path}/"),
                format!("/{path}"),
                path.replacen("/v1/", "/V1/", 1),
                path.replacen("/v1/", "/v1//", 1),
            ] {
                if like == *path {
                    continue;
                }
                let asking = Asking {
                    path: like.clone(),
                    ..asking.clone()
                };
                let answer = stage.door(Asker::Admin).ask(&asking).await?;
                ensure!(
                    answer.status == 404,
                    "{} {like}: {}",
                    operation.method,
                    answer.status
                );
            }
        }
        Ok(())
    })
    .await
}

fn any_operation(operations: &[Operation], path: &str) -> Operation {
    let found = operations.iter().find(|it| it.path == path);
    found.expect("a path has operations").clone()
}
