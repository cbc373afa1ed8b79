"use strict";

/* Arithmetic on features and cameras. Nothing here reads the page. */

/** Write the similarities of one patch to all patches to `out`, a Float64Array. Sums of codes are exact. */
function similarities({ codes, channels, step, offset, square }, patch, out) {
  const query = codes.slice(patch * channels, (patch + 1) * channels);
  const [scale, own] = [step * step, offset[patch] - square];
  for (let p = 0, at = 0; p < out.length; p += 1) {
    let sum = 0;
    for (let c = 0; c < channels; c += 1, at += 1) sum += query[c] * codes[at];
    out[p] = scale * sum + offset[p] + own;
  }
}

/** Return the patch with the largest value in [first, end) among those that `allowed` marks; -1 if there is none. */
function bestPatch(values, allowed, first, end) {
  let best = -1;
  for (let p = first; p < end; p += 1) {
    if (allowed[p] && (best < 0 || values[p] > values[best])) best = p;
  }
  return best;
}

/**
 * Return the average precision of the patches that `positive` marks, in the ranking by value of those that `ranked` marks;
 * NaN without a positive.
 *
 * Equal values count as their mean over all orders: of t equal values, p of them positive, below `above` others with
 * P positives, the k-th adds p / t (P + 1 + (k - 1) (p - 1) / (t - 1)) / (above + k).
 */
function averagePrecision(values, ranked, positive) {
  const found = values.filter((_, i) => ranked[i] && positive[i]).sort(); // few
  const levels = found.filter((value, i) => i === 0 || value !== found[i - 1]);
  const [between, equal] = [new Uint32Array(levels.length + 1), new Uint32Array(levels.length)];
  for (let i = 0; i < values.length; i += 1) {
    if (!ranked[i]) continue;
    const below = countBelow(levels, values[i]); // levels below this value
    if (levels[below] === values[i]) equal[below] += 1;
    else between[below] += 1;
  }
  let [sum, above, positives] = [0, 0, 0];
  for (let level = levels.length - 1; level >= 0; level -= 1) {
    above += between[level + 1];
    const t = equal[level];
    const p = countBelow(found, levels[level + 1] ?? Infinity) - countBelow(found, levels[level]);
    const step = t > 1 ? (p - 1) / (t - 1) : 0;
    for (let k = 1; k <= t; k += 1) sum += ((p / t) * (positives + 1 + (k - 1) * step)) / (above + k);
    above += t;
    positives += p;
  }
  return positives ? sum / positives : NaN;
}

/** Return the number of values of an ascending array that are below a value. */
function countBelow(ascending, value) {
  let low = 0;
  let high = ascending.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ascending[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Return the values below which the given fractions of an array are, to 1/1000 of its range: without sorting it. */
function quantiles(values, fractions) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  const bins = 1000;
  const counts = new Uint32Array(bins + 1);
  const scale = high > low ? bins / (high - low) : 0;
  for (const value of values) counts[Math.floor((value - low) * scale)] += 1;
  return fractions.map((fraction) => {
    let bin = 0;
    for (let below = counts[0]; below < fraction * values.length && bin < bins; below += counts[bin]) bin += 1;
    return low + bin / (scale || 1);
  });
}

/** Return [u, v, z] of a world point: pixels, and depth before the camera. `pose` (4, 4) is camera-to-world. */
function project(point, intrinsics, pose) {
  const d = [0, 1, 2].map((i) => point[i] - pose[4 * i + 3]);
  const camera = [0, 1, 2].map((j) => d[0] * pose[j] + d[1] * pose[4 + j] + d[2] * pose[8 + j]);
  const [x, y] = [0, 3].map((row) => [0, 1, 2].reduce((sum, k) => sum + intrinsics[row + k] * camera[k], 0));
  return [x / camera[2], y / camera[2], camera[2]];
}

/** Return point `index` of an array (n, 3). */
function pointAt(points, index) {
  return points.subarray(3 * index, 3 * index + 3);
}

function distance(a, b) {
  return Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
}
