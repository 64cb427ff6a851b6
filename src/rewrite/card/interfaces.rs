//! The interfaces of a card: which of them a URL cannot lead to through the proxy.
//!
//! A client reaches one backend port by `x-kagent-host`, and the port of a URL is lost where the proxy's takes its
//! place. So an interface of gRPC at a port at which the agent serves nothing else would lead to the wrong one. Other
//! interfaces are not judged: a backend often believes in another port than its Service's. Knows ports and places.

use crate::authority;

/// What a member of an interface is to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Interface {
    Url,
    /// `protocolBinding` (A2A 1.0) or `transport` (0.3).
    Binding,
    #[default]
    Other,
}

/// One interface, as far as it is known.
#[derive(Clone, Copy, Debug, Default)]
struct One {
    start: usize,
    list: usize,
    /// Of the backend.
    port: Option<u16>,
    is_grpc: bool,
    is_additional: bool,
    goes: bool,
}

/// Those of a card.
#[derive(Debug, Default)]
pub(super) struct Interfaces {
    all: Vec<One>,
    one: One,
    lists: usize,
    is_additional: bool,
    own_url: Option<u16>,
    own_is_grpc: bool,
    /// The member under way.
    pub(super) member: Interface,
    /// One that stays came before in this list.
    pub(super) has_kept: bool,
    comma_goes: bool,
    /// Where those begin that go.
    unwanted: Vec<usize>,
}

// === impl Interfaces ===

impl Interfaces {
    /// Those that begin at these places go.
    pub(super) fn without(unwanted: Vec<usize>) -> Self {
        Self { unwanted, ..Self::default() }
    }

    /// The card's own URL, if it is the backend's.
    pub(super) fn own_url(&mut self, port: Option<u16>) {
        self.own_url = port;
    }

    /// Whether gRPC is what the card's own URL is for.
    pub(super) fn own_transport(&mut self, is_grpc: bool) {
        self.own_is_grpc = is_grpc;
    }

    pub(super) fn begin_list(&mut self, is_additional: bool) {
        self.lists += 1;
        (self.is_additional, self.has_kept, self.comma_goes) = (is_additional, false, false);
    }

    /// Whether the comma before what begins now goes with what was left out before it.
    pub(super) fn take_comma(&mut self) -> bool {
        std::mem::take(&mut self.comma_goes)
    }

    /// Whether the one that begins here is to be left out.
    pub(super) fn goes(&self, start: usize) -> bool {
        self.unwanted.contains(&start)
    }

    pub(super) fn begin(&mut self, start: usize, goes: bool) {
        let (list, is_additional) = (self.lists, self.is_additional);
        self.one = One { start, list, is_additional, goes, ..One::default() };
        self.member = Interface::Other;
    }

    /// Whether the one under way goes.
    pub(super) fn is_going(&self) -> bool {
        self.one.goes
    }

    pub(super) fn member(&mut self, name: &[u8]) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        self.member = match () {
            () if is("url") => Interface::Url,
            () if is("protocolBinding") || is("protocol_binding") || is("transport") => {
                Interface::Binding
            }
            () => Interface::Other,
        };
    }

    /// Its URL: the port and whether it is a target of gRPC, if it is the backend's.
    pub(super) fn url(&mut self, found: Option<(u16, bool)>) {
        self.one.port = found.map(|(port, _)| port);
        self.one.is_grpc |= found.is_some_and(|(_, is_target)| is_target);
    }

    pub(super) fn binding(&mut self, is_grpc: bool) {
        self.one.is_grpc |= is_grpc;
    }

    /// Whether what ends goes.
    pub(super) fn end(&mut self) -> bool {
        let one = std::mem::take(&mut self.one);
        if one.goes {
            self.comma_goes = !self.has_kept;
        } else {
            self.has_kept = true;
        }
        self.all.push(one);
        one.goes
    }

    pub(super) fn left_out(&self) -> usize {
        self.all.iter().filter(|one| one.goes).count()
    }

    /// Where those begin that would lead to the wrong port, as long as another one stays beside them.
    pub(super) fn unwanted(&self) -> Vec<usize> {
        let own = self.own_url.filter(|_| !self.own_is_grpc);
        let others = self.all.iter().filter(|one| !one.is_grpc).filter_map(|one| one.port);
        let ports: Vec<u16> = own.into_iter().chain(others).collect();
        let astray = |one: &&One| {
            one.is_grpc && !ports.is_empty() && one.port.is_some_and(|port| !ports.contains(&port))
        };
        let stays = |one: &One| {
            one.is_additional && own.is_some()
                || self.all.iter().any(|other| other.list == one.list && !astray(&other))
        };
        self.all.iter().filter(astray).filter(|one| stays(one)).map(|one| one.start).collect()
    }
}

/// The authority of an origin as a target of gRPC: without a port a client would take 443.
pub(super) fn authority_with_port(origin: &str) -> String {
    let (scheme, rest) = origin.split_once("://").unwrap_or(("http", origin));
    let place = rest.split('/').next().unwrap_or_default();
    match authority::split(place) {
        (_, Some(_)) => place.to_owned(),
        _ if scheme == "https" => format!("{place}:443"),
        _ => format!("{place}:80"),
    }
}
