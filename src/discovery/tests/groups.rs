//! Both API groups of kagent: each kind comes and goes by itself, and the newer group's object counts.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{World, agent, owner, remote, remote_with, service, service_with, slice};
use crate::config::{DiscoveryConfig, SessionMode};
use crate::discovery::decide::{self, PlanState};
use crate::discovery::object::{KagentApi, ObjectKind};
use crate::discovery::uses;
use crate::route::ObjectId;

const PROXY: &str = "http://kagent-proxy.kagent.svc:8080/mcp";

/// The same object in the other group.
fn of_1_0((kind, json): (ObjectKind, Value)) -> (ObjectKind, Value) {
    let kind = match kind {
        ObjectKind::Agent(_) => ObjectKind::Agent(KagentApi::V1),
        ObjectKind::RemoteMcpServer(_) => ObjectKind::RemoteMcpServer(KagentApi::V1),
        other => other,
    };
    (kind, json)
}

/// A `RemoteMCPServer` of kagent 1.0 that goes through the proxy.
fn opted(namespace: &str, name: &str, target: &str) -> (ObjectKind, Value) {
    let headers = json!([{ "name": "x-kagent-host", "value": target }]);
    of_1_0(remote_with(namespace, name, PROXY, json!({ "headersFrom": headers })))
}

/// An object of kagent 1.0 with this `spec`.
fn spec(kind: ObjectKind, namespace: &str, name: &str, spec: &Value) -> (ObjectKind, Value) {
    (kind, json!({ "metadata": { "namespace": namespace, "name": name }, "spec": spec }))
}

fn agent_1_0(namespace: &str, name: &str, of: &Value) -> (ObjectKind, Value) {
    spec(ObjectKind::Agent(KagentApi::V1), namespace, name, of)
}

fn template(namespace: &str, name: &str, tools: &Value) -> (ObjectKind, Value) {
    spec(ObjectKind::AgentTemplate, namespace, name, &json!({ "tools": tools }))
}

fn binding(server: &str, tools: &Value) -> Value {
    json!({ "mcp": { "server": { "kind": "RemoteMCPServer", "name": server }, "tools": tools } })
}

fn sub_agent(template: &str) -> Value {
    json!({ "subAgent": { "name": "x", "description": "x", "templateRef": { "name": template } } })
}

/// What an Agent says that it uses, by host.
fn used(world: &World, namespace: &str, name: &str) -> Option<BTreeMap<String, Vec<String>>> {
    let uses = uses::of(&world.index, &ObjectId::new(namespace, name))?;
    let plain = |tools: &[Box<str>]| tools.iter().map(ToString::to_string).collect();
    Some(uses.hosts.iter().map(|(host, tools)| (host.to_string(), plain(tools))).collect())
}

fn map(all: &[(&str, &[&str])]) -> Option<BTreeMap<String, Vec<String>>> {
    let plain = |tools: &[&str]| tools.iter().map(ToString::to_string).collect();
    Some(all.iter().map(|(host, tools)| ((*host).to_owned(), plain(tools))).collect())
}

#[test]
fn a_tool_server_that_names_the_proxy_opens_the_service_of_its_header() {
    let tools = service("a", "tools", &["http:8084"]);
    let mut world = World::of(std::slice::from_ref(&tools));
    assert!(world.ask("tools.a", "/mcp", None).starts_with("forbidden: "));
    for target in ["tools.a", "tools.a:8084", "Tools.A.svc.cluster.local", "tools.a.svc:8084"] {
        world.apply(&[opted("a", "r", target)]);
        assert_eq!(world.ask("tools.a", "/mcp", None), "http://tools.a:8084", "{target}");
        world.delete(ObjectKind::RemoteMcpServer(KagentApi::V1), "a", "r");
        assert!(world.ask("tools.a", "/mcp", None).starts_with("forbidden: "), "{target}");
    }
    // A namespace that is not trusted marks nothing for callers that nobody knows.
    world.apply(&[opted("evil", "r", "tools.a")]);
    let refused = world.ask("tools.a", "/mcp", None);
    assert!(refused.starts_with("forbidden: "), "{refused}");
    world.apply(&[opted("kagent", "r", "tools.a")]);
    assert_eq!(world.ask("tools.a", "/mcp", None), "http://tools.a:8084", "a trusted one does");
}

