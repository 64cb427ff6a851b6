//! One client connection: HTTP/1.1 or HTTP/2 by prior knowledge, and its graceful end.
//!
//! The version is told by the first bytes, under a deadline of our own: hyper's automatic detection
//! has none. Knows the proxy as a function from request to answer.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, TryFutureExt};
use http::header::{CONNECTION, HeaderValue};
use http::{Response, StatusCode};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http1::UpgradeableConnection;
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncReadExt;

use super::Io;
use super::activity::{Activity, Overdue};
use super::quiet::Quiet;
use super::watched::{Refusing, Watched};
use crate::body::echo::Driven;
use crate::config::ListenerLimits;
use crate::drain::{Phase, Watch};
use crate::protocol::h2_heads::HeadScanner;
use crate::proxy::Proxy;
use crate::proxy::reply::ReplyBody;
use crate::proxy::request::conn::{ConnTask, Connection};
use crate::workers::moment::Halted;

/// What every HTTP/2 client sends first (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client's connection, but for its bytes.
pub struct Client {
    /// What is known of it.
    pub info: Arc<Connection>,
    /// Its task.
    pub carrier: ConnTask,
    /// Answers.
    pub proxy: Arc<Proxy>,
    /// Deadlines and sizes.
    pub limits: Arc<ListenerLimits>,
    /// The phase.
    pub watch: Watch,
}

/// Serves one connection to its end.
#[expect(clippy::manual_async_fn, reason = "an `async fn` keeps its arguments twice")]
pub fn serve(stream: Io, client: &Client) -> impl Future<Output = ()> + Send + '_ {
    async move {
        // To wait with; `client.watch` is asked meanwhile.
        let mut phase = client.watch.clone();
        let Some((stream, first)) = begun(stream, client, &mut phase).await else { return };
        let activity = Arc::new(Activity::new(Arc::clone(&client.info.open)));
        let (io, http2) = watched((stream, first), &activity, client);
        let ended = if http2 {
            // Its streams are tasks of their own. Boxed: larger, and not to weigh on HTTP/1.
            Box::pin(serve_http2(io, client, &mut phase, &activity)).await
        } else {
            let connection = pin!(serve_http1(io, client, &activity));
            let mut driven = Driven::new(connection);
            let shut = |driven: &mut Driven<Pin<&mut UpgradeableConnection<_, _>>>| {
                // hyper would read no more of the request, although the tunnel begins behind it.
                if !activity.has_switched() {
                    driven.connection.as_mut().graceful_shutdown();
                }
            };
            let ended = drive(&mut driven, shut, &client.limits, &mut phase, &activity).await;
            if let Err(error) = &ended {
                note_unread(error, client, &activity);
            }
            ended
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %client.info.peer, %error, "client connection ended");
        }
    }
}

/// The connection and its first bytes, once they tell its version; `None` if it says nothing in time, or the program
/// ends.
async fn begun(mut stream: Io, client: &Client, phase: &mut Watch) -> Option<(Io, Vec<u8>)> {
    let first = tokio::select! {
        biased;
        first = tokio::time::timeout(client.limits.detect, first_bytes(&mut stream)) => first,
        // A connection that has said nothing must not hold up a drain.
        () = phase.reached(Phase::Closing) => return None,
    };
    let Ok(Ok(first)) = first else {
        tracing::debug!(peer = %client.info.peer, "no request within the detection deadline");
        return None;
    };
    Some((stream, first))
}

/// The connection under HTTP, and whether that is HTTP/2.
fn watched(
    (stream, first): (Io, Vec<u8>),
    activity: &Arc<Activity>,
    client: &Client,
) -> (Watched, bool) {
    let http2 = first == PREFACE;
    let heads = http2.then(HeadScanner::default);
    let refusing = (!http2).then(|| Refusing {
        proxy: Arc::clone(&client.proxy),
        info: Arc::clone(&client.info),
        response: None,
    });
    let activity = Arc::clone(activity);
    (Watched { prefix: first, stream, activity, heads, refusing }, http2)
}

/// Reads until the bytes differ from HTTP/2's preface, or are the whole of it.
async fn first_bytes(stream: &mut Io) -> io::Result<Vec<u8>> {
    let mut first = Vec::with_capacity(PREFACE.len());
    while first.len() < PREFACE.len() && PREFACE.starts_with(&first) {
        let mut rest = [0; 24];
        let room = PREFACE.len() - first.len();
        let read = stream.read(rest.get_mut(..room).unwrap_or_default()).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        first.extend_from_slice(rest.get(..read).unwrap_or_default());
    }
    Ok(first)
}

/// The connection in HTTP/1, to be driven.
fn serve_http1<'a>(
    io: Watched,
    client: &'a Client,
    activity: &'a Activity,
) -> UpgradeableConnection<
    TokioIo<Watched>,
    impl HttpService<Incoming, ResBody = ReplyBody, Future: Send> + 'a,
> {
    let service = service_fn(move |request| {
        activity.on_head(false);
        activity.on_request();
        let answered = client.proxy.handle(&client.info, client.carrier.clone(), request);
        answered.map_ok(move |response| {
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                activity.on_switch();
            }
            leaving(response, &client.watch)
        })
    });
    http1(&client.limits).serve_connection(TokioIo::new(io), service).with_upgrades()
}

