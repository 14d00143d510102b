// A job's volumes: which there are, which one is shown, and what is fetched of them.

import { difference, largestChange } from "./change.js";
import { bytes, passes } from "./server.js";
import { NoViewer, openViewer } from "./viewer.js";
import { element, figure } from "./words.js";

const by = (id) => document.getElementById(id);
// Volumes kept unpacked; each is some megabytes.
const MOST = 8;
// Milliseconds before a picture that did not come is asked for again; twice as many each time.
const [SOON, LATE] = [500, 8000];
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
    this.rest = SOON;
    this.chosen = "volume";
    by("waiting").hidden = false;
    by("controls").hidden = true;
    delete by("views").dataset.volume;
    this.listen();
    this.list();
    this.open().catch(() => {}); // `update` tries again, and tells
  }

  // Without a viewer, volumes are offered as files and not fetched.
  async open() {
    try {
      this.viewer = await openViewer();
    } catch (error) {
      if (!(error instanceof NoViewer)) throw error;
      by("no-viewer").textContent = error.message;
    }
    by("no-viewer").hidden = Boolean(this.viewer);
    by("views").hidden = by("place-line").hidden = by("seek").hidden = !this.viewer;
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
    by("save").onclick = () => this.save();
  }

  get map() {
    return this.begins.find((other) => other.kind === this.chosen && (other.item ?? 0) === this.item);
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

  // Called after each page of events: shows the newest picture once, not each on the way. There is news until it
  // is shown, or cannot be.
  async update() {
    if (!this.news) return;
    await this.open();
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
    const choices = [["volume", "the volume"]];
    if (this.viewer) choices.push(["change", "change since the first picture"]);
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
      found = this.fetch(begin).then((packed) => this.viewer.read(packed, begin.id)).catch((error) => {
        this.known.delete(begin.id);
        throw Object.assign(error, { begin });
      });
      this.known.set(begin.id, found);
      // The first ones stay: changes are told from them.
      const spare = [...this.known.keys()].filter((id) => !this.begins.some((b) => b.id === id && b === this.firstOf(b)));
      if (spare.length > MOST) this.known.delete(spare[0]);
    }
    return found;
  }

  fetch(begin) {
    return bytes(`${this.job}/volumes/${encodeURIComponent(begin.id)}`, this.signal);
  }

  firstOf(begin) {
    return this.begins.find((other) => forms(other) && (other.item ?? 0) === (begin.item ?? 0));
  }

  async show() {
    const turn = (this.turn = (this.turn ?? 0) + 1);
    const { frames } = this;
    const begin = this.map ?? frames[this.frame];
    if (!begin) return;
    try {
      const images = this.viewer ? await this.images(begin, frames[0]) : [];
      // Another one was chosen meanwhile.
      if (turn !== this.turn || this.signal.aborted) return;
      by("waiting").hidden = true;
      by("controls").hidden = false;
      by("legend").textContent = images.length ? this.legend(images.at(-1), begin) : "";
      if (images.length) this.viewer.show(images);
      by("views").dataset.volume = begin.id;
      if (this.failed) this.trouble(null);
      Object.assign(this, { failed: false, rest: SOON });
    } catch (error) {
      if (turn !== this.turn || this.signal.aborted) return;
      if (this.drop(error)) return this.show();
      this.trouble(error);
      // `update` asks for it again.
      Object.assign(this, { failed: true, news: this.news || passes(error), rest: Math.min(2 * this.rest, LATE) });
    }
  }

  async images(begin, first) {
    const image = await this.read(begin);
    if (this.chosen !== "change") return [image];
    const ground = await this.read(first);
    return [ground, difference(image, ground)];
  }

  // A snapshot that has made room for newer ones is no longer there to be shown.
  drop({ status, begin }) {
    if (status !== 404 || begin?.kind !== "VOLUME_KIND_INTERMEDIATE") return false;
    const at = this.frames.indexOf(begin);
    this.begins = this.begins.filter((other) => other !== begin);
    // The chosen one stays chosen.
    if (at >= 0 && at < this.frame) this.frame -= 1;
    this.list();
    return true;
  }

  legend(image, begin) {
    const [low, high] = [figure(image.cal_min), figure(image.cal_max)];
    if (this.chosen === "change") {
      return `Grey is the first picture. Orange is brighter than it by ${low} to ${high}, blue is darker by as much.`;
    }
    if (MAPS[this.chosen]) return `${MAPS[begin.kind][1]}; black is ${low}, white ${high}.`;
    return `Intensity in the model's units: black is ${low}, white ${high}.`;
  }

  async seek() {
    const { frames } = this;
    if (!frames.length) return;
    try {
      const [latest, first] = await Promise.all([this.read(frames[this.frame]), this.read(frames[0])]);
      this.viewer.goTo(largestChange(latest, first));
    } catch (error) {
      if (this.signal.aborted) return;
      if (this.drop(error)) await this.seek();
      else this.trouble(error);
    }
  }

  // The file that is shown, under its own name.
  async save() {
    const begin = this.map ?? this.frames[this.frame];
    try {
      const link = element("a");
      link.href = URL.createObjectURL(new Blob([await this.fetch(begin)], { type: "application/gzip" }));
      link.download = begin.file_name || `${begin.id}.nii.gz`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    } catch (error) {
      if (!this.signal.aborted) this.trouble(error);
    }
  }
}
