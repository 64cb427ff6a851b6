//! The other replicas of the proxy: who they are, and what they say of a session.
//!
//! A replica that does not answer three times is done without until it does again. What many sessions have to say at
//! once stands in line. Knows their addresses and how to ask; decides nothing.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderName, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use ring::digest::{SHA256, digest};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::now;
use crate::socket::reserve;

/// Where a letter is taken, on the admin listener for everyone.
pub const PATH: &str = "/sessions/peer";
/// What carries it.
pub const LETTER: HeaderName = HeaderName::from_static("x-kagent-proxy-letter");
/// How long an answer is waited for, at first.
pub const ANSWER: Duration = Duration::from_millis(200);
/// How often it is asked until it counts as one that does not answer. A replica that is only busy must not: two that
/// do not know of each other begin the same session anew, each for itself.
pub const TRIES: u32 = 3;
/// How late a timer of ours is at least if this program has been paused, and how often one letter may see that.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSES: usize = 5;
/// Letters under way to one replica, besides urgent ones, and connections to it that are kept: its admin listener
/// has about a hundred, for everybody.
const MAX_LETTERS: usize = 8;
/// How much earlier than it was last heard of a replica may have missed something, by the clock of another, in
/// milliseconds: letters are heard that are a minute off.
const CLOCKS: u64 = 60_000;
/// Bytes of an answer.
const MAX_ANSWER: usize = 16 * 1024;

/// The replicas that were asked to be asked.
#[derive(Debug, Default)]
pub struct Peers {
    all: Mutex<BTreeMap<SocketAddr, Peer>>,
    /// What those that answer call themselves: many requests ask that, and take no lock for it.
    ids: ArcSwap<Vec<u64>>,
}

#[derive(Debug, Default)]
struct Peer {
    /// What it calls itself, while it answers.
    id: Option<u64>,
    /// What it called itself when it answered last, and when that was, in milliseconds since 1970.
    last: Option<(u64, u64)>,
    /// How many questions in a row it has not answered, and when the last of them was noticed: only what is asked
    /// after that counts as another.
    missed: Option<(u32, Instant)>,
    line: Line,
    idle: Vec<SendRequest<Empty<Bytes>>>,
}

#[derive(Debug)]
struct Line(Arc<Semaphore>);

/// What is new of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Nothing.
    None,
    /// It answers, and did not before; or it is another one. It may have missed what moved since then (milliseconds
    /// since 1970).
    Came(u64),
    /// It has not answered, but may only be slow: it is to be asked again.
    Missed,
    /// It does not answer any more.
    Silent,
}

/// Why a letter has no answer that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// The replica has ended.
    NobodyListens,
    /// It may only have too much to do: its listener takes no more, or says so; or nothing came in time.
    Busy,
    /// It does not take the letter, which the next may not share: one of an older release does not know them all.
    Unread,
}

// === impl Line ===

impl Default for Line {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_LETTERS)))
    }
}

// === impl Peers ===

impl Peers {
    /// Those at these addresses, and no others; what is known of them stays.
    pub fn set(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        let mut peers = self.lock();
        let next = addresses
            .into_iter()
            .map(|address| (address, peers.remove(&address).unwrap_or_default()))
            .collect();
        *peers = next;
        self.see_ids(&peers);
    }

