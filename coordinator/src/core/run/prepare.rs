//! Who decodes what, and the split of what can be decoded.

use std::collections::BTreeSet;

use super::{Now, Phase, Run, Stage};
use crate::core::event::{Action, Command, Notice, RunError, WorkerId};
use crate::core::shard::slice_of;
use crate::core::split::Split;

impl Run {
    /// At first all wait for each other, so that local workers can share the decoding; later
    /// each prepares as it comes.
    pub(super) fn after_scan(&mut self, now: Now, worker: WorkerId, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Gathering => {
                let scanned = |run: &Self| run.members.values().all(|m| m.stage > Stage::Joined);
                if self.members.len() == self.recipe.workers && scanned(self) {
                    self.prepare(now, out);
                }
            }
            _ if self.stage(worker) == Some(Stage::Ready) => self.on_ready(now, out),
            _ => {
                let samples = self.left_to_decode(worker);
                self.order_decoding(worker, samples, out);
            }
        }
    }

    /// A resumed run does not wait for ever for as many workers as it had.
    pub(super) fn gather_no_longer(&mut self, now: Now, out: &mut Vec<Action>) {
        let enough = self.members.len() >= self.recipe.min_workers
            && self.members.values().all(|m| m.stage > Stage::Joined);
        if self.resumed.is_some() && enough && now >= self.recipe.rejoin_timeout {
            self.prepare(now, out);
        }
    }

    fn stage(&self, worker: WorkerId) -> Option<Stage> {
        self.members.get(&worker).map(|member| member.stage)
    }

    /// Workers of the launcher share one cache and decode a part of it each; every other
    /// worker decodes all for itself.
    pub(super) fn prepare(&mut self, now: Now, out: &mut Vec<Action>) {
        self.phase = Phase::Preparing;
        let all: Vec<u32> = (0..self.files.len() as u32).collect();
        let waiting: Vec<(WorkerId, bool)> = self
            .members
            .iter()
            .filter(|(_, member)| member.stage == Stage::Scanned)
            .map(|(id, member)| (*id, member.slot.is_some()))
            .collect();
        let sharing: Vec<WorkerId> = waiting
            .iter()
            .filter(|(_, shares)| *shares)
            .map(|(id, _)| *id)
            .collect();
        for (worker, _) in &waiting {
            let place = sharing.iter().position(|id| id == worker);
            let samples = match place {
                Some(place) => slice_of(&all, place, sharing.len()).to_vec(),
                None => all.clone(),
            };
            self.order_decoding(*worker, samples, out);
        }
        if waiting.is_empty() {
            self.all_prepared(now, out);
        }
    }

    /// What is not yet in the cache of a worker that comes later.
    fn left_to_decode(&self, worker: WorkerId) -> Vec<u32> {
        let all = 0..self.files.len() as u32;
        let shares = |member: &super::Member| member.slot.is_some();
        if !self.members.get(&worker).is_some_and(shares) {
            return all.collect();
        }
        let others = || {
            self.members
                .iter()
                .filter(|(id, member)| **id != worker && shares(member))
        };
        // Once the split stands, all was decoded; the file is lost only with the coordinator.
        if self.split.is_some() && self.resumed.is_none() {
            return Vec::new();
        }
        let mut left: BTreeSet<u32> = all.collect();
        for sample in others().flat_map(|(_, member)| &member.decoding.0) {
            left.remove(sample);
        }
        left.into_iter().collect()
    }

    fn order_decoding(&mut self, worker: WorkerId, samples: Vec<u32>, out: &mut Vec<Action>) {
        let Some(member) = self.members.get_mut(&worker) else {
            return;
        };
        member.stage = Stage::Preparing;
        member.decoding = (samples.clone(), 0);
        let command = Command::Prepare {
            samples,
            images: self.files.len(),
            shared: member.slot.is_some(),
        };
        out.push(Action::Send(worker, command));
    }

    pub(super) fn on_preparing(&mut self, worker: WorkerId, done: u32, out: &mut Vec<Action>) {
        if let Some(member) = self.members.get_mut(&worker) {
            member.decoding.1 = done;
        }
        if !matches!(self.phase, Phase::Preparing) {
            return;
        }
        let sum = |count: fn(&(Vec<u32>, u32)) -> usize| {
            self.members.values().map(|m| count(&m.decoding)).sum()
        };
        out.push(Action::Notify(Notice::Preparing {
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
            if let Some((sample, reason)) = bad.iter().find(|(sample, _)| used.contains(sample)) {
                let path = self.path_of(*sample);
                return self.expel(worker, format!("{path}: {reason}"), out);
            }
        }
        if let Some(member) = self.members.get_mut(&worker) {
            member.stage = Stage::Ready;
        }
        self.bad.extend(bad);
        match self.phase {
            Phase::Preparing => {
                let enough = if self.resumed.is_some() {
                    self.recipe.min_workers
                } else {
                    self.recipe.workers
                };
                if self.members.len() >= enough
                    && self.members.values().all(|m| m.stage == Stage::Ready)
                {
                    self.all_prepared(now, out);
                }
            }
            _ => self.on_ready(now, out),
        }
    }

    fn path_of(&self, sample: u32) -> String {
        let file = self.files.get(sample as usize);
        file.map_or_else(String::new, |file| file.0.clone())
    }

    fn all_prepared(&mut self, now: Now, out: &mut Vec<Action>) {
        if self.split.is_none()
            && let Err(error) = self.make_split(out)
        {
            return self.fail(error, out);
        }
        self.assemble(now, self.members.len(), out);
    }

    fn make_split(&mut self, out: &mut Vec<Action>) -> Result<(), RunError> {
        for (sample, reason) in &self.bad {
            let path = self.path_of(*sample);
            if self.recipe.strict_data {
                return Err(RunError::Data(format!(
                    "{path}: {reason} (--strict-data is on; {} such files)",
                    self.bad.len()
                )));
            }
            out.push(Action::Notify(Notice::BadFile {
                path,
                reason: reason.clone(),
            }));
        }
        let good: Vec<u32> = (0..self.files.len() as u32)
            .filter(|sample| !self.bad.contains_key(sample))
            .collect();
        let split = Split::new(&good, self.recipe.validation_fraction, self.recipe.seed);
        let split = split.ok_or_else(|| {
            let count = good.len();
            RunError::Data(format!("only {count} usable images: at least 2 are needed"))
        })?;
        self.split = Some(split);
        self.show_split(out);
        Ok(())
    }

    pub(super) fn show_split(&self, out: &mut Vec<Action>) {
        if let Some(split) = &self.split {
            out.push(Action::Notify(Notice::SplitReady {
                fingerprint: self.fingerprint.clone().unwrap_or_default(),
                classes: self.classes.clone(),
                files: self.files.iter().map(|(path, _)| path.clone()).collect(),
                split: split.clone(),
            }));
        }
    }
}
