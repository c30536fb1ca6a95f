//! Who may do what: every operation, asked well by everybody.

use anyhow::{Context as _, bail, ensure};
use holdfast_e2e::{Answer, Operation, Topology};

use super::{
    stage::{Books, Stage, Thing, on_stage, written},
    table::{ASKERS, Asker, Row, TABLE, row_of},
};
use crate::shop::in_shop;

/// Refusals of who asks, whatever is asked.
const NOT_FOR_YOU: [u16; 3] = [401, 403, 404];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_tells_everybody_what_its_row_says_and_writes_nothing_for_who_may_not()
-> anyhow::Result<()> {
    on_stage(async |stage| {
        for operation in stage.contract.operations()? {
            let name = operation.name();
            let row = row_of(&name).with_context(|| {
                format!(
                    "{name} has no row: add one to e2e/tests/it/refusals/table.rs, with what must be there before it \
                     is asked and what nobody, the owner, another user, staff and admins are told"
                )
            })?;
            is_no_laxer_than_its_audience(&operation, row)?;
            everybody_is_told(stage, &operation, row, Watched::Books)
                .await
                .with_context(|| name)?;
        }
        Ok(())
    })
    .await
}

/// One operation of each service.
const OF_EACH_SERVICE: [&str; 8] = [
    "POST /v1/users/refresh",
    "PATCH /v1/users/me",
    "PATCH /v1/products/{id}",
    "POST /v1/inventory/{key}/adjustments",
    "POST /v1/orders/{id}/cancel",
    "GET /v1/payments/{id}",
    "POST /v1/payments/{id}/sandbox/complete",
    "POST /v1/webhooks/{id}/rotate",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rows_hold_where_each_service_is_a_process_of_its_own() -> anyhow::Result<()> {
    in_shop(Topology::EachAlone, async |shop| {
        let stage = Stage::in_shop(shop.reconnected()).await?;
        for name in OF_EACH_SERVICE {
            let operation = stage.operation(name)?;
            let row = row_of(name).with_context(|| format!("{name} has no row"))?;
            everybody_is_told(&stage, &operation, row, Watched::Answers)
                .await
                .context(name)?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_row_is_left_of_an_operation_that_is_gone() -> anyhow::Result<()> {
    on_stage(async |stage| {
        for row in TABLE {
            stage.operation(row.operation)?;
        }
        Ok(())
    })
    .await
}

/// What follows from an operation's audience, whatever its row says.
fn is_no_laxer_than_its_audience(operation: &Operation, row: &Row) -> anyhow::Result<()> {
    let name = operation.name();
    let expected: &[(Asker, u16)] = match operation.audience.as_str() {
        "open" | "anyone" => &[],
        // The product is everybody's; that only its buyer may do this is a rule with a name.
        "user" if row.thing == Thing::Delivered => &[(Asker::Nobody, 401), (Asker::Other, 403)],
        "user" if operation.names_a_thing() => &[(Asker::Nobody, 401), (Asker::Other, 404)],
        "user" => &[(Asker::Nobody, 401)],
        "staff" => &[
            (Asker::Nobody, 401),
            (Asker::Owner, 403),
            (Asker::Other, 403),
        ],
        "admin" => &[
            (Asker::Nobody, 401),
            (Asker::Owner, 403),
            (Asker::Other, 403),
            (Asker::Staff, 403),
        ],
        audience => bail!("{name}: nobody knows the audience {audience}"),
    };
    for (asker, status) in expected {
        let said = row.told[*asker as usize];
        ensure!(
            said == *status,
            "{name}: the row tells {asker:?} {said}, its audience {} means {status}",
            operation.audience
        );
    }
    Ok(())
}

/// What is looked at beside the answers.
#[derive(PartialEq, Eq)]
enum Watched {
    /// That who is refused writes nothing.
    Books,
    /// Nothing: others write at the same time.
    Answers,
}

async fn everybody_is_told(
    stage: &Stage,
    operation: &Operation,
    row: &Row,
    watched: Watched,
) -> anyhow::Result<()> {
    let mut requests = Vec::new();
    for (asker, status) in ASKERS.into_iter().zip(row.told) {
        let (door, asking) = stage.prepare(operation, row.thing, asker).await?;
        requests.push((asker, status, door, asking));
    }
    let (refused, admitted): (Vec<_>, Vec<_>) = requests
        .into_iter()
        .partition(|(_, status, ..)| NOT_FOR_YOU.contains(status));
    if !refused.is_empty() {
        let before = match watched {
            Watched::Books => stage.settled_books().await?,
            Watched::Answers => Books::new(),
        };
        for (asker, status, door, asking) in refused {
            let answer = door.ask(&asking).await?;
            is_told(&answer, asker, status)?;
            let problem = answer.is(status)?;
            answer.is_refused(status, problem["code"].as_str().unwrap_or_default())?;
        }
        if watched == Watched::Books {
            let touched = written(&before, &stage.books().await?);
            ensure!(touched.is_empty(), "refused requests wrote to {touched:?}");
        }
    }
    for (asker, status, door, asking) in admitted {
        let answer = door.ask(&asking).await?;
        is_told(&answer, asker, status)?;
        if let Some(schema) = operation.answers.get(&status.to_string()) {
            let told = answer.is(status)?;
            let undescribed = stage.contract.undescribed(schema, &told);
            ensure!(
                undescribed.is_empty(),
                "{asker:?} is told {undescribed:?}, of which the description says nothing: {told}"
            );
        }
    }
    Ok(())
}

fn is_told(answer: &Answer, asker: Asker, status: u16) -> anyhow::Result<()> {
    ensure!(
        answer.status == status,
        "{asker:?} is told {} {}, the row says {status}",
        answer.status,
        String::from_utf8_lossy(&answer.bytes)
    );
    Ok(())
}
