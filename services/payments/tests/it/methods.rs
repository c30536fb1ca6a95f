//! Methods that users keep.

use holdfast_platform::identity::Role;
use holdfast_proto::{page::v1::PageRequest, payments::v1 as pb};
use holdfast_testkit::Asker;
use tonic::Status;
use uuid::Uuid;

use crate::world::{World, command, konbini, new_purchase, reason, yen};

async fn save(
    world: &World,
    asker: &Asker,
    request: Uuid,
    kind: &str,
    token: &str,
) -> Result<pb::PaymentMethod, Status> {
    let request = asker.ask(pb::SavePaymentMethodRequest {
        request_id: request.to_string(),
        fingerprint: format!("{kind} {token}").into_bytes().into(),
        method: Some(pb::InlineMethod {
            r#type: kind.to_owned(),
            token: token.to_owned(),
        }),
    });
    let answer = world.client().save_payment_method(request).await?;
    Ok(answer.into_inner().method.expect("set"))
}

async fn list(world: &World, size: i32, token: &str) -> pb::ListPaymentMethodsResponse {
    let request = world.customer.ask(pb::ListPaymentMethodsRequest {
        page: Some(PageRequest {
            size,
            token: token.to_owned(),
        }),
    });
    let answer = world.client().list_payment_methods(request).await;
    answer.expect("a page").into_inner()
}

async fn authorize_with(world: &World, method: &str) -> Result<pb::Payment, Status> {
    let method = pb::Method {
        method: Some(pb::method::Method::Id(method.to_owned())),
    };
    world.authorize_as(&new_purchase(), method, 1250, 1).await
}

#[tokio::test]
async fn a_saved_method_pays_for_its_owner_and_for_nobody_else() {
    let world = World::new().await;
    let mine = save(
        &world,
        &world.customer,
        Uuid::now_v7(),
        "card",
        "sandbox_ok",
    )
    .await
    .expect("saved");
    assert_eq!(mine.label, "sandbox_ok");
    authorize_with(&world, &mine.id).await.expect("authorized");

    let stranger = world.somebody(Role::User);
    let theirs = save(&world, &stranger, Uuid::now_v7(), "card", "sandbox_ok")
        .await
        .expect("saved");
    let refused = authorize_with(&world, &theirs.id).await;
    let refused = refused.expect_err("another's method");
    assert_eq!(reason(&refused), "PAYMENT_METHOD_INVALID");
}

#[tokio::test]
async fn saving_twice_is_saving_once_and_the_same_key_for_another_method_is_refused() {
    let world = World::new().await;
    let key = Uuid::now_v7();
    let first = save(&world, &world.customer, key, "konbini", "lawson").await;
    let again = save(&world, &world.customer, key, "konbini", "lawson").await;
    assert_eq!(first.expect("saved"), again.expect("the same"));
    let other = save(&world, &world.customer, key, "konbini", "ministop").await;
    assert_eq!(
        reason(&other.expect_err("another method")),
        "IDEMPOTENCY_KEY_REUSED"
    );
    assert_eq!(list(&world, 0, "").await.methods.len(), 1);
}

#[tokio::test]
async fn methods_are_listed_newest_first_page_by_page() {
    let world = World::new().await;
    let mut saved = Vec::new();
    for store in ["lawson", "ministop", "seicomart"] {
        let method = save(&world, &world.customer, Uuid::now_v7(), "konbini", store).await;
        saved.insert(0, method.expect("saved").id);
        world.pass(1);
    }
    let stranger = world.somebody(Role::User);
    save(&world, &stranger, Uuid::now_v7(), "konbini", "lawson")
        .await
        .expect("saved");

    let first = list(&world, 2, "").await;
    let token = first.page.expect("set").next_token;
    let second = list(&world, 2, &token).await;
    let listed: Vec<String> = [first.methods, second.methods]
        .concat()
        .into_iter()
        .map(|method| method.id)
        .collect();
    assert_eq!(listed, saved);
    assert_eq!(second.page.expect("set").next_token, "");
}

#[tokio::test]
async fn a_method_that_nobody_could_charge_is_not_kept_and_a_card_number_is_never_repeated() {
    let world = World::new().await;
    for (kind, token) in [
        ("card", "sandbox_nope"),
        ("konbini", "sandbox_ok"),
        ("", ""),
    ] {
        let refused = save(&world, &world.customer, Uuid::now_v7(), kind, token).await;
        let refused = refused.expect_err("no method");
        assert_eq!(reason(&refused), "PAYMENT_METHOD_INVALID", "{kind} {token}");
    }
    for (kind, token) in [
        ("card", "4242424242424242"),
        ("4242-4242-4242-4242", "sandbox_ok"),
    ] {
        let refused = save(&world, &world.customer, Uuid::now_v7(), kind, token).await;
        let refused = refused.expect_err("a card number");
        assert_eq!(reason(&refused), "INVALID_ARGUMENT");
        assert!(!format!("{refused:?}").contains("4242"), "{refused:?}");
    }
    assert_eq!(list(&world, 0, "").await.methods, []);
}

#[tokio::test]
async fn a_card_number_in_a_refunds_reason_is_refused_and_not_repeated() {
    let world = World::new().await;
    let purchase = world.captured().await;
    let request = pb::RefundRequest {
        command: Some(command(&purchase, "refund", 1)),
        payment_id: String::new(),
        refund_id: Uuid::now_v7().to_string(),
        amount: Some(yen(100)),
        reason: "was paid with 4242 4242 4242 4242".to_owned(),
        points: 0,
    };
    let refused = world
        .client()
        .refund(world.peer("orders").request(request))
        .await
        .expect_err("a card number");
    assert_eq!(reason(&refused), "INVALID_ARGUMENT");
    assert!(!format!("{refused:?}").contains("4242"), "{refused:?}");
    assert_eq!(world.books().await, [(1, 1250, 0)]);
}

#[tokio::test]
async fn validating_tells_what_can_be_reserved_before_it_is_taken() {
    let world = World::new().await;
    let validate = async |method| {
        let request = world.peer("orders").request(pb::ValidateMethodRequest {
            user_id: world.customer.user.to_string(),
            method: Some(method),
            amount: Some(yen(100)),
            points: 0,
        });
        let answer = world.client().validate_method(request).await?;
        Ok::<_, Status>(answer.into_inner().can_authorize)
    };
    assert!(
        validate(crate::world::card("sandbox_declined"))
            .await
            .expect("a card")
    );
    assert!(!validate(konbini("seven_eleven")).await.expect("a store"));
    let refused = validate(konbini("harrods")).await.expect_err("no store");
    assert_eq!(reason(&refused), "PAYMENT_METHOD_INVALID");
}
