//! Who decodes what, and the split of what can be decoded.

use std::collections::BTreeSet;

use super::{Now, Phase, Run, Stage};
use crate::event::{Action, Command, DataError, Fact, RefusalReason, RunError, WorkerId};
use crate::shard::slice_of;
use crate::split::Split;

impl Run {
    /// At first all wait for each other, so that local workers can share the decoding; later
    /// each prepares as it comes.
    pub(super) fn after_scan(&mut self, now: Now, worker: WorkerId, out: &mut Vec<Action>) {
        match (&self.phase, self.stage(worker)) {
            (Phase::Gathering, _) => self.gather_if_possible(now, out),
            (_, Some(Stage::Ready)) => self.on_ready(now, out),
            _ => {
                let samples = self.left_to_decode(worker);
                self.order_decoding(worker, samples, out);
            }
        }
    }

    fn stage(&self, worker: WorkerId) -> Option<Stage> {
        self.members.get(&worker).map(|member| member.stage)
    }

    /// Whether everybody has come as far as `stage` who is worth waiting for. A resumed run does
    /// not wait for ever for as many as it had.
    fn all_reached(&self, now: Now, stage: Stage) -> bool {
        let staying = || self.members.values().filter(|member| !member.draining);
        let reached = staying().filter(|member| member.stage >= stage).count();
        let behind = |member: &super::Member| member.stage > Stage::Joined && member.stage < stage;
        let all = if self.recipe.local_ranks == 0 {
            reached >= self.recipe.workers
        } else {
            let mut ours = staying().filter(|member| member.local_rank.is_some());
            self.open_local_ranks() == 0 && ours.all(|member| member.stage >= stage)
        };
        let waited = self.resumed.is_some() && now >= self.recipe.rejoin_timeout;
        reached >= self.recipe.min_workers && (all || waited && !staying().any(behind))
    }

    /// With the slots that are left, there will never be enough.
    fn is_hopeless(&self) -> bool {
        let there = self.members.values().filter(|member| !member.draining);
        self.recipe.local_ranks > 0
            && there.count() + self.open_local_ranks() < self.recipe.min_workers
    }

    pub(super) fn gather_if_possible(&mut self, now: Now, out: &mut Vec<Action>) {
        if self.is_hopeless() {
            self.too_few(out);
        } else if self.all_reached(now, Stage::Scanned) {
            self.prepare(now, out);
        }
    }

    /// Workers of the launcher share one cache and decode a part of it each; every other
    /// worker decodes all for itself.
    fn prepare(&mut self, now: Now, out: &mut Vec<Action>) {
        self.phase = Phase::Preparing;
        let waiting = self.members.iter();
        let waiting = waiting.filter(|(_, member)| member.stage == Stage::Scanned);
        let (sharing, alone): (Vec<_>, Vec<_>) = waiting
            .map(|(id, member)| (*id, member.local_rank.is_some()))
            .partition(|(_, shares)| *shares);
        let all = self.not_cached();
        for (place, (worker, _)) in sharing.iter().enumerate() {
            let samples = slice_of(&all, place, sharing.len()).to_vec();
            self.order_decoding(*worker, samples, out);
        }
        for (worker, _) in alone {
            self.order_decoding(worker, (0..self.files.len() as u32).collect(), out);
        }
        self.split_if_possible(now, out);
    }

    fn not_cached(&self) -> Vec<u32> {
        let all = 0..self.files.len() as u32;
        all.filter(|sample| !self.cached.contains(sample)).collect()
    }

    /// What is not yet in the cache of a worker that comes later.
    fn left_to_decode(&self, worker: WorkerId) -> Vec<u32> {
        let shares = |member: &super::Member| member.local_rank.is_some();
        if !self.members.get(&worker).is_some_and(shares) {
            return (0..self.files.len() as u32).collect();
        }
        let mut left = self.not_cached();
        // Nobody begins before all are done, so that what others are at is not its business.
        if matches!(self.phase, Phase::Preparing) {
            let others = self.members.iter().filter(|(id, _)| **id != worker);
            let busy: BTreeSet<u32> = others
                .filter(|(_, member)| shares(member) && member.stage == Stage::Preparing)
                .filter_map(|(_, member)| member.decoding.as_ref())
                .flat_map(|(samples, _)| samples.iter().copied())
                .collect();
            left.retain(|sample| !busy.contains(sample));
        }
        left
    }

