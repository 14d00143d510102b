// NiiVue, which draws volumes; this server has its script where an operator has brought it.

import { Refused, json } from "./server.js";

const by = (id) => document.getElementById(id);
const AXES = ["x", "y", "z"];

// Why volumes cannot be drawn here, in words for the watcher.
export class NoViewer extends Error {}

let opening;

// One for every job: browsers have few WebGL contexts.
export function openViewer() {
  opening ??= open();
  opening.catch((error) => {
    if (!(error instanceof NoViewer)) opening = undefined;
  });
  return opening;
}

async function open() {
  const instead = "so volumes are not drawn here; download them instead";
  const { viewer } = await json("door");
  if (!viewer) {
    throw new NoViewer(`This server has no viewer, ${instead}. Whoever runs it adds NiiVue with make viewer, or names `
      + "its file in NEUROFV_VIEWER, and starts it again.");
  }
  if (!document.createElement("canvas").getContext("webgl2")) {
    throw new NoViewer(`This browser has no WebGL 2, ${instead}.`);
  }
  // Defines `niivue` for everybody, as scripts do.
  await import("./niivue.js");
  by("views").hidden = false; // for its size
  try {
    const made = new Viewer(globalThis.niivue);
    await made.start(by("canvas"));
    return made;
  } catch (error) {
    throw new NoViewer(`NiiVue does not start (${error.message}), ${instead}.`);
  }
}

class Viewer {
  constructor(niivue) {
    this.niivue = niivue;
    this.nv = new niivue.Niivue({
      backColor: [0, 0, 0, 1], crosshairColor: [0.75, 1, 0.75, 0.8], crosshairGap: 8, crosshairWidth: 1,
      crosshairWidthUnit: "mm", show3Dcrosshair: true, fontColor: [1, 1, 1, 1], loadingText: "", logLevel: "error",
      multiplanarLayout: niivue.MULTIPLANAR_TYPE.GRID,
      dragAndDropEnabled: false, dragMode: niivue.DRAG_MODE.none, isForceMouseClickToVoxelCenters: true,
      // Its own keys would change what the labelled controls say.
      clipPlaneHotKey: "", cycleClipPlaneHotKey: "", viewModeHotKey: "",
      onLocationChange: (place) => this.tell(place),
    });
  }

  async start(canvas) {
    // The wheel scrolls the page until somebody has clicked into the picture.
    canvas.addEventListener("wheel", (event) => {
      if (document.activeElement !== canvas) event.stopImmediatePropagation();
    }, { capture: true });
    await this.nv.attachToCanvas(canvas);
    // What the mouse does there, the controls below do for a keyboard.
    canvas.tabIndex = -1;
    const sliders = AXES.map(by);
    sliders.forEach((slider) => (slider.oninput = () => this.go(sliders.map((each) => Number(each.value)))));
    by("layout").onchange = () => this.lay();
    this.lay();
  }

  lay() {
    const { SLICE_TYPE, SHOW_RENDER } = this.niivue;
    const render = by("layout").value === "MULTIPLANAR_RENDER";
    this.nv.opts.multiplanarShowRender = render ? SHOW_RENDER.ALWAYS : SHOW_RENDER.NEVER;
    this.nv.setSliceType(SLICE_TYPE[render ? "MULTIPLANAR" : by("layout").value]);
  }

  // Of a NIfTI file, as the server sends it.
  async read(packed, name) {
    try {
      const image = await this.niivue.NVImage.loadFromUrl({ url: packed, name: `${name}.nii.gz` });
      if (!image.dimsRAS) throw new Error("it is no NIfTI file");
      return image;
    } catch (error) {
      throw new Refused(422, `NiiVue cannot read the volume ${name}: ${error.message}`);
    }
  }

  // The first image, and others over it, in the place of what was shown.
  show(images) {
    const { nv } = this;
    const former = nv.overlayTexture;
    nv.volumes = images;
    // Draws at once: between the former images and these there is nothing to be seen.
    nv.setVolume(images[0], 0);
    // NiiVue makes a new one for each overlay, and forgets the last.
    if (former && former !== nv.overlayTexture) nv.gl.deleteTexture(former);
    const shape = images[0].dimsRAS.slice(1, 4);
    AXES.forEach((axis, index) => (by(axis).max = shape[index] - 1));
    if (this.shape?.join() === shape.join()) nv.createOnLocationChange();
    else this.go(shape.map((size) => size >> 1));
    this.shape = shape;
  }

  // To a voxel, counted from the left, the back and the bottom.
  go(voxel) {
    this.nv.scene.crosshairPos = this.nv.vox2frac(voxel);
    this.nv.createOnLocationChange();
    this.nv.drawScene();
  }

  goTo(mm) {
    this.go(this.nv.frac2vox(this.nv.mm2frac(mm, 0, true)));
  }

  tell(place) {
    const words = AXES.map((axis, index) => `${axis} ${Math.round(place.mm[index])}`.replace("-", "−"));
    AXES.forEach((axis, index) => {
      by(axis).value = place.vox[index];
      by(axis).setAttribute("aria-valuetext", `${words[index]} mm`);
    });
    const values = place.values.map(({ value }) => value.toPrecision(3).replace("-", "−"));
    by("place").textContent = `${words.join(", ")} mm: ${values.join(", change ")}`;
  }
}
