//! What somebody was told.

use holdfast_proto::{notifications::v1 as notifications, page::v1::PageInfo};
use serde_json::json;

use super::{AT, AT_TEXT};
use crate::world::World;

#[tokio::test]
async fn somebody_reads_what_they_were_told_in_their_language() {
    let world = World::new().await;
    let told_at = |read_at| notifications::Notification {
        id: "ntf_1".to_owned(),
        r#type: "order.confirmed".to_owned(),
        title: "T".to_owned(),
        text: "A.\n\nB.".to_owned(),
        order_id: "ord_1".to_owned(),
        created_at: AT,
        read_at,
    };
    let list = notifications::ListNotificationsResponse {
        notifications: vec![told_at(None)],
        page: Some(PageInfo {
            next_token: "more".to_owned(),
        }),
    };
    world.notifications.list_notifications.then(Ok(list));
    let read = notifications::ReadNotificationResponse {
        notification: Some(told_at(AT)),
    };
    world.notifications.read_notification.then(Ok(read));

    let told = world
        .get("/v1/notifications?limit=1")
        .by(&world.buyer)
        .with("accept-language", "ja;q=0.9")
        .send_nothing()
        .await;
    let shape = |read_at: serde_json::Value| {
        json!({"id": "ntf_1", "type": "order.confirmed", "title": "T", "text": "A.\n\nB.", "order_id": "ord_1",
            "created_at": AT_TEXT, "read_at": read_at})
    };
    assert_eq!(
        told.json(),
        json!({"data": [shape(json!(null))], "next_cursor": "more", "has_more": true})
    );
    let asked = &world.notifications.list_notifications.asked()[0];
    assert_eq!(asked.languages, "ja;q=0.9");
    assert_eq!(asked.page.as_ref().map(|page| page.size), Some(1));

    let told = world
        .post("/v1/notifications/ntf_1/read")
        .by(&world.buyer)
        .send_nothing()
        .await;
    assert_eq!(told.json(), shape(json!(AT_TEXT)));
    let asked = &world.notifications.read_notification.asked()[0];
    assert_eq!(asked.notification_id, "ntf_1");
}
