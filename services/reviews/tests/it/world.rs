//! A product, people to whom it was delivered or not, and the service as they find it.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use holdfast_kernel::{Id, RequestId, Timestamp, id};
use holdfast_platform::{
    consumer::Consumer,
    fault::Fault,
    identity::Role,
    message::Message,
    outbox,
    transport::{self, Door, Transport},
};
use holdfast_proto::{
    page::v1::PageRequest,
    reviews::v1::{self as pb, reviews_service_client::ReviewsServiceClient},
};
use holdfast_testkit::{Asker, FakeClock, Realm, TestDatabase};
use serde_json::{Value, json};
use tonic::Status;

pub(crate) struct World {
    db: TestDatabase,
    pub(crate) clock: FakeClock,
    realm: Realm,
    reviews: Transport,
    consumers: Vec<Consumer>,
    versions: AtomicI64,
    /// A published product of the skus SHIRT-M and SHIRT-L.
    pub(crate) shirt: Id<id::Product>,
    /// SHIRT-L was delivered to them.
    pub(crate) buyer: Asker,
    pub(crate) staff: Asker,
}

impl World {
    pub(crate) async fn new() -> Self {
        let db = TestDatabase::create("reviews", &holdfast_reviews::MIGRATOR).await;
        let clock = FakeClock::new(Timestamp::UNIX_EPOCH);
        let realm = Realm::new(clock.clone());
        let service = holdfast_reviews::build(realm.context("reviews", db.app()));
        let world = Self {
            reviews: transport::local(Door::new("reviews", service.routes)),
            consumers: service.consumers,
            versions: AtomicI64::new(0),
            shirt: Id::generate(),
            buyer: realm.somebody(Role::User),
            staff: realm.somebody(Role::Staff),
            db,
            clock,
            realm,
        };
        world.deliver(&world.buyer, &["SHIRT-L"]).await;
        world.list_product(world.shirt, "published").await;
        world
    }

    pub(crate) fn somebody(&self) -> Asker {
        self.realm.somebody(Role::User)
    }

    /// Somebody to whom the shirt was delivered.
    pub(crate) async fn another_buyer(&self) -> Asker {
        let buyer = self.somebody();
        self.deliver(&buyer, &["SHIRT-M"]).await;
        buyer
    }

    pub(crate) async fn deliver(&self, to: &Asker, skus: &[&str]) {
        let data = json!({"user_id": to.user, "status": "delivered", "skus": skus});
        let order = Id::<id::Order>::generate().to_string();
        self.hear("holdfast.orders", "order.delivered", &order, data)
            .await;
    }

    pub(crate) async fn list_product(&self, product: Id<id::Product>, status: &str) {
        let data = json!({"product_id": product, "status": status, "skus": ["SHIRT-M", "SHIRT-L"]});
        let key = product.to_string();
        self.hear("holdfast.products", "product.updated", &key, data)
            .await;
    }

    pub(crate) async fn delete_product(&self, product: Id<id::Product>) {
        let key = product.to_string();
        self.hear("holdfast.products", "product.deleted", &key, json!({}))
            .await;
    }

    pub(crate) async fn erase(&self, somebody: &Asker) {
        let key = somebody.user.to_string();
        self.hear(
            "holdfast.users",
            "user.erased",
            &key,
            json!({"user_id": key}),
        )
        .await;
    }

    async fn hear(&self, topic: &str, kind: &str, key: &str, data: Value) {
        let message = Message {
            id: RequestId::generate().uuid(),
            topic: topic.to_owned(),
            key: key.to_owned(),
            version: self.versions.fetch_add(1, Relaxed) + 1,
            kind: kind.to_owned(),
            at: Timestamp::UNIX_EPOCH,
            traceparent: None,
            data,
        };
        let listens = |consumer: &&Consumer| {
            let mut interests = consumer.interests().iter();
            interests.any(|it| it.topic.name() == topic && it.kinds.contains(&kind))
        };
        let consumer = self.consumers.iter().find(listens).expect("a listener");
        let mut tx = self.db.app().begin().await.expect("a transaction");
        consumer.handle(&mut tx, &message).await.expect("an effect");
        tx.commit().await.expect("committed");
    }

    pub(crate) fn client(&self) -> ReviewsServiceClient<Transport> {
        ReviewsServiceClient::new(self.reviews.clone())
    }

    /// A review of the shirt, not yet sent.
    pub(crate) fn praise(&self, rating: i32) -> pb::WriteReviewRequest {
        pb::WriteReviewRequest {
            request_id: RequestId::generate().to_string(),
            fingerprint: vec![1].into(),
            product_id: self.shirt.to_string(),
            rating,
            title: "Warm".to_owned(),
            text: "And it does not scratch.".to_owned(),
        }
    }

