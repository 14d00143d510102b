// What became of a picture since another one, voxel by voxel; both as NiiVue's images.

const EDGE = 5;
// Smaller changes than this share of the largest let the first picture through.
const SHARE = 0.2;

// To be laid over the first picture; its range is one that a few outliers do not set.
export function difference(image, first) {
  const made = image.clone();
  made.img = image.img.map((value, index) => value - first.img[index]);
  const sizes = made.img.filter((_, index) => index % 37 === 0).map(Math.abs).sort();
  const top = sizes[Math.floor(sizes.length * 0.995)] || sizes.at(-1) || 1;
  made.colormap = "warm";
  made.colormapNegative = "blue2cyan";
  return Object.assign(made, { cal_min: SHARE * top, cal_max: top, cal_minNeg: -top, cal_maxNeg: -SHARE * top });
}

// In millimetres: the centre of the block of 5 voxels a side in which two pictures differ most.
export function largestChange(image, first) {
  const [, nx, ny, nz] = image.hdr.dims;
  let best = -1;
  let place = [nx >> 1, ny >> 1, nz >> 1];
  for (let z = 0; z + EDGE <= nz; z += EDGE) {
    for (let y = 0; y + EDGE <= ny; y += EDGE) {
      for (let x = 0; x + EDGE <= nx; x += EDGE) {
        let sum = 0;
        for (let c = z; c < z + EDGE; c++) {
          for (let b = y; b < y + EDGE; b++) {
            const row = nx * (b + ny * c);
            for (let a = row + x; a < row + x + EDGE; a++) sum += Math.abs(image.img[a] - first.img[a]);
          }
        }
        if (sum > best) [best, place] = [sum, [x, y, z].map((corner) => corner + (EDGE >> 1))];
      }
    }
  }
  return image.hdr.affine.slice(0, 3).map((row) => row[3] + place.reduce((sum, at, axis) => sum + row[axis] * at, 0));
}
