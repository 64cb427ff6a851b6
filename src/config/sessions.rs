//! The section `sessions` and the words that routes have for them.
//!
//! Plain data and its reading; knows nothing of keys or of what a session is.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::file::{Map, Reader};
use super::scalar::{HOUR, ScalarKind, YEAR, duration};
use super::{Config, SessionMode, StandaloneGet};

/// MCP sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionsConfig {
    /// Files with keys, 32 bytes as base64 on each line: the first seals tokens, all of them open. Without one a key is made
    /// at start.
    pub key_files: Vec<PathBuf>,
    /// `host:port` of the admin listeners of the other replicas, where discovery does not find them.
    pub peers: Vec<String>,
    /// How long a session may lie unused.
    pub max_age: Duration,
}

impl Reader<'_> {
    pub(super) fn sessions(&mut self, map: &mut Map<'_>, config: &mut Config) {
        let Some(mut section) = self.section(map, "sessions") else { return };
        let sessions = &mut config.sessions;
        // Shown by the names of the files, never by a key.
        self.scalars(&mut section, "keyFiles", &mut sessions.key_files, KEY_FILE);
        self.scalars(&mut section, "peers", &mut sessions.peers, PEER);
        self.set(&mut section, "maxAge", &mut sessions.max_age, duration::<HOUR, YEAR>());
        self.end(&section);
    }
}

/// The word of a mode, as in a file.
#[must_use]
pub const fn mode_word(mode: SessionMode) -> &'static str {
    match mode {
        SessionMode::Revive => "revive",
        SessionMode::Pin => "pin",
        SessionMode::Pass => "pass",
    }
}

/// The mode of a word, as in a file or an annotation.
///
/// # Errors
/// Says what to write.
pub fn mode_of(word: &str) -> Result<SessionMode, String> {
    match word {
        "revive" => Ok(SessionMode::Revive),
        "pin" => Ok(SessionMode::Pin),
        "pass" => Ok(SessionMode::Pass),
        _ => Err(format!("{word:?} is not known; write revive, pin or pass")),
    }
}

pub(super) const SESSIONS: ScalarKind<SessionMode> =
    ScalarKind::words(&["revive", "pin", "pass"], mode_of);
pub(super) const STANDALONE_GET: ScalarKind<StandaloneGet> =
    ScalarKind::words(&["pass", "refuse"], |text| match text {
        "pass" => Ok(StandaloneGet::Pass),
        "refuse" => Ok(StandaloneGet::Refuse),
        _ => Err(format!("{text:?} is not known; write pass or refuse")),
    });
const KEY_FILE: ScalarKind<PathBuf> = ScalarKind::text_shown(
    |text| match text {
        "" => Err("is empty; write the name of a file".to_owned()),
        _ => Ok(PathBuf::from(text)),
    },
    |_, file| json!(file.display().to_string()),
);
const PEER: ScalarKind<String> = ScalarKind::text(|text| {
    let wrong =
        || format!("{text:?} is not an address; write host:port of a replica's admin listener");
    let authority: http::uri::Authority = text.parse().map_err(|_| wrong())?;
    match authority.port_u16() {
        Some(1..) if !text.contains('@') => Ok(text.to_owned()),
        _ => Err(wrong()),
    }
});
