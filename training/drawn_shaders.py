"""GLSL of the drawn characters: flat colours, layers in painter's order, exact flow.

Depth is used as a stencil: a piece leaves its number in the depth buffer, and what is painted on
it is drawn only where that number still stands.
"""

from __future__ import annotations

VERTEX = """
#version 330
in vec2 in_position; in vec4 in_colour; in vec2 in_reference; in vec4 in_kind;
out vec4 paint; out vec2 reference; out float depth_cm; out float headness;
flat out float ident; flat out float level;
void main() {
    gl_Position = vec4(in_position / 128.0 - 1.0, 0.0, 1.0);
    paint = in_colour; reference = in_reference;
    depth_cm = in_kind.x; headness = in_kind.y; ident = in_kind.z; level = in_kind.w;
}
"""

_INPUTS = """
#version 330
in vec4 paint; in vec2 reference; in float depth_cm; in float headness;
flat in float ident; flat in float level;
out vec4 colour;
"""

PICTURE = (
    _INPUTS
    + """
void main() { gl_FragDepth = level / 256.0; colour = paint; }
"""
)

MEASURE = (
    _INPUTS
    + """
void main() { gl_FragDepth = level / 256.0; colour = vec4(depth_cm, ident, headness, 1.0); }
"""
)

# A point is seen in the reference if one of the four nearest samples there shows the same thing.
FLOW = (
    _INPUTS
    + """
uniform sampler2D reference_map; uniform float picture_px; uniform float sample_px;
void main() {
    gl_FragDepth = level / 256.0;
    ivec2 size = textureSize(reference_map, 0);
    vec2 texel = reference / picture_px * vec2(size) - 0.5;
    float seen = 0.0;
    for (int i = 0; i < 4; i++) {
        ivec2 at = ivec2(floor(texel)) + ivec2(i & 1, i >> 1);
        bool inside = at.x >= 0 && at.y >= 0 && at.x < size.x && at.y < size.y;
        vec4 known = texelFetch(reference_map, clamp(at, ivec2(0), size - 1), 0);
        if (inside && known.a > 0.5 && abs(known.g - ident) < 0.5) seen = 1.0;
    }
    colour = vec4(reference - gl_FragCoord.xy * sample_px, seen, 1.0);
}
"""
)