#[test]
fn each_way_to_write_it_wrong_names_the_remedy() {
    let mut world = World::new(DiscoveryConfig {
        pod_ips: vec![[10, 0, 0, 9].into()],
        ..DiscoveryConfig::default()
    });
    world.apply(&[
        service("kagent", "kagent-proxy", &["http:8080"]),
        slice("kagent", "kagent-proxy", ("http", 8080), &["10.0.0.9"]),
        service("a", "two", &["x:1", "y:2"]),
        opted("a", "self", "kagent-proxy.kagent"),
        opted("a", "typo", "tols.a"),
        opted("a", "space", "tools.nowhere"),
        opted("a", "two", "two.a"),
        agent_1_0("a", "helper", &json!({ "template": { "inline": {} } })),
        (ObjectKind::Namespace, json!({ "metadata": { "name": "a" } })),
    ]);
    for (host, parts) in [
        ("kagent-proxy.kagent", &["forbidden: ", "this proxy itself", "x-kagent-host"][..]),
        ("tols.a", &["missing: ", "no Service tols in namespace a;", "a/typo", "headersFrom"]),
        ("tools.nowhere", &["missing: ", "no such namespace", "a/space", "NAME.NAMESPACE:PORT"]),
        ("two.a", &["ambiguous: 1, 2"]),
        ("two.a:3", &["no port 3 of [1, 2]"]),
        ("helper.a", &["forbidden: ", "no Service of its own", "/agents/a/helper"]),
    ] {
        let said = world.ask(host, "/mcp", None);
        assert!(parts.iter().all(|part| said.contains(part)), "{host}: {said}");
    }
    assert_eq!(world.ask("two.a:2", "/mcp", None), "http://two.a:2");
    let id = ObjectId::new("a", "two");
    let plan = decide::decide(&world.index, &DiscoveryConfig::default(), &id).unwrap();
    let PlanState::Open(open) = plan.state else { panic!("{plan:?}") };
    let why = open.fallback.unwrap_err();
    let remedies = ["x-kagent-host, two.a:PORT", "kagent.dev/mcp-service-port=PORT", "kagent 0.x"];
    assert!(remedies.iter().all(|remedy| why.contains(remedy)), "{why}");
}

#[test]
fn where_both_groups_name_a_service_in_one_place_the_newer_one_counts_and_explain_says_so() {
    let at = |port: u16| remote("a", "r", &format!("http://tools.a:{port}/mcp"));
    let services = [service("a", "tools", &["x:1", "y:2"]), service("a", "other", &["z:7"])];
    let mut world = World::of(&services);
    world.apply(&[at(2), of_1_0(at(1))]);
    let (said, chain) = world.chain("tools.a", "/mcp", None, None);
    assert_eq!(said, "http://tools.a:1");
    let told = chain.iter().any(|note| {
        note.candidate == "RemoteMCPServer a/r of kagent.dev"
            && note.verdict.starts_with("does not count: api.kagent.dev has one of this name")
    });
    assert!(told, "{chain:?}");
    world.delete(ObjectKind::RemoteMcpServer(KagentApi::V1), "a", "r");
    assert_eq!(world.ask("tools.a", "/mcp", None), "http://tools.a:2");
    // What others write of it does not fill the answer.
    let evil = remote("evil", "r", "http://tools.a:2/mcp");
    world.apply(&[evil.clone(), of_1_0(evil)]);
    let (_, chain) = world.chain("tools.a", "/mcp", None, None);
    assert!(!chain.iter().any(|note| note.verdict.contains("has one of this name")), "{chain:?}");
}