    /// All addresses.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.lock().keys().copied().collect()
    }

    /// Those that answer, with what they call themselves; never ourselves.
    #[must_use]
    pub fn alive(&self, own: u64) -> Vec<(u64, SocketAddr)> {
        let peers = self.lock();
        let alive = peers.iter().filter_map(|(address, peer)| Some((peer.id?, *address)));
        alive.filter(|(id, _)| *id != own).collect()
    }

    /// Whether there is any such.
    #[must_use]
    pub fn has_others(&self, own: u64) -> bool {
        self.ids.load().iter().any(|id| *id != own)
    }

    /// Whether the one that calls itself so answers.
    #[must_use]
    pub fn is_alive(&self, id: u64) -> bool {
        self.lock().values().any(|peer| peer.id == Some(id))
    }

    /// This one, asked at that time, calls itself so; `None` is that it did not answer. Returns what that changes.
    pub fn heard(&self, address: SocketAddr, asked: Instant, id: Option<u64>) -> News {
        let mut peers = self.lock();
        let Some(peer) = peers.get_mut(&address) else { return News::None };
        let news = match id {
            Some(id) => peer.heard(id),
            None => peer.not_heard(asked),
        };
        if matches!(news, News::Came(_) | News::Silent) {
            self.see_ids(&peers);
        }
        news
    }

    fn see_ids(&self, peers: &BTreeMap<SocketAddr, Peer>) {
        self.ids.store(Arc::new(peers.values().filter_map(|peer| peer.id).collect()));
    }

    /// A place in the line of letters to this one, which may take a while; `None` if it does not answer meanwhile.
    pub async fn place(&self, address: SocketAddr) -> Option<OwnedSemaphorePermit> {
        let line = Arc::clone(&self.lock().get(&address)?.line.0);
        let place = line.acquire_owned().await.ok()?;
        let answers = self.lock().get(&address).is_some_and(|peer| peer.id.is_some());
        answers.then_some(place)
    }

    /// Gives it a sealed letter; its sealed answer, if it comes within that time. An error comes sooner only if nobody
    /// listens there. While this program itself is too busy to look, or paused, the time of another does not pass: its
    /// answer may lie here, unread.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn ask(
        &self,
        address: SocketAddr,
        sealed: &[u8],
        wait: Duration,
    ) -> Result<Vec<u8>, NoAnswer> {
        let letter = URL_SAFE_NO_PAD.encode(sealed);
        let mut posted = std::pin::pin!(self.post(address, &letter));
        for _ in 0..PAUSES {
            let until = Instant::now() + wait;
            tokio::select! {
                biased;
                answer = &mut posted => {
                    if matches!(answer, Err(NoAnswer::Busy | NoAnswer::Unread)) {
                        // Asked again at once it would not say more.
                        tokio::time::sleep_until(until).await;
                    }
                    return answer;
                }
                () = tokio::time::sleep_until(until) => {}
            }
            if Instant::now().saturating_duration_since(until) < PAUSE {
                break;
            }
        }
        Err(NoAnswer::Busy)
    }

    async fn post(&self, address: SocketAddr, letter: &str) -> Result<Vec<u8>, NoAnswer> {
        // The other side may have closed an idle connection; a letter may be read twice.
        if let Some(idle) = self.idle(address)
            && let Ok(answer) = self.post_on(idle, address, letter).await
        {
            return Ok(answer);
        }
        let connection = open(address).await.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => NoAnswer::NobodyListens,
            _ => NoAnswer::Busy,
        })?;
        self.post_on(connection, address, letter).await
    }

    async fn post_on(
        &self,
        mut connection: SendRequest<Empty<Bytes>>,
        address: SocketAddr,
        letter: &str,
    ) -> Result<Vec<u8>, NoAnswer> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(PATH)
            .header(header::HOST, address.to_string())
            .header(LETTER, letter)
            .body(Empty::new())
            .map_err(|_| NoAnswer::Unread)?;
        let response = connection.send_request(request).await.map_err(|_| NoAnswer::Busy)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::FORBIDDEN => return Err(NoAnswer::Unread),
            _ => return Err(NoAnswer::Busy),
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|_| NoAnswer::Busy)?.to_bytes();
        if let Some(peer) = self.lock().get_mut(&address)
            && peer.idle.len() < MAX_LETTERS
        {
            peer.idle.push(connection);
        }
        URL_SAFE_NO_PAD.decode(&body).map_err(|_| NoAnswer::Unread)
    }

    fn idle(&self, address: SocketAddr) -> Option<SendRequest<Empty<Bytes>>> {
        let mut peers = self.lock();
        let idle = &mut peers.get_mut(&address)?.idle;
        while let Some(connection) = idle.pop() {
            if connection.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    /// A poisoned lock only means that another thread panicked between two plain stores.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Peer>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Peer ===

impl Peer {
    /// It answers, and calls itself so.
    fn heard(&mut self, id: u64) -> News {
        self.missed = None;
        let last = self.last.replace((id, u64::try_from(now().as_millis()).unwrap_or(u64::MAX)));
        if self.id.replace(id) == Some(id) {
            return News::None;
        }
        // Another one has heard nothing at all.
        let heard = last.filter(|(before, _)| *before == id).map_or(0, |(_, heard)| heard);
        News::Came(heard.saturating_sub(CLOCKS))
    }

    /// It did not answer what it was asked then. Many letters may be lost by one pause of either side: those count
    /// once.
    fn not_heard(&mut self, asked: Instant) -> News {
        if self.id.is_none() {
            return News::None;
        }
        let count = match self.missed {
            Some((_, noticed)) if asked < noticed => return News::Missed,
            Some((count, _)) => count + 1,
            None => 1,
        };
        if count < TRIES {
            self.missed = Some((count, Instant::now()));
            return News::Missed;
        }
        (self.id, self.missed) = (None, None);
        self.idle.clear();
        News::Silent
    }
}

async fn open(address: SocketAddr) -> io::Result<SendRequest<Empty<Bytes>>> {
    let stream = reserve::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // Ends when the sender is dropped, or the peer closes.
    tokio::spawn(connection);
    Ok(sender)
}

/// The one of these replicas that decides about a session: the same for whoever asks (rendezvous hashing).
#[must_use]
pub fn owner(token: [u8; 16], replicas: impl Iterator<Item = u64>) -> Option<u64> {
    // One that is the same in every release.
    replicas.max_by_key(|replica| {
        let bytes = [&token[..], &replica.to_be_bytes()].concat();
        digest(&SHA256, &bytes).as_ref().to_vec()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_agree_on_an_owner_and_each_owns_its_share() {
        let mut owned = BTreeMap::<u64, u32>::new();
        for n in 0..=255 {
            let token = [n; 16];
            let all = owner(token, [1, 2, 3].into_iter());
            assert_eq!(all, owner(token, [3, 1, 2].into_iter()));
            *owned.entry(all.unwrap()).or_default() += 1;
            let left = owner(token, [1, 3].into_iter());
            assert!(all == Some(2) || left == all, "only what the lost one had moves");
        }
        assert!(owned.len() == 3 && owned.values().all(|share| *share > 40), "{owned:?}");
        assert_eq!(owner([0; 16], std::iter::empty()), None);
    }

    #[test]
    fn who_does_not_answer_is_done_without_and_ourselves_are_no_peer() {
        let peers = Peers::default();
        let started = Instant::now();
        let heard = |address, id| peers.heard(address, Instant::now(), id);
        let [a, b, c] = [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        peers.set([a, b]);
        assert_eq!(peers.alive(9), []);
        assert_eq!(heard(a, Some(1)), News::Came(0));
        assert_eq!(heard(a, Some(1)), News::None);
        assert_eq!((heard(b, Some(9)), heard(c, Some(3))), (News::Came(0), News::None));
        assert!(peers.is_alive(1) && !peers.is_alive(3));
        assert_eq!(peers.alive(9), [(1, a)]);
        assert!(peers.has_others(9) && !Peers::default().has_others(9));
        assert_eq!(heard(a, Some(4)), News::Came(0), "it was started again");
        heard(a, Some(1));
        peers.set([a, c]);
        assert_eq!(peers.alive(9), [(1, a)], "what is known stays");
        assert_eq!(heard(a, None), News::Missed);
        assert_eq!(peers.heard(a, started, None), News::Missed, "asked before that was noticed");
        assert_eq!(heard(a, Some(1)), News::None, "it was only slow");
        let silence = [News::Missed, News::Missed, News::Silent, News::None];
        assert_eq!([(); 4].map(|()| heard(a, None)), silence, "asked three times in vain");
        assert_eq!((peers.alive(9), peers.has_others(9)), (vec![], false));
        assert!(
            matches!(heard(a, Some(1)), News::Came(since) if since > 0),
            "it has missed little"
        );
        assert_eq!(peers.addresses(), [a, c]);
    }

    /// Three questions must not be over in the moment in which a replica has no place for them.
    #[tokio::test]
    async fn who_has_no_place_for_a_letter_has_the_time_of_an_answer() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        const LONG: Duration = Duration::from_secs(30);
        // Where no other connection takes the port when nobody listens any more.
        let listener = tokio::net::TcpListener::bind("127.99.83.7:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let peers = Peers::default();
        peers.set([address]);
        let answers = tokio::spawn(async move {
            let mut busy = listener.accept().await.unwrap().0;
            busy.write_all(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            drop(listener);
            // It has read that, and closes.
            assert!(busy.read_to_end(&mut Vec::new()).await.is_ok());
        });
        let mut asked = std::pin::pin!(peers.ask(address, b"letter", LONG));
        tokio::select! {
            answer = &mut asked => panic!("{answer:?}, before its time"),
            () = async { answers.await.unwrap() } => {}
        }
        let in_time = tokio::time::timeout(LONG, peers.ask(address, b"letter", LONG * 9)).await;
        assert_eq!(in_time, Ok(Err(NoAnswer::NobodyListens)));
    }
}
