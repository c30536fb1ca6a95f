//! What the sources say to the database, and whether it is understood there.

use holdfast_testkit::{TestDatabase, assert_statements_fit};

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");

#[tokio::test]
async fn every_statement_fits_the_schema_and_the_rights_of_its_role() {
    let db = TestDatabase::create("events", &holdfast_events::MIGRATOR).await;
    assert_statements_fit(&db.app(), SOURCES, |_| true).await;
}
