//! How the calls of an exchange end that has ended, and that nothing has answered.
//!
//! Knows the record; reads no message.

use super::Recorder;
use super::calls::unheard;
use crate::proxy::posted::PostedCall;
use crate::telemetry::operations::ErrorType;
use crate::telemetry::record::Outcome;

// === impl Recorder ===

impl Recorder {
    /// The exchange has ended, and with it what calls are left.
    pub(super) fn end_calls(&mut self) {
        let grpc = self.is_grpc().then_some(self.grpc);
        let rest = unheard(self.outcome, self.status, grpc);
        let (started, answers, is_pinned) = (self.started, self.answers.clone(), self.is_pinned);
        // Its answers come on another stream.
        let is_taken = !self.is_answers && self.outcome == Outcome::Complete && self.status == 202;
        self.with_calls(|sight, exchange, tap| {
            exchange.take_calls(sight, tap);
            exchange.take_call_of_head(sight, tap);
            exchange.count_beyond(sight, rest.plain);
            match answers {
                Some(stream) if is_taken => {
                    for call in sight.take_open(ErrorType::None) {
                        exchange.post(&stream, PostedCall { call, started });
                    }
                }
                Some(stream) if exchange.answers.is_some() => {
                    exchange.give_up(&stream.give_up(), rest.plain);
                }
                // The stream goes through another replica, which sees the answers.
                None if is_taken && is_pinned => {
                    for call in sight.take_open(ErrorType::Unknown) {
                        exchange.count(&call, ErrorType::Unknown);
                    }
                }
                _ => {}
            }
            sight.rest(rest, &mut |call, error| exchange.count(call, error));
        });
    }
}
