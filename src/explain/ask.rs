//! Asks a running proxy's admin listener for `/explain`.

use serde_json::Value;

use super::Question;
use crate::admin_client::{AdminClient, Failure};

/// What the proxy at `admin` (such as `http://127.0.0.1:9091`) says.
///
/// # Errors
/// The URL is wrong, or there is no answer.
pub async fn ask(admin: &str, question: &Question) -> Result<Value, Failure> {
    AdminClient::new(admin)?.json(&format!("/explain?{}", question.to_query())).await
}