#[test]
fn agents_of_0_x_are_served_as_before_while_the_cluster_moves() {
    let old = remote("a", "r", "https://tools.a:2/mcp?k=1");
    let services = [service("a", "tools", &["x:1", "y:2"]), service("a", "other", &["z:7"])];
    let mut world = World::of(&services);
    world.apply(&[old]);
    assert_eq!(world.ask("tools.a", "/mcp", None), "https://tools.a:2?k=1");
    // The object of the same name that goes through the proxy says nothing of port, scheme or query.
    world.apply(&[opted("a", "r", "tools.a:1")]);
    assert_eq!(world.ask("tools.a", "/mcp", None), "https://tools.a:2?k=1", "as 0.x has it sent");
    assert_eq!(world.ask("tools.a:1", "/mcp", None), "http://tools.a:1", "as 1.0 does");
    // Nor does one that leads elsewhere.
    world.apply(&[of_1_0(remote("a", "r", "http://other.a:7/mcp"))]);
    assert_eq!(world.ask("tools.a", "/mcp", None), "https://tools.a:2?k=1");
    assert_eq!(world.ask("other.a", "/mcp", None), "http://other.a:7");
    // An Agent of 0.x that may use a foreign object may still, whatever an Agent of 1.0 of its name says.
    let bend = remote("b", "bend", "http://shut.c:1/mcp");
    let user = agent("b", "user", &[("RemoteMCPServer", "bend")]);
    world.apply(&[service("c", "shut", &["x:1"]), bend, user]);
    assert_eq!(world.ask("shut.c", "/mcp", Some("b/user")), "http://shut.c:1");
    let nothing = json!({ "template": { "inline": { "tools": [] } } });
    world.apply(&[agent_1_0("b", "user", &nothing)]);
    assert_eq!(world.ask("shut.c", "/mcp", Some("b/user")), "http://shut.c:1");
    world.delete(ObjectKind::Agent(KagentApi::V0), "b", "user");
    let refused = world.ask("shut.c", "/mcp", Some("b/user"));
    assert!(refused.starts_with("forbidden: "), "{refused}: nobody is known as that one");
}

#[test]
fn a_namespace_that_comes_or_goes_changes_what_is_said_of_a_target() {
    let space = |name: &str| (ObjectKind::Namespace, json!({ "metadata": { "name": name } }));
    let mut world = World::of(&[opted("a", "r", "tools.b"), space("a")]);
    assert!(world.ask("tools.b", "/mcp", None).contains("there is no such namespace"));
    world.apply(&[space("b")]);
    assert!(!world.ask("tools.b", "/mcp", None).contains("there is no such namespace"));
    world.delete(ObjectKind::Namespace, "", "b");
    assert!(world.ask("tools.b", "/mcp", None).contains("there is no such namespace"));
}

#[test]
fn a_tool_server_that_names_the_proxy_says_what_is_done_for_sessions() {
    let said = |namespace: &str, name: &str, word: &str| {
        let (kind, mut json) = opted(namespace, name, "tools.a");
        json["metadata"]["annotations"] = json!({ "kagent-proxy.dev/sessions": word });
        (kind, json)
    };
    let mode = |world: &World| {
        let plan =
            decide::decide(&world.index, &DiscoveryConfig::default(), &ObjectId::new("a", "tools"));
        let Some(PlanState::Open(open)) = plan.map(|plan| plan.state) else { panic!() };
        open.ports[0].sessions
    };
    let mut world = World::of(&[service("a", "tools", &["x:1"]), opted("a", "plain", "tools.a")]);
    assert_eq!(mode(&world), None);
    world.apply(&[said("evil", "r", "pass")]);
    assert_eq!(mode(&world), None, "not trusted");
    world.apply(&[said("kagent", "r", "pass")]);
    assert_eq!(mode(&world), Some(SessionMode::Pass));
    world.apply(&[said("a", "r", "pin"), said("a", "s", "revive")]);
    assert_eq!(mode(&world), Some(SessionMode::Pin), "its own namespace first, then by name");
    world.apply(&[said("a", "r", "often")]);
    assert_eq!(mode(&world), Some(SessionMode::Revive), "what is no mode does not count");
    let annotated = json!({ "annotations": { "kagent-proxy.dev/sessions": "pass" } });
    world.apply(&[service_with("a", "tools", &["x:1"], annotated)]);
    assert_eq!(mode(&world), Some(SessionMode::Pass), "the Service's own word before all");
}

