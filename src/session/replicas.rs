//! Several replicas and one session: all of them come to the same new home.
//!
//! Before a session begins anew its replica asks all others whether they know of a newer home, and the one that the
//! token chooses whether nobody else is about to begin it. Afterwards it tells everybody. Knows no request.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::time::{Instant, MissedTickBehavior};

use super::homes::{Home, Known, MAX_HOMES};
use super::letter::{Letter, PeerRequest, PeerResponse};
use super::peers::{ANSWER, News, NoAnswer, TRIES, owner};
use super::token::TokenId;
use super::{Sessions, now};

/// How often claims are renewed, and how many in one letter.
const RENEW: Duration = Duration::from_millis(500);
const RENEWED: usize = 200;
/// How soon they are greeted again at the earliest.
const PACE: Duration = Duration::from_millis(50);
/// How many homes a replica is told that has just come, and how many in one letter.
const TOLD: usize = MAX_HOMES;
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
    /// Its client has ended it.
    Ended,
}

/// The right to begin a session anew, until it is dropped.
pub struct Claim {
    sessions: Arc<Sessions>,
    token: TokenId,
    /// Everybody has been told where it lives now, which ends the claim.
    told: bool,
}

/// A replica is being told what it has missed, until this is dropped.
struct Telling {
    sessions: Arc<Sessions>,
    address: SocketAddr,
}

// === impl Sessions ===

impl Sessions {
    /// Whether the session with this home has moved since, or may begin anew here.
    pub async fn settle(self: &Arc<Self>, token: TokenId, known: &Home) -> Settled {
        if self.homes.is_ended(token) {
            return Settled::Ended;
        }
        let peers = self.peers.alive(self.own);
        let everybody = peers.iter().map(|(id, _)| *id).chain([self.own]);
        let chosen = owner(token.0, everybody).unwrap_or(self.own);
        if chosen == self.own && !self.may_claim(token, self.own) {
            return Settled::Busy;
        }
        let since = known.since;
        let asked = peers.iter().map(|(id, address)| async move {
            let ask = if *id == chosen {
                PeerRequest::Claim(token, since)
            } else {
                PeerRequest::Find(token, since)
            };
            self.ask(*address, ask).await
        });
        let mut claim = (chosen == self.own).then(|| self.claim(token));
        let mut home = None::<Home>;
        for ((id, _), said) in peers.iter().zip(join_all(asked).await) {
            match said {
                // It is done without from now on: if it was the one that decides, the next round asks another.
                None => {}
                Some(PeerResponse::Home(found)) => {
                    let newer = |found: &Home| home.as_ref().is_none_or(|h| h.since < found.since);
                    home = found.home().filter(newer).or(home);
                }
                Some(PeerResponse::Ended) => {
                    self.homes.end(token);
                    return Settled::Ended;
                }
                Some(PeerResponse::Nothing) if *id == chosen => claim = Some(self.claim(token)),
                Some(
                    PeerResponse::Nothing
                    | PeerResponse::Noted
                    | PeerResponse::Busy
                    | PeerResponse::Rest(..),
                ) => {}
            }
        }
        // Who gave us the claim has it back when it is dropped.
        match (home, claim) {
            (Some(home), mut claim) => {
                if let Some(claim) = claim.as_mut().filter(|_| chosen == self.own) {
                    // Nobody has heard of it.
                    claim.told = true;
                }
                Settled::Home(home)
            }
            (None, Some(claim)) => Settled::Ours(claim),
            (None, None) => Settled::Busy,
        }
    }

    fn claim(self: &Arc<Self>, token: TokenId) -> Claim {
        self.claims().insert(token);
        Claim { sessions: Arc::clone(self), token, told: false }
    }

    /// Where else than in this home it lives, as far as anybody knows; nothing is claimed.
    pub async fn find(&self, token: TokenId, known: &Home) -> Option<Home> {
        let newer = |home: &Home| home.since > known.since;
        if let Some(home) = self.homes.of(token).filter(newer) {
            return Some(home);
        }
        let peers = self.peers.alive(self.own);
        let asked = peers
            .iter()
            .map(|(_, address)| self.ask(*address, PeerRequest::Find(token, known.since)));
        let homes = join_all(asked).await.into_iter().filter_map(|said| match said? {
            PeerResponse::Home(found) => found.home().filter(newer),
            _ => None,
        });
        let home = homes.max_by_key(|home| home.since)?;
        self.homes.slot(token).moved(home.clone());
        Some(home)
    }

    /// Its client has ended the session: it begins anew at no replica.
    pub fn end(self: &Arc<Self>, token: TokenId) {
        self.homes.end(token);
        let sessions = Arc::clone(self);
        tokio::spawn(async move { sessions.tell(PeerRequest::Ended(token)).await });
    }

