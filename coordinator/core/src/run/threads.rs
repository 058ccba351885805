//! How many CPU threads each worker is told to use.

use std::collections::BTreeMap;

use super::parts::Member;
use super::{Phase, Run};
use crate::WorkerId;
use crate::event::{Action, Fact, Processors};
use crate::threads::{excess, shares};

impl Run {
    /// Of each of these workers, which share the processors of their machines among them.
    pub(super) fn threads_of<'a>(
        &self,
        workers: impl Iterator<Item = (WorkerId, &'a Member)>,
    ) -> BTreeMap<WorkerId, u32> {
        let reported = |(id, member): (_, &'a Member)| Some((id, processors(member)?));
        let (ids, processors): (Vec<_>, Vec<_>) = workers.filter_map(reported).unzip();
        let threads = match self.recipe.threads_per_worker {
            Some(threads) => vec![threads; ids.len()],
            None => shares(&processors),
        };
        ids.into_iter().zip(threads).collect()
    }

    /// With which a worker decodes. Those that wait, or decode too, share the processors with it;
    /// ranks that train have them all.
    pub(super) fn threads_to_decode(&self, worker: WorkerId) -> u32 {
        let own = self.members.get(worker).and_then(machine);
        let beside = |member: &Member| member.is_assigned() && machine(member) == own;
        let chosen = self.recipe.threads_per_worker.is_some();
        let trains = matches!(self.phase, Phase::Training(_));
        if trains && !chosen && self.members.find(beside).is_some() {
            return 1;
        }
        let threads = self.threads_of(self.members.iter());
        threads.get(&worker).copied().unwrap_or(1)
    }

    /// Reports the machines on which the generation computes with more threads than processors.
    pub(super) fn report_excess_threads(&mut self) {
        let (mut hosts, mut reported, mut threads) = (Vec::new(), Vec::new(), Vec::new());
        for (_, member, assignment) in self.members.assigned() {
            if let Some(processors) = processors(member) {
                hosts.push(&member.host);
                reported.push(processors);
                threads.push(assignment.threads);
            }
        }
        let facts = excess(&reported, &threads).into_iter().map(|found| {
            Action::Notify(Fact::TooManyThreads {
                host: hosts[found.place].clone(),
                workers: found.workers,
                threads: found.threads,
                processors: found.processors,
            })
        });
        self.out.extend(facts);
    }
}

/// Once it has reported them.
fn processors(member: &Member) -> Option<&Processors> {
    member.scan.as_ref().map(|scan| &scan.processors)
}

fn machine(member: &Member) -> Option<&str> {
    processors(member).map(|processors| processors.machine.as_str())
}
