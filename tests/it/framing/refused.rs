//! Heads that are refused, each as a whole.

use super::{HEAD, is_refused, post};
use crate::support::start;

#[tokio::test]
async fn lengths_that_differ_or_are_no_number_are_refused() {
    let (proxy, _backend) = start().await;
    for fields in [
        "content-length: 3\r\ncontent-length: 4\r\n",
        "content-length: 3, 4\r\n",
        "content-length: 3, 3\r\n",
        "content-length: +3\r\n",
        "content-length: -1\r\n",
        "content-length: 0x3\r\n",
        "content-length: 3 3\r\n",
        "content-length: \r\n",
        "content-length : 3\r\n",
        "content-length: 18446744073709551616\r\n",
        "content-length: 99999999999999999999\r\n",
    ] {
        is_refused(&proxy, &post(fields, "abc"), "400 ").await;
    }
    proxy.stop().await;
}

#[tokio::test]
async fn codings_other_than_chunked_are_refused() {
    let (proxy, _backend) = start().await;
    for fields in [
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: chunked, chunked\r\n",
        "transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
    ] {
        let answer = is_refused(&proxy, &post(fields, "0\r\n\r\n"), "400 bad_request").await;
        assert!(answer.contains("x-kagent-proxy-error: bad_request\r\n"), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    }
    for fields in [
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding: chunked, gzip\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding: \"chunked\"\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        "transfer-encoding: \x0bchunked\r\n",
        "transfer-encoding : chunked\r\n",
        "transfer-encoding\t: chunked\r\n",
        " transfer-encoding: chunked\r\n",
    ] {
        is_refused(&proxy, &post(fields, "0\r\n\r\n"), "400 ").await;
    }
    for head in [HEAD, "x-kagent-host: s.ns\r\n"] {
        let old = format!("POST / HTTP/1.0\r\n{head}transfer-encoding: chunked\r\n\r\n0\r\n\r\n");
        is_refused(&proxy, &old, "400 ").await;
    }
    proxy.stop().await;
}

#[tokio::test]
async fn broken_fields_are_refused() {
    let (proxy, _backend) = start().await;
    for fields in [
        "x-a: 1\r\n b\r\n", // obs-fold
        "x-a: 1\r\n\tb\r\n",
        "x-a : 1\r\n", // space before the colon
        "x a: 1\r\n",
        ": 1\r\n",       // no name
        "x-a\r\n",       // no colon
        "x-a: a\0b\r\n", // NUL and control bytes
        "x-a: a\x01b\r\n",
        "x-a: a\x7fb\r\n",
        "x\0a: 1\r\n",
        "x\x01a: 1\r\n",
        "x-a: a\rb\r\n", // bare CR
        "x-a: 1\rx-b: 2\r\n",
        "x-(a): 1\r\n",
        "host: p\r\n", // a second Host
    ] {
        is_refused(&proxy, &post(fields, ""), "400 ").await;
        let get = format!("GET / HTTP/1.1\r\n{HEAD}{fields}\r\n");
        is_refused(&proxy, &get, "400 ").await;
    }
    is_refused(&proxy, "GET / HTTP/1.1\r\nx-kagent-host: s.ns\r\n\r\n", "400 ").await;
    proxy.stop().await;
}

#[tokio::test]
async fn broken_request_lines_are_refused() {
    let (proxy, _backend) = start().await;
    for line in [
        "GET\0 / HTTP/1.1",
        "GET /\0 HTTP/1.1",
        "GET /",
        "GET / HTTP/1.2",
        "GET / HTTP/3.7",
        "GET / HTTP/1.1 x",
        "GET / http/1.1",
        "GET /a b HTTP/1.1",
        "GET a.ns HTTP/1.1",
        "GET * HTTP/1.1",
        "G(T / HTTP/1.1",
    ] {
        is_refused(&proxy, &format!("{line}\r\n{HEAD}\r\n"), "400 ").await;
    }
    proxy.stop().await;
}
