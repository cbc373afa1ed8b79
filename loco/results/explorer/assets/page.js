"use strict";

/* The page: its state, and what happens when the state changes. */

const MODES = { similarity: "Similarity", photograph: "Photograph", pca: "Features" };
const RADII = [0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2];
const OPACITY = 0.7; // of the maps over the photographs
const RANGE = [0.02, 0.999]; // quantiles of the similarities at the ends of the colour map
const KEYS = [
  [["←", "→", "↑", "↓"], "move the patch; in the 3D view, orbit"],
  [["Page Up", "Page Down"], "previous or next view"],
  [["H", "E"], "next harder or easier patch, by the average precision of the left extractor"],
  [["Home"], "the patch at which the page opened"],
  [["S", "P", "F"], "show similarity, photographs, or features as colours"],
  [["M"], "next colour map"],
  [["X"], "exchange the two extractors"],
  [["Enter"], "on a view: select the true place there, or the best match"],
  [["+", "−"], "zoom the 3D view"],
  [["?"], "this text"],
];

const $ = (selector, root = document) => root.querySelector(selector);

class Explorer {
  constructor(header, block, photographs) {
    this.header = header;
    const array = (description) => arrayOf(block, description);
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
    this.extractors = header.extractors.map((extractor) => {
      const channels = extractor.codes.shape[0];
      const codes = patchByPatch(array(extractor.codes), channels);
      return { ...extractor, channels, codes, offset: array(extractor.offset), colours: opaque(array(extractor.colours)) };
    });
    this.colourMaps = Object.fromEntries(Object.entries(header.colourMaps).map(([name, map]) => [name, opaque(array(map))]));
    this.geometry = header.geometry && Object.fromEntries(
      Object.entries(header.geometry).map(([name, part]) => [name, part.type ? array(part) : part]),
    );
    this.valid = this.geometry ? this.geometry.valid : new Uint8Array(first).fill(1);
    this.landmarks = header.landmarks && Object.fromEntries(
      Object.entries(header.landmarks).map(([name, part]) => [name, part.type ? array(part) : part]),
    );
    this.state = this.startState();
    this.columns = [];
  }

  // State

  startState() {
    const patch = this.landmarks ? this.landmarks.patch[this.landmarks.start] : this.views[0].first + (this.views[0].count >> 1);
    const slots = this.extractors.slice(0, 2).map((_, k) => k);
    return { patch, slots, mode: "similarity", map: "viridis", rho: this.header.rho };
  }

  /** Take over a state from a link; parts that do not fit the page are ignored. */
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
    this.change(state);
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

  change(changes) {
    const before = this.state;
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
    if (now < 0) next = direction > 0 ? order.findIndex((k) => precision[k] > level) : order.findLastIndex((k) => precision[k] < level);
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
    this.select(wrapped, this.truth?.visible[wrapped] ? patchAt(this.views[wrapped], ...this.truth.places[wrapped]) : Math.min(this.patchInView, this.views[wrapped].count - 1));
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
    const apart = this.views.map((_, k) => k !== this.view && distance(centre(k), centre(this.view)) >= this.header.minBaseline);
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
      places: this.views.map((_, k) => project(point, intrinsics.subarray(9 * k, 9 * k + 9), poses.subarray(16 * k, 16 * k + 16))),
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
    drawMark(canvas, view, "square", centreOf(view, this.patchInView), "#fff", half);
    const [row, column] = [Math.floor(this.patchInView / view.grid[1]), this.patchInView % view.grid[1]];
    $("#place").textContent = `View ${this.view}, patch ${this.patchInView} (row ${row}, column ${column})`;
    $("#place").title = view.name;
  }

