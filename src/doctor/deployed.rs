//! The proxy as it is installed: the flags and variables of its Deployment, and the `ConfigMap` behind its file.
//!
//! Only gets and lists, by `ask.rs`. Knows what a pod's specification means, and nothing of what is judged by it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Parser;
use kube::Client;
use serde_json::Value;

use super::ask::{self, Answer};
use crate::cli::{Cli, Command, ConfigArgs};
use crate::route::ObjectId;

/// The name of the container, in chart and kustomize base.
const CONTAINER: &str = "kagent-proxy";
/// The variable that names the file where no flag does.
const FILE: &str = "KAGENT_PROXY_CONFIG";

/// What a Deployment says of the configuration.
#[derive(Clone, Debug, Default)]
pub(super) struct Deployed {
    /// The Deployment.
    pub(super) name: String,
    /// The flags of `run`.
    pub(super) args: ConfigArgs,
    /// Variables that have their value in the Deployment.
    pub(super) env: BTreeMap<String, String>,
    /// The file, if one is named.
    pub(super) text: Option<String>,
    /// Name of the `ServiceAccount`.
    pub(super) account: String,
}

/// Where a file of a container comes from: a `ConfigMap` and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) map: String,
    pub(super) key: String,
}

/// Reads what runs behind this Service. The inner error says why it could not be found.
///
/// # Errors
/// The API server does not answer.
pub(super) async fn read(
    client: &Client,
    service: &ObjectId,
) -> Result<Result<Deployed, String>, String> {
    let space = &service.namespace;
    let path = format!("/api/v1/namespaces/{space}/services/{}", service.name);
    let found = match ask::get(client, &path).await? {
        Answer::Found(found) => found,
        Answer::Absent => return Ok(Err(format!("there is no Service {service}"))),
        Answer::Forbidden(why) => return Ok(Err(why)),
    };
    let path = format!("/apis/apps/v1/namespaces/{space}/deployments");
    let deployments = match ask::list(client, &path, "").await? {
        Answer::Found(items) => items,
        Answer::Absent => Vec::new(),
        Answer::Forbidden(why) => return Ok(Err(why)),
    };
    let Some(deployment) = deployments.iter().find(|deployment| selects(&found, deployment)) else {
        return Ok(Err(format!("no Deployment has the pods of Service {service}")));
    };
    let (mut deployed, origin) = match said(deployment) {
        Ok(said) => said,
        Err(why) => return Ok(Err(why)),
    };
    let Some(Origin { map, key }) = origin else { return Ok(Ok(deployed)) };
    match ask::get(client, &format!("/api/v1/namespaces/{space}/configmaps/{map}")).await? {
        Answer::Found(found) => {
            let data = found.get("data").and_then(|data| data.get(&key));
            let Some(text) = data.and_then(Value::as_str) else {
                return Ok(Err(format!("ConfigMap {space}/{map} has no key {key}")));
            };
            deployed.text = Some(text.to_owned());
            Ok(Ok(deployed))
        }
        Answer::Absent => Ok(Err(format!("there is no ConfigMap {space}/{map}"))),
        Answer::Forbidden(why) => Ok(Err(why)),
    }
}

/// Whether the Service's selector takes the pods of this Deployment.
fn selects(service: &Value, deployment: &Value) -> bool {
    let selector = service.pointer("/spec/selector").and_then(Value::as_object);
    let labels = deployment.pointer("/spec/template/metadata/labels");
    selector.is_some_and(|selector| {
        let has = |(key, value): (&String, &Value)| labels.and_then(|l| l.get(key)) == Some(value);
        !selector.is_empty() && selector.iter().all(has)
    })
}

/// What a Deployment says, and where the file that it names comes from.
///
/// # Errors
/// Says what is not understood.
pub(super) fn said(deployment: &Value) -> Result<(Deployed, Option<Origin>), String> {
    let text = |at: &str| deployment.pointer(at).and_then(Value::as_str).unwrap_or_default();
    let name = format!("{}/{}", text("/metadata/namespace"), text("/metadata/name"));
    let pod = deployment.pointer("/spec/template/spec").unwrap_or(&Value::Null);
    let containers = items(pod, "containers");
    let ours = containers.iter().find(|container| named(container, CONTAINER));
    let Some(container) = ours.or_else(|| containers.first()) else {
        return Err(format!("Deployment {name} has no container"));
    };
    let words = items(container, "command").iter().skip(1).chain(items(container, "args"));
    let words = [CONTAINER].into_iter().chain(words.filter_map(Value::as_str));
    let not_ours = || format!("the flags of Deployment {name} are not those of kagent-proxy run");
    let cli = Cli::try_parse_from(words).map_err(|_| not_ours())?;
    let args = match cli.command {
        None => cli.config,
        Some(Command::Run(args)) => args,
        Some(_) => return Err(not_ours()),
    };
    let text = |json: &Value, key: &str| Some(json.get(key)?.as_str()?.to_owned());
    let env: BTreeMap<String, String> = items(container, "env")
        .iter()
        .filter_map(|entry| Some((text(entry, "name")?, text(entry, "value")?)))
        .collect();
    let file = args.config.clone().or_else(|| env.get(FILE).map(PathBuf::from));
    let origin = match file {
        None => None,
        Some(file) => Some(origin(pod, container, &file).ok_or_else(|| {
            format!("{} of Deployment {name} comes from no ConfigMap", file.display())
        })?),
    };
    let account = text(pod, "serviceAccountName").unwrap_or_else(|| "default".to_owned());
    Ok((Deployed { name, args, env, text: None, account }, origin))
}

/// The `ConfigMap` and the key that a container finds at this path.
fn origin(pod: &Value, container: &Value, file: &Path) -> Option<Origin> {
    let text = |json: &Value, key: &str| Some(json.get(key)?.as_str()?.to_owned());
    let mounts = items(container, "volumeMounts").iter().filter_map(|mount| {
        let path = text(mount, "mountPath")?;
        let inside = file.strip_prefix(&path).ok()?;
        // Of a subPath with nothing behind it the file itself is mounted.
        let inside = text(mount, "subPath").map_or_else(
            || inside.to_owned(),
            |sub| Path::new(&sub).join(inside).components().collect(),
        );
        Some((path.len(), text(mount, "name")?, inside))
    });
    let (_, volume, inside) = mounts.max_by_key(|(length, ..)| *length)?;
    let volume = items(pod, "volumes").iter().find(|found| named(found, &volume))?;
    let projected = volume.get("projected").map_or(&[] as &[Value], |all| items(all, "sources"));
    let sources = std::iter::once(volume).chain(projected);
    sources.filter_map(|source| source.get("configMap")).find_map(|map| {
        let listed = items(map, "items");
        let is_it =
            |item: &&Value| text(item, "path").is_some_and(|path| inside == Path::new(&path));
        let key = match listed.iter().find(is_it) {
            Some(item) => text(item, "key")?,
            None if listed.is_empty() => inside.to_str()?.to_owned(),
            None => return None,
        };
        Some(Origin { map: text(map, "name")?, key })
    })
}

fn items<'a>(json: &'a Value, key: &str) -> &'a [Value] {
    json.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn named(json: &Value, name: &str) -> bool {
    json.get("name").and_then(Value::as_str) == Some(name)
}