    fn order_decoding(&mut self, worker: WorkerId, samples: Vec<u32>, out: &mut Vec<Action>) {
        let Some(member) = self.members.get_mut(&worker) else {
            return;
        };
        member.stage = Stage::Preparing;
        member.decoding = Some((samples.clone(), 0));
        let command = Command::Prepare {
            samples,
            images: self.files.len(),
            shared: member.local_rank.is_some(),
        };
        out.push(Action::Send(worker, command));
    }

    pub(super) fn on_preparing(&mut self, worker: WorkerId, done: u32, out: &mut Vec<Action>) {
        let member = self.members.get_mut(&worker);
        if let Some((_, known)) = member.and_then(|member| member.decoding.as_mut()) {
            *known = done;
        }
        if !matches!(self.phase, Phase::Preparing) {
            return;
        }
        let sum = |count: fn(&(Vec<u32>, u32)) -> usize| {
            let decoding = self.members.values().filter_map(|m| m.decoding.as_ref());
            decoding.map(count).sum()
        };
        out.push(Action::Notify(Fact::Preparing {
            done: sum(|decoding| decoding.1 as usize),
            total: sum(|decoding| decoding.0.len()),
        }));
    }

    pub(super) fn on_prepared(
        &mut self,
        now: Now,
        worker: WorkerId,
        bad: Vec<(u32, String)>,
        out: &mut Vec<Action>,
    ) {
        if self.stage(worker) != Some(Stage::Preparing) {
            return;
        }
        if let Some(split) = &self.split {
            // Everybody has to be able to train on everything.
            let used: BTreeSet<u32> = split
                .train
                .iter()
                .chain(&split.validation)
                .copied()
                .collect();
            if let Some((sample, error)) = bad.iter().find(|(sample, _)| used.contains(sample)) {
                let (path, error) = (self.path_of(*sample), error.clone());
                let reason = RefusalReason::Data(DataError::Undecodable { path, error });
                return self.expel(now, worker, reason, out);
            }
        }
        if let Some(member) = self.members.get_mut(&worker) {
            member.stage = Stage::Ready;
            if let (Some(_), Some((samples, _))) = (member.local_rank, &member.decoding) {
                self.cached.extend(samples);
            }
        }
        self.bad.extend(bad);
        self.on_ready(now, out);
    }

    fn path_of(&self, sample: u32) -> String {
        let file = self.files.get(sample as usize);
        file.map_or_else(String::new, |file| file.0.clone())
    }

    pub(super) fn split_if_possible(&mut self, now: Now, out: &mut Vec<Action>) {
        if self.is_hopeless() {
            return self.too_few(out);
        }
        if !self.all_reached(now, Stage::Ready) {
            return;
        }
        // Whoever had a part of the shared cache to fill may have died with it.
        let left = self.not_cached();
        let shares =
            |member: &super::Member| member.local_rank.is_some() && member.decoding.is_some();
        let sharing = self.members.iter().find(|(_, member)| shares(member));
        if let (Some((&worker, _)), false) = (sharing, left.is_empty()) {
            return self.order_decoding(worker, left, out);
        }
        if self.split.is_none()
            && let Err(error) = self.make_split(out)
        {
            return self.fail(RunError::Data(error), out);
        }
        self.assemble(now, 0, out);
    }

    fn make_split(&mut self, out: &mut Vec<Action>) -> Result<(), DataError> {
        for (sample, error) in &self.bad {
            let path = self.path_of(*sample);
            if self.recipe.strict_data {
                return Err(DataError::Strict {
                    path,
                    error: error.clone(),
                    files: self.bad.len(),
                });
            }
            out.push(Action::Notify(Fact::BadFile {
                path,
                error: error.clone(),
            }));
        }
        let good: Vec<u32> = (0..self.files.len() as u32)
            .filter(|sample| !self.bad.contains_key(sample))
            .collect();
        let split = Split::new(&good, self.recipe.validation_fraction, self.recipe.seed);
        self.split = Some(split.ok_or(DataError::TooFewImages { usable: good.len() })?);
        self.show_split(out);
        Ok(())
    }

    pub(super) fn show_split(&self, out: &mut Vec<Action>) {
        if let Some(split) = &self.split {
            out.push(Action::Notify(Fact::SplitReady {
                fingerprint: self.fingerprint.clone().unwrap_or_default(),
                classes: self.classes.clone(),
                files: self.files.iter().map(|(path, _)| path.clone()).collect(),
                split: split.clone(),
            }));
        }
    }
}
