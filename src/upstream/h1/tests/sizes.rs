//! Pipes that take or bring few bytes at a time: every size of each write and of each read makes the same of a message.

use std::convert::Infallible;

use http_body::Frame;

use super::oracle::{Case, Outcome};
use super::requests::{By, kinds, wire};
use super::*;
use crate::upstream::h1::encode::{self, Encoder, Outgoing};
use crate::upstream::h1::head;
use crate::upstream::h1::scratch::READ;

/// Takes what is on its way in writes of these sizes, the last one again and again.
fn taken(out: &mut Outgoing, sizes: &[usize]) -> Vec<u8> {
    let (mut all, mut sizes) = (Vec::new(), sizes.iter().copied().peekable());
    while !out.is_empty() {
        let size = sizes.next_if(|_| true).unwrap_or(usize::MAX);
        let rest = out.slices().concat();
        let size = size.min(rest.len());
        all.extend_from_slice(&rest[..size]);
        out.advance(size);
        assert_eq!(out.slices().concat(), &rest[size..], "nothing is lost or written twice");
    }
    assert!(out.slices().concat().is_empty() && out.front.is_empty(), "its room is used again");
    all
}

/// The frames of a request's body, with whether nothing follows.
fn frames() -> Vec<(Frame<Bytes>, bool)> {
    let trailers =
        HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("7"))]);
    vec![
        (Frame::data(Bytes::from_static(b"hello")), false),
        (Frame::data(Bytes::new()), false),
        (Frame::data(Bytes::from_static(b"0123456789abcdef!")), false),
        (Frame::trailers(trailers), false),
    ]
}

#[test]
fn a_request_is_written_whole_whatever_each_write_takes() {
    let request = Request::post("/").header("x-a", "1");
    let unknown = futures_util::stream::pending::<Result<Frame<Bytes>, Infallible>>();
    let request = request.body(http_body_util::StreamBody::new(unknown)).unwrap();
    let origin = origin();
    let whole = "POST / HTTP/1.1\r\nx-a: 1\r\nx-forwarded-for: 10.0.0.9\r\n\
                 x-forwarded-proto: http\r\nvia: 1.1 us\r\ntransfer-encoding: chunked\r\n\r\n\
                 5\r\nhello\r\n11\r\n0123456789abcdef!\r\n0\r\nx-sum: 7\r\n\r\n";
    for first in 1..=whole.len() {
        for next in [1, 2, 3, whole.len()] {
            let mut out = Outgoing::default();
            let mut encoder = encode::head(&mut out.front, &request, &onward(&origin, Keep::No));
            assert_eq!(encoder, Encoder::Chunked);
            let sizes: Vec<usize> =
                std::iter::once(first).chain(std::iter::repeat_n(next, whole.len())).collect();
            let mut all = Vec::new();
            for (frame, last) in frames() {
                encoder.frame(&mut out, frame, last).unwrap();
                all.extend(taken(&mut out, &sizes));
            }
            assert_eq!(String::from_utf8(all).unwrap(), whole, "{first}, then {next} bytes");
            assert_eq!(encoder, Encoder::Ended);
        }
    }
}

#[test]
fn a_body_of_a_length_is_written_to_the_byte() {
    let data = |text: &'static str| Frame::data(Bytes::from_static(text.as_bytes()));
    for first in 0..=5 {
        let (start, end) = "hello".split_at(first);
        let (mut encoder, mut out) = (Encoder::Length(5), Outgoing::default());
        encoder.frame(&mut out, data(start), false).unwrap();
        let mut all = taken(&mut out, &[1]);
        encoder.frame(&mut out, data(end), true).unwrap();
        all.extend(taken(&mut out, &[2]));
        assert_eq!((all.as_slice(), encoder), (&b"hello"[..], Encoder::Ended));
        // More is not written, and less is no end.
        assert!(encoder.frame(&mut out, data("!"), true).is_err() && out.is_empty());
        let mut short = Encoder::Length(6);
        short.frame(&mut out, data("hello"), false).unwrap();
        assert!(short.end(&mut out).is_err());
        assert!(Encoder::Length(6).frame(&mut Outgoing::default(), data("hello"), true).is_err());
        assert!(Encoder::Length(4).frame(&mut Outgoing::default(), data("hello"), true).is_err());
    }
}

#[test]
fn a_request_comes_out_the_same_through_every_pipe() {
    alone(async {
        for asked in kinds() {
            let whole = wire(&asked, By::Us, 1 << 16).await;
            for room in 1..=whole.len() {
                let text = String::from_utf8_lossy(&whole);
                let seen = wire(&asked, By::Us, room).await;
                assert_eq!(String::from_utf8_lossy(&seen), text, "{room} bytes at a time");
            }
        }
    });
}

