//! Tool servers by URL: which Services their objects name, and which of two groups counts.
//!
//! Pure. Whose word an object is, and whether it counts, others decide.

use super::{Ids, Index, link, unlink};
use crate::discovery::object::{KagentApi, RemoteServer};
use crate::route::ObjectId;

// === impl Index ===

impl Index {
    pub(super) fn set_remote(&mut self, api: KagentApi, id: &ObjectId, new: Option<RemoteServer>) {
        if self.remotes.of(api).get(id) == new.as_ref() {
            return;
        }
        self.uses_dirty.extend(self.users_of_remote(id));
        for service in self.spoken_of(id) {
            unlink(&mut self.remotes_at, &service, id);
            unlink(&mut self.literals_at, &service, id);
            unlink(&mut self.outranked_at, &service, id);
            self.touch(&service);
        }
        self.remotes.set(api, id, new);
        let hosts = |index: &Self, server: Option<&RemoteServer>| {
            let literal = server.and_then(|server| server.literal_host.as_deref());
            let url = server.map(|server| server.host.as_str());
            [url, literal].map(|host| index.host(host?).map(|host| host.service))
        };
        let [url, literal] = hosts(self, self.remotes.get(id));
        let outranked = hosts(self, self.remotes.outranked(id));
        url.iter().for_each(|service| link(&mut self.remotes_at, service, id));
        literal.iter().for_each(|service| link(&mut self.literals_at, service, id));
        let outranked = outranked.iter().flatten();
        outranked.for_each(|service| link(&mut self.outranked_at, service, id));
        self.touch_all(&self.spoken_of(id));
    }

    /// A `RemoteMCPServer`, of the newer group if both have it.
    #[must_use]
    pub fn remote(&self, id: &ObjectId) -> Option<&RemoteServer> {
        self.remotes.get(id)
    }

    /// The Services that a tool server's objects name, that of the other group too if both have it.
    pub(super) fn spoken_of(&self, remote: &ObjectId) -> Ids {
        let both = [self.remotes.get(remote), self.remotes.outranked(remote)];
        let hosts = both.into_iter().flatten().flat_map(|server| {
            [Some(server.host.as_str()), server.literal_host.as_deref()].into_iter().flatten()
        });
        hosts.filter_map(|host| self.host(host)).map(|h| h.service).collect()
    }

    /// Tool servers whose URL names a Service, in the order of their names.
    pub fn remotes_at(
        &self,
        service: &ObjectId,
    ) -> impl Iterator<Item = (&ObjectId, &RemoteServer)> {
        let ids = self.remotes_at.get(service).into_iter().flatten();
        ids.filter_map(|id| Some((id, self.remotes.get(id)?)))
    }

    /// Tool servers with a literal `x-kagent-host` of a Service, in the order of their names.
    pub fn literals_at(
        &self,
        service: &ObjectId,
    ) -> impl Iterator<Item = (&ObjectId, &RemoteServer)> {
        let ids = self.literals_at.get(service).into_iter().flatten();
        ids.filter_map(|id| Some((id, self.remotes.get(id)?)))
    }

    /// Tool servers of `kagent.dev` that name a Service and do not count: `api.kagent.dev` has their name.
    pub fn outranked_at(&self, service: &ObjectId) -> impl Iterator<Item = &ObjectId> {
        self.outranked_at.get(service).into_iter().flatten()
    }
}
