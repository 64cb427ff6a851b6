//! MCP sessions that outlive what kills them: a client holds a sealed token instead of its server's id, and the
//! token says where the session lives, so that any replica can find it and begin it anew.
//!
//! Knows endpoints, keys and bytes; never a request, a route or how a server is asked.

pub mod homes;
pub mod keys;
pub mod letter;
mod opened;
pub mod peers;
pub mod probes;
pub mod replicas;
mod short_hash;
mod slot;
pub mod tasks;
pub mod token;
pub mod unanswered;
pub mod uses;

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio::sync::Notify;

use crate::config::SessionsConfig;
use crate::telemetry::peers::PeerMetrics;
use crate::upstream::EndpointId;
use homes::{Home, Homes, Known};
use keys::{BadKey, Keyring};
use opened::Opened;
use peers::Peers;
use probes::Probes;
use tasks::Tasks;
use token::{MAX_ID, MAX_PARAMS, NoToken, Session, TokenId, looks_like_one};
use unanswered::Unanswered;
use uses::Uses;

/// How often in `maxAge` replicas tell each other that a session is in use: hourly by default.
const USES_IN_LIFE: u64 = 168;
/// How long ago the last use may have been noted, in seconds, before the next one is.
const NOTED: u64 = 60;

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFault {
    /// A file cannot be read.
    #[error("sessions.keyFiles: {path} cannot be read: {1}", path = .0.display())]
    File(PathBuf, #[source] std::io::Error),
    /// A file holds no key.
    #[error("sessions.keyFiles: {path} {1}", path = .0.display())]
    Key(PathBuf, #[source] BadKey),
    /// None was given, and none can be made.
    #[error("a key for sessions cannot be made: {0}")]
    Random(#[source] BadKey),
}

/// All sessions of the proxy.
#[derive(Debug)]
pub struct Sessions {
    keys: ArcSwap<Keyring>,
    /// What tokens hold that were opened lately: opening one costs as much as a tenth of a request.
    opened: Opened,
    /// Where revived ones live.
    pub homes: Homes,
    /// Which endpoint has which task.
    pub tasks: Tasks,
    /// Their calls that clients may ask for again.
    pub unanswered: Unanswered,
    /// When they were used last.
    pub uses: Uses,
    /// Clients that will go on with `initialize`.
    pub probes: Probes,
    max_age: Duration,
    /// What this replica calls itself among the others.
    own: u64,
    peers: Peers,
    /// As configured.
    named: Vec<String>,
    /// Others may have come.
    new_peers: Notify,
    /// Those that have come and were told nothing yet of what moved since then (milliseconds since 1970).
    untold: Mutex<BTreeMap<SocketAddr, u64>>,
    /// Those that are being told.
    telling: Mutex<HashSet<SocketAddr>>,
    /// Sessions that begin anew here at this moment.
    claims: Mutex<HashSet<TokenId>>,
    counts: PeerMetrics,
    /// How many replicas there are, with ourselves, as far as discovery says.
    replicas: AtomicUsize,
    /// There is a key that all may have.
    shares_key: AtomicBool,
    /// Every replica has a key of its own, so that a token would mean nothing to the others.
    split: AtomicBool,
}

/// A session that a request belongs to.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// Of its token.
    pub id: TokenId,
    /// What the token says.
    pub session: Arc<Session>,
    /// Where it lives now.
    pub home: Home,
}

/// What a request's `Mcp-Session-Id` is.
#[derive(Debug)]
pub enum Admission {
    /// A server's own id, which passes as it is.
    Foreign,
    /// A token that does not count here.
    Refused(Box<Refusal>),
    /// A token of this route.
    Admitted(Box<Ticket>),
}

/// Why a token does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// In words.
    pub why: &'static str,
    /// It was sealed by a key that this proxy does not have: another proxy may know it.
    pub other_key: bool,
    /// Its client has ended the session.
    pub ended: bool,
    /// What it holds, where it could be opened.
    pub session: Option<Arc<Session>>,
}

/// A session that begins.
#[derive(Debug)]
pub struct Birth<'a> {
    /// What tells its route from all others: its host, a NUL, and the rest.
    pub route: &'a str,
    /// Where it lives.
    pub endpoint: EndpointId,
    /// What the server calls it; empty for a legacy stream.
    pub id: &'a HeaderValue,
    /// The Agent that begins it, as `namespace/name`.
    pub caller: Option<String>,
    /// `params` of its `initialize`.
    pub params: Option<String>,
    /// The `protocolVersion` that its server has chosen.
    pub version: Option<String>,
}