  /** Report the similarity of the patch under the pointer. */
  pointAt(view, patch) {
    const values = this.columns.map((column) => `${column.name} ${column.similarities[this.views[view].first + patch].toFixed(2)}`);
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
    const [low, high] = [0, 1].map((end) => [0, 1, 2].map((i) => quantiles(positions.filter((_, k) => k % 3 === i), [end ? 0.98 : 0.02])[0]));
    const centre = low.map((x, i) => (x + high[i]) / 2);
    const point = this.valid[this.state.patch] ? [...pointAt(points, this.state.patch)] : centre;
    const down = [0, 1, 2].map((row) => this.views.reduce((sum, _, k) => sum + poses[16 * k + 4 * row + 1], 0));
    const orbit = new Orbit(normalised(down).map((x) => -x), centre, 1);
    orbit.lookAlong(point.map((x, i) => x - poses[16 * this.view + 4 * i + 3]), 0.7);
    const facing = (k) => dot(orbit.outward, pointAt(seenFrom, k)) > dot(orbit.outward, pointAt(positions, k));
    orbit.fit(patches.map((_, k) => k).filter(facing).map((k) => [...pointAt(positions, k)]), aspect);
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
      for (const { cloud } of this.columns) if (cloud) cloud.gl.readPixels(0, 0, 1, 1, cloud.gl.RGBA, cloud.gl.UNSIGNED_BYTE, new Uint8Array(4));
      await shown();
      times.push(performance.now() - start);
    }
    return times;
  }
}

/** One extractor: its views, its cloud, and its numbers. */
class Column {
  constructor(explorer, slot) {
    this.explorer = explorer;
    this.slot = slot;
    this.extractor = explorer.extractors[explorer.state.slots[slot]];
    this.similarities = new Float64Array(explorer.patches);
    this.element = $("#column").content.firstElementChild.cloneNode(true);
    this.element.setAttribute("aria-label", `Extractor ${this.name}`);
    $("#columns").append(this.element);
    this.views = explorer.views.map((view, k) => this.newView(view, k));
    this.addChoice();
    this.addCloud();
    const { fidelity, channels } = this.extractor;
    $(".fidelity", this.element).textContent =
      `Stored: ${channels} of ${fidelity.channels} channels, ${percentText(fidelity.variance)} of variance, rank agreement ${fidelity.rank_correlation.toFixed(4)}`;
    $(".views-say", this.element).textContent = explorer.geometry
      ? "Views, coloured by similarity to the patch; click to select another."
      : "Views, coloured by similarity to the patch; click to select another.";
    $(".scene-says", this.element).textContent = explorer.geometry
      ? "The scene: drag to orbit, scroll to zoom, click to select."
      : "";
  }

  get name() {
    return this.explorer.state.slots.length > 1 ? "AB"[this.slot] : "A";
  }