/// The parser's own response stood behind one that the client has not read, and is lost with the rest of it.
fn note_unread(error: &hyper::Error, client: &Client, activity: &Activity) {
    if error.is_parse() && !error.is_parse_version_h2() && !activity.has_refused() {
        let _unheard = client.proxy.record_unread(&client.info, error.is_parse_too_large());
    }
}

/// During a drain a connection ends with its next response, for a client whose request crosses our close would not
/// know whether it was read (RFC 9112 section 9.6).
fn leaving(mut response: Response<ReplyBody>, watch: &Watch) -> Response<ReplyBody> {
    if watch.is_leaving() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn http1(limits: &ListenerLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // More than the limits: what lies between is answered by us, by its era and behind its body. Not twice the fields,
    // for hyper's list of them would be as large as its buffers, and leave them pages that are in use.
    builder
        .max_buf_size((limits.max_head_bytes * 2).max(8192))
        .max_headers(limits.max_head_fields + limits.max_head_fields / 2)
        .header_read_timeout(None)
        .timer(TokioTimer::new());
    builder
}

async fn serve_http2(
    io: Watched,
    client: &Client,
    phase: &mut Watch,
    activity: &Arc<Activity>,
) -> hyper::Result<()> {
    let Client { info, proxy, limits, .. } = client;
    let service = service_fn(|request| {
        activity.on_request();
        let (info, proxy) = (Arc::clone(info), Arc::clone(proxy));
        async move { proxy.handle(&info, StreamExecutor::current(), request).await }
    });
    let mut builder = http2::Builder::new(StreamExecutor);
    builder
        .max_concurrent_streams(limits.max_h2_streams)
        .max_pending_accept_reset_streams(limits.max_h2_resets)
        .max_local_error_reset_streams(limits.max_h2_resets)
        .max_header_list_size(u32::try_from(limits.max_head_bytes * 2).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .timer(TokioTimer::new());
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    let served = drive(
        &mut connection,
        |connection| connection.as_mut().graceful_shutdown(),
        limits,
        phase,
        activity,
    );
    tokio::select! {
        biased;
        ended = served => ended,
        // A client that shakes hands and asks for nothing has begun no head.
        () = activity.without_request(limits.head_read) => Ok(()),
    }
}

/// Serves until the connection ends by itself, a head is overdue, or `shut` has let it end.
#[expect(clippy::manual_async_fn, reason = "an `async fn` keeps its arguments twice")]
fn drive<'a, C>(
    connection: &'a mut C,
    shut: impl Fn(&mut C) + Send + 'a,
    limits: &'a ListenerLimits,
    watch: &'a mut Watch,
    activity: &'a Activity,
) -> impl Future<Output = hyper::Result<()>> + Send + 'a
where
    C: Future<Output = hyper::Result<()>> + Send + Unpin,
{
    async move {
        let (mut draining, mut idle) = (false, false);
        let silent = pin!(activity.overdue(limits.head_read, limits.idle));
        let closing = pin!(watch.reached(Phase::Closing));
        let (mut silent, mut closing) = (Quiet::new(silent), Quiet::new(closing));
        loop {
            tokio::select! {
                biased;
                ended = poll_fn(|cx| {
                    let _one_moment = Halted::begin();
                    let polled = connection.poll_unpin(cx);
                    activity.on_wait();
                    polled
                }) => return ended,
                // Also during a drain, which half a head must not hold up.
                overdue = &mut silent, if !idle => match overdue {
                    Overdue::Head => return Ok(()),
                    Overdue::Idle => {
                        idle = true;
                        shut(connection);
                    }
                },
                () = &mut closing, if !draining => {
                    draining = true;
                    shut(connection);
                }
            }
        }
    }
}

tokio::task_local! {
    /// The task of an HTTP/2 stream, as what runs in it sees it.
    static STREAM: ConnTask;
}

/// Spawns the streams of one HTTP/2 connection, each with itself at hand.
#[derive(Clone, Copy)]
struct StreamExecutor;

// === impl StreamExecutor ===

impl StreamExecutor {
    /// The stream that asks.
    fn current() -> ConnTask {
        STREAM.try_with(ConnTask::clone).unwrap_or_default()
    }
}

impl<F> Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let task = ConnTask::default();
        let spawned = tokio::spawn(STREAM.scope(task.clone(), stream));
        task.set(spawned.abort_handle());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::reply::timeouts::BodyTimeouts;
    use crate::proxy::reply::watchdog::Watchdog;

    /// Whatever hyper calls first: what runs in a stream finds that stream.
    #[tokio::test(start_paused = true)]
    async fn a_limit_ends_the_stream_that_has_it_and_no_other() {
        let stream = |limited: bool, ended: Arc<()>| async move {
            let _ended = ended;
            let idle = limited.then_some(Duration::from_secs(1));
            let limits = BodyTimeouts { idle, ..BodyTimeouts::default() };
            let _watchdog = Watchdog::start(limits, &StreamExecutor::current());
            std::future::pending::<()>().await;
        };
        let streams: Vec<_> = [false, true, false].map(|limited| (limited, Arc::new(()))).into();
        for (limited, ended) in &streams {
            StreamExecutor.execute(stream(*limited, Arc::clone(ended)));
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        for (limited, ended) in &streams {
            assert_eq!(Arc::strong_count(ended), if *limited { 1 } else { 2 });
        }
    }
}