// === impl KeyFault ===

impl KeyFault {
    /// The same without the name of the setting.
    #[must_use]
    pub fn reason(&self) -> String {
        let said = self.to_string();
        said.strip_prefix("sessions.keyFiles: ").map_or_else(|| said.clone(), ToOwned::to_owned)
    }
}

// === impl Sessions ===

impl Sessions {
    /// No session yet, with the keys of the configuration.
    ///
    /// # Errors
    /// [`KeyFault`].
    pub fn new(config: &SessionsConfig, counts: PeerMetrics) -> Result<Self, KeyFault> {
        Ok(Self {
            keys: ArcSwap::from_pointee(read_keys(config)?),
            opened: Opened::default(),
            homes: Homes::default(),
            tasks: Tasks::default(),
            unanswered: Unanswered::default(),
            uses: Uses::default(),
            probes: Probes::default(),
            max_age: config.max_age,
            own: fastrand::u64(..),
            peers: Peers::default(),
            named: config.peers.clone(),
            new_peers: Notify::new(),
            untold: Mutex::default(),
            telling: Mutex::default(),
            claims: Mutex::default(),
            counts,
            replicas: AtomicUsize::new(0),
            shares_key: AtomicBool::new(!config.key_files.is_empty()),
            split: AtomicBool::new(false),
        })
    }

    /// The other replicas, as discovery finds them by their admin listeners. With several of them and no key
    /// that all have, ids of servers pass as they are, loudly.
    pub fn set_peers(&self, addresses: Vec<SocketAddr>) {
        self.replicas.store(addresses.len(), Ordering::Relaxed);
        self.see_split();
        if self.named.is_empty() {
            self.peers.set(addresses);
            self.new_peers.notify_one();
        }
    }

    fn see_split(&self) {
        let replicas = self.replicas.load(Ordering::Relaxed);
        let split = replicas > 1 && !self.shares_key.load(Ordering::Relaxed);
        if !self.split.swap(split, Ordering::Relaxed) && split {
            tracing::error!(
                replicas,
                "several replicas and no key for sessions: ids of sessions pass as they are, and sessions end with \
                 their pods; mount one key into all replicas and name it by sessions.keyFiles"
            );
        }
        self.counts.split(split);
    }

    /// Whether the keys of this configuration can be used.
    ///
    /// # Errors
    /// [`KeyFault`].
    pub fn check(config: &SessionsConfig) -> Result<(), KeyFault> {
        read_keys(config).map(drop)
    }

    /// Reads the files again; what is sealed from now on is sealed by the first key. Without files the key of the
    /// start stays.
    ///
    /// # Errors
    /// [`KeyFault`]; the keys of before stay in force.
    pub fn renew(&self, config: &SessionsConfig) -> Result<(), KeyFault> {
        if !config.key_files.is_empty() {
            self.keys.store(Arc::new(read_keys(config)?));
            self.shares_key.store(true, Ordering::Relaxed);
            self.see_split();
            // What a key that is gone has sealed is no session any more.
            self.opened.clear();
        }
        Ok(())
    }

