/* The state of the page, and what follows from it: everything that is shown depends on the state alone. */

const MODES = { similarity: "Similarity", photograph: "Photograph", pca: "Features" };
const RADII = [0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2];
const OPACITY = 0.7; // of the maps over the photographs
const RANGE = [0.02, 0.999]; // quantiles of the similarities at the ends of the colour map

const $ = (selector, root = document) => root.querySelector(selector);

/** The page: `state` is changed by `change` alone, which computes and draws what follows from it. */
class Explorer {
  constructor(header, block, photographs) {
    this.header = header;
    let first = 0;
    this.views = header.views.map((view, k) => {
      const count = view.grid[0] * view.grid[1];
      first += count;
      return { ...view, first: first - count, count, photograph: photographs[k] };
    });
    this.patches = first;
    this.viewOf = new Uint16Array(first);
    this.views.forEach((view, k) => this.viewOf.fill(k, view.first, view.first + view.count));
    this.photographColours = this.coloursOfPhotographs();
    this.extractors = header.extractors.map((part) => {
      const extractor = withArrays(block, part);
      const channels = part.codes.shape[0];
      return {
        ...extractor,
        channels,
        codes: patchByPatch(extractor.codes, channels),
        colours: opaque(extractor.colours),
      };
    });
    const maps = Object.entries(withArrays(block, header.colourMaps));
    this.colourMaps = Object.fromEntries(maps.map(([name, colours]) => [name, opaque(colours)]));
    this.geometry = withArrays(block, header.geometry);
    this.landmarks = withArrays(block, header.landmarks);
    this.valid = this.geometry ? this.geometry.valid : new Uint8Array(first).fill(1);
    this.state = this.startState();
    this.columns = [];
  }

  // State

  startState() {
    const patch = this.landmarks
      ? this.landmarks.patch[this.landmarks.start]
      : this.views[0].first + (this.views[0].count >> 1);
    const slots = this.extractors.slice(0, 2).map((_, k) => k);
    return { patch, slots, mode: "similarity", map: "viridis", rho: this.header.rho };
  }

  /** Take over a state from a link; parts that do not fit the page are ignored, and a wrong view or patch is reported. */
  open(wanted) {
    const state = { ...this.state };
    const view = this.views[wanted.view];
    if (view) state.patch = view.first + clamp(Math.round(wanted.patch ?? view.count >> 1), 0, view.count - 1);
    if (wanted.mode in MODES) state.mode = wanted.mode;
    if (wanted.map in this.colourMaps) state.map = wanted.map;
    if (wanted.rho > 0) state.rho = wanted.rho;
    const named = (name) => this.extractors.findIndex((extractor) => extractor.name === name);
    const left = named(wanted.left);
    const right = wanted.right === "none" ? null : named(wanted.right);
    if (left >= 0) state.slots = [left, ...state.slots.slice(1)];
    if (right === null) state.slots = state.slots.slice(0, 1);
    else if (right >= 0) state.slots = [state.slots[0], right];
    this.change(state, linkProblem(wanted, this.views));
  }

  get view() {
    return this.viewOf[this.state.patch];
  }

  /** Return the patch, counted in its view. */
  get patchInView() {
    return this.state.patch - this.views[this.view].first;
  }

  /** Select a patch of a view: compute all similarities, and draw everything. */
  select(view, patch) {
    this.change({ patch: this.views[view].first + patch });
  }

  /** Change the state; `notice` is shown before the place of the patch, until the next change. */
  change(changes, notice = "") {
    const before = this.state;
    this.notice = notice;
    this.state = { ...before, ...changes };
    if (`${before.slots}` !== `${this.state.slots}` || !this.columns.length) this.arrange();
    this.compute();
    this.draw();
    this.writeLink();
  }

  writeLink() {
    const { slots, mode, map, rho } = this.state;
    const state = { view: this.view, patch: this.patchInView, left: this.extractors[slots[0]].name };
    state.right = slots.length > 1 ? this.extractors[slots[1]].name : "none";
    if (mode !== "similarity") state.mode = mode;
    if (map !== "viridis") state.map = map;
    if (rho !== this.header.rho) state.rho = rho;
    try {
      history.replaceState(null, "", fragmentOf(state));
    } catch {
      // Inside a report, which embeds the page, the address cannot be changed.
    }
  }

