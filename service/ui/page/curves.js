// Curves over steps, as SVG.

const SVG = "http://www.w3.org/2000/svg";
const [LEFT, RIGHT, TOP, BOTTOM] = [52, 12, 10, 30];
// More points than this a chart of this size does not show.
const MOST = 500;
export const STYLES = 6;

function node(kind, attributes, text) {
  const made = document.createElementNS(SVG, kind);
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
  if (text !== undefined) made.textContent = text;
  return made;
}

function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const digits = Math.min(Math.max(-Math.floor(Math.log10(step) + 1e-9), 0), 6);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step / 1e6; value += step) {
    found.push(Math.abs(value) < step / 1e6 ? 0 : value);
  }
  return found.map((value) => [value, value.toFixed(digits).replace("-", "−")]);
}

function thinned(points) {
  const stride = Math.max(Math.ceil(points.length / MOST), 1);
  return points.filter((_, index) => index % stride === 0 || index === points.length - 1);
}

// `series`: lists of [step, value], each drawn in the style of its place.
export function draw(chart, series, steps) {
  const width = Math.max(chart.clientWidth, 200);
  const height = Math.max(chart.clientHeight, 120);
  chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const values = series.flat().map(([, value]) => value).filter(Number.isFinite);
  if (!values.length) {
    chart.replaceChildren(node("text", { x: LEFT, y: height / 2 }, "no step has been taken yet"));
    return;
  }
  let low = values.reduce((a, b) => Math.min(a, b));
  let high = values.reduce((a, b) => Math.max(a, b));
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  const last = Math.max(steps || 0, series.flat().reduce((most, [step]) => Math.max(most, step), 1));
  const x = (step) => LEFT + (step / last) * (width - LEFT - RIGHT);
  const y = (value) => TOP + (1 - (value - low) / (high - low)) * (height - TOP - BOTTOM);
  const parts = [];
  for (const [value, text] of ticks(low, high, 4)) {
    parts.push(node("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }));
    parts.push(node("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, text));
  }
  for (const [step, text] of ticks(0, last, width < 360 ? 3 : 5)) {
    const anchor = x(step) > width - RIGHT - 14 ? "end" : "middle";
    parts.push(node("text", { x: x(step), y: height - BOTTOM + 16, "text-anchor": anchor }, text));
  }
  series.forEach((points, index) => {
    const shown = thinned(points.filter(([, value]) => Number.isFinite(value)));
    const path = shown.map(([step, value], at) => `${at ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    parts.push(node("path", { class: `s${index % STYLES}`, d: path, "data-points": points.length }));
  });
  chart.replaceChildren(...parts);
}

export function sample(index) {
  const made = node("svg", { viewBox: "0 0 28 8", "aria-hidden": "true" });
  made.append(node("line", { class: `s${index % STYLES}`, x1: 0, x2: 28, y1: 4, y2: 4 }));
  return made;
}
