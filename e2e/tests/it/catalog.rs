//! Finding what is for sale, changing it, and carrying a whole shop from one place to another.

use std::{fmt::Write as _, fs, time::Duration};

use anyhow::Context as _;
use holdfast_e2e::{Role, Sandbox, Topology, wait};
use holdfast_kernel::RequestId;
use serde_json::{Value, json};

use crate::shop::{SETTLE_MAX_SECS, Shop, buy, id_of, settles};

in_every_topology! {
    what_is_left_of_a_product_is_shown_where_a_misspelt_word_finds_it,
    a_product_changes_only_as_it_was_read_and_is_gone_when_it_is_deleted,
}

/// Products of the shop that is carried: CI has to have the time.
const CARRIED_PRODUCTS: usize = 200;

/// A word that no other scenario's products have.
fn word() -> String {
    let number = RequestId::generate().uuid().as_u128();
    let letter = |place: u32| char::from(b'a' + ((number >> (5 * place)) % 26) as u8);
    (0..12).map(letter).collect()
}

async fn what_is_left_of_a_product_is_shown_where_a_misspelt_word_finds_it(
    shop: &Shop,
) -> anyhow::Result<()> {
    let word = word();
    let sku = word.to_uppercase();
    let product = json!({
        "name": format!("A {word} lamp"),
        "currency": "JPY",
        "category": "lamps",
        "variants": [{
            "sku": sku,
            "price": {"amount": 1250, "currency": "JPY"},
            "prices": [{"amount": 890, "currency": "EUR"}],
            "stock": 5,
        }],
    });
    let made = shop.admin.post("/v1/products", &product).await?.is(201)?;
    assert_eq!(made["variants"][0]["available"], 5, "{made}");

    // Two letters swapped, and nobody logged in.
    let mut misspelt: Vec<char> = word.chars().collect();
    misspelt.swap(5, 6);
    let misspelt: String = misspelt.into_iter().collect();
    let door = shop.sandbox.door()?;
    let search = format!("/v1/products?q={misspelt}&currency=EUR&category=lamps");
    let found = door.read(&search).await?;
    let only = &found["data"][0];
    assert_eq!(only["id"], made["id"], "{found}");
    assert_eq!(only["price"], json!({"amount": 890, "currency": "EUR"}));
    assert_eq!(found["facets"]["counted"], 1, "{found}");

    let buyer = shop.buyer().await?;
    let order = buy(&buyer, &sku, 2, "sandbox_ok").await?.is(201)?;
    settles(&buyer, &id_of(&order)?, "confirmed").await?;
    let told = wait::until(
        "three are left",
        Duration::from_secs(SETTLE_MAX_SECS),
        async || {
            let found = door.read(&search).await?;
            let left = found["data"][0]["variants"][0]["available"].clone();
            Ok((left == 3).then_some(()))
        },
    );
    told.await
}

async fn a_product_changes_only_as_it_was_read_and_is_gone_when_it_is_deleted(
    shop: &Shop,
) -> anyhow::Result<()> {
    let sku = shop.sell(1).await?;
    let found = shop.admin.read(&format!("/v1/products?q={sku}")).await?;
    let id = found["data"][0]["id"].as_str().context("it is found")?;
    let path = format!("/v1/products/{id}");
    let read = shop.admin.get(&path).await?;
    let tag = read
        .header("etag")
        .context("a product has an ETag")?
        .to_owned();

    let category = json!({"slug": word(), "name": "Rare things"});
    let category = shop
        .admin
        .post("/v1/categories", &category)
        .await?
        .is(201)?;
    let change = json!({"name": "A rare thing", "category": category["slug"]});
    let changed = shop.admin.patch_if(&path, &tag, &change).await?;
    let now = changed
        .header("etag")
        .context("a product has an ETag")?
        .to_owned();
    assert_eq!(changed.is(200)?["name"], "A rare thing");
    let stale = shop.admin.patch_if(&path, &tag, &change).await?;
    stale.is_refused(412, "precondition_failed")?;
    let branch = format!(
        "/v1/categories/{}",
        category["slug"].as_str().unwrap_or_default()
    );
    assert_eq!(shop.sandbox.door()?.read(&branch).await?["products"], 1);
    let in_use = shop.admin.delete_if(&branch, "\"1\"").await?;
    in_use.is_refused(409, "category_in_use")?;

    shop.admin.delete_if(&path, &now).await?.is(204)?;
    let gone = shop.admin.get(&path).await?;
    gone.is_refused(404, "unknown_product")?;
    let buyer = shop.buyer().await?;
    let refused = buy(&buyer, &sku, 1, "sandbox_ok").await?;
    refused.is_refused(422, "unknown_sku")?;
    shop.admin
        .delete_if(&branch, "\"1\"")
        .await?
        .is(204)
        .map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shop_that_is_exported_is_the_one_that_was_imported() -> anyhow::Result<()> {
    let sandbox = Sandbox::start(Topology::AllInOne).await?;
    let header = "sku,product,name,description,category,options,price,currency,stock,image,prices";
    let mut rows = Vec::new();
    for number in 0..CARRIED_PRODUCTS {
        for size in ["L", "M"] {
            let mut row = String::new();
            write!(
                row,
                "SKU-{number}-{size},'=Thing {number},{size},\"One, of many\",things,color=red;size={size},\
                 12.50,GBP,{number},https://img.example/{number}.jpg,EUR=14.00;JPY=2400"
            )?;
            rows.push(row);
        }
    }
    let folder = tempfile::tempdir()?;
    let (given, taken) = (
        folder.path().join("given.csv"),
        folder.path().join("taken.csv"),
    );
    fs::write(&given, format!("{header}\n{}\n", rows.join("\n")))?;
    let operator = sandbox.operator()?;
    // The second time all of it is there, and is found to be.
    for _ in 0..2 {
        operator.done(&["import", "products", &given.display().to_string()])?;
    }
    operator.done(&["export", "products", &taken.display().to_string()])?;
    let taken = fs::read_to_string(&taken)?;
    let (first, exported) = taken.split_once('\n').context("there is a header")?;
    assert_eq!(first, header);
    let sorted = |rows: Vec<&str>| {
        let mut rows: Vec<String> = rows.into_iter().map(str::to_owned).collect();
        rows.sort();
        rows
    };
    let wanted = sorted(rows.iter().map(String::as_str).collect());
    assert_eq!(sorted(exported.lines().collect()), wanted);

    let admin = sandbox.somebody(Role::Admin).await?;
    let named = admin.read("/v1/products?q=thing&limit=1").await?;
    let name = &named["data"][0]["name"];
    assert!(
        matches!(name, Value::String(name) if name.starts_with("=Thing ")),
        "{named}"
    );
    sandbox.audit_is_clean()
}
