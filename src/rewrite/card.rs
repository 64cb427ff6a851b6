//! Agent cards: URLs of the backend become ours, or clients take their calls around the proxy.
//!
//! kagent's Go runtime dials the URL of the card (`go/adk/pkg/tools/remote_a2a_tool.go`), a2a-go 0.3
//! reads `url` and then `additionalInterfaces`, v2 reads `supportedInterfaces`. The URLs change in
//! their place, every other byte stays. An interface of gRPC at a port of its own cannot be reached through us by
//! a URL, and goes. Knows JSON and host names only.

use std::ops::Range;

use super::json::{Container, Malformed, Part, Unescaped, Walk};
use super::origin::{leads_to, target_of};
use interfaces::{Interface, Interfaces, authority_with_port};

mod interfaces;

/// Bytes of a card that are looked at; a larger one passes as it is (D20).
pub const MAX_CARD: usize = 1024 * 1024;

/// A card that leads to us.
#[derive(Debug, PartialEq, Eq)]
pub struct RewrittenCard {
    /// The bytes that came, but for the URLs and the signatures.
    pub body: Vec<u8>,
    /// How many URLs were changed.
    pub urls: usize,
    /// A signature was removed: it would not hold any more.
    pub signatures_removed: bool,
    /// How many interfaces of gRPC were left out: they are at another port than the rest of the agent.
    pub left_out: usize,
}

/// Where cards are, under any prefix: the well-known places (A2A 0.2 and later), and those of extended cards in A2A 1.0
/// (section 11.3), in 0.3 (section 3.5.6) and in 0.2.
const WELL_KNOWN: [&str; 2] = ["/.well-known/agent-card.json", "/.well-known/agent.json"];
const EXTENDED: [&str; 3] = ["/extendedAgentCard", "/v1/card", "/agent/authenticatedExtendedCard"];

/// Whether a path is one of a card.
#[must_use]
pub fn is_card_path(path: &str) -> bool {
    is_well_known(path) || EXTENDED.iter().any(|place| path.ends_with(place))
}

/// Whether it is one that nothing else has; an extended card's may be anything's.
#[must_use]
pub fn is_well_known(path: &str) -> bool {
    WELL_KNOWN.iter().any(|place| path.ends_with(place))
}

/// Replaces scheme and authority of every URL of the backend by `origin`, such as
/// `http://proxy.kagent:8080`; user and password, path, query and fragment stay. `backend` judges hosts
/// as they come from `origin.rs`.
///
/// # Errors
/// [`Malformed`] if the body is no JSON object, so that a URL may stand where nobody sees it.
pub fn rewrite_card(
    body: &[u8],
    origin: &str,
    backend: &dyn Fn(&str) -> bool,
) -> Result<RewrittenCard, Malformed> {
    Card::rewritten(body, origin, backend, Place::Whole)
}

/// The same for a JSON-RPC response whose result is the card (A2A 1.0 section 9.4, 0.3 section 7.10). Without a URL to
/// change it stays as it is, for then its signatures hold; so does one that has no result.
///
/// # Errors
/// [`Malformed`] if the body is no JSON object, or its result is none.
pub fn rewrite_answer(
    body: &[u8],
    origin: &str,
    backend: &dyn Fn(&str) -> bool,
) -> Result<Option<RewrittenCard>, Malformed> {
    let card = Card::rewritten(body, origin, backend, Place::Outside)?;
    Ok((card.urls + card.left_out > 0).then_some(card))
}

/// Whether what is read belongs to the card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The body is the card.
    Whole,
    /// It is in the `result` of the body, and this is it.
    Result,
    /// This is another member.
    Outside,
}

/// What a member of the card is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    Url,
    /// A list of objects, each with a `url`; in 0.3 it comes on top of the card's own.
    Interfaces,
    Additional,
    /// The transport of the card's own URL.
    Transport,
    Signatures,
    Other,
}

/// A card under way.
struct Card<'c> {
    body: &'c [u8],
    origin: &'c str,
    backend: &'c dyn Fn(&str) -> bool,
    place: Place,
    /// The rewritten bytes so far, and how many of the old ones they stand for.
    out: Vec<u8>,
    taken: usize,
    urls: usize,
    signatures_removed: bool,
    member: Member,
    /// Those of the list under way and before.
    interfaces: Interfaces,
    /// A member that stays came before.
    has_kept: bool,
    /// Signatures without a member before them go together with the comma behind them.
    comma_goes: bool,
}

// === impl Card ===

