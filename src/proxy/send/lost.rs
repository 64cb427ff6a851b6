//! What a call is answered with that was sent and never answered.
//!
//! Pure: an error and a message in, words out.

use crate::protocol::jsonrpc::Message;
use crate::protocol::mcp;
use crate::proxy::error::ProxyError;
use crate::proxy::instead::Instead;

/// What a call is answered with of which nobody knows whether it ran: a JSON-RPC error or a status would make some
/// clients call again. `None` for what is better told by its error.
pub fn lost(
    error: &ProxyError,
    message: &Message<'_>,
    host: &str,
    in_session: bool,
) -> Option<Instead> {
    if !error.may_have_run() {
        return None;
    }
    let (id, method) = (message.id?, message.method.as_deref()?);
    if method == mcp::TOOLS_CALL {
        return Some(Instead::Answer(mcp::lost_call(id, host)));
    }
    // A status would end some clients' sessions.
    in_session.then(|| Instead::Answer(mcp::unanswered(id, host)))
}
