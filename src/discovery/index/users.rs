//! Who uses what: Agents, the templates that they are made of, and the tool servers that both name.
//!
//! A template is used by Agents and, as a sub-agent, by other templates, in any depth and perhaps in a circle. Pure.

use std::collections::{BTreeSet, HashMap};

use super::{Ids, Index, link, unlink};
use crate::discovery::object::{Agent, KagentApi};
use crate::route::ObjectId;

/// What uses tool servers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum User {
    /// An Agent of a group.
    Agent(KagentApi, ObjectId),
    /// An `AgentTemplate`.
    Template(ObjectId),
}

/// By what is used.
pub(super) type Users = HashMap<ObjectId, BTreeSet<User>>;

// === impl Index ===

impl Index {
    pub(super) fn set_agent(&mut self, api: KagentApi, id: &ObjectId, new: Option<Agent>) {
        // Its status changes often, and says nothing that we read.
        if self.agents.of(api).get(id) == new.as_ref() {
            return;
        }
        self.touch(id);
        let user = User::Agent(api, id.clone());
        self.forget_user(&user);
        self.agents.set(api, id, new);
        self.learn_user(&user);
    }

    pub(super) fn set_template(&mut self, id: ObjectId, new: Option<Agent>) {
        if self.templates.get(&id) == new.as_ref() {
            return;
        }
        let user = User::Template(id.clone());
        self.forget_user(&user);
        match new {
            Some(new) => self.templates.insert(id, new),
            None => self.templates.remove(&id),
        };
        self.learn_user(&user);
    }

    /// Takes back what a user says, and marks what depends on it.
    fn forget_user(&mut self, user: &User) {
        self.user_changes(user);
        let Some(old) = self.said_by(user).cloned() else { return };
        for (used, users) in self.used_by(&old) {
            used.iter().for_each(|used| unlink(users, used, user));
        }
    }

    /// Takes over what a user says, and marks what depends on it.
    fn learn_user(&mut self, user: &User) {
        if let Some(new) = self.said_by(user).cloned() {
            for (used, users) in self.used_by(&new) {
                used.iter().for_each(|used| link(users, used, user));
            }
        }
        self.user_changes(user);
    }

    /// What is used, and where its users are noted.
    fn used_by<'s>(&mut self, said: &'s Agent) -> [(&'s [ObjectId], &mut Users); 4] {
        [
            (&said.remotes, &mut self.users_of_remote),
            (&said.services, &mut self.users_of_service),
            (&said.templates, &mut self.users_of_template),
            (&said.agents, &mut self.users_of_agent),
        ]
    }

    fn user_changes(&mut self, user: &User) {
        let agents = self.agents_behind([user]);
        self.uses_dirty.extend(agents);
        if let User::Agent(_, id) = user {
            self.uses_dirty.insert(id.clone());
            // It says who may use it.
            let users = self.agents_behind(self.users_of_agent.get(id).into_iter().flatten());
            self.uses_dirty.extend(users);
        }
        let mut hosts = Ids::new();
        // Whom a tool server's object binds are Agents that are known as callers, and so none made of templates.
        if let (User::Agent(KagentApi::V0, _), Some(said)) = (user, self.said_by(user)) {
            hosts.extend(said.remotes.iter().flat_map(|remote| self.spoken_of(remote)));
            hosts.extend(said.services.iter().cloned());
        }
        self.touch_all(&hosts);
    }

    fn said_by(&self, user: &User) -> Option<&Agent> {
        match user {
            User::Agent(api, id) => self.agents.of(*api).get(id),
            User::Template(id) => self.templates.get(id),
        }
    }

    /// What an Agent says itself, and what the templates say that it is made of, each once.
    fn with_templates<'i>(&'i self, agent: &'i Agent) -> Vec<&'i Agent> {
        let mut all = vec![agent];
        let mut seen = Ids::new();
        let mut at = 0;
        while let Some(said) = all.get(at) {
            let fresh = said.templates.iter().filter(|id| seen.insert((*id).clone()));
            all.extend(fresh.filter_map(|id| self.templates.get(id)).collect::<Vec<_>>());
            at += 1;
        }
        all
    }

    /// What an Agent says that it uses, in either group, by itself and by its templates. Empty if it does not say: one
    /// that is not declarative, that is gone, or whose template is not known.
    #[must_use]
    pub fn declared_by(&self, id: &ObjectId) -> Vec<(KagentApi, &Agent)> {
        let mut all = Vec::new();
        for api in [KagentApi::V0, KagentApi::V1] {
            let agent = self.agents.of(api).get(id).filter(|agent| agent.declares);
            let known = |template| self.templates.contains_key(template);
            if let Some(agent) = agent.filter(|agent| agent.templates.iter().all(known)) {
                all.extend(self.with_templates(agent).into_iter().map(|said| (api, said)));
            }
        }
        all
    }

    /// The Agents among these users, and those made of the templates among them.
    fn agents_behind<'u>(&'u self, users: impl IntoIterator<Item = &'u User>) -> Ids {
        let mut left: Vec<&User> = users.into_iter().collect();
        let (mut agents, mut templates) = (Ids::new(), Ids::new());
        while let Some(user) = left.pop() {
            match user {
                User::Agent(_, id) => {
                    agents.insert(id.clone());
                }
                User::Template(id) if templates.insert(id.clone()) => {
                    left.extend(self.users_of_template.get(id).into_iter().flatten());
                }
                User::Template(_) => {}
            }
        }
        agents
    }

    /// Agents of either group that have a tool server among their tools.
    #[must_use]
    pub fn users_of_remote(&self, remote: &ObjectId) -> Ids {
        self.agents_behind(self.users_of_remote.get(remote).into_iter().flatten())
    }

    /// Those of them that may be known as callers, which Agents of `api.kagent.dev` never are (D37).
    #[must_use]
    pub fn callers_of_remote(&self, remote: &ObjectId) -> Ids {
        let users = self.users_of_remote.get(remote).into_iter().flatten();
        let known = users.filter_map(|user| match user {
            User::Agent(KagentApi::V0, id) => Some(id.clone()),
            _ => None,
        });
        known.collect()
    }

    /// Agents that have a Service among their tools.
    #[must_use]
    pub fn users_of_service(&self, service: &ObjectId) -> Ids {
        self.agents_behind(self.users_of_service.get(service).into_iter().flatten())
    }
}
