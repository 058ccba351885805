//! A generation: ranks, the store through which they meet, and the state that all begin with.

use super::{Assignment, Forming, Member, Now, Phase, Precision, Run};
use crate::event::{
    Action, Backend, Command, ComputeType, Fact, Origin, Position, Ranked, Scan, WorkerId,
};

impl Run {
    /// Seats `members`. Ranks follow the launcher's slots, then the order of joining.
    pub(super) fn form(
        &mut self,
        now: Now,
        members: &[WorkerId],
        position: Position,
        origin: Origin,
        source: Option<WorkerId>,
        out: &mut Vec<Action>,
    ) {
        self.move_to(position, out);
        self.ask_for_best(out);
        self.generation += 1;
        let mut order = members.to_vec();
        order.sort_by_key(|id| {
            let local_rank = self.members.get(id).and_then(|member| member.local_rank);
            (local_rank.unwrap_or(u32::MAX), *id)
        });
        for (worker, rank) in order.iter().zip(0..) {
            if let Some(member) = self.members.get_mut(worker) {
                member.assignment = Some(Assignment {
                    rank,
                    since: now,
                    in_group: false,
                    completed: position.completed,
                    share: (0, 0..0),
                    report: None,
                });
            }
        }
        let source = order.iter().position(|id| Some(*id) == source);
        self.phase = Phase::Forming(Forming {
            origin,
            source: source.unwrap_or(0) as u32,
            announced: false,
        });
        if let Some(first) = order.first() {
            let command = self.assignment(0, None);
            out.extend(command.map(|command| Action::Send(*first, command)));
        }
    }

    fn assignment(&self, rank: u32, store: Option<String>) -> Option<Command> {
        let Phase::Forming(Forming { origin, source, .. }) = self.phase else {
            return None;
        };
        Some(Command::Assign {
            generation: self.generation,
            rank,
            world_size: self.world_size() as u32,
            store,
            backend: self.backend(),
            precision: self.compute_type(),
            origin,
            source,
            position: self.position,
        })
    }

    fn all_scans(&self, holds: impl Fn(&Scan) -> bool) -> bool {
        self.assigned()
            .all(|(_, member, _)| member.scan.as_ref().is_some_and(&holds))
    }

    fn backend(&self) -> Backend {
        match self.all_scans(Scan::is_on_gpu) {
            true => Backend::Nccl,
            false => Backend::Gloo,
        }
    }

    fn compute_type(&self) -> ComputeType {
        match self.recipe.precision {
            Precision::Bf16 => ComputeType::Bf16,
            Precision::Auto if self.all_scans(|scan| scan.native_bf16) => ComputeType::Bf16,
            Precision::Fp32 | Precision::Auto => ComputeType::Fp32,
        }
    }

    pub(super) fn on_store(
        &mut self,
        worker: WorkerId,
        generation: u64,
        address: &str,
        out: &mut Vec<Action>,
    ) {
        if generation != self.generation || self.first() != Some(worker) {
            return;
        }
        let Phase::Forming(forming) = &mut self.phase else {
            return;
        };
        if std::mem::replace(&mut forming.announced, true) {
            return;
        }
        let others = self
            .assigned()
            .filter(|(_, _, assignment)| assignment.rank != 0);
        out.extend(others.filter_map(|(id, _, assignment)| {
            let command = self.assignment(assignment.rank, Some(address.to_owned()))?;
            Some(Action::Send(id, command))
        }));
    }

    pub(super) fn on_group_ready(
        &mut self,
        now: Now,
        worker: WorkerId,
        generation: u64,
        out: &mut Vec<Action>,
    ) {
        if !matches!(self.phase, Phase::Forming(_)) || generation != self.generation {
            return;
        }
        let position = self.position;
        let Some(member) = self.members.get_mut(&worker) else {
            return;
        };
        let Some(assignment) = &mut member.assignment else {
            return;
        };
        assignment.in_group = true;
        member.retained = Some(position);
        if !self
            .assigned()
            .all(|(_, _, assignment)| assignment.in_group)
        {
            return;
        }
        self.initialized = true;
        let mut ranks: Vec<_> = self
            .assigned()
            .map(|(worker, member, assignment)| (assignment.rank, ranked(worker, member)))
            .collect();
        ranks.sort_by_key(|(rank, _)| *rank);
        let world_size = ranks.len();
        out.push(Action::Notify(Fact::GroupFormed {
            generation: self.generation,
            ranks: ranks.into_iter().map(|(_, rank)| rank).collect(),
            backend: self.backend(),
            precision: self.compute_type(),
        }));
        if let Some(outage) = self.outage.take() {
            let lost = match (outage.reported, position) {
                (before, after) if before.epoch == after.epoch => {
                    before.completed.saturating_sub(after.completed)
                }
                (before, after) if before > after => {
                    (before.epoch - after.epoch) * self.steps_of_an_epoch() + before.completed
                        - after.completed.min(before.completed)
                }
                _ => 0,
            };
            out.push(Action::Notify(Fact::Recovered {
                cause: outage.cause,
                generation: self.generation,
                position,
                world_size,
                seconds: now.saturating_sub(outage.since).as_secs_f64(),
                steps_lost: lost,
            }));
        }
        self.start_epoch(now, out);
        if self.has_unassigned_ready_member() {
            self.pause(now, super::Pause::Regroup, out);
        }
    }

    /// A worker became ready while the others were forming.
    fn has_unassigned_ready_member(&self) -> bool {
        self.world_size() < self.recipe.max_workers
            && self.members.values().any(|member| {
                member.assignment.is_none()
                    && member.stage == super::Stage::Ready
                    && !member.draining
            })
    }
}

fn ranked(worker: WorkerId, member: &Member) -> Ranked {
    let scan = member.scan.as_ref();
    let said = |field: fn(&Scan) -> &String| scan.map(field).cloned().unwrap_or_default();
    Ranked {
        worker,
        host: member.host.clone(),
        device: said(|scan| &scan.device),
        gpu_uuid: said(|scan| &scan.gpu_uuid),
    }
}
