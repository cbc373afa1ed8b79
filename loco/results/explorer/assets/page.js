/* Open the page: decode its data, and connect the controls. */

async function openPage() {
  let header;
  let block;
  try {
    header = JSON.parse($("#header").textContent);
    block = await decodeBlock(header, $("#payload").textContent);
  } catch (error) {
    showProblem(
      `The data of this page are incomplete or damaged (${error.message}). ` +
        "Copy or download the file again, or write it again with “loco explore”.",
    );
    return;
  }
  const photographs = await Promise.all(
    header.views.map(({ jpeg }) => createImageBitmap(new Blob([arrayOf(block, jpeg)], { type: "image/jpeg" }))),
  );
  const explorer = new Explorer(header, block, photographs);
  $("#loading").hidden = true;
  $("main").hidden = false;
  describe(explorer);
  attachControls(explorer);
  explorer.open(stateOf(location.hash));
  window.explorer = explorer;
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

function showProblem(text) {
  $("#loading").hidden = true;
  $("#problem").textContent = text;
  $("#problem").hidden = false;
}

function attachControls(explorer) {
  const { geometry, landmarks, colourMaps } = explorer;
  for (const selector of ["#steps", "#radius-control", "#walls-control"])
    $(selector).hidden = !geometry || (selector === "#steps" && !landmarks);
  for (const item of document.querySelectorAll("#legend .placed")) item.hidden = !geometry;
  for (const item of document.querySelectorAll("#legend .unplaced")) item.hidden = Boolean(geometry);
  $("#harder").addEventListener("click", () => explorer.step(-1));
  $("#easier").addEventListener("click", () => explorer.step(1));
  const restart = () => explorer.change({ patch: explorer.startState().patch });
  $("#start").addEventListener("click", restart);
  for (const input of document.getElementsByName("mode"))
    input.addEventListener("change", () => explorer.change({ mode: input.value }));
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
    return patchAt(
      view,
      (event.offsetX / photograph.clientWidth) * view.size[0],
      (event.offsetY / photograph.clientHeight) * view.size[1],
    );
  };
  photograph.addEventListener("click", (event) => explorer.select(explorer.view, at(event)));
  photograph.addEventListener("pointermove", (event) => explorer.pointAt(explorer.view, at(event)));
  $("#open-about").addEventListener("click", openAbout);
  document.addEventListener("keydown", (event) => onKey(explorer, restart, event));
  window.addEventListener("hashchange", () => explorer.open(stateOf(location.hash)));
  new ResizeObserver(
    oncePerFrame(() => {
      explorer.fit();
      explorer.draw();
    }),
  ).observe($("main"));
}

function openAbout() {
  $("#about").showModal();
  $("#about-heading").focus(); // the dialog is read from its beginning
}

function onKey(explorer, restart, event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("#about").open || event.target.matches("select, input"))
    return;
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

document.addEventListener("DOMContentLoaded", () => {
  openPage().catch((error) => {
    showProblem(`This page cannot be shown: ${error.message}. It needs a browser of 2023 or later.`);
    throw error;
  });
});
