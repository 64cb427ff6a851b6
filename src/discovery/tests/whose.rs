//! Whose an address is: what slices claim, what Pods prove, and what holds where Pods may not be seen.

use super::*;
use crate::config::{DiscoveryConfig, Endpoints};

const ALLOWED: &str = "kagent-proxy.dev/route";

/// A Service that its annotation makes routable, of the pods with its name as their `app`.
fn routable(namespace: &str, name: &str) -> (ObjectKind, Value) {
    let more = json!({ "annotations": { ALLOWED: "true" } });
    let (kind, mut json) = service_with(namespace, name, &["http:8080"], more);
    json["spec"]["selector"] = json!({ "app": name });
    json["spec"].as_object_mut().unwrap().remove("clusterIP");
    (kind, json)
}

/// A hand-written slice of one of these.
fn claim(namespace: &str, service: &str, endpoints: &[&str]) -> (ObjectKind, Value) {
    let (kind, mut json) = slice(namespace, service, ("http", 8080), endpoints);
    for endpoint in json["endpoints"].as_array_mut().unwrap() {
        endpoint.as_object_mut().unwrap().remove("targetRef");
    }
    (kind, json)
}

fn with_ip(mut service: (ObjectKind, Value), address: &str) -> (ObjectKind, Value) {
    service.1["spec"]["clusterIP"] = json!(address);
    service
}

/// A cluster in which all Pods are seen.
fn seeing(config: DiscoveryConfig, objects: &[(ObjectKind, Value)]) -> World {
    let mut world = World::new(config);
    world.index.set_sees_pods(None, true);
    world.apply(objects);
    world
}

/// We are 10.0.0.9.
fn ourselves() -> DiscoveryConfig {
    DiscoveryConfig { pod_ips: vec![[10, 0, 0, 9].into()], ..DiscoveryConfig::default() }
}

/// The controller, the API server, ourselves with a replica, and an Agent of another team.
fn victims() -> Vec<(ObjectKind, Value)> {
    vec![
        with_ip(service("kagent", "kagent-controller", &["controller:8083"]), "10.96.0.1"),
        slice("kagent", "kagent-controller", ("controller", 8083), &["10.0.0.83"]),
        with_ip(service("default", "kubernetes", &["https:443"]), "10.96.0.2"),
        slice("default", "kubernetes", ("https", 6443), &["192.168.0.1"]),
        with_ip(routable("kagent", "kagent-proxy"), "10.96.0.3"),
        slice("kagent", "kagent-proxy", ("http", 8080), &["10.0.0.9", "10.0.0.10"]),
        agent("team-b", "victim", &[]),
        routable("team-b", "victim"),
        slice("team-b", "victim", ("http", 8080), &["10.0.0.20"]),
    ]
}

fn victims_pods() -> Vec<(ObjectKind, Value)> {
    vec![
        pod("kagent", "controller-0", "controller", "10.0.0.83"),
        pod("kagent", "proxy-0", "kagent-proxy", "10.0.0.9"),
        pod("kagent", "proxy-1", "kagent-proxy", "10.0.0.10"),
        pod("team-b", "victim-0", "victim", "10.0.0.20"),
        pod("team-a", "helper-0", "helper", "10.0.0.30"),
    ]
}

#[test]
fn a_slice_leads_only_to_running_pods_of_its_own_namespace() {
    let mut objects = [victims(), victims_pods()].concat();
    objects.push(routable("team-a", "helper"));
    let mut world = seeing(ourselves(), &objects);
    for (address, reason) in [
        ("10.0.0.83", "it is the address of Pod kagent/controller-0, of another namespace"),
        ("10.0.0.10", "it is the address of Pod kagent/proxy-1, of another namespace"),
        ("10.0.0.20", "it is the address of Pod team-b/victim-0, of another namespace"),
        ("192.168.0.1", "no running Pod of the Service's namespace has it"),
        ("10.96.0.1", "no running Pod of the Service's namespace has it"),
        ("8.8.8.8", "no running Pod of the Service's namespace has it"),
        ("127.0.0.1", "no pod has such an address"),
        ("169.254.169.254", "no pod has such an address"),
        ("::ffff:10.0.0.83", "it is the address of Pod kagent/controller-0, of another namespace"),
    ] {
        world.apply(&[claim("team-a", "helper", &[address, "10.0.0.30"])]);
        assert_eq!(world.endpoints("helper.team-a", "/"), ["10.0.0.30:8080"], "{address}");
        let left = world.left_out("helper.team-a");
        assert!(left.len() == 1 && left[0].contains(reason), "{address}: {left:?}");
        let kind = if address.contains(':') { "v6" } else { "v4" };
        world.delete(ObjectKind::EndpointSlice, "team-a", &format!("helper-{kind}"));
    }
    assert!(world.left_out("helper.team-a").is_empty());
    // Those whose it is keep it.
    assert_eq!(world.endpoints("victim.team-b", "/"), ["10.0.0.20:8080"]);
    assert_eq!(world.endpoints("kagent-controller.kagent", "/mcp"), ["10.0.0.83:8083"]);
}