    /// The token of a session that begins, and what it is called in logs. `None` where the server's id is too long
    /// for one.
    #[must_use]
    pub fn begin(&self, birth: Birth<'_>) -> Option<(HeaderValue, TokenId)> {
        let id = birth.id.as_bytes();
        if id.len() > MAX_ID || self.split.load(Ordering::Relaxed) {
            return None;
        }
        let session = Session {
            issued: now().as_secs(),
            address: birth.endpoint.address,
            uid: birth.endpoint.uid.as_deref().map(str::to_owned),
            id: id.to_vec(),
            caller: birth.caller,
            params: birth.params.filter(|params| params.len() <= MAX_PARAMS),
            version: birth.version,
        };
        let (token, id) = session.seal(&self.keys.load(), birth.route)?;
        Some((HeaderValue::try_from(token).ok()?, id))
    }

    /// What this id is for a request on a route, as that stands in [`Birth::route`], sent by the Agent `caller`
    /// (namespace and name) as far as that is known.
    #[must_use]
    pub fn admit(
        &self,
        token: &HeaderValue,
        route: &str,
        caller: Option<(&str, &str)>,
    ) -> Admission {
        self.admit_at(now().as_secs(), token, route, caller)
    }

    /// The same at this time, in seconds since 1970.
    fn admit_at(
        &self,
        now: u64,
        token: &HeaderValue,
        route: &str,
        caller: Option<(&str, &str)>,
    ) -> Admission {
        if !looks_like_one(token.as_bytes()) {
            return Admission::Foreign;
        }
        let opened = self
            .opened
            .get(token, route, || Session::open(&self.keys.load(), route, token.as_bytes()));
        let ((session, id, birthplace), used) = match opened {
            Ok(opened) => opened,
            Err(NoToken::Foreign) => return Admission::Foreign,
            Err(NoToken::OtherKey) => {
                let why = "it was sealed by a key that this proxy does not have";
                let refusal = Refusal { why, other_key: true, ended: false, session: None };
                return Admission::Refused(Box::new(refusal));
            }
            Err(NoToken::Bad(why)) => return refused(why, None),
        };
        let max_age = self.max_age.as_secs();
        let mut used = used.max(session.issued);
        let is_noted = now <= used.saturating_add(NOTED.min(max_age / USES_IN_LIFE));
        if !is_noted {
            used = used.max(self.uses.last(id));
            // Others may know of the last use late.
            let late = NOTED.min(max_age / USES_IN_LIFE) + max_age / USES_IN_LIFE;
            if now > used.saturating_add(max_age).saturating_add(late) {
                return refused("it was not used for longer than sessions.maxAge", Some(session));
            }
        }
        let began = session.caller.as_deref().and_then(|began| began.split_once('/'));
        if let (Some(began), Some(caller)) = (began, caller)
            && began != caller
        {
            return refused("another Agent began the session", Some(session));
        }
        let home = match self.homes.known(id) {
            Known::Home(home) => Some(home),
            Known::Nothing => birthplace,
            Known::Ended => {
                let (why, session) = ("its client has ended it", Some(session));
                let refusal = Refusal { why, other_key: false, ended: true, session };
                return Admission::Refused(Box::new(refusal));
            }
        };
        if !is_noted {
            self.opened.used(token, now);
            self.uses.note(id, session.issued, now, max_age / USES_IN_LIFE);
        }
        match home {
            Some(home) => Admission::Admitted(Box::new(Ticket { id, session, home })),
            None => refused("it holds no id", Some(session)),
        }
    }
}

fn refused(why: &'static str, session: Option<Arc<Session>>) -> Admission {
    Admission::Refused(Box::new(Refusal { why, other_key: false, ended: false, session }))
}

/// Time since 1970.
#[must_use]
pub fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn read_keys(config: &SessionsConfig) -> Result<Keyring, KeyFault> {
    if config.key_files.is_empty() {
        return Keyring::random().map_err(KeyFault::Random);
    }
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path).map_err(|error| KeyFault::File(path.clone(), error))
    };
    let mut keys = Keyring::none();
    for path in &config.key_files {
        keys.add(&read(path)?).map_err(|why| KeyFault::Key(path.clone(), why))?;
    }
    Ok(keys)
}

// === impl Ticket ===

