//! What a call is answered with that was sent and never answered.
//!
//! Pure: an error and a message in, words out.

use crate::protocol::jsonrpc::messages;
use crate::protocol::mcp;
use crate::proxy::error::ProxyError;
use crate::proxy::instead::Instead;

/// What the request, or the batch, of this body is answered with of which nobody knows whether it ran: a JSON-RPC
/// error or a status would make some clients call again. `None` for what is better told by its error.
pub fn lost(error: &ProxyError, body: &[u8], host: &str, in_session: bool) -> Option<Instead> {
    if !error.may_have_run() {
        return None;
    }
    // A status would end some clients' sessions.
    let is_call = || messages(body).iter().any(mcp::is_call);
    if !in_session && !is_call() {
        return None;
    }
    mcp::in_servers_place(body, host, mcp::lost_call).map(Instead::Answer)
}
