//! Tool servers by URL: which Services their objects name, and which object counts where both groups have one.
//!
//! Pure. Whose word an object is, and whether it counts, others decide.

use std::collections::{BTreeSet, HashMap};

use super::{Index, link, unlink};
use crate::discovery::object::{KagentApi, RemoteServer};
use crate::route::{HostKey, ObjectId};

/// Objects of both groups, by the Service that they name.
pub(super) type Naming = HashMap<ObjectId, BTreeSet<(ObjectId, KagentApi)>>;

// === impl Index ===

impl Index {
    pub(super) fn set_remote(&mut self, api: KagentApi, id: &ObjectId, new: Option<RemoteServer>) {
        if self.remotes.of(api).get(id) == new.as_ref() {
            return;
        }
        self.uses_dirty.extend(self.users_of_remote(id));
        let one = (id.clone(), api);
        let [url, literal] = self.named_by(api, id);
        url.iter().for_each(|service| unlink(&mut self.remotes_at, service, &one));
        literal.iter().for_each(|service| unlink(&mut self.literals_at, service, &one));
        self.touch_all(url.iter().chain(&literal));
        self.remotes.set(api, id, new);
        let [url, literal] = self.named_by(api, id);
        url.iter().for_each(|service| link(&mut self.remotes_at, service, &one));
        literal.iter().for_each(|service| link(&mut self.literals_at, service, &one));
        self.touch_all(url.iter().chain(&literal));
    }

    /// The Services that an object names: in its URL, and in a literal `x-kagent-host`.
    fn named_by(&self, api: KagentApi, id: &ObjectId) -> [Option<ObjectId>; 2] {
        let server = self.remotes.of(api).get(id);
        let url = server.map(|server| server.host.as_str());
        let literal = server.and_then(|server| server.literal_host.as_deref());
        [url, literal].map(|host| Some(self.host(host?)?.service))
    }

    /// The port that an object writes into a literal `x-kagent-host`.
    #[must_use]
    pub fn literal_port(&self, server: &RemoteServer) -> Option<u16> {
        let host = server.literal_host.as_deref()?;
        HostKey::parse(host, &self.cluster_domain).ok()?.1
    }

    /// The `RemoteMCPServer` that an Agent of a group means: that of its own group, if there is one.
    #[must_use]
    pub fn remote(&self, api: KagentApi, id: &ObjectId) -> Option<&RemoteServer> {
        self.remotes.for_api(api, id)
    }

    /// The Services that the objects of a name speak of.
    pub(super) fn spoken_of(&self, id: &ObjectId) -> impl Iterator<Item = ObjectId> {
        [KagentApi::V0, KagentApi::V1].into_iter().flat_map(|api| self.named_by(api, id)).flatten()
    }

    /// Tool servers whose URL names a Service, in the order of their names.
    pub fn remotes_at(
        &self,
        service: &ObjectId,
    ) -> impl Iterator<Item = (&ObjectId, &RemoteServer)> {
        self.counting(self.remotes_at.get(service))
    }

    /// Tool servers with a literal `x-kagent-host` of a Service, in the order of their names.
    pub fn literals_at(
        &self,
        service: &ObjectId,
    ) -> impl Iterator<Item = (&ObjectId, &RemoteServer)> {
        self.counting(self.literals_at.get(service))
    }

    /// Tool servers of `kagent.dev` that name a Service and do not count: one of `api.kagent.dev` has their name, and
    /// names it in the same place (D36).
    pub fn outranked_at(&self, service: &ObjectId) -> impl Iterator<Item = &ObjectId> {
        let both = [self.remotes_at.get(service), self.literals_at.get(service)];
        both.into_iter().flatten().flat_map(|naming| {
            let outranked = naming.iter().filter(|(id, api)| is_outranked(naming, id, *api));
            outranked.map(|(id, _)| id)
        })
    }

    fn counting<'i>(
        &'i self,
        naming: Option<&'i BTreeSet<(ObjectId, KagentApi)>>,
    ) -> impl Iterator<Item = (&'i ObjectId, &'i RemoteServer)> {
        naming.into_iter().flat_map(move |naming| {
            let counts = naming.iter().filter(|(id, api)| !is_outranked(naming, id, *api));
            counts.filter_map(|(id, api)| Some((id, self.remotes.of(*api).get(id)?)))
        })
    }
}

fn is_outranked(naming: &BTreeSet<(ObjectId, KagentApi)>, id: &ObjectId, api: KagentApi) -> bool {
    api == KagentApi::V0 && naming.contains(&(id.clone(), KagentApi::V1))
}
