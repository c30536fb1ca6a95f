//! What the sources say to the database, and whether it is understood there.

use holdfast_testkit::{TestDatabase, assert_statements_fit};

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");

/// The provider's book lies in a schema of its own.
fn is_of_the_sandbox(path: &str) -> bool {
    path.starts_with("sandbox")
}

#[tokio::test]
async fn every_statement_fits_the_schema_and_the_rights_of_its_role() {
    let db = TestDatabase::create("payments", &holdfast_payments::MIGRATOR).await;
    assert_statements_fit(&db.app(), SOURCES, |path| !is_of_the_sandbox(path)).await;
}

#[tokio::test]
async fn every_statement_of_the_sandbox_fits_its_own_schema() {
    let db = TestDatabase::create("sandbox", &holdfast_payments::SANDBOX_MIGRATOR).await;
    assert_statements_fit(&db.app(), SOURCES, is_of_the_sandbox).await;
}
