//! An event stream that is asked for again when it ends, until nobody listens.
//!
//! A stream that ends after a while is begun anew at once and without a word: listeners bound the life of a
//! connection, and proxies are replaced.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{AdminClient, Failure};
use crate::backoff::Pauses;

/// Between tries.
const PAUSES: Pauses = Pauses::new(Duration::from_millis(250), Duration::from_secs(4));
/// A stream that ends sooner is a failure.
const LASTING: Duration = Duration::from_secs(1);

/// What is heard of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// It has begun, perhaps anew.
    Begun,
    /// The data of an event.
    Event(String),
    /// It does not begin, or ended soon; it is asked for again after a pause.
    Failed(Failure),
}

/// Tells the news of `path` until the receiver is gone. The receiver decides which failure is the last.
pub async fn follow(
    client: AdminClient,
    path: String,
    silence: Duration,
    news: mpsc::Sender<News>,
) {
    let mut pauses = PAUSES;
    loop {
        let failure = match client.events(&path, silence).await {
            Err(failure) => failure,
            Ok(mut events) => {
                let begun = Instant::now();
                let mut said = News::Begun;
                let failure = loop {
                    if news.send(said).await.is_err() {
                        return;
                    }
                    match events.next().await {
                        Ok(data) => said = News::Event(data),
                        Err(failure) => break failure,
                    }
                };
                if Instant::now().saturating_duration_since(begun) >= LASTING {
                    pauses = PAUSES;
                    if !failure.is_final() {
                        continue;
                    }
                }
                failure
            }
        };
        if news.send(News::Failed(failure)).await.is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(pauses.take()) => {}
            () = news.closed() => return,
        }
    }
}
