//! Several replicas and one session: all of them come to the same new home.
//!
//! Before a session begins anew its replica asks all others whether they know of a newer home, and the one that the
//! token chooses whether nobody else is about to begin it. Afterwards it tells everybody. Knows no request.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::homes::Home;
use super::letter::{Ask, Letter, Say};
use super::peers::{News, owner};
use super::token::TokenId;
use super::{Sessions, now};

/// How often it is renewed.
const RENEW: Duration = Duration::from_millis(400);
/// How soon they are greeted again at the earliest.
const PACE: Duration = Duration::from_millis(50);
/// How many homes a replica is told that has just come, and how many in one letter.
const TOLD: usize = 5000;
const IN_ONE: usize = 20;
/// How often the other replicas are greeted.
const GREET: Duration = Duration::from_secs(2);

/// What the replicas say of a session that may have to begin anew.
pub enum Settled {
    /// It lives there.
    Home(Home),
    /// Another replica is about to begin it.
    Busy,
    /// It is ours to begin.
    Ours(Claim),
}

/// The right to begin a session anew, until it is dropped.
pub struct Claim {
    sessions: Arc<Sessions>,
    token: TokenId,
    _renewing: AbortOnDropHandle<()>,
}

// === impl Sessions ===

impl Sessions {
    /// Whether the session with this home has moved since, or may begin anew here.
    pub async fn settle(self: &Arc<Self>, token: TokenId, known: &Home) -> Settled {
        let peers = self.peers.alive(self.own);
        let everybody = peers.iter().map(|(id, _)| *id).chain([self.own]);
        let chosen = owner(token.0, everybody).unwrap_or(self.own);
        if chosen == self.own && !self.may_claim(token, self.own) {
            return Settled::Busy;
        }
        let since = known.since;
        let asked = peers.iter().map(|(id, address)| async move {
            let ask =
                if *id == chosen { Ask::Claim(token, since) } else { Ask::Find(token, since) };
            self.ask(*address, ask).await
        });
        let mut busy = false;
        let mut home = None::<Home>;
        for ((id, _), said) in peers.iter().zip(join_all(asked).await) {
            match said {
                // It is done without from now on: the next round asks another.
                None => busy |= *id == chosen,
                Some(Say::Home(found)) => {
                    let newer = |found: &Home| home.as_ref().is_none_or(|h| h.since < found.since);
                    home = found.home().filter(newer).or(home);
                }
                Some(Say::Busy) => busy = true,
                Some(Say::Nothing | Say::Noted) => {}
            }
        }
        if busy && home.is_none() {
            return Settled::Busy;
        }
        let claim = self.claim(token);
        match home {
            // Who gave us the claim has it back when it is dropped.
            Some(home) => Settled::Home(home),
            None => Settled::Ours(claim),
        }
    }