  /** Go to the landmark with the next higher (1) or lower (-1) average precision by the left extractor. */
  step(direction) {
    if (!this.landmarks) return null;
    const { patch } = this.landmarks;
    const count = patch.length;
    const precision = this.landmarks.precision.subarray(this.state.slots[0] * count, (this.state.slots[0] + 1) * count);
    const order = [...patch.keys()].sort((a, b) => precision[a] - precision[b] || a - b);
    const now = order.findIndex((k) => patch[k] === this.state.patch);
    const level = this.columns[0].precision;
    if (now < 0 && !Number.isFinite(level)) return this.change({ patch: this.startState().patch });
    let next = now + direction;
    if (now < 0)
      next =
        direction > 0 ? order.findIndex((k) => precision[k] > level) : order.findLastIndex((k) => precision[k] < level);
    return next >= 0 && next < count ? this.change({ patch: patch[order[next]] }) : null;
  }

  /** Move the patch within its view. */
  move(right, down) {
    const view = this.views[this.view];
    const [rows, columns] = view.grid;
    const row = clamp(Math.floor(this.patchInView / columns) + down, 0, rows - 1);
    const column = clamp((this.patchInView % columns) + right, 0, columns - 1);
    this.select(this.view, row * columns + column);
  }

  /** Show another view: at the place of the patch, if it sees it. */
  turnTo(view) {
    const wrapped = (view + this.views.length) % this.views.length;
    this.select(
      wrapped,
      this.truth?.visible[wrapped]
        ? patchAt(this.views[wrapped], ...this.truth.places[wrapped])
        : Math.min(this.patchInView, this.views[wrapped].count - 1),
    );
  }

  // What follows from the state

  compute() {
    this.truth = this.geometry && this.valid[this.state.patch] ? this.findTruth() : null;
    for (const column of this.columns) column.compute();
  }

  /** Where the patch is in every view, which views see it and are scored, and which patches are near it. */
  findTruth() {
    const { points, visible, intrinsics, poses } = this.geometry;
    const { patch, rho } = this.state;
    const point = pointAt(points, patch);
    const bytes = visible.length / this.patches;
    const centre = (k) => [3, 7, 11].map((i) => poses[16 * k + i]);
    const apart = this.views.map(
      (_, k) => k !== this.view && distance(centre(k), centre(this.view)) >= this.header.minBaseline,
    );
    const near = new Uint8Array(this.patches);
    const ranked = new Uint8Array(this.patches);
    for (let p = 0, at = 0; p < this.patches; p += 1, at += 3) {
      ranked[p] = this.valid[p] && apart[this.viewOf[p]] ? 1 : 0;
      near[p] = Math.hypot(points[at] - point[0], points[at + 1] - point[1], points[at + 2] - point[2]) < rho ? 1 : 0;
    }
    return {
      point,
      near,
      ranked,
      apart,
      places: this.views.map((_, k) =>
        project(point, intrinsics.subarray(9 * k, 9 * k + 9), poses.subarray(16 * k, 16 * k + 16)),
      ),
      visible: this.views.map((_, k) => Boolean((visible[patch * bytes + (k >> 3)] >> (k & 7)) & 1)),
    };
  }

  // What is shown

  /** Make the columns of the present extractors. */
  arrange() {
    $("#columns").replaceChildren();
    document.body.classList.toggle("single", this.state.slots.length < 2);
    document.body.classList.toggle("flat", !this.geometry);
    this.columns = this.state.slots.map((_, slot) => new Column(this, slot));
    this.fit();
  }

  /** Fit the canvases to the window. */
  fit() {
    const ratio = window.devicePixelRatio || 1;
    const view = this.views[this.view];
    const photograph = $("#photograph");
    photograph.style.aspectRatio = `${view.size[0]} / ${view.size[1]}`;
    photograph.width = Math.round(photograph.clientWidth * ratio);
    photograph.height = Math.round((photograph.width * view.size[1]) / view.size[0]);
    for (const column of this.columns) column.fit(ratio);
  }

  draw() {
    for (const column of this.columns) column.drawCloud(); // the graphics processor works while the views are drawn
    this.drawPatch();
    for (const column of this.columns) column.draw();
    for (const input of document.getElementsByName("mode")) input.checked = input.value === this.state.mode;
    $("#colour-map").value = this.state.map;
    $("#radius").value = nearestIndex(RADII, this.state.rho);
    $("#radius-value").textContent = lengthText(this.state.rho, this.header.geometry?.unit);
  }

  drawPatch() {
    const canvas = $("#photograph");
    const view = this.views[this.view];
    if (Math.abs(canvas.width / canvas.height - view.size[0] / view.size[1]) > 0.02) this.fit();
    drawView(canvas, view, null, 1);
    const [left, , right] = view.area;
    const half = Math.max((((right - left) / view.grid[1]) * canvas.width) / view.size[0] / 2, 5);
    drawMark(canvas, view, "square", centreOf(view, this.patchInView), WHITE, half);
    const [row, column] = [Math.floor(this.patchInView / view.grid[1]), this.patchInView % view.grid[1]];
    const place = `View ${this.view}, patch ${this.patchInView} (row ${row}, column ${column})`;
    $("#place").textContent = `${this.notice} ${place}`.trim();
    $("#place").title = view.name;
  }

