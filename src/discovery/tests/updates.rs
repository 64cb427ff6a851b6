//! What a change does: to endpoints, to identity, to callers, and how much it touches.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::Scheme;
use crate::discovery::pod::PodObject;
use crate::route::Route;
use crate::route::discovered::HostState;
use crate::upstream::Want;
use crate::workers::near::Common;

fn helper(endpoints: &[&str]) -> [(ObjectKind, Value); 3] {
    [
        agent("a", "helper", &[]),
        service_with("a", "helper", &["http:8080"], owner("Agent", "helper")),
        slice("a", "helper", ("http", 8080), endpoints),
    ]
}

#[test]
fn pods_leave_when_they_end_and_no_host_is_decided_anew_for_it() {
    let mut world = World::of(&helper(&["10.0.0.1", "10.0.0.2"]));
    assert_eq!(world.endpoints("helper.a", "/"), ["10.0.0.1:8080", "10.0.0.2:8080"]);
    let (_, json) = slice("a", "helper", ("http", 8080), &["!10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    let (id, namespace) = named(&json);
    let kind = ObjectKind::EndpointSlice;
    world.index.apply(kind, id, Some(Object::read(kind, &namespace, &json)));
    assert_eq!(world.publish(), 0, "only endpoints changed");
    assert_eq!(world.endpoints("helper.a", "/"), ["10.0.0.2:8080", "10.0.0.3:8080"]);
}

#[test]
fn only_pods_that_are_gone_for_good_have_ended() {
    let pod = |uid: &str, address: &str, host_network: bool| {
        let json = json!({
            "metadata": {"namespace": "a", "name": "p", "uid": uid},
            "spec": {"hostNetwork": host_network},
            "status": {"phase": "Running", "podIPs": [{"ip": address}]},
        });
        Some(Object::Pod(serde_json::from_value::<PodObject>(json).unwrap().pod))
    };
    let ended = |sees: bool, told: Vec<Option<Object>>| {
        let mut index = Index::new("cluster.local", &[]);
        index.set_sees_pods(None, sees);
        told.into_iter()
            .for_each(|told| index.apply(ObjectKind::Pod, ObjectId::new("a", "p"), told));
        let ended: Vec<String> = index.take_ended().iter().map(ToString::to_string).collect();
        assert!(index.take_ended().is_empty(), "told once");
        ended
    };
    assert_eq!(ended(true, vec![pod("1", "10.0.0.1", false), None]), ["10.0.0.1"]);
    let replaced = vec![pod("1", "10.0.0.1", false), pod("2", "10.0.0.2", false)];
    assert_eq!(ended(true, replaced), ["10.0.0.1"]);
    for (sees, told) in [
        (true, vec![pod("1", "10.0.0.1", false), pod("1", "10.0.0.1", false)]),
        // What has its address now is another's.
        (true, vec![pod("1", "10.0.0.1", false), pod("2", "10.0.0.1", false)]),
        // Its node has more than this Pod.
        (true, vec![pod("1", "10.0.0.1", true), None]),
        // We may not see it any more.
        (false, vec![pod("1", "10.0.0.1", false), None]),
        (true, vec![None]),
    ] {
        assert!(ended(sees, told).is_empty());
    }
}

#[test]
fn a_dual_stack_pod_is_one_endpoint_of_the_family_that_we_have() {
    let mut v6 = slice("a", "helper", ("http", 8080), &["fd00::1"]);
    v6.1["endpoints"][0]["targetRef"]["uid"] = json!("10.0.0.1");
    for (own, expected) in [("10.9.9.9", "10.0.0.1:8080"), ("fd00::9", "[fd00::1]:8080")] {
        let pod_ips = vec![own.parse().unwrap()];
        let mut world = World::new(DiscoveryConfig { pod_ips, ..DiscoveryConfig::default() });
        world.apply(&helper(&["10.0.0.1"]));
        world.apply(std::slice::from_ref(&v6));
        assert_eq!(world.endpoints("helper.a", "/"), [expected]);
    }
    // On its way out in one family, it does not come back by the other.
    let mut world = World::new(DiscoveryConfig {
        pod_ips: vec![[10, 9, 9, 9].into()],
        ..DiscoveryConfig::default()
    });
    world.apply(&helper(&["!10.0.0.1"]));
    world.apply(std::slice::from_ref(&v6));
    assert!(world.endpoints("helper.a", "/").is_empty());
}

#[test]
fn addresses_that_no_pod_has_are_never_dialled() {
    let world = World::of(&helper(&[
        "127.0.0.1",
        "169.254.169.254",
        "100.100.100.200",
        "0.0.0.0",
        "10.0.0.1",
    ]));
    assert_eq!(world.endpoints("helper.a", "/"), ["10.0.0.1:8080"]);
}

#[test]
fn the_services_own_address_is_dialled_where_that_is_configured() {
    let endpoints = crate::config::Endpoints::Service;
    let mut world = World::new(DiscoveryConfig { endpoints, ..DiscoveryConfig::default() });
    world.apply(&helper(&["10.0.0.1"]));
    assert_eq!(world.endpoints("helper.a", "/"), ["10.96.0.7:8080"]);
}

#[test]
fn a_change_beside_it_leaves_a_route_the_same_one() {
    let mut world = World::of(&helper(&["10.0.0.1"]));
    let route = |world: &World| {
        let (host, _) = HostKey::parse("helper.a", "cluster.local").unwrap();
        world.table.discovered(&host).unwrap().routes().next().unwrap().clone()
    };
    let before = route(&world);
    world.apply(&[remote("a", "r", "http://helper.a:8080/mcp")]);
    assert!(before.is_same(&route(&world)));
    world.apply(&[service_with("a", "helper", &["http:8081"], owner("Agent", "helper"))]);
    assert!(!before.is_same(&route(&world)), "another port is another route");
}

#[test]
fn objects_that_go_take_their_words_with_them() {
    let mut world =
        World::of(&[service("a", "t", &["x:1", "y:2"]), remote("a", "r", "http://t.a:2/mcp")]);
    assert_eq!(world.ask("t.a", "/mcp", None), "http://t.a:2");
    world.apply(&[remote("a", "r", "http://t.a:1/mcp")]);
    assert_eq!(world.ask("t.a", "/mcp", None), "http://t.a:1");
    world.delete(ObjectKind::RemoteMcpServer(KagentApi::V0), "a", "r");
    assert!(world.ask("t.a", "/mcp", None).starts_with("forbidden: "));
    world.delete(ObjectKind::Service, "a", "t");
    assert_eq!(world.ask("t.a", "/mcp", None), "unknown");
}

#[test]
fn the_agent_behind_an_address_is_known_while_only_one_has_it() {
    let mut world = World::of(&helper(&["10.0.0.1", "!10.0.0.2"]));
    let caller = |world: &World, address: &str| {
        world.table.caller(address.parse().unwrap()).map(ToString::to_string)
    };
    assert_eq!(caller(&world, "10.0.0.1").unwrap(), "a/helper");
    assert_eq!(caller(&world, "::ffff:10.0.0.2").unwrap(), "a/helper", "until it is gone");
    assert_eq!(caller(&world, "10.0.0.3"), None);
    world.apply(&[
        agent("b", "twin", &[]),
        service_with("b", "twin", &["http:8080"], owner("Agent", "twin")),
        slice("b", "twin", ("http", 8080), &["10.0.0.1"]),
    ]);
    assert_eq!(caller(&world, "10.0.0.1"), None, "two Agents have it");
    world.delete(ObjectKind::EndpointSlice, "b", "twin-v4");
    assert_eq!(caller(&world, "10.0.0.1").unwrap(), "a/helper");
    world.delete(ObjectKind::Service, "a", "helper");
    assert_eq!(caller(&world, "10.0.0.1"), None);
}

#[test]
fn our_own_zone_is_found_in_our_own_slice_and_preferred() {
    let pod_ips = vec![[10, 0, 0, 9].into()];
    let mut world = World::new(DiscoveryConfig { pod_ips, ..DiscoveryConfig::default() });
    let mut slices = slice("a", "helper", ("http", 8080), &["10.0.0.1", "10.0.0.2"]);
    slices.1["endpoints"][0]["zone"] = json!("east");
    slices.1["endpoints"][1]["zone"] = json!("west");
    let [agent, service_of_agent, _] = helper(&[]);
    world.apply(&[agent, service_of_agent, slices]);
    let far = |world: &World| {
        let (host, _) = HostKey::parse("helper.a", "cluster.local").unwrap();
        let route = world.table.discovered(&host).unwrap().routes().next().unwrap().clone();
        route.cluster.endpoints().iter().map(|e| e.is_in_other_zone()).collect::<Vec<_>>()
    };
    assert_eq!(far(&world), [false, false]);
    let mut ours = slice("kagent", "kagent-proxy", ("http", 8080), &["10.0.0.9"]);
    ours.1["endpoints"][0]["zone"] = json!("west");
    world.apply(&[service("kagent", "kagent-proxy", &["http:8080"]), ours]);
    assert_eq!(far(&world), [true, false]);
}

#[test]
fn a_secret_that_may_not_be_read_says_what_would_help() {
    let tls = json!({ "tls": { "caCertSecretRef": "ca", "caCertSecretKey": "ca.crt" } });
    let objects = [service("a", "t", &["x:443"]), remote_with("a", "r", "https://t.a/mcp", tls)];
    let mut world = World::of(&objects);
    let waiting = world.ask("t.a", "/mcp", None);
    assert!(waiting.starts_with("pending: ") && waiting.contains("is being read"), "{waiting}");
    let wanted = world.publisher.secrets.wanted(false);
    assert_eq!(wanted.len(), 1);
    assert!(world.publisher.secrets.wanted(false).is_empty(), "asked once");
    let (key, pause) = wanted[0].clone();
    assert_eq!(pause, Duration::ZERO);
    // A server that does not answer is asked again and again, but not at once.
    for pause in [500, 1000, 2000, 4000, 5000, 5000] {
        world.publisher.secrets.unanswered(key.clone());
        let again = world.publisher.secrets.wanted(false);
        assert_eq!(again, [(key.clone(), Duration::from_millis(pause))]);
    }
    let services = world.publisher.secrets.learn(key, Err("RBAC forbids it".to_owned()));
    services.iter().for_each(|service| world.index.touch(service));
    world.publish();
    let refused = world.ask("t.a", "/mcp", None);
    assert!(refused.contains("RBAC forbids it") && refused.contains("caBundleFile"), "{refused}");
    assert_eq!(world.publisher.secrets.wanted(true).len(), 1, "read again and again");
    world.delete(ObjectKind::RemoteMcpServer(KagentApi::V0), "a", "r");
    assert!(world.publisher.secrets.wanted(true).is_empty(), "nobody needs it any more");
}

#[test]
fn a_bundle_takes_the_place_of_a_secret_only_once_that_cannot_be_read() {
    let file = std::env::temp_dir().join(format!("kagent-proxy-other-{}.pem", std::process::id()));
    std::fs::write(&file, authority()).unwrap();
    let config = DiscoveryConfig { ca_bundle: Some(file.clone()), ..DiscoveryConfig::default() };
    let mut world = World::new(config);
    let tls = json!({ "tls": { "caCertSecretRef": "ca", "caCertSecretKey": "ca.crt" } });
    world.apply(&[service("a", "t", &["x:443"]), remote_with("a", "r", "https://t.a/mcp", tls)]);
    std::fs::remove_file(&file).unwrap();
    assert!(world.ask("t.a", "/mcp", None).starts_with("pending: "));
    let (key, _) = world.publisher.secrets.wanted(false).remove(0);
    let services = world.publisher.secrets.learn(key, Err("RBAC forbids it".to_owned()));
    services.iter().for_each(|service| world.index.touch(service));
    world.publish();
    assert_eq!(world.ask("t.a", "/mcp", None), "https://t.a");
}

fn authority() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    rcgen::CertificateParams::new(vec!["t.a".to_owned()]).unwrap().self_signed(&key).unwrap().pem()
}

#[test]
fn a_pod_that_is_ready_and_leaves_gets_nothing_new() {
    // publishNotReadyAddresses of a headless Service.
    let mut slices = slice("a", "helper", ("http", 8080), &["10.0.0.1", "10.0.0.2"]);
    slices.1["endpoints"][0]["conditions"]["terminating"] = json!(true);
    let [agent, service_of_agent, _] = helper(&[]);
    let mut world = World::of(&[agent, service_of_agent]);
    world.apply(&[slices]);
    assert_eq!(world.endpoints("helper.a", "/"), ["~10.0.0.1:8080", "10.0.0.2:8080"]);
}

#[test]
fn pods_that_end_and_still_serve_stay_behind_the_ready_ones() {
    let mut world = World::of(&helper(&["~10.0.0.1", "10.0.0.2", "!10.0.0.3"]));
    assert_eq!(world.endpoints("helper.a", "/"), ["~10.0.0.1:8080", "10.0.0.2:8080"]);
    let picked = |world: &World| {
        let (host, _) = HostKey::parse("helper.a", "cluster.local").unwrap();
        let route = world.table.discovered(&host).unwrap().routes().next().unwrap().clone();
        route.cluster.pick(Want::Any, &[]).map(|endpoint| endpoint.address.to_string())
    };
    for _ in 0..50 {
        assert_eq!(picked(&world).unwrap(), "10.0.0.2:8080");
    }
    // kube-proxy goes on with them where no pod is ready.
    world.apply(&helper(&["~10.0.0.1", "!10.0.0.2"]));
    assert_eq!(picked(&world).unwrap(), "10.0.0.1:8080");
    world.apply(&helper(&["!10.0.0.1", "!10.0.0.2"]));
    assert_eq!(picked(&world), None);
    // Without `serving` the endpoint says it by `ready`, and without any condition it is ready.
    for (conditions, expected) in [
        (json!({ "ready": false, "terminating": true }), &[][..]),
        (json!({ "terminating": true }), &["~10.0.0.1:8080"][..]),
        (json!({}), &["10.0.0.1:8080"][..]),
        (json!({ "ready": false, "serving": true }), &[][..]),
    ] {
        let mut objects = helper(&["10.0.0.1"]);
        objects[2].1["endpoints"][0]["conditions"] = conditions.clone();
        assert_eq!(World::of(&objects).endpoints("helper.a", "/"), expected, "{conditions}");
    }
}

#[test]
fn a_pod_that_is_not_ready_keeps_its_sessions_and_gets_nothing_else() {
    let mut world = World::of(&helper(&["10.0.0.1", "10.0.0.2"]));
    let (host, _) = HostKey::parse("helper.a", "cluster.local").unwrap();
    let route = world.table.discovered(&host).unwrap().routes().next().unwrap().clone();
    let home = route.cluster.endpoints()[0].clone();
    let pinned = || route.cluster.pick(Want::Pinned(&home.id()), &[]);
    let mut flaps = helper(&["10.0.0.1", "10.0.0.2"]);
    for ready in [false, true, false] {
        let conditions = json!({ "ready": ready, "serving": ready, "terminating": false });
        flaps[2].1["endpoints"][0]["conditions"] = conditions;
        world.apply(&flaps);
        assert!(pinned().is_some_and(|endpoint| endpoint.is_same(&home)), "{ready}");
        let open = world.endpoints("helper.a", "/");
        assert_eq!(open.contains(&"10.0.0.1:8080".to_owned()), ready);
    }
    for _ in 0..50 {
        let any = route.cluster.pick(Want::Any, &[]).unwrap();
        assert_eq!(any.address.to_string(), "10.0.0.2:8080");
    }
    world.apply(&helper(&["!10.0.0.1", "10.0.0.2"]));
    assert!(pinned().is_none(), "it ends");
}

#[test]
fn two_services_of_one_agent_share_an_address_until_both_are_gone() {
    let mut world = World::of(&helper(&["10.0.0.1"]));
    let caller = |world: &World| {
        world.table.caller([10, 0, 0, 1].into()).map(ToString::to_string).unwrap_or_default()
    };
    world.apply(&[
        service_with("a", "metrics", &["http:9090"], owner("Agent", "helper")),
        slice("a", "metrics", ("http", 9090), &["10.0.0.1"]),
    ]);
    assert_eq!(caller(&world), "a/helper");
    world.delete(ObjectKind::Service, "a", "metrics");
    assert_eq!(caller(&world), "a/helper", "the other one still says so");
    world.delete(ObjectKind::Service, "a", "helper");
    assert_eq!(caller(&world), "");
}

#[test]
fn a_mounted_bundle_is_followed_and_kept_while_it_is_being_replaced() {
    let file = std::env::temp_dir().join(format!("kagent-proxy-bundle-{}.pem", std::process::id()));
    let config = DiscoveryConfig { ca_bundle: Some(file.clone()), ..DiscoveryConfig::default() };
    let mut world = World::new(config);
    world.apply(&[service("a", "t", &["x:443"]), remote("a", "r", "https://t.a/mcp")]);
    let missing = world.ask("t.a", "/mcp", None);
    assert!(missing.contains("caBundleFile") && missing.contains("No such file"), "{missing}");
    let refresh = |world: &mut World| {
        let services = world.publisher.secrets.refresh_bundle();
        services.iter().for_each(|service| world.index.touch(service));
        world.publish();
        services.len()
    };
    let route = |world: &World| {
        let (host, _) = HostKey::parse("t.a", "cluster.local").unwrap();
        let found = world.table.discovered(&host).unwrap();
        let secure = |route: &&Common<Route>| route.config.to.targets[0].scheme == Scheme::Https;
        found.routes().find(secure).unwrap().clone()
    };
    std::fs::write(&file, authority()).unwrap();
    assert_eq!(refresh(&mut world), 1);
    assert_eq!(world.ask("t.a", "/mcp", None), "https://t.a");
    let first = route(&world);
    assert_eq!(refresh(&mut world), 0, "nothing has changed");
    std::fs::remove_file(&file).unwrap();
    assert_eq!(refresh(&mut world), 0, "what was read stays");
    assert!(first.is_same(&route(&world)));
    std::fs::write(&file, authority()).unwrap();
    assert_eq!(refresh(&mut world), 1);
    let second = route(&world);
    assert!(!first.is_same(&second), "connections of before are not used again");
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn others_objects_cost_only_those_that_use_them() {
    let mut objects = vec![service("tools", "t", &["a:1", "b:2"])];
    for n in 0..100 {
        objects.push(remote("evil", &format!("r{n:03}"), "http://t.tools:2/mcp"));
    }
    objects.push(agent("evil", "user", &[("RemoteMCPServer", "r007")]));
    let mut world = World::of(&objects);
    world.apply(&[remote("tools", "own", "http://t.tools:1/mcp")]);
    let (host, _) = HostKey::parse("t.tools", "cluster.local").unwrap();
    let found = Arc::clone(world.table.discovered(&host).unwrap());
    let HostState::Open(open) = &found.state else { panic!("{found:?}") };
    assert_eq!(
        (open.rules.len(), open.foreign.len()),
        (1, 1),
        "one rule for all, one for the user"
    );
    assert_eq!(world.ask("t.tools", "/mcp", Some("other/agent")), "http://t.tools:1");
    let (_, chain) = world.chain("t.tools", "/mcp", None, None);
    assert!(chain.len() < 30, "{} notes", chain.len());
    assert!(chain.iter().any(|note| note.candidate == "and 80 more"), "{chain:?}");
}

#[test]
fn a_path_that_kagent_decoded_is_the_one_that_was_written() {
    let world = World::of(&[
        service("a", "t", &["x:1", "y:2"]),
        remote("a", "one", "http://t.a:1/a%20b/mcp"),
        remote("a", "two", "http://t.a:2/a/b%2Fmcp"),
    ]);
    assert_eq!(world.ask("t.a", "/a%20b/mcp", None), "http://t.a:1");
    assert_eq!(world.ask("t.a", "/a%20b/mcp/below", None), "http://t.a:1");
    assert_eq!(world.ask("t.a", "/a/b/mcp", None), "http://t.a:2");
}

#[test]
fn odd_objects_break_nothing() {
    for odd in
        [json!({}), json!(null), json!({ "spec": 3 }), json!({ "spec": { "url": 1, "ports": {} } })]
    {
        for kind in ObjectKind::ALL {
            let mut world = World::of(&helper(&["10.0.0.1"]));
            world.index.apply(kind, ObjectId::new("a", "odd"), Some(Object::read(kind, "a", &odd)));
            world.publish();
            assert_eq!(world.ask("helper.a", "/", None), "http://helper.a:8080");
        }
    }
}
