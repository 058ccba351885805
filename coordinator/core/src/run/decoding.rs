//! Which worker decodes which images, and the split of those that decode.

use std::collections::BTreeSet;

use super::parts::{Decoding, Member, Stage};
use super::{Phase, Run};
use crate::event::{Action, Command, Fact, RefusalReason, RunError, WorkerId};
use crate::shard::slice_of;

impl Run {
    /// At first all wait for each other, so that local workers can share the decoding; later
    /// each prepares as it comes.
    pub(super) fn after_scan(&mut self, worker: WorkerId) {
        match (&self.phase, self.stage(worker)) {
            (Phase::Gathering, _) => self.gather_if_possible(),
            (_, Some(Stage::Ready)) => self.on_ready(),
            _ => {
                let samples = self.left_to_decode(worker);
                self.order_decoding(worker, samples);
            }
        }
    }

    fn stage(&self, worker: WorkerId) -> Option<Stage> {
        self.members.get(worker).map(|member| member.stage)
    }

    /// Whether all workers that are worth waiting for have come as far as `stage`. A resumed run
    /// waits only for a limited time for as many as it had.
    fn all_reached(&self, stage: Stage) -> bool {
        let staying = || self.members.values().filter(|member| !member.draining);
        let reached = staying().filter(|member| member.stage >= stage).count();
        let behind = |member: &Member| member.stage > Stage::Joined && member.stage < stage;
        let all = if self.local_workers.are_launched() {
            let mut ours = staying().filter(|member| member.local_rank.is_some());
            self.vacant_local_ranks() == 0 && ours.all(|member| member.stage >= stage)
        } else {
            reached >= self.recipe.workers
        };
        let waited = self.resumed && self.now >= self.recipe.rejoin_timeout;
        reached >= self.recipe.min_workers && (all || waited && !staying().any(behind))
    }

    /// With the local ranks that are left, there will never be enough workers.
    fn is_hopeless(&self) -> bool {
        let members = self.members.values().filter(|member| !member.draining);
        self.local_workers.are_launched()
            && members.count() + self.vacant_local_ranks() < self.recipe.min_workers
    }

    pub(super) fn gather_if_possible(&mut self) {
        if self.is_hopeless() {
            self.too_few();
        } else if self.all_reached(Stage::Scanned) {
            self.prepare();
        }
    }

    /// Workers of the launcher share one cache and decode a part of it each; every other worker
    /// decodes all for itself.
    fn prepare(&mut self) {
        self.phase = Phase::Preparing;
        let waiting = self.members.iter();
        let waiting = waiting.filter(|(_, member)| member.stage == Stage::Scanned);
        let (sharing, alone): (Vec<_>, Vec<_>) = waiting
            .map(|(id, member)| (id, member.shares_cache()))
            .partition(|(_, shares)| *shares);
        let all = self.dataset.not_cached();
        for (part, (worker, _)) in sharing.iter().enumerate() {
            let samples = slice_of(&all, part, sharing.len()).to_vec();
            self.order_decoding(*worker, samples);
        }
        for (worker, _) in alone {
            self.order_decoding(worker, self.dataset.samples());
        }
        self.split_if_possible();
    }

    /// What is not yet in the cache of a worker that comes later.
    fn left_to_decode(&self, worker: WorkerId) -> Vec<u32> {
        if !self.members.get(worker).is_some_and(Member::shares_cache) {
            return self.dataset.samples();
        }
        let mut left = self.dataset.not_cached();
        // Training does not begin before all are done, so what others are decoding is left to them.
        if matches!(self.phase, Phase::Preparing) {
            let others = self.members.iter().filter(|(id, _)| *id != worker);
            let busy: BTreeSet<u32> = others
                .filter(|(_, member)| member.shares_cache() && member.stage == Stage::Preparing)
                .filter_map(|(_, member)| member.decoding.as_ref())
                .flat_map(|decoding| decoding.samples.iter().copied())
                .collect();
            left.retain(|sample| !busy.contains(sample));
        }
        left
    }

    fn order_decoding(&mut self, worker: WorkerId, samples: Vec<u32>) {
        let threads = self.threads_to_decode(worker);
        let Some(member) = self.members.get_mut(worker) else {
            return;
        };
        member.stage = Stage::Preparing;
        member.decoding = Some(Decoding {
            samples: samples.clone(),
            done: 0,
            reported: self.now,
        });
        let command = Command::Prepare {
            samples,
            images: self.dataset.len(),
            shared: member.shares_cache(),
            threads,
        };
        self.send(worker, command);
    }

    pub(super) fn on_preparing(&mut self, worker: WorkerId, done: u32) {
        let member = self.members.get_mut(worker);
        if let Some(decoding) = member.and_then(|member| member.decoding.as_mut()) {
            decoding.done = done;
            decoding.reported = self.now;
        }
        if !matches!(self.phase, Phase::Preparing) {
            return;
        }
        let sum = |count: fn(&Decoding) -> usize| {
            let decoding = self.members.values().filter_map(|m| m.decoding.as_ref());
            decoding.map(count).sum()
        };
        self.notify(Fact::Preparing {
            done: sum(|decoding| decoding.done as usize),
            total: sum(|decoding| decoding.samples.len()),
        });
    }

    pub(super) fn on_prepared(&mut self, worker: WorkerId, bad: Vec<(u32, String)>) {
        if self.stage(worker) != Some(Stage::Preparing) {
            return;
        }
        // Every member has to be able to train on everything.
        if let Err(error) = self.dataset.check_usable(&bad) {
            return self.expel(worker, RefusalReason::Data(error));
        }
        if let Some(member) = self.members.get_mut(worker) {
            member.stage = Stage::Ready;
            if let (true, Some(decoding)) = (member.shares_cache(), &member.decoding) {
                self.dataset.cache(&decoding.samples);
            }
        }
        self.dataset.leave_out(bad);
        self.on_ready();
    }

    pub(super) fn split_if_possible(&mut self) {
        if self.is_hopeless() {
            return self.too_few();
        }
        if !self.all_reached(Stage::Ready) {
            return;
        }
        // A worker that had a part of the shared cache to fill may have died with it.
        let left = self.dataset.not_cached();
        let shares = |member: &Member| member.shares_cache() && member.decoding.is_some();
        if let (Some(worker), false) = (self.members.find(shares), left.is_empty()) {
            return self.order_decoding(worker, left);
        }
        if self.dataset.split().is_none() {
            let report = |fact| self.out.push(Action::Notify(fact));
            if let Err(error) = self.dataset.make_split(&self.recipe, report) {
                return self.fail(RunError::Data(error));
            }
            self.out
                .extend(self.dataset.split_fact().map(Action::Notify));
        }
        self.assemble(0);
    }
}
