//! The methods of MCP and A2A, and what each names.
//!
//! Names of revisions side by side: MCP 2024-11-05 to 2026-07-28, A2A 0.3 and 1.0, in JSON-RPC, HTTP+JSON and gRPC. Only
//! these become labels; what else a client sends is told, and counted as `other`. Pure.

/// What is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Model Context Protocol.
    #[default]
    Mcp,
    /// Agent2Agent.
    A2a,
}

/// A method as it was called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// One of the specifications.
    Known(&'static str, Protocol),
    /// Another one, as it was sent.
    Other(Box<str>),
}

/// What a call names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// Nothing.
    Nothing,
    /// A tool or a prompt, by `params.name`.
    Name,
    /// A resource, by `params.uri`.
    Uri,
}

/// What stands in a label in place of whatever is not known.
pub const OTHER: &str = "other";

use Protocol::{A2a, Mcp};

/// That of most requests; the search by halves would look at six others first.
const CALL: (&str, Protocol) = ("tools/call", Mcp);
/// Sorted by name. `tasks/get` and `tasks/cancel` are methods of both; what the request's head says decides.
const METHODS: [(&str, Protocol); 54] = [
    ("CancelTask", A2a),
    ("CreateTaskPushNotificationConfig", A2a),
    ("DeleteTaskPushNotificationConfig", A2a),
    ("GetExtendedAgentCard", A2a),
    ("GetTask", A2a),
    ("GetTaskPushNotificationConfig", A2a),
    ("ListTaskPushNotificationConfigs", A2a),
    ("ListTasks", A2a),
    ("SendMessage", A2a),
    ("SendStreamingMessage", A2a),
    ("SubscribeToTask", A2a),
    ("agent/getAuthenticatedExtendedCard", A2a),
    ("completion/complete", Mcp),
    ("elicitation/create", Mcp),
    ("initialize", Mcp),
    ("logging/setLevel", Mcp),
    ("message/send", A2a),
    ("message/stream", A2a),
    ("notifications/cancelled", Mcp),
    ("notifications/elicitation/complete", Mcp),
    ("notifications/initialized", Mcp),
    ("notifications/message", Mcp),
    ("notifications/progress", Mcp),
    ("notifications/prompts/list_changed", Mcp),
    ("notifications/resources/list_changed", Mcp),
    ("notifications/resources/updated", Mcp),
    ("notifications/roots/list_changed", Mcp),
    ("notifications/tasks/status", Mcp),
    ("notifications/tools/list_changed", Mcp),
    ("ping", Mcp),
    ("prompts/get", Mcp),
    ("prompts/list", Mcp),
    ("resources/list", Mcp),
    ("resources/read", Mcp),
    ("resources/subscribe", Mcp),
    ("resources/templates/list", Mcp),
    ("resources/unsubscribe", Mcp),
    ("roots/list", Mcp),
    ("sampling/createMessage", Mcp),
    ("server/discover", Mcp),
    ("subscriptions/listen", Mcp),
    ("tasks/cancel", A2a),
    ("tasks/get", A2a),
    ("tasks/list", Mcp),
    ("tasks/pushNotificationConfig/delete", A2a),
    ("tasks/pushNotificationConfig/get", A2a),
    ("tasks/pushNotificationConfig/list", A2a),
    ("tasks/pushNotificationConfig/set", A2a),
    ("tasks/resubscribe", A2a),
    ("tasks/result", Mcp),
    ("tasks/subscribe", A2a),
    ("tasks/update", Mcp),
    ("tools/call", Mcp),
    ("tools/list", Mcp),
];

/// Where A2A's binding to HTTP and JSON has who is told of a task.
const CONFIGS: &str = "pushNotificationConfigs";

// === impl Protocol ===

impl Protocol {
    /// The word in labels and logs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Mcp => "mcp",
            A2a => "a2a",
        }
    }
}

// === impl Method ===

impl Method {
    /// What this method name means.
    #[must_use]
    pub fn of(name: &str) -> Self {
        if name == CALL.0 {
            return Self::Known(CALL.0, CALL.1);
        }
        match METHODS.binary_search_by(|(known, _)| (*known).cmp(name)) {
            Ok(at) => METHODS
                .get(at)
                .map_or_else(|| Self::Other(name.into()), |(name, of)| Self::Known(name, *of)),
            Err(_) => Self::Other(name.into()),
        }
    }

