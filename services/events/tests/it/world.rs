//! An event, people who plan or see it, and the service as they find it.

use holdfast_kernel::{RequestId, Timestamp};
use holdfast_platform::{
    fault::Fault,
    identity::Role,
    message::Message,
    outbox,
    transport::{self, Door, Transport},
};
use holdfast_proto::{
    events::v1::{self as pb, events_service_client::EventsServiceClient},
    money::v1::Money,
};
use holdfast_testkit::{Asker, FakeClock, Realm, TestDatabase};
use prost_types::Timestamp as Moment;
use serde_json::Value;
use tonic::Status;

pub(crate) struct World {
    db: TestDatabase,
    pub(crate) clock: FakeClock,
    realm: Realm,
    events: Transport,
    pub(crate) buyer: Asker,
    pub(crate) staff: Asker,
}

impl World {
    /// It is second 0.
    pub(crate) async fn new() -> Self {
        let db = TestDatabase::create("events", &holdfast_events::MIGRATOR).await;
        let clock = FakeClock::new(Timestamp::UNIX_EPOCH);
        let realm = Realm::new(clock.clone());
        let service = holdfast_events::build(realm.context("events", db.app()));
        Self {
            events: transport::local(Door::new("events", service.routes)),
            buyer: realm.somebody(Role::User),
            staff: realm.somebody(Role::Staff),
            db,
            clock,
            realm,
        }
    }

    pub(crate) fn client(&self) -> EventsServiceClient<Transport> {
        EventsServiceClient::new(self.events.clone())
    }

    /// Somebody who is at the door now: tokens do not last as long as plans do.
    pub(crate) fn somebody(&self, role: Role) -> Asker {
        self.realm.somebody(role)
    }

    pub(crate) async fn create(&self, wish: pb::CreateEventRequest) -> Result<pb::Event, Status> {
        let answer = self.client().create_event(self.staff.ask(wish)).await?;
        Ok(answer.into_inner().event.expect("set"))
    }

    /// The concert, as everybody sees it.
    pub(crate) async fn published(&self) -> pb::Event {
        let event = self.create(concert()).await.expect("made");
        self.publish(&event.id).await.expect("published")
    }

    pub(crate) async fn publish(&self, event: &str) -> Result<pb::Event, Status> {
        let request = pb::PublishEventRequest {
            event_id: event.to_owned(),
        };
        let answer = self.client().publish_event(self.staff.ask(request)).await?;
        Ok(answer.into_inner().event.expect("set"))
    }

    pub(crate) async fn cancel(&self, event: &str, reason: &str) -> Result<pb::Event, Status> {
        let request = pb::CancelEventRequest {
            event_id: event.to_owned(),
            reason: reason.to_owned(),
        };
        let answer = self.client().cancel_event(self.staff.ask(request)).await?;
        Ok(answer.into_inner().event.expect("set"))
    }

    pub(crate) async fn change(&self, change: pb::ChangeEventRequest) -> Result<pb::Event, Status> {
        let answer = self.client().change_event(self.staff.ask(change)).await?;
        Ok(answer.into_inner().event.expect("set"))
    }

    pub(crate) async fn reseat(
        &self,
        event: &str,
        expected_version: i64,
        sections: Vec<pb::Section>,
    ) -> Result<pb::ReplaceLayoutResponse, Status> {
        let request = pb::ReplaceLayoutRequest {
            event_id: event.to_owned(),
            expected_version,
            sections,
        };
        let answer = self
            .client()
            .replace_layout(self.staff.ask(request))
            .await?;
        Ok(answer.into_inner())
    }

    pub(crate) async fn show(&self, asker: &Asker, event: &str) -> Result<pb::Event, Status> {
        let request = pb::GetEventRequest {
            event_id: event.to_owned(),
        };
        let answer = self.client().get_event(asker.ask(request)).await?;
        Ok(answer.into_inner().event.expect("set"))
    }

    pub(crate) async fn layout(
        &self,
        asker: &Asker,
        event: &str,
        known_version: i64,
    ) -> Result<pb::GetLayoutResponse, Status> {
        let request = pb::GetLayoutRequest {
            event_id: event.to_owned(),
            known_version,
        };
        let answer = self.client().get_layout(asker.ask(request)).await?;
        Ok(answer.into_inner())
    }

