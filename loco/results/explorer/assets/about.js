/* The dialog about the page, and the words around the panels. */

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

/** Write the title of the page, and the texts of the dialog. */
function describe(explorer) {
  const { header, views, extractors } = explorer;
  document.title = `${header.title}: feature explorer`;
  $("#title").textContent = `Feature explorer: ${header.title}`;
  const covered = header.coverage === null ? "" : `, which show ${percentText(header.coverage)} of the surface`;
  const some = `${views.length} of ${header.available} views${covered}`;
  $("#shown").textContent = views.length === header.available ? `all ${views.length} views` : some;
  const paragraphs = method(explorer).map((text) => Object.assign(document.createElement("p"), { textContent: text }));
  $("#method").replaceChildren(...paragraphs);
  fillTable(
    $("#fidelities"),
    ["Extractor", "Channels", "Variance", "Rank correlation", "Same best match", "Rounding"],
    extractors.map(({ title, channels, fidelity }) => [
      title,
      `${channels} of ${fidelity.channels}`,
      percentText(fidelity.variance),
      fidelity.rank_correlation.toFixed(4),
      percentText(fidelity.same_match),
      `≤ ${fidelity.rounding.toFixed(3)}`,
    ]),
  );
  fillTable(
    $("#keys"),
    ["Key", ""],
    KEYS.map(([keys, words]) => [keys.join(" "), words]),
  );
  const origins = Object.entries(header.origins).map(([name, id]) => `${name} ${id.slice(0, 12)}`);
  $("#origin").textContent =
    `Written by loco ${header.version}. ${origins.length ? `Content ids of its inputs: ${origins.join(", ")}.` : ""}`;
}

/** Return what a reader must know about the numbers of the page, paragraph by paragraph. */
function method({ header, geometry, views, landmarks }) {
  const colours =
    "Similarity is the cosine between the features of two patches. " +
    `Colours run from the ${100 * RANGE[0]} % to the ${(100 * RANGE[1]).toFixed(1)} % quantile of the similarities ` +
    "to the selected patch, for each extractor separately.";
  if (!geometry) return [colours, "These photographs have no camera poses, so there is no true place and no error."];
  const places =
    "The true place is the 3D point of the patch, projected into each view that sees it. The best match of a view is " +
    "its most similar patch among those with a 3D point. Its error is the distance between the two 3D points; it is " +
    "correct within the radius that you set.";
  const scores =
    `Views from within ${lengthText(header.minBaseline, geometry.unit)} of the position of the selected view are not ` +
    "scored, because they differ from it by a homography. Average precision is that of the patches of the other " +
    "views within the radius, ranked by similarity among all patches of the other views.";
  const choice =
    `The page shows ${views.length} of ${header.available} images of the scene` +
    (header.available > views.length
      ? ", chosen such that they show as much of the surface as possible from up to three positions."
      : ".");
  if (!landmarks) return [colours, places, scores, choice];
  const start =
    "The page opens at the patch for which the number of views in which the first extractor finds it exceeds that of " +
    `the second one most, of ${landmarks.patch.length} patches drawn at random: an example, not a typical one. The means beside the average ` +
    "precisions are over these patches. “Harder” and “Easier” step through them in the order of their average " +
    `precision within ${lengthText(header.rho, geometry.unit)}.`;
  return [colours, places, scores, start, choice];
}

function fillTable(table, head, rows) {
  const row = (cells, tag) => {
    const line = document.createElement("tr");
    line.append(...cells.map((text) => Object.assign(document.createElement(tag), { textContent: text })));
    return line;
  };
  table.replaceChildren(row(head, "th"), ...rows.map((cells) => row(cells, "td")));
}