    /// Answers another replica; `None` if it is none.
    #[must_use]
    pub fn hear(&self, sealed: &mut [u8]) -> Option<Vec<u8>> {
        let keys = self.keys.load();
        let letter = Letter::<PeerRequest>::open(&keys, now(), sealed)?;
        if letter.from != self.own && !self.peers.is_alive(letter.from) {
            // One that has just started, or is there again.
            self.new_peers.notify_one();
        }
        let newer = |token, since| match self.homes.known(token) {
            Known::Ended => Some(PeerResponse::Ended),
            Known::Home(home) if home.since > since => Some(PeerResponse::Home((&home).into())),
            Known::Home(_) | Known::Nothing => None,
        };
        let say = match letter.text {
            PeerRequest::Hello => PeerResponse::Noted,
            PeerRequest::Find(token, since) => newer(token, since).unwrap_or(PeerResponse::Nothing),
            PeerRequest::Claim(token, since) => match newer(token, since) {
                Some(say) => say,
                None if self.may_claim(token, letter.from) => PeerResponse::Nothing,
                None => PeerResponse::Busy,
            },
            PeerRequest::Renew(tokens) => {
                for token in tokens {
                    let _still_theirs = self.may_claim(token, letter.from);
                }
                PeerResponse::Noted
            }
            PeerRequest::Ended(token) => {
                self.homes.end(token);
                PeerResponse::Noted
            }
            PeerRequest::Moved(token, home) => {
                let slot = self.homes.slot(token);
                slot.moved(home.home()?);
                slot.release(letter.from);
                PeerResponse::Noted
            }
            PeerRequest::Know(homes) => {
                let known =
                    homes.into_iter().filter_map(|(token, home)| Some((token, home.home()?)));
                for (token, home) in known {
                    self.homes.slot(token).moved(home);
                }
                PeerResponse::Noted
            }
            PeerRequest::Release(token) => {
                self.homes.slot(token).release(letter.from);
                PeerResponse::Noted
            }
            PeerRequest::Used(uses) => {
                for (token, at) in uses {
                    self.uses.learn(token, at.min(now().as_secs()));
                }
                PeerResponse::Noted
            }
            PeerRequest::Probed(prober) => {
                self.hear_probed(prober);
                PeerResponse::Noted
            }
            PeerRequest::Task(task) => self.say_task(task),
            PeerRequest::Rest(token, event) => self.say_rest(token, &event),
        };
        Letter::new(self.own, now(), letter.number, say).seal(&keys)
    }

    /// Greets the others again and again: who answers is asked, and who does not is done without. Renews what we have
    /// claimed.
    pub async fn keep_peers(self: Arc<Self>) {
        join(self.greet(), self.renew_claims()).await;
    }