#[test]
fn what_is_told_in_another_order_comes_to_the_same() {
    let told = [
        routable("a", "t"),
        slice("a", "t", ("http", 8080), &["10.0.0.1"]),
        pod("a", "t-0", "t", "10.0.0.1"),
    ];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut world = seeing(DiscoveryConfig::default(), &[]);
        for number in order {
            world.apply(std::slice::from_ref(&told[number]));
        }
        assert_eq!(world.endpoints("t.a", "/"), ["10.0.0.1:8080"], "{order:?}");
        // It ends: by its phase, by its deletion, or by another Pod of its name.
        let mut ended = told[2].clone();
        ended.1["status"]["phase"] = json!("Succeeded");
        world.apply(&[ended]);
        assert!(world.endpoints("t.a", "/").is_empty(), "{order:?}");
        world.apply(std::slice::from_ref(&told[2]));
        assert_eq!(world.endpoints("t.a", "/"), ["10.0.0.1:8080"], "{order:?}");
        let mut other = pod("a", "t-0", "t", "10.0.0.2");
        other.1["metadata"]["uid"] = json!("other");
        world.apply(&[other]);
        assert!(world.endpoints("t.a", "/").is_empty(), "{order:?}");
    }
}

#[test]
fn an_address_that_another_pod_has_got_leads_there_only() {
    let mut world = seeing(
        DiscoveryConfig::default(),
        &[
            routable("a", "t"),
            slice("a", "t", ("http", 8080), &["10.0.0.1"]),
            pod("a", "t-0", "t", "10.0.0.1"),
            routable("b", "u"),
        ],
    );
    // The API still tells of the former one.
    let mut later = pod("b", "u-0", "u", "10.0.0.1");
    later.1["metadata"]["uid"] = json!("later");
    let mut claimed = slice("b", "u", ("http", 8080), &["10.0.0.1"]);
    claimed.1["endpoints"][0]["targetRef"]["uid"] = json!("later");
    world.apply(&[later, claimed]);
    assert_eq!(world.endpoints("u.b", "/"), ["10.0.0.1:8080"]);
    assert!(world.endpoints("t.a", "/").is_empty(), "{:?}", world.left_out("t.a"));
    // A slice that speaks of a former Pod of the same namespace does not lead to the later one.
    let mut stale = slice("b", "u", ("http", 8080), &["10.0.0.1"]);
    stale.1["endpoints"][0]["targetRef"]["uid"] = json!("former");
    world.apply(&[stale]);
    assert!(world.left_out("u.b")[0].contains("its Pod is gone"), "{:?}", world.left_out("u.b"));
    world.delete(ObjectKind::Pod, "b", "u-0");
    assert_eq!(world.endpoints("t.a", "/"), ["10.0.0.1:8080"]);
}

