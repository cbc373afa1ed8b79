"use strict";

/* The patches in 3D: splats drawn by WebGL2, seen by a camera on an orbit that all clouds of the page share. */

const FIELD = 0.9; // vertical field of view, radians

/** A camera on an orbit around a target. `up` is a unit vector. */
class Orbit {
  constructor(up, target, distance) {
    const helper = Math.abs(up[0]) < 0.9 ? [1, 0, 0] : [0, 1, 0];
    this.up = up;
    this.east = normalised(cross(helper, up));
    this.north = cross(up, this.east);
    Object.assign(this, { target, distance, yaw: 0, pitch: 0.6 });
  }

  /** Look along a direction, from `pitch` above it. */
  lookAlong(direction, pitch) {
    this.yaw = Math.atan2(-dot(direction, this.north), -dot(direction, this.east));
    this.pitch = pitch;
  }

  get outward() {
    const flat = Math.cos(this.pitch);
    const parts = [flat * Math.cos(this.yaw), flat * Math.sin(this.yaw), Math.sin(this.pitch)];
    return [0, 1, 2].map((i) => parts[0] * this.east[i] + parts[1] * this.north[i] + parts[2] * this.up[i]);
  }

  get eye() {
    return this.outward.map((x, i) => this.target[i] + this.distance * x);
  }

  /** Return [right, above, outward], unit vectors of the image plane. */
  get axes() {
    const outward = this.outward;
    const right = normalised(cross(this.up, outward));
    return [right, cross(outward, right), outward];
  }

  /** Centre points, [x, y, z] each, in an image of this aspect ratio, such that all but a few outliers are in it. */
  fit(points, aspect) {
    const axes = this.axes;
    const tangent = Math.tan(FIELD / 2);
    const ends = [0.01, 0.99];
    for (let round = 0; round < 4; round += 1) { // perspective: the centre of the image depends on the distance
      const seen = points.map((point) => axes.map((axis) => dot(axis, point.map((x, i) => x - this.target[i]))));
      const needed = seen.map(([x, y, z]) => Math.max(Math.abs(x) / aspect, Math.abs(y)) / tangent + z);
      this.distance = quantiles(needed, [0.995])[0] || 1;
      for (const k of [0, 1]) {
        const [low, high] = quantiles(seen.map((place) => place[k] / Math.max(this.distance - place[2], 1e-9)), ends);
        this.target = this.target.map((t, i) => t + ((low + high) / 2) * this.distance * axes[k][i]);
      }
    }
  }

  turn(yaw, pitch) {
    this.yaw += yaw;
    this.pitch = clamp(this.pitch + pitch, -1.5, 1.5);
  }

  zoom(factor) {
    this.distance *= factor;
  }

  /** Move the target in the image plane, by fractions of the height of the image. */
  pan(x, y) {
    const [right, above] = this.axes;
    const step = 2 * this.distance * Math.tan(FIELD / 2);
    this.target = this.target.map((t, i) => t - step * (x * right[i] - y * above[i]));
  }

  /** Return the matrix (4, 4) from world to clip coordinates, column by column. */
  toClip(aspect) {
    const axes = this.axes;
    const eye = this.eye;
    const focal = 1 / Math.tan(FIELD / 2);
    const [near, far] = [this.distance / 200, this.distance * 50];
    const scales = [focal / aspect, focal, -(far + near) / (far - near)];
    const rows = axes.map((axis, k) => [...axis.map((x) => scales[k] * x), -scales[k] * dot(axis, eye)]);
    rows[2][3] -= (2 * far * near) / (far - near);
    rows.push([...axes[2].map((x) => -x), dot(axes[2], eye)]);
    return Float32Array.from({ length: 16 }, (_, i) => rows[i % 4][i >> 2]);
  }
}

/** One canvas with the splats of all patches that have a place. Throws an Error where WebGL2 is missing. */
class Cloud {
  constructor(canvas, shaders, { positions, seenFrom, radii, patches }, orbit) {
    this.canvas = canvas;
    this.orbit = orbit;
    this.throughWalls = true;
    Object.assign(this, { positions, seenFrom, radii, patches });
    const gl = canvas.getContext("webgl2", { antialias: false });
    if (!gl) throw new Error("this browser has no WebGL2");
    this.gl = gl;
    this.program = linked(gl, shaders);
    this.at = (name) => gl.getUniformLocation(this.program, name);
    this.splats = this.newBuffers();
    this.markers = this.newBuffers();
    this.fill(this.splats, positions, seenFrom, radii);
    this.count = 0;
  }

  newBuffers() {
    const { gl } = this;
    const array = gl.createVertexArray();
    gl.bindVertexArray(array);
    const buffers = {};
    for (const [name, size, type] of [["position", 3, gl.FLOAT], ["seenFrom", 3, gl.FLOAT], ["radius", 1, gl.FLOAT], ["colour", 4, gl.UNSIGNED_BYTE]]) {
      const location = gl.getAttribLocation(this.program, name);
      buffers[name] = gl.createBuffer();
      gl.bindBuffer(gl.ARRAY_BUFFER, buffers[name]);
      gl.enableVertexAttribArray(location);
      gl.vertexAttribPointer(location, size, type, type === gl.UNSIGNED_BYTE, 0, 0);
    }
    return { array, buffers };
  }

  fill({ buffers }, position, seenFrom, radius, colour = null) {
    const { gl } = this;
    for (const [name, values] of Object.entries({ position, seenFrom, radius, colour })) {
      if (!values) continue;
      gl.bindBuffer(gl.ARRAY_BUFFER, buffers[name]);
      gl.bufferData(gl.ARRAY_BUFFER, values, gl.DYNAMIC_DRAW);
    }
  }

