// Follows the status stream and shows it. Names and reasons come from workers and are not
// trusted: they reach the document as text only, never as markup.

import { draw } from "./chart.js";
import * as words from "./words.js";

/** The server sends at least every five seconds; after this long it is unreachable. */
const SILENCE = 15_000;
/** Milliseconds between two attempts to reach it. */
const RETRY = 2_000;
/** Above this ratio the others wait for a rank. */
const SLOW = 1.2;
/** Workers send a heartbeat each second. */
const LATE_SECONDS = 5;

const $ = (id) => document.getElementById(id);
let status = null;
let source = null;
let heard = 0;

function connect() {
  source?.close();
  source = new EventSource("status/stream");
  heard = Date.now();
  source.onmessage = (message) => {
    heard = Date.now();
    show(JSON.parse(message.data));
    link(words.isOver(status) ? "over" : "live", words.isOver(status) ? "run ended" : "live");
  };
  source.onerror = lost;
}

function lost() {
  if (!source) return;
  source.close();
  source = null;
  const at = words.clock(new Date(heard));
  if (!status) link("gone", "The coordinator does not answer; trying again");
  else if (words.isOver(status)) link("over", "The coordinator has ended; this is its last status");
  else if ($("link").dataset.link !== "gone") link("gone", `The coordinator is unreachable since ${at}; trying again`);
  setTimeout(connect, RETRY);
}

setInterval(() => {
  if (source && Date.now() - heard > SILENCE) lost();
}, 1_000);

function link(kind, text) {
  const node = $("link");
  if (node.dataset.link !== kind && (kind === "gone" || node.dataset.link === "gone")) {
    announce(kind === "gone" ? text : "The coordinator is back");
  }
  node.dataset.link = kind;
  say(node, text);
}

function announce(text) {
  $("news").textContent = text;
}

/** Changes a text only if it differs, so that selections and screen readers are left alone. */
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** As many children of `kind` in `parent` as there are `items`, each filled by `fill`. */
function each(parent, kind, items, fill) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  while (parent.children.length < items.length) parent.append(document.createElement(kind));
  items.forEach((item, at) => fill(parent.children[at], item));
}

/** A row of `[text, class]` cells. */
function row(node, cells) {
  each(node, "td", cells, (cell, [text, name = ""]) => {
    say(cell, text);
    if (cell.className !== name) cell.className = name;
  });
}

function show(next) {
  const former = status;
  status = next;
  const { title, sentence, tone } = words.state(next);
  say($("run"), next.run);
  say($("state"), title);
  say($("sentence"), sentence);
  $("now").dataset.tone = tone;
  document.title = `${title}${next.epoch && !words.isOver(next) ? ` ${next.epoch}/${next.epochs}` : ""} · ${next.run}`;
  showProgress(next);
  showFigures(next);
  showCurves(next);
  showHistory(next);
  showRates(next);
  showWorkers(next);
  showEvents(next);
  showPredictions(next);
  say($("place"), next.run_directory && `Run directory ${next.run_directory}`);
  if (former) showNews(former, next, title, sentence);
}

function showProgress({ epoch, epochs, step, steps_per_epoch: steps, history }) {
  const part = steps && epoch > history.length ? step / steps : 0;
  bar("epochs", history.length + part, epochs, epoch ? `Epoch ${epoch} of at most ${epochs}` : `At most ${epochs} epochs`);
  bar("steps", step, steps, steps ? `Step ${step} of ${steps}` : "Steps of this epoch");
}

function bar(id, value, max, text) {
  $(id).max = max || 1;
  $(id).value = value;
  say($(`${id}-label`), text);
}

function showFigures(now) {
  const best = now.best;
  const left = words.isOver(now) ? null : now.epoch_seconds_left;
  const shown = [
    ["Throughput", words.number(now.images_per_second || NaN, 1), "images/s"],
    ["Training loss", words.loss(now.train_loss ?? NaN), now.train_loss === null ? "" : "of this epoch"],
    ["Best validation loss", words.loss(best?.validation_loss ?? NaN), best ? `in epoch ${best.epoch}` : "no epoch done"],
    ["Its accuracy", words.percent(best?.validation_accuracy ?? NaN), best ? "of that epoch" : ""],
    ["Patience", `${now.epochs_without_improvement} of ${now.patience}`, "epochs not better"],
    words.isOver(now)
      ? ["Epochs done", String(now.history.length), `of at most ${now.epochs}`]
      : ["Left of the epoch", left === null ? "–" : words.duration(left), "and then validation"],
  ];
  each($("figures"), "div", shown, (node, [name, value, aside]) => {
    if (!node.firstChild) {
      const [term, data, small] = ["dt", "dd", "span"].map((kind) => document.createElement(kind));
      small.className = "aside";
      data.append(document.createElement("span"), small);
      node.append(term, data);
    }
    say(node.children[0], name);
    say(node.children[1].children[0], value);
    say(node.children[1].children[1], aside);
  });
}