    fn claim(self: &Arc<Self>, token: TokenId) -> Claim {
        let sessions = Arc::clone(self);
        let renewing = AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                tokio::time::sleep(RENEW).await;
                let _still_ours = sessions.may_claim(token, sessions.own);
                sessions.tell(Ask::Claim(token, u64::MAX)).await;
            }
        }));
        Claim { sessions: Arc::clone(self), token, _renewing: renewing }
    }

    /// The session lives there from now on; returns when everybody knows who answers.
    pub async fn moved(self: &Arc<Self>, token: TokenId, home: &Home) {
        self.homes.slot(token).moved(home.clone());
        // In a task of its own: the request that waits for it may be given up, and they must hear of it.
        let (sessions, ask) = (Arc::clone(self), Ask::Moved(token, home.into()));
        let _told = tokio::spawn(async move { sessions.tell(ask).await }).await;
    }

    /// Answers another replica; `None` if it is none.
    #[must_use]
    pub fn hear(&self, sealed: &mut [u8]) -> Option<Vec<u8>> {
        let keys = self.keys.load();
        let letter = Letter::<Ask>::open(&keys, now(), sealed)?;
        if letter.from != self.own && !self.peers.is_alive(letter.from) {
            // One that has just started, or is there again.
            self.new_peers.notify_one();
        }
        let newer = |token, since| self.homes.of(token).filter(|home| home.since > since);
        let say = match letter.text {
            Ask::Hello => Say::Noted,
            Ask::Find(token, since) => match newer(token, since) {
                Some(home) => Say::Home((&home).into()),
                None => Say::Nothing,
            },
            Ask::Claim(token, since) => match newer(token, since) {
                Some(home) => Say::Home((&home).into()),
                None if self.may_claim(token, letter.from) => Say::Nothing,
                None => Say::Busy,
            },
            Ask::Moved(token, home) => {
                let slot = self.homes.slot(token);
                slot.moved(home.home()?);
                slot.release(letter.from);
                Say::Noted
            }
            Ask::Know(homes) => {
                let known =
                    homes.into_iter().filter_map(|(token, home)| Some((token, home.home()?)));
                for (token, home) in known {
                    self.homes.slot(token).moved(home);
                }
                Say::Noted
            }
            Ask::Release(token) => {
                self.homes.slot(token).release(letter.from);
                Say::Noted
            }
            Ask::Task(task) => self.say_task(task),
        };
        Letter::new(self.own, now(), letter.number, say).seal(&keys)
    }

    /// Greets the others again and again: who answers is asked, and who does not is done without. `addresses` finds
    /// them where nobody says who they are.
    pub async fn keep_peers(self: Arc<Self>) {
        let mut tick = tokio::time::interval(GREET);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = self.new_peers.notified() => {}
            }
            self.find_named().await;
            let addresses = self.peers.addresses();
            join_all(addresses.iter().map(|address| self.ask(*address, Ask::Hello))).await;
            self.counts.alive(self.peers.alive(self.own).len());
            self.tell_who_came().await;
            // One that comes and goes must not keep us busy.
            tokio::time::sleep(PACE).await;
        }
    }

    /// Whoever was not there has not heard where sessions moved meanwhile, and would go on with a home that may be
    /// there again.
    async fn tell_who_came(&self) {
        let came = self.take_untold();
        if came.is_empty() {
            return;
        }
        let known: Vec<_> =
            self.homes.latest(TOLD).iter().map(|(t, home)| (*t, home.into())).collect();
        for homes in known.chunks(IN_ONE) {
            let told = came.iter().map(|address| self.ask(*address, Ask::Know(homes.to_vec())));
            join_all(told).await;
        }
    }

    fn take_untold(&self) -> Vec<SocketAddr> {
        std::mem::take(&mut *self.untold.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn may_claim(&self, token: TokenId, replica: u64) -> bool {
        let alive = |who| who == self.own || self.peers.is_alive(who);
        self.homes.slot(token).claim(replica, Instant::now(), alive)
    }

    /// Looks up the replicas that the configuration names.
    async fn find_named(&self) {
        if self.named.is_empty() {
            return;
        }
        let mut found = Vec::new();
        for name in &self.named {
            match tokio::net::lookup_host(name).await {
                Ok(addresses) => found.extend(addresses),
                Err(error) => {
                    tracing::debug!(peer = name, %error, "a replica's name does not resolve");
                    // What is known stays.
                    found.extend(self.peers.addresses());
                }
            }
        }
        self.peers.set(found);
    }

    async fn tell(&self, what: Ask) {
        let peers = self.peers.alive(self.own);
        join_all(peers.iter().map(|(_, address)| self.ask(*address, what.clone()))).await;
    }

    async fn ask(&self, address: SocketAddr, what: Ask) -> Option<Say> {
        let letter = self.exchange(address, what).await;
        match self.peers.heard(address, letter.as_ref().map(|letter| letter.from)) {
            // It may only have been slow.
            News::Silent => self.new_peers.notify_one(),
            News::Came => self.untold.lock().unwrap_or_else(PoisonError::into_inner).push(address),
            News::None => {}
        }
        Some(letter?.text)
    }

    /// One question and its answer, of which nothing follows for the one that is asked.
    pub(super) async fn exchange(&self, address: SocketAddr, what: Ask) -> Option<Letter<Say>> {
        let keys = self.keys.load_full();
        let number = fastrand::u64(..);
        let sealed = Letter::new(self.own, now(), number, what).seal(&keys)?;
        let answer = self.peers.ask(address, &sealed).await;
        let letter = answer.and_then(|mut answer| Letter::<Say>::open(&keys, now(), &mut answer));
        let letter = letter.filter(|letter| letter.number == number);
        self.counts.asked(letter.is_some());
        letter
    }
}

// === impl Claim ===

impl Drop for Claim {
    fn drop(&mut self) {
        let (sessions, token) = (Arc::clone(&self.sessions), self.token);
        sessions.homes.slot(token).release(sessions.own);
        if sessions.peers.alive(sessions.own).is_empty() {
            return;
        }
        // Only a program that ends has no runtime; then claims end by themselves.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { sessions.tell(Ask::Release(token)).await });
        }
    }
}
