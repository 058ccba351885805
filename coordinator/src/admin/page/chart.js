// A small line chart over epochs as SVG: axes with labels, lines with dots, the best epoch, and
// the epochs that patience still grants. It draws what it is given, at the size that it has.

const SPACE = "http://www.w3.org/2000/svg";
const EDGE = { left: 46, right: 12, top: 22, bottom: 36 };

/**
 * Draws `chart` into `svg`:
 * `series`: `[{ name, points: [[epoch, value], …] }]`, a value that is not finite leaves a gap;
 * `running`: a point of the first series that is not final;
 * `best`: `{ epoch, value }`; `until`: the epoch at which patience ends;
 * `low` and `high`: what the value axis holds at least; `falls`: whether the lines tend down.
 */
export function draw(svg, chart) {
  const width = svg.clientWidth;
  const height = svg.clientHeight;
  if (!width || !height) return;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  const points = chart.series.flatMap(({ points }) => points);
  if (chart.running) points.push(chart.running);
  const values = points.map(([, value]) => value).filter(Number.isFinite);
  const lastEpoch = Math.max(2, chart.until ?? 0, ...points.map(([epoch]) => epoch));
  const rises = ticks(Math.min(chart.low, ...values), Math.max(chart.high, ...values), 5);
  const [bottom, top] = [rises[0], rises.at(-1)];

  const x = (epoch) =>
    EDGE.left + ((epoch - 1) / (lastEpoch - 1)) * (width - EDGE.left - EDGE.right);
  const y = (value) =>
    height - EDGE.bottom - ((value - bottom) / (top - bottom)) * (height - EDGE.top - EDGE.bottom);

  for (const value of rises) {
    const at = y(value);
    add(svg, "line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: at, y2: at });
    add(svg, "text", { x: EDGE.left - 8, y: at + 4, "text-anchor": "end" }, label(value, rises));
  }
  const floor = height - EDGE.bottom;
  const fitting = Math.max(2, Math.floor((width - EDGE.left - EDGE.right) / 36));
  const stride = Math.max(1, ticks(0, lastEpoch, fitting)[1]);
  for (let epoch = 1; epoch <= lastEpoch; epoch += epoch === 1 && stride > 1 ? stride - 1 : stride) {
    add(svg, "line", { class: "axis", x1: x(epoch), x2: x(epoch), y1: floor, y2: floor + 4 });
    add(svg, "text", { x: x(epoch), y: floor + 17, "text-anchor": "middle" }, String(epoch));
  }
  add(svg, "line", { class: "axis", x1: EDGE.left, x2: width - EDGE.right, y1: floor, y2: floor });
  add(svg, "text", { x: (EDGE.left + width - EDGE.right) / 2, y: height - 4, "text-anchor": "middle" }, "epoch");

  if (chart.best) {
    const at = x(chart.best.epoch);
    if (chart.until > chart.best.epoch) {
      const box = { x: at, y: EDGE.top, width: x(chart.until) - at, height: floor - EDGE.top };
      add(svg, "rect", { class: "patience", ...box });
      const free = chart.falls ? EDGE.top + 15 : floor - 7;
      if (box.width > 64) add(svg, "text", { x: x(chart.until) - 6, y: free, "text-anchor": "end" }, "patience");
    }
    add(svg, "line", { class: "best", x1: at, x2: at, y1: EDGE.top, y2: floor });
  }
  for (const { name, points } of chart.series) {
    line(svg, `line ${name}`, points.map(([epoch, value]) => [x(epoch), y(value)]));
    // Many dots would hide the line.
    if (points.length > 40) continue;
    for (const [epoch, value] of points.filter(([, value]) => Number.isFinite(value))) {
      add(svg, "circle", { class: `dot ${name}`, cx: x(epoch), cy: y(value), r: 2.75 });
    }
  }
  if (chart.running && Number.isFinite(chart.running[1])) {
    const [epoch, value] = chart.running;
    add(svg, "circle", { class: "dot running", cx: x(epoch), cy: y(value), r: 3.5 });
  }
  if (chart.best && Number.isFinite(chart.best.value)) {
    const [cx, cy] = [x(chart.best.epoch), y(chart.best.value)];
    add(svg, "circle", { class: "ring", cx, cy, r: 6 });
    const anchor = cx < 90 ? "start" : cx > width - 90 ? "end" : "middle";
    add(svg, "text", { class: "mark", x: cx, y: EDGE.top - 8, "text-anchor": anchor }, chart.best.text);
  }
}

/** Round numbers from at most `low` to at least `high`, about `count` of them. */
export function ticks(low, high, count) {
  const span = high - low || Math.abs(high) || 1;
  const rough = span / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const first = Math.floor(low / step + 1e-9);
  const last = Math.max(first + 1, Math.ceil(high / step - 1e-9));
  return Array.from({ length: last - first + 1 }, (_, at) => (first + at) * step);
}

/** A tick with as many decimals as its distance to the next one needs. */
function label(value, all) {
  const step = all[1] - all[0];
  return value.toFixed(Math.min(6, Math.max(0, -Math.floor(Math.log10(step) + 1e-9))));
}

function line(svg, name, points) {
  let path = "";
  let pen = "M";
  for (const [x, y] of points) {
    if (!Number.isFinite(y)) {
      pen = "M";
      continue;
    }
    path += `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
    pen = "L";
  }
  if (path) add(svg, "path", { class: name, d: path });
}

function add(svg, kind, attributes, text) {
  const node = document.createElementNS(SPACE, kind);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  svg.append(node);
}
