//! The parts of a run: each owns one piece of its state, behind private fields and a small
//! interface. No part sends, and none knows another; what they mean together is decided in the
//! modules beside this one.

mod best_weights;
mod checkpoints;
mod dataset;
mod failures;
mod history;
mod ledger;
mod local_workers;
mod members;
mod outage;
mod pace;

pub(super) use best_weights::BestWeights;
pub(super) use checkpoints::Checkpoints;
pub(super) use dataset::Dataset;
pub(super) use failures::Failures;
pub(super) use history::History;
pub(super) use ledger::Ledger;
pub(super) use local_workers::{LocalWorkers, Lost, REJOIN_GRACE};
pub(super) use members::{Assignment, Decoding, Member, Members, Share, Stage};
pub(super) use outage::Outage;
pub(super) use pace::Pace;
