//! Host names as `x-kagent-host` carries them, in the one form in which they are compared (D2).
//!
//! Pure text; knows no table.

use std::hash::{Hash, Hasher};

use compact_str::CompactString;

use crate::authority;
use crate::config::target::{bare_host, is_like_address};

/// A host name in the one form in which names are compared: lower case, no trailing dot, no cluster
/// suffix. Keeps the name as given besides.
#[derive(Clone, Debug)]
pub struct HostKey {
    /// As given, in lower case and without the last dot.
    given: CompactString,
    /// Bytes of it that are compared.
    bare: usize,
}

/// Why a header value is no host name; the sentence ends up in the error body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHost {
    /// Nothing in it.
    #[error("the value is empty")]
    Empty,
    /// It has a slash.
    #[error("it has a scheme or a path; write name.namespace or name.namespace:port")]
    Url,
    /// Longer than DNS allows (RFC 1035 section 2.3.4).
    #[error("the value is longer than 253 bytes")]
    TooLong,
    /// An IP literal or `localhost`: never a Service.
    #[error("IP addresses and localhost are not routable; use the Service's name.namespace")]
    Address,
    /// A label that RFC 1123 section 2.1 does not allow.
    #[error("a label has characters other than letters, digits and '-'")]
    Label,
    /// The part after the colon is no port.
    #[error("the part after ':' is not a port")]
    Port,
}

// === impl HostKey ===

impl HostKey {
    /// Reads a header value (D2): `Helper.Team-A.svc.cluster.local.` becomes `helper.team-a`. The
    /// suffix goes only from three or more labels, so that a namespace may be called `svc`.
    ///
    /// # Errors
    /// [`BadHost`] for anything that is not a DNS name, with an optional port.
    pub fn parse(value: &str, cluster_domain: &str) -> Result<(Self, Option<u16>), BadHost> {
        let (name, port) = authority::split(value);
        // Said first, whatever else is wrong with it. No name has one, so that most need not be looked through for it.
        let of_url = |error| if value.contains('/') { BadHost::Url } else { error };
        let port = port.map(read_port).transpose().map_err(of_url)?;
        let mut name = CompactString::from(name.strip_suffix('.').unwrap_or(name));
        name.make_ascii_lowercase();
        check_name(&name).map_err(of_url)?;
        let bare = bare_host(&name, cluster_domain);
        // A suffix must not hide what is refused without it: 2.3.svc.
        if bare.len() < name.len() {
            check_name(bare)?;
        }
        let bare = bare.len();
        Ok((Self { given: name, bare }, port))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.given.get(..self.bare).unwrap_or(&self.given)
    }

    /// Whether the cluster's DNS may have it: `name.namespace`, or more labels and the suffix.
    #[must_use]
    pub fn may_be_discovered(&self) -> bool {
        self.bare < self.given.len() || self.as_str().bytes().filter(|b| *b == b'.').count() == 1
    }

    /// The name as given, in lower case and without its last dot: what a direct client would have
    /// dialled (D1).
    #[must_use]
    pub fn given(&self) -> &str {
        &self.given
    }
}

impl From<&str> for HostKey {
    /// A name that is bare and in lower case already.
    fn from(bare: &str) -> Self {
        Self { given: bare.into(), bare: bare.len() }
    }
}

impl PartialEq for HostKey {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for HostKey {}

impl Hash for HostKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

fn check_name(name: &str) -> Result<(), BadHost> {
    if name.is_empty() {
        return Err(BadHost::Empty);
    }
    if name.len() > 253 {
        return Err(BadHost::TooLong);
    }
    if name.starts_with('[') || is_like_address(name) {
        return Err(BadHost::Address);
    }
    let mut label = 0;
    let mut before = b'.';
    for byte in name.bytes() {
        let fits = match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'A'..=b'Z' => label < 63,
            b'-' => (1..63).contains(&label),
            b'.' => label > 0 && before != b'-',
            _ => false,
        };
        if !fits {
            return Err(BadHost::Label);
        }
        label = if byte == b'.' { 0 } else { label + 1 };
        before = byte;
    }
    if label > 0 && before != b'-' { Ok(()) } else { Err(BadHost::Label) }
}

fn read_port(text: &str) -> Result<u16, BadHost> {
    // More colons are those of an IPv6 address.
    authority::port(text)
        .ok_or_else(|| if text.contains(':') { BadHost::Address } else { BadHost::Port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(value: &str) -> Result<String, BadHost> {
        HostKey::parse(value, "cluster.local").map(|(key, _)| key.as_str().to_owned())
    }

    #[test]
    fn every_spelling_of_a_service_is_one_key() {
        for spelling in [
            "helper.team-a",
            "Helper.Team-A.svc.cluster.local",
            "helper.team-a.",
            "helper.team-a.svc",
            "helper.team-a:8080",
        ] {
            assert_eq!(key(spelling).unwrap(), "helper.team-a", "{spelling}");
        }
        assert_eq!(key("x.svc").unwrap(), "x.svc", "a namespace may be called svc");
        assert_eq!(key("x.3").unwrap(), "x.3", "or 3");
        assert_eq!(key("pod-0.db.team-a.svc.cluster.local").unwrap(), "pod-0.db.team-a");
    }

    #[test]
    fn what_is_no_service_name_is_refused_with_its_reason() {
        for (value, why) in [
            ("", BadHost::Empty),
            (".", BadHost::Empty),
            ("169.254.169.254", BadHost::Address),
            ("[::1]", BadHost::Address),
            ("::1", BadHost::Address),
            ("localhost", BadHost::Address),
            ("a.localhost", BadHost::Address),
            ("0x7f000001", BadHost::Address),
            ("2130706433", BadHost::Address),
            ("127.1", BadHost::Address),
            ("0x7f.1", BadHost::Address),
            ("2.3.svc", BadHost::Address),
            ("a.localhost.svc", BadHost::Address),
            ("user@host.ns", BadHost::Label),
            ("a..b", BadHost::Label),
            ("a b.ns", BadHost::Label),
            ("helper.ns:http", BadHost::Port),
            ("helper.ns:99999", BadHost::Port),
            ("-a.ns", BadHost::Label),
            ("a-.ns", BadHost::Label),
            ("a.ns-", BadHost::Label),
            ("a.-ns", BadHost::Label),
            (".ns", BadHost::Label),
            ("a.ns..", BadHost::Label),
            ("a.ns:+80", BadHost::Port),
            ("a.ns:", BadHost::Port),
            ("a.ns:80:80", BadHost::Address),
        ] {
            assert_eq!(key(value).unwrap_err(), why, "{value:?}");
        }
        assert_eq!(key(&"a.".repeat(200)).unwrap_err(), BadHost::TooLong);
        for (length, fits) in [(62, true), (63, true), (64, false)] {
            assert_eq!(key(&("a".repeat(length) + ".ns")).is_ok(), fits, "{length}");
            assert!(key(&("a".repeat(length - 1) + "-.ns")).is_err(), "{length}");
            assert!(key(&("-".to_owned() + &"a".repeat(length - 1) + ".ns")).is_err(), "{length}");
            assert_eq!(key(&("a-".to_owned() + &"a".repeat(length - 2) + ".ns")).is_ok(), fits);
        }
    }
}
