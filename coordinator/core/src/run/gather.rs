//! Who joins, and what they see.

use std::collections::BTreeSet;

use super::loss::Successor;
use super::{Member, Now, Phase, Run, Stage};
use crate::event::{Action, Command, Fact, RunError, Scan, WorkerId};

impl Run {
    pub(super) fn on_joined(
        &mut self,
        now: Now,
        worker: WorkerId,
        (host, pid, instance): (String, u32, u64),
        local_rank: Option<u32>,
        out: &mut Vec<Action>,
    ) {
        // Of another launcher's, or none.
        let local_rank = local_rank.filter(|local_rank| *local_rank < self.recipe.local_ranks);
        // A process has one session: a second one tells that the first is broken.
        let former = self
            .members
            .iter()
            .find(|(_, member)| member.instance == instance)
            .map(|(id, _)| *id);
        if let Some(reason) = self.admission_error(former, pid, local_rank) {
            let who = format!("{worker} on {host}");
            return self.turn_away(worker, who, reason, out);
        }
        let from_before =
            local_rank.is_some_and(|local_rank| self.process_in(local_rank) != Some(pid));
        self.members.insert(
            worker,
            Member {
                host: host.clone(),
                pid,
                instance,
                local_rank,
                from_before,
                joined: now,
                scan: None,
                stage: Stage::Joined,
                decoding: None,
                retained: None,
                best: None,
                draining: false,
                heartbeat: None,
                assignment: None,
            },
        );
        if let (Phase::Assembling(assembling), None, None) = (&mut self.phase, local_rank, former) {
            assembling.absent = assembling.absent.saturating_sub(1);
        }
        out.push(Action::Send(worker, Command::Registered));
        out.push(Action::Notify(Fact::Joined {
            worker,
            host,
            local_rank,
            members: self.members.len() - usize::from(former.is_some()),
            expected: self.recipe.workers,
        }));
        if let Some(former) = former {
            let cause = "it opened a new session";
            let (reason, abort) = (cause.to_owned(), false);
            out.push(Action::Send(former, Command::Shutdown { reason, abort }));
            self.drop_member(now, former, cause, Successor::None, out);
        }
    }

    fn admission_error(
        &self,
        former: Option<WorkerId>,
        pid: u32,
        local_rank: Option<u32>,
    ) -> Option<String> {
        if matches!(self.phase, Phase::Finishing(_) | Phase::Closed) {
            return Some("the run is about to end".to_owned());
        }
        if former.is_some() {
            return None;
        }
        if let Some(local_rank) = local_rank {
            return self.no_claim_on(local_rank, pid);
        }
        // The launcher's workers have their places, also when they come later.
        let (taken, limit) = (
            self.members.len() + self.open_local_ranks(),
            self.recipe.max_workers,
        );
        (taken >= limit).then(|| format!("the run already has its {limit} workers"))
    }

    /// Says no to somebody who is no member, or no longer one.
    pub(super) fn turn_away(
        &mut self,
        worker: WorkerId,
        who: String,
        reason: String,
        out: &mut Vec<Action>,
    ) {
        out.push(Action::Notify(Fact::Refused {
            who,
            reason: reason.clone(),
        }));
        let abort = false;
        out.push(Action::Send(worker, Command::Shutdown { reason, abort }));
    }

