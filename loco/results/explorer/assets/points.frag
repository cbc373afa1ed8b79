#version 300 es
precision mediump float;
in vec4 shade;
flat in int marker;
out vec4 colour;

void main() {
  float r = length(2.0 * gl_PointCoord - 1.0);
  if (r > 1.0) discard;
  colour = vec4(shade.rgb, 1.0);
  if (marker == 1) { // a ring with a dark edge on both sides
    if (r < 0.36) discard;
    if (r > 0.82 || r < 0.52) colour = vec4(0.0, 0.0, 0.0, 1.0);
  }
}
