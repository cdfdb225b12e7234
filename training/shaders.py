"""GLSL of the head renderer: one vertex program, one fragment program per material.

Clip space has y downward, so that row 0 of a read-back is the top row of the picture.
"""

from __future__ import annotations

from training.skin_shader import CLOTH_BODY, SKIN_BODY

VERTEX = """
#version 330
in vec3 in_position; in vec3 in_normal; in vec3 in_rest; in vec4 in_skin; in vec4 in_lines;
in vec4 in_reference; in vec2 in_kind; in vec2 in_shade;
uniform mat4 clip; uniform mat3 turn; uniform vec3 eye_point;
out vec3 normal; out vec3 rest; out vec4 skin; out vec4 lines; out vec4 reference;
out vec2 wrap; out vec3 to_eye; out vec2 shade; out float headness; flat out int material;
void main() {
    gl_Position = clip * vec4(in_position, 1.0);
    normal = turn * in_normal;
    to_eye = turn * (eye_point - in_position);
    rest = in_rest; skin = in_skin; lines = in_lines; reference = in_reference;
    wrap = vec2(atan(in_rest.x, in_rest.z - 1.0) * 8.0, in_rest.y);
    shade = in_shade; headness = in_kind.y; material = int(in_kind.x + 0.5);
}
"""

_INPUTS = """
#version 330
in vec3 normal; in vec3 rest; in vec4 skin; in vec4 lines; in vec4 reference;
in vec2 wrap; in vec3 to_eye; in vec2 shade; in float headness; flat in int material;
uniform sampler2D noise_map;
"""

LIGHT = """
uniform vec3 light_direction[3]; uniform vec3 light_colour[3];
uniform vec3 ambient_up; uniform vec3 ambient_down;
vec3 ambient(vec3 n) { return mix(ambient_down, ambient_up, 0.5 + 0.5 * n.y); }
vec3 diffuse(vec3 n, vec3 soft) {
    vec3 sum = vec3(0.0);
    for (int i = 0; i < 3; i++) {
        vec3 lit = (vec3(dot(n, light_direction[i])) + soft) / (1.0 + soft);
        sum += light_colour[i] * max(lit, 0.0) * max(lit, 0.0) * (1.0 - 0.3 * lit);
    }
    return sum;
}
vec3 shadowed(vec3 n, vec3 bumped, vec3 soft, vec3 key) {
    vec3 sum = vec3(0.0), spread = vec3(0.7, 0.35, 0.2), over = 1.0 / (1.0 + soft);
    for (int i = 0; i < 3; i++) {
        float smooth_dot = dot(n, light_direction[i]), fine_dot = dot(bumped, light_direction[i]);
        vec3 lit = max((fine_dot + spread * (smooth_dot - fine_dot) + soft) * over, 0.0);
        sum += light_colour[i] * lit * lit * (1.0 - 0.3 * lit) * (i == 0 ? key : vec3(1.0));
    }
    return sum;
}
vec3 two_glints(vec3 n, vec3 v, float power, float broad) {
    vec3 sum = vec3(0.0);
    float sharp_gain = (power + 8.0) / 25.0, broad_gain = broad * (0.25 * power + 8.0) / 25.0;
    for (int i = 0; i < 2; i++) {
        float facing = max(dot(n, light_direction[i]), 0.0);
        float wide = pow(max(dot(n, normalize(light_direction[i] + v)), 0.0), 0.25 * power);
        float narrow = wide * wide; narrow *= narrow;
        sum += light_colour[i] * (narrow * sharp_gain + wide * broad_gain) * facing;
    }
    return sum;
}
vec3 glint(vec3 n, vec3 v, float power) {
    vec3 sum = vec3(0.0);
    for (int i = 0; i < 3; i++) {
        vec3 h = normalize(light_direction[i] + v);
        float facing = max(dot(n, light_direction[i]), 0.0);
        sum += light_colour[i] * pow(max(dot(n, h), 0.0), power) * facing;
    }
    return sum * (power + 8.0) / 25.0;
}
vec4 shown(vec3 linear) {
    vec3 toned = linear * (1.0 + 0.12 * linear) / (1.0 + 0.35 * linear);
    return vec4(pow(max(toned, 0.0), vec3(1.0 / 2.2)), 1.0);
}
"""

