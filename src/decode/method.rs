use rmcp::model::{ClientRequest, ServerRequest};

macro_rules! methods {
    ($($name:ident = $wire:literal,)*) => {
        /// The method of an MCP request. Nothing else is kept of a request in flight to decode its
        /// response.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Method {
            $(#[doc = concat!("`", $wire, "`")] $name,)*
            /// A method that is none of MCP's own.
            Other,
        }

        impl Method {
            /// Returns the name on the wire; empty for [`Method::Other`].
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $wire,)*
                    Self::Other => "",
                }
            }

            /// Returns the method of this name.
            #[must_use]
            pub fn from_name(name: &str) -> Self {
                match name {
                    $($wire => Self::$name,)*
                    _ => Self::Other,
                }
            }
        }
    };
}

methods! {
    Ping = "ping",
    Initialize = "initialize",
    Discover = "server/discover",
    Complete = "completion/complete",
    SetLevel = "logging/setLevel",
    GetPrompt = "prompts/get",
    ListPrompts = "prompts/list",
    ListResources = "resources/list",
    ListResourceTemplates = "resources/templates/list",
    ReadResource = "resources/read",
    ReadResourceDirectory = "resources/directory/read",
    Subscribe = "resources/subscribe",
    Unsubscribe = "resources/unsubscribe",
    SubscriptionsListen = "subscriptions/listen",
    CallTool = "tools/call",
    ListTools = "tools/list",
    GetTask = "tasks/get",
    UpdateTask = "tasks/update",
    CancelTask = "tasks/cancel",
    ListSkills = "skills/list",
    GetSkill = "skills/get",
    CreateMessage = "sampling/createMessage",
    ListRoots = "roots/list",
    Elicit = "elicitation/create",
}

impl From<&ClientRequest> for Method {
    fn from(request: &ClientRequest) -> Self {
        Self::from_name(request.method())
    }
}

impl From<&ServerRequest> for Method {
    fn from(request: &ServerRequest) -> Self {
        match request {
            ServerRequest::PingRequest(_) => Self::Ping,
            ServerRequest::CreateMessageRequest(_) => Self::CreateMessage,
            ServerRequest::ListRootsRequest(_) => Self::ListRoots,
            ServerRequest::ElicitRequest(_) => Self::Elicit,
            ServerRequest::CustomRequest(request) => Self::from_name(&request.method),
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_its_method() {
        assert_eq!(Method::from_name("tools/call"), Method::CallTool);
        assert_eq!(Method::from_name(Method::Elicit.name()), Method::Elicit);
        assert_eq!(Method::from_name("acme/frobnicate"), Method::Other);
        assert_eq!(Method::from_name(""), Method::Other);
    }
}
