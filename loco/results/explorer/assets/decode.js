"use strict";

/* Decode the data of the page: a zlib stream in base64, whose arrays the header describes. */

const ARRAYS = {
  int8: Int8Array,
  uint8: Uint8Array,
  int32: Int32Array,
  float32: Float32Array,
  float64: Float64Array,
};

/** Return the inflated block of bytes, an ArrayBuffer. Throws an Error if it is truncated or damaged. */
async function decodeBlock(header, text) {
  const deflated = decodeBase64(text.trim());
  requireLength("compressed bytes", header.bytes.deflated, deflated.length);
  const stream = new Blob([deflated]).stream().pipeThrough(new DecompressionStream("deflate"));
  const block = await new Response(stream).arrayBuffer();
  requireLength("bytes", header.bytes.inflated, block.byteLength);
  return block;
}

/** Return the array of a block that a part of the header describes. */
function arrayOf(block, { type, shape, offset }) {
  const length = shape.reduce((product, size) => product * size, 1);
  return new ARRAYS[type](block, offset, length);
}

function decodeBase64(text) {
  const binary = atob(text.slice(0, text.length - (text.length % 4)));
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i += 1) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

function requireLength(what, expected, found) {
  if (found !== expected) throw new Error(`expected ${expected} ${what}, found ${found}`);
}

/** Return features patch by patch, from features stored channel by channel. */
function patchByPatch(codes, channels) {
  const patches = codes.length / channels;
  const turned = new Int8Array(codes.length);
  for (let c = 0; c < channels; c += 1) {
    for (let p = 0, from = c * patches; p < patches; p += 1) turned[p * channels + c] = codes[from + p];
  }
  return turned;
}