/// To the byte: what was not written may be sent again, what was may not.
#[test]
fn a_connection_that_takes_no_more_says_whether_it_took_anything() {
    alone(async {
        for room in 0..200 {
            let (ours, theirs) = tokio::io::duplex(room.max(1));
            let mut connection = Connection::new(Io::Memory(ours), LIMITS);
            let (request, _upload) = own(&[b'x'; 100]);
            let origin = origin();
            let onward = onward(&origin, Keep::Yes);
            let send = connection.send(request, &onward);
            let failed = if room == 0 {
                drop(theirs);
                send.await
            } else {
                let close = async {
                    quiet().await;
                    drop(theirs);
                };
                tokio::join!(send, close).0
            };
            let failed = failed.unwrap_err();
            assert_eq!(failed.written, room > 0, "{room} bytes");
            let request = failed.request.expect("it is kept");
            assert_eq!(request.headers()["content-type"], "a/b");
            if !failed.written {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(body, [b'x'; 100].as_slice(), "all of it");
            }
        }
    });
}

const RESPONSES: &[&str] = &[
    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.1 100 \r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 204 No Content\r\nx: y\r\n\r\n",
    "HTTP/1.0 404 Not here\r\nx-empty:\r\nX-Wide: \t a b \t\r\n\r\nuntil close",
    "HTTP/1.1 200\r\nTransfer-Encoding : chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n01 \r\n!\r\n0\r\nx-sum: 7\r\nY:\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\netag: \"1\"\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nbehind",
];

#[test]
fn a_response_is_the_same_through_every_pipe_and_at_every_two_splits() {
    alone(async {
        for response in RESPONSES {
            let bytes = response.as_bytes();
            let case = Case { bytes, to_head: false, closes: true };
            let whole = case.by_us(&[]).await;
            assert!(matches!(whole, Outcome::Passed(_)), "{response:?}");
            for room in 1..=bytes.len() {
                assert_eq!(case.through(room, &[]).await, whole, "{response:?}, {room} bytes");
            }
            for first in 1..bytes.len() {
                let second = (first + 1..bytes.len()).step_by(13);
                for second in second.chain([first + 1, bytes.len() - 1]) {
                    let at = [first, second.clamp(first, bytes.len())];
                    assert_eq!(case.by_us(&at).await, whole, "{response:?} split at {at:?}");
                }
            }
        }
    });
}

#[test]
fn no_start_of_a_head_is_a_head() {
    for response in RESPONSES {
        let bytes = response.as_bytes();
        let read = |end: usize, map: &mut HeaderMap| head::read(&bytes[..end], LIMITS, false, map);
        let whole = read(bytes.len(), &mut HeaderMap::new()).unwrap().unwrap();
        for end in 0..=bytes.len() {
            let mut map = HeaderMap::new();
            let found = read(end, &mut map).unwrap();
            assert_eq!(found.is_some(), end >= whole.length, "{response:?} up to {end}");
            let Some(found) = found else { continue };
            assert_eq!(found.length, whole.length);
            assert_eq!(format!("{:?}", found.response), format!("{:?}", whole.response));
            assert_eq!(format!("{:?}", found.body), format!("{:?}", whole.body));
        }
    }
}

/// Where a read of the worker's buffer ends, and the larger one behind it, stands each byte of the framing once.
#[test]
fn large_bodies_are_whole_wherever_a_read_ends() {
    let data: Vec<u8> =
        (0..200_000u32).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
    let chunk = |size: usize, at: usize| {
        [format!("{size:x};x\r\n").as_bytes(), &data[at..at + size], b"\r\n"].concat()
    };
    alone(async {
        for pad in 0..60 {
            let head = format!("HTTP/1.1 200 OK\r\nx-pad: {}\r\n", "y".repeat(pad));
            // Small chunks around each place where a read may end.
            let (mut body, mut at) = (Vec::new(), 0);
            for large in [READ - 120, READ - 60, 64 * 1024 - 100, 64 * 1024 - 60] {
                for size in [large, 1, 2, 3, 17, 1] {
                    body.extend(chunk(size, at));
                    at += size;
                }
            }
            body.extend(b"0\r\nx-sum: 7\r\n\r\n");
            let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n").into_bytes();
            let sized = format!("{head}content-length: {at}\r\n\r\n").into_bytes();
            for bytes in [[chunked, body].concat(), [sized, data[..at].to_vec()].concat()] {
                let case = Case { bytes: &bytes, to_head: false, closes: false };
                let Outcome::Passed(seen) = case.through(1 << 20, &[]).await else {
                    panic!("it is refused at {pad}");
                };
                assert!(seen.body == data[..at] && seen.reusable, "{pad}: {:?}", seen.end);
            }
        }
    });
}
