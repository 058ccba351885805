//! The control flow of a worker, as pure state machines: it does no IO, reads no clock and touches
//! no tensor. `worker` performs what it asks for; the coordinator's simulation drives the same code
//! against seeded faults.
//!
//! ```text
//! messages ─▶ Session ─▶ Inbox ─▶ Control ─▶ Task ─▶ (performed) ─▶ Control ─▶ Report
//! ```

mod inbox;
mod protocol;
mod session;
mod task;
mod thread;

pub use inbox::{Grant, Inbox};
pub use protocol::{
    Activity, Assignment, Backend, BadFile, EpochPlan, EpochReport, EpochResult, Order, Origin,
    Phases, Position, Precision, Prepare, Report, RetainedState, SaveState, StepGrant, StepReport,
    TrainError, ValidationChunk, ValidationSum,
};
pub use session::{Effect, Message, Session};
pub use task::{Best, Done, State, Stepped, Task};
pub use thread::Control;