    /// All claims by a few letters: with a letter for each, those of many would come too late.
    async fn renew_claims(&self) {
        let mut tick = tokio::time::interval(RENEW);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let held: Vec<TokenId> = self.claims().iter().copied().collect();
            for tokens in held.chunks(RENEWED) {
                for token in tokens {
                    let _still_ours = self.may_claim(*token, self.own);
                }
                self.tell(PeerRequest::Renew(tokens.to_vec())).await;
            }
        }
    }

    async fn greet(self: &Arc<Self>) {
        let mut tick = tokio::time::interval(GREET);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = self.new_peers.notified() => {}
            }
            self.find_named().await;
            let addresses = self.peers.addresses();
            join_all(addresses.iter().map(|address| self.ask(*address, PeerRequest::Hello))).await;
            self.counts.alive(self.peers.alive(self.own).len());
            self.tell_who_came();
            let peers = self.peers.alive(self.own);
            let uses = self.uses.take_untold();
            join_all(peers.iter().map(|(_, address)| self.tell_uses(*address, &uses))).await;
            // One that comes and goes must not keep us busy.
            tokio::time::sleep(PACE).await;
        }
    }

    /// Whoever was not there has not heard where sessions moved meanwhile, and would go on with a home that may be
    /// there again. That may be a thousand letters, and the others are greeted meanwhile.
    fn tell_who_came(self: &Arc<Self>) {
        let known = self.peers.addresses();
        let mut untold = self.untold();
        // Who is no replica any more does not come back as the one that it was.
        untold.retain(|address, _| known.contains(address));
        for address in known {
            // One at a time; what it has missed since then waits.
            if self.telling().contains(&address) {
                continue;
            }
            if let Some(since) = untold.remove(&address) {
                self.telling().insert(address);
                let telling = Telling { sessions: Arc::clone(self), address };
                tokio::spawn(async move { telling.sessions.tell_since(address, since).await });
            }
        }
    }

    /// Tells one what has moved since then.
    async fn tell_since(&self, address: SocketAddr, since: u64) {
        let known = self.homes.latest(TOLD, since);
        let known: Vec<_> = known.iter().map(|(token, home)| (*token, home.into())).collect();
        for homes in known.chunks(IN_ONE) {
            if self.ask(address, PeerRequest::Know(homes.to_vec())).await.is_none() {
                // It has left again, and is told when it comes.
                return self.will_tell(address, since);
            }
        }
        self.tell_uses(address, &self.uses.latest(TOLD, since / 1000)).await;
    }

    /// By `exchange`: one of an older release does not know the letter, and lives.
    async fn tell_uses(&self, address: SocketAddr, uses: &[(TokenId, u64)]) {
        for some in uses.chunks(RENEWED) {
            if self.exchange(address, PeerRequest::Used(some.to_vec())).await.is_err() {
                return;
            }
        }
    }

    fn will_tell(&self, address: SocketAddr, since: u64) {
        let mut untold = self.untold();
        let missed = untold.entry(address).or_insert(since);
        *missed = since.min(*missed);
    }

    fn untold(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, u64>> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn telling(&self) -> MutexGuard<'_, HashSet<SocketAddr>> {
        self.telling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claims(&self) -> MutexGuard<'_, HashSet<TokenId>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
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

    async fn tell(&self, what: PeerRequest) {
        let peers = self.peers.alive(self.own);
        join_all(peers.iter().map(|(_, address)| self.ask(*address, what.clone()))).await;
    }

    /// What one says; `None` if it does not answer, also when asked again: it is done without from now on.
    async fn ask(&self, address: SocketAddr, what: PeerRequest) -> Option<PeerResponse> {
        let _place = if what.is_urgent() { None } else { Some(self.peers.place(address).await?) };
        for wait in (0..TRIES).map(|before| ANSWER + ANSWER * before / 2) {
            let asked = Instant::now();
            let letter = self.ask_once(address, what.clone(), wait).await.ok();
            let news = self.peers.heard(address, asked, letter.as_ref().map(|letter| letter.from));
            match news {
                // It may only have been slow.
                News::Silent => self.new_peers.notify_one(),
                News::Came(since) => self.will_tell(address, since),
                News::None | News::Missed => {}
            }
            if !what.is_urgent() {
                self.counts.asked(letter.is_some());
            }
            match letter {
                Some(letter) => return Some(letter.text),
                None if news == News::Missed => {}
                None => return None,
            }
        }
        None
    }

    async fn ask_once(
        &self,
        address: SocketAddr,
        what: PeerRequest,
        wait: Duration,
    ) -> Result<Letter<PeerResponse>, NoAnswer> {
        let keys = self.keys.load_full();
        let number = fastrand::u64(..);
        let sealed = Letter::new(self.own, now(), number, what).seal(&keys);
        let sealed = sealed.ok_or(NoAnswer::Unread)?;
        let mut answer = self.peers.ask(address, &sealed, wait).await?;
        let letter = Letter::<PeerResponse>::open(&keys, now(), &mut answer);
        letter.filter(|letter| letter.number == number).ok_or(NoAnswer::Unread)
    }

    /// One question and its answer, of which nothing follows for the one that is asked.
    pub(super) async fn exchange(
        &self,
        address: SocketAddr,
        what: PeerRequest,
    ) -> Result<Letter<PeerResponse>, NoAnswer> {
        let place = self.peers.place(address).await;
        let _place = place.ok_or(NoAnswer::NobodyListens)?;
        let letter = self.ask_once(address, what, ANSWER).await;
        self.counts.asked(letter.is_ok());
        letter
    }
}

// === impl Telling ===

impl Drop for Telling {
    fn drop(&mut self) {
        self.sessions.telling().remove(&self.address);
    }
}

// === impl Claim ===

impl Claim {
    /// The session lives there from now on; returns when everybody knows who answers.
    pub async fn moved(mut self, home: &Home) {
        let (sessions, token) = (Arc::clone(&self.sessions), self.token);
        sessions.homes.slot(token).moved(home.clone());
        self.told = true;
        let ask = PeerRequest::Moved(token, home.into());
        // In a task of its own: the request that waits for it may be given up, and they must hear of it.
        let told = tokio::spawn(async move {
            sessions.tell(ask).await;
            drop(self);
        });
        let _told = told.await;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let (sessions, token) = (Arc::clone(&self.sessions), self.token);
        sessions.claims().remove(&token);
        if !sessions.homes.is_ended(token) {
            sessions.homes.slot(token).release(sessions.own);
        }
        if self.told || sessions.peers.alive(sessions.own).is_empty() {
            return;
        }
        // Only a program that ends has no runtime; then claims end by themselves.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { sessions.tell(PeerRequest::Release(token)).await });
        }
    }
}
