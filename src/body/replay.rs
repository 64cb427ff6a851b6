//! What is remembered of a body: all of it up to a bound, or only its start.
//!
//! A body that is remembered whole can be sent again; the start of any is enough for a request's id.
//! Pure: bytes in, bytes out. Never knows where they come from, nor why they are needed again.

use bytes::{Bytes, BytesMut};

/// Bytes of a body that are looked at for the request's id (D10).
pub const MAX_PEEK: usize = 64 * 1024;
/// A body up to this size is remembered whole.
pub const MAX_REPLAY: usize = 1024 * 1024;
/// Smaller pieces are copied together: each shared one would cost a handle, and keep the buffer that it
/// came in.
const MIN_SHARED: usize = 2048;

/// The remembered bytes. Most bodies come in one piece, which is shared and never copied.
#[derive(Debug)]
pub struct Replay {
    first: Bytes,
    more: Vec<Bytes>,
    /// Small pieces behind those.
    small: BytesMut,
    length: usize,
    /// Bytes up to which the whole is remembered.
    bound: usize,
    /// Only the start is remembered.
    cut: bool,
}

// === impl Replay ===

impl Replay {
    /// Remembers a body of which this length has been announced: of one beyond the bound only the start.
    #[must_use]
    pub fn expecting(length: Option<u64>) -> Self {
        let cut = length.is_some_and(|length| length > MAX_REPLAY as u64);
        let (first, more, small) = (Bytes::new(), Vec::new(), BytesMut::new());
        Self { first, more, small, length: 0, bound: MAX_REPLAY, cut }
    }

    /// The whole of a body beyond [`MAX_PEEK`] will not be needed.
    pub fn keep_start(&mut self) {
        self.bound = MAX_PEEK;
        if !self.cut && self.length > MAX_PEEK {
            self.cut = true;
            self.shorten();
        }
    }

    /// The next bytes have come.
    pub fn push(&mut self, chunk: &Bytes) {
        if !self.cut && self.length + chunk.len() > self.bound {
            self.cut = true;
            self.shorten();
        }
        let bound = if self.cut { MAX_PEEK } else { self.bound };
        let room = bound.saturating_sub(self.length).min(chunk.len());
        if room > 0 {
            self.length += room;
            self.keep(chunk.slice(..room));
        }
    }

    /// Whether bytes to come may be remembered.
    #[must_use]
    pub fn wants_more(&self) -> bool {
        !self.cut || self.wants_start()
    }

    /// Whether the start is not whole yet, as far as is known.
    #[must_use]
    pub fn wants_start(&self) -> bool {
        self.length < MAX_PEEK
    }

    /// The first [`MAX_PEEK`] bytes.
    #[must_use]
    pub fn start(&self) -> Bytes {
        self.joined(MAX_PEEK)
    }

    /// The piece that came first.
    #[must_use]
    pub fn first(&self) -> &[u8] {
        &self.first
    }

    /// All bytes, if none was left out.
    #[must_use]
    pub fn whole(&mut self) -> Option<Bytes> {
        if self.cut {
            return None;
        }
        // In one piece from now on, so that they are copied once at most.
        self.first = self.joined(self.length);
        (self.more, self.small) = (Vec::new(), BytesMut::new());
        Some(self.first.clone())
    }

    fn keep(&mut self, chunk: Bytes) {
        if self.first.is_empty() {
            self.first = chunk;
        } else if chunk.len() < MIN_SHARED {
            self.small.extend_from_slice(&chunk);
        } else {
            self.settle();
            self.more.push(chunk);
        }
    }

    /// Puts the small pieces in their place.
    fn settle(&mut self) {
        if !self.small.is_empty() {
            self.more.push(std::mem::take(&mut self.small).freeze());
        }
    }

    /// Forgets everything behind the start.
    fn shorten(&mut self) {
        self.settle();
        let mut room = MAX_PEEK;
        for piece in std::iter::once(&mut self.first).chain(&mut self.more) {
            piece.truncate(room);
            room -= piece.len();
        }
        self.more.retain(|piece| !piece.is_empty());
        self.more.shrink_to_fit();
        self.length = MAX_PEEK - room;
    }

