//! Traffic runs on a runtime of its own: whatever holds up the rest does not hold up a call.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use kagent_proxy::app::App;
use kagent_proxy::config::{Scheme, Sources};
use kagent_proxy::drain::Phase;
use tokio::runtime::Builder;

use crate::support::{BOUND, config, route};

/// Answers one request, from a thread that no runtime knows.
fn backend() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            assert_eq!(stream.read(&mut byte).unwrap(), 1, "the head has an end");
            head.push(byte[0]);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nmine").unwrap();
    });
    port
}

#[test]
fn a_call_goes_through_while_everything_else_is_stuck() {
    let traffic = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let beside = Builder::new_current_thread().enable_all().build().unwrap();
    beside.block_on(async {
        let config = config(vec![route("a.ns", "/", Scheme::Http, &[backend()])]);
        let bound = App::build_beside(config, &Sources::default(), &[traffic.handle().clone()])
            .await
            .unwrap();
        let (address, trigger) = (bound.addresses[0], bound.trigger());
        let running = tokio::spawn(bound.run());
        // One turn, in which the listeners begin on the other runtime.
        tokio::task::yield_now().await;
        // A blocking client: from here to the end of the answer nothing else runs on this thread.
        let mut client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(BOUND)).unwrap();
        let request =
            b"GET / HTTP/1.1\r\nhost: x\r\nx-kagent-host: a.ns\r\nconnection: close\r\n\r\n";
        client.write_all(request).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("mine"), "{answer}");
        trigger.advance(Phase::Draining);
        assert!(running.await.unwrap(), "a clean end");
    });
}
