//! The operations against libtorch's own, or against the paper.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests are not recognised as tests"
)]

mod norm;
mod operations;
