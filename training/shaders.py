"""GLSL of the head renderer: one vertex program, one fragment program per material.

Clip space has y downward, so that row 0 of a read-back is the top row of the picture.
"""

from __future__ import annotations

VERTEX = """
#version 330
in vec3 in_position; in vec3 in_normal; in vec3 in_rest; in vec4 in_skin; in vec4 in_lines;
in vec4 in_reference; in vec2 in_kind;
uniform mat4 clip; uniform mat3 turn; uniform vec3 eye_point;
out vec3 normal; out vec3 rest; out vec4 skin; out vec4 lines; out vec4 reference;
out vec2 wrap; out vec3 to_eye; out float headness; flat out int material;
void main() {
    gl_Position = clip * vec4(in_position, 1.0);
    normal = turn * in_normal;
    to_eye = turn * (eye_point - in_position);
    rest = in_rest; skin = in_skin; lines = in_lines; reference = in_reference;
    wrap = vec2(atan(in_rest.x, in_rest.z - 1.0) * 8.0, in_rest.y);
    headness = in_kind.y; material = int(in_kind.x + 0.5);
}
"""

_INPUTS = """
#version 330
in vec3 normal; in vec3 rest; in vec4 skin; in vec4 lines; in vec4 reference;
in vec2 wrap; in vec3 to_eye; in float headness; flat in int material;
uniform sampler2D noise_map;
"""

# A blunt fringe would hide the eyes: strands end raggedly above the brows.
_HAIR_CUT = """
uniform vec2 fringe_cm;
bool hair_cut() {
    float strand = texture(noise_map, vec2(rest.x * 0.11, 0.37)).a - 0.5;
    float line = fringe_cm.x + fringe_cm.y * rest.x + 2.2 * strand - 0.030 * rest.x * rest.x;
    bool over_face = rest.z > 6.2 && abs(rest.x) < 6.9 && rest.y < line && rest.y > -9.0;
    float thin = texture(noise_map, vec2(skin.x * 2.3, 0.11)).a;
    return over_face || (thin < 0.33 && skin.z > thin * 2.0);
}
"""

_LIGHT = """
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

SKIN = (
    _INPUTS
    + _LIGHT
    + """
uniform vec3 skin_colour; uniform vec3 lip_colour; uniform vec3 brow_colour;
uniform vec3 hair_colour; uniform vec3 cloth_colour; uniform vec4 strengths;
uniform vec3 brow_shape; uniform vec4 cloth;
uniform vec2 finish;
out vec4 colour;
void main() {
    vec3 n = normalize(normal), v = normalize(to_eye);
    vec4 wide = texture(noise_map, wrap * 0.021), fine = texture(noise_map, wrap * 0.17);
    float limit = cloth.x + 0.25 * max(0.0, 3.0 - rest.z)
        - cloth.y * max(0.0, 4.5 - abs(rest.x)) * smoothstep(0.0, 3.0, rest.z);
    float open = lines.w;
    if (rest.y < limit) {
        float weave = 0.92 + 0.16 * fine.b;
        float rib = smoothstep(0.75, 0.6, limit - rest.y) * 0.13;
        float stripe = cloth.z * step(0.5, fract(rest.y * 0.55));
        vec3 base = cloth_colour * weave * (1.0 - rib) * (1.0 - stripe);
        colour = shown(base * (diffuse(n, vec3(0.12)) + ambient(n)) * (0.6 + 0.4 * open));
        return;
    }
    vec3 base = skin_colour * (1.0 + 0.13 * (wide.r - 0.5) + 0.05 * (fine.b - 0.5));
    base *= mix(vec3(1.0), vec3(1.06, 0.80, 0.78), strengths.x * skin.x * (0.7 + 0.6 * wide.g));
    base *= mix(vec3(1.0), vec3(0.74, 0.66, 0.68), strengths.z * skin.z);
    float beard = skin.y * strengths.y * (0.55 + 0.7 * (fine.b - 0.3));
    base = mix(base, mix(hair_colour, base, 0.35) * vec3(0.78, 0.80, 0.84), clamp(beard, 0.0, 0.9));
    float ragged = (texture(noise_map, wrap * vec2(0.31, 0.08)).a - 0.5) * 0.8;
    float cap = smoothstep(0.25, 0.75, skin.w + ragged * 0.35) * strengths.w;
    base = mix(base, hair_colour * (0.75 + 0.5 * fine.b), cap);
    float lip = smoothstep(0.10, -0.20, lines.x);
    float crease = 0.88 + 0.2 * texture(noise_map, vec2(rest.x * 0.28, rest.y * 0.02)).a;
    base = mix(base, lip_colour * crease, lip * 0.85);
    float taper = smoothstep(-0.07, 0.16, lines.y) * smoothstep(1.10, 0.72, lines.y);
    float half_width = brow_shape.x * (0.45 + 0.75 * taper);
    vec2 along = vec2(lines.y * 0.9 - lines.z * 0.42, lines.z * 0.12 + lines.y * 0.09);
    float hairs = texture(noise_map, along).a;
    float stripe = smoothstep(half_width, half_width * 0.25, abs(lines.z) + 0.16 * (hairs - 0.5));
    base = mix(base, brow_colour, stripe * taper * brow_shape.y * (0.45 + 0.75 * hairs));
    vec3 soft = vec3(0.42, 0.24, 0.18) * (1.0 - 0.5 * cap);
    float shade = clamp(open, 0.0, 1.1);
    vec3 bleed = pow(vec3(shade), vec3(0.8, 1.1, 1.2));
    vec3 lit = base * (diffuse(n, soft) + ambient(n)) * bleed;
    float power = 2.0 / pow(finish.x * (1.0 - 0.30 * lip), 4.0);
    float rim = pow(1.0 - max(dot(n, v), 0.0), 4.0);
    float gloss = finish.y * (0.030 + 0.10 * rim) * (0.55 + 0.9 * wide.g) * shade * (1.0 + lip);
    lit += gloss * (1.0 - 0.8 * cap) * (glint(n, v, power) + 0.35 * ambient(n));
    colour = shown(lit);
}
"""
)

INTERIOR = (
    _INPUTS
    + _LIGHT
    + """