SKIN = _INPUTS + LIGHT + SKIN_BODY

CLOTH = _INPUTS + LIGHT + CLOTH_BODY

INTERIOR = (
    _INPUTS
    + LIGHT
    + """
uniform vec3 teeth_colour; uniform vec3 lip_colour; uniform float mouth_open;
out vec4 colour;
void main() {
    vec3 n = normalize(normal), v = normalize(to_eye);
    if (dot(n, v) < 0.0) n = -n;
    float front = smoothstep(3.0, 10.6, rest.z);
    float entering = front * front * (0.42 + 0.58 * mouth_open);
    vec3 base = vec3(0.26, 0.065, 0.058) * (0.4 + 0.6 * lip_colour.r);
    float gloss = 0.05;
    if (material == 4) { base = vec3(0.50, 0.15, 0.135); gloss = 0.22; }
    if (material == 5) {
        float side = smoothstep(0.9, 2.5, abs(rest.x));
        base = teeth_colour * mix(vec3(1.0), vec3(0.50, 0.40, 0.31), side);
        base *= 0.93 + 0.14 * texture(noise_map, rest.xy * 0.11).g;
        base *= 0.55 + 0.45 * smoothstep(0.05, 0.55, dot(n, v));
        gloss = 0.55 * (1.0 - side);
    }
    if (material == 7) { base = vec3(0.40, 0.17, 0.14); entering = 0.85; gloss = 0.5; }
    if (material <= 3) { base = mix(base, lip_colour * 0.9, smoothstep(9.2, 11.0, rest.z)); }
    vec3 lit = base * (0.62 * diffuse(n, vec3(0.35)) + ambient(n)) * entering;
    lit += gloss * entering * glint(n, v, 60.0) * 0.14;
    colour = shown(lit);
}
"""
)

EYES = (
    _INPUTS
    + LIGHT
    + """
uniform vec3 iris_colour; uniform float pupil;
out vec4 colour;
void main() {
    vec3 n = normalize(normal), v = normalize(to_eye);
    vec3 p = normalize(rest);
    float r = p.z > 0.0 ? length(p.xy) : 1.0;
    float angle = atan(p.y, p.x);
    float rays = texture(noise_map, vec2(angle * 0.55, r * 0.25)).a;
    float veins = texture(noise_map, vec2(angle * 0.30 + p.y * 0.4, r * 0.10)).a;
    float red = smoothstep(0.42, 0.95, r) * (0.4 + 0.9 * veins);
    vec3 rosy = mix(vec3(1.0), vec3(1.0, 0.72, 0.66), red);
    vec3 white = vec3(0.62, 0.595, 0.575) * rosy;
    vec3 iris = iris_colour * (0.55 + 0.95 * rays) * mix(1.5, 0.85, smoothstep(0.14, 0.34, r));
    iris = mix(iris, iris_colour * 0.18, smoothstep(0.30, 0.395, r));
    vec3 base = mix(iris, white, smoothstep(0.375, 0.43, r));
    base = mix(vec3(0.006), base, smoothstep(pupil - 0.02, pupil + 0.02, r));
    float lid = 1.0 - 0.62 * smoothstep(0.02, 0.42, skin.y);
    lid -= 0.18 * smoothstep(-0.25, -0.5, skin.y);
    lid *= 1.0 - 0.42 * smoothstep(0.40, 0.92, abs(skin.x));
    vec3 lit = base * (0.9 * diffuse(n, vec3(0.3)) * mix(0.6, 1.0, shade.x) + ambient(n)) * lid;
    vec3 cornea = normalize(n + vec3(p.xy, 0.0) * 0.35 * smoothstep(0.45, 0.1, r));
    vec3 h = normalize(light_direction[0] + v);
    float catchlight = smoothstep(0.984, 0.993, dot(cornea, h)) * smoothstep(0.62, 0.45, r);
    lit += light_colour[0] * catchlight * 0.75;
    lit += (glint(n, v, 220.0) * 0.05 + 0.02 * ambient(n)) * lid;
    colour = shown(lit);
}
"""
)