    pub(crate) async fn list(
        &self,
        asker: &Asker,
        wanted: pb::ListEventsRequest,
    ) -> Result<pb::ListEventsResponse, Status> {
        let answer = self.client().list_events(asker.ask(wanted)).await?;
        Ok(answer.into_inner())
    }

    pub(crate) async fn seats(
        &self,
        event: &str,
        size: i32,
        token: &str,
    ) -> Result<pb::ListSeatsResponse, Status> {
        let request = pb::ListSeatsRequest {
            event_id: event.to_owned(),
            size,
            token: token.to_owned(),
        };
        let answer = self.client().list_seats(self.staff.ask(request)).await?;
        Ok(answer.into_inner())
    }

    /// What was announced of an event, oldest first: kind, version and fields.
    pub(crate) async fn announced(&self, event: &str) -> Vec<(String, i64, Value)> {
        let of_event = self
            .pending()
            .await
            .into_iter()
            .filter(|it| it.key == event);
        of_event
            .map(|it| (it.kind, it.version, it.data["fields"].clone()))
            .collect()
    }

    /// What the audit log was told that staff did, oldest first.
    pub(crate) async fn audited(&self) -> Vec<String> {
        let lines = self.pending().await.into_iter();
        let lines = lines.filter(|it| it.kind == "audit.recorded");
        let action = |it: Message| it.data["action"].as_str().unwrap_or_default().to_owned();
        lines.map(action).collect()
    }

    /// Bytes that the seats of an event take in the database.
    pub(crate) async fn bytes_of_seats(&self) -> i64 {
        sqlx::query_scalar("SELECT coalesce(sum(octet_length(rows)), 0)::bigint FROM section")
            .fetch_one(&self.db.app())
            .await
            .expect("counted")
    }

    async fn pending(&self) -> Vec<Message> {
        let mut db = self.db.app().acquire().await.expect("a connection");
        outbox::pending(&mut db, 1_000).await.expect("the outbox")
    }
}

/// A concert that is on sale from second 100 to 200 and starts at 300; not yet sent.
pub(crate) fn concert() -> pb::CreateEventRequest {
    pb::CreateEventRequest {
        request_id: RequestId::generate().to_string(),
        fingerprint: vec![1].into(),
        name: "Winter concert".to_owned(),
        venue: "Hall of the old brewery".to_owned(),
        starts_at: at(300),
        timezone: "Asia/Tokyo".to_owned(),
        currency: "JPY".to_owned(),
        per_buyer_limit: 6,
        sale: Some(pb::Sale {
            opens_at: at(100),
            closes_at: at(200),
            ..pb::Sale::default()
        }),
        sections: vec![seated("S", &[("A", 3), ("B", 4)]), standing("floor", 500)],
        tiers: vec![
            tier("adult", "S", 4_500),
            tier("child", "S", 2_000),
            tier("floor", "floor", 3_000),
        ],
    }
}

pub(crate) fn seated(id: &str, rows: &[(&str, i32)]) -> pb::Section {
    let rows = rows.iter().map(|(row, seats)| pb::Row {
        row: (*row).to_owned(),
        seats: *seats,
        ..pb::Row::default()
    });
    pb::Section {
        id: id.to_owned(),
        name: "Stalls".to_owned(),
        kind: "seated".to_owned(),
        rows: rows.collect(),
        ..pb::Section::default()
    }
}

pub(crate) fn standing(id: &str, capacity: i32) -> pb::Section {
    pb::Section {
        id: id.to_owned(),
        kind: "general".to_owned(),
        capacity,
        ..pb::Section::default()
    }
}

pub(crate) fn tier(id: &str, section: &str, price: i64) -> pb::Tier {
    pb::Tier {
        id: id.to_owned(),
        name: String::new(),
        section: section.to_owned(),
        price: Some(Money {
            amount: price,
            currency: "JPY".to_owned(),
        }),
        ends_at: None,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as messages have it")]
pub(crate) fn at(seconds: i64) -> Option<Moment> {
    Some(Moment { seconds, nanos: 0 })
}

/// The reason of a refusal.
pub(crate) fn reason(refused: &Status) -> String {
    Fault::from_status(refused).reason().to_owned()
}

/// The field that a request was refused for.
pub(crate) fn field(refused: &Status) -> String {
    let items = Fault::from_status(refused).items().to_vec();
    items[0]["field"].as_str().unwrap_or_default().to_owned()
}
