//! A generation: ranks, and the store through which they meet.

use super::{Now, Phase, Precision, Run};
use crate::core::event::{Action, Command, Notice, Scan, WorkerId};

impl Run {
    /// Ranks follow the launcher's slots, then the order of joining.
    pub(super) fn form(&mut self, out: &mut Vec<Action>) {
        self.phase = Phase::Forming;
        self.generation += 1;
        let mut order: Vec<WorkerId> = self.members.keys().copied().collect();
        order.sort_by_key(|id| (self.members[id].slot.unwrap_or(u32::MAX), *id));
        for (worker, rank) in order.iter().zip(0..) {
            if let Some(member) = self.members.get_mut(worker) {
                member.rank = rank;
                member.in_group = false;
            }
        }
        if let Some(first) = order.first() {
            out.push(Action::Send(*first, self.assignment(0, None)));
        }
    }

    pub(super) fn assignment(&self, rank: u32, store: Option<String>) -> Command {
        Command::Assign {
            generation: self.generation,
            rank,
            world_size: self.members.len() as u32,
            store,
            nccl: self.nccl(),
            bf16: self.bf16(),
        }
    }

    pub(super) fn nccl(&self) -> bool {
        self.all(|m| {
            m.scan
                .as_ref()
                .is_some_and(|scan| scan.device.starts_with("cuda"))
        })
    }

    pub(super) fn bf16(&self) -> bool {
        match self.recipe.precision {
            Precision::Fp32 => false,
            Precision::Bf16 => true,
            Precision::Auto => {
                self.all(|m| m.scan.as_ref().is_some_and(|scan| scan.bf16_in_silicon))
            }
        }
    }

    pub(super) fn on_store(
        &mut self,
        worker: WorkerId,
        generation: u64,
        address: &str,
        out: &mut Vec<Action>,
    ) {
        if !matches!(self.phase, Phase::Forming) || generation != self.generation {
            return;
        }
        if self
            .members
            .get(&worker)
            .is_none_or(|member| member.rank != 0)
        {
            return;
        }
        for (id, member) in &self.members {
            if member.rank != 0 {
                let command = self.assignment(member.rank, Some(address.to_owned()));
                out.push(Action::Send(*id, command));
            }
        }
    }

    pub(super) fn on_group_ready(
        &mut self,
        now: Now,
        worker: WorkerId,
        generation: u64,
        out: &mut Vec<Action>,
    ) {
        if !matches!(self.phase, Phase::Forming) || generation != self.generation {
            return;
        }
        if let Some(member) = self.members.get_mut(&worker) {
            member.in_group = true;
        }
        if self.all(|member| member.in_group) {
            let mut members: Vec<_> = self.members.values().collect();
            members.sort_by_key(|member| member.rank);
            let device = |scan: &Option<Scan>| scan.as_ref().map_or("", |s| &s.device).to_owned();
            out.push(Action::Notify(Notice::GroupFormed {
                generation: self.generation,
                ranks: members
                    .iter()
                    .map(|m| (m.host.clone(), device(&m.scan)))
                    .collect(),
                backend: if self.nccl() { "NCCL" } else { "Gloo" },
                precision: if self.bf16() { "bf16" } else { "fp32" },
            }));
            self.start_epoch(now, 1, 0.0, out);
        }
    }
}
