// NIfTI-1 files of this service: gzip, one volume of float32 with an sform (service/volumes/nifti.py writes them).

const FLOAT32 = 16;

async function inflate(packed) {
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

// For each axis of the world (right, front, top): which axis of the array runs along it, and whether backwards.
function orient(affine) {
  const taken = new Set();
  return [0, 1, 2].map((world) => {
    const strength = [0, 1, 2].map((axis) => (taken.has(axis) ? -1 : Math.abs(affine[world][axis])));
    const axis = strength.indexOf(Math.max(...strength));
    taken.add(axis);
    return { axis, backwards: affine[world][axis] < 0 };
  });
}

export async function readNifti(packed) {
  const buffer = await inflate(packed);
  const view = new DataView(buffer);
  if (view.getInt32(0, true) !== 348 || view.getInt16(70, true) !== FLOAT32) {
    throw new Error("the volume is no little-endian NIfTI-1 file of float32");
  }
  const shape = [1, 2, 3].map((axis) => view.getInt16(40 + 2 * axis, true));
  const affine = [0, 1, 2].map((row) => [0, 1, 2, 3].map((column) => view.getFloat32(280 + 16 * row + 4 * column, true)));
  const [low, high] = [view.getFloat32(128, true), view.getFloat32(124, true)];
  const begin = view.getFloat32(108, true);
  const size = shape[0] * shape[1] * shape[2];
  const data = new Float32Array(buffer.slice(begin, begin + 4 * size));
  return new Volume(data, shape, affine, low, high);
}

// A volume whose axes are those of the world: x to the right, y to the front, z to the top.
export class Volume {
  constructor(data, shape, affine, low, high) {
    Object.assign(this, { data, low, high });
    const axes = orient(affine);
    const steps = [1, shape[0], shape[0] * shape[1]];
    this.shape = axes.map(({ axis }) => shape[axis]);
    this.strides = axes.map(({ axis, backwards }) => (backwards ? -steps[axis] : steps[axis]));
    this.first = axes.reduce((sum, { axis, backwards }) => sum + (backwards ? (shape[axis] - 1) * steps[axis] : 0), 0);
    this.voxel = axes.map(({ axis }) => Math.hypot(...affine.map((row) => row[axis])));
    this.origin = axes.map(({ axis, backwards }, world) => {
      const index = [0, 0, 0];
      axes.forEach((other) => (index[other.axis] = other.backwards ? shape[other.axis] - 1 : 0));
      return affine[world].slice(0, 3).reduce((sum, value, i) => sum + value * index[i], affine[world][3]);
    });
  }

  at(position) {
    return this.data[position.reduce((sum, index, axis) => sum + index * this.strides[axis], this.first)];
  }

  mm(axis, index) {
    return this.origin[axis] + index * this.voxel[axis];
  }

  // The same place with other numbers.
  with(data, low, high) {
    return Object.assign(Object.create(Volume.prototype), this, { data, low, high });
  }
}

// What became of one volume in another, with a range that a few outliers do not set.
export function difference(volume, first) {
  const data = volume.data.map((value, index) => value - first.data[index]);
  const sizes = [];
  for (let index = 0; index < data.length; index += 37) sizes.push(Math.abs(data[index]));
  sizes.sort((a, b) => a - b);
  const top = sizes[Math.floor(sizes.length * 0.995)] || sizes[sizes.length - 1] || 1;
  return volume.with(data, -top, top);
}

// The centre of the block of 5 voxels a side in which two volumes differ most.
export function largestChange(volume, first) {
  const edge = 5;
  let best = -1;
  let place = volume.shape.map((size) => size >> 1);
  const change = difference(volume, first);
  const [nx, ny, nz] = volume.shape;
  for (let z = 0; z + edge <= nz; z += edge) {
    for (let y = 0; y + edge <= ny; y += edge) {
      for (let x = 0; x + edge <= nx; x += edge) {
        let sum = 0;
        for (let c = 0; c < edge; c++) {
          for (let b = 0; b < edge; b++) for (let a = 0; a < edge; a++) sum += Math.abs(change.at([x + a, y + b, z + c]));
        }
        if (sum > best) [best, place] = [sum, [x, y, z].map((corner) => corner + (edge >> 1))];
      }
    }
  }
  return place;
}
