// One job: its volume as it forms, its curves, its facts.

import { draw, sample } from "./curves.js";
import { json, passes, pause } from "./server.js";
import { Volumes } from "./volumes.js";
import { controlName, duration, element, facts, figure, jobName, state, time } from "./words.js";

const by = (id) => document.getElementById(id);
const STOPS = {
  STOP_REASON_STEPS: "all steps were taken",
  STOP_REASON_PLATEAU: "looks brought no gain any more",
  STOP_REASON_ACTIVATION: "the activation asked for was reached",
  STOP_REASON_TIME: "the time was up",
  STOP_REASON_DEAD: "the unit had no gradient",
};

class View {
  constructor(name, signal, trouble) {
    Object.assign(this, { name, signal, trouble });
    this.after = 0;
    this.step = 0;
    this.curves = new Map();
    this.volumes = new Volumes(name, signal, trouble);
    const redraw = new ResizeObserver(() => this.draw());
    redraw.observe(by("objective"));
    signal.addEventListener("abort", () => redraw.disconnect());
  }

  async refresh() {
    const { job } = await json(this.name, this.signal);
    this.job = job;
    this.steps = job.request.steps ?? 0;
    this.step = Math.max(this.step, job.step ?? 0);
    this.tell();
  }

  tell() {
    const { job } = this;
    const { request } = job;
    const control = controlName(request);
    by("unit").textContent = jobName(request.objective, request.batch?.length, control);
    document.title = `${by("unit").textContent}, neurofv`;
    by("of").textContent = `${request.model}, version ${request.version ?? ""}. ${job.name}`;
    this.tellState();
    by("failure").hidden = !job.error;
    by("failure").textContent = job.error ? `${job.error.message} (${job.error.reason})` : "";
    const spreads = control ? "the control's own spreads, not those of real images" : "spreads of real images";
    by("objective-name").textContent = `Objective by step, in ${spreads}`;
    facts(by("facts"), [
      ["Control", control && `${control}: the volume shows nothing that the model has learned`],
      ["Owner", job.owner],
      ["Created", time(job.create_time)],
      ["Started", time(job.start_time)],
      ["Ended", time(job.end_time)],
      ["Removed", job.pinned ? "never: it is pinned" : time(job.expire_time)],
      ["Attempt", job.attempt],
      ["Seed", request.seed],
      ["Parameterization", Object.keys(request.parameterization ?? {})[0]],
      ["Samples", request.samples > 1 ? request.samples : ""],
    ]);
    by("request").textContent = JSON.stringify(request, null, 2);
    this.tellResult(job.completed);
  }

  tellState() {
    const word = state(this.job.state);
    if (by("state").textContent !== word) by("state").textContent = word;
    by("state").className = `state ${word}`;
    by("bar").max = this.steps || 1;
    by("bar").value = this.step;
    const left = (this.steps - this.step) * this.pace;
    const running = word === "running" && this.pace;
    const rest = running ? `, ${figure(this.pace)} s a step, ${duration(left)} left` : "";
    by("pace").textContent = `step ${this.step} of ${this.steps}${rest}`;
  }

  tellResult(completed) {
    by("result").hidden = !completed;
    if (!completed) return;
    const { evaluation = {} } = completed;
    const [term = {}] = evaluation.terms ?? [];
    const held = term.held_out ?? {};
    const share = (value) => (value === undefined ? "" : `${(100 * value).toFixed(1)} %`);
    facts(by("figures"), [
      ["Activation", figure(term.activation)],
      ["Real images below it", share(term.percentile)],
      ["95th percentile of real ones", term.real_p95 === undefined ? "" : figure(term.real_p95)],
      ["Largest of real ones", term.real_maximum === undefined ? "" : figure(term.real_maximum)],
      ["Under held-out transforms", held.mean === undefined ? "" : `${figure(held.mean)} (5 % are below ${figure(held.p5)})`],
      ["Rank in its layer", term.selectivity_rank ? `${term.selectivity_rank} of ${term.layer_units}` : ""],
      ["Distance to real spectra", evaluation.spectrum_distance === undefined ? "" : `${figure(evaluation.spectrum_distance)} decades`],
      ["Saturated voxels", share(evaluation.saturated_share ?? 0)],
      ["Best step", evaluation.step],
      ["Ended because", STOPS[evaluation.stop_reason]],
    ]);
  }

  take(event) {
    this.after = Number(event.sequence);
    if (event.progress) this.takeProgress(event.progress);
    else if (event.volume_begin) this.volumes.add(event.volume_begin);
    else if (event.state_changed && this.job) {
      this.job.state = event.state_changed.state;
      this.stale = true;
    }
  }

  takeProgress(progress) {
    const step = progress.step ?? 0;
    this.step = Math.max(this.step, step);
    const seconds = progress.step_seconds ?? 0;
    this.pace = this.pace ? 0.8 * this.pace + 0.2 * seconds : seconds;
    [progress, ...(progress.batch ?? [])].forEach((item, index) => {
      if (!this.curves.has(index)) this.curves.set(index, { objective: [], terms: new Map() });
      const curve = this.curves.get(index);
      curve.objective.push([step, Number(item.objective ?? 0)]);
      Object.entries(item.regularizers ?? {}).forEach(([name, value]) => {
        if (!curve.terms.has(name)) curve.terms.set(name, []);
        curve.terms.get(name).push([step, Number(value)]);
      });
    });
  }

  draw() {
    const curve = this.curves.get(this.volumes.item) ?? { objective: [], terms: new Map() };
    draw(by("objective"), [curve.objective], this.steps);
    const [first, newest] = [curve.objective[0], curve.objective.at(-1)];
    by("objective-text").textContent = newest ? `From ${figure(first[1])} at step ${first[0]} to ${figure(newest[1])} at step ${newest[0]}.` : "";
    const names = [...curve.terms.keys()].sort();
    by("terms-card").hidden = !names.length;
    if (!names.length) return;
    draw(by("terms"), names.map((name) => curve.terms.get(name)), this.steps);
    by("terms-legend").replaceChildren(...names.map((name, index) => {
      const entry = element("li");
      entry.append(sample(index), `${name.replaceAll("_", " ")} ${figure(curve.terms.get(name).at(-1)[1])}`);
      return entry;
    }));
  }

  async follow() {
    for (;;) {
      const page = await json(`${this.name}/events?after=${this.after}`, this.signal);
      page.events.forEach((event) => this.take(event));
      // What a job has done so far is shown once, not on the way there.
      if (page.more) continue;
      if (this.stale) {
        this.stale = false;
        await this.refresh();
      }
      this.tellState();
      this.draw();
      await this.volumes.update();
      if (page.last && !this.volumes.news) return;
      // Steps of a few milliseconds come in pages, not one by one.
      await pause(this.volumes.news ? this.volumes.rest : page.events.length ? 250 : 0, this.signal);
    }
  }
}

export async function showJob(name, signal, trouble) {
  const view = new View(name, signal, trouble);
  await view.refresh();
  view.draw();
  for (;;) {
    try {
      await view.follow();
      await view.refresh();
      if (!view.volumes.failed) trouble(null);
      return;
    } catch (error) {
      // A server that starts again goes on with the job, and this page with its events.
      if (signal.aborted || !passes(error)) throw error;
      trouble(error);
      await pause(2000, signal);
      await view.refresh().then(() => trouble(null), () => {});
    }
  }
}
