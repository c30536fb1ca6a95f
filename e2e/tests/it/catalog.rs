//! Finding what is for sale, changing it, and carrying a whole shop from one place to another.

use std::{fmt::Write as _, fs, process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use holdfast_e2e::{Door, Role, Sandbox, Topology, wait};
use holdfast_kernel::RequestId;
use serde_json::{Value, json};
use sqlx::PgConnection;

use crate::shop::{SETTLE_MAX_SECS, Shop, buy, id_of, settles};

in_every_topology! {
    what_is_left_of_a_product_is_shown_where_a_misspelt_word_finds_it,
    a_product_changes_only_as_it_was_read_and_is_gone_when_it_is_deleted,
}

/// Products of the shop that is carried.
const CARRIED_PRODUCTS: usize = 10_000;
/// Of them, how many are sold in two sizes: one in so many.
const SIZED_EVERY: usize = 20;
/// How long the first drafts of an import may take.
const DRAFTS_MAX_SECS: u64 = 60;
const COLOURS: [&str; 8] = [
    "amber", "black", "coral", "grey", "indigo", "ivory", "olive", "white",
];
const THINGS: [&str; 5] = ["basket", "candle", "kettle", "mirror", "teapot"];

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
    let folder = tempfile::tempdir()?;
    let (given, taken) = (
        folder.path().join("given.csv"),
        folder.path().join("taken.csv"),
    );
    let (header, rows) = ten_thousand_products()?;
    fs::write(&given, format!("{header}\n{}\n", rows.join("\n")))?;
    let operator = sandbox.operator()?;
    let file = given.display().to_string();
    let import = ["import", "products", file.as_str()];

    // Killed as soon as some drafts are there, when none of them is on sale.
    let mut import_cut_off = operator
        .command()
        .args(import)
        .stdout(Stdio::null())
        .spawn()?;
    let mut catalog = sandbox.book("catalog").await?;
    let limit = Duration::from_secs(DRAFTS_MAX_SECS);
    let some = wait::until("drafts are there", limit, async || {
        Ok(Some(standing(&mut catalog).await?).filter(|(products, ..)| *products > 0))
    });
    let some = some.await;
    import_cut_off.kill()?;
    let ended = import_cut_off.wait()?;
    let (_, published, _) = some?;
    ensure!(
        !ended.success() && published == 0,
        "{ended}, {published} were on sale"
    );
    let door = sandbox.door()?;
    let shown = door.read("/v1/products").await?;
    ensure!(shown["data"][0].is_null(), "{shown}");

    // Completed, and then found to be all there.
    operator.done(&import)?;
    let complete = standing(&mut catalog).await?;
    let of_all = CARRIED_PRODUCTS as i64;
    ensure!(complete == (of_all, of_all, 2 * of_all), "{complete:?}");
    operator.done(&import)?;
    let again = standing(&mut catalog).await?;
    ensure!(again == complete, "{again:?}");

    operator.done(&["export", "products", &taken.display().to_string()])?;
    let taken = fs::read_to_string(&taken)?;
    let (first, exported) = taken.split_once('\n').context("there is a header")?;
    assert_eq!(first, header);
    let sorted = |mut rows: Vec<String>| {
        rows.sort();
        rows
    };
    let exported = sorted(exported.lines().map(str::to_owned).collect());
    ensure!(
        exported == sorted(rows),
        "what was exported is another shop"
    );

    is_found_and_counted(&door).await?;
    sandbox.audit_is_clean()
}

/// Products, those on sale, and the sum of their versions.
async fn standing(catalog: &mut PgConnection) -> anyhow::Result<(i64, i64, i64)> {
    let standing = sqlx::query_as(
        "SELECT count(*), count(*) FILTER (WHERE status = 'published'), coalesce(sum(version), 0)::bigint FROM product",
    );
    Ok(standing.fetch_one(catalog).await?)
}

/// The header and the rows of a product file.
fn ten_thousand_products() -> anyhow::Result<(&'static str, Vec<String>)> {
    let header = "sku,product,name,description,category,options,price,currency,stock,image,prices";
    let mut rows = Vec::new();
    for number in 0..CARRIED_PRODUCTS {
        let sizes: &[&str] = if number % SIZED_EVERY == 0 {
            &["L", "M"]
        } else {
            &["S"]
        };
        let (colour, thing) = (
            COLOURS[number % COLOURS.len()],
            THINGS[number % THINGS.len()],
        );
        for size in sizes {
            let mut row = String::new();
            write!(
                row,
                "SKU-{number}-{size},'=A {colour} {thing} {number},{size},\"One, of many\",{thing}s,color={colour};size={size},\
                 12.50,GBP,{number},https://img.example/{number}.jpg,EUR=14.00;JPY=2400"
            )?;
            rows.push(row);
        }
    }
    Ok((header, rows))
}

/// Two letters swapped, among ten thousand: an eighth of all is of the colour, in five categories and three sizes.
async fn is_found_and_counted(door: &Door) -> anyhow::Result<()> {
    let found = door
        .read("/v1/products?q=inidgo&limit=3&currency=JPY")
        .await?;
    let names = found["data"].as_array().context("a list")?;
    let names = names.iter().map(|product| product["name"].as_str());
    for name in names {
        let name = name.context("a product has a name")?;
        ensure!(name.starts_with("=A indigo "), "{name}");
    }
    let facets = &found["facets"];
    let of_colour = CARRIED_PRODUCTS / COLOURS.len();
    ensure!(
        facets["counted"] == of_colour && facets["complete"] == true,
        "{facets}"
    );
    ensure!(
        facets["options"]["color"] == json!([{"value": "indigo", "count": of_colour}]),
        "{facets}"
    );
    let sum = |values: &Value| -> i64 {
        let values = values.as_array().into_iter().flatten();
        values.filter_map(|value| value["count"].as_i64()).sum()
    };
    for facet in ["categories", "prices"] {
        ensure!(sum(&facets[facet]) == of_colour as i64, "{facet}: {facets}");
    }
    ensure!(
        facets["categories"].as_array().map(Vec::len) == Some(THINGS.len()),
        "{facets}"
    );
    ensure!(
        facets["currencies"].as_array().map(Vec::len) == Some(3),
        "{facets}"
    );

    let narrow = "/v1/products?q=inidgo+teapto&options=color=indigo&limit=1";
    let narrow = door.read(narrow).await?;
    let of_both = of_colour / THINGS.len();
    ensure!(narrow["facets"]["counted"] == of_both, "{narrow}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_seed_leaves_a_shop_as_it_is_that_other_requests_put_up() -> anyhow::Result<()> {
    let sandbox = Sandbox::start(Topology::AllInOne).await?;
    let admin = sandbox.somebody(Role::Admin).await?;
    // As an earlier version of the program made it: under another key.
    let product = json!({
        "name": "Bamboo Steamer",
        "currency": "JPY",
        "variants": [{"sku": "BAMBSTEA-18", "price": {"amount": 3300, "currency": "JPY"}, "stock": 17}],
    });
    admin.post("/v1/products", &product).await?.is(201)?;
    sandbox.operator()?.done(&["seed"])?;
    let listed = sandbox.door()?.read("/v1/products?limit=100").await?;
    let names: Vec<&Value> = (listed["data"].as_array().into_iter().flatten())
        .map(|product| &product["name"])
        .collect();
    assert_eq!(names, ["Bamboo Steamer"]);
    Ok(())
}