#[test]
fn what_a_template_lists_is_what_its_agents_use() {
    let shapes = [
        json!({ "templateRef": { "name": "t" } }),
        json!({ "template": { "ref": { "name": "t" } } }),
        json!({ "template": { "inline": { "tools": [binding("r", &json!(["add", "sub"]))] } } }),
        json!({ "template": { "tools": [binding("r", &json!(["add", "sub"]))] } }),
    ];
    for shape in shapes {
        let world = World::of(&[
            opted("a", "r", "tools.a"),
            template("a", "t", &json!([binding("r", &json!(["add", "sub"]))])),
            agent_1_0("a", "helper", &shape),
        ]);
        let found = used(&world, "a", "helper");
        assert_eq!(found, map(&[("tools.a", &["add", "sub"])]), "{shape}");
    }
    // One that names a template that is not there does not say what it uses.
    let lost = agent_1_0("a", "helper", &json!({ "templateRef": { "name": "gone" } }));
    assert_eq!(used(&World::of(&[lost]), "a", "helper"), None);
}

#[test]
fn sub_agents_run_inside_and_may_go_in_a_circle() {
    let mut world = World::of(&[
        opted("a", "one", "one.a"),
        opted("a", "two", "two.a"),
        template("a", "outer", &json!([binding("one", &json!(["x"])), sub_agent("inner")])),
        template("a", "inner", &json!([binding("two", &json!([])), sub_agent("outer")])),
        agent_1_0("a", "helper", &json!({ "templateRef": { "name": "outer" } })),
    ]);
    assert_eq!(used(&world, "a", "helper"), map(&[("one.a", &["x"]), ("two.a", &[])]));
    let users = |world: &World, remote: &str| {
        let users = world.index.users_of_remote(&ObjectId::new("a", remote));
        users.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(users(&world, "two"), ["a/helper"]);
    // A change deep inside reaches the Agent.
    world.index.take_uses();
    let three = [binding("two", &json!(["y"])), sub_agent("outer")];
    let (kind, json) = template("a", "inner", &json!(three));
    let id = ObjectId::new("a", "inner");
    world.index.apply(kind, id, Some(super::Object::read(kind, "a", &json)));
    let dirty: Vec<String> = world.index.take_uses().iter().map(ToString::to_string).collect();
    assert_eq!(dirty, ["a/helper"]);
    assert_eq!(used(&world, "a", "helper"), map(&[("one.a", &["x"]), ("two.a", &["y"])]));
    world.delete(ObjectKind::AgentTemplate, "a", "inner");
    assert_eq!(users(&world, "two"), [""; 0]);
    assert_eq!(used(&world, "a", "helper"), map(&[("one.a", &["x"])]));
}

#[test]
fn an_agent_of_both_groups_uses_what_either_says() {
    let mut world = World::of(&[
        remote("a", "old", "http://old.a:1/mcp"),
        opted("a", "new", "new.a"),
        agent("a", "helper", &[("RemoteMCPServer", "old")]),
    ]);
    let anonymous = |world: &World| {
        uses::of(&world.index, &ObjectId::new("a", "helper")).map(|uses| uses.anonymous)
    };
    assert_eq!(used(&world, "a", "helper"), map(&[("old.a", &[])]));
    // One whose template is not there yet says nothing.
    world.apply(&[agent_1_0("a", "helper", &json!({ "templateRef": { "name": "late" } }))]);
    assert_eq!(used(&world, "a", "helper"), map(&[("old.a", &[])]));
    world.apply(&[template("a", "late", &json!([binding("new", &json!(["x"]))]))]);
    assert_eq!(used(&world, "a", "helper"), map(&[("new.a", &["x"]), ("old.a", &[])]));
    assert_eq!(anonymous(&world), Some(false), "its pods are known");
    world.delete(ObjectKind::Agent(KagentApi::V0), "a", "helper");
    assert_eq!(used(&world, "a", "helper"), map(&[("new.a", &["x"])]));
    assert_eq!(anonymous(&world), Some(true));
    world.delete(ObjectKind::Agent(KagentApi::V1), "a", "helper");
    assert_eq!(used(&world, "a", "helper"), None);
}

#[test]
fn what_another_namespace_does_not_admit_is_no_use() {
    let tools = |namespace: &str| {
        let (space, kinds) = (namespace, ["RemoteMCPServer", "Service", "MCPServer"]);
        let names: Vec<String> = kinds.iter().map(|kind| format!("b/{kind}")).collect();
        let tools: Vec<(&str, &str)> =
            kinds.iter().zip(&names).map(|(kind, name)| (*kind, name.as_str())).collect();
        let (kind, mut json) = agent(space, "helper", &tools);
        let sub = json!({ "type": "Agent", "agent": { "name": "sub", "namespace": "b" } });
        json["spec"]["declarative"]["tools"].as_array_mut().unwrap().push(sub);
        (kind, json)
    };
    let space = |name: &str, team: &str| {
        (ObjectKind::Namespace, json!({ "metadata": { "name": name, "labels": { "team": team } } }))
    };
    let selector = json!({ "from": "Selector", "selector": { "matchLabels": { "team": "gold" } } });
    let server = |allowed: &Value| {
        let more = json!({ "allowedNamespaces": allowed });
        remote_with("b", "RemoteMCPServer", "http://remote.b:1/mcp", more)
    };
    let sub = |allowed: &Value| {
        let (kind, mut json) = agent("b", "sub", &[]);
        json["spec"]["allowedNamespaces"] = allowed.clone();
        (kind, json)
    };
    let all: &[(&str, &[&str])] =
        &[("MCPServer.b", &[]), ("Service.b", &[]), ("remote.b", &[]), ("sub.b", &[])];
    let admitted: &[(&str, &[&str])] = &[("remote.b", &[]), ("sub.b", &[])];
    let mut world = World::of(&[tools("a"), tools("b"), space("a", "iron"), space("b", "iron")]);
    for (allowed, team, expected) in [
        (json!(null), "iron", &[][..]),
        (json!({ "from": "All" }), "iron", admitted),
        (selector.clone(), "iron", &[]),
        (selector.clone(), "gold", admitted),
        (json!({ "from": "Same" }), "gold", &[]),
    ] {
        world.apply(&[server(&allowed), sub(&allowed), space("a", team)]);
        assert_eq!(used(&world, "a", "helper"), map(expected), "{allowed} {team}");
        assert_eq!(used(&world, "b", "helper"), map(all), "its own namespace needs no word");
    }
    // Each change by itself reaches those who use it.
    for change in [server(&selector), sub(&selector), space("a", "iron")] {
        world.index.take_uses();
        let (kind, json) = change;
        let (id, namespace) = super::named(&json);
        world.index.apply(kind, id, Some(super::Object::read(kind, &namespace, &json)));
        assert!(world.index.take_uses().contains(&ObjectId::new("a", "helper")), "{json}");
    }
}

#[test]
fn an_address_behind_an_agent_of_1_0_is_nobodys() {
    let of = json!({ "template": { "inline": {} } });
    // A Service that has the name of such an Agent, and the gateway that all of them share.
    let world = World::of(&[
        agent_1_0("a", "helper", &of),
        service("a", "helper", &["http:8080"]),
        slice("a", "helper", ("http", 8080), &["10.0.0.1"]),
        service("ate-system", "atenet-egress", &["http:15001"]),
        slice("ate-system", "atenet-egress", ("http", 15001), &["10.0.0.2"]),
    ]);
    assert_eq!((world.caller("10.0.0.1"), world.caller("10.0.0.2")), (None, None));
    // A Service of its name is not its own, so the name opens nothing.
    assert!(world.ask("helper.a", "/", None).starts_with("forbidden: "));
}

#[test]
fn an_agent_is_there_as_long_as_an_object_or_a_service_says_so() {
    let owned = json!({ "ownerReferences": owner("Agent", "byo")["ownerReferences"] });
    let mut world = World::of(&[
        agent("a", "idle", &[]),
        agent_1_0("a", "both", &json!({ "template": { "inline": {} } })),
        agent("a", "both", &[]),
        // Agents may not be seen: their Services may.
        service_with("a", "chat", &["http:8080"], owned),
        remote("a", "tools", "http://tools.a:1/mcp"),
        service("a", "tools", &["http:1"]),
    ]);
    let agents = |world: &World| world.table.agents().into_iter().collect::<Vec<_>>();
    assert_eq!(agents(&world), ["a/both", "a/byo", "a/idle"]);
    world.delete(ObjectKind::Agent(KagentApi::V0), "a", "both");
    world.delete(ObjectKind::Agent(KagentApi::V0), "a", "idle");
    assert_eq!(agents(&world), ["a/both", "a/byo"]);
    world.delete(ObjectKind::Agent(KagentApi::V1), "a", "both");
    world.delete(ObjectKind::Service, "a", "chat");
    assert_eq!(agents(&world), [""; 0]);
}

#[test]
fn an_owner_of_either_group_marks_its_service() {
    for api in ["kagent.dev/v1alpha2", "api.kagent.dev/v1alpha3"] {
        let owner = json!({ "apiVersion": api, "kind": "Agent", "name": "helper" });
        let owned =
            service_with("a", "x", &["http:1", "m:2"], json!({ "ownerReferences": [owner] }));
        assert_eq!(World::of(&[owned]).ask("x.a", "/", None), "http://x.a:1", "{api}");
    }
    let owner = json!({ "apiVersion": "notkagent.dev/v1", "kind": "Agent", "name": "helper" });
    let other = service_with("a", "x", &["http:1"], json!({ "ownerReferences": [owner] }));
    assert!(World::of(&[other]).ask("x.a", "/", None).starts_with("forbidden: "));
}

#[test]
fn the_order_in_which_objects_come_makes_no_difference() {
    let of = json!({ "templateRef": { "name": "t" } });
    let objects = [
        service("a", "tools", &["x:1", "y:2"]),
        remote("a", "r", "http://tools.a:2/mcp"),
        opted("a", "r", "tools.a:1"),
        template("a", "t", &json!([binding("r", &json!(["add"]))])),
        agent_1_0("a", "helper", &of),
        agent("a", "helper", &[("Service", "old")]),
    ];
    let seen = |world: &World| {
        let asked = ["tools.a", "tools.a:1", "helper.a"].map(|host| world.ask(host, "/mcp", None));
        (asked, used(world, "a", "helper"))
    };
    let expected = seen(&World::of(&objects));
    assert_eq!(expected.1, map(&[("old.a", &[]), ("tools.a", &["add"])]));
    let mut count = 0;
    permutations(&mut (0..objects.len()).collect(), 0, &mut |order| {
        let mut world = World::of(&[]);
        for at in order {
            world.apply(&objects[*at..=*at]);
        }
        assert_eq!(seen(&world), expected, "{order:?}");
        // All that came by the newer group goes again, in this order.
        for (kind, json) in order.iter().map(|at| &objects[*at]) {
            let gone = matches!(
                kind,
                ObjectKind::Agent(KagentApi::V1)
                    | ObjectKind::RemoteMcpServer(KagentApi::V1)
                    | ObjectKind::AgentTemplate
            );
            if gone {
                world.delete(*kind, "a", json["metadata"]["name"].as_str().unwrap());
            }
        }
        assert_eq!(world.ask("tools.a", "/mcp", None), "http://tools.a:2", "{order:?}");
        assert_eq!(used(&world, "a", "helper"), map(&[("old.a", &[])]), "{order:?}");
        count += 1;
    });
    assert_eq!(count, 720);
}

fn permutations(order: &mut Vec<usize>, from: usize, each: &mut impl FnMut(&[usize])) {
    if from == order.len() {
        each(order);
    }
    for at in from..order.len() {
        order.swap(from, at);
        permutations(order, from + 1, each);
        order.swap(from, at);
    }
}