  /** Report the similarity of the patch under the pointer. */
  pointAt(view, patch) {
    const values = this.columns.map(
      (column) => `${column.name} ${column.similarities[this.views[view].first + patch].toFixed(2)}`,
    );
    $("#pointer").textContent = `View ${view}, patch ${patch}: ${values.join(", ")}`;
  }

  /** Return the colour of the photographs at the centre of each patch. */
  coloursOfPhotographs() {
    const colours = new Uint32Array(this.patches);
    for (const view of this.views) {
      const { width, height } = view.photograph;
      const canvas = document.createElement("canvas");
      Object.assign(canvas, { width, height });
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(view.photograph, 0, 0);
      const pixels = new Uint32Array(context.getImageData(0, 0, width, height).data.buffer);
      for (let patch = 0; patch < view.count; patch += 1) {
        const [u, v] = centreOf(view, patch);
        const x = clamp(Math.floor((u * width) / view.size[0]), 0, width - 1);
        const y = clamp(Math.floor((v * height) / view.size[1]), 0, height - 1);
        colours[view.first + patch] = pixels[y * width + x];
      }
    }
    return colours;
  }

  /** The splats of the clouds: positions, the cameras that saw them, and their radii, of patches with a place. */
  get splats() {
    const { points, intrinsics, poses } = this.geometry;
    const neighbour = (p, q, end) => (q < end && this.valid[q] ? distance(pointAt(points, p), pointAt(points, q)) : 0);
    const patches = [...this.valid.keys()].filter((p) => this.valid[p]);
    const [positions, seenFrom] = [new Float32Array(3 * patches.length), new Float32Array(3 * patches.length)];
    const radii = patches.map((p, k) => {
      const [view, point] = [this.viewOf[p], pointAt(points, p)];
      const { area, grid, first, count } = this.views[view];
      const camera = [3, 7, 11].map((i) => poses[16 * view + i]);
      positions.set(point, 3 * k);
      seenFrom.set(camera, 3 * k);
      const least = (0.6 * distance(point, camera) * (area[2] - area[0])) / grid[1] / intrinsics[9 * view];
      const spacing = Math.max(neighbour(p, p + 1, first + count), neighbour(p, p + grid[1], first + count));
      return clamp(0.55 * spacing, least, 2 * least); // larger on slanted surfaces, without gaps
    });
    return { positions, seenFrom, radii: Float32Array.from(radii), patches };
  }

  /** Return an orbit from which the whole scene is seen, from the side of the camera that sees the patch. */
  newOrbit(aspect) {
    const { positions, seenFrom, patches } = this.splats;
    const { points, poses } = this.geometry;
    const [low, high] = [0, 1].map((end) =>
      [0, 1, 2].map(
        (i) =>
          quantiles(
            positions.filter((_, k) => k % 3 === i),
            [end ? 0.98 : 0.02],
          )[0],
      ),
    );
    const centre = low.map((x, i) => (x + high[i]) / 2);
    const point = this.valid[this.state.patch] ? [...pointAt(points, this.state.patch)] : centre;
    const down = [0, 1, 2].map((row) => this.views.reduce((sum, _, k) => sum + poses[16 * k + 4 * row + 1], 0));
    const orbit = new Orbit(
      normalised(down).map((x) => -x),
      centre,
      1,
    );
    orbit.lookAlong(
      point.map((x, i) => x - poses[16 * this.view + 4 * i + 3]),
      0.7,
    );
    const facing = (k) => dot(orbit.outward, pointAt(seenFrom, k)) > dot(orbit.outward, pointAt(positions, k));
    orbit.fit(
      patches
        .map((_, k) => k)
        .filter(facing)
        .map((k) => [...pointAt(positions, k)]),
      aspect,
    );
    return orbit;
  }

  drawClouds() {
    for (const { cloud } of this.columns) if (cloud) cloud.draw();
  }

  /** Return the times, ms, from a click to the next frame on the screen, for `count` patches all over the page. */
  async measure(count) {
    const times = [];
    for (let k = 0; k < count; k += 1) {
      const patch = Math.floor(((k + 0.5) * this.patches) / count);
      await shown();
      const start = performance.now();
      this.change({ patch });
      for (const { cloud } of this.columns)
        if (cloud) cloud.gl.readPixels(0, 0, 1, 1, cloud.gl.RGBA, cloud.gl.UNSIGNED_BYTE, new Uint8Array(4));
      await shown();
      times.push(performance.now() - start);
    }
    return times;
  }
}
