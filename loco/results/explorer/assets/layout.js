/* Sizes, places and words. Nothing here reads the page. */

/** Return {columns, width, height} of the largest cells of an aspect ratio (width / height), `count` of which fit. */
function largestCells(count, width, height, aspect, gap) {
  let best = { columns: 1, width: 0, height: 0 };
  for (let columns = 1; columns <= count; columns += 1) {
    const rows = Math.ceil(count / columns);
    const fits = Math.min((width - gap * (columns - 1)) / columns, ((height - gap * (rows - 1)) / rows) * aspect);
    const side = Math.floor(fits);
    if (side > best.width) best = { columns, width: side, height: Math.floor(side / aspect) };
  }
  return best;
}

/** Return the patch of a view, counted in the view, at a place in pixels; places beyond its area have the nearest. */
function patchAt(view, u, v) {
  const [left, top, right, bottom] = view.area;
  const [rows, columns] = view.grid;
  const row = clamp(Math.floor(((v - top) / (bottom - top)) * rows), 0, rows - 1);
  const column = clamp(Math.floor(((u - left) / (right - left)) * columns), 0, columns - 1);
  return row * columns + column;
}

/** Return the centre [u, v], pixels, of a patch of a view. */
function centreOf(view, patch) {
  const [left, top, right, bottom] = view.area;
  const [rows, columns] = view.grid;
  const row = Math.floor(patch / columns);
  const column = patch % columns;
  return [left + ((column + 0.5) * (right - left)) / columns, top + ((row + 0.5) * (bottom - top)) / rows];
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

/** Return a length in words: centimetres below a metre; units of a model without a known scale have no name. */
function lengthText(length, unit) {
  if (unit !== "m") return `${length.toPrecision(2)} units`;
  return length < 0.995 ? `${Math.round(100 * length)} cm` : `${length.toFixed(1)} m`;
}

function percentText(fraction) {
  const percent = 100 * fraction;
  const digits = percent < 10 || (percent > 99 && percent < 100) ? 2 : 1;
  return percent === 100 ? "100 %" : `${percent.toFixed(digits)} %`;
}

/** Return the state that a fragment such as `#view=3&patch=512` describes, without what is not a number. */
function stateOf(fragment) {
  const state = {};
  for (const [key, value] of new URLSearchParams(fragment.replace(/^#/, ""))) {
    if (["view", "patch", "rho"].includes(key)) {
      if (value !== "" && Number.isFinite(Number(value))) state[key] = Number(value);
    } else state[key] = value;
  }
  return state;
}

/** Return what is wrong with the view and the patch of a link to a page with these views; empty if nothing is. */
function linkProblem({ view, patch }, views) {
  if (view === undefined) return patch === undefined ? "" : "The link names a patch, but no view.";
  if (!views[view]) return `The link names view ${view}; the views are 0 to ${views.length - 1}.`;
  const last = views[view].count - 1;
  const fits = patch === undefined || clamp(Math.round(patch), 0, last) === Math.round(patch);
  return fits ? "" : `The link names patch ${patch}; the patches of view ${view} are 0 to ${last}.`;
}

/** Return the fragment of a state. */
function fragmentOf(state) {
  return `#${new URLSearchParams(state)}`;
}

/** Return the index of the value that is nearest to another. */
function nearestIndex(values, value) {
  return values.reduce((best, one, k) => (Math.abs(one - value) < Math.abs(values[best] - value) ? k : best), 0);
}

function numberText(value) {
  return Number.isFinite(value) ? value.toFixed(2) : "–";
}
