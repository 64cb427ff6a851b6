//! Calls that are posted, and answered on a stream of their own (MCP 2024-11-05, "HTTP with SSE"): a post is taken with
//! 202, and its answer stands among the events of the stream that the client has opened before.
//!
//! The token that the proxy has put into the stream's URL for posts tells which stream that is. Bounded. Knows no
//! metric and no connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::time::Instant;

use crate::protocol::calls::{Call, CallId};
use crate::telemetry::operations::ErrorType;

/// Calls that wait on one stream; more are told by how their post ends.
const MAX_CALLS: usize = 1024;
/// Answers that have come before their post was over.
const MAX_EARLY: usize = 64;

/// The streams that answer posts, by their tokens.
#[derive(Clone, Debug, Default)]
pub struct PostedCalls(Arc<Mutex<Open>>);

type Open = HashMap<Box<[u8]>, Weak<AnswerStream>>;

/// One such stream.
#[derive(Debug)]
pub struct AnswerStream {
    token: Box<[u8]>,
    streams: PostedCalls,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    calls: Vec<PostedCall>,
    early: Vec<(CallId, ErrorType, Instant)>,
}

/// A call whose answer has come, how it ended, and when.
pub type Answered = (PostedCall, ErrorType, Instant);

/// A call that waits for its answer.
#[derive(Clone, Debug)]
pub struct PostedCall {
    /// As it was made.
    pub call: Call,
    /// When its post arrived.
    pub started: Instant,
}

// === impl PostedCalls ===

impl PostedCalls {
    /// A stream of this token, as long as it is held.
    #[must_use]
    pub fn open(&self, token: &[u8]) -> Arc<AnswerStream> {
        let (streams, waiting) = (self.clone(), Mutex::default());
        let stream = Arc::new(AnswerStream { token: token.into(), streams, waiting });
        self.lock().insert(token.into(), Arc::downgrade(&stream));
        stream
    }

    /// The stream of this token, if it is open.
    #[must_use]
    pub fn find(&self, token: &[u8]) -> Option<Arc<AnswerStream>> {
        self.lock().get(token)?.upgrade()
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl AnswerStream ===

impl AnswerStream {
    /// A call waits for its answer here from now on; one that has come already is returned, with its time.
    ///
    /// # Errors
    /// The call, where too many wait.
    pub fn wait(
        &self,
        posted: PostedCall,
    ) -> Result<Option<(PostedCall, ErrorType, Instant)>, PostedCall> {
        let mut waiting = self.lock();
        let here = waiting.early.iter().position(|(id, ..)| Some(*id) == posted.call.id);
        if let Some(at) = here {
            let (_, error, when) = waiting.early.swap_remove(at);
            return Ok(Some((posted, error, when)));
        }
        if waiting.calls.len() >= MAX_CALLS {
            return Err(posted);
        }
        waiting.calls.push(posted);
        Ok(None)
    }

    /// An answer has come: the call that it is of, unless its post is still under way.
    #[must_use]
    pub fn answered(&self, id: CallId, error: ErrorType) -> Option<PostedCall> {
        let mut waiting = self.lock();
        match waiting.calls.iter().position(|posted| posted.call.id == Some(id)) {
            Some(at) => Some(waiting.calls.remove(at)),
            None => {
                if waiting.early.len() >= MAX_EARLY {
                    waiting.early.remove(0);
                }
                waiting.early.push((id, error, Instant::now()));
                None
            }
        }
    }

    /// Every call that waits, which nothing will answer any more.
    #[must_use]
    pub fn give_up(&self) -> Vec<PostedCall> {
        std::mem::take(&mut self.lock().calls)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for AnswerStream {
    fn drop(&mut self) {
        let mut streams = self.streams.lock();
        // One that was opened later has its place.
        if streams.get(&self.token).is_some_and(|stream| stream.strong_count() == 0) {
            streams.remove(&self.token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::methods::Method;
    use crate::protocol::places::Found;

    fn id(number: usize) -> CallId {
        CallId::of(&Found::Literal(number.to_string().as_bytes())).unwrap()
    }

    fn posted(number: usize) -> PostedCall {
        let call =
            Call { id: Some(id(number)), method: Method::of("ping"), name: None, trace: None };
        PostedCall { call, started: Instant::now() }
    }

    #[test]
    fn an_answer_finds_its_call_whichever_comes_first() {
        let streams = PostedCalls::default();
        assert!(streams.find(b"t").is_none());
        let stream = streams.open(b"t");
        let by_post = streams.find(b"t").unwrap();
        assert!(by_post.wait(posted(1)).unwrap().is_none());
        assert!(by_post.wait(posted(2)).unwrap().is_none());
        assert_eq!(stream.answered(id(2), ErrorType::None).unwrap().call.id, Some(id(2)));
        assert!(stream.answered(id(3), ErrorType::Tool).is_none());
        let (call, error, _) = by_post.wait(posted(3)).unwrap().unwrap();
        assert_eq!((call.call.id, error), (Some(id(3)), ErrorType::Tool));
        assert_eq!(stream.give_up().len(), 1);
        assert!(stream.give_up().is_empty());
        drop((stream, by_post));
        assert!(streams.find(b"t").is_none() && streams.lock().is_empty());
    }

    #[test]
    fn a_stream_that_took_the_place_of_another_stays() {
        let streams = PostedCalls::default();
        let first = streams.open(b"t");
        let second = streams.open(b"t");
        drop(first);
        assert!(Arc::ptr_eq(&streams.find(b"t").unwrap(), &second));
    }

    #[test]
    fn what_waits_is_bounded() {
        let stream = PostedCalls::default().open(b"t");
        assert!((0..MAX_CALLS).all(|number| stream.wait(posted(number)).is_ok()));
        assert!(stream.wait(posted(MAX_CALLS)).is_err());
        for number in 0..2 * MAX_EARLY {
            assert!(stream.answered(id(MAX_CALLS + number), ErrorType::None).is_none());
        }
        assert_eq!(stream.lock().early.len(), MAX_EARLY);
    }
}
