//! The rest of a call's stream, for which a client asks by the id of its last event: who answers when its server is
//! gone.

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::program::Program;
use crate::session_streams::{
    Asked, END, HOST, PROGRESS, RESULT, STREAM, Scene, assert_lost, call, chunk, event, initialize,
    initialized, last_event, message, request, to, token,
};
use crate::support::replicas::replicas;
use crate::support::{Backend, Client};

/// A call whose stream ends behind the event 1.
async fn begun(scene: &Scene) {
    let mut client = scene.open("POST", None, &call()).await;
    scene.asked().await.answer(&format!("{STREAM}{}{END}", event("1", PROGRESS))).await;
    let begun = client.rest().await;
    assert!(begun.ends_with(END) && !begun.contains("isError"), "{begun}");
}

/// What a client is answered that asks for the rest when the server is gone.
async fn asked_of_nobody(scene: Scene, last: &str) {
    let Scene { server, proxy, token } = scene;
    drop(server);
    let answer = proxy.ask(&request("GET", (&token, Some(last)), "")).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("text/event-stream"), "{answer}");
    assert_lost(&last_event(&answer));
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_while_its_server_is_asked_may_ask_again() {
    let scene = Scene::begin().await;
    begun(&scene).await;
    for _ in 0..2 {
        let client = scene.open("GET", Some("1"), "").await;
        let mut resumed = scene.asked().await;
        assert_eq!(resumed.last_event_id(), Some("1"));
        drop(client);
        // Nobody waits for it any more.
        assert_eq!(resumed.call.rest().await, "");
    }
    asked_of_nobody(scene, "1").await;
}

/// Whether it has brought the answer cannot be seen.
#[tokio::test]
async fn the_rest_of_a_call_may_be_asked_for_again_where_it_came_in_a_coding() {
    let scene = Scene::begin().await;
    begun(&scene).await;
    let mut client = scene.open("GET", Some("1"), "").await;
    let coded = STREAM.replace("\r\nconnection", "\r\ncontent-encoding: gzip\r\nconnection");
    scene.asked().await.answer(&format!("{coded}{}{END}", chunk("some"))).await;
    assert!(client.rest().await.ends_with(END));
    asked_of_nobody(scene, "1").await;
}

#[tokio::test]
async fn a_call_is_remembered_behind_streams_whose_length_is_told() {
    let scene = Scene::begin().await;
    let told = |text: &str| {
        let length = format!("content-length: {}\r\n\r\n{text}", text.len());
        STREAM.replace("transfer-encoding: chunked\r\n\r\n", &length)
    };
    let some = |id: &str| told(&format!("id: {id}\n{PROGRESS}"));
    let mut client = scene.open("POST", None, &call()).await;
    scene.asked().await.answer(&some("1")).await;
    assert!(client.rest().await.ends_with(PROGRESS), "nothing may be added");
    let mut client = scene.open("GET", Some("1"), "").await;
    let resumed = scene.asked().await;
    assert_eq!(resumed.last_event_id(), Some("1"));
    resumed.answer(&some("2")).await;
    assert!(client.rest().await.ends_with(PROGRESS));
    // What has been answered is not remembered.
    let mut client = scene.open("POST", None, &call()).await;
    scene.asked().await.answer(&told(&format!("id: 5\n{RESULT}"))).await;
    assert!(client.rest().await.ends_with(RESULT));
    let mut client = scene.open("GET", Some("5"), "").await;
    scene.asked().await.answer(&told(&format!("id: 6\n{RESULT}"))).await;
    assert!(client.rest().await.ends_with(RESULT));
    asked_of_nobody(scene, "2").await;
}

#[tokio::test]
async fn a_call_that_has_moved_is_asked_for_where_it_is() {
    let scene = Scene::begin().await;
    let mut client = scene.open("POST", None, &message("prompts/get")).await;
    let mut silent = scene.asked().await;
    silent.say(STREAM).await;
    client.until("\r\n\r\n").await;
    scene.forget().await;
    // It is sent once more, for it does no harm.
    drop(silent);
    let again = scene.asked().await;
    assert!(again.is("\"prompts/get\"") && again.is("mcp-session-id: s2"), "{}", again.text);
    again.answer(&format!("{STREAM}{}{END}", event("1", PROGRESS))).await;
    assert!(client.rest().await.ends_with(END));
    let mut client = scene.open("GET", Some("1"), "").await;
    let resumed = scene.asked().await;
    assert!(resumed.is("mcp-session-id: s2"), "{}", resumed.text);
    resumed.answer(&format!("{STREAM}{}{END}", event("2", RESULT))).await;
    let rest = client.rest().await;
    assert!(rest.contains("\"content\":[]") && !rest.contains("isError"), "{rest}");
    scene.stop().await;
}