#[test]
fn one_that_is_being_deleted_loses_its_address_to_the_next() {
    let mut leaving = pod("a", "t-0", "t", "10.0.0.1");
    leaving.1["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let mut next = pod("b", "u-0", "u", "10.0.0.1");
    next.1["metadata"]["uid"] = json!("next");
    let objects = [
        routable("a", "t"),
        claim("a", "t", &["10.0.0.1"]),
        routable("b", "u"),
        claim("b", "u", &["10.0.0.1"]),
    ];
    for pods in [[next.clone(), leaving.clone()], [leaving, next]] {
        let mut world = seeing(DiscoveryConfig::default(), &objects);
        world.apply(&pods);
        assert!(world.endpoints("t.a", "/").is_empty());
        assert_eq!(world.endpoints("u.b", "/"), ["10.0.0.1:8080"]);
    }
}

#[test]
fn a_pod_on_its_nodes_network_is_an_endpoint_and_never_a_caller() {
    let owned = json!({ "ownerReferences": owner("Agent", "helper")["ownerReferences"] });
    let mut agents = service_with("team-a", "helper", &["http:8080"], owned);
    agents.1["spec"]["selector"] = json!({ "app": "helper" });
    let mut claimed = claim("team-a", "helper", &["192.168.0.7"]);
    claimed.1["endpoints"][0]["targetRef"] = json!({ "kind": "Node", "uid": "of-the-node" });
    let mut world = seeing(
        DiscoveryConfig::default(),
        &[
            agent("team-a", "helper", &[]),
            agents,
            claimed,
            host_pod("team-b", "other", "other", "192.168.0.7"),
        ],
    );
    assert!(world.left_out("helper.team-a")[0].contains("team-b/other"));
    world.apply(&[host_pod("team-a", "helper-0", "helper", "192.168.0.7")]);
    assert_eq!(world.endpoints("helper.team-a", "/"), ["192.168.0.7:8080"]);
    assert_eq!(world.caller("192.168.0.7"), None);
    world.delete(ObjectKind::Pod, "team-a", "helper-0");
    assert!(world.endpoints("helper.team-a", "/").is_empty(), "its node's address is not its own");
}

#[test]
fn a_caller_is_known_by_its_own_pod_only() {
    let owned = json!({ "ownerReferences": owner("Agent", "helper")["ownerReferences"] });
    let mut agents = service_with("team-a", "helper", &["http:8080"], owned);
    agents.1["spec"]["selector"] = json!({ "app": "helper" });
    let addresses = ["10.0.0.30", "10.0.0.31", "10.0.0.32", "10.0.0.20", "10.0.0.40"];
    let mut child = pod("team-a", "child", "other", "10.0.0.32");
    child.1["metadata"]["ownerReferences"] = owner("Agent", "helper")["ownerReferences"].clone();
    let mut objects = [victims(), victims_pods()].concat();
    objects.extend([
        agent("team-a", "helper", &[]),
        agents.clone(),
        slice("team-a", "helper", ("http", 8080), &addresses),
        pod("team-a", "stranger", "stranger", "10.0.0.31"),
        child.clone(),
    ]);
    let mut world = seeing(ourselves(), &objects);
    let helper = Some("team-a/helper".to_owned());
    assert_eq!(world.caller("10.0.0.30"), helper, "the Service takes it");
    assert_eq!(world.caller("10.0.0.31"), None, "the Service does not take it");
    assert_eq!(world.caller("10.0.0.32"), helper, "the Agent owns it");
    assert_eq!(world.caller("10.0.0.20").unwrap(), "team-b/victim", "another namespace's");
    assert_eq!(world.caller("10.0.0.40"), None, "nobody's");
    // Labels change, and so does the selector.
    let mut moved = pod("team-a", "stranger", "helper", "10.0.0.31");
    moved.1["metadata"]["labels"]["more"] = json!("labels");
    world.apply(&[moved]);
    assert_eq!(world.caller("10.0.0.31"), helper);
    agents.1["spec"]["selector"] = json!({ "app": "helper", "more": "labels" });
    world.apply(&[agents]);
    assert_eq!((world.caller("10.0.0.30"), world.caller("10.0.0.31")), (None, helper));
    child.1["metadata"]["ownerReferences"] = owner("Agent", "another")["ownerReferences"].clone();
    world.apply(&[child]);
    assert_eq!(world.caller("10.0.0.32"), None);
}

#[test]
fn we_and_our_replicas_are_nobodys_endpoint_in_our_own_namespace_either() {
    let mut objects = [victims(), victims_pods()].concat();
    objects.extend([routable("kagent", "tools"), claim("kagent", "tools", &["10.0.0.10"])]);
    let mut world = seeing(ourselves(), &objects);
    let left = world.left_out("tools.kagent");
    assert!(left[0].contains("of this proxy itself"), "{left:?}");
    // Without a Service of ours: by what controls both.
    world.delete(ObjectKind::EndpointSlice, "kagent", "kagent-proxy-v4");
    world.delete(ObjectKind::Service, "kagent", "kagent-proxy");
    assert_eq!(world.endpoints("tools.kagent", "/"), ["10.0.0.10:8080"]);
    let controlled =
        json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "uid": "r", "controller": true }]);
    let [mut own, mut replica] = [("proxy-0", "10.0.0.9"), ("proxy-1", "10.0.0.10")]
        .map(|(name, ip)| pod("kagent", name, "x", ip));
    own.1["metadata"]["ownerReferences"] = controlled.clone();
    replica.1["metadata"]["ownerReferences"] = controlled;
    world.apply(&[replica]);
    world.apply(&[own]);
    assert!(world.endpoints("tools.kagent", "/").is_empty());
}