impl Ticket {
    /// Whether its home may not be known here yet: another replica has just learned of it.
    #[must_use]
    pub fn is_young(&self) -> bool {
        const YOUNG: Duration = Duration::from_secs(10);
        let began = Duration::from_secs(self.session.issued);
        now().saturating_sub(began.max(Duration::from_millis(self.home.since))) < YOUNG
    }
}

// === impl Session ===

impl Session {
    /// Where it began.
    fn birthplace(&self) -> Option<Home> {
        let uid = self.uid.as_deref().map(Arc::from);
        let endpoint = EndpointId { address: self.address, uid };
        let id = HeaderValue::from_bytes(&self.id).ok()?;
        // A legacy stream has none.
        let id = Some(id).filter(|id| !id.is_empty());
        Some(Home { endpoint, id, since: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> EndpointId {
        EndpointId { address: ([10, 0, 0, 1], 8080).into(), uid: Some("u".into()) }
    }

    fn begun(sessions: &Sessions, caller: Option<&str>) -> (HeaderValue, TokenId) {
        let id = HeaderValue::from_static("server-id");
        let caller = caller.map(str::to_owned);
        let params = Some("{}".to_owned());
        let version = Some("2025-06-18".to_owned());
        let birth =
            Birth { route: "a.b\0/", endpoint: endpoint(), id: &id, caller, params, version };
        sessions.begin(birth).unwrap()
    }

    fn made(config: &SessionsConfig) -> Result<Sessions, KeyFault> {
        Sessions::new(config, PeerMetrics::noop())
    }

    fn sessions() -> Sessions {
        made(&SessionsConfig::default()).unwrap()
    }

    #[test]
    fn a_session_is_found_where_it_began_or_moved_to() {
        let sessions = sessions();
        let (token, id) = begun(&sessions, None);
        let home = || match sessions.admit(&token, "a.b\0/", Some(("n", "any"))) {
            Admission::Admitted(ticket) => ticket.home,
            other => panic!("{other:?}"),
        };
        let server_id = Some(HeaderValue::from_static("server-id"));
        assert_eq!(home(), Home { endpoint: endpoint(), id: server_id, since: 0 });
        let moved = Home { endpoint: endpoint(), id: None, since: 9 };
        assert!(sessions.homes.slot(id).moved(moved.clone()));
        assert_eq!(home(), moved);
    }

    #[test]
    fn a_token_counts_for_its_route_its_agent_and_its_time() {
        let sessions = sessions();
        let (token, _) = begun(&sessions, Some("team-a/helper"));
        let admit = |host, caller| sessions.admit(&token, host, caller);
        for caller in [None, Some(("team-a", "helper"))] {
            assert!(matches!(admit("a.b\0/", caller), Admission::Admitted(_)), "{caller:?}");
        }
        assert!(matches!(admit("a.b\0/", Some(("team-b", "helper"))), Admission::Refused(_)));
        for other in ["a.c\0/", "a.b\0/x", "a.b\0:80", "a.b"] {
            assert!(matches!(admit(other, None), Admission::Refused(_)), "{other:?}");
        }
        let own = HeaderValue::from_static("server-id");
        assert!(matches!(sessions.admit(&own, "a.b\0/", None), Admission::Foreign));
    }

    const MINUTE: u64 = 60;
    const DAY: u64 = 24 * 60 * MINUTE;

    fn is_admitted_at(sessions: &Sessions, token: &HeaderValue, at: u64) -> bool {
        match sessions.admit_at(at, token, "a.b\0/", None) {
            Admission::Admitted(_) => true,
            Admission::Refused(no) if no.why.contains("maxAge") && no.session.is_some() => false,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_session_that_nobody_uses_lives_for_a_week_and_little_longer() {
        let begun_at = now().as_secs();
        for (after, lives) in [
            (7 * DAY - MINUTE, true),
            (7 * DAY, true),
            (7 * DAY + 62 * MINUTE, false),
            (70 * DAY, false),
        ] {
            let sessions = sessions();
            let (token, _) = begun(&sessions, None);
            assert_eq!(is_admitted_at(&sessions, &token, begun_at + after), lives, "{after}");
            // A refusal is no use.
            assert_eq!(is_admitted_at(&sessions, &token, begun_at + after), lives, "{after}");
        }
        // A replica whose clock is behind.
        let sessions = sessions();
        let (token, _) = begun(&sessions, None);
        assert!(is_admitted_at(&sessions, &token, begun_at - 5 * MINUTE));
    }

    #[test]
    fn a_session_that_is_used_daily_does_not_age() {
        let sessions = sessions();
        let (token, id) = begun(&sessions, None);
        let begun_at = now().as_secs();
        for day in 1..=14 {
            assert!(is_admitted_at(&sessions, &token, begun_at + day * DAY), "day {day}");
        }
        // The other replicas hear of it, and one that has just started too.
        assert_eq!(sessions.uses.take_untold(), [(id, begun_at + 14 * DAY); 14]);
        let other = Sessions { keys: ArcSwap::new(sessions.keys.load_full()), ..self::sessions() };
        let at = begun_at + 14 * DAY + 2 * MINUTE;
        assert!(!is_admitted_at(&other, &token, at), "nobody has told it");
        for (token, at) in sessions.uses.latest(9, 0) {
            other.uses.learn(token, at);
        }
        assert!(is_admitted_at(&other, &token, at));
        // What keys have opened is forgotten when they change; when it was used is not.
        sessions.opened.clear();
        assert!(is_admitted_at(&sessions, &token, begun_at + 21 * DAY - MINUTE));
        assert!(!is_admitted_at(&sessions, &token, begun_at + 28 * DAY + 62 * MINUTE));
    }

    #[test]
    fn what_is_too_long_is_left_out_or_not_replaced() {
        let sessions = sessions();
        let born = |id: &str, params: String| {
            let id = HeaderValue::from_str(id).unwrap();
            let params = Some(params);
            let (route, endpoint) = ("a.b\0/", endpoint());
            let birth = Birth { route, endpoint, id: &id, caller: None, params, version: None };
            sessions.begin(birth).map(|(token, _)| sessions.admit(&token, route, None))
        };
        assert!(born(&"x".repeat(MAX_ID + 1), String::new()).is_none());
        match born(&"x".repeat(MAX_ID), "y".repeat(MAX_PARAMS + 1)) {
            Some(Admission::Admitted(ticket)) => assert_eq!(ticket.session.params, None),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn replicas_that_get_a_common_key_are_split_no_more() {
        let folder =
            std::env::temp_dir().join(format!("kagent-proxy-split-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("key");
        std::fs::write(&file, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n").unwrap();
        let sessions = sessions();
        let begins = || {
            let id = HeaderValue::from_static("server-id");
            let (route, endpoint) = ("a.b\0/", endpoint());
            let birth =
                Birth { route, endpoint, id: &id, caller: None, params: None, version: None };
            sessions.begin(birth).is_some()
        };
        assert!(begins(), "alone");
        sessions.set_peers([1, 2].map(|n| ([10, 0, 0, n], 9090).into()).to_vec());
        assert!(!begins(), "another replica could not read it");
        let config = SessionsConfig { key_files: vec![file], ..SessionsConfig::default() };
        sessions.renew(&config).unwrap();
        assert!(begins());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn faults_of_key_files_name_the_file() {
        let folder = std::env::temp_dir().join(format!("kagent-proxy-keys-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (good, bad) = (folder.join("good"), folder.join("bad"));
        std::fs::write(&good, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n").unwrap();
        std::fs::write(&bad, "short").unwrap();
        let config = |files: &[&PathBuf]| SessionsConfig {
            key_files: files.iter().map(|&file| file.clone()).collect(),
            ..SessionsConfig::default()
        };
        let sessions = made(&config(&[&good])).unwrap();
        let said = sessions.renew(&config(&[&good, &bad])).unwrap_err().to_string();
        assert!(said.contains("bad") && said.contains("base64"), "{said}");
        let said = made(&config(&[&folder.join("none")])).unwrap_err().to_string();
        assert!(said.contains("none cannot be read"), "{said}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
