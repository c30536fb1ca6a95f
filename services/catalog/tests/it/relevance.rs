//! What buyers write, and what they expect to see.

use std::collections::HashMap;

use holdfast_kernel::RequestId;
use holdfast_platform::fault::Fault;
use holdfast_proto::{catalog::v1 as pb, page::v1::PageRequest};
use tonic::{Request, Status};

use crate::world::{World, shirt, yen};

/// SKU, name, description, category, option, price.
type Sold = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    (&'static str, &'static str),
    i64,
);

const SHOP: &[Sold] = &[
    (
        "TSHIRT-RED-M",
        "Red T-Shirt",
        "Heavy cotton, cut straight.",
        "shirts",
        ("size", "M"),
        3200,
    ),
    (
        "TSHIRT-BLUE-M",
        "Blue T-Shirt",
        "Heavy cotton, cut straight.",
        "shirts",
        ("size", "M"),
        3100,
    ),
    (
        "LINEN-L",
        "Linen Shirt",
        "Washed linen with shell buttons.",
        "shirts",
        ("size", "L"),
        9800,
    ),
    (
        "HANGER",
        "Wooden Hanger",
        "Keeps a shirt or a jacket in shape.",
        "storage",
        ("size", "one"),
        900,
    ),
    (
        "JACKET-M",
        "Indigo Work Jacket",
        "Twill that fades with you.",
        "jackets",
        ("size", "M"),
        18800,
    ),
    (
        "SHELL-M",
        "Rain Shell",
        "Three layers, taped seams.",
        "jackets",
        ("size", "M"),
        21500,
    ),
    (
        "SWEATER-S",
        "Merino Sweater",
        "Fine merino, knitted in one piece.",
        "knitwear",
        ("size", "S"),
        12400,
    ),
    (
        "MUG-WHITE",
        "White Mug",
        "Stoneware for coffee and tea.",
        "kitchen",
        ("color", "white"),
        1800,
    ),
    (
        "MUG-BLACK",
        "Black Mug",
        "Stoneware for coffee and tea.",
        "kitchen",
        ("color", "black"),
        1800,
    ),
    (
        "TEAPOT",
        "Cast Iron Teapot",
        "Holds 0.8 l.",
        "kitchen",
        ("color", "black"),
        6400,
    ),
    (
        "BRULEE",
        "Crème Brûlée Set",
        "Four dishes and a torch.",
        "kitchen",
        ("color", "white"),
        5200,
    ),
    (
        "HEART",
        "White Hanging Heart T-Light Holder",
        "For small candles.",
        "decoration",
        ("color", "white"),
        255,
    ),
    (
        "POPPY",
        "Poppy's Playhouse Bedroom",
        "For small dolls.",
        "toys",
        ("color", "pink"),
        210,
    ),
    (
        "BERRY",
        "Dried Berries",
        "Strawberries, 100 g.",
        "food",
        ("size", "100 g"),
        650,
    ),
    (
        "GLASS",
        "Wine Glass",
        "Mouth-blown.",
        "kitchen",
        ("color", "clear"),
        2400,
    ),
    (
        "JP-SHATSU",
        "リネンシャツ",
        "洗いをかけた麻のシャツ。",
        "shirts",
        ("size", "M"),
        9800,
    ),
    (
        "JP-DENSHA",
        "電車のおもちゃ",
        "木でできた電車。",
        "toys",
        ("color", "red"),
        3300,
    ),
    (
        "JP-PC",
        "コンピューター机",
        "幅120cm、天然木。",
        "furniture",
        ("color", "oak"),
        42000,
    ),
    (
        "JP-YUNOMI",
        "湯のみ",
        "信楽焼の湯のみ茶碗。",
        "kitchen",
        ("color", "brown"),
        1600,
    ),
    (
        "STRASSE",
        "Straßenkarte Köln",
        "1:20 000, gefalzt.",
        "maps",
        ("size", "A1"),
        990,
    ),
    (
        "PL-MUG",
        "Kubek Łódź",
        "Z nadrukiem.",
        "kitchen",
        ("color", "blue"),
        1500,
    ),
    (
        "NB-A5",
        "Notebook A5",
        "192 pages, dotted.",
        "stationery",
        ("size", "A5"),
        1400,
    ),
    (
        "NB-A4",
        "Notebook A4",
        "192 pages, lined.",
        "stationery",
        ("size", "A4"),
        1700,
    ),
    (
        "PEN.01",
        "Fountain Pen",
        "Steel nib, for notebooks.",
        "stationery",
        ("color", "black"),
        5600,
    ),
    (
        "SOAP",
        "Olive Soap",
        "Cold-pressed, 120 g. No perfume.",
        "bath",
        ("size", "120 g"),
        480,
    ),
];

