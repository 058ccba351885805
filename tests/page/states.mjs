// States that a short real run does not have: 64 workers, a failure, no data yet, and text that
// looks like markup. Each is a modified status of a real coordinator.

const time = (second) => new Date(Date.UTC(2026, 0, 1, 12, 0, second)).toISOString();

export const HOSTILE = `<img src=x onerror="document.title='owned'"><script>alert(1)</script>`;

export function states(real) {
  const many = Array.from({ length: 64 }, (_, rank) => ({
    rank,
    host: `gpu-node-${String(Math.floor(rank / 8)).padStart(2, "0")}.cluster.example.internal`,
    device: `NVIDIA H100 80GB HBM3 (cuda:${rank % 8})`,
    state: "healthy",
    step: 40 + (rank % 3),
    straggler_ratio: rank === 17 ? 1.43 : 0.97 + (rank % 7) / 100,
    heartbeat_timestamp: real.now - (rank === 40 ? 12.3 : (rank % 10) / 10),
  }));
  const history = Array.from({ length: 60 }, (_, at) => ({
    epoch: at + 1,
    train_loss: 3 * Math.exp(-at / 9) + 0.05,
    validation_loss: at === 20 ? null : 2.6 * Math.exp(-at / 10) + 0.3 + Math.sin(at) / 40,
    validation_accuracy: 0.97 - 0.9 * Math.exp(-at / 8),
    images_per_second: 11_800 + at,
    seconds: 95,
  }));
  const training = { ...real, state: "training", stop_reason: null, waiting_for: null, predictions_timestamp: null };
  return {
    many: {
      ...training,
      workers: many,
      workers_expected: 64,
      history,
      epoch: 61,
      epochs: 100,
      best: { epoch: 58, validation_loss: history[57].validation_loss, validation_accuracy: history[57].validation_accuracy },
      epochs_without_improvement: 2,
      patience: 10,
      images_per_second: 11_860.4,
    },
    failed: {
      ...training,
      state: "failed",
      events: [...real.events, { time: time(0), event: "ended", reason: "rank 1 on node-b was lost; last loss: 0.4", ok: false }],
    },
    empty: {
      ...training,
      state: "waiting",
      waiting_for: "2 workers",
      workers: [],
      history: [],
      learning_rates: [],
      best: null,
      train_loss: null,
      epoch: 0,
      step: 0,
      steps_per_epoch: 0,
      images_per_second: 0,
      epoch_seconds_left: null,
      run_seconds_left: null,
      epochs_without_improvement: 0,
      events: [{ time: time(0), event: "started", run_id: "a", workers: 2 }],
    },
    hostile: {
      ...training,
      run: HOSTILE,
      waiting_for: HOSTILE,
      run_directory: HOSTILE,
      workers: [{ ...many[0], host: HOSTILE, device: HOSTILE, state: HOSTILE }],
      events: [
        { time: time(0), event: "lost", who: HOSTILE, when: "now", cause: HOSTILE, rank: null, local_rank: null },
        { time: time(1), event: "constructor", line: HOSTILE },
        { time: HOSTILE, event: "stalled", line: HOSTILE },
      ],
    },
  };
}
