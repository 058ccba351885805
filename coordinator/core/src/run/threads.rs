//! How many CPU threads each worker is told to use.

use super::parts::Member;
use super::{Phase, Run};
use crate::WorkerId;
use crate::event::{Action, Fact, Processors};
use crate::threads::{excess, shares};

impl Run {
    /// Of each of these workers, which share the processors of their machines among them.
    pub(super) fn threads_of(&self, workers: &[WorkerId]) -> Vec<u32> {
        match self.recipe.threads_per_worker {
            Some(threads) => vec![threads; workers.len()],
            None => shares(&self.processors_of(workers)),
        }
    }

    /// With which a worker decodes. Those that wait, or decode too, share the processors with it;
    /// ranks that train have them all.
    pub(super) fn threads_to_decode(&self, worker: WorkerId) -> u32 {
        let machine = |member: &Member| member.scan.as_ref().map(|s| s.processors.machine.clone());
        let own = self.members.get(worker).and_then(machine);
        let beside = |member: &Member| member.is_assigned() && machine(member) == own;
        let trains = matches!(self.phase, Phase::Training(_));
        if trains && self.recipe.threads_per_worker.is_none() && self.members.find(beside).is_some()
        {
            return 1;
        }
        let scanned = self
            .members
            .iter()
            .filter(|(_, member)| member.scan.is_some());
        let scanned: Vec<WorkerId> = scanned.map(|(id, _)| id).collect();
        let place = scanned.iter().position(|id| *id == worker);
        place.map_or(1, |place| self.threads_of(&scanned)[place])
    }

    /// Reports the machines on which the generation computes with more threads than processors.
    pub(super) fn report_excess_threads(&mut self) {
        let assigned = self.members.assigned();
        let (ids, threads): (Vec<_>, Vec<_>) = assigned
            .map(|(id, _, assignment)| (id, assignment.threads))
            .unzip();
        let found = excess(&self.processors_of(&ids), &threads);
        self.out.extend(found.into_iter().filter_map(|found| {
            let member = self.members.get(*ids.get(found.place)?)?;
            Some(Action::Notify(Fact::TooManyThreads {
                host: member.host.clone(),
                workers: found.workers,
                threads: found.threads,
                processors: found.processors,
            }))
        }));
    }

    /// What workers have reported, each as on a machine of its own until it has.
    fn processors_of(&self, workers: &[WorkerId]) -> Vec<&Processors> {
        static UNKNOWN: Processors = Processors::unknown();
        let reported = |id: &WorkerId| {
            let scan = self.members.get(*id)?.scan.as_ref()?;
            Some(&scan.processors)
        };
        let all = workers.iter().map(|id| reported(id).unwrap_or(&UNKNOWN));
        all.collect()
    }
}