struct Case {
    query: &'static str,
    /// The first product, by SKU; empty: any.
    first: &'static str,
    contains: &'static [&'static str],
    lacks: &'static [&'static str],
}

const fn case(
    query: &'static str,
    first: &'static str,
    contains: &'static [&'static str],
    lacks: &'static [&'static str],
) -> Case {
    Case {
        query,
        first,
        contains,
        lacks,
    }
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    // whole words, in whatever case, number and order
    case("mug", "", &["MUG-WHITE", "MUG-BLACK"], &["TEAPOT", "GLASS"]),
    case("MUG", "", &["MUG-WHITE", "MUG-BLACK"], &["TEAPOT"]),
    case("white mug", "MUG-WHITE", &[], &["MUG-BLACK", "HEART"]),
    case("mug white", "MUG-WHITE", &[], &["MUG-BLACK"]),
    case("mugs", "", &["MUG-WHITE", "MUG-BLACK"], &["TEAPOT"]),
    case("berry", "BERRY", &[], &["POPPY"]),
    case("strawberry", "BERRY", &[], &[]),
    case("glasses", "GLASS", &[], &["MUG-WHITE"]),
    case("notebook", "", &["NB-A4", "NB-A5", "PEN.01"], &["MUG-WHITE"]),
    // the name before the sku and options, those before the category, that before the description
    case("shirt", "", &["TSHIRT-RED-M", "LINEN-L", "HANGER"], &["MUG-WHITE"]),
    case("linen shirt", "LINEN-L", &[], &["TSHIRT-RED-M"]),
    case("jacket", "JACKET-M", &["HANGER"], &["MUG-BLACK"]),
    case("shell", "SHELL-M", &["LINEN-L"], &["JACKET-M"]),
    case("notebooks", "", &["NB-A5", "PEN.01"], &[]),
    case("white", "MUG-WHITE", &["HEART", "BRULEE"], &["MUG-BLACK"]),
    case("kitchen black", "", &["MUG-BLACK", "TEAPOT"], &["MUG-WHITE", "PEN.01"]),
    // a name that is the query comes first
    case("rain shell", "SHELL-M", &[], &["LINEN-L"]),
    case("notebook a4", "NB-A4", &[], &["NB-A5"]),
    // skus, whole and in part
    case("TSHIRT-RED-M", "TSHIRT-RED-M", &[], &["TSHIRT-BLUE-M"]),
    case("tshirt-red", "TSHIRT-RED-M", &[], &["TSHIRT-BLUE-M"]),
    case("nb-a5", "NB-A5", &[], &["NB-A4"]),
    case("pen.01", "PEN.01", &[], &["NB-A4"]),
    // words that are written in one or in two
    case("tshirt", "", &["TSHIRT-RED-M", "TSHIRT-BLUE-M"], &["LINEN-L"]),
    case("t-shirt", "", &["TSHIRT-RED-M", "TSHIRT-BLUE-M"], &["LINEN-L"]),
    case("t shirt", "", &["TSHIRT-RED-M", "TSHIRT-BLUE-M"], &[]),
    case("rainshell", "SHELL-M", &[], &[]),
    case("poppys", "POPPY", &[], &[]),
    case("poppy’s playhouse", "POPPY", &[], &[]),
    // beginnings
    case("jack", "JACKET-M", &[], &["MUG-WHITE"]),
    case("note", "", &["NB-A5", "NB-A4"], &["MUG-WHITE"]),
    case("red t-sh", "TSHIRT-RED-M", &[], &["TSHIRT-BLUE-M"]),
    // slips
    case("shrit", "", &["TSHIRT-RED-M", "LINEN-L"], &["MUG-WHITE"]),
    case("jakcet", "JACKET-M", &[], &["MUG-WHITE"]),
    case("sweter", "SWEATER-S", &[], &["JACKET-M"]),
    case("teepot", "TEAPOT", &[], &["MUG-WHITE"]),
    case("notbook a5", "NB-A5", &[], &["NB-A4"]),
    case("merno sweatr", "SWEATER-S", &[], &[]),
    case("hangin hart", "HEART", &[], &[]),
    case("fuontain pen", "PEN.01", &[], &[]),
    // accents and other ways of writing one letter
    case("creme brulee", "BRULEE", &[], &[]),
    case("CRÈME BRÛLÉE", "BRULEE", &[], &[]),
    case("ｍｕｇ", "", &["MUG-WHITE", "MUG-BLACK"], &[]),
    case("strassenkarte", "STRASSE", &[], &[]),
    case("Straßenkarte koln", "STRASSE", &[], &[]),
    case("lodz", "PL-MUG", &[], &["MUG-WHITE"]),
    // scripts without spaces
    case("シャツ", "JP-SHATSU", &[], &["JP-DENSHA"]),
    case("電車", "JP-DENSHA", &[], &["JP-SHATSU"]),
    case("車", "JP-DENSHA", &[], &["JP-YUNOMI"]),
    case("おもちゃ", "JP-DENSHA", &[], &[]),
    case("湯のみ", "JP-YUNOMI", &[], &["JP-DENSHA"]),
    case("茶碗", "JP-YUNOMI", &[], &[]),
    case("コンピュータ", "JP-PC", &[], &[]),
    case("コンピューター 机", "JP-PC", &[], &[]),
    case("ｼｬﾂ", "JP-SHATSU", &[], &[]),
    case("しゃつ", "JP-SHATSU", &[], &[]),
    case("コンピョーター", "JP-PC", &[], &[]),
    // what nothing has
    case("spaceship", "", &[], &["SHELL-M", "MUG-WHITE"]),
    case("mug spaceship", "", &[], &["MUG-WHITE"]),
    case("mug' OR '1'='1", "", &[], &["TEAPOT"]),
    case("%", "", &[], &[]),
];

