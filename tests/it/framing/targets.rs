//! Heads whose target, or whose size, decides.

use super::{HEAD, is_marker, is_passed, post};
use crate::support::start;

#[tokio::test]
async fn heads_beyond_the_limits_are_answered_with_431() {
    let (proxy, backend) = start().await;
    let long = format!("x-long: {}\r\n", "y".repeat(70 * 1024));
    let many = "x-a: 1\r\n".repeat(130);
    let far = format!("x-far: {}\r\n", "y".repeat(300 * 1024));
    for (name, fields) in [("long", long), ("many", many), ("far", far)] {
        let answer =
            proxy.ask(&format!("GET / HTTP/1.1\r\n{HEAD}connection: close\r\n{fields}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 431 header_too_large\r\n"), "{name}: {answer:?}");
        assert!(answer.contains("x-kagent-proxy-error: header_too_large"), "{name}: {answer}");
    }
    drop(backend);
    proxy.stop().await;
}

/// Each of them alone, and beside the one that all requests here have.
#[tokio::test]
async fn many_equal_targets_are_one_and_differing_ones_none() {
    let equal =
        "x-kagent-host: S.NS\r\nX-Kagent-Host: s.ns.svc.cluster.local\r\nx-kagent-host: S.NS.\r\n"
            .repeat(20);
    let (first, marker) =
        is_passed(&post(&format!("{equal}content-length: 0\r\n"), ""), "\r\n\r\n").await;
    assert!(!first.to_ascii_lowercase().contains("x-kagent-host"), "{first}");
    assert!(is_marker(&marker), "{marker}");
    let (proxy, _backend) = start().await;
    let long = "a".repeat(5000);
    for value in [
        "other.ns",
        "s.ns, s.ns",
        "s.ns s.ns",
        "s.ns/",
        "s.ns#",
        "s.ns%00",
        "",
        "s..ns",
        "s.ns:0",
        &long,
    ] {
        let mut client = proxy.connect().await;
        client.send(&post(&format!("x-kagent-host: {value}\r\n"), "")).await;
        let answer = client.until("\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 400 bad_target\r\n"), "{value:?}: {answer}");
    }
    let metrics = proxy.admin("/metrics").await;
    assert!(metrics.contains("event=\"opened\"} 0"), "dialled: {metrics}");
    proxy.stop().await;
}