#[tokio::test]
async fn another_replica_answers_for_a_call_that_it_did_not_carry() {
    let server = Backend::start().await;
    let [one, two] = replicas::<2>("rest", &to(&server)).await;
    let scene = Scene::at(server, one).await;
    begun(&scene).await;
    // Its server is asked, as through the other one.
    let ask = |last: &str| request("GET", (&scene.token, Some(last)), "");
    let mut client = two.connect().await;
    client.send(&ask("1")).await;
    let resumed = scene.asked().await;
    assert_eq!(resumed.last_event_id(), Some("1"));
    resumed.answer(&format!("{STREAM}{}{END}", event("2", PROGRESS))).await;
    let rest = client.rest().await;
    assert!(rest.ends_with(END) && !rest.contains("isError"), "{rest}");
    let ask = ask("2");
    let Scene { server, proxy: one, .. } = scene;
    drop(server);
    let answer = one.ask(&ask).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("text/event-stream"), "{answer}");
    assert_lost(&last_event(&answer));
    for replica in [one, two] {
        replica.stop().await;
    }
}

/// A request that may be sent again goes with the first event of its stream.
#[tokio::test]
async fn what_a_stream_answers_is_not_kept_while_it_lasts() {
    const STREAMS: usize = 40;
    let server = Backend::start().await;
    let address = format!("{HOST}=127.0.0.1:{}", server.port());
    let program = Program::start(&["--route", &address], &[]).await;
    let mut client = program.connect().await;
    client.send(&request("POST", ("", None), &initialize())).await;
    Asked::next(&server).await.answer(&initialized()).await;
    let token = token(&client.rest().await);
    let body = message("prompts/get").replace("{}", &format!("\"{}\"", "x".repeat(1000 * 1024)));
    let (mut streams, mut before) = (Vec::new(), 0);
    // The first ones make the buffers that the rest is measured against.
    for n in 0..STREAMS + 4 {
        if n == 4 {
            before = program.resident();
        }
        let mut client = program.connect().await;
        client.send(&request("POST", (&token, None), &body)).await;
        let mut call = server.accept().await;
        read_to(&mut call, b"\"}}").await;
        call.send(&format!("{STREAM}{}", chunk(PROGRESS))).await;
        client.until(PROGRESS).await;
        streams.push((client, call));
    }
    let more = program.resident().saturating_sub(before);
    assert!(more < STREAMS << 19, "{more} bytes for {STREAMS} streams");
}

/// Reads until the bytes that came last are these.
async fn read_to(call: &mut Client, end: &[u8]) {
    let mut all = Vec::new();
    while !all.ends_with(end) {
        assert_ne!(call.0.read_buf(&mut all).await.unwrap(), 0, "closed");
    }
}

/// JSON-RPC 2.0 section 6: each request of a batch has its own answer.
#[tokio::test]
async fn a_stream_that_breaks_answers_what_is_left_of_its_batch() {
    let params = json!({"name": "t"});
    let ask = |id: Value, method: &str| json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
    let batch = json!([
        ask(json!(1), "tools/call"),
        ask(json!(7), "tools/call"),
        {"jsonrpc": "2.0", "method": "notifications/progress"},
        ask(json!("b"), "resources/subscribe"),
    ]);
    let first = PROGRESS.to_owned() + &RESULT.replace("\"id\":7", "\"id\":1");
    for ended in [false, true] {
        let scene = Scene::begin().await;
        let mut client = scene.open("POST", None, &batch.to_string()).await;
        let mut call = scene.asked().await;
        call.say(&format!("{STREAM}{}", chunk(&first))).await;
        client.until("\"result\"").await;
        call.answer(if ended { END } else { "" }).await;
        let all = client.rest().await;
        assert!(all.ends_with(END), "{all}");
        let told = answers(&all);
        assert_eq!(told.len(), 2, "{all}");
        assert_lost(&told[0]);
        assert_eq!((&told[1]["id"], &told[1]["error"]["code"]), (&json!("b"), &json!(-32603)));
        // Whoever can ask for the rest is answered then.
        let mut client = scene.open("POST", None, &batch.to_string()).await;
        let begun = format!("{STREAM}{}{END}", event("1", &first));
        scene.asked().await.answer(&begun).await;
        assert!(client.rest().await.ends_with(END));
        let Scene { server, proxy, token } = scene;
        drop(server);
        let again = answers(&proxy.ask(&request("GET", (&token, Some("1")), "")).await);
        assert_eq!(again, told);
        proxy.stop().await;
    }
    // Where all have come, nothing is added.
    let scene = Scene::begin().await;
    let mut client = scene.open("POST", None, &batch.to_string()).await;
    let all = [1, 7].map(|id| json!({"id": id, "result": {}}));
    let last = json!({"id": "b", "result": {}});
    let said = chunk(&format!("data: {}\n\n", json!(all))) + &chunk(&format!("data: {last}\n\n"));
    scene.asked().await.answer(&format!("{STREAM}{said}{END}")).await;
    let all = client.rest().await;
    assert!(all.ends_with(END) && all.matches("\"result\"").count() == 3, "{all}");
    scene.stop().await;
}

/// The responses of ours in a stream.
fn answers(stream: &str) -> Vec<Value> {
    let ours = stream.split_once("event: message\n").map(|(_, ours)| ours).unwrap_or_default();
    let data = ours.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).unwrap()).collect()
}