    /// So many bytes from the start, or all there are.
    fn joined(&self, limit: usize) -> Bytes {
        let limit = limit.min(self.length);
        if self.first.len() >= limit {
            return self.first.slice(..limit);
        }
        let mut bytes = BytesMut::with_capacity(limit);
        let more = self.more.iter().map(|piece| &**piece);
        for piece in std::iter::once(&*self.first).chain(more).chain([&*self.small]) {
            let room = limit - bytes.len();
            bytes.extend_from_slice(piece.get(..room).unwrap_or(piece));
        }
        bytes.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of which no two neighbourhoods are alike.
    fn body(length: usize) -> Bytes {
        (0..length).map(|n| u8::try_from((n ^ (n >> 8) ^ (n >> 16)) & 0xff).unwrap()).collect()
    }

    fn replay(pieces: &[Bytes]) -> Replay {
        let mut replay = Replay::expecting(None);
        pieces.iter().for_each(|piece| replay.push(piece));
        replay
    }

    #[test]
    fn where_the_whole_is_not_needed_a_small_body_is_whole_and_a_large_one_only_its_start() {
        let piece = Bytes::from(vec![b'x'; MAX_PEEK / 2]);
        for told in 0..4 {
            let mut replay = Replay::expecting(None);
            for at in 0..3 {
                if at == told {
                    replay.keep_start();
                }
                replay.push(&piece);
                assert_eq!(replay.whole().is_some(), told > at || at < 2, "{at}, told at {told}");
            }
            replay.keep_start();
            assert_eq!((replay.start().len(), replay.whole()), (MAX_PEEK, None));
        }
    }

    #[test]
    fn a_body_comes_back_whole_wherever_it_was_split() {
        let body = body(3 * MIN_SHARED);
        for at in 0..=body.len() {
            let mut replay = replay(&[body.slice(..at), body.slice(at..)]);
            assert_eq!(replay.start(), body, "at {at}");
            assert_eq!(replay.whole().unwrap(), body, "at {at}");
        }
        let short = body.slice(..12);
        for (a, b) in (0..=12).flat_map(|a| (a..=12).map(move |b| (a, b))) {
            let mut replay = replay(&[short.slice(..a), short.slice(a..b), short.slice(b..)]);
            assert_eq!(replay.whole().unwrap(), short, "at {a} and {b}");
        }
    }

    #[test]
    fn large_and_small_pieces_keep_their_order() {
        let body = body(40 * 1024);
        for sizes in [[1, MIN_SHARED], [MIN_SHARED - 1, 3 * MIN_SHARED], [7, 100], [5000, 1]] {
            let mut pieces = Vec::new();
            let mut rest = body.clone();
            for size in sizes.iter().cycle() {
                pieces.push(rest.split_to((*size).min(rest.len())));
                if rest.is_empty() {
                    break;
                }
            }
            let mut replay = replay(&pieces);
            assert_eq!(replay.start(), body, "{sizes:?}");
            assert_eq!(replay.whole().unwrap(), body, "{sizes:?}");
            assert_eq!(replay.whole().unwrap(), body, "{sizes:?}, once more");
        }
    }

    #[test]
    fn one_piece_is_shared_and_bytes_one_by_one_cost_few_pieces() {
        let body = body(100_000);
        let mut one = replay(std::slice::from_ref(&body));
        assert_eq!(one.start().as_ptr(), body.as_ptr());
        assert_eq!(one.whole().unwrap().as_ptr(), body.as_ptr());
        let mut many = Replay::expecting(None);
        (0..body.len()).for_each(|at| many.push(&body.slice(at..=at)));
        assert!(many.more.is_empty(), "{}", many.more.len());
        assert_eq!(many.whole().unwrap(), body);
    }

    #[test]
    fn exactly_the_bound_is_whole_and_one_byte_above_is_a_start() {
        let body = body(MAX_REPLAY + 1);
        let splits =
            [1, MIN_SHARED, MAX_PEEK - 1, MAX_PEEK, MAX_PEEK + 1, MAX_REPLAY - 1, MAX_REPLAY];
        for at in splits {
            let mut exact = replay(&[body.slice(..at), body.slice(at..MAX_REPLAY)]);
            assert!(exact.wants_more(), "nobody knows that it is over");
            assert_eq!(exact.whole().unwrap(), body.slice(..MAX_REPLAY), "at {at}");
            let mut above = replay(&[body.slice(..at), body.slice(at..)]);
            assert_eq!(above.whole(), None, "at {at}");
            assert_eq!(above.start(), body.slice(..MAX_PEEK), "at {at}");
            assert_eq!(above.length, MAX_PEEK, "the rest is forgotten");
            assert!(!above.wants_more());
            exact.push(&body.slice(MAX_REPLAY..));
            assert_eq!(exact.whole(), None, "at {at}, joined before");
            assert_eq!(exact.start(), body.slice(..MAX_PEEK), "at {at}, joined before");
        }
    }

    #[test]
    fn a_body_that_is_announced_as_too_long_is_never_more_than_a_start() {
        let body = body(MAX_PEEK + 10);
        let mut exact = Replay::expecting(Some(MAX_REPLAY as u64));
        exact.push(&body);
        assert_eq!(exact.whole().unwrap(), body);
        let mut long = Replay::expecting(Some(MAX_REPLAY as u64 + 1));
        long.push(&body.slice(..10));
        assert!(long.wants_more() && long.wants_start());
        long.push(&body.slice(10..));
        assert!(!long.wants_more());
        assert_eq!((long.whole(), long.length), (None, MAX_PEEK));
        assert_eq!(long.start(), body.slice(..MAX_PEEK));
    }

    #[test]
    fn no_body_is_whole_too() {
        assert_eq!(Replay::expecting(None).whole().unwrap(), Bytes::new());
    }
}