#[test]
fn a_stranger_cannot_bend_our_zone() {
    let mut objects = [victims(), victims_pods()].concat();
    objects.push(routable("team-a", "helper"));
    let mut bent = claim("team-a", "helper", &["10.0.0.9"]);
    bent.1["endpoints"][0]["zone"] = json!("elsewhere");
    objects.push(bent);
    let world = seeing(ourselves(), &objects);
    assert_eq!(world.index.own_zone(&ObjectId::new("team-a", "helper")), None);
}

#[test]
fn addresses_that_are_no_pods_have_to_be_allowed() {
    let networks = || vec!["10.9.0.0/16".parse().unwrap(), "10.96.0.0/16".parse().unwrap()];
    let config = || DiscoveryConfig { external_endpoints: networks(), ..ourselves() };
    let claimed = ["10.9.0.1", "10.9.0.2", "10.96.0.2", "172.16.0.1"];
    let mut objects = [victims(), victims_pods()].concat();
    let mut external = routable("team-a", "outside");
    external.1["spec"].as_object_mut().unwrap().remove("selector");
    objects.extend([
        external.clone(),
        claim("team-a", "outside", &claimed),
        pod("team-b", "inside", "x", "10.9.0.2"),
    ]);
    assert!(seeing(ourselves(), &objects).endpoints("outside.team-a", "/").is_empty());
    let mut world = seeing(config(), &objects);
    assert_eq!(world.endpoints("outside.team-a", "/"), ["10.9.0.1:8080"]);
    let left = world.left_out("outside.team-a").join("\n");
    assert!(left.contains("10.9.0.2: it is the address of Pod team-b/inside"), "{left}");
    assert!(left.contains("10.96.0.2: it is an address of Service default/kubernetes"), "{left}");
    external.1["spec"]["selector"] = json!({ "app": "outside" });
    world.apply(&[external]);
    assert!(world.endpoints("outside.team-a", "/").is_empty(), "its pods are chosen by a selector");
}

#[test]
fn without_sight_of_pods_what_two_namespaces_claim_is_nobodys() {
    let config = DiscoveryConfig { trusted_namespaces: Some(vec!["*".to_owned()]), ..ourselves() };
    let mut world = World::new(config);
    world.apply(&victims());
    world.apply(&[agent("team-a", "helper", &[]), routable("team-a", "helper")]);
    assert_eq!(world.caller("10.0.0.20").unwrap(), "team-b/victim");
    for (address, reason) in [
        ("10.0.0.83", "it is an address of Service kagent/kagent-controller"),
        ("192.168.0.1", "it is an address of Service default/kubernetes"),
        ("10.96.0.1", "it is an address of Service kagent/kagent-controller"),
        ("10.96.0.2", "it is an address of Service default/kubernetes"),
        ("10.0.0.10", "Service kagent/kagent-proxy claims it too"),
        ("10.0.0.20", "Service team-b/victim claims it too"),
    ] {
        world.apply(&[claim("team-a", "helper", &[address, "10.0.0.30"])]);
        assert_eq!(world.endpoints("helper.team-a", "/"), ["10.0.0.30:8080"], "{address}");
        let left = world.left_out("helper.team-a");
        assert!(left[0].contains(reason), "{address}: {left:?}");
        assert_eq!(world.caller(address), None, "{address}");
    }
    // It counts for neither: nobody can tell whose it is.
    assert!(world.endpoints("victim.team-b", "/").is_empty());
    assert!(world.left_out("victim.team-b")[0].contains("Service team-a/helper claims it too"));
    world.delete(ObjectKind::EndpointSlice, "team-a", "helper-v4");
    assert_eq!(world.endpoints("victim.team-b", "/"), ["10.0.0.20:8080"]);
    assert_eq!(world.caller("10.0.0.20").unwrap(), "team-b/victim");
    // The controller keeps what is its own.
    assert_eq!(world.endpoints("kagent-controller.kagent", "/mcp"), ["10.0.0.83:8083"]);
    // A replica of ours, claimed in our own namespace.
    world.apply(&[routable("kagent", "tools"), claim("kagent", "tools", &["10.0.0.10"])]);
    assert!(world.left_out("tools.kagent")[0].contains("of this proxy itself"));
}

