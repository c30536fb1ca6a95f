//! What the auditor finds: each way in which books can lie is planted by SQL, found, and taken away again.

use anyhow::{Context as _, ensure};
use holdfast_e2e::{Sandbox, Topology};
use holdfast_kernel::{Id, RequestId, id};
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use crate::shop::{Shop, buy, id_of, payment_of};

/// A lie: where it is told, how, how it is taken back, and what a finding has to name.
struct Lie {
    name: &'static str,
    book: &'static str,
    plant: String,
    take_back: String,
    about: Vec<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_lie_planted_in_the_books_is_found() -> anyhow::Result<()> {
    let shop = Shop::open(Topology::AllInOne, &[]).await?;
    shop.watched(async |shop: &Shop| {
        let sku = shop.sell(1).await?;
        let buyer = shop.buyer().await?;
        let order = buy(&buyer, &sku, 1, "sandbox_ok").await?.is(201)?;
        shop.sandbox.audit_is_clean()?;
        let (order, payment) = (id_of(&order)?, payment_of(&order)?);
        let mut lies = lies(&sku, &order, &payment)?;
        lies.extend(lies_about_points(&order, &payment)?);
        for lie in lies {
            is_found(&shop.sandbox, &lie)
                .await
                .with_context(|| lie.name)?;
        }
        Ok(())
    })
    .await
}

async fn is_found(sandbox: &Sandbox, lie: &Lie) -> anyhow::Result<()> {
    let mut book = sandbox.book(lie.book).await?;
    tell(&mut book, &lie.plant).await.context("plant")?;
    let audit = sandbox.operator()?.audit();
    tell(&mut book, &lie.take_back).await.context("take back")?;
    let audit = audit?;
    let findings: Vec<String> = audit.findings.iter().map(ToString::to_string).collect();
    ensure!(!audit.clean, "the audit was clean");
    ensure!(
        findings
            .iter()
            .any(|finding| lie.about.iter().any(|about| finding.contains(about))),
        "wanted a finding about {:?}, got {findings:#?}",
        lie.about
    );
    sandbox.audit_is_clean().context("after it was taken back")
}

async fn tell(book: &mut PgConnection, statements: &str) -> anyhow::Result<()> {
    for statement in statements
        .split(';')
        .filter(|statement| !statement.trim().is_empty())
    {
        let done = sqlx::query(AssertSqlSafe(statement.to_owned()))
            .execute(&mut *book)
            .await
            .with_context(|| statement.to_owned())?;
        ensure!(
            done.rows_affected() > 0 || statement.contains("TABLE"),
            "nothing was changed by {statement}"
        );
    }
    Ok(())
}

/// The lies about one unit of `sku`, sold to one order and paid by one payment.
fn lies(sku: &str, order: &str, payment: &str) -> anyhow::Result<Vec<Lie>> {
    let order_uuid = order.parse::<Id<id::Order>>()?.uuid();
    let payment_uuid = payment.parse::<Id<id::Payment>>()?.uuid();
    let other: Uuid = RequestId::generate().uuid();
    let no_order: Id<id::Order> = Id::generate();
    let pool = format!("(SELECT id FROM pool WHERE key = 'sku:{sku}')");
    let last = format!(
        "pool = {pool} AND version = (SELECT max(version) FROM movement WHERE pool = {pool})"
    );
    let lie = |name, book, plant: String, take_back: String, about: &[&str]| Lie {
        name,
        book,
        plant,
        take_back,
        about: about.iter().map(|about| (*about).to_owned()).collect(),
    };
    let holds = [order_uuid.to_string(), order_uuid.simple().to_string()];
    let pools = [sku, holds[0].as_str()];
    Ok(vec![
        lie(
            "changed movement",
            "inventory",
            format!("UPDATE movement SET units = units + 1 WHERE {last}"),
            format!("UPDATE movement SET units = units - 1 WHERE {last}"),
            &pools,
        ),
        lie(
            "deleted tail",
            "inventory",
            format!(
                "CREATE TABLE taken_out AS SELECT * FROM movement WHERE {last};
                 DELETE FROM movement WHERE {last}"
            ),
            "INSERT INTO movement SELECT * FROM taken_out; DROP TABLE taken_out".to_owned(),
            &pools,
        ),
        lie(
            "drifted counter",
            "inventory",
            format!("UPDATE pool SET sold = sold - 1 WHERE id = {pool}"),
            format!("UPDATE pool SET sold = sold + 1 WHERE id = {pool}"),
            &pools,
        ),
        lie(
            "hold without lines",
            "inventory",
            format!(
                "CREATE TABLE taken_out AS SELECT * FROM hold WHERE id = '{order_uuid}';
                 UPDATE hold SET pools = '{{}}', units = '{{}}', returned = '{{}}' WHERE id = '{order_uuid}'"
            ),
            format!(
                "DELETE FROM hold WHERE id = '{order_uuid}';
                 INSERT INTO hold SELECT * FROM taken_out; DROP TABLE taken_out"
            ),
            &[sku, &holds[0], &Id::<id::Hold>::new(order_uuid).to_string()],
        ),
        lie(
            "two owners of a unit",
            "inventory",
            format!(
                "INSERT INTO hold SELECT (jsonb_populate_record(hold, jsonb_build_object('id', '{other}'::uuid))).*
                 FROM hold WHERE id = '{order_uuid}'"
            ),
            format!("DELETE FROM hold WHERE id = '{other}'"),
            &[sku, &other.to_string(), &Id::<id::Hold>::new(other).to_string()],
        ),
        lie(
            "confirmed order without capture",
            "payments",
            format!("UPDATE payment SET captured = 0, status = 'voided' WHERE payment_id = '{payment_uuid}'"),
            format!("UPDATE payment SET captured = amount, status = 'captured' WHERE payment_id = '{payment_uuid}'"),
            &[order],
        ),
        lie(
            "a voucher's use that was not sold",
            "orders",
            format!("UPDATE orders SET voucher = 'NOBODYS' WHERE id = '{order_uuid}'"),
            format!("UPDATE orders SET voucher = NULL WHERE id = '{order_uuid}'"),
            &["voucher:NOBODYS"],
        ),
        lie(
            "capture without order",
            "payments",
            format!(
                "INSERT INTO saga (purchase_id, epoch) VALUES ('{no_order}', 1);
                 INSERT INTO payment SELECT (jsonb_populate_record(payment,
                     jsonb_build_object('payment_id', '{other}'::uuid, 'purchase_id', '{no_order}'))).*
                 FROM payment WHERE payment_id = '{payment_uuid}'"
            ),
            format!(
                "DELETE FROM payment WHERE payment_id = '{other}';
                 DELETE FROM saga WHERE purchase_id = '{no_order}'"
            ),
            &[&no_order.to_string(), &Id::<id::Payment>::new(other).to_string()],
        ),
    ])
}

/// The lies about points, of which that order used none and its payment has earned some.
fn lies_about_points(order: &str, payment: &str) -> anyhow::Result<Vec<Lie>> {
    let payment = payment.parse::<Id<id::Payment>>()?.uuid();
    let lie = |name, change: &str, back: &str, about: &str| Lie {
        name,
        book: "payments",
        plant: change.to_owned(),
        take_back: back.to_owned(),
        about: vec![about.to_owned()],
    };
    Ok(vec![
        lie(
            "points that no order used",
            &format!("UPDATE payment SET points = points + 5 WHERE payment_id = '{payment}'"),
            &format!("UPDATE payment SET points = points - 5 WHERE payment_id = '{payment}'"),
            order,
        ),
        lie(
            "points from nowhere",
            "UPDATE point_account SET balance = balance + 1",
            "UPDATE point_account SET balance = balance - 1",
            "its entries come to",
        ),
    ])
}
