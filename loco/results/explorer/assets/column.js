/* One extractor of the page. */

// What the views show, and what is stated above them if no place is known, by the mode of the page.
const CAPTIONS = {
  similarity: "Views, coloured by similarity to the patch; click to select another.",
  photograph: "Views, as photographed; click to select a patch.",
  pca: "Views, in the colours of their features; click to select a patch.",
};
const SUMMARIES = {
  similarity: "Similarities are cosines of features; the scale is on the right above.",
  photograph: "The best match in each view has the largest cosine similarity to the patch.",
  pca: "Patches of similar colours have similar features.",
};

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
    const { fidelity } = this.extractor;
    $(".fidelity", this.element).textContent =
      `Kept: ${percentText(fidelity.variance)} of variance, ` +
      `rank agreement ${fidelity.rank_correlation.toFixed(4)}, same match ${percentText(fidelity.same_match)}`;
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
    const at = (event) =>
      patchAt(
        view,
        (event.offsetX / button.clientWidth) * view.size[0],
        (event.offsetY / button.clientHeight) * view.size[1],
      );
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
    this.errors = views.map((_, k) =>
      truth && this.matches[k] >= 0 ? distance(pointAt(explorer.geometry.points, this.matches[k]), truth.point) : NaN,
    );
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
    for (let p = 0; p < colours.length; p += 1)
      colours[p] = steps[Math.round(clamp((values[p] - low) * scale, 0, 255))];
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
      [canvas.width, canvas.height] = [fits * width, fits * height].map((side) =>
        Math.max(1, Math.round(side * ratio)),
      );
    });
    if (!this.cloud) return;
    const { canvas } = this.cloud;
    [canvas.width, canvas.height] = [canvas.clientWidth, canvas.clientHeight].map((side) =>
      Math.max(1, Math.round(side * ratio)),
    );
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
    drawWord(canvas, String(k), "top", WHITE, ratio); // words first: they must not cover the marks
    if (own) drawMark(canvas, view, "square", centreOf(view, explorer.patchInView), WHITE, size);
    else this.drawMatch(view, k, size, ratio);
    button.setAttribute("aria-label", `View ${k}, ${view.name}: ${own ? "the selected patch" : this.verdict(k)}`);
  }

  drawMatch(view, k, size, ratio) {
    const { truth } = this.explorer;
    const { canvas } = this.views[k];
    const match = this.matches[k];
    if (match < 0 || (this.explorer.geometry && !this.scored[k])) return;
    const colour = this.scored[k] ? (this.isCorrect(k) ? CORRECT : WRONG) : NEUTRAL;
    drawWord(canvas, this.wordOf(k), "bottom", colour, ratio);
    if (this.scored[k]) drawMark(canvas, view, "ring", truth.places[k], WHITE, 1.25 * size);
    drawMark(canvas, view, "cross", centreOf(view, match - view.first), colour, 0.8 * size);
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
    const matched = views.flatMap((_, k) =>
      this.scored[k] && this.matches[k] >= 0
        ? [{ point: pointAt(geometry.points, this.matches[k]), colour: this.isCorrect(k) ? CORRECT : WRONG, size: 13 }]
        : [],
    );
    return [...matched, { point: truth.point, colour: WHITE, size: 18 }];
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
    bar.parentElement.title = similar ? "cosine similarity" : "";
    $(".unit", this.element).textContent = similar ? "cosine" : "";
    $(".views-say", this.element).textContent = CAPTIONS[state.mode];
    let summary = SUMMARIES[state.mode];
    if (geometry && !truth) summary = "This patch has no known 3D point, so matches are not scored.";
    if (truth) {
      const seen = this.scored.filter(Boolean).length;
      const found = this.scored.filter((scored, k) => scored && this.isCorrect(k)).length;
      const mean = landmarks ? meanOf(landmarks.precision, state.slots[this.slot], landmarks.patch.length) : NaN;
      summary = seen
        ? `Correct in <b>${found} of ${seen}</b> views; average precision <b>${numberText(this.precision)}</b>`
        : "No other view sees this place from another position; select another patch.";
      if (seen && landmarks) summary += ` (mean ${numberText(mean)})`;
    }
    $(".summary", this.element).innerHTML = summary;
  }
}
