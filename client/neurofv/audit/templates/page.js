"use strict";
// The viewer is asked for by a click: until then its script and volumes are text that nobody parses.
const dialog = document.getElementById("viewer");
const part = (name) => dialog.querySelector(`[data-part="${name}"]`);
const axes = ["x", "y", "z"].map(part);
let viewer = null;
let limit = 1;

const text = (id) => document.getElementById(id).textContent.trim();

async function unpacked(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

async function started() {
  if (viewer) return viewer;
  if (!document.createElement("canvas").getContext("webgl2")) throw new Error("this browser has no WebGL 2");
  const script = document.createElement("script");
  script.textContent = await unpacked(text("viewer-script"));
  document.head.append(script);
  if (!globalThis.niivue) throw new Error("its script did not start");
  const made = new niivue.Niivue({
    backColor: [0, 0, 0, 1], crosshairColor: [0.31, 0.82, 0.77, 1], crosshairGap: 6, show3Dcrosshair: true,
    dragAndDropEnabled: false, loadingText: "", isColorbar: false, logLevel: "error", textHeight: 0.05,
    multiplanarShowRender: niivue.SHOW_RENDER.ALWAYS, onLocationChange: located,
  });
  await made.attachToCanvas(part("canvas"));
  viewer = made;
  return made;
}

async function volume(id, options) {
  return niivue.NVImage.loadFromBase64({ base64: text(id), name: `${id}.nii.gz`, ...options });
}

async function show(button) {
  const { name, volume: id, ground } = button.dataset;
  part("title").textContent = name;
  part("note").textContent = "Starting the viewer …";
  dialog.showModal();
  try {
    const nv = await started();
    while (nv.volumes.length) nv.removeVolume(nv.volumes[0]);
    nv.addVolume(await volume(ground || id, { colormap: "gray" }));
    part("changes").hidden = !ground;
    if (ground) {
      limit = Number(button.dataset.limit);
      nv.addVolume(await volume(id, {
        colormap: "warm", colormapNegative: "blue2cyan", cal_max: limit, opacity: 0.85,
      }));
      hide();
    }
    shown();
    const [low, high] = extent(nv);
    axes.forEach((input, axis) => { input.min = Math.ceil(low[axis]); input.max = Math.floor(high[axis]); });
    go(button.dataset.point.split(" ").map(Number));
    part("note").textContent = "Drag, or use the sliders, to move; in the 3D view dragging turns the brain.";
    dialog.dataset.state = "ready";
  } catch (error) {
    dialog.dataset.state = "failed";
    part("note").textContent = `The viewer cannot be shown: ${error.message}. The still views show the same places.`;
  }
}

function extent(nv) {
  const ends = [[0, 0, 0], [1, 1, 1]].map((corner) => Array.from(nv.frac2mm(corner)).slice(0, 3));
  return [0, 1].map((end) => [0, 1, 2].map((axis) => Math[end ? "max" : "min"](ends[0][axis], ends[1][axis])));
}

function go(mm) {
  viewer.scene.crosshairPos = viewer.mm2frac(mm);
  viewer.createOnLocationChange();
  viewer.drawScene();
}

function located(place) {
  const mm = Array.from(place.mm).slice(0, 3).map((value) => Math.round(value));
  axes.forEach((input, axis) => { input.value = mm[axis]; });
  const words = [`x ${mm[0]}, y ${mm[1]}, z ${mm[2]} mm`];
  if (place.values.length > 1) words.push(`change ${place.values[1].value.toFixed(2)}`);
  part("place").textContent = words.join(": ");
}

// Both signs from the same share of the strongest change on.
function hide() {
  const change = viewer?.volumes[1];
  if (!change) return;
  const share = Number(part("least").value) / 100;
  part("least").setAttribute("aria-valuetext", `${part("least").value} % of the strongest`);
  change.cal_min = share * limit;
  change.cal_minNeg = -limit;
  change.cal_maxNeg = -share * limit;
  viewer.updateGLVolume();
}

function shown() {
  viewer.setSliceType(Number(part("view").value));
}

for (const button of document.querySelectorAll("button[data-volume]")) {
  button.hidden = false;
  button.addEventListener("click", () => show(button));
}
for (const input of axes) {
  input.addEventListener("input", () => viewer && go(axes.map((each) => Number(each.value))));
}
part("view").addEventListener("change", () => viewer && shown());
part("least").addEventListener("input", hide);
part("close").addEventListener("click", () => dialog.close());