  newView(view, k) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "view";
    const canvas = button.appendChild(document.createElement("canvas"));
    const at = (event) => patchAt(view, (event.offsetX / button.clientWidth) * view.size[0], (event.offsetY / button.clientHeight) * view.size[1]);
    button.addEventListener("click", (event) => {
      if (event.detail) this.explorer.select(k, at(event));
      else this.follow(k);
    });
    button.addEventListener("pointermove", (event) => this.explorer.pointAt(k, at(event)));
    $(".views", this.element).append(button);
    return { button, canvas, map: newMap(view) };
  }

  /** Select the true place in a view, or the best match where the view does not see it. */
  follow(k) {
    const { truth, views } = this.explorer;
    if (truth?.visible[k]) this.explorer.select(k, patchAt(views[k], ...truth.places[k]));
    else if (this.matches[k] >= 0) this.explorer.select(k, this.matches[k] - views[k].first);
  }

  addChoice() {
    const select = $(".extractor", this.element);
    const { extractors, state } = this.explorer;
    extractors.forEach(({ title }, k) => select.add(new Option(title, k)));
    if (this.slot > 0) select.add(new Option("(none)", "none"));
    else if (state.slots.length < 2 && extractors.length > 1) select.add(new Option("(compare two)", "two"));
    select.value = state.slots[this.slot];
    select.setAttribute("aria-label", `Extractor ${this.name}`);
    $(".slot", this.element).textContent = state.slots.length > 1 ? this.name : "";
    select.addEventListener("change", () => {
      const slots = [...state.slots];
      if (select.value === "none") slots.pop();
      else if (select.value === "two") slots.push(extractors.findIndex((_, k) => k !== slots[0]));
      else slots[this.slot] = Number(select.value);
      this.explorer.change({ slots });
      $(".extractor", $("#columns").children[Math.min(this.slot, slots.length - 1)]).focus();
    });
  }

  addCloud() {
    const scene = $(".scene", this.element);
    const { explorer } = this;
    scene.hidden = !explorer.geometry;
    if (!explorer.geometry) return;
    explorer.orbit ??= explorer.newOrbit(scene.clientWidth / scene.clientHeight);
    try {
      const shaders = JSON.parse($("#shaders").textContent);
      this.cloud = new Cloud($(".cloud", scene), shaders, explorer.splats, explorer.orbit);
    } catch (error) {
      scene.innerHTML = '<p class="missing"></p>';
      scene.firstChild.textContent = `The scene in 3D is not shown: ${error.message}.`;
      return;
    }
    this.cloud.throughWalls = $("#walls").checked;
    const redraw = oncePerFrame(() => explorer.drawClouds());
    attachOrbit(this.cloud.canvas, explorer.orbit, redraw, (x, y) => {
      const patch = this.cloud.pick(x, y);
      if (patch >= 0) explorer.change({ patch });
    });
  }

  /** Compare the patch with all others; find the best matches and score them. */
  compute() {
    const { explorer, extractor, similarities: values } = this;
    const { truth, views, valid } = explorer;
    similarities(extractor, explorer.state.patch, values);
    [this.low, this.high] = quantiles(values, RANGE);
    this.matches = views.map(({ first, count }) => bestPatch(values, valid, first, first + count));
    this.errors = views.map((_, k) => (truth && this.matches[k] >= 0 ? distance(pointAt(explorer.geometry.points, this.matches[k]), truth.point) : NaN));
    this.scored = views.map((_, k) => Boolean(truth && truth.visible[k] && truth.apart[k]));
    this.precision = NaN;
    if (truth) this.precision = averagePrecision(values, truth.ranked, truth.near);
    this.colours = this.coloursOfPatches();
  }

  /** Return the colours of all patches, Uint32 RGBA. */
  coloursOfPatches() {
    const { mode, map } = this.explorer.state;
    if (mode === "photograph") return this.explorer.photographColours;
    if (mode === "pca") return this.extractor.colours;
    const steps = this.explorer.colourMaps[map];
    const { similarities: values, low } = this;
    const scale = 255 / Math.max(this.high - low, 1e-9);
    const colours = new Uint32Array(values.length);
    for (let p = 0; p < colours.length; p += 1) colours[p] = steps[Math.round(clamp((values[p] - low) * scale, 0, 255))];
    return colours;
  }

  fit(ratio) {
    const { views } = this.explorer;
    const box = $(".views", this.element);
    const aspect = Math.max(...views.map(({ size }) => size[0] / size[1]));
    const cell = largestCells(views.length, box.clientWidth, box.clientHeight, aspect, 4);
    box.style.gridTemplateColumns = `repeat(${cell.columns}, ${cell.width}px)`;
    this.views.forEach(({ button, canvas }, k) => {
      const [width, height] = views[k].size;
      const fits = Math.min(cell.width / width, cell.height / height);
      Object.assign(button.style, { width: `${Math.round(fits * width)}px`, height: `${Math.round(fits * height)}px` });
      [canvas.width, canvas.height] = [fits * width, fits * height].map((side) => Math.max(1, Math.round(side * ratio)));
    });
    if (!this.cloud) return;
    const { canvas } = this.cloud;
    [canvas.width, canvas.height] = [canvas.clientWidth, canvas.clientHeight].map((side) => Math.max(1, Math.round(side * ratio)));
  }

  drawCloud() {
    if (!this.cloud) return;
    this.cloud.setColours(this.colours);
    this.cloud.setMarkers(this.markers());
    this.cloud.draw();
  }

  draw() {
    this.explorer.views.forEach((view, k) => this.drawOne(view, k));
    this.write();
  }

  drawOne(view, k) {
    const { explorer, colours } = this;
    const { button, canvas, map } = this.views[k];
    const { mode } = explorer.state;
    const ratio = window.devicePixelRatio || 1;
    if (mode !== "photograph") fillMap(map, colours.subarray(view.first, view.first + view.count));
    drawView(canvas, view, mode === "photograph" ? null : map, mode === "pca" ? 1 : OPACITY);
    const own = k === explorer.view;
    button.classList.toggle("own", own);
    const size = clamp(canvas.height * 0.07, 4 * ratio, 9 * ratio);
    if (own) drawMark(canvas, view, "square", centreOf(view, explorer.patchInView), "#fff", size);
    else this.drawMatch(view, k, size, ratio);
    drawWord(canvas, String(k), "top", "#e8ebee", ratio);
    button.setAttribute("aria-label", `View ${k}, ${view.name}: ${own ? "the selected patch" : this.verdict(k)}`);
  }

  drawMatch(view, k, size, ratio) {
    const { truth } = this.explorer;
    const { canvas } = this.views[k];
    const match = this.matches[k];
    if (match < 0 || (this.explorer.geometry && !this.scored[k])) return;
    const colour = this.scored[k] ? (this.isCorrect(k) ? CORRECT : WRONG) : NEUTRAL;
    if (this.scored[k]) drawMark(canvas, view, "ring", truth.places[k], "#fff", 1.25 * size);
    drawMark(canvas, view, "cross", centreOf(view, match - view.first), colour, 0.8 * size);
    drawWord(canvas, this.wordOf(k), "bottom", colour, ratio);
  }

  isCorrect(k) {
    return this.errors[k] < this.explorer.state.rho;
  }

  /** Return the error of the best match in a view, or its similarity where no place is known. */
  wordOf(k) {
    if (!this.scored[k]) return this.similarities[this.matches[k]].toFixed(2);
    return `${this.isCorrect(k) ? "✓" : "✗"} ${lengthText(this.errors[k], this.explorer.geometry.unit)}`;
  }

  verdict(k) {
    const { truth, geometry } = this.explorer;
    if (!geometry) return `best match with similarity ${this.wordOf(k)}`;
    if (!truth?.visible[k]) return "the place is not visible";
    if (!truth.apart[k]) return "taken from the same position, not scored";
    return `best match ${this.isCorrect(k) ? "correct" : "wrong"}, error ${lengthText(this.errors[k], geometry.unit)}`;
  }

  /** Markers of the 3D view: the best matches where the patch is visible, and the patch. */
  markers() {
    const { truth, views, geometry } = this.explorer;
    if (!truth) return [];
    const matched = views.flatMap((_, k) => (this.scored[k] && this.matches[k] >= 0
      ? [{ point: pointAt(geometry.points, this.matches[k]), colour: this.isCorrect(k) ? [53, 208, 165] : [255, 149, 102], size: 13 }]
      : []));
    return [...matched, { point: truth.point, colour: [255, 255, 255], size: 18 }];
  }

  /** Write the summary, and the ends of the scale. */
  write() {
    const { explorer } = this;
    const { truth, geometry, landmarks, state } = explorer;
    const similar = state.mode === "similarity";
    for (const end of ["low", "high"]) {
      $(`.${end}`, this.element).textContent = similar ? this[end].toFixed(2) : "";
    }
    const bar = $(".bar", this.element);
    bar.hidden = !similar;
    if (similar) drawBar(bar, explorer.colourMaps[state.map]);
    bar.parentElement.title = "cosine similarity";
    let summary = "Similarities are cosines of features; the scale is on the right above.";
    if (geometry && !truth) summary = "This patch has no known 3D point, so matches are not scored.";
    if (truth) {
      const seen = this.scored.filter(Boolean).length;
      const found = this.scored.filter((scored, k) => scored && this.isCorrect(k)).length;
      const mean = landmarks ? meanOf(landmarks.precision, state.slots[this.slot], landmarks.patch.length) : NaN;
      summary = `Correct in <b>${found} of ${seen}</b> views; average precision <b>${numberText(this.precision)}</b>${landmarks ? ` (mean ${numberText(mean)})` : ""}`;
    }
    $(".summary", this.element).innerHTML = summary;
  }
}