    /// The method of a request of A2A's binding to HTTP and JSON, by what stands in its head (A2A 0.3 section 3.5.6,
    /// below `/v1`; A2A 1.0 section 11.3); `None` if its path is none of these. A path that others may have too counts
    /// only in a request with a header of A2A.
    #[must_use]
    pub fn of_rest(verb: &str, path: &str, a2a: bool) -> Option<Self> {
        let mut segments = path.rsplit('/');
        let last = segments.next()?;
        let before = segments.next().unwrap_or_default();
        let old = path.split('/').any(|segment| segment == "v1");
        let name = match (verb, before, last) {
            ("POST", _, "message:send") if old => "message/send",
            ("POST", _, "message:send") => "SendMessage",
            ("POST", _, "message:stream") if old => "message/stream",
            ("POST", _, "message:stream") => "SendStreamingMessage",
            ("GET", "v1", "card") => "agent/getAuthenticatedExtendedCard",
            ("GET", _, "extendedAgentCard") => "GetExtendedAgentCard",
            ("GET", "v1", "tasks") => "tasks/list",
            ("POST", "tasks", id) if id.ends_with(":cancel") && old => "tasks/cancel",
            ("POST", "tasks", id) if id.ends_with(":cancel") => "CancelTask",
            ("GET" | "POST", "tasks", id) if id.ends_with(":subscribe") && old => {
                "tasks/resubscribe"
            }
            ("GET" | "POST", "tasks", id) if id.ends_with(":subscribe") => "SubscribeToTask",
            (verb, _, CONFIGS) => config(verb, false, old)?,
            (verb, CONFIGS, _) => config(verb, true, old)?,
            ("GET", "tasks", _) if old => "tasks/get",
            ("GET", "tasks", _) if a2a => "GetTask",
            ("GET", _, "tasks") if a2a => "ListTasks",
            _ => return None,
        };
        Some(match Self::of(name) {
            Self::Known(name, _) => Self::Known(name, A2a),
            other @ Self::Other(_) => other,
        })
    }

    /// The method that a call of A2A's binding to gRPC has in its path (`a2a.proto`: package `lf.a2a.v1` in A2A 1.0,
    /// `a2a.v1` in 0.3, whose own names become those of 1.0); `None` for another service.
    #[must_use]
    pub fn of_grpc(path: &str) -> Option<Self> {
        let (service, name) = path.strip_prefix('/')?.split_once('/')?;
        let name = match (service, name) {
            (_, name) if name.contains('/') => return None,
            ("lf.a2a.v1.A2AService", name) => name,
            ("a2a.v1.A2AService", "TaskSubscription") => "SubscribeToTask",
            ("a2a.v1.A2AService", "GetAgentCard") => "GetExtendedAgentCard",
            ("a2a.v1.A2AService", "ListTaskPushNotificationConfig") => {
                "ListTaskPushNotificationConfigs"
            }
            ("a2a.v1.A2AService", name) => name,
            _ => return None,
        };
        Some(Self::of(name))
    }

    /// Whether a call of it is answered by a stream, which may last as long as a task.
    #[must_use]
    pub fn streams(&self) -> bool {
        let Self::Known(name, _) = self else { return false };
        matches!(
            *name,
            "SendStreamingMessage" | "SubscribeToTask" | "message/stream" | "tasks/resubscribe"
        )
    }

    /// What a call of it names.
    #[must_use]
    pub fn names(&self) -> Names {
        match self {
            Self::Known("tools/call" | "prompts/get", _) => Names::Name,
            Self::Known(name, Mcp) if name.starts_with("resources/") => Names::Uri,
            _ => Names::Nothing,
        }
    }

    /// As it was called.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(name, _) => name,
            Self::Other(name) => name,
        }
    }

    /// The word of the label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Known(name, _) => name,
            Self::Other(_) => OTHER,
        }
    }

    /// What is spoken. `mcp` if the request's head has a header of MCP, `a2a` one of A2A: they decide where the method
    /// is of both, or of neither.
    #[must_use]
    pub fn protocol(&self, mcp: bool, a2a: bool) -> Protocol {
        match self {
            Self::Known("tasks/get" | "tasks/cancel" | "tasks/list", _) | Self::Other(_) if mcp => {
                Mcp
            }
            Self::Known("tasks/list", _) | Self::Other(_) if a2a => A2a,
            Self::Known(_, protocol) => *protocol,
            Self::Other(_) => Mcp,
        }
    }
}