impl<'c> Card<'c> {
    /// Reads it once, and where interfaces have to go once more without them.
    fn rewritten(
        body: &'c [u8],
        origin: &'c str,
        backend: &'c dyn Fn(&str) -> bool,
        place: Place,
    ) -> Result<RewrittenCard, Malformed> {
        let first = Self::new(body, origin, backend, place).read()?;
        let unwanted = first.interfaces.unwanted();
        if unwanted.is_empty() {
            return Ok(first.finish());
        }
        let mut second = Self::new(body, origin, backend, place);
        second.interfaces = Interfaces::without(unwanted);
        Ok(second.read()?.finish())
    }

    fn new(
        body: &'c [u8],
        origin: &'c str,
        backend: &'c dyn Fn(&str) -> bool,
        place: Place,
    ) -> Self {
        Self {
            body,
            origin,
            backend,
            place,
            out: Vec::with_capacity(body.len()),
            taken: 0,
            urls: 0,
            signatures_removed: false,
            member: Member::Other,
            interfaces: Interfaces::default(),
            has_kept: false,
            comma_goes: false,
        }
    }

    fn read(mut self) -> Result<Self, Malformed> {
        let mut walk = Walk::new(self.body);
        while let Some(part) = walk.next_part()? {
            self.see(&part, &walk)?;
        }
        Ok(self)
    }

