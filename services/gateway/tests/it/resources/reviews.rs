//! Reviews.

use holdfast_platform::fault::{Fault, FaultCode};
use holdfast_proto::{catalog::v1 as catalog, reviews::v1 as reviews};
use http::Method;
use serde_json::json;
use tonic::Status;

use super::{AT, AT_TEXT};
use crate::world::World;

#[tokio::test]
async fn a_review_is_written_once_under_its_key_and_read_changed_moderated_and_taken_back_by_its_tag()
 {
    let world = World::new().await;
    let review = |version| reviews::Review {
        id: "rev_1".to_owned(),
        product_id: "prd_1".to_owned(),
        user_id: "usr_1".to_owned(),
        rating: 4,
        title: "Warm".to_owned(),
        text: "It does not scratch.".to_owned(),
        status: "published".to_owned(),
        created_at: AT,
        written_at: AT,
        version,
        ..reviews::Review::default()
    };
    let shown = json!({"id": "rev_1", "product_id": "prd_1", "user_id": "usr_1", "rating": 4, "title": "Warm",
        "text": "It does not scratch.", "status": "published", "reason": null, "created_at": AT_TEXT, "written_at": AT_TEXT});
    let written = reviews::WriteReviewResponse {
        review: Some(review(1)),
    };
    world.reviews.write_review.then(Ok(written));
    for _ in 0..2 {
        let told = world
            .post("/v1/products/prd_1/reviews")
            .by(&world.buyer)
            .key("k")
            .send(&json!({"rating": 4, "title": "Warm", "text": "It does not scratch."}))
            .await;
        assert_eq!((told.status.as_u16(), told.json()), (201, shown.clone()));
    }
    let asked = world.reviews.write_review.asked();
    assert_eq!(asked.len(), 1, "the second time the reply is repeated");
    assert_eq!(
        (asked[0].product_id.as_str(), asked[0].rating),
        ("prd_1", 4)
    );

    let list = reviews::ListReviewsResponse {
        reviews: vec![review(1)],
        page: None,
    };
    world.reviews.list_reviews.then(Ok(list));
    let told = world
        .get("/v1/products/prd_1/reviews?rating=4")
        .send_nothing()
        .await;
    assert_eq!(told.json()["data"], json!([shown]));
    assert_eq!(world.reviews.list_reviews.asked()[0].rating, 4);

    let one = reviews::GetReviewResponse {
        review: Some(review(3)),
    };
    world.reviews.get_review.then(Ok(one));
    let told = world.get("/v1/reviews/rev_1").send_nothing().await;
    assert_eq!(told.header("etag"), Some("\"3\""));

    let changed = reviews::ChangeReviewResponse {
        review: Some(review(4)),
    };
    world.reviews.change_review.then(Ok(changed));
    let told = world
        .ask(Method::PATCH, "/v1/reviews/rev_1")
        .by(&world.buyer)
        .with("if-match", "\"3\"")
        .send(&json!({"title": "Warmer"}))
        .await;
    assert_eq!(
        (told.status.as_u16(), told.header("etag")),
        (200, Some("\"4\""))
    );
    let asked = world.reviews.change_review.asked().remove(0);
    assert_eq!(
        (asked.expected_version, asked.rating, asked.title.as_deref()),
        (3, None, Some("Warmer"))
    );
}

#[tokio::test]
async fn a_product_of_which_reviews_has_not_heard_has_none_and_one_that_is_not_there_is_unknown() {
    let unknown = || -> Status {
        Fault::new(FaultCode::NotFound, "UNKNOWN_PRODUCT", "no such product").into()
    };
    let world = World::new().await;
    world
        .reviews
        .list_reviews
        .otherwise(move |_| Err(unknown()));
    let product = "prd_01jd3q8m5ze2vtx0c9k4h7n6wb";
    let path = format!("/v1/products/{product}/reviews");
    let known = catalog::GetProductResponse::default();
    world.catalog.get_product.then(Ok(known));
    let told = world.get(&path).send_nothing().await;
    assert_eq!(
        (told.status.as_u16(), &told.json()["data"]),
        (200, &json!([]))
    );
    assert_eq!(world.catalog.get_product.asked()[0].id, product);

    world.catalog.get_product.otherwise(move |_| Err(unknown()));
    let told = world.get(&path).send_nothing().await;
    assert_eq!(told.json()["code"], "unknown_product");

    let by_slug = world.get("/v1/products/t-shirt/reviews").send_nothing();
    assert_eq!(by_slug.await.status, 404);
    assert_eq!(world.catalog.get_product.asked().len(), 2);
}
