//! What an Agent says that it uses, in the shapes of both API groups of kagent.
//!
//! Pure: JSON in, facts out. Resolves no reference.

use std::sync::Arc;

use serde_json::Value;

use super::admits::{self, Admits};
use super::{items, switch, text};
use crate::route::ObjectId;

/// An Agent, or a template of one: what it uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agent {
    /// It says what it uses.
    pub declares: bool,
    /// Which namespaces may have it among their tools.
    pub admits: Admits,
    /// Agents among its tools.
    pub agents: Vec<ObjectId>,
    /// `MCPServer` objects among its tools.
    pub mcp_servers: Vec<ObjectId>,
    /// `RemoteMCPServer` objects among its tools.
    pub remotes: Vec<ObjectId>,
    /// Services among its tools.
    pub services: Vec<ObjectId>,
    /// Templates that it is made of: its own, and those of sub-agents, which run inside it (`api.kagent.dev`).
    pub templates: Vec<ObjectId>,
    /// Which tools of them it uses, where it lists any: a server that is not here is used as a whole.
    pub tools: Vec<Tools>,
}

/// What an Agent lists of one tool server. A server may be listed more than once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tools {
    /// The server's kind.
    pub kind: ServerKind,
    /// The server.
    pub server: ObjectId,
    /// `toolNames`. Empty is all of them.
    pub names: Arc<[Box<str>]>,
    /// `requireApproval`: those that a person must approve.
    pub approval: Arc<[Box<str>]>,
}

/// The kinds of objects that an Agent names as tool servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerKind {
    /// A `RemoteMCPServer`.
    Remote,
    /// A Service.
    Service,
    /// An `MCPServer` of kmcp.
    McpServer,
}

/// An Agent of `kagent.dev`: `spec.declarative.tools`.
pub(super) fn v0(namespace: &str, json: &Value) -> Agent {
    let declares = json.pointer("/spec/declarative").is_some();
    let mut agent = Agent { declares, admits: admits::admits(json), ..Agent::default() };
    for tool in items(json, "/spec/declarative/tools") {
        if let Some(name) = text(tool, "/agent/name") {
            let space = text(tool, "/agent/namespace").unwrap_or(namespace);
            agent.agents.push(ObjectId::new(space, name));
        }
        let Some(name) = text(tool, "/mcpServer/name") else { continue };
        // Older kagent wrote namespace/name.
        let (space, name) = name.split_once('/').unwrap_or((namespace, name));
        let space = text(tool, "/mcpServer/namespace").unwrap_or(space);
        let id = ObjectId::new(space, name);
        // The field's default is `MCPServer`.
        let kind = match text(tool, "/mcpServer/kind").unwrap_or_default() {
            "RemoteMCPServer" => ServerKind::Remote,
            "Service" => ServerKind::Service,
            "MCPServer" | "" => ServerKind::McpServer,
            _ => continue,
        };
        let (names, approval) =
            (strings(tool, "/mcpServer/toolNames"), strings(tool, "/mcpServer/requireApproval"));
        agent.add(Tools { kind, server: id, names, approval });
    }
    agent.tools.shrink_to_fit();
    agent
}

/// An Agent of `api.kagent.dev`. kagent 1.0 was written down with `templateRef` or an inline `template`, and its source
/// has both below `template`, as `ref` and `inline` (`go/api/v1alpha3/agent_types.go`): all are read.
pub(super) fn v1(namespace: &str, json: &Value) -> Agent {
    let places = ["/spec/template/inline", "/spec/template"];
    let inline = places.iter().filter_map(|at| json.pointer(at)).find(|t| t.get("tools").is_some());
    let mut agent = inline.map(|spec| bindings(namespace, spec)).unwrap_or_default();
    let refs = ["/spec/templateRef/name", "/spec/template/ref/name"];
    let own = refs.iter().find_map(|at| text(json, at)).filter(|name| !name.is_empty());
    agent.templates.extend(own.map(|name| ObjectId::new(namespace, name)));
    agent.declares = json.pointer("/spec/template").is_some() || own.is_some();
    agent
}

/// An `AgentTemplate` of `api.kagent.dev`.
pub(super) fn template(namespace: &str, json: &Value) -> Agent {
    let spec = json.pointer("/spec").unwrap_or(&Value::Null);
    Agent { declares: true, ..bindings(namespace, spec) }
}