    /// The containers of the card that are open; `None` for a part that is not of it.
    fn within<'w>(
        &mut self,
        part: &Part,
        open: &'w [Container],
    ) -> Result<Option<&'w [Container]>, Malformed> {
        use Container::{Array, Object};
        match (self.place, part, open) {
            (Place::Whole, ..) => Ok(Some(open)),
            // As Go's `encoding/json` takes names.
            (_, Part::Name(name), [Object]) => {
                let is_result = self.name(name)?.eq_ignore_ascii_case(b"result");
                self.place = if is_result { Place::Result } else { Place::Outside };
                (self.member, self.has_kept, self.comma_goes) = (Member::Other, false, false);
                Ok(None)
            }
            // A batch, which A2A does not have.
            (_, Part::Begin, [Array]) => Err(Malformed { at: 0 }),
            (Place::Result, _, [Object, rest @ ..]) => Ok(Some(rest)),
            _ => Ok(None),
        }
    }

    fn see(&mut self, part: &Part, walk: &Walk<'_>) -> Result<(), Malformed> {
        use Container::{Array, Object};
        let Some(open) = self.within(part, walk.open())? else { return Ok(()) };
        match (part, open) {
            // The body is a list, or one value.
            (Part::Begin, [Array]) | (Part::Text(_) | Part::Other, []) => {
                return Err(Malformed { at: 0 });
            }
            (Part::Name(name), [Object]) => self.begin_member(name, walk)?,
            (Part::Text(text), [Object]) if self.member == Member::Url => {
                let port = self.url(text)?.map(|(port, _)| port);
                self.interfaces.own_url(port);
            }
            (Part::Text(text), [Object]) if self.member == Member::Transport => {
                let is_grpc = self.name(text)?.eq_ignore_ascii_case(b"GRPC");
                self.interfaces.own_transport(is_grpc);
            }
            (_, [Object, Array, ..]) if self.in_interfaces() => self.interface(part, open, walk)?,
            _ => {}
        }
        let ended = matches!(part, Part::Text(_) | Part::Other | Part::End);
        if ended && open == [Object] && self.member == Member::Signatures {
            self.skip_to(walk.at());
            self.comma_goes = !self.has_kept;
        }
        Ok(())
    }

    fn in_interfaces(&self) -> bool {
        matches!(self.member, Member::Interfaces | Member::Additional)
    }

    /// A part of a list of interfaces.
    fn interface(
        &mut self,
        part: &Part,
        open: &[Container],
        walk: &Walk<'_>,
    ) -> Result<(), Malformed> {
        use Container::{Array, Object};
        match (part, open) {
            (Part::Begin, [Object, Array]) => {
                self.interfaces.begin_list(self.member == Member::Additional)
            }
            (Part::Begin, [Object, Array, kind]) => {
                let start = walk.at().saturating_sub(1);
                if self.interfaces.take_comma() {
                    self.skip_to(walk.comma() + 1);
                }
                let goes = *kind == Object && self.interfaces.goes(start);
                if goes {
                    self.keep_to(if self.interfaces.has_kept { walk.comma() } else { start });
                }
                self.interfaces.begin(start, goes);
            }
            // One that is no object.
            (Part::Text(_) | Part::Other, [Object, Array]) => {
                if self.interfaces.take_comma() {
                    self.skip_to(walk.comma() + 1);
                }
                self.interfaces.has_kept = true;
            }
            (Part::Name(name), [Object, Array, Object]) => {
                let name = self.name(name)?;
                self.interfaces.member(&name);
            }
            (Part::Text(text), [Object, Array, Object]) if !self.interfaces.is_going() => {
                match self.interfaces.member {
                    Interface::Url => {
                        let found = self.url(text)?;
                        self.interfaces.url(found);
                    }
                    Interface::Binding => {
                        let is_grpc = self.name(text)?.eq_ignore_ascii_case(b"GRPC");
                        self.interfaces.binding(is_grpc);
                    }
                    Interface::Other => {}
                }
            }
            (Part::End, [Object, Array]) if self.interfaces.end() => self.skip_to(walk.at()),
            _ => {}
        }
        Ok(())
    }

    fn begin_member(&mut self, name: &Range<usize>, walk: &Walk<'_>) -> Result<(), Malformed> {
        if std::mem::take(&mut self.comma_goes) {
            self.skip_to(walk.comma() + 1);
        }
        self.member = member(&self.name(name)?);
        if self.member == Member::Signatures {
            self.keep_to(if self.has_kept { walk.comma() } else { name.start.saturating_sub(1) });
            self.signatures_removed = true;
        } else {
            self.has_kept = true;
        }
        Ok(())
    }

    /// A string without its escapes.
    fn unescaped(&self, text: &Range<usize>) -> Result<Unescaped, Malformed> {
        let raw = self.body.get(text.clone()).unwrap_or_default();
        Unescaped::read(raw).ok_or(Malformed { at: text.start })
    }

    fn name(&self, name: &Range<usize>) -> Result<Vec<u8>, Malformed> {
        Ok(self.unescaped(name)?.text)
    }

    /// Changes a URL's origin, or a target of gRPC, if it is the backend's; its port, and whether it is such a target.
    fn url(&mut self, text: &Range<usize>) -> Result<Option<(u16, bool)>, Malformed> {
        let read = self.unescaped(text)?;
        if let Some(parts) = target_of(&read.text, self.backend) {
            let place = |at| text.start + read.place(at).unwrap_or_default();
            let ours = authority_with_port(self.origin);
            let (start, end) = (place(parts.start), place(parts.path));
            self.urls += usize::from(self.body.get(start..end) != Some(ours.as_bytes()));
            self.keep_to(start);
            self.put(&ours);
            self.skip_to(end);
            return Ok(Some((parts.port, true)));
        }
        let Some(parts) = leads_to(&read.text, self.backend) else { return Ok(None) };
        let place = |at| text.start + read.place(at).unwrap_or_default();
        let (start, end) = (place(parts.start), place(parts.path));
        let (scheme, authority) = self.origin.split_once("://").unwrap_or(("http", self.origin));
        self.keep_to(start);
        let from = self.out.len();
        self.put(&format!("{scheme}://"));
        self.skip_to(place(parts.userinfo.start));
        self.keep_to(place(parts.userinfo.end));
        self.put(authority);
        self.skip_to(end);
        self.urls += usize::from(self.out.get(from..) != self.body.get(start..end));
        Ok(Some((parts.port, false)))
    }

    /// Adds to the text of a string.
    fn put(&mut self, text: &str) {
        let quoted = serde_json::Value::from(text).to_string();
        let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        self.out.extend_from_slice(inner.unwrap_or_default().as_bytes());
    }

    fn keep_to(&mut self, at: usize) {
        self.out.extend_from_slice(self.body.get(self.taken..at).unwrap_or_default());
        self.skip_to(at);
    }

    fn skip_to(&mut self, at: usize) {
        self.taken = at.max(self.taken);
    }

    fn finish(mut self) -> RewrittenCard {
        self.keep_to(self.body.len());
        let left_out = self.interfaces.left_out();
        let Self { out: body, urls, signatures_removed, .. } = self;
        RewrittenCard { body, urls, signatures_removed, left_out }
    }
}

/// Go's `encoding/json` takes names in any case, protobuf's JSON and a2a-python also those with `_`.
fn member(name: &[u8]) -> Member {
    let is = |known: &&str| name.eq_ignore_ascii_case(known.as_bytes());
    match () {
        () if is(&"url") => Member::Url,
        () if ["supportedInterfaces", "supported_interfaces"].iter().any(is) => Member::Interfaces,
        () if ["additionalInterfaces", "additional_interfaces"].iter().any(is) => {
            Member::Additional
        }
        () if ["preferredTransport", "preferred_transport"].iter().any(is) => Member::Transport,
        () if is(&"signatures") => Member::Signatures,
        () => Member::Other,
    }
}

#[cfg(test)]
mod tests;
