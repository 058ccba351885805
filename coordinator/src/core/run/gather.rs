//! Before training: who joins, what they see, and which files decode.

use std::collections::BTreeSet;

use super::{Member, Phase, Run};
use crate::core::event::{Action, Command, Notice, RunError, Scan, WorkerId};
use crate::core::shard::slice_of;
use crate::core::split::Split;

impl Run {
    pub(super) fn on_joined(
        &mut self,
        worker: WorkerId,
        host: String,
        slot: Option<u32>,
        out: &mut Vec<Action>,
    ) {
        if !matches!(self.phase, Phase::Gathering) || self.members.len() >= self.recipe.workers {
            let reason = format!("the run already has its {} workers", self.recipe.workers);
            out.push(Action::Send(
                worker,
                Command::Shutdown {
                    reason,
                    abort: false,
                },
            ));
            return;
        }
        self.members.insert(
            worker,
            Member {
                host,
                slot,
                scan: None,
                preparing: 0,
                prepared: false,
                rank: 0,
                in_group: false,
                completed: 0,
                share: (0, 0..0),
                report: None,
                finished: false,
            },
        );
        out.push(Action::Send(worker, Command::Welcome));
        out.push(Action::Notify(Notice::Member {
            joined: self.members.len(),
            expected: self.recipe.workers,
        }));
    }

    pub(super) fn on_scanned(&mut self, worker: WorkerId, mut scan: Scan, out: &mut Vec<Action>) {
        if !matches!(self.phase, Phase::Gathering) || !self.members.contains_key(&worker) {
            return;
        }
        let other = self.members.values().find(|member| member.scan.is_some());
        if let Some(member) = other
            && let Some(first) = &member.scan
            && first.fingerprint != scan.fingerprint
        {
            let host = self
                .members
                .get(&worker)
                .map_or("", |member| member.host.as_str());
            let message = different_data(&member.host, first, &self.files, host, &scan);
            return self.fail(RunError::Data(message), out);
        }
        let files = std::mem::take(&mut scan.files);
        if other.is_none() {
            self.files = files;
            self.classes = scan.classes.clone();
        }
        if let Some(member) = self.members.get_mut(&worker) {
            member.scan = Some(scan);
        }
        if self.members.len() == self.recipe.workers && self.all(|member| member.scan.is_some()) {
            if let Some(message) = self.mixed_devices() {
                return self.fail(RunError::Environment(message), out);
            }
            self.prepare(out);
        }
    }

    /// Collectives join CPUs or GPUs, not both.
    fn mixed_devices(&self) -> Option<String> {
        let device = |gpu: bool| {
            self.members.values().find(|member| {
                member
                    .scan
                    .as_ref()
                    .is_some_and(|scan| scan.device.starts_with("cuda") == gpu)
            })
        };
        let (gpu, cpu) = (device(true)?, device(false)?);
        Some(format!(
            "a worker on {} computes on a GPU and one on {} on the CPU; use --device cpu, or GPUs everywhere",
            gpu.host, cpu.host
        ))
    }

    /// Workers of the launcher share one cache and decode a part of it each; every other
    /// worker decodes all for itself.
    pub(super) fn prepare(&mut self, out: &mut Vec<Action>) {
        self.phase = Phase::Preparing;
        let all: Vec<u32> = (0..self.files.len() as u32).collect();
        let sharing: Vec<WorkerId> = self
            .members
            .iter()
            .filter(|(_, m)| m.slot.is_some())
            .map(|(id, _)| *id)
            .collect();
        for worker in self.members.keys() {
            let place = sharing.iter().position(|id| id == worker);
            let samples = match place {
                Some(place) => slice_of(&all, place, sharing.len()).to_vec(),
                None => all.clone(),
            };
            let command = Command::Prepare {
                samples,
                images: all.len(),
                shared: place.is_some(),
            };
            out.push(Action::Send(*worker, command));
        }
    }

    pub(super) fn on_preparing(&mut self, worker: WorkerId, done: u32, out: &mut Vec<Action>) {
        if let Some(member) = self.members.get_mut(&worker) {
            member.preparing = done;
        }
        let sharing = self.members.values().any(|member| member.slot.is_some());
        let total = self.files.len() * if sharing { 1 } else { self.members.len() };
        let done = self
            .members
            .values()
            .map(|member| member.preparing as usize)
            .sum();
        out.push(Action::Notify(Notice::Preparing { done, total }));
    }

    pub(super) fn on_prepared(
        &mut self,
        worker: WorkerId,
        bad: Vec<(u32, String)>,
        out: &mut Vec<Action>,
    ) {
        if !matches!(self.phase, Phase::Preparing) {
            return;
        }
        let Some(member) = self.members.get_mut(&worker) else {
            return;
        };
        member.prepared = true;
        self.bad.extend(bad);
        if !self.all(|member| member.prepared) {
            return;
        }
        for (sample, reason) in &self.bad {
            let path = self
                .files
                .get(*sample as usize)
                .map_or_else(String::new, |f| f.0.clone());
            if self.recipe.strict_data {
                let message = format!(
                    "{path}: {reason} (--strict-data is on; {} such files)",
                    self.bad.len()
                );
                return self.fail(RunError::Data(message), out);
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
        let Some(split) = split else {
            let message = format!("only {} usable images: at least 2 are needed", good.len());
            return self.fail(RunError::Data(message), out);
        };
        self.split = split;
        out.push(Action::Notify(Notice::SplitReady {
            classes: self.classes.clone(),
            files: self.files.iter().map(|(path, _)| path.clone()).collect(),
            split: self.split.clone(),
        }));
        self.form(out);
    }
}

/// The message for two workers whose folders differ, with the first path that does.
fn different_data(
    host_a: &str,
    a: &Scan,
    files_a: &[(String, u64)],
    host_b: &str,
    b: &Scan,
) -> String {
    let all: BTreeSet<_> = files_a.iter().chain(&b.files).collect();
    let in_a: BTreeSet<_> = files_a.iter().collect();
    let in_b: BTreeSet<_> = b.files.iter().collect();
    let differs = all
        .iter()
        .find(|file| in_a.contains(*file) != in_b.contains(*file));
    let path = differs.map_or("(none)", |file| file.0.as_str());
    format!(
        "workers see different data: {} on {host_a}, {} on {host_b}; first difference: {path}",
        short(&a.fingerprint),
        short(&b.fingerprint)
    )
}

fn short(fingerprint: &str) -> &str {
    fingerprint.get(..16).unwrap_or(fingerprint)
}
