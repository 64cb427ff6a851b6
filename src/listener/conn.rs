//! One client connection: HTTP/1.1 or HTTP/2 by prior knowledge, and its graceful end.
//!
//! The version is told by the first bytes, under a deadline of our own: hyper's automatic detection
//! has none. Knows the proxy as a function from request to answer.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::io::Io;
use crate::config::ListenerLimits;
use crate::drain::{Phase, Watch};
use crate::protocol::h2_heads::HeadScanner;
use crate::proxy::Proxy;
use crate::proxy::request::conn::ConnTask;
use crate::proxy::request::conn::Connection;

/// What every HTTP/2 client sends first (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How often an idle connection is looked at within its idle limit, which it may overstay by one look.
const LOOKS: u32 = 8;

/// Serves one connection to its end.
pub async fn serve(
    mut stream: Io,
    (info, carrier): (Arc<Connection>, ConnTask),
    proxy: Arc<Proxy>,
    limits: &ListenerLimits,
    watch: Watch,
) {
    let mut closing = watch.clone();
    let first = tokio::select! {
        biased;
        first = tokio::time::timeout(limits.detect, first_bytes(&mut stream)) => first,
        // A connection that has said nothing must not hold up a drain.
        () = closing.reached(Phase::Closing) => return,
    };
    let Ok(Ok(first)) = first else {
        tracing::debug!(peer = %info.peer, "no request within the detection deadline");
        return;
    };
    let activity = Arc::new(Activity::new(Arc::clone(&info.open)));
    let http2 = first == PREFACE;
    let heads = http2.then(HeadScanner::default);
    let io = Watched { prefix: first, stream, activity: Arc::clone(&activity), heads };
    let ended = if http2 {
        // Its streams are tasks of their own. Boxed: larger, and not to weigh on HTTP/1.
        Box::pin(serve_http2(io, Arc::clone(&info), proxy, limits, watch, &activity)).await
    } else {
        serve_http1(io, (&info, carrier), &proxy, limits, watch, &activity).await
    };
    if let Err(error) = ended {
        tracing::debug!(peer = %info.peer, %error, "client connection ended");
    }
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

async fn serve_http1(
    io: Watched,
    (info, carrier): (&Arc<Connection>, ConnTask),
    proxy: &Proxy,
    limits: &ListenerLimits,
    watch: Watch,
    activity: &Activity,
) -> hyper::Result<()> {
    let service = service_fn(|request| {
        activity.on_head(false);
        activity.on_request();
        proxy.handle(info, carrier.clone(), request)
    });
    let connection = http1(limits).serve_connection(TokioIo::new(io), service).with_upgrades();
    drive(pin!(connection), |connection| connection.graceful_shutdown(), limits, watch, activity)
        .await
}

fn http1(limits: &ListenerLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // More than the limits: what lies between is answered by us, with a reason. Not twice the fields, for
    // hyper's list of them would be as large as its buffers, and leave them pages that are in use.
    builder
        .max_buf_size((limits.max_head_bytes * 2).max(8192))
        .max_headers(limits.max_head_fields + limits.max_head_fields / 2)
        .header_read_timeout(None)
        .timer(TokioTimer::new());
    builder
}

async fn serve_http2(
    io: Watched,
    info: Arc<Connection>,
    proxy: Arc<Proxy>,
    limits: &ListenerLimits,
    watch: Watch,
    activity: &Arc<Activity>,
) -> hyper::Result<()> {
    let service = service_fn(move |request| {
        activity.on_request();
        let (info, proxy) = (Arc::clone(&info), Arc::clone(&proxy));
        async move { proxy.handle(&info, Streams::current(), request).await }
    });
    let mut builder = http2::Builder::new(Streams);
    builder
        .max_concurrent_streams(limits.max_h2_streams)
        .max_pending_accept_reset_streams(limits.max_h2_resets)
        .max_local_error_reset_streams(limits.max_h2_resets)
        .max_header_list_size(u32::try_from(limits.max_head_bytes * 2).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .timer(TokioTimer::new());
    let connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    let served =
        drive(connection, |connection| connection.graceful_shutdown(), limits, watch, activity);
    tokio::select! {
        biased;
        ended = served => ended,
        // A client that shakes hands and asks for nothing has begun no head.
        () = activity.without_request(limits.head_read) => Ok(()),
    }
}

/// Serves until the connection ends by itself, a head is overdue, or `shut` has let it end.
async fn drive<C>(
    mut connection: Pin<&mut C>,
    shut: impl Fn(Pin<&mut C>),
    limits: &ListenerLimits,
    mut watch: Watch,
    activity: &Activity,
) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    let (mut draining, mut idle) = (false, false);
    let mut silent = pin!(activity.overdue(limits.head_read, limits.idle));
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => return ended,
            // Also during a drain, which half a head must not hold up.
            overdue = silent.as_mut(), if !idle => match overdue {
                Overdue::Head => return Ok(()),
                Overdue::Idle => {
                    idle = true;
                    shut(connection.as_mut());
                }
            },
            () = watch.reached(Phase::Closing), if !draining => {
                draining = true;
                shut(connection.as_mut());
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
struct Streams;

// === impl Streams ===

impl Streams {
    /// The stream that asks.
    fn current() -> ConnTask {
        STREAM.try_with(ConnTask::clone).unwrap_or_default()
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let task = ConnTask::default();
        let spawned = tokio::spawn(STREAM.scope(task.clone(), stream));
        task.set(spawned.abort_handle());
    }
}

/// What a connection is doing, so that a slow head and a forgotten connection can be told from a
/// stream that is merely silent (D17).
struct Activity {
    born: Instant,
    /// Requests whose answer has not ended: their reads are bodies, not heads.
    open: Arc<AtomicUsize>,
    /// Milliseconds since `born`, plus one, of a head's first byte; zero outside heads.
    head: AtomicU64,
    /// Heads that came whole: a request may begin and end between two looks.
    requests: AtomicU64,
}

// === impl Activity ===

impl Activity {
    fn new(open: Arc<AtomicUsize>) -> Self {
        Self { born: Instant::now(), open, head: AtomicU64::new(1), requests: AtomicU64::new(0) }
    }

    /// A head is complete; another one may have begun behind it in HTTP/2.
    fn on_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        let age = Instant::now().saturating_duration_since(self.born);
        u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
    }

    /// Bytes came of which it is known whether they leave a head unfinished.
    fn on_head(&self, inside: bool) {
        let since = self.head.load(Ordering::Relaxed);
        if inside && since == 0 {
            self.head.store(self.now() + 1, Ordering::Relaxed);
        } else if !inside && since != 0 {
            self.head.store(0, Ordering::Relaxed);
        }
    }

    /// Bytes came: in HTTP/1, with no request open, those of a head.
    fn on_read(&self) {
        if self.open.load(Ordering::Relaxed) == 0 && self.head.load(Ordering::Relaxed) == 0 {
            self.head.store(self.now() + 1, Ordering::Relaxed);
        }
    }

    /// Ends if no head has come whole within `limit`; never once one has.
    async fn without_request(&self, limit: Duration) {
        tokio::time::sleep_until(self.born + limit).await;
        if self.requests.load(Ordering::Relaxed) > 0 {
            std::future::pending::<()>().await;
        }
    }

    /// Ends when a head took too long, or when no request has been open for `idle` (zero is without
    /// limit): never early, and late by at most the time between two looks.
    async fn overdue(&self, head: Duration, idle: Duration) -> Overdue {
        let look = Some(idle / LOOKS).filter(|idle| !idle.is_zero());
        let look = look.map_or(head, |look| look.min(head));
        let (mut idle_since, mut requests) = (Instant::now(), 0);
        loop {
            let started = self.head.load(Ordering::Relaxed);
            let head_due = started
                .checked_sub(1)
                .map(|started| self.born + Duration::from_millis(started) + head);
            let now = Instant::now();
            if head_due.is_some_and(|due| due <= now) {
                return Overdue::Head;
            }
            let seen = self.requests.load(Ordering::Relaxed);
            if started != 0 || seen != requests || self.open.load(Ordering::Relaxed) > 0 {
                (idle_since, requests) = (now, seen);
            } else if !idle.is_zero() && idle_since + idle <= now {
                return Overdue::Idle;
            }
            let next = head_due.unwrap_or(now + look).min(now + look);
            tokio::time::sleep_until(next).await;
        }
    }
}

/// Why a connection is closed although nothing went wrong.
enum Overdue {
    /// A head did not come whole.
    Head,
    /// No request has been open for long.
    Idle,
}

/// The stream, the bytes already taken from it, and an eye on its reads.
struct Watched {
    prefix: Vec<u8>,
    stream: Io,
    activity: Arc<Activity>,
    /// In HTTP/2.
    heads: Option<HeadScanner>,
}

// === impl Watched ===

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let taken = this.prefix.len().min(buf.remaining());
        if taken > 0 {
            buf.put_slice(this.prefix.get(..taken).unwrap_or_default());
            this.prefix.drain(..taken);
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            // Together with what follows if it is there: a head in two reads would double hyper's buffer.
            Poll::Pending if taken > 0 => return Poll::Ready(Ok(())),
            read => ready!(read)?,
        }
        let new = buf.filled().get(before..).unwrap_or_default();
        match &mut this.heads {
            _ if new.is_empty() => {}
            None => this.activity.on_read(),
            Some(heads) => {
                heads.feed(new);
                this.activity.on_head(heads.is_inside());
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn activity() -> (Activity, Arc<AtomicUsize>) {
        let open = Arc::new(AtomicUsize::new(0));
        let activity = Activity::new(Arc::clone(&open));
        activity.on_head(false);
        (activity, open)
    }

    #[tokio::test]
    async fn a_head_comes_in_one_read_although_its_first_bytes_were_taken_before() {
        use tokio::io::AsyncWriteExt;

        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = tokio::net::TcpStream::connect(server.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, server.accept());
        let (mut client, stream) = (client.unwrap(), accepted.unwrap().0);
        client.write_all(b"mcp HTTP/1.1\r\n").await.unwrap();
        stream.readable().await.unwrap();
        let mut io = Watched {
            prefix: b"GET /".to_vec(),
            stream: Io::Plain(crate::socket::Tcp::new(stream).unwrap()),
            activity: Arc::new(activity().0),
            heads: None,
        };
        let mut small = [0; 2];
        assert_eq!(io.read(&mut small).await.unwrap(), 2, "no more than fits");
        let mut buffer = [0; 64];
        let read = io.read(&mut buffer).await.unwrap();
        assert_eq!(buffer[..read], *b"T /mcp HTTP/1.1\r\n");
        io.prefix = b"GET".to_vec();
        assert_eq!(io.read(&mut buffer).await.unwrap(), 3, "nothing follows: it does not wait");
        drop(client);
        io.prefix = b"GET".to_vec();
        while io.read(&mut buffer).await.unwrap() > 0 {}
        assert!(io.prefix.is_empty() && buffer.starts_with(b"GET"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_between_two_looks_puts_the_idle_end_off() {
        let (activity, _) = activity();
        let busy = async {
            for _ in 0..100 {
                activity.on_request();
                tokio::time::sleep(9 * SECOND).await;
            }
            Instant::now()
        };
        let (overdue, last) = tokio::join!(
            async { (activity.overdue(10 * SECOND, 80 * SECOND).await, Instant::now()) },
            busy
        );
        assert!(matches!(overdue.0, Overdue::Idle));
        let after = overdue.1 - (last - 9 * SECOND);
        assert!((80 * SECOND..=90 * SECOND).contains(&after), "{after:?} after the last request");
    }

    #[tokio::test(start_paused = true)]
    async fn pings_of_http_2_do_not_keep_a_connection() {
        let (activity, _) = activity();
        activity.on_request();
        let pings = async {
            loop {
                tokio::time::sleep(SECOND).await;
                activity.on_head(false);
            }
        };
        let overdue =
            tokio::time::timeout(200 * SECOND, activity.overdue(10 * SECOND, 80 * SECOND));
        tokio::select! {
            overdue = overdue => assert!(matches!(overdue, Ok(Overdue::Idle))),
            () = pings => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_request_is_neither_idle_nor_a_slow_head() {
        let (activity, open) = activity();
        activity.on_request();
        open.store(1, Ordering::Relaxed);
        activity.on_read();
        let overdue = activity.overdue(10 * SECOND, 80 * SECOND);
        assert!(tokio::time::timeout(3600 * SECOND, overdue).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_its_deadline_from_its_first_byte() {
        let (activity, _) = activity();
        activity.on_request();
        tokio::time::advance(37 * SECOND).await;
        activity.on_read();
        tokio::time::advance(3 * SECOND).await;
        activity.on_read();
        let start = Instant::now();
        let overdue = activity.overdue(10 * SECOND, 900 * SECOND).await;
        assert!(matches!(overdue, Overdue::Head));
        assert_eq!(Instant::now() - start, 7 * SECOND);
    }
}