LASHES = (
    _INPUTS
    + """
uniform float lashes; uniform vec3 brow_colour;
out vec4 colour;
void main() {
    float lower = smoothstep(3.55, 3.25, rest.y);
    float lean = (lower > 0.5 ? -0.25 : 0.30) * sign(abs(rest.x) - 3.2);
    float fan = abs(rest.x) + lean * (rest.y - 3.5);
    float strokes = smoothstep(0.38, 0.62, texture(noise_map, vec2(fan * 0.30, 0.71)).a);
    float alpha = lashes * mix(1.15, 0.16, lower) * mix(0.30 + 0.85 * strokes, 0.7, lower);
    colour = vec4(pow(brow_colour * 0.25, vec3(1.0 / 2.2)), clamp(alpha, 0.0, 0.95));
}
"""
)

MEASURE = (
    _INPUTS
    + """
uniform float near_depth;
out vec4 colour;
void main() {
    colour = vec4(1.0 / gl_FragCoord.w, float(material), headness, 1.0);
}
"""
)

# A point is seen in the reference if one of the four nearest samples there has its depth and,
# for teeth, tongue and eyes, its material.
FLOW = (
    _INPUTS
    + """
uniform sampler2D reference_map; uniform float picture_px; uniform float sample_px;
uniform float bias_cm;
out vec4 colour;
void main() {
    vec2 there = (reference.xy / reference.w * 0.5 + 0.5) * picture_px;
    vec2 here = gl_FragCoord.xy * sample_px;
    ivec2 size = textureSize(reference_map, 0);
    vec2 texel = there / picture_px * vec2(size) - 0.5;
    float seen = 0.0;
    bool inner = material >= 3 && material <= 7;
    float slope = abs(dFdx(reference.w)) + abs(dFdy(reference.w));
    float limit = reference.w - bias_cm - min(1.5 * slope, 0.6);
    for (int i = 0; i < 4; i++) {
        ivec2 at = ivec2(floor(texel)) + ivec2(i & 1, i >> 1);
        bool inside = at.x >= 0 && at.y >= 0 && at.x < size.x && at.y < size.y;
        vec4 known = texelFetch(reference_map, clamp(at, ivec2(0), size - 1), 0);
        bool same = abs(known.g - float(material)) < 0.5 || (!inner && known.g < 2.5);
        if (inside && known.a > 0.5 && same && limit < known.r) seen = 1.0;
    }
    colour = vec4(there - here, seen, 1.0);
}
"""
)

PLATE_VERTEX = """
#version 330
in vec2 in_corner;
out vec2 at;
void main() { at = in_corner * 0.5 + 0.5; gl_Position = vec4(in_corner, 0.9999, 1.0); }
"""

PLATE = """
#version 330
in vec2 at;
uniform sampler2D picture;
out vec4 colour;
void main() { colour = vec4(texture(picture, at).rgb, 1.0); }
"""

# Background uncovered by a moving outline was not seen in the reference.
PLATE_FLOW = """
#version 330
in vec2 at;
uniform sampler2D reference_map;
out vec4 colour;
void main() {
    ivec2 size = textureSize(reference_map, 0);
    ivec2 corner = ivec2(floor(at * vec2(size) - 0.5));
    float covered = 1.0;
    for (int i = 0; i < 4; i++) {
        ivec2 texel = clamp(corner + ivec2(i & 1, i >> 1), ivec2(0), size - 1);
        covered = min(covered, texelFetch(reference_map, texel, 0).a);
    }
    colour = vec4(0.0, 0.0, 1.0 - covered, 0.0);
}
"""
