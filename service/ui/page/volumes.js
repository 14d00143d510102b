// A job's volumes: which there are, which one is shown, and what is fetched of them.

import { difference, largestChange, readNifti } from "./nifti.js";
import { bytes } from "./server.js";
import { Slices } from "./slices.js";
import { element, figure } from "./words.js";

const by = (id) => document.getElementById(id);
// Volumes kept decoded; each is some megabytes.
const MOST = 8;
const MAPS = {
  VOLUME_KIND_GRADIENT: ["gradient: where it looked", "Mean magnitude of the objective's gradient"],
  VOLUME_KIND_JACOBIAN: ["Jacobian of the deformation", "Above 1 tissue grows, below it shrinks"],
  VOLUME_KIND_OPACITY: ["opacity of the patch", "0 to 1"],
};
const forms = (begin) => ["VOLUME_KIND_INTERMEDIATE", "VOLUME_KIND_FINAL"].includes(begin.kind);

export class Volumes {
  constructor(job, signal, trouble) {
    Object.assign(this, { job, signal, trouble });
    this.begins = [];
    this.known = new Map();
    this.item = 0;
    this.follows = true;
    this.chosen = "volume";
    by("views").replaceChildren();
    this.slices = new Slices(by("views"), signal);
    by("waiting").hidden = false;
    by("controls").hidden = true;
    this.listen();
    this.list();
  }

  listen() {
    by("when").oninput = () => this.follow(false, Number(by("when").value));
    by("follow").onclick = () => this.follow(!this.follows);
    by("show").onchange = () => this.choose(by("show").value);
    by("item").onchange = () => {
      this.item = Number(by("item").value);
      this.follow(this.follows);
    };
    by("seek").onclick = () => this.seek();
  }

  // Of the item that is shown: the volume as it forms, in order.
  get frames() {
    return this.begins.filter((begin) => forms(begin) && (begin.item ?? 0) === this.item);
  }

  add(begin) {
    if (this.begins.some((other) => other.id === begin.id)) return;
    this.begins.push(begin);
    this.news = true;
  }

  // Called after each page of events: shows the newest picture once, not each on the way.
  async update() {
    if (!this.news) return;
    this.news = false;
    this.list();
    await this.show();
  }

  follow(follows, frame) {
    this.follows = follows;
    this.frame = frame;
    this.list();
    return this.show();
  }

  choose(what) {
    this.chosen = what;
    return this.show();
  }

  list() {
    const { frames } = this;
    const when = by("when");
    when.max = Math.max(frames.length - 1, 0);
    if (this.follows || this.frame === undefined) this.frame = frames.length - 1;
    this.frame = Math.min(this.frame, frames.length - 1);
    when.value = Math.max(this.frame, 0);
    const begin = frames[this.frame];
    const text = begin && (begin.kind === "VOLUME_KIND_FINAL" ? `final, step ${begin.step}` : `step ${begin.step ?? 0}`);
    by("when-text").value = text ?? "";
    when.setAttribute("aria-valuetext", text ?? "");
    by("follow").setAttribute("aria-pressed", String(this.follows));
    this.offer(by("item"), [...new Set(this.begins.map((other) => other.item ?? 0))].sort((a, b) => a - b)
      .map((item) => [String(item), `${item + 1}`]), String(this.item));
    by("item-choice").hidden = by("item").options.length < 2;
    const maps = this.begins.filter((other) => MAPS[other.kind] && (other.item ?? 0) === this.item);
    const choices = [["volume", "the volume"], ["change", "change since the first picture"]];
    if (!maps.some((map) => map.kind === this.chosen) && MAPS[this.chosen]) this.chosen = "volume";
    this.offer(by("show"), [...choices, ...maps.map((map) => [map.kind, MAPS[map.kind][0]])], this.chosen);
  }

  offer(select, choices, chosen) {
    if (select.options.length !== choices.length) {
      select.replaceChildren(...choices.map(([value, text]) => Object.assign(element("option", text), { value })));
    }
    select.value = chosen;
  }

  async read(begin) {
    let found = this.known.get(begin.id);
    if (!found) {
      found = bytes(`${this.job}/volumes/${encodeURIComponent(begin.id)}`, this.signal).then(readNifti);
      this.known.set(begin.id, found);
      found.catch(() => this.known.delete(begin.id));
      // The first ones stay: changes are told from them.
      const spare = [...this.known.keys()].filter((id) => !this.begins.some((b) => b.id === id && b === this.firstOf(b)));
      if (spare.length > MOST) this.known.delete(spare[0]);
    }
    return found;
  }

  firstOf(begin) {
    return this.begins.find((other) => forms(other) && (other.item ?? 0) === (begin.item ?? 0));
  }

  async show() {
    const turn = (this.turn = (this.turn ?? 0) + 1);
    const { frames } = this;
    const map = this.begins.find((other) => other.kind === this.chosen && (other.item ?? 0) === this.item);
    const begin = map ?? frames[this.frame];
    if (!begin) return;
    try {
      let volume = await this.read(begin);
      if (this.chosen === "change") volume = difference(volume, await this.read(frames[0]));
      // Another one was chosen meanwhile.
      if (turn !== this.turn) return;
      by("waiting").hidden = true;
      by("controls").hidden = false;
      by("views").dataset.volume = begin.id;
      this.tell(volume, begin);
      this.slices.show(volume, this.chosen === "change" ? "diverging" : "gray");
    } catch (error) {
      await this.missed(error, begin);
    }
  }

  // A snapshot that has made room for newer ones is no longer there to be shown.
  async missed(error, begin) {
    if (this.signal.aborted) return;
    if (error.status !== 404 || begin.kind !== "VOLUME_KIND_INTERMEDIATE") {
      this.trouble(error);
      return;
    }
    const gone = this.chosen === "change" && (await this.read(begin).catch(() => null)) ? this.frames[0] : begin;
    this.begins = this.begins.filter((other) => other !== gone);
    this.list();
    await this.show();
  }

  tell(volume, begin) {
    const [low, high] = [figure(volume.low), figure(volume.high)];
    if (this.chosen === "change") by("legend").textContent = `Blue is darker than in the first picture, orange brighter; from ${low} to ${high}.`;
    else if (MAPS[this.chosen]) by("legend").textContent = `${MAPS[begin.kind][1]}; black is ${low}, white ${high}.`;
    else by("legend").textContent = `Intensity in the model's units: black is ${low}, white ${high}.`;
  }

  async seek() {
    const { frames } = this;
    if (!frames.length) return;
    try {
      const [latest, first] = await Promise.all([this.read(frames[this.frame]), this.read(frames[0])]);
      this.slices.go(largestChange(latest, first));
    } catch (error) {
      if (!this.signal.aborted) this.trouble(error);
    }
  }
}