  /** Colour the splats: a Uint32Array of RGBA, of all patches of the page. */
  setColours(colours) {
    const shown = new Uint32Array(this.patches.length);
    for (let k = 0; k < shown.length; k += 1) shown[k] = colours[this.patches[k]];
    this.fill(this.splats, null, null, null, shown);
  }

  /** Place markers: [{point, colour: [r, g, b], size: pixels}], the last on top. */
  setMarkers(markers) {
    const ratio = this.canvas.width / Math.max(1, this.canvas.clientWidth);
    const points = Float32Array.from(markers.flatMap(({ point }) => [...point]));
    this.fill(this.markers, points, points, Float32Array.from(markers, ({ size }) => -size * ratio),
      Uint8Array.from(markers.flatMap(({ colour }) => [...colour, 255])));
    this.count = markers.length;
  }

  draw() {
    const { gl, canvas, orbit } = this;
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0.04, 0.05, 0.066, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.useProgram(this.program);
    gl.uniformMatrix4fv(this.at("toClip"), false, orbit.toClip(canvas.width / canvas.height));
    gl.uniform3fv(this.at("eye"), orbit.eye);
    gl.uniform1f(this.at("pixels"), this.focal);
    gl.uniform1i(this.at("throughWalls"), this.throughWalls ? 1 : 0);
    gl.enable(gl.DEPTH_TEST);
    gl.bindVertexArray(this.splats.array);
    gl.drawArrays(gl.POINTS, 0, this.patches.length);
    gl.disable(gl.DEPTH_TEST);
    gl.bindVertexArray(this.markers.array);
    gl.drawArrays(gl.POINTS, 0, this.count);
  }

  /** Pixels per unit of length at distance 1. */
  get focal() {
    return this.canvas.height / 2 / Math.tan(FIELD / 2);
  }

  /** Return the patch whose splat is in front at a place of the canvas (fractions of its size); -1 if there is none. */
  pick(x, y) {
    const { canvas, positions, seenFrom, orbit } = this;
    const m = orbit.toClip(canvas.width / canvas.height);
    const eye = orbit.eye;
    let [best, nearest] = [-1, Infinity];
    for (let k = 0; k < this.patches.length; k += 1) {
      const [p, q, r] = [positions[3 * k], positions[3 * k + 1], positions[3 * k + 2]];
      const w = m[3] * p + m[7] * q + m[11] * r + m[15];
      if (w <= 0 || w >= nearest) continue;
      const facing = (eye[0] - p) * (seenFrom[3 * k] - p) + (eye[1] - q) * (seenFrom[3 * k + 1] - q) + (eye[2] - r) * (seenFrom[3 * k + 2] - r);
      if (this.throughWalls && facing < 0) continue;
      const dx = ((m[0] * p + m[4] * q + m[8] * r + m[12]) / w / 2 + 0.5 - x) * canvas.width;
      const dy = (0.5 - (m[1] * p + m[5] * q + m[9] * r + m[13]) / w / 2 - y) * canvas.height;
      const reach = clamp((this.radii[k] * this.focal) / w, 3, 24);
      if (dx * dx + dy * dy < reach * reach) [best, nearest] = [this.patches[k], w];
    }
    return best;
  }
}

/** Orbit, pan, zoom and pick by mouse, touch and keyboard. `changed` redraws; `picked` is called with x, y (fractions). */
function attachOrbit(canvas, orbit, changed, picked) {
  const pointers = new Map();
  let moved = 0;
  canvas.addEventListener("pointerdown", (event) => {
    if (pointers.size === 0) moved = 0;
    pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!pointers.has(event.pointerId)) return;
    const before = [...pointers.values()];
    const [x, y] = pointers.get(event.pointerId);
    const [dx, dy] = [(event.offsetX - x) / canvas.clientHeight, (event.offsetY - y) / canvas.clientHeight];
    moved += Math.hypot(event.offsetX - x, event.offsetY - y);
    pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    if (pointers.size > 1) {
      const [one, other] = [before, [...pointers.values()]].map(([a, b]) => Math.hypot(a[0] - b[0], a[1] - b[1]));
      orbit.zoom(one / Math.max(other, 1));
      orbit.pan(dx / 2, dy / 2);
      moved += 10;
    } else if (moved < 4) return;
    else if (event.shiftKey || event.buttons & 2) orbit.pan(dx, dy);
    else orbit.turn(-4 * dx, 3 * dy);
    changed();
  });
  const end = (event) => {
    if (!pointers.delete(event.pointerId) || event.type === "pointercancel" || pointers.size || moved >= 4) return;
    picked(event.offsetX / canvas.clientWidth, event.offsetY / canvas.clientHeight);
  };
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", end);
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    orbit.zoom(Math.exp(clamp(event.deltaY, -200, 200) / 500));
    changed();
  }, { passive: false });
  const keys = {
    ArrowLeft: () => orbit.turn(0.1, 0),
    ArrowRight: () => orbit.turn(-0.1, 0),
    ArrowUp: () => orbit.turn(0, 0.1),
    ArrowDown: () => orbit.turn(0, -0.1),
    "+": () => orbit.zoom(0.85),
    "-": () => orbit.zoom(1 / 0.85),
  };
  canvas.addEventListener("keydown", (event) => {
    if (!(event.key in keys) || event.ctrlKey || event.metaKey || event.altKey) return;
    keys[event.key]();
    event.preventDefault();
    event.stopPropagation();
    changed();
  });
}

function linked(gl, { vert, frag }) {
  const program = gl.createProgram();
  for (const [type, source] of [[gl.VERTEX_SHADER, vert], [gl.FRAGMENT_SHADER, frag]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
  return program;
}

function dot(a, b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

function cross(a, b) {
  return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
}

function normalised(a) {
  const length = Math.hypot(...a);
  return a.map((x) => x / length);
}
