// The lists of jobs and of models.

import { json, pause } from "./server.js";
import { element, jobName, over, state, time } from "./words.js";

const EVERY = 3000;
const by = (id) => document.getElementById(id);

function stateMark(name) {
  const word = state(name);
  return element("span", word, `state ${word}`);
}

function progress(job) {
  const cell = element("td");
  const [step, steps] = [Number(job.step ?? 0), Number(job.steps ?? 0)];
  if (steps) {
    const bar = element("progress");
    bar.max = steps;
    bar.value = step;
    bar.setAttribute("aria-label", "Steps");
    if (!over(job.state)) cell.append(bar);
    cell.append(element("span", `step ${step} of ${steps}`, "steps"));
  }
  return cell;
}

function jobRow(job) {
  const row = element("tr");
  row.dataset.job = job.name;
  const unit = element("td");
  const link = element("a", jobName(job.objective, job.others, job.control));
  link.href = `#/${job.name}`;
  unit.append(link);
  const mark = element("td");
  mark.append(stateMark(job.state));
  const others = [time(job.create_time), job.owner ?? ""].map((text) => element("td", text));
  row.append(unit, element("td", job.model), mark, progress(job), ...others);
  return row;
}

// Rows are replaced in place, so that a link which has the focus keeps it.
function showRows(jobs) {
  const focused = document.activeElement?.closest("tr")?.dataset.job;
  by("job-rows").replaceChildren(...jobs.map(jobRow));
  if (focused) document.querySelector(`tr[data-job="${CSS.escape(focused)}"] a`)?.focus();
  by("no-jobs").hidden = jobs.length > 0;
  by("jobs-table").hidden = jobs.length === 0;
}

export async function showJobs(signal) {
  let page = "";
  let wake = () => {};
  const turn = (to) => () => {
    page = to;
    wake();
  };
  for (;;) {
    if (!document.hidden) {
      const query = page ? `?page_token=${encodeURIComponent(page)}` : "";
      const found = await json(`jobs${query}`, signal);
      showRows(found.jobs);
      by("older").hidden = !found.next_page_token;
      by("older").onclick = turn(found.next_page_token);
      by("newest").hidden = !page;
      by("newest").onclick = turn("");
    }
    await Promise.race([pause(EVERY, signal), new Promise((resolve) => (wake = resolve))]);
  }
}

function describe(model) {
  const list = element("dl");
  const { shape, voxel_size_mm: voxel, orientation, space } = model.input;
  const pairs = [
    ["Classes", (model.classes ?? []).join(", ")],
    ["Input", `${shape.join(" × ")} voxels of ${voxel.map((size) => Number(size.toPrecision(3))).join(" × ")} mm`],
    ["Space", `${space}, ${orientation}`],
    ["Licence", model.license],
    ["Digest", model.digest],
  ];
  pairs.forEach(([name, value]) => list.append(element("dt", name), element("dd", value ?? "")));
  const layers = element("ul");
  layers.setAttribute("aria-label", "Layers");
  layers.tabIndex = 0;
  (model.layers ?? []).forEach((layer) => {
    layers.append(element("li", `${layer.name}: ${layer.type}, ${layer.channels ?? 0} channels`));
  });
  return [list, element("h3", "Layers"), layers];
}

function modelCard(model, signal) {
  const card = element("article", "", "card");
  const word = model.ready ? "ready" : "not ready";
  card.append(element("h2", `${model.name}, version ${model.version}`));
  card.append(element("span", word, `state ${word.replace(" ", "-")}`));
  if (model.reason) card.append(element("p", model.reason, "quiet"));
  if (!model.ready) return card;
  const details = element("details");
  details.append(element("summary", "Classes, input and layers"));
  details.addEventListener("toggle", async () => {
    if (details.childElementCount > 1) return;
    const box = element("p", "…");
    details.append(box);
    try {
      const found = await json(`models/${encodeURIComponent(model.name)}/${model.version}`, signal);
      box.replaceWith(...describe(found.model));
    } catch (error) {
      box.textContent = error.message;
    }
  });
  card.append(details);
  return card;
}

export async function showModels(signal) {
  const found = await json("models", signal);
  by("model-cards").replaceChildren(...(found.models ?? []).map((model) => modelCard(model, signal)));
  if (!found.models) by("model-cards").append(element("p", "The repository holds no models.", "quiet"));
}
