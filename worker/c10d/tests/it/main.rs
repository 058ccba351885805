//! Several ranks in threads of one process, each with a store connection of its own,
//! and one in a process of its own where a process must die.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests are not recognised as tests"
)]

mod ranks;

mod collectives;
mod failure;
mod nccl;
mod reducer;
mod rendezvous;