/// What a request is about who is told of a task: about all of them, or about one.
fn config(verb: &str, is_one: bool, old: bool) -> Option<&'static str> {
    let (name, name_of_old) = match (verb, is_one) {
        ("POST", false) => ("CreateTaskPushNotificationConfig", "tasks/pushNotificationConfig/set"),
        ("GET", false) => ("ListTaskPushNotificationConfigs", "tasks/pushNotificationConfig/list"),
        ("GET", true) => ("GetTaskPushNotificationConfig", "tasks/pushNotificationConfig/get"),
        ("DELETE", true) => {
            ("DeleteTaskPushNotificationConfig", "tasks/pushNotificationConfig/delete")
        }
        _ => return None,
    };
    Some(if old { name_of_old } else { name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_found_by_its_name() {
        assert!(METHODS.is_sorted(), "a search by halves needs them in order");
        for (name, protocol) in METHODS {
            assert_eq!(Method::of(name), Method::Known(name, protocol));
        }
        for name in ["", "tools", "tools/call ", "Tools/call", "zzz"] {
            let method = Method::of(name);
            assert_eq!(method, Method::Other(name.into()));
            assert_eq!((method.as_str(), method.label()), (name, "other"));
        }
    }

    #[test]
    fn the_head_decides_what_is_spoken_where_the_method_does_not() {
        for (name, [neither, mcp, a2a]) in [
            ("tools/call", [Mcp, Mcp, Mcp]),
            ("message/send", [A2a, A2a, A2a]),
            ("tasks/get", [A2a, Mcp, A2a]),
            ("tasks/cancel", [A2a, Mcp, A2a]),
            ("tasks/list", [Mcp, Mcp, A2a]),
            ("my/own", [Mcp, Mcp, A2a]),
        ] {
            let method = Method::of(name);
            let said = [(false, false), (true, false), (false, true)];
            let protocols = said.map(|(mcp, a2a)| method.protocol(mcp, a2a));
            assert_eq!(protocols, [neither, mcp, a2a], "{name}");
        }
    }

    #[test]
    fn paths_of_the_http_binding_are_methods() {
        for (verb, path, name) in [
            ("POST", "/v1/message:send", "message/send"),
            ("POST", "/v1/message:stream", "message/stream"),
            ("GET", "/v1/tasks/7", "tasks/get"),
            ("GET", "/v1/tasks", "tasks/list"),
            ("POST", "/v1/tasks/7:cancel", "tasks/cancel"),
            ("POST", "/v1/tasks/7:subscribe", "tasks/resubscribe"),
            ("GET", "/v1/card", "agent/getAuthenticatedExtendedCard"),
            ("POST", "/message:send", "SendMessage"),
            ("POST", "/tenant/message:stream", "SendStreamingMessage"),
            ("POST", "/tasks/7:cancel", "CancelTask"),
            ("GET", "/tasks/7:subscribe", "SubscribeToTask"),
            ("POST", "/tasks/7/pushNotificationConfigs", "CreateTaskPushNotificationConfig"),
            ("GET", "/tasks/7/pushNotificationConfigs", "ListTaskPushNotificationConfigs"),
            ("GET", "/tasks/7/pushNotificationConfigs/c", "GetTaskPushNotificationConfig"),
            ("DELETE", "/tasks/7/pushNotificationConfigs/c", "DeleteTaskPushNotificationConfig"),
            ("POST", "/v1/tasks/7/pushNotificationConfigs", "tasks/pushNotificationConfig/set"),
            ("GET", "/v1/tasks/7/pushNotificationConfigs", "tasks/pushNotificationConfig/list"),
            ("GET", "/v1/tasks/7/pushNotificationConfigs/c", "tasks/pushNotificationConfig/get"),
            (
                "DELETE",
                "/v1/tasks/7/pushNotificationConfigs/c",
                "tasks/pushNotificationConfig/delete",
            ),
            ("GET", "/extendedAgentCard", "GetExtendedAgentCard"),
        ] {
            let method = Method::of_rest(verb, path, false);
            assert_eq!(method, Some(Method::Known(name, A2a)), "{verb} {path}");
        }
        for (path, name) in [("/tasks/7", "GetTask"), ("/tasks", "ListTasks")] {
            assert_eq!(Method::of_rest("GET", path, true), Some(Method::Known(name, A2a)));
        }
        for (verb, path) in [
            ("GET", "/message:send"),
            ("POST", "/mcp"),
            ("GET", "/tasks/7"),
            ("PUT", "/tasks/7/pushNotificationConfigs/c"),
            ("GET", "/"),
            ("", ""),
        ] {
            assert_eq!(Method::of_rest(verb, path, false), None, "{verb} {path}");
        }
    }

    #[test]
    fn paths_of_the_grpc_binding_are_methods() {
        let old = ["TaskSubscription", "GetAgentCard", "ListTaskPushNotificationConfig"];
        let new = ["SubscribeToTask", "GetExtendedAgentCard", "ListTaskPushNotificationConfigs"];
        for (old, new) in old.into_iter().zip(new) {
            let method = Method::of_grpc(&format!("/a2a.v1.A2AService/{old}"));
            assert_eq!(method.as_ref().unwrap().streams(), new == "SubscribeToTask");
            assert_eq!(method, Some(Method::Known(new, A2a)));
        }
        for service in ["a2a.v1", "lf.a2a.v1"] {
            for name in ["SendMessage", "SendStreamingMessage", "GetTask", "CancelTask"] {
                let method = Method::of_grpc(&format!("/{service}.A2AService/{name}"));
                assert_eq!(method, Some(Method::Known(name, A2a)));
            }
        }
        let odd = Method::of_grpc("/lf.a2a.v1.A2AService/x");
        assert_eq!(odd, Some(Method::Other("x".into())));
        assert_eq!(Method::of_grpc("/lf.a2a.v1.A2AService/tools/call"), None);
        for path in ["/", "", "/lf.a2a.v1.A2AService", "/x.A2AService/SendMessage", "lf.a2a.v1"] {
            assert_eq!(Method::of_grpc(path), None, "{path}");
        }
    }

    #[test]
    fn tools_prompts_and_resources_are_named() {
        for (name, names) in [
            ("tools/call", Names::Name),
            ("prompts/get", Names::Name),
            ("resources/read", Names::Uri),
            ("resources/subscribe", Names::Uri),
            ("tools/list", Names::Nothing),
            ("message/send", Names::Nothing),
            ("resources/x", Names::Nothing),
        ] {
            assert_eq!(Method::of(name).names(), names, "{name}");
        }
    }
}
