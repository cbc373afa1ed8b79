"use strict";

/* Draw views: a photograph, a map over it, and marks. */

const CORRECT = "#35d0a5";
const WRONG = "#ff9566";
const NEUTRAL = "#7cc0ff";

/** Return a small canvas of one pixel per patch, for `colourMapOf`. */
function newMap(view) {
  const map = document.createElement("canvas");
  [map.height, map.width] = view.grid;
  return map;
}

/** Fill a map with the colours of its patches, one Uint32 (RGBA in memory) per patch. */
function fillMap(map, colours) {
  const image = new ImageData(map.width, map.height);
  new Uint32Array(image.data.buffer).set(colours);
  map.getContext("2d").putImageData(image, 0, 0);
}

/** Draw a view into a canvas of any size: its photograph, and over it a map of the given opacity (null: none). */
function drawView(canvas, view, map, opacity) {
  const context = canvas.getContext("2d");
  const scale = canvas.width / view.size[0];
  context.imageSmoothingEnabled = true;
  context.globalAlpha = 1;
  context.drawImage(view.photograph, 0, 0, canvas.width, canvas.height);
  if (!map) return;
  const [left, top, right, bottom] = view.area.map((side) => side * scale);
  context.globalAlpha = opacity;
  context.drawImage(map, left, top, right - left, bottom - top);
  context.globalAlpha = 1;
}

/** Draw a mark at a place (pixels of the view): a `ring`, a `cross` or a `square`, with a dark edge. */
function drawMark(canvas, view, shape, [u, v], colour, size) {
  const context = canvas.getContext("2d");
  const scale = canvas.width / view.size[0];
  const [x, y] = [u * scale, v * scale];
  context.beginPath();
  if (shape === "ring") context.arc(x, y, size, 0, 2 * Math.PI);
  else if (shape === "square") context.rect(x - size, y - size, 2 * size, 2 * size);
  else {
    for (const slope of [1, -1]) {
      context.moveTo(x - size, y - slope * size);
      context.lineTo(x + size, y + slope * size);
    }
  }
  for (const [style, width] of [["#000", 0.85], [colour, 0.42]]) {
    context.strokeStyle = style;
    context.lineWidth = Math.max(width * size, style === "#000" ? 3 : 1.5);
    context.stroke();
  }
}

/** Write a word into a corner of a view: the number at the `top`, the error or the similarity at the `bottom`. */
function drawWord(canvas, word, corner, colour, ratio) {
  const context = canvas.getContext("2d");
  const height = Math.round(clamp(canvas.height * 0.16, 11 * ratio, 15 * ratio));
  context.font = `600 ${height}px system-ui, "DejaVu Sans", sans-serif`;
  const width = context.measureText(word).width + 0.5 * height;
  const y = corner === "top" ? 0 : canvas.height - 1.25 * height;
  context.fillStyle = "rgb(8 12 16 / 82%)";
  context.fillRect(0, y, width, 1.25 * height);
  context.fillStyle = colour;
  context.textBaseline = "middle";
  context.fillText(word, 0.25 * height, y + 0.66 * height);
}