#[test]
fn sight_of_pods_that_comes_or_goes_changes_what_counts_at_once() {
    let mut objects = [victims(), victims_pods()].concat();
    objects.extend([
        routable("team-a", "helper"),
        claim("team-a", "helper", &["10.1.1.1", "10.0.0.30"]),
    ]);
    let mut world = World::new(ourselves());
    world.apply(&objects);
    let both = ["10.0.0.30:8080", "10.1.1.1:8080"];
    assert_eq!(world.endpoints("helper.team-a", "/"), both, "believed");
    world.index.set_sees_pods(Some("team-a"), true);
    world.publish();
    assert_eq!(world.endpoints("helper.team-a", "/"), ["10.0.0.30:8080"]);
    world.index.set_sees_pods(Some("team-a"), false);
    world.publish();
    assert_eq!(world.endpoints("helper.team-a", "/"), both);
    // A Pod that is seen elsewhere is known to be another's all the same.
    world.apply(&[claim("team-a", "helper", &["10.0.0.83"])]);
    world.delete(ObjectKind::EndpointSlice, "kagent", "kagent-controller-v4");
    assert!(world.left_out("helper.team-a")[0].contains("of Pod kagent/controller-0"));
}

#[test]
fn the_services_own_address_is_dialled_only_if_every_endpoint_counts() {
    let config = DiscoveryConfig { endpoints: Endpoints::Service, ..DiscoveryConfig::default() };
    let mut world = seeing(
        config,
        &[
            with_ip(routable("a", "t"), "10.96.0.7"),
            claim("a", "t", &["10.0.0.1"]),
            pod("a", "t-0", "t", "10.0.0.1"),
        ],
    );
    assert_eq!(world.endpoints("t.a", "/"), ["10.96.0.7:8080"]);
    world.apply(&[claim("a", "t", &["10.0.0.1", "10.0.0.83"])]);
    assert!(world.endpoints("t.a", "/").is_empty(), "the node would choose among both");
    world.apply(&[claim("a", "t", &["10.0.0.1", "!10.0.0.83"])]);
    assert_eq!(world.endpoints("t.a", "/"), ["10.96.0.7:8080"]);
}

#[test]
fn what_is_left_out_is_counted_until_it_goes() {
    let metrics = Metrics::new();
    let mut world = seeing(DiscoveryConfig::default(), &[]);
    world.publisher =
        Publisher::new(DiscoveryConfig::default(), UpstreamConfig::default(), metrics.clone());
    let shows = |reason: &str, count: u32| {
        let line =
            format!("kagent_proxy_discovery_endpoints_left_out{{reason=\"{reason}\"}} {count}");
        let shown = metrics.render();
        assert!(shown.contains(&line), "{line}: {shown}");
    };
    world.apply(&[
        routable("a", "t"),
        claim("a", "t", &["10.0.0.1", "10.0.0.2", "!10.0.0.3"]),
        pod("b", "other", "x", "10.0.0.2"),
        pod("b", "third", "x", "10.0.0.3"),
    ]);
    shows("no_pod", 1);
    shows("foreign", 1);
    world.apply(&[remote("a", "r", "http://t.a:8080/mcp"), pod("a", "t-0", "t", "10.0.0.1")]);
    shows("no_pod", 0);
    shows("foreign", 1);
    assert_eq!(world.left_out("t.a").len(), 1);
    world.delete(ObjectKind::Service, "a", "t");
    world.delete(ObjectKind::RemoteMcpServer(KagentApi::V0), "a", "r");
    shows("foreign", 0);
}
