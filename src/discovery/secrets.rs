//! Authorities of tool servers, from Secrets that are read by name.
//!
//! Never lists or watches Secrets: each is asked for by its name, where RBAC allows that.
//! Where it does not, a mounted bundle takes its place. Reads that file alone; Secrets are read
//! by `discovery/watch.rs`.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::index::Ids;
use crate::backoff::Pauses;
use crate::config::Secret;
use crate::route::{NoRoute, ObjectId};

/// Namespace and name of a Secret, and the key in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SecretKey {
    /// The Secret.
    pub secret: ObjectId,
    /// The key in its data.
    pub key: Box<str>,
}

/// After reads that were not answered.
const PAUSES: Pauses = Pauses::new(Duration::from_millis(500), Duration::from_secs(5));

/// What became of reading a Secret.
pub type SecretRead = Result<Secret, String>;

/// What is known of Secrets, and who needs them.
#[derive(Debug, Default)]
pub struct Secrets {
    bundle: Option<Bundle>,
    known: HashMap<SecretKey, SecretRead>,
    users: Mutex<HashMap<SecretKey, Ids>>,
    /// Those that are being read.
    asked: HashSet<SecretKey>,
    /// How often in a row the server did not answer.
    failures: HashMap<SecretKey, u32>,
}

/// The mounted file.
#[derive(Debug)]
struct Bundle {
    path: PathBuf,
    read: SecretRead,
    users: Mutex<Ids>,
}

// === impl Secrets ===

impl Secrets {
    /// Nothing is known; the file `bundle`, read now, stands in for what may not be read.
    #[must_use]
    pub fn new(bundle: Option<PathBuf>) -> Self {
        let bundle = bundle.map(|path| {
            let read = read_bundle(&path);
            if let Err(why) = &read {
                tracing::warn!(file = %path.display(), why, "discovery.caBundleFile cannot be read");
            }
            Bundle { path, read, users: Mutex::default() }
        });
        Self { bundle, ..Self::default() }
    }

    /// The authorities in a Secret; `service` is told when they change.
    ///
    /// # Errors
    /// Says what would let us have them.
    pub fn pem(
        &self,
        service: &ObjectId,
        (namespace, name, key): (&str, &str, &str),
    ) -> Result<Secret, NoRoute> {
        let key = SecretKey { secret: ObjectId::new(namespace, name), key: key.into() };
        let found = self.known.get(&key).cloned();
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.entry(key).or_default().insert(service.clone());
        drop(users);
        match (found, &self.bundle) {
            (Some(Ok(pem)), _) => Ok(pem),
            (Some(Err(_)), Some(bundle)) => bundle.pem(service),
            (Some(Err(why)), None) => Err(NoRoute::Unusable(format!(
                "the authorities of {service} stand in Secret {namespace}/{name}, which cannot be read: \
                 {why}; allow get on this one name by a Role, or mount a bundle and name it in \
                 discovery.caBundleFile"
            ))),
            // A moment with other authorities than those that were asked for would be wrong.
            (None, _) => Err(NoRoute::Pending(format!("Secret {namespace}/{name} is being read"))),
        }
    }

    /// The mounted authorities, where there are any; `service` is told when they change.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn bundle_for(&self, service: &ObjectId) -> Result<Option<Secret>, NoRoute> {
        self.bundle.as_ref().map(|bundle| bundle.pem(service)).transpose()
    }

    /// Reads the mounted file again; the Services that a change concerns.
    pub fn refresh_bundle(&mut self) -> Ids {
        let Some(bundle) = &mut self.bundle else { return Ids::new() };
        let read = read_bundle(&bundle.path);
        if read == bundle.read {
            return Ids::new();
        }
        let file = bundle.path.display();
        match &read {
            Ok(_) => tracing::info!(%file, "discovery.caBundleFile was read anew"),
            Err(why) => {
                // What was read before stays: a file that is being replaced is gone for a moment.
                tracing::warn!(%file, why, "discovery.caBundleFile cannot be read");
                if bundle.read.is_ok() {
                    return Ids::new();
                }
            }
        }
        bundle.read = read;
        bundle.users.get_mut().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets what a Service needs, because it is decided anew; whether it needed any. What nobody
    /// needs is not read any more.
    pub fn release(&mut self, service: &ObjectId) -> bool {
        let users = self.users.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut needed = self.bundle.as_mut().is_some_and(|bundle| {
            bundle.users.get_mut().unwrap_or_else(PoisonError::into_inner).remove(service)
        });
        users.retain(|_, services| {
            needed |= services.remove(service);
            !services.is_empty()
        });
        needed
    }

    /// Those that somebody needs, each with a pause before it is read; with `all`, also those that have
    /// been read. Each is handed out once until it is learnt.
    pub fn wanted(&mut self, all: bool) -> Vec<(SecretKey, Duration)> {
        let users = self.users.get_mut().unwrap_or_else(PoisonError::into_inner);
        let keys = users.keys().filter(|key| all || !self.known.contains_key(*key));
        let wanted: Vec<_> = keys.filter(|key| !self.asked.contains(*key)).cloned().collect();
        self.asked.extend(wanted.iter().cloned());
        let pause = |key: &SecretKey| match self.failures.get(key) {
            None => Duration::ZERO,
            Some(times) => PAUSES.after(times - 1),
        };
        wanted.into_iter().map(|key| (key.clone(), pause(&key))).collect()
    }

    /// The server did not answer: what is known stays in force.
    pub fn unanswered(&mut self, key: SecretKey) {
        self.asked.remove(&key);
        let times = self.failures.entry(key).or_default();
        *times = times.saturating_add(1).min(16);
    }

    /// What a Secret holds now, and the Services that this changes.
    pub fn learn(&mut self, key: SecretKey, read: SecretRead) -> Ids {
        self.asked.remove(&key);
        self.failures.remove(&key);
        if self.known.get(&key) == Some(&read) {
            return Ids::new();
        }
        let users = self.users.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Nobody needs it any more.
        let Some(services) = users.get(&key).cloned() else {
            self.known.remove(&key);
            return Ids::new();
        };
        if let Err(why) = &read {
            tracing::warn!(secret = %key.secret, why, "a CA Secret cannot be read");
        }
        self.known.insert(key, read);
        services
    }

    /// Forgets Secrets that nobody needs any more.
    pub fn forget_unused(&mut self) {
        let users = self.users.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.known.retain(|key, _| users.contains_key(key));
        self.failures.retain(|key, _| users.contains_key(key));
    }
}

// === impl Bundle ===

impl Bundle {
    fn pem(&self, service: &ObjectId) -> Result<Secret, NoRoute> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.insert(service.clone());
        drop(users);
        self.read.clone().map_err(|why| {
            NoRoute::Unusable(format!(
                "the authorities for {service} cannot be read: discovery.caBundleFile {}: {why}",
                self.path.display()
            ))
        })
    }
}

/// A file of PEM certificates.
fn read_bundle(path: &Path) -> SecretRead {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    if !text.contains("BEGIN CERTIFICATE") {
        return Err("there is no PEM certificate in it".to_owned());
    }
    Ok(Secret::Inline(text.into()))
}
