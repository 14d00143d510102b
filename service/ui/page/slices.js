// Three slices at right angles, as radiologists' software lays them out but with the patient's right on the right.

import { element } from "./words.js";

const VIEWS = [
  { name: "Axial", across: 0, up: 1, through: 2, letters: ["L", "R", "A", "P"], axis: "z" },
  { name: "Coronal", across: 0, up: 2, through: 1, letters: ["L", "R", "S", "I"], axis: "y" },
  { name: "Sagittal", across: 1, up: 2, through: 0, letters: ["P", "A", "S", "I"], axis: "x" },
];

function gray(share) {
  const value = 255 * share;
  return [value, value, value];
}

// Blue below, black in the middle, orange above.
function diverging(share) {
  const value = 2 * share - 1;
  return value < 0 ? [-value * 110, -value * 190, -value * 255] : [value * 255, value * 170, value * 60];
}

function table(colour) {
  const made = new Uint8Array(256 * 3);
  for (let index = 0; index < 256; index++) made.set(colour(index / 255), 3 * index);
  return made;
}

const COLOURS = { gray: table(gray), diverging: table(diverging) };

export class Slices {
  constructor(parent, signal) {
    this.parent = parent;
    this.volume = null;
    this.position = null;
    this.views = VIEWS.map((view) => this.build(view, parent));
    const redraw = new ResizeObserver(() => this.draw());
    redraw.observe(parent);
    signal.addEventListener("abort", () => redraw.disconnect());
  }

  build(view, parent) {
    const figure = element("figure", "", "view");
    const canvas = element("canvas");
    canvas.setAttribute("role", "img");
    const slider = element("input");
    slider.type = "range";
    slider.min = 0;
    slider.setAttribute("aria-label", `${view.name} slice`);
    const caption = element("figcaption");
    figure.append(canvas, slider, caption);
    parent.append(figure);
    slider.addEventListener("input", () => this.move(view.through, Number(slider.value)));
    const point = (event) => {
      if (!this.volume || !(event.buttons & 1)) return;
      const box = canvas.getBoundingClientRect();
      const { shape } = this.volume;
      const across = Math.floor(((event.clientX - box.left) / box.width) * shape[view.across]);
      const up = Math.floor((1 - (event.clientY - box.top) / box.height) * shape[view.up]);
      this.move(view.across, across, false);
      this.move(view.up, up);
    };
    canvas.addEventListener("pointerdown", point);
    canvas.addEventListener("pointermove", point);
    return { ...view, canvas, slider, caption, small: document.createElement("canvas") };
  }

  move(axis, index, draw = true) {
    this.position[axis] = Math.min(Math.max(index, 0), this.volume.shape[axis] - 1);
    if (draw) this.draw();
  }

  go(position) {
    this.position = [...position];
    this.draw();
  }

  show(volume, colours) {
    this.volume = volume;
    this.colours = COLOURS[colours];
    // The same scale in all three.
    VIEWS.forEach(({ name, across }) => {
      const millimetres = volume.shape[across] * volume.voxel[across];
      this.parent.style.setProperty(`--${name.toLowerCase()}`, `${millimetres}fr`);
    });
    this.position ??= volume.shape.map((size) => size >> 1);
    this.draw();
  }

  draw() {
    if (!this.volume) return;
    this.views.forEach((view) => this.drawView(view));
  }

  drawView(view) {
    const { shape, voxel } = this.volume;
    const [width, height] = [shape[view.across], shape[view.up]];
    const image = new ImageData(width, height);
    this.fill(view, image);
    view.small.width = width;
    view.small.height = height;
    view.small.getContext("2d").putImageData(image, 0, 0);
    const { canvas } = view;
    const scale = window.devicePixelRatio || 1;
    const wide = Math.max(Math.round((canvas.clientWidth || 300) * scale), 1);
    canvas.width = wide;
    canvas.height = Math.round((wide * height * voxel[view.up]) / (width * voxel[view.across]));
    const context = canvas.getContext("2d");
    context.drawImage(view.small, 0, 0, canvas.width, canvas.height);
    this.mark(view, context, scale);
    const index = this.position[view.through];
    const place = `${view.axis} = ${Math.round(this.volume.mm(view.through, index))} mm`.replace("-", "−");
    view.slider.max = shape[view.through] - 1;
    view.slider.value = index;
    view.slider.setAttribute("aria-valuetext", place);
    view.caption.textContent = `${view.name}, ${place}`;
    canvas.setAttribute("aria-label", `${view.name} slice at ${place}`);
  }

  fill(view, image) {
    const { data, strides, first, low, high } = this.volume;
    const { width, height } = image;
    const begin = first + this.position[view.through] * strides[view.through];
    const scale = 255 / (high - low || 1);
    for (let row = 0; row < height; row++) {
      let from = begin + (height - 1 - row) * strides[view.up];
      for (let column = 0; column < width; column++, from += strides[view.across]) {
        const level = 3 * Math.round(Math.min(Math.max((data[from] - low) * scale, 0), 255));
        const to = 4 * (row * width + column);
        image.data[to] = this.colours[level];
        image.data[to + 1] = this.colours[level + 1];
        image.data[to + 2] = this.colours[level + 2];
        image.data[to + 3] = 255;
      }
    }
  }

  // Where the other two slices lie, and which side is which.
  mark(view, context, scale) {
    const { width, height } = context.canvas;
    const { shape } = this.volume;
    const x = ((this.position[view.across] + 0.5) / shape[view.across]) * width;
    const y = (1 - (this.position[view.up] + 0.5) / shape[view.up]) * height;
    const gap = 9 * scale;
    context.strokeStyle = "rgba(143, 208, 255, 0.7)";
    context.lineWidth = scale;
    context.beginPath();
    for (const [x1, y1, x2, y2] of [[x, 0, x, y - gap], [x, y + gap, x, height], [0, y, x - gap, y], [x + gap, y, width, y]]) {
      context.moveTo(x1, y1);
      context.lineTo(x2, y2);
    }
    context.stroke();
    context.font = `${12 * scale}px system-ui, sans-serif`;
    context.fillStyle = "#ffffff";
    context.shadowColor = "#000000";
    context.shadowBlur = 3 * scale;
    const edge = 5 * scale;
    const middle = { x: width / 2, y: height / 2 };
    const letter = (text, at, to, align, base) => {
      context.textAlign = align;
      context.textBaseline = base;
      context.fillText(text, at, to);
    };
    const [left, right, top, bottom] = view.letters;
    letter(left, edge, middle.y, "left", "middle");
    letter(right, width - edge, middle.y, "right", "middle");
    letter(top, middle.x, edge, "center", "top");
    letter(bottom, middle.x, height - edge, "center", "bottom");
    context.shadowBlur = 0;
  }
}
