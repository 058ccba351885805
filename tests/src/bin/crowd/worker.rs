//! A simulated worker: it sends the messages of a real one at the pace of a real one, a step every
//! `step_time`. It computes nothing and uploads no weights.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use proto::v1;
use proto::v1::coordinator_message::Message as Down;
use proto::v1::trainer_client::TrainerClient;
use proto::v1::worker_message::Message as Up;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;

const HEARTBEAT: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(200);
/// The size of each image that it pretends to have.
const IMAGE_BYTES: u64 = 10_000;

/// What all simulated workers share.
pub(crate) struct Shared {
    pub(crate) url: String,
    pub(crate) files: usize,
    pub(crate) step_time: Duration,
    pub(crate) record: Mutex<Record>,
}

/// What happened so far, over all workers.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) registered: usize,
    pub(crate) last_registered: Option<Instant>,
    /// Attempts to register that failed.
    pub(crate) refused: usize,
    /// Plans received.
    pub(crate) planned: usize,
    pub(crate) last_plan: Option<Instant>,
    pub(crate) last_report: Option<Instant>,
    /// From the last report of an epoch to the last plan of the next, for each epoch.
    pub(crate) waits: Vec<Duration>,
    /// Why sessions ended.
    pub(crate) lost: Vec<String>,
}