function numberText(value) {
  return Number.isFinite(value) ? value.toFixed(2) : "–";
}

function meanOf(values, row, length) {
  return values.subarray(row * length, (row + 1) * length).reduce((sum, value) => sum + value, 0) / length;
}

function drawBar(canvas, steps) {
  fillMap(canvas, Uint32Array.from({ length: canvas.width }, (_, x) => steps[Math.round((255 * x) / (canvas.width - 1))]));
}

/** Return colours (n, 3) as Uint32 RGBA in memory. */
function opaque(rgb) {
  const colours = new Uint8Array((rgb.length / 3) * 4).fill(255);
  for (let k = 0; 3 * k < rgb.length; k += 1) colours.set(rgb.subarray(3 * k, 3 * k + 3), 4 * k);
  return new Uint32Array(colours.buffer);
}

function nearestIndex(values, value) {
  return values.reduce((best, one, k) => (Math.abs(one - value) < Math.abs(values[best] - value) ? k : best), 0);
}

/** Return a function that calls `draw` once before the next frame, however often it is called. */
function oncePerFrame(draw) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      draw();
    });
  };
}

/** Wait until the next frame is on the screen. */
function shown() {
  return new Promise((resolve) => {
    requestAnimationFrame(() => setTimeout(resolve));
  });
}