/// The tool bindings of a template (`AgentTemplate.spec.tools`).
fn bindings(namespace: &str, spec: &Value) -> Agent {
    let mut agent = Agent::default();
    for tool in items(spec, "/tools") {
        if let Some(name) = text(tool, "/subAgent/templateRef/name") {
            agent.templates.push(ObjectId::new(namespace, name));
        }
        let Some(name) = text(tool, "/mcp/server/name") else { continue };
        if text(tool, "/mcp/server/kind").is_some_and(|kind| kind != "RemoteMCPServer") {
            continue;
        }
        let space = text(tool, "/mcp/server/namespace").unwrap_or(namespace);
        let names = strings(tool, "/mcp/tools");
        // One switch for all tools of the binding.
        let approval = match switch(tool, "/mcp/requireApproval") {
            true => Arc::clone(&names),
            false => Arc::default(),
        };
        let server = ObjectId::new(space, name);
        agent.add(Tools { kind: ServerKind::Remote, server, names, approval });
    }
    agent.tools.shrink_to_fit();
    agent
}

// === impl Agent ===

impl Agent {
    /// It uses this server.
    fn add(&mut self, used: Tools) {
        let servers = match used.kind {
            ServerKind::Remote => &mut self.remotes,
            ServerKind::Service => &mut self.services,
            ServerKind::McpServer => &mut self.mcp_servers,
        };
        servers.push(used.server.clone());
        if !used.names.is_empty() || !used.approval.is_empty() {
            self.tools.push(used);
        }
    }
}

fn strings(json: &Value, at: &str) -> Arc<[Box<str>]> {
    let all: Vec<Box<str>> = items(json, at).filter_map(Value::as_str).map(Box::from).collect();
    // An empty one of the default costs nothing.
    if all.is_empty() { Arc::default() } else { all.into() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{KagentApi, Object, ObjectKind};
    use super::*;

    /// What is read of one tool of an Agent in namespace `a`: kind, server, names and those to approve.
    fn read(tool: &Value) -> Vec<(ServerKind, String, Vec<String>, Vec<String>)> {
        let json = json!({ "spec": { "declarative": { "tools": [tool] } } });
        let Object::Agent(agent) = Object::read(ObjectKind::Agent(KagentApi::V0), "a", &json)
        else {
            panic!()
        };
        let plain = |names: &[Box<str>]| names.iter().map(ToString::to_string).collect();
        let tools = agent.tools.iter().map(|tools| {
            let server = format!("{}/{}", tools.server.namespace, tools.server.name);
            (tools.kind, server, plain(&tools.names), plain(&tools.approval))
        });
        tools.collect()
    }

    /// An agent's tool as JSON, its server, the tools it lists, and those that need approval.
    type ToolCase =
        (Value, ServerKind, &'static str, &'static [&'static str], &'static [&'static str]);

    /// An agent's tool that names this server.
    fn server(kind: &str, name: &str, names: Value, approval: Value) -> Value {
        let server = json!({
            "kind": kind, "name": name, "toolNames": names, "requireApproval": approval
        });
        json!({ "type": "McpServer", "mcpServer": server })
    }

    #[test]
    fn the_tools_that_an_agent_lists_of_a_server_are_kept() {
        let two = json!(["read", "write"]);
        let cases: &[ToolCase] = &[
            (
                server("RemoteMCPServer", "r", two.clone(), json!(["write"])),
                ServerKind::Remote,
                "a/r",
                &["read", "write"],
                &["write"],
            ),
            (
                server("Service", "b/s", two.clone(), json!(null)),
                ServerKind::Service,
                "b/s",
                &["read", "write"],
                &[],
            ),
            (
                server("MCPServer", "m", two.clone(), json!([])),
                ServerKind::McpServer,
                "a/m",
                &["read", "write"],
                &[],
            ),
            (
                server("", "m", json!(["read"]), json!(null)),
                ServerKind::McpServer,
                "a/m",
                &["read"],
                &[],
            ),
            // Of another type than the resource says: what can be read is.
            (
                server("Service", "s", json!(["read", 7, null]), json!("x")),
                ServerKind::Service,
                "a/s",
                &["read"],
                &[],
            ),
            (
                server("Service", "s", json!({}), json!(["read"])),
                ServerKind::Service,
                "a/s",
                &[],
                &["read"],
            ),
        ];
        for (tool, kind, server, names, approval) in cases {
            let owned = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
            let expected = (*kind, (*server).to_owned(), owned(names), owned(approval));
            assert_eq!(read(tool), [expected], "{tool}");
        }
        let nothing = [
            server("Service", "s", json!([]), json!([])),
            server("Service", "s", json!(null), json!(null)),
            server("ToolServer", "s", two, json!(null)),
            json!({ "type": "McpServer", "mcpServer": { "toolNames": ["read"] } }),
            json!({ "type": "Agent", "agent": { "name": "helper" } }),
        ];
        for tool in nothing {
            assert_eq!(read(&tool), [], "{tool}");
        }
    }
}