async fn open() -> World {
    let world = World::new().await;
    for (sku, name, description, category, (option, value), price) in SHOP {
        world.clock.advance(jiff::SignedDuration::from_secs(1));
        let listing = pb::CreateProductRequest {
            request_id: RequestId::generate().to_string(),
            name: (*name).to_owned(),
            description: (*description).to_owned(),
            category: (*category).to_owned(),
            variants: vec![pb::NewVariant {
                sku: (*sku).to_owned(),
                options: HashMap::from([((*option).to_owned(), (*value).to_owned())]),
                price: Some(yen(*price)),
                ..pb::NewVariant::default()
            }],
            ..shirt(&[])
        };
        world.list(listing).await.expect("listed");
    }
    world
}

async fn ask(
    world: &World,
    request: pb::ListProductsRequest,
) -> Result<pb::ListProductsResponse, Status> {
    let answer = world.client().list_products(Request::new(request)).await?;
    Ok(answer.into_inner())
}

fn wish(query: &str) -> pb::ListProductsRequest {
    pb::ListProductsRequest {
        query: query.to_owned(),
        page: Some(PageRequest {
            size: 100,
            token: String::new(),
        }),
        ..pb::ListProductsRequest::default()
    }
}

fn skus(answer: &pb::ListProductsResponse) -> Vec<String> {
    let products = answer.products.iter();
    products
        .map(|product| product.variants[0].sku.clone())
        .collect()
}

async fn found(world: &World, request: pb::ListProductsRequest) -> Vec<String> {
    skus(&ask(world, request).await.expect("an answer"))
}

