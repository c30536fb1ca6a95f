//! The door: decode, authorise, act, encode.

use std::sync::Arc;

use holdfast_kernel::{
    Id, Language, id,
    page::{self, PageToken},
    time,
};
use holdfast_platform::{
    database,
    identity::{Access, AccessTable, Caller},
    service::Context,
    wire,
};
use holdfast_proto::{
    notifications::v1::{self as pb, notifications_service_server::NotificationsService},
    page::v1 as page_pb,
};
use tonic::{Request, Response, Status};

use crate::{Peers, domain::Notification, error::NotificationsError, people, store, texts::Texts};

/// Who may call what.
pub const ACCESS: AccessTable = &[
    ("ListNotifications", Access::User),
    ("ReadNotification", Access::User),
];

pub(crate) struct Api {
    peers: Peers,
    context: Context,
    texts: Arc<Texts>,
    /// For those who named none and read none of ours.
    language: Language,
}

impl Api {
    pub(crate) fn new(
        peers: Peers,
        context: Context,
        texts: Arc<Texts>,
        language: Language,
    ) -> Self {
        Self {
            peers,
            context,
            texts,
            language,
        }
    }

    /// The language that a person is told in: that of their profile, else the one of these that they read best.
    ///
    /// Nobody goes without their list because users is away.
    async fn language(&self, user: Id<id::User>, languages: &str) -> Language {
        let profile = people::profile(&self.peers, &self.context, user).await;
        let chosen = profile.ok().as_ref().and_then(people::language);
        chosen
            .or_else(|| Language::preferred(languages))
            .unwrap_or(self.language)
    }

    fn encode(
        &self,
        notification: Notification,
        language: Language,
    ) -> Result<pb::Notification, NotificationsError> {
        let Notification { news, read_at, .. } = notification;
        let text = self.texts.tell(language, news.kind, &news.facts)?;
        Ok(pb::Notification {
            id: news.id.to_string(),
            r#type: news.kind.as_str().to_owned(),
            title: text.title,
            text: text.body,
            order_id: (news.facts.order).map_or(String::new(), |order| order.to_string()),
            created_at: Some(wire::timestamp(news.happened_at)),
            read_at: read_at.map(wire::timestamp),
        })
    }
}

#[tonic::async_trait]
impl NotificationsService for Api {
    /// The caller's own, newest first, in a language they read.
    async fn list_notifications(
        &self,
        request: Request<pb::ListNotificationsRequest>,
    ) -> Result<Response<pb::ListNotificationsResponse>, Status> {
        let user = Caller::of(&request)?.user()?;
        let request = request.into_inner();
        let asked = request.page.unwrap_or_default();
        let size = page::page_size(asked.size).map_err(NotificationsError::from)?;
        let before = page::read_token(&asked.token).map_err(NotificationsError::from)?;

        let mut db = database::acquire(&self.context.database).await?;
        let mut found = store::list(&mut db, user, before, size + 1).await?;
        drop(db);
        let language = self.language(user, &request.languages).await;
        let more = found.len() as i64 > size;
        found.truncate(size as usize);
        let next_token = found
            .last()
            .filter(|_| more)
            .map(|last| PageToken::after(&last.seq))
            .unwrap_or_default()
            .into_text();
        let notifications = found
            .into_iter()
            .map(|notification| self.encode(notification, language))
            .collect::<Result<_, _>>()?;
        Ok(Response::new(pb::ListNotificationsResponse {
            notifications,
            page: Some(page_pb::PageInfo { next_token }),
        }))
    }

    /// Marks one of the caller's own as read; one that is read stays as it is.
    async fn read_notification(
        &self,
        request: Request<pb::ReadNotificationRequest>,
    ) -> Result<Response<pb::ReadNotificationResponse>, Status> {
        let user = Caller::of(&request)?.user()?;
        let request = request.into_inner();
        // A text that is no id names nothing, like the id of somebody else's.
        let id = (request.notification_id.parse())
            .map_err(|_| NotificationsError::UnknownNotification)?;
        let now = time::to_micros(self.context.clock.now());

        let mut db = database::acquire(&self.context.database).await?;
        let read = store::mark_read(&mut db, user, id, now).await?;
        drop(db);
        let notification = read.ok_or(NotificationsError::UnknownNotification)?;
        let language = self.language(user, &request.languages).await;
        Ok(Response::new(pb::ReadNotificationResponse {
            notification: Some(self.encode(notification, language)?),
        }))
    }
}