    pub(crate) async fn write(
        &self,
        author: &Asker,
        review: pb::WriteReviewRequest,
    ) -> Result<pb::Review, Status> {
        let answer = self.client().write_review(author.ask(review)).await?;
        Ok(answer.into_inner().review.expect("set"))
    }

    pub(crate) async fn change(
        &self,
        author: &Asker,
        change: pb::ChangeReviewRequest,
    ) -> Result<pb::Review, Status> {
        let answer = self.client().change_review(author.ask(change)).await?;
        Ok(answer.into_inner().review.expect("set"))
    }

    pub(crate) async fn withdraw(&self, author: &Asker, review: &str) -> Result<(), Status> {
        let request = pb::WithdrawReviewRequest {
            review_id: review.to_owned(),
            expected_version: 0,
        };
        let answer = self.client().withdraw_review(author.ask(request)).await;
        answer.map(drop)
    }

    pub(crate) async fn moderate(
        &self,
        moderator: &Asker,
        review: &str,
        decision: &str,
    ) -> Result<pb::Review, Status> {
        let request = pb::ModerateReviewRequest {
            review_id: review.to_owned(),
            decision: decision.to_owned(),
            reason: "names a person".to_owned(),
        };
        let answer = self
            .client()
            .moderate_review(moderator.ask(request))
            .await?;
        Ok(answer.into_inner().review.expect("set"))
    }

    pub(crate) async fn show(&self, asker: &Asker, review: &str) -> Result<pb::Review, Status> {
        let request = pb::GetReviewRequest {
            review_id: review.to_owned(),
        };
        let answer = self.client().get_review(asker.ask(request)).await?;
        Ok(answer.into_inner().review.expect("set"))
    }

    /// Reviews of the shirt as somebody sees them, `size` at most, and the token of what follows.
    pub(crate) async fn list(
        &self,
        asker: &Asker,
        size: i32,
        token: &str,
    ) -> Result<(Vec<pb::Review>, String), Status> {
        let request = pb::ListReviewsRequest {
            product_id: self.shirt.to_string(),
            rating: 0,
            page: Some(PageRequest {
                size,
                token: token.to_owned(),
            }),
        };
        let answer = self.client().list_reviews(asker.ask(request)).await?;
        let answer = answer.into_inner();
        Ok((answer.reviews, answer.page.expect("set").next_token))
    }

    /// What was announced of the shirt, oldest first: kind, version and histogram.
    pub(crate) async fn announced(&self) -> Vec<(String, i64, Value)> {
        let pending = self.pending().await;
        let key = self.shirt.to_string();
        let of_shirt = pending.into_iter().filter(|message| message.key == key);
        of_shirt
            .map(|message| {
                (
                    message.kind,
                    message.version,
                    message.data["histogram"].clone(),
                )
            })
            .collect()
    }

    /// Everything in the outbox.
    pub(crate) async fn pending(&self) -> Vec<Message> {
        let mut db = self.db.app().acquire().await.expect("a connection");
        outbox::pending(&mut db, 1_000).await.expect("the outbox")
    }

    /// How many published reviews give 1 to 5 stars: as counted along, and as they lie there.
    pub(crate) async fn counts(&self) -> (Vec<i64>, Vec<i64>) {
        sqlx::query_as(
            "SELECT counts, ARRAY(SELECT count(review.id) FROM generate_series(1, 5) AS stars
                                  LEFT JOIN review ON rating = stars AND product_id = product.id
                                                      AND review.status = 'published'
                                  GROUP BY stars ORDER BY stars)
             FROM product WHERE id = $1",
        )
        .bind(self.shirt.uuid())
        .fetch_one(&self.db.app())
        .await
        .expect("counted")
    }

    /// What the tables still hold of somebody: texts, and deliveries.
    pub(crate) async fn held_of(&self, somebody: &Asker) -> (i64, i64) {
        sqlx::query_as(
            "SELECT (SELECT count(*) FROM review WHERE user_id = $1 AND title || text <> ''),
                    (SELECT count(*) FROM delivered WHERE user_id = $1)",
        )
        .bind(somebody.user.uuid())
        .fetch_one(&self.db.app())
        .await
        .expect("counted")
    }
}

/// The reason of a refusal.
pub(crate) fn reason(refused: &Status) -> String {
    Fault::from_status(refused).reason().to_owned()
}