let drawn = "";
function showCurves(now, again = false) {
  say($("curves-words"), words.curves(now));
  const { history, best, epochs, patience } = now;
  const over = words.isOver(now);
  const running =
    !over && now.train_loss !== null && now.epoch > history.length && now.step > 0
      ? [now.epoch, now.train_loss]
      : null;
  const key = JSON.stringify([history, best, running, over]);
  if (key === drawn && !again) return;
  drawn = key;
  const series = (name, field, scale = 1) => ({
    name,
    points: history.map((e) => [e.epoch, e[field] === null ? NaN : scale * e[field]]),
  });
  const until = best && !over ? Math.min(epochs, best.epoch + patience) : undefined;
  const mark = (value, text) => best && { epoch: best.epoch, value, text: `best ${text}` };
  draw($("loss"), {
    series: [series("training", "train_loss"), series("validation", "validation_loss")],
    running,
    best: mark(best?.validation_loss, best && words.loss(best.validation_loss)),
    until,
    falls: true,
    low: 0,
    high: history.length || running ? 0 : 1,
  });
  draw($("accuracy"), {
    series: [series("validation", "validation_accuracy", 100)],
    best: mark(100 * best?.validation_accuracy, best && words.percent(best.validation_accuracy)),
    until,
    low: history.length ? 100 : 0,
    high: 100,
  });
}
new ResizeObserver(() => status && showCurves(status, true)).observe($("loss"));

function showHistory({ history, best }) {
  each($("history").tBodies[0], "tr", history, (node, epoch) =>
    row(node, [
      [String(epoch.epoch), "number"],
      [words.loss(epoch.train_loss ?? NaN), "number"],
      [words.loss(epoch.validation_loss ?? NaN), "number"],
      [words.percent(epoch.validation_accuracy), "number"],
      [words.number(epoch.images_per_second, 1), "number"],
      [words.duration(epoch.seconds ?? NaN), "number"],
      [epoch.epoch === best?.epoch ? "best" : "", "good"],
    ]),
  );
}

function showRates({ learning_rates: lrs }) {
  $("rates").hidden = lrs.length === 0;
  $("rates-words").hidden = lrs.length > 0;
  each($("rates").tBodies[0], "tr", lrs, (node, { group, lr }) =>
    row(node, [[group, "wide"], [words.lr(lr), "number"]]),
  );
}

function showWorkers(now) {
  const over = words.isOver(now);
  const slow = (worker) => worker.straggler_ratio > SLOW;
  const late = (worker) => !over && worker.heartbeat_timestamp !== null && now.now - worker.heartbeat_timestamp > LATE_SECONDS;
  const those = (holds) => {
    const ranks = now.workers.filter(holds).map((worker) => worker.rank ?? "none");
    const named = ranks.slice(0, 8).join(", ") + (ranks.length > 8 ? ", …" : "");
    return ranks.length && `${ranks.length === 1 ? "rank" : "ranks"} ${named}`;
  };
  const parts = [
    `${words.plural(now.workers.length, "worker")} of ${now.workers_expected} expected, generation ${now.generation}`,
    those(slow) && `${those(slow)} above ${SLOW} times the median, so that others wait`,
    those(late) && `${those(late)} silent for over ${LATE_SECONDS} s`,
  ];
  say($("workers-words"), now.workers.length ? `${parts.filter(Boolean).join("; ")}.` : "None has joined yet.");
  each($("workers").tBodies[0], "tr", now.workers, (node, worker) => {
    const { rank, straggler_ratio: ratio, heartbeat_timestamp: beat } = worker;
    const age = Math.max(0, now.now - beat);
    row(node, [
      [rank === null ? "–" : String(rank)],
      [worker.host, "wide"],
      [worker.device, "wide"],
      [worker.state, worker.state === "lost" ? "wide bad" : "wide"],
      [String(worker.step), "number"],
      [ratio === null ? "–" : `${slow(worker) ? "slow " : ""}${words.number(ratio, 2)}`, slow(worker) ? "number bad" : "number"],
      [beat === null || over ? "–" : `${age < 10 ? age.toFixed(1) : Math.round(age)} s ago`, late(worker) ? "number bad" : "number"],
    ]);
  });
}

function showEvents({ events }) {
  each($("events"), "li", events.toReversed(), (node, entry) => {
    if (!node.firstChild) {
      const text = document.createElement("span");
      text.append(document.createElement("b"), " ", document.createElement("span"));
      node.append(document.createElement("time"), text);
    }
    const [tone, title, text] = words.event(entry);
    const [time, sentence] = node.children;
    node.className = tone && `tone-${tone}`;
    time.dateTime = entry.time;
    say(time, words.clock(new Date(entry.time)));
    say(sentence.children[0], title);
    say(sentence.children[1], text);
  });
}

function showPredictions({ predictions_timestamp: time }) {
  $("predictions").hidden = $("predictions").hidden || time === null;
  if (time === null) return;
  const address = `predictions.png?${time}`;
  const image = $("predictions").firstElementChild;
  if (image.getAttribute("src") === address) return;
  image.src = $("predictions").href = address;
  image.onload = () => {
    $("predictions").hidden = false;
    say($("predictions-words"), "Validation images under their predicted and true classes.");
  };
}

/** Announces to screen readers what changed, but not each step. */
function showNews(former, next, title, sentence) {
  const newest = next.events.at(-1);
  const incident = newest && newest.time !== former.events.at(-1)?.time && ["lost", "recovered", "stalled"].includes(newest.event);
  if (former.state !== next.state && !(former.state + next.state).includes("validating")) {
    announce(`${title}. ${sentence}`);
  } else if (incident) {
    const [, what, text] = words.event(newest);
    announce(`${what}: ${text}`);
  } else if (next.history.length > former.history.length) {
    const { epoch, validation_loss: value, validation_accuracy: right } = next.history.at(-1);
    announce(`Epoch ${epoch} done: validation loss ${words.loss(value ?? NaN)}, accuracy ${words.percent(right)}.`);
  }
}

connect();
