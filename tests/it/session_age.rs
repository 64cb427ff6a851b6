//! How old a session may be (`sessions.maxAge`): kagent 1.0 resumes its agents up to a week later.

use std::time::Duration;

use kagent_proxy::session::keys::Keyring;
use kagent_proxy::session::now;
use kagent_proxy::session::token::Session;

use crate::mcp_server::McpServer;
use crate::sessions::{HOST, begin, call, post, to};
use crate::support::TestProxy;
use crate::support::replicas::{key_file, replicas};

const WEEK: Duration = Duration::from_secs(168 * 3600);
const MINUTE: Duration = Duration::from_secs(60);

/// The same token as if its session had begun so much earlier: the clock has moved on.
fn aged(token: &str, by: Duration) -> String {
    let text = std::fs::read_to_string(key_file("age")).unwrap();
    let mut keys = Keyring::none();
    keys.add(&text).unwrap();
    let route = format!("{HOST}\0/");
    let mut session = Session::open(&keys, &route, token.as_bytes()).unwrap().0;
    session.issued -= by.as_secs();
    session.seal(&keys, &route).unwrap().0
}

#[tokio::test]
async fn a_session_comes_back_within_a_week_and_is_told_to_begin_anew_after_it() {
    let server = McpServer::start().await;
    let mut config = to(&[&server]);
    config.sessions.key_files = vec![key_file("age")];
    let proxy = TestProxy::start(config).await;
    let late = aged(&begin(&proxy).await, WEEK - MINUTE);
    assert_eq!(post(&proxy, Some(&late), &call("count", "x")).await.count(), 1, "carried");
    let other = aged(&begin(&proxy).await, WEEK - MINUTE);
    server.forget();
    let revived = post(&proxy, Some(&other), &call("count", "x")).await;
    assert_eq!((revived.count(), revived.session()), (1, Some(other)), "brought back");
    let over = aged(&begin(&proxy).await, WEEK + Duration::from_secs(62 * 60));
    let heads = server.seen(|seen| seen.heads);
    for _ in 0..2 {
        let answer = post(&proxy, Some(&over), &call("count", "x")).await;
        assert_eq!((answer.status, &*answer.body), (404, ""), "begin anew");
    }
    assert_eq!(server.seen(|seen| seen.heads), heads, "nobody was asked");
    let metrics = proxy.admin("/metrics").await;
    assert!(metrics.contains("event=\"lost\",cause=\"bad_token\"} 2"), "{metrics}");
    // A replica whose clock is ahead has begun it.
    let early = aged(&begin(&proxy).await, Duration::ZERO);
    assert_eq!(post(&proxy, Some(&early), &call("count", "x")).await.count(), 1);
    proxy.stop().await;
}

/// What counts is the last use, wherever that was.
#[tokio::test]
async fn a_session_in_use_does_not_end_and_every_replica_knows() {
    let server = McpServer::start().await;
    let mut config = to(&[&server]);
    config.sessions.max_age = Duration::from_secs(20);
    let [one, other] = replicas("age", &config).await;
    let begun = now();
    let token = aged(&begin(&one).await, Duration::from_secs(14));
    let untouched = aged(&begin(&one).await, Duration::from_secs(14));
    // Until it is too old by its beginning; the other one is told meanwhile.
    while now() < begun + Duration::from_secs(9) {
        assert_eq!(post(&one, Some(&token), &call("count", "x")).await.status, 200);
    }
    assert_eq!(post(&other, Some(&token), &call("count", "x")).await.status, 200);
    assert_eq!(post(&other, Some(&untouched), &call("count", "x")).await.status, 404);
    for proxy in [one, other] {
        proxy.stop().await;
    }
}
