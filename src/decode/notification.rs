//! Notifications, by the name of their method.
#![expect(deprecated, reason = "logging is still on the wire")]

use rmcp::model::{
    CancelledNotificationParam, ClientNotification, LoggingMessageNotificationParam, Notification,
    NotificationMetaObject, NotificationNoParam, ProgressNotificationParam,
    ResourceUpdatedNotificationParam, ServerNotification,
};
use serde::{
    Deserialize,
    de::{Error, MapAccess},
};

use super::strict::Object;

/// The notifications that are decoded here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    Cancelled,
    Progress,
    Initialized,
    RootsListChanged,
    Message,
    ResourceUpdated,
    ResourceListChanged,
    ToolListChanged,
    PromptListChanged,
}

impl Notice {
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Some(match name.strip_prefix("notifications/")? {
            "progress" => Self::Progress,
            "cancelled" => Self::Cancelled,
            "initialized" => Self::Initialized,
            "message" => Self::Message,
            "resources/updated" => Self::ResourceUpdated,
            "resources/list_changed" => Self::ResourceListChanged,
            "tools/list_changed" => Self::ToolListChanged,
            "prompts/list_changed" => Self::PromptListChanged,
            "roots/list_changed" => Self::RootsListChanged,
            _ => return None,
        })
    }
}

/// Reads the params of a notification that a client sends.
pub(super) fn of_client<'de, A: MapAccess<'de>>(
    notice: Notice,
    map: &mut A,
) -> Result<ClientNotification, A::Error> {
    use ClientNotification as C;
    Ok(match notice {
        Notice::Progress => C::ProgressNotification(notification(map)?),
        Notice::Cancelled => C::CancelledNotification(notification(map)?),
        Notice::Initialized => C::InitializedNotification(no_param(map)?),
        Notice::RootsListChanged => C::RootsListChangedNotification(no_param(map)?),
        _ => return Err(A::Error::custom("no fast path")),
    })
}

/// A notification that a client sends without params.
pub(super) fn of_client_bare(notice: Notice) -> Option<ClientNotification> {
    use ClientNotification as C;
    Some(match notice {
        Notice::Initialized => C::InitializedNotification(NotificationNoParam::default()),
        Notice::RootsListChanged => C::RootsListChangedNotification(NotificationNoParam::default()),
        _ => return None,
    })
}

/// Reads the params of a notification that a server sends.
pub(super) fn of_server<'de, A: MapAccess<'de>>(
    notice: Notice,
    map: &mut A,
) -> Result<ServerNotification, A::Error> {
    use ServerNotification as S;
    Ok(match notice {
        Notice::Progress => S::ProgressNotification(notification(map)?),
        Notice::Cancelled => S::CancelledNotification(notification(map)?),
        Notice::Message => S::LoggingMessageNotification(notification(map)?),
        Notice::ResourceUpdated => S::ResourceUpdatedNotification(notification(map)?),
        Notice::ResourceListChanged => S::ResourceListChangedNotification(no_param(map)?),
        Notice::ToolListChanged => S::ToolListChangedNotification(no_param(map)?),
        Notice::PromptListChanged => S::PromptListChangedNotification(no_param(map)?),
        _ => return Err(A::Error::custom("no fast path")),
    })
}

/// A notification that a server sends without params.
pub(super) fn of_server_bare(notice: Notice) -> Option<ServerNotification> {
    use ServerNotification as S;
    Some(match notice {
        Notice::ResourceListChanged => {
            S::ResourceListChangedNotification(NotificationNoParam::default())
        }
        Notice::ToolListChanged => S::ToolListChangedNotification(NotificationNoParam::default()),
        Notice::PromptListChanged => {
            S::PromptListChangedNotification(NotificationNoParam::default())
        }
        _ => return None,
    })
}

fn notification<'de, A, M, P>(map: &mut A) -> Result<Notification<M, P>, A::Error>
where
    A: MapAccess<'de>,
    M: Default,
    P: Deserialize<'de> + TakeMeta,
{
    let mut notification = Notification::new(map.next_value_seed(Object::<P>::SEED)?);
    if let Some(meta) = notification.params.take_meta() {
        notification.extensions.insert(meta);
    }
    Ok(notification)
}

fn no_param<'de, A, M>(map: &mut A) -> Result<NotificationNoParam<M>, A::Error>
where
    A: MapAccess<'de>,
    M: Default,
{
    let mut notification =
        NotificationNoParam { method: M::default(), extensions: Default::default() };
    if let Some(meta) = map.next_value_seed(Object::<OnlyMeta>::SEED)?.meta {
        notification.extensions.insert(meta);
    }
    Ok(notification)
}

#[derive(Deserialize)]
struct OnlyMeta {
    #[serde(rename = "_meta")]
    meta: Option<NotificationMetaObject>,
}

/// Params of a notification, with `_meta` among them.
trait TakeMeta {
    fn take_meta(&mut self) -> Option<NotificationMetaObject>;
}

macro_rules! take_meta {
    ($($params:ty,)*) => {$(
        impl TakeMeta for $params {
            fn take_meta(&mut self) -> Option<NotificationMetaObject> {
                self.meta.take()
            }
        }
    )*};
}

take_meta! {
    CancelledNotificationParam,
    LoggingMessageNotificationParam,
    ProgressNotificationParam,
    ResourceUpdatedNotificationParam,
}
