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
    /// An Agent.
    Agent(ObjectId),
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
        let user = User::Agent(id.clone());
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
        for (used, users) in [
            (&old.remotes, &mut self.users_of_remote),
            (&old.services, &mut self.users_of_service),
            (&old.templates, &mut self.users_of_template),
            (&old.agents, &mut self.users_of_agent),
        ] {
            used.iter().for_each(|used| unlink(users, used, user));
        }
    }

    /// Takes over what a user says, and marks what depends on it.
    fn learn_user(&mut self, user: &User) {
        if let Some(new) = self.said_by(user).cloned() {
            for (used, users) in [
                (&new.remotes, &mut self.users_of_remote),
                (&new.services, &mut self.users_of_service),
                (&new.templates, &mut self.users_of_template),
                (&new.agents, &mut self.users_of_agent),
            ] {
                used.iter().for_each(|used| link(users, used, user));
            }
        }
        self.user_changes(user);
    }

    fn user_changes(&mut self, user: &User) {
        let agents = self.agents_behind([user]);
        self.uses_dirty.extend(agents);
        if let User::Agent(id) = user {
            self.uses_dirty.insert(id.clone());
            // It says who may use it.
            let users = self.agents_behind(self.users_of_agent.get(id).into_iter().flatten());
            self.uses_dirty.extend(users);
        }
        let mut hosts = Ids::new();
        for said in self.all_said_by(user) {
            hosts.extend(said.remotes.iter().flat_map(|remote| self.spoken_of(remote)));
            hosts.extend(said.services.iter().cloned());
        }
        self.touch_all(&hosts);
    }

    fn said_by(&self, user: &User) -> Option<&Agent> {
        match user {
            User::Agent(id) => self.agents.get(id),
            User::Template(id) => self.templates.get(id),
        }
    }

    /// What a user says itself, and what the templates say that it is made of, each once. A template that is not
    /// known says nothing.
    fn all_said_by(&self, user: &User) -> Vec<&Agent> {
        let mut all: Vec<&Agent> = self.said_by(user).into_iter().collect();
        let mut seen = Ids::new();
        let mut at = 0;
        while let Some(said) = all.get(at) {
            let fresh = said.templates.iter().filter(|id| seen.insert((*id).clone()));
            all.extend(fresh.filter_map(|id| self.templates.get(id)).collect::<Vec<_>>());
            at += 1;
        }
        all
    }

    /// What an Agent says that it uses, by itself and by its templates; empty if it does not say: one that is not
    /// declarative, that is gone, or whose template is not known.
    #[must_use]
    pub fn declared_by(&self, id: &ObjectId) -> Vec<&Agent> {
        let Some(agent) = self.agents.get(id).filter(|agent| agent.declares) else {
            return Vec::new();
        };
        if agent.templates.iter().any(|template| !self.templates.contains_key(template)) {
            return Vec::new();
        }
        self.all_said_by(&User::Agent(id.clone()))
    }

    /// The Agents among these users, and those made of the templates among them.
    fn agents_behind<'u>(&self, users: impl IntoIterator<Item = &'u User>) -> Ids {
        let mut left: Vec<&User> = users.into_iter().collect();
        let (mut agents, mut templates) = (Ids::new(), Ids::new());
        while let Some(user) = left.pop() {
            match user {
                User::Agent(id) => {
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

    /// Agents that have a tool server among their tools.
    #[must_use]
    pub fn users_of_remote(&self, remote: &ObjectId) -> Ids {
        self.agents_behind(self.users_of_remote.get(remote).into_iter().flatten())
    }

    /// Agents that have a Service among their tools.
    #[must_use]
    pub fn users_of_service(&self, service: &ObjectId) -> Ids {
        self.agents_behind(self.users_of_service.get(service).into_iter().flatten())
    }
}
