//! A worker that does nothing but talk: it says what a real one would, when a real one would, with
//! a step every `pace`. It computes nothing and hands no weights over.

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
/// Of the images that a made-up folder holds.
const BYTES: u64 = 10_000;

/// What all workers have in common.
pub(crate) struct Shared {
    pub(crate) url: String,
    pub(crate) files: usize,
    pub(crate) pace: Duration,
    pub(crate) moments: Mutex<Moments>,
}

/// When what happened, over all workers.
#[derive(Debug, Default)]
pub(crate) struct Moments {
    pub(crate) welcomed: usize,
    pub(crate) last_welcome: Option<Instant>,
    /// Attempts to get in that were turned away.
    pub(crate) refused: usize,
    pub(crate) planned: usize,
    pub(crate) last_plan: Option<Instant>,
    pub(crate) last_report: Option<Instant>,
    /// Of each epoch barrier: from the last report of an epoch to the last plan of the next.
    pub(crate) barriers: Vec<Duration>,
    pub(crate) lost: Vec<String>,
}

impl Shared {
    pub(crate) fn moments<T>(&self, change: impl FnOnce(&mut Moments) -> T) -> T {
        change(&mut self.moments.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Lives until the run is over or `end` says so.
pub(crate) async fn live(shared: Arc<Shared>, number: usize, end: watch::Receiver<bool>) {
    if let Err(error) = converse(&shared, number, end).await {
        shared.moments(|moments| moments.lost.push(format!("worker {number}: {error:#}")));
    }
}

async fn converse(
    shared: &Shared,
    number: usize,
    mut end: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let (outbox, mut inbound) = enter(shared, number).await;
    let say = |message| say(&outbox, message);
    let mut heartbeats = tokio::time::interval(HEARTBEAT);
    let (mut plan, mut done, mut granted): (Option<v1::EpochPlan>, usize, u32) = (None, 0, 0);
    let mut steps = tokio::time::interval(shared.pace);
    loop {
        let may_step = plan.as_ref().is_some_and(|plan| {
            done < plan.local_counts.len() && plan.completed + (done as u32) < granted
        });
        let message = tokio::select! {
            message = inbound.message() => message?.and_then(|message| message.message),
            _ = heartbeats.tick() => {
                let generation = plan.as_ref().map_or(0, |plan| plan.generation);
                say(Up::Heartbeat(v1::Heartbeat { generation, ..Default::default() }))?;
                continue;
            }
            _ = steps.tick(), if may_step => {
                if let Some(plan) = &plan {
                    say(step(plan, done, shared.pace))?;
                    done += 1;
                    if done == plan.local_counts.len() {
                        say(epoch(plan))?;
                        shared.moments(|moments| moments.last_report = Some(Instant::now()));
                    }
                }
                continue;
            }
            _ = end.changed() => return Ok(()),
        };
        match message.context("the session was closed")? {
            Down::Prepare(_) => say(Up::Prepared(v1::Prepared::default()))?,
            Down::Assignment(place) => {
                let generation = place.generation;
                if place.rank == 0 {
                    say(Up::StoreListening(v1::StoreListening {
                        generation,
                        port: 1,
                        ..Default::default()
                    }))?;
                }
                say(Up::GroupReady(v1::GroupReady { generation }))?;
            }
            Down::EpochPlan(next) => {
                granted = next.granted;
                done = 0;
                plan = Some(next);
                steps.reset();
                shared.moments(Moments::planned);
            }
            Down::StepGrant(grant) => granted = grant.granted,
            Down::AbortGeneration(halt) => {
                plan = None;
                let (generation, held) = (halt.generation, None);
                say(Up::GenerationAborted(v1::GenerationAborted {
                    generation,
                    retained: held,
                }))?;
            }
            Down::Finish(finish) => say(Up::Finished(v1::Finished {
                generation: finish.generation,
            }))?,
            Down::Shutdown(shutdown) => bail!("told to end: {}", shutdown.reason),
            Down::Registered(_) | Down::EpochResult(_) | Down::SaveState(_) => {}
        }
    }
}

type Session = (
    mpsc::UnboundedSender<v1::WorkerMessage>,
    Streaming<v1::CoordinatorMessage>,
);

/// Tries until it is let in, as a real worker does.
async fn enter(shared: &Shared, number: usize) -> Session {
    loop {
        match greet(shared, number).await {
            Ok(session) => {
                shared.moments(|moments| {
                    moments.welcomed += 1;
                    moments.last_welcome = Some(Instant::now());
                });
                return session;
            }
            Err(_) => shared.moments(|moments| moments.refused += 1),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn greet(shared: &Shared, number: usize) -> anyhow::Result<Session> {
    let channel = Endpoint::from_shared(shared.url.clone())?.connect().await?;
    let mut client =
        TrainerClient::new(channel).max_decoding_message_size(proto::MAX_MESSAGE_BYTES);
    let (outbox, outgoing) = mpsc::unbounded_channel();
    let say = |message| say(&outbox, message);
    say(Up::Register(v1::Register {
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
        bail!("no welcome");
    };
    say(Up::Scanned(v1::Scanned {
        fingerprint: "made up".to_owned(),
        classes: vec!["a".to_owned(), "b".to_owned()],
        files: (0..shared.files)
            .map(|at| v1::FileEntry {
                path: format!("a/image_{at:05}.jpg"),
                size: BYTES,
            })
            .collect(),
        device: "cpu".to_owned(),
        ..Default::default()
    }))?;
    Ok((outbox, inbound))
}

fn say(outbox: &mpsc::UnboundedSender<v1::WorkerMessage>, message: Up) -> anyhow::Result<()> {
    let message = Some(message);
    let sent = outbox.send(v1::WorkerMessage { message });
    sent.ok().context("the session was closed")
}

fn step(plan: &v1::EpochPlan, done: usize, pace: Duration) -> Up {
    let samples = plan.local_counts.get(done).copied().unwrap_or_default();
    let seconds = pace.as_secs_f64();
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

impl Moments {
    /// A plan has come; with the first of an epoch begins another barrier.
    fn planned(&mut self) {
        let now = Instant::now();
        self.planned += 1;
        self.last_plan = Some(now);
        let Some(reported) = self.last_report else {
            return;
        };
        let took = now - reported;
        match self.barriers.last_mut() {
            // All plans after one last report belong to it.
            Some(barrier) if self.planned % self.welcomed != 1 => *barrier = took,
            _ => self.barriers.push(took),
        }
    }
}