#[tokio::test]
async fn buyers_find_what_they_mean() {
    let world = open().await;
    let mut wrong = Vec::new();
    for case in CASES {
        let found = found(&world, wish(case.query)).await;
        let has = |sku: &&&str| found.iter().any(|known| known == **sku);
        let first = case.first.is_empty() || found.first().is_some_and(|sku| sku == case.first);
        let contains = case.contains.iter().all(|sku| has(&sku));
        let lacks = !case.lacks.iter().any(|sku| has(&sku));
        if !(first && contains && lacks) {
            wrong.push(format!(
                "{:?}: wanted first {:?}, with {:?}, without {:?}; found {found:?}",
                case.query, case.first, case.contains, case.lacks
            ));
        }
    }
    assert!(CASES.len() >= 40, "{} cases", CASES.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn what_has_a_word_in_its_name_comes_before_what_has_it_elsewhere() {
    let world = World::new().await;
    for (sku, name, description, category, option) in [
        ("A", "Thing", "Made of oak.", "things", "plain"),
        ("B", "Thing", "", "oak", "plain"),
        ("C", "Thing", "", "things", "oak"),
        ("D", "Oak table", "", "things", "plain"),
        ("E", "Oak", "", "things", "plain"),
    ] {
        let mut listing = shirt(&[sku]);
        listing.name = name.to_owned();
        listing.description = description.to_owned();
        listing.category = category.to_owned();
        listing.variants[0].options = HashMap::from([("wood".to_owned(), option.to_owned())]);
        world.list(listing).await.expect("listed");
    }
    assert_eq!(found(&world, wish("oak")).await, ["E", "D", "C", "B", "A"]);
}

#[tokio::test]
async fn every_order_shows_every_product_once_however_it_is_sliced() {
    let world = open().await;
    for sort in ["relevance", "newest", "price", "-price", "name", "rating"] {
        for query in ["", "kitchen"] {
            let whole = pb::ListProductsRequest {
                sort: sort.to_owned(),
                ..wish(query)
            };
            let whole = found(&world, whole).await;
            assert_eq!(whole.len(), if query.is_empty() { SHOP.len() } else { 7 });
            let mut sliced = Vec::new();
            let mut token = String::new();
            loop {
                let page = Some(PageRequest { size: 3, token });
                let request = pb::ListProductsRequest {
                    sort: sort.to_owned(),
                    page,
                    ..wish(query)
                };
                let answer = ask(&world, request).await.expect("a page");
                sliced.extend(skus(&answer));
                token = answer.page.expect("set").next_token;
                if token.is_empty() {
                    break;
                }
            }
            assert_eq!(sliced, whole, "{sort} {query:?}");
        }
    }
    let by = async |sort: &str| {
        let sort = sort.to_owned();
        found(&world, pb::ListProductsRequest { sort, ..wish("") }).await
    };
    assert_eq!(by("price").await[..2], ["POPPY", "HEART"]);
    assert_eq!(by("-price").await[0], "JP-PC");
    assert_eq!(by("name").await[0], "MUG-BLACK");
    assert_eq!(by("newest").await[0], "SOAP");
}

#[tokio::test]
async fn a_cursor_of_another_order_and_an_unknown_order_are_refused() {
    let world = open().await;
    let page = |size, token| Some(PageRequest { size, token });
    let request = pb::ListProductsRequest {
        sort: "price".to_owned(),
        page: page(1, String::new()),
        ..wish("")
    };
    let token = ask(&world, request)
        .await
        .expect("a page")
        .page
        .expect("set")
        .next_token;
    let request = pb::ListProductsRequest {
        sort: "name".to_owned(),
        page: page(1, token),
        ..wish("")
    };
    let refused = ask(&world, request).await.expect_err("another order");
    assert_eq!(Fault::from_status(&refused).items()[0]["field"], "page");
    for (field, request) in [
        (
            "sort",
            pb::ListProductsRequest {
                sort: "cheapest".to_owned(),
                ..wish("")
            },
        ),
        (
            "kind",
            pb::ListProductsRequest {
                kinds: vec!["ship".to_owned()],
                ..wish("")
            },
        ),
        ("q", wish(&"x".repeat(201))),
    ] {
        let refused = ask(&world, request).await.expect_err(field);
        assert_eq!(Fault::from_status(&refused).items()[0]["field"], field);
    }
}

#[tokio::test]
async fn filters_narrow_and_facets_count_what_is_left() {
    let world = open().await;
    let options = HashMap::from([("color".to_owned(), "black".to_owned())]);
    let request = pb::ListProductsRequest {
        options,
        price_max: Some(6_000),
        facets: true,
        ..wish("")
    };
    let answer = ask(&world, request).await.expect("an answer");
    assert_eq!(skus(&answer), ["PEN.01", "MUG-BLACK"]);
    let facets = answer.facets.expect("the first page has them");
    assert_eq!((facets.counted, facets.complete), (2, true));
    let values = |values: &[pb::FacetValue]| -> Vec<(String, i64)> {
        let value = |value: &pb::FacetValue| (value.value.clone(), value.count);
        values.iter().map(value).collect()
    };
    let counted = |value: &str, count| (value.to_owned(), count);
    assert_eq!(
        values(&facets.categories),
        [counted("kitchen", 1), counted("stationery", 1)]
    );
    assert_eq!(facets.options[0].name, "color");
    assert_eq!(values(&facets.options[0].values), [counted("black", 2)]);
    assert_eq!(values(&facets.currencies), [counted("JPY", 2)]);
    let ranges: Vec<_> = (facets.prices.iter())
        .map(|range| (range.from, range.below, range.count))
        .collect();
    assert_eq!(ranges, [(1_000, Some(2_000), 1), (5_000, Some(10_000), 1)]);

    let kinds = vec!["tour".to_owned()];
    let tours = pb::ListProductsRequest { kinds, ..wish("") };
    assert_eq!(found(&world, tours).await, [""; 0]);
}

#[tokio::test]
async fn what_changes_is_counted_by_what_it_is_now_whoever_changed_it() {
    let world = World::new().await;
    let product = world.list(shirt(&["SHIRT-M"])).await.expect("listed");
    world.list(shirt(&["SHIRT-X"])).await.expect("listed");
    assert_eq!(sizes(&world, "shirt").await, [("M".to_owned(), 2)]);

    let mut large = shirt(&["SHIRT-L"]).variants.remove(0);
    large.options.insert("size".to_owned(), "L".to_owned());
    let addition = pb::AddVariantRequest {
        request_id: RequestId::generate().to_string(),
        fingerprint: vec![1].into(),
        product_id: product.id.clone(),
        variant: Some(large),
    };
    let added = world.client().add_variant(world.admin.ask(addition)).await;
    added.expect("added");
    let both = [("M".to_owned(), 2), ("L".to_owned(), 1)];
    assert_eq!(sizes(&world, "").await, both);

    let removal = pb::DeleteVariantRequest {
        product_id: product.id,
        sku: "SHIRT-M".to_owned(),
        expected_version: 0,
    };
    let removed = world
        .client()
        .delete_variant(world.admin.ask(removal))
        .await;
    removed.expect("removed");
    let each = [("L".to_owned(), 1), ("M".to_owned(), 1)];
    assert_eq!(sizes(&world, "shirt").await, each);

    world.resize_as_an_older_program("SHIRT-X", "XL").await;
    world
        .until("the sizes are those that are there now", async || {
            let sizes = sizes(&world, "shirt").await;
            sizes.iter().map(|(size, _)| size.as_str()).eq(["L", "XL"])
        })
        .await;
}

#[tokio::test]
async fn what_changes_is_found_by_what_it_is_now() {
    let world = World::new().await;
    let product = world.list(shirt(&["SHIRT-M"])).await.expect("listed");
    let change = pb::UpdateProductRequest {
        product_id: product.id.clone(),
        name: Some("Tunic".to_owned()),
        ..pb::UpdateProductRequest::default()
    };
    let changed = world.change(change).await.expect("changed");
    assert_eq!(found(&world, wish("tunic")).await, ["SHIRT-M"]);
    let hidden = world.put(&changed, "draft", 0).await.expect("off sale");
    assert_eq!(found(&world, wish("tunic")).await, [""; 0]);
    world.put(&hidden, "published", 0).await.expect("on sale");

    let renamed = pb::UpdateCategoryRequest {
        slug: "clothing".to_owned(),
        expected_version: 1,
        name: Some("Garments".to_owned()),
        ..pb::UpdateCategoryRequest::default()
    };
    let renamed = world
        .client()
        .update_category(world.admin.ask(renamed))
        .await;
    renamed.expect("renamed");
    world.until_found("garments", &["SHIRT-M"]).await;
}

/// The sizes of what is found, and how many have each.
async fn sizes(world: &World, query: &str) -> Vec<(String, i64)> {
    let answer = ask(
        world,
        pb::ListProductsRequest {
            facets: true,
            ..wish(query)
        },
    );
    let facets = answer.await.expect("an answer").facets.expect("asked for");
    let sizes = facets.options.into_iter().flat_map(|option| option.values);
    sizes.map(|size| (size.value, size.count)).collect()
}
