"""GLSL of skin and cloth: zones of colour, pores, lips, brows, stubble, scalp, folds, soft light.

Skin and cloth are two programs although one surface carries both: on the CPU every lane of a
program pays for both sides of a branch.
"""

from __future__ import annotations

_SHARED = """
uniform vec4 cloth;
out vec4 colour;
float collar() {
    return cloth.x + 0.25 * max(0.0, 3.0 - rest.z)
        - cloth.y * max(0.0, 4.5 - abs(rest.x)) * smoothstep(0.0, 3.0, rest.z);
}
vec3 tilted(vec3 n, vec2 slope) {
    vec3 across = normalize(vec3(n.z, 0.0, -n.x) + vec3(1e-4, 0.0, 0.0));
    return normalize(n - slope.x * across - slope.y * cross(n, across));
}
"""

SKIN_BODY = (
    _SHARED
    + """
uniform vec3 skin_colour; uniform vec3 lip_colour; uniform vec3 brow_colour;
uniform vec3 hair_colour; uniform vec4 strengths;
uniform vec3 brow_shape; uniform vec4 marks;
uniform vec2 finish;
uniform sampler2D relief_map; uniform sampler2D colour_map;
vec3 bounced(float open, vec3 base) { return vec3(open) / (1.0 - base * 0.85 * (1.0 - open)); }
void main() {
    vec3 n = normalize(normal), v = normalize(to_eye);
    if (rest.y < collar()) discard;
    vec2 at = vec2((wrap.x + 13.0) / 26.0, (14.0 - wrap.y) / 26.0);
    vec4 relief = texture(relief_map, at), detail = texture(colour_map, at);
    float near = smoothstep(-11.5, -7.5, rest.y);
    relief.rgb = mix(vec3(0.5), relief.rgb, near); detail.rg = mix(vec2(0.5, 0.0), detail.rg, near);
    float lip = smoothstep(0.07, -0.16, lines.x + 0.22 * (detail.r - 0.5));
    float pore = (relief.b - 0.5) * marks.y, blotch = detail.r - 0.5;
    vec3 bumped = tilted(n, (relief.rg - 0.5) * 2.6 * marks.y * (1.0 - lip));
    vec3 base = skin_colour * (1.0 + 0.30 * blotch + 0.42 * pore * (1.0 - lip));
    base *= mix(vec3(1.0), vec3(1.05, 0.97, 0.96), blotch * 3.0);
    float forehead = smoothstep(5.5, 8.5, rest.y);
    base *= mix(vec3(1.0), vec3(1.0, 0.985, 0.93), forehead);
    float flush = strengths.x * skin.x * (1.0 + 1.4 * blotch);
    base *= mix(vec3(1.0), vec3(1.05, 0.76, 0.73), flush);
    base *= mix(vec3(1.0), vec3(0.70, 0.60, 0.63), (0.30 + 0.7 * strengths.z) * skin.z);
    base *= mix(vec3(1.0), vec3(0.62, 0.46, 0.36), clamp(detail.g * marks.x * 1.5, 0.0, 0.6));
    float beard = clamp(skin.y * strengths.y, 0.0, 1.0);
    base *= mix(vec3(1.0), vec3(0.80, 0.83, 0.88), beard * 0.6);
    base = mix(base, hair_colour * 0.6, clamp(beard * (0.18 + 1.1 * detail.b), 0.0, 0.9));
    bool styled = strengths.w > 0.85;
    float ragged = texture(noise_map, wrap * vec2(0.31, 0.08)).a - 0.5;
    float scalp = skin.w - (styled ? 0.16 : 0.0) + ragged * 0.45;
    float cap = smoothstep(0.25, 0.75, scalp) * strengths.w;
    base = mix(base, hair_colour * (styled ? 0.45 : 0.55 + 0.9 * detail.b), cap);
    float furrow = detail.a - 0.5;
    vec3 mouth = lip_colour * (1.0 + 0.55 * furrow);
    mouth *= 1.0 - 0.25 * smoothstep(-0.05, 0.06, lines.x);
    base = mix(base, mouth, lip * 0.9);
    float half_width = brow_shape.x * 1.25;
    float along = smoothstep(-0.10, 0.06, lines.y) * smoothstep(1.16, 0.90, lines.y);
    float within = smoothstep(half_width * 1.3, half_width * 0.5, abs(lines.z)) * along;
    float hairs = clamp(relief.a * 1.35, 0.0, 1.0) * within;
    base = mix(base, brow_colour, brow_shape.y * (0.94 * hairs + 0.16 * within * (1.0 - hairs)));
    float open = clamp(lines.w * 1.12, 0.02, 1.0);
    vec3 soft = vec3(0.34, 0.17, 0.12) * (1.0 - 0.5 * cap);
    vec3 bleed = bounced(open, base);
    vec3 key = mix(vec3(shade.x), vec3(sqrt(shade.x)), vec3(1.0, 0.25, 0.0));
    vec3 lit = base * (shadowed(n, bumped, soft, key) * mix(vec3(1.0), bleed, 0.45)
        + ambient(bumped) * bleed * mix(0.35, 1.0, shade.y));
    vec3 lipped = tilted(n, vec2(furrow * 0.55, 0.0) * lip);
    vec3 sharp = normalize(mix(bumped, lipped, lip));
    float power = 2.0 / pow(finish.x * (1.0 - 0.34 * lip), 4.0);
    float rim = 1.0 - max(dot(n, v), 0.0);
    rim *= rim; rim *= rim;
    float middle = exp(-rest.x * rest.x * 0.10) * smoothstep(-2.5, 1.0, rest.y);
    float oily = (0.55 + 0.65 * middle + 0.3 * skin.x) * (1.0 + 1.6 * blotch - 0.9 * abs(pore));
    float gloss = finish.y * (0.034 + 0.12 * rim) * mix(oily, 1.7, lip);
    gloss *= mix(0.55, 1.0, smoothstep(0.02, 0.22, skin_colour.g));
    gloss *= open * (1.0 - 0.8 * cap) * (1.0 - 0.5 * hairs);
    vec3 sheen = two_glints(sharp, v, power, 0.35) * mix(0.35, 1.0, shade.x);
    sheen *= mix(vec3(1.12, 0.98, 0.86), vec3(1.0), smoothstep(0.02, 0.22, skin_colour.g));
    lit += gloss * (sheen + 0.45 * ambient(n) * shade.y);
    colour = shown(lit);
}
"""
)