function attachControls(explorer) {
  const { geometry, landmarks, colourMaps } = explorer;
  for (const selector of ["#steps", "#radius-control", "#walls-control"]) $(selector).hidden = !geometry || (selector === "#steps" && !landmarks);
  for (const item of document.querySelectorAll("#legend .placed")) item.hidden = !geometry;
  for (const item of document.querySelectorAll("#legend .unplaced")) item.hidden = Boolean(geometry);
  $("#harder").addEventListener("click", () => explorer.step(-1));
  $("#easier").addEventListener("click", () => explorer.step(1));
  const restart = () => explorer.change({ patch: explorer.startState().patch });
  $("#start").addEventListener("click", restart);
  for (const input of document.getElementsByName("mode")) input.addEventListener("change", () => explorer.change({ mode: input.value }));
  for (const name of Object.keys(colourMaps)) $("#colour-map").add(new Option(name === "gray" ? "grey" : name, name));
  $("#colour-map").addEventListener("change", (event) => explorer.change({ map: event.target.value }));
  $("#radius").max = RADII.length - 1;
  $("#radius").addEventListener("input", (event) => explorer.change({ rho: RADII[event.target.value] }));
  $("#walls").addEventListener("change", (event) => {
    for (const { cloud } of explorer.columns) if (cloud) cloud.throughWalls = event.target.checked;
    explorer.drawClouds();
  });
  const photograph = $("#photograph");
  const at = (event) => {
    const view = explorer.views[explorer.view];
    return patchAt(view, (event.offsetX / photograph.clientWidth) * view.size[0], (event.offsetY / photograph.clientHeight) * view.size[1]);
  };
  photograph.addEventListener("click", (event) => explorer.select(explorer.view, at(event)));
  photograph.addEventListener("pointermove", (event) => explorer.pointAt(explorer.view, at(event)));
  $("#open-about").addEventListener("click", openAbout);
  document.addEventListener("keydown", (event) => onKey(explorer, restart, event));
  window.addEventListener("hashchange", () => explorer.open(stateOf(location.hash)));
  new ResizeObserver(oncePerFrame(() => {
    explorer.fit();
    explorer.draw();
  })).observe($("main"));
}

function openAbout() {
  $("#about").showModal();
  $("#about-heading").focus(); // the dialog is read from its beginning
}

function onKey(explorer, restart, event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("#about").open || event.target.matches("select, input")) return;
  const names = Object.keys(explorer.colourMaps);
  const { map, slots } = explorer.state;
  const keys = {
    ArrowLeft: () => explorer.move(-1, 0),
    ArrowRight: () => explorer.move(1, 0),
    ArrowUp: () => explorer.move(0, -1),
    ArrowDown: () => explorer.move(0, 1),
    PageUp: () => explorer.turnTo(explorer.view - 1),
    PageDown: () => explorer.turnTo(explorer.view + 1),
    Home: restart,
    h: () => explorer.step(-1),
    e: () => explorer.step(1),
    s: () => explorer.change({ mode: "similarity" }),
    p: () => explorer.change({ mode: "photograph" }),
    f: () => explorer.change({ mode: "pca" }),
    m: () => explorer.change({ map: names[(names.indexOf(map) + 1) % names.length] }),
    x: () => explorer.change({ slots: [...slots].reverse() }),
    "?": openAbout,
  };
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (!(key in keys)) return;
  event.preventDefault();
  keys[key]();
}

