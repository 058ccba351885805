//! A generation forms: its ranks, the store through which they meet, and the state that all begin
//! with.

use super::parts::{Assignment, Member, Share};
use super::phase::{Forming, Pause, Phase};
use super::{Precision, Run};
use crate::event::{
    Action, Backend, Command, ComputeType, Fact, Origin, Position, Ranked, Scan, WorkerId,
};

impl Run {
    /// Assigns ranks to `members`, in the order of local ranks and then of joining.
    pub(super) fn form(
        &mut self,
        members: &[WorkerId],
        position: Position,
        origin: Origin,
        source: Option<WorkerId>,
    ) {
        self.move_to(position);
        self.ask_for_best();
        self.generation += 1;
        let mut order = members.to_vec();
        order.sort_by_key(|id| {
            let local_rank = self.members.get(*id).and_then(|member| member.local_rank);
            (local_rank.unwrap_or(u32::MAX), *id)
        });
        let members = order
            .iter()
            .filter_map(|id| Some((*id, self.members.get(*id)?)));
        let threads = self.threads_of(members);
        for (worker, rank) in order.iter().zip(0..) {
            if let Some(member) = self.members.get_mut(*worker) {
                member.assignment = Some(Assignment {
                    rank,
                    threads: threads.get(worker).copied().unwrap_or(1),
                    since: self.now,
                    in_group: false,
                    completed: position.completed,
                    share: Share::default(),
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
            let command = self.assign(*first, None);
            self.out
                .extend(command.map(|command| Action::Send(*first, command)));
        }
    }

    fn assign(&self, worker: WorkerId, store: Option<String>) -> Option<Command> {
        let Phase::Forming(Forming { origin, source, .. }) = self.phase else {
            return None;
        };
        let assignment = self.members.get(worker)?.assignment.as_ref()?;
        Some(Command::Assign {
            generation: self.generation,
            rank: assignment.rank,
            world_size: self.members.world_size() as u32,
            store,
            backend: self.backend(),
            precision: self.compute_type(),
            origin,
            source,
            position: self.position,
            threads: assignment.threads,
        })
    }

    fn all_scans(&self, holds: impl Fn(&Scan) -> bool) -> bool {
        self.members
            .assigned()
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

    pub(super) fn on_store_listening(&mut self, worker: WorkerId, generation: u64, address: &str) {
        if generation != self.generation || self.members.lowest_rank() != Some(worker) {
            return;
        }
        let Phase::Forming(forming) = &mut self.phase else {
            return;
        };
        if std::mem::replace(&mut forming.announced, true) {
            return;
        }
        let others = self.members.assigned();
        let others = others.filter(|(_, _, assignment)| assignment.rank != 0);
        let assigned = others.filter_map(|(id, _, _)| {
            let command = self.assign(id, Some(address.to_owned()))?;
            Some(Action::Send(id, command))
        });
        let assigned: Vec<Action> = assigned.collect();
        self.out.extend(assigned);
    }

    pub(super) fn on_group_ready(&mut self, worker: WorkerId, generation: u64) {
        if !matches!(self.phase, Phase::Forming(_)) || generation != self.generation {
            return;
        }
        let Some(member) = self.members.get_mut(worker) else {
            return;
        };
        let Some(assignment) = &mut member.assignment else {
            return;
        };
        assignment.in_group = true;
        member.retained = Some(self.position);
        let in_group = |(_, _, assignment): (_, _, &Assignment)| assignment.in_group;
        if !self.members.assigned().all(in_group) {
            return;
        }
        self.initialized = true;
        self.report_group();
        self.start_epoch();
        if self.has_unassigned_ready_member() {
            self.pause(Pause::Regroup);
        }
    }

    fn report_group(&mut self) {
        let assigned = self.members.assigned();
        let mut ranks: Vec<_> = assigned
            .map(|(worker, member, assignment)| (assignment.rank, ranked(worker, member)))
            .collect();
        ranks.sort_by_key(|(rank, _)| *rank);
        // On GPUs they only decode.
        if self.backend() == Backend::Gloo {
            self.report_excess_threads();
        }
        let generation = (self.generation, ranks.len());
        self.notify(Fact::GroupFormed {
            generation: self.generation,
            ranks: ranks.into_iter().map(|(_, rank)| rank).collect(),
            backend: self.backend(),
            precision: self.compute_type(),
        });
        let steps = self.steps_of_an_epoch();
        let recovered = self.outage.end(self.now, generation, self.position, steps);
        self.out.extend(recovered.map(Action::Notify));
    }

    /// A worker became ready while the others were forming.
    fn has_unassigned_ready_member(&self) -> bool {
        let mut members = self.members.values();
        self.members.world_size() < self.recipe.max_workers
            && members.any(|member| !member.is_assigned() && member.is_available())
    }
}

fn ranked(worker: WorkerId, member: &Member) -> Ranked {
    let scan = member.scan.as_ref();
    let reported = |field: fn(&Scan) -> &String| scan.map(field).cloned().unwrap_or_default();
    Ranked {
        worker,
        host: member.host.clone(),
        device: reported(|scan| &scan.device),
        gpu_uuid: reported(|scan| &scan.gpu_uuid),
    }
}