impl Shared {
    pub(crate) fn record<T>(&self, change: impl FnOnce(&mut Record) -> T) -> T {
        change(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Runs until the run is over or `end` becomes true.
pub(crate) async fn run(shared: Arc<Shared>, number: usize, end: watch::Receiver<bool>) {
    if let Err(error) = session(&shared, number, end).await {
        shared.record(|record| record.lost.push(format!("worker {number}: {error:#}")));
    }
}

async fn session(
    shared: &Shared,
    number: usize,
    mut end: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let (outbox, mut inbound) = register(shared, number).await;
    let send = |message| send(&outbox, message);
    let mut heartbeats = tokio::time::interval(HEARTBEAT);
    let (mut plan, mut done, mut granted): (Option<v1::EpochPlan>, usize, u32) = (None, 0, 0);
    let mut steps = tokio::time::interval(shared.step_time);
    loop {
        let may_step = plan.as_ref().is_some_and(|plan| {
            done < plan.local_counts.len() && plan.completed + (done as u32) < granted
        });
        let message = tokio::select! {
            message = inbound.message() => message?.and_then(|message| message.message),
            _ = heartbeats.tick() => {
                let generation = plan.as_ref().map_or(0, |plan| plan.generation);
                send(Up::Heartbeat(v1::Heartbeat { generation, ..Default::default() }))?;
                continue;
            }
            _ = steps.tick(), if may_step => {
                if let Some(plan) = &plan {
                    send(step(plan, done, shared.step_time))?;
                    done += 1;
                    if done == plan.local_counts.len() {
                        send(epoch(plan))?;
                        shared.record(|record| record.last_report = Some(Instant::now()));
                    }
                }
                continue;
            }
            _ = end.changed() => return Ok(()),
        };
        match message.context("the session was closed")? {
            Down::Prepare(_) => send(Up::Prepared(v1::Prepared::default()))?,
            Down::Assignment(assignment) => {
                let generation = assignment.generation;
                if assignment.rank == 0 {
                    send(Up::StoreListening(v1::StoreListening {
                        generation,
                        port: 1,
                        ..Default::default()
                    }))?;
                }
                send(Up::GroupReady(v1::GroupReady { generation }))?;
            }
            Down::EpochPlan(next) => {
                granted = next.granted;
                done = 0;
                plan = Some(next);
                steps.reset();
                shared.record(Record::plan_received);
            }
            Down::StepGrant(grant) => granted = grant.granted,
            Down::AbortGeneration(abort) => {
                plan = None;
                let (generation, retained) = (abort.generation, None);
                send(Up::GenerationAborted(v1::GenerationAborted {
                    generation,
                    retained,
                }))?;
            }
            Down::Finish(finish) => send(Up::Finished(v1::Finished {
                generation: finish.generation,
            }))?,
            Down::Shutdown(shutdown) => {
                bail!("the coordinator sent a shutdown: {}", shutdown.reason)
            }
            Down::Registered(_) | Down::EpochResult(_) | Down::SaveState(_) => {}
        }
    }
}

type Session = (
    mpsc::UnboundedSender<v1::WorkerMessage>,
    Streaming<v1::CoordinatorMessage>,
);

/// Tries to register until it succeeds, as a real worker does.
async fn register(shared: &Shared, number: usize) -> Session {
    loop {
        match try_to_register(shared, number).await {
            Ok(session) => {
                shared.record(|record| {
                    record.registered += 1;
                    record.last_registered = Some(Instant::now());
                });
                return session;
            }
            Err(_) => shared.record(|record| record.refused += 1),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn try_to_register(shared: &Shared, number: usize) -> anyhow::Result<Session> {
    let channel = Endpoint::from_shared(shared.url.clone())?.connect().await?;
    let mut client =
        TrainerClient::new(channel).max_decoding_message_size(proto::MAX_MESSAGE_BYTES);
    let (outbox, outgoing) = mpsc::unbounded_channel();
    let send = |message| send(&outbox, message);
    send(Up::Register(v1::Register {
        protocol_version: proto::PROTOCOL_VERSION,
        host: format!("host-{number}"),
        pid: number as u32 + 1,
        local_rank: None,
        instance: number as u64 + 1,
    }))?;
    let answer = client
        .session(UnboundedReceiverStream::new(outgoing))
        .await?;
    let mut inbound = answer.into_inner();
    let first = inbound.message().await?.and_then(|message| message.message);
    let Some(Down::Registered(_)) = first else {
        bail!("the first message was not Registered");
    };
    send(Up::Scanned(v1::Scanned {
        fingerprint: "simulated".to_owned(),
        classes: vec!["a".to_owned(), "b".to_owned()],
        files: (0..shared.files)
            .map(|at| v1::FileEntry {
                path: format!("a/image_{at:05}.jpg"),
                size: IMAGE_BYTES,
            })
            .collect(),
        device: "cpu".to_owned(),
        ..Default::default()
    }))?;
    Ok((outbox, inbound))
}

fn send(outbox: &mpsc::UnboundedSender<v1::WorkerMessage>, message: Up) -> anyhow::Result<()> {
    let message = Some(message);
    let sent = outbox.send(v1::WorkerMessage { message });
    sent.ok().context("the session was closed")
}

fn step(plan: &v1::EpochPlan, done: usize, step_time: Duration) -> Up {
    let samples = plan.local_counts.get(done).copied().unwrap_or_default();
    let seconds = step_time.as_secs_f64();
    Up::StepReport(v1::StepReport {
        generation: plan.generation,
        epoch: plan.epoch,
        completed: plan.completed + done as u32 + 1,
        loss_sum: f64::from(samples),
        samples,
        seconds,
        phases: Some(v1::PhaseSeconds {
            data_wait: 0.05 * seconds,
            forward_backward: 0.7 * seconds,
            allreduce_wait: 0.2 * seconds,
            optimizer: 0.05 * seconds,
            validation: 0.0,
        }),
    })
}

fn epoch(plan: &v1::EpochPlan) -> Up {
    let sum = |chunk: &v1::ValidationChunk| v1::ValidationSum {
        chunk: chunk.chunk,
        loss_sum: chunk.samples.len() as f64,
        correct: 1,
        samples: chunk.samples.len() as u32,
    };
    Up::EpochReport(v1::EpochReport {
        generation: plan.generation,
        epoch: plan.epoch,
        loss_sum: f64::from(plan.global_counts.iter().sum::<u32>()),
        samples: plan.local_counts.iter().sum(),
        validation: plan.validation.iter().map(sum).collect(),
        phases: Some(v1::PhaseSeconds::default()),
    })
}

impl Record {
    /// Counts a plan. The first plan of an epoch begins another entry of `waits`.
    fn plan_received(&mut self) {
        let now = Instant::now();
        self.planned += 1;
        self.last_plan = Some(now);
        let Some(reported) = self.last_report else {
            return;
        };
        let took = now - reported;
        match self.waits.last_mut() {
            // All plans after the same last report belong to one epoch.
            Some(wait) if self.planned % self.registered != 1 => *wait = took,
            _ => self.waits.push(took),
        }
    }
}