function describe(explorer) {
  const { header, geometry, views, extractors, landmarks } = explorer;
  document.title = `${header.title}: feature explorer`;
  $("#title").textContent = `Feature explorer: ${header.title}`;
  const covered = header.coverage === null ? "" : `, which show ${percentText(header.coverage)} of the surface`;
  const all = views.length === header.available;
  $("#shown").textContent = all ? `all ${views.length} views` : `${views.length} of ${header.available} views${covered}`;
  const method = [
    `Similarity is the cosine between the features of two patches. Colours run from the ${100 * RANGE[0]} % quantile of the similarities to the ${(100 * RANGE[1]).toFixed(1)} % quantile, for each extractor separately.`,
  ];
  if (geometry) {
    method.push(
      "The true place is the 3D point of the patch, projected into each view that sees it. The best match of a view is its most similar patch among those with a 3D point; its error is the distance between the two 3D points, and it is correct within the radius that you set.",
      `Views from within ${lengthText(header.minBaseline, geometry.unit)} of the selected view are not scored, because they differ from it by a homography. Average precision is that of the patches of the other views within the radius, ranked by similarity among all patches of the other views.`,
      landmarks && `The page opens at the patch that the first extractor finds in the most views in which the second one misses it, of ${landmarks.patch.length} patches drawn at random. It is an example, not typical: the mean average precisions are. “Harder” and “Easier” step through the same patches in the order of their average precision within ${lengthText(header.rho, geometry.unit)}.`,
      `The page shows ${views.length} of ${header.available} images of the scene${header.available > views.length ? ", chosen such that they show as much of the surface as possible, if possible three times" : ""}.`,
    );
  } else method.push("These photographs have no known camera poses, so there is no true place and no error.");
  $("#method").replaceChildren(...method.filter(Boolean).map((text) => Object.assign(document.createElement("p"), { textContent: text })));
  fillTable($("#fidelities"), ["Extractor", "Channels", "Variance", "Rank correlation", "Same best match", "Rounding"],
    extractors.map(({ title, channels, fidelity }) => [
      title, `${channels} of ${fidelity.channels}`, percentText(fidelity.variance), fidelity.rank_correlation.toFixed(4),
      percentText(fidelity.same_match), `≤ ${fidelity.rounding.toFixed(3)}`,
    ]));
  fillTable($("#keys"), ["Key", ""], KEYS.map(([keys, words]) => [keys.join(" "), words]));
  const origins = Object.entries(header.origins).map(([name, id]) => `${name} ${id.slice(0, 12)}`);
  $("#origin").textContent = `Written by loco ${header.version}. ${origins.length ? `Content ids of its inputs: ${origins.join(", ")}.` : ""}`;
}

function fillTable(table, head, rows) {
  const row = (cells, tag) => {
    const line = document.createElement("tr");
    line.append(...cells.map((text) => Object.assign(document.createElement(tag), { textContent: text })));
    return line;
  };
  table.replaceChildren(row(head, "th"), ...rows.map((cells) => row(cells, "td")));
}

async function openPage() {
  let header;
  let block;
  try {
    header = JSON.parse($("#header").textContent);
    block = await decodeBlock(header, $("#payload").textContent);
  } catch (error) {
    showProblem(`The data of this page are incomplete or damaged (${error.message}). Copy or download the file again, or write it again with “loco explore”.`);
    return;
  }
  const photographs = await Promise.all(header.views.map(({ jpeg }) => createImageBitmap(new Blob([arrayOf(block, jpeg)], { type: "image/jpeg" }))));
  const explorer = new Explorer(header, block, photographs);
  $("#loading").hidden = true;
  $("main").hidden = false;
  describe(explorer);
  attachControls(explorer);
  explorer.open(stateOf(location.hash));
  window.explorer = explorer;
}

function showProblem(text) {
  $("#loading").hidden = true;
  $("#problem").textContent = text;
  $("#problem").hidden = false;
}

document.addEventListener("DOMContentLoaded", () => {
  openPage().catch((error) => {
    showProblem(`This page cannot be shown: ${error.message}. It needs a browser of 2023 or later.`);
    throw error;
  });
});
