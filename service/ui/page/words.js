// Names and numbers for people.

function unitName(term) {
  if (term.class_logit) return term.class_logit.class_name;
  if (term.whole_layer) return `${term.whole_layer.layer} (whole layer)`;
  if (term.direction) return `${term.direction.layer} (direction)`;
  if (term.subject_activations) {
    const { layer, comparison } = term.subject_activations;
    return `${layer} (${comparison === "COMPARISON_CARICATURE" ? "caricature" : "inversion"})`;
  }
  const unit = term.neuron ?? term.channel ?? {};
  return `${unit.layer}:${unit.channel ?? 0}`;
}

const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

function objectiveName(objective) {
  const [first, ...others] = objective?.terms ?? [];
  if (!first) return "a visualization";
  const silenced = (term) => term.sense === "SENSE_MINIMIZE";
  const name = unitName(first) + (silenced(first) ? ", minimized" : "");
  if (!others.length) return name;
  if (first.class_logit && others.every((term) => term.class_logit && silenced(term))) {
    return `${name} against ${counted(others.length, "other")}`;
  }
  return `${name} and ${counted(others.length, "more term")}`;
}

export function jobName(objective, others, control) {
  return objectiveName(objective) + (others ? ` and ${others} more` : "") + (control ? `, control: ${control}` : "");
}

// A request's control, as the list of jobs names it; empty for the model as it is.
export function controlName({ control }) {
  return control ? `random weights, seed ${control.random_weights?.seed ?? 0}` : "";
}

export const state = (name) => (name ?? "").replace("JOB_STATE_", "").toLowerCase();
export const over = (name) => ["succeeded", "failed", "cancelled"].includes(state(name));

export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "";
  if (seconds < 1) return "under 1 s";
  if (seconds < 100) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

export function figure(value) {
  const number = Number(value);
  if (value === undefined || value === null || !Number.isFinite(number)) return String(value ?? "");
  if (number === 0) return "0";
  const size = Math.abs(number);
  if (size >= 1e5 || size < 1e-3) return number.toExponential(1).replace("-", "−");
  return number.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3).replace("-", "−");
}

export const time = (stamp) =>
  stamp ? new Date(stamp).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" }) : "";

export function element(kind, text = "", name = "") {
  const made = document.createElement(kind);
  made.textContent = text;
  if (name) made.className = name;
  return made;
}

export function facts(list, pairs) {
  const known = pairs.filter(([, value]) => value !== undefined && value !== null && value !== "");
  list.replaceChildren(...known.flatMap(([name, value]) => [element("dt", name), element("dd", String(value))]));
}
