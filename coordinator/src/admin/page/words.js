// What the page says, as pure functions of plain values: numbers, times, sentences. Nothing here
// touches the document, and nothing that it returns is markup.

/** A number with so many decimals, or a dash for one that is missing or not finite. */
export function number(value, decimals) {
  return Number.isFinite(value) ? value.toFixed(decimals) : "–";
}

/** A loss with four significant digits. */
export function loss(value) {
  return number(value, value >= 10 ? 2 : value >= 1 ? 3 : 4);
}

export function percent(share) {
  return Number.isFinite(share) ? `${(100 * share).toFixed(2)} %` : "–";
}

/** A learning rate, for example 3.0e-4. */
export function lr(value) {
  return Number.isFinite(value) ? value.toExponential(2) : "–";
}

/** Seconds, rounded: 4.2 s, 3 min 05 s, 2 h 10 min. */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const pad = (value) => String(value).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${pad(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${pad(Math.floor((whole % 3600) / 60))} min`;
}

export function bytes(count) {
  if (count >= 1e9) return `${(count / 1e9).toFixed(1)} GB`;
  if (count >= 1e6) return `${(count / 1e6).toFixed(1)} MB`;
  return `${Math.ceil(count / 1e3)} kB`;
}

/** The time of day, with the date where it is another day than `now`. */
export function clock(time, now = new Date()) {
  if (Number.isNaN(time.getTime())) return "–";
  const pad = (value) => String(value).padStart(2, "0");
  const day = `${time.getFullYear()}-${pad(time.getMonth() + 1)}-${pad(time.getDate())} `;
  const hours = [time.getHours(), time.getMinutes(), time.getSeconds()].map(pad).join(":");
  return (time.toDateString() === now.toDateString() ? "" : day) + hours;
}

export function plural(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}

function place(event) {
  return `step ${event.completed} of epoch ${event.epoch}`;
}

const STOPPED = {
  patience: "the validation loss no longer improved",
  max_epochs: "all epochs are done",
  non_finite_loss: "the loss became infinite or not a number",
  interrupted: "interrupted; it can be resumed",
};

/** A few words for a reason to stop. */
export function stopped(reason) {
  return STOPPED[reason] ?? reason;
}

const EVENTS = {
  started: (e) => ["", "Started", `waits for ${plural(e.workers, "worker")}`],
  resumed: (e) => ["", "Resumed", `by a new coordinator, from ${place(e)}`],
  formed: (e) => ["", "Group formed", `${plural(e.world_size, "rank")}, generation ${e.generation}`],
  joined: (e) => ["good", "Joined", `worker ${e.worker} on ${e.host}`],
  lost: (e) => ["bad", "Lost", `${e.who} ${e.when}: ${e.cause}`],
  exited: (e) => ["bad", "Exited", `local worker ${e.local_rank} ${e.how}`],
  recovered: (e) => [
    "good",
    "Recovered",
    `in ${duration(e.seconds)}: ${plural(e.world_size, "rank")} ${e.world_size === 1 ? "continues" : "continue"} from ${place(e)}; ` +
      (e.steps_lost ? `${plural(e.steps_lost, "step")} to repeat` : "no step lost"),
  ],
  left: (e) => ["", "Left", `${e.who}, after draining`],
  stalled: (e) => ["bad", "Stalled", e.line],
  checkpoint: (e) => ["", "Checkpoint", `at ${place(e)}, ${bytes(e.bytes)} in ${duration(e.seconds)}`],
  corrupt_checkpoint: (e) => ["bad", "Corrupt checkpoint", e.reason],
  ended: (e) =>
    e.ok ? ["good", "Ended", stopped(e.reason)] : ["bad", "Failed", e.reason],
};

/** Tone, title and text of an event of the journal. */
export function event(entry) {
  return Object.hasOwn(EVENTS, entry.event) ? EVENTS[entry.event](entry) : ["", entry.event, ""];
}

const STATES = {
  waiting: "Waiting",
  preparing: "Preparing the data",
  training: "Training",
  validating: "Validating",
  finishing: "Finishing",
  finished: "Finished",
  failed: "Failed",
};

/** Heading, sentence and tone of the run's state. */
export function state(status) {
  const title = STATES[status.state] ?? status.state;
  if (status.state === "failed") {
    const end = status.events.findLast((entry) => entry.event === "ended");
    return { title, sentence: end?.reason ?? "", tone: "bad" };
  }
  if (status.state === "finished") {
    const tone = { interrupted: "", non_finite_loss: "bad" }[status.stop_reason] ?? "good";
    const sentence = capital(stopped(status.stop_reason));
    return { title: tone === "good" ? title : "Stopped", sentence, tone };
  }
  if (status.waiting_for) {
    const still = status.state === "waiting" || status.state === "preparing";
    return { title: still ? title : "Waiting", sentence: `Waiting for ${status.waiting_for}`, tone: "" };
  }
  const left = status.run_seconds_left;
  const moving = status.state === "training" || status.state === "validating";
  const sentence = moving && left !== null ? `At most ${duration(left)} left` : "";
  return { title, sentence, tone: "" };
}

export function isOver(status) {
  return status.state === "finished" || status.state === "failed";
}

function capital(text) {
  return text ? text[0].toUpperCase() + text.slice(1) : "";
}

/** The curves as text, for screen readers. */
export function curves(status) {
  const { history, best, patience, epochs_without_improvement: wait } = status;
  if (!history.length) return "No epoch is finished yet.";
  const last = history.at(-1);
  const trend =
    `${plural(history.length, "epoch")} done. The validation loss went from ` +
    `${loss(history[0].validation_loss)} to ${loss(last.validation_loss)}, ` +
    `the accuracy from ${percent(history[0].validation_accuracy)} to ${percent(last.validation_accuracy)}.`;
  if (!best) return trend;
  const rest = isOver(status)
    ? ""
    : wait
      ? ` ${plural(wait, "epoch")} without a better one; ${patience} in a row stop the run.`
      : "";
  return `${trend} Best is epoch ${best.epoch} with ${loss(best.validation_loss)}.${rest}`;
}