CLOTH_BODY = (
    _SHARED
    + """
uniform vec3 cloth_colour;
void main() {
    float depth_cm = collar() - rest.y;
    if (depth_cm <= 0.0) discard;
    vec3 n = normalize(normal), v = normalize(to_eye);
    vec4 weave = texture(noise_map, rest.xy * 0.9), fold = texture(noise_map, wrap * 0.013);
    float rib = smoothstep(0.85, 0.65, depth_cm);
    float ribs = rib * (0.5 + 0.5 * sin(wrap.x * 22.0)) * 0.22;
    float stripe = cloth.z * step(0.5, fract(rest.y * 0.55));
    vec2 slope = (fold.rg - 0.5) * vec2(1.5, 1.1) * smoothstep(0.6, 3.0, depth_cm);
    vec2 crease = texture(noise_map, wrap * vec2(0.045, 0.016)).rg - 0.5;
    slope += crease * 0.7 * smoothstep(0.5, 2.0, depth_cm);
    vec3 bumped = tilted(n, slope + (weave.bg - 0.5) * 0.35);
    vec3 base = cloth_colour * (0.86 + 0.26 * weave.b) * (1.0 - ribs) * (1.0 - stripe);
    float open = clamp(lines.w, 0.0, 1.0) * (0.55 + 0.45 * smoothstep(0.0, 0.25, depth_cm));
    vec3 direct = shadowed(n, bumped, vec3(0.12), vec3(shade.x));
    vec3 lit = base * (direct + ambient(bumped) * open * shade.y);
    lit += base * 0.25 * pow(1.0 - max(dot(n, v), 0.0), 3.0) * ambient(n);
    colour = shown(lit * (0.45 + 0.55 * open));
}
"""
)
