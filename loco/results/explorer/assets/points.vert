#version 300 es
// A splat per patch, as large as the patch is in the scene; a marker (negative radius) has a fixed size in pixels.
in vec3 position;
in vec3 seenFrom; // the camera that took the patch
in float radius;
in vec4 colour;
uniform mat4 toClip;
uniform vec3 eye;
uniform float pixels; // per unit of length at distance 1
uniform bool throughWalls;
out vec4 shade;
flat out int marker;

void main() {
  marker = radius < 0.0 ? 1 : 0;
  shade = colour;
  gl_Position = toClip * vec4(position, 1.0);
  gl_PointSize = marker == 1 ? -radius : clamp(2.0 * radius * pixels / gl_Position.w, 2.0, 24.0);
  // A surface faces the camera that saw it. From its other side it is left out, so a room can be seen from outside.
  if (throughWalls && marker == 0 && dot(eye - position, seenFrom - position) < 0.0) {
    gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
  }
}
