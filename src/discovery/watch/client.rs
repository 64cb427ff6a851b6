//! The client of the API server, and the one thing that is read without being watched: a Secret.
//!
//! Knows where a client's configuration may come from; nothing of what is watched.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};

use crate::config::{DiscoveryConfig, Secret};
use crate::discovery::secrets::{SecretKey, SecretRead};

/// Longest silence of the API server.
const READ: Duration = Duration::from_secs(75);
/// For a connection to the API server.
const CONNECT: Duration = Duration::from_secs(5);

/// The client of the API server: the kubeconfig that is named, else the pod's service account, else
/// what kubectl would take.
///
/// # Errors
/// Says what is missing.
pub async fn client(config: &DiscoveryConfig) -> Result<Client, String> {
    connect(config.kubeconfig.as_deref(), None).await
}

/// As [`client`], by this context of the kubeconfig; without one by its current context.
///
/// # Errors
/// Says what is missing.
pub async fn connect(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Client, String> {
    let in_cluster = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    let options =
        KubeConfigOptions { context: context.map(ToOwned::to_owned), ..Default::default() };
    let found = match (kubeconfig, context) {
        (Some(path), _) => {
            let named = |error| format!("kubeconfig {}: {error}", path.display());
            let file = Kubeconfig::read_from(path).map_err(|error| named(error.to_string()))?;
            let read = kube::Config::from_custom_kubeconfig(file, &options).await;
            read.map_err(|error| named(error.to_string()))
        }
        (None, Some(context)) => {
            let read = kube::Config::from_kubeconfig(&options).await;
            read.map_err(|error| format!("context {context}: {error}"))
        }
        (None, None) if in_cluster => kube::Config::incluster().map_err(|error| {
            format!(
                "the pod's service account cannot be used: {error}; set automountServiceAccountToken: true"
            )
        }),
        (None, None) => kube::Config::infer().await.map_err(|error| {
            format!("no way to the API server: {error}; run in a pod or name a file with --kubeconfig")
        }),
    };
    let mut found = found?;
    found.connect_timeout = Some(CONNECT);
    found.read_timeout = Some(READ);
    // kube's own would hide 429, 503 and 504 for minutes; the watches have pauses of theirs, and say so.
    found.default_retry = false;
    Client::try_from(found).map_err(|error| format!("cannot talk to the API server: {error}"))
}

/// Reads one Secret by its name.
///
/// # Errors
/// The server does not answer, which says nothing of the Secret.
pub async fn read_secret(client: Client, key: &SecretKey) -> Result<SecretRead, String> {
    if !is_name(&key.secret.name) {
        return Ok(Err("that is not the name of a Secret".to_owned()));
    }
    let api: Api<KubeSecret> = Api::namespaced(client, &key.secret.namespace);
    let secret = match api.get(&key.secret.name).await {
        Ok(secret) => secret,
        Err(kube::Error::Api(status)) if status.code == 403 => {
            return Ok(Err("RBAC forbids it".to_owned()));
        }
        Err(kube::Error::Api(status)) if status.code == 404 => {
            return Ok(Err("it does not exist".to_owned()));
        }
        Err(error) => return Err(error.to_string()),
    };
    let data = secret.data.unwrap_or_default();
    let Some(value) = data.get(&*key.key) else {
        return Ok(Err(format!("it has no key {:?}", key.key)));
    };
    let text = String::from_utf8(value.0.clone());
    Ok(text.map(|text| Secret::Inline(text.into())).map_err(|_| "it is not PEM text".to_owned()))
}

/// A DNS subdomain, as objects are named (RFC 1123): what goes into the path of a request.
fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    (1..=253).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_by_name_cannot_leave_its_path() {
        for name in ["ca", "my-ca.team-a", "0"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "a b", "../x", ".", "a/b", "a?watch=1", "A", "%2e", &"a".repeat(254)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
