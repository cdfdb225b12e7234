"""GLSL of hair: strands drawn once a scene into a layer, and the plate that lays it over a face.

Reflection of a strand after Kajiya and Kay 1989 with the two highlights of Marschner 2003: one
white, shifted to the tip, and one broader of the hair's own colour, shifted to the root.
"""

from __future__ import annotations

from training.shaders import LIGHT

STRAND_VERTEX = """
#version 330
in vec3 in_position; in vec3 in_tangent; in vec4 in_info;
uniform mat4 clip; uniform mat3 turn; uniform vec3 eye_point; uniform vec3 skull_centre;
out vec3 tangent; out vec3 normal; out vec3 to_eye; out vec4 info; out float shadow_y;
void main() {
    gl_Position = clip * vec4(in_position, 1.0);
    tangent = turn * in_tangent;
    vec3 off = in_position - skull_centre;
    off.y = max(off.y, 0.3 * off.y);
    normal = turn * normalize(off);
    to_eye = turn * (eye_point - in_position);
    info = in_info; shadow_y = in_position.y;
}
"""

STRAND = (
    """
#version 330
in vec3 tangent; in vec3 normal; in vec3 to_eye; in vec4 info; in float shadow_y;
uniform vec3 hair_colour; uniform float grey;
layout(location = 0) out vec4 colour; layout(location = 1) out vec2 depth;
"""
    + LIGHT
    + """
void main() {
    vec3 t = normalize(tangent), n = normalize(normal), v = normalize(to_eye);
    float outer = info.w, across = info.z;
    n = normalize(n + 0.55 * across * normalize(cross(t, v)));
    vec3 silver = vec3(dot(hair_colour, vec3(0.3))) + 0.16;
    vec3 own = mix(hair_colour, silver, grey * smoothstep(1.05, 1.35, info.y));
    vec3 base = own * info.y * mix(0.72, 1.12, info.x);
    float buried = mix(0.34, 1.0, smoothstep(0.0, 0.65, outer));
    buried *= mix(0.55, 1.0, smoothstep(-9.0, 3.0, shadow_y));
    vec3 lit = base * ambient(n) * buried;
    for (int i = 0; i < 3; i++) {
        vec3 l = light_direction[i];
        float tl = dot(t, l), facing = smoothstep(-0.35, 0.75, dot(n, l));
        float around = sqrt(max(1.0 - tl * tl, 0.0));
        vec3 h = normalize(l + v);
        float th = dot(t, h);
        float first = th + 0.09 + 0.05 * (info.y - 1.0), second = th - 0.13;
        float white = pow(max(1.0 - first * first, 0.0), 90.0);
        float tinted = pow(max(1.0 - second * second, 0.0), 22.0);
        vec3 sheen = vec3(0.050 * white) + (own * 0.6 + 0.006) * tinted;
        lit += light_colour[i] * facing * buried * (base * 0.80 * around + sheen * buried);
    }
    colour = shown(lit);
    depth = vec2(1.0 / gl_FragCoord.w, 1.0);
}
"""
)

_LAYER = """
#version 330
in vec2 at;
uniform sampler2D hair_map; uniform sampler2D hair_depth_map; uniform vec2 depth_range;
uniform float picture_px; uniform float sample_px; uniform sampler2D reference_map;
out vec4 colour;
float layer_depth() {
    vec2 known = texture(hair_depth_map, at).rg;
    return known.r / max(known.g, 1e-4);
}
void place(float depth_cm) {
    gl_FragDepth = 0.5 * (depth_range.x - depth_range.y / depth_cm) + 0.5;
}
"""

LAYER_PICTURE = (
    _LAYER
    + """
void main() {
    colour = texture(hair_map, at);
    if (colour.a < 0.02) discard;
    place(layer_depth());
}
"""
)

LAYER_MEASURE = (
    _LAYER
    + """
void main() {
    if (texture(hair_map, at).a < 0.5) discard;
    float depth_cm = layer_depth();
    place(depth_cm);
    colour = vec4(depth_cm, 8.0, 1.0, 1.0);
}
"""
)

# Hair keeps its place; it is seen wherever the reference showed hair.
LAYER_FLOW = (
    _LAYER
    + """
void main() {
    if (texture(hair_map, at).a < 0.5) discard;
    place(layer_depth());
    ivec2 size = textureSize(reference_map, 0);
    ivec2 corner = ivec2(floor(at * vec2(size) - 0.5));
    float seen = 0.0;
    for (int i = 0; i < 4; i++) {
        ivec2 texel = clamp(corner + ivec2(i & 1, i >> 1), ivec2(0), size - 1);
        seen = max(seen, step(7.5, texelFetch(reference_map, texel, 0).g));
    }
    colour = vec4(0.0, 0.0, seen, 1.0);
}
"""
)