    pub(super) fn on_scanned(
        &mut self,
        now: Now,
        worker: WorkerId,
        mut scan: Scan,
        out: &mut Vec<Action>,
    ) {
        let stage = self.members.get(&worker).map(|member| member.stage);
        if stage != Some(Stage::Joined) {
            return;
        }
        let refusal = self.config_mismatch(worker, &scan);
        let refusal = match refusal {
            None => self.adopt(&mut scan, out).err(),
            some => some,
        };
        if let Some(error) = refusal {
            let strange = self.split.is_none()
                && self.members.get(&worker).is_some_and(
                    // Data that a resumed run was not started with, by somebody from elsewhere.
                    |member| self.resumed.is_none() || member.local_rank.is_some(),
                );
            if strange {
                return self.fail(error, out);
            }
            // The run is fine without it, and the same program would see the same again.
            return self.expel(now, worker, error.to_string(), out);
        }
        let memory = scan.memory;
        let host = self.members.get(&worker).map_or("", |m| m.host.as_str());
        out.extend(
            std::mem::take(&mut scan.warnings)
                .into_iter()
                .map(|warning| {
                    let host = host.to_owned();
                    Action::Notify(Fact::Warned { host, warning })
                }),
        );
        if let Some(member) = self.members.get_mut(&worker) {
            // Whoever was in a group can read everything; others know only their own part.
            let prepared = memory.prepared && memory.retained.is_some() && self.split.is_some();
            member.stage = if prepared {
                Stage::Ready
            } else {
                Stage::Scanned
            };
            member.retained = memory.retained;
            member.best = memory.best;
            member.scan = Some(scan);
        }
        self.after_scan(now, worker, out);
    }

    /// Removes a member that can be of no use to a run which is fine otherwise.
    pub(super) fn expel(
        &mut self,
        now: Now,
        worker: WorkerId,
        reason: String,
        out: &mut Vec<Action>,
    ) {
        let who = self.describe(worker);
        if let Some(member) = self.members.remove(&worker) {
            self.last_loss = (member.local_rank, format!("{who}: {reason}"));
            self.close_local_rank(member.local_rank);
        }
        self.turn_away(worker, who, reason, out);
        self.go_on(now, out);
    }

    fn config_mismatch(&self, worker: WorkerId, scan: &Scan) -> Option<RunError> {
        let host = self.members.get(&worker).map_or("", |m| m.host.as_str());
        let other = self.members.values().find(|member| member.scan.is_some());
        let on_gpu = |scan: &Scan| scan.device.starts_with("cuda");
        if let Some(other) = other
            && let Some(theirs) = &other.scan
            && on_gpu(theirs) != on_gpu(scan)
        {
            let (gpu, cpu) = if on_gpu(scan) {
                (host, other.host.as_str())
            } else {
                (other.host.as_str(), host)
            };
            return Some(RunError::Environment(format!(
                "a worker on {gpu} computes on a GPU and one on {cpu} on the CPU; use --device \
                 cpu, or GPUs everywhere"
            )));
        }
        let known = self.fingerprint.as_ref()?;
        if *known == scan.fingerprint {
            return None;
        }
        let theirs = other.map_or("the run directory", |member| member.host.as_str());
        Some(RunError::Data(different_data(
            (theirs, known, &self.files),
            (host, &scan.fingerprint, &scan.files),
        )))
    }

    /// Learns classes and files from the first worker that knows them.
    fn adopt(&mut self, scan: &mut Scan, out: &mut Vec<Action>) -> Result<(), RunError> {
        let files = std::mem::take(&mut scan.files);
        if !self.files.is_empty() {
            return Ok(());
        }
        self.files = files;
        self.classes.clone_from(&scan.classes);
        self.fingerprint = Some(scan.fingerprint.clone());
        self.restore_split()?;
        self.show_split(out);
        Ok(())
    }
}

/// The message for two folders that differ, with the first path that does.
fn different_data(
    (host_a, a, files_a): (&str, &str, &[(String, u64)]),
    (host_b, b, files_b): (&str, &str, &[(String, u64)]),
) -> String {
    let in_a: BTreeSet<_> = files_a.iter().collect();
    let in_b: BTreeSet<_> = files_b.iter().collect();
    let differs = in_a.symmetric_difference(&in_b).min();
    let path = differs.map_or("(unknown)", |file| file.0.as_str());
    format!(
        "workers see different data: {} on {host_a}, {} on {host_b}; first difference: {path}",
        short(a),
        short(b)
    )
}

fn short(fingerprint: &str) -> &str {
    fingerprint.get(..16).unwrap_or(fingerprint)
}