uniform vec3 teeth_colour; uniform vec3 lip_colour; uniform float mouth_open;
out vec4 colour;
void main() {
    vec3 n = normalize(normal), v = normalize(to_eye);
    if (dot(n, v) < 0.0) n = -n;
    float front = smoothstep(3.0, 10.6, rest.z);
    float entering = front * front * (0.42 + 0.58 * mouth_open);
    vec3 base = vec3(0.30, 0.085, 0.075) * (0.4 + 0.6 * lip_colour.r);
    float gloss = 0.05;
    if (material == 4) { base = vec3(0.56, 0.17, 0.15); gloss = 0.20; }
    if (material == 5) { base = teeth_colour; gloss = 0.5; }
    if (material == 7) { base = vec3(0.32, 0.14, 0.11); entering = 0.8; }
    if (material <= 3) { base = mix(base, lip_colour * 0.9, smoothstep(9.2, 11.0, rest.z)); }
    vec3 lit = base * (0.62 * diffuse(n, vec3(0.35)) + ambient(n)) * entering;
    lit += gloss * entering * glint(n, v, 60.0) * 0.14;
    colour = shown(lit);
}
"""
)

EYES = (
    _INPUTS
    + _LIGHT
    + """
uniform vec3 iris_colour; uniform float pupil;
out vec4 colour;
void main() {
    vec3 n = normalize(normal), v = normalize(to_eye);
    vec3 p = normalize(rest);
    float r = p.z > 0.0 ? length(p.xy) : 1.0;
    float angle = atan(p.y, p.x);
    float rays = texture(noise_map, vec2(angle * 0.55, r * 0.25)).a;
    vec3 rosy = mix(vec3(1.0), vec3(1.0, 0.80, 0.76), smoothstep(0.5, 0.85, r));
    vec3 white = vec3(0.66, 0.63, 0.61) * rosy;
    vec3 iris = iris_colour * (0.65 + 0.8 * rays) * mix(1.35, 0.8, smoothstep(0.12, 0.36, r));
    iris = mix(iris, iris_colour * 0.25, smoothstep(0.31, 0.385, r));
    vec3 base = mix(iris, white, smoothstep(0.375, 0.425, r));
    base = mix(vec3(0.008), base, smoothstep(pupil - 0.02, pupil + 0.02, r));
    float lid = 1.0 - 0.45 * smoothstep(0.05, 0.42, skin.y)
        - 0.25 * smoothstep(0.5, 0.95, abs(skin.x));
    vec3 lit = base * (0.9 * diffuse(n, vec3(0.3)) + ambient(n)) * lid;
    lit += (glint(n, v, 220.0) * 0.055 + 0.02 * ambient(n)) * lid;
    colour = shown(lit);
}
"""
)

HAIR = (
    _INPUTS
    + _LIGHT
    + _HAIR_CUT
    + """
uniform vec3 hair_colour;
out vec4 colour;
void main() {
    if (hair_cut()) discard;
    vec3 n = normalize(normal), v = normalize(to_eye);
    if (dot(n, v) < 0.0) n = -n;
    float strand = texture(noise_map, vec2(wrap.x * 0.16, wrap.y * 0.012)).a;
    float lock = texture(noise_map, vec2(wrap.x * 0.035, wrap.y * 0.006)).a;
    vec3 t = normalize(vec3(0.15 * (lock - 0.5), 1.0, 0.0) - n * n.y + 1e-3);
    vec3 base = hair_colour * (0.45 + 0.7 * strand) * (0.75 + 0.5 * lock);
    vec3 lit = base * (diffuse(n, vec3(0.25)) + ambient(n));
    for (int i = 0; i < 3; i++) {
        float c = dot(t, normalize(light_direction[i] + v)) + 0.22 * (strand - 0.5);
        float sheen = pow(max(1.0 - c * c, 0.0), 28.0) * max(dot(n, light_direction[i]) + 0.1, 0.0);
        lit += light_colour[i] * sheen * (0.03 + 0.30 * hair_colour);
    }
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
    colour = vec4(pow(brow_colour * 0.3, vec3(1.0 / 2.2)), lashes * mix(1.0, 0.3, lower));
}
"""
)

MEASURE = (
    _INPUTS
    + _HAIR_CUT
    + """
uniform float near_depth;
out vec4 colour;
void main() {
    if (material == 8 && hair_cut()) discard;
    colour = vec4(1.0 / gl_FragCoord.w, float(material), headness, 1.0);
}
"""
)

# A point is seen in the reference if one of the four nearest samples there has its depth and,
# for teeth, tongue and eyes, its material.
FLOW = (
    _INPUTS
    + _HAIR_CUT
    + """
uniform sampler2D reference_map; uniform float picture_px; uniform float sample_px;
uniform float bias_cm;
out vec4 colour;
void main() {
    if (material == 8 && hair_cut()) discard;
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
