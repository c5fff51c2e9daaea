// Rays cast into a synthetic scene: nearest hits, and the light that comes back. What is computed is said by the readable twin
// of this file, Quads.hit and Lathe.hit in difix3d/synthetic/shapes.py, World._trace, radiance and shade in world.py.
//
// Quads and the cones of a lathe lie in arrays side by side, so that the loops over them become vector code. -ffast-math
// assumes that there is no infinity and no NaN: FAR stands for "nothing is met", and divisors are kept away from zero.

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "threads.h"

namespace {

constexpr float FAR = 1e30f, NEAR = 1e-4f, TINY = 1e-20f;
constexpr int MOST = 256;  // quads or cones of one part

struct Hit {
    float t, u, v;
    int64_t surface, part;
    int cone;      // of a lathe
    float share;   // of the way along the cone
};

struct Scene {
    const float* spheres;  // [parts,4]: centre, radius
    const int64_t* parts;  // [parts,4]: lathe (0 or 1), first surface, number of quads or cones, where its numbers begin in data
    int64_t n_parts;
    const float* data;
};

struct Textures {
    const float* radiance;  // all textures one after the other
    const int64_t* layout;  // [surfaces,4]: where its texture begins, width, height, whether it wraps along u
    const float* reflect;   // [surfaces,3]: reflectance at normal incidence
};

inline float away_from_zero(float x) { return std::copysign(std::max(std::fabs(x), TINY), x); }

// data: rows of n: normal xyz, offset; the same for u, for v; leaf (0 or 1)
inline void meet_quads(const float* data, int n, int64_t first, int64_t part, const float* o, const float* d, Hit& hit) {
    float ts[MOST], us[MOST], vs[MOST];
#pragma omp simd
    for (int q = 0; q < n; ++q) {
        auto row = [&](int r) { return data[r * n + q]; };
        auto start = [&](int r) { return row(r) * o[0] + row(r + 1) * o[1] + row(r + 2) * o[2] - row(r + 3); };
        auto change = [&](int r) { return row(r) * d[0] + row(r + 1) * d[1] + row(r + 2) * d[2]; };
        const float t = -start(0) / away_from_zero(change(0));
        const float u = start(4) + t * change(4), v = start(8) + t * change(8);
        const float w = std::min(std::max(v, 0.f), 1.f);
        const float leaf = 2.9f * std::sqrt(w) * (1 - w) * (1.05f - 0.3f * v);
        const float half = row(12) > 0 ? 0.5f * leaf : 1.f;
        const bool inside = (t > NEAR) & (u * (1 - u) >= 0) & (v * (1 - v) >= 0) & (std::fabs(u - 0.5f) < half);
        ts[q] = inside ? t : FAR;
        us[q] = u;
        vs[q] = v;
    }
    for (int q = 0; q < n; ++q)
        if (ts[q] < hit.t) hit = {ts[q], us[q], vs[q], first + q, part, 0, 0};
}

// data: frame (9, row by row), origin (3), then rows of n: slope, base, lower and upper height, first and second height,
// first and second position along the profile, first and second normal (radial and axial part)
inline void meet_lathe(const float* data, int n, int64_t first, int64_t part, const float* o_world, const float* d_world,
                       Hit& hit) {
    float o[3], d[3], p[3] = {o_world[0] - data[9], o_world[1] - data[10], o_world[2] - data[11]};
    for (int k = 0; k < 3; ++k) {
        o[k] = p[0] * data[k] + p[1] * data[3 + k] + p[2] * data[6 + k];
        d[k] = d_world[0] * data[k] + d_world[1] * data[3 + k] + d_world[2] * data[6 + k];
    }
    const float nearest = -(o[0] * d[0] + o[1] * d[1] + o[2] * d[2]) / (d[0] * d[0] + d[1] * d[1] + d[2] * d[2]);
    for (int k = 0; k < 3; ++k) o[k] += nearest * d[k];
    const float *slope = data + 12, *base = slope + n, *low = base + n, *high = low + n, *from = high + n, *to = from + n;
    const float dd = d[0] * d[0] + d[1] * d[1], od = o[0] * d[0] + o[1] * d[1], oo = o[0] * o[0] + o[1] * o[1];
    const float soonest = NEAR - nearest;
    float ts[MOST];
#pragma omp simd
    for (int s = 0; s < n; ++s) {
        const float radius = base[s] + slope[s] * o[2], growth = slope[s] * d[2];
        const float a = dd - growth * growth, b = od - growth * radius, c = oo - radius * radius;
        const float inner = b * b - a * c;
        const float q = -(b + std::copysign(std::sqrt(std::max(inner, 0.f)), b));
        const float t1 = q / away_from_zero(a), t2 = c / away_from_zero(q);
        const float z1 = o[2] + t1 * d[2], z2 = o[2] + t2 * d[2];
        const bool on1 = (z1 >= low[s]) & (z1 <= high[s]) & (base[s] + slope[s] * z1 >= 0) & (t1 > soonest) & (inner >= 0);
        const bool on2 = (z2 >= low[s]) & (z2 <= high[s]) & (base[s] + slope[s] * z2 >= 0) & (t2 > soonest) & (inner >= 0);
        ts[s] = std::min(on1 ? t1 : FAR, on2 ? t2 : FAR);
    }
    int best = -1;
    float t = hit.t - nearest;
    for (int s = 0; s < n; ++s)
        if (ts[s] < t && ts[s] < 0.5f * FAR) t = ts[s], best = s;
    if (best < 0) return;
    const float angle = std::atan2(o[1] + t * d[1], o[0] + t * d[0]) * 0.15915494f;
    const float share = std::min(std::max((o[2] + t * d[2] - from[best]) / (to[best] - from[best]), 0.f), 1.f);
    const float *start = to + n, *end = start + n;
    hit = {t + nearest, angle - std::floor(angle), start[best] + share * (end[best] - start[best]), first, part, best, share};
}

inline Hit trace(const Scene& scene, const float* o, const float* d, float any) {
    const float dd = d[0] * d[0] + d[1] * d[1] + d[2] * d[2];
    Hit hit{FAR, 0, 0, 0, 0, 0, 0};
    for (int64_t k = 0; k < scene.n_parts && !(hit.t < any); ++k) {
        const float* s = scene.spheres + 4 * k;
        const float x = s[0] - o[0], y = s[1] - o[1], z = s[2] - o[2];
        const float along = x * d[0] + y * d[1] + z * d[2], far2 = x * x + y * y + z * z, reach2 = s[3] * s[3];
        if (far2 > reach2 && (along < 0 || far2 - along * along / dd > reach2)) continue;
        const int64_t* part = scene.parts + 4 * k;
        (part[0] ? meet_lathe : meet_quads)(scene.data + part[3], int(part[2]), part[1], k, o, d, hit);
    }
    return hit;
}

inline void normal_at(const Scene& scene, const Hit& hit, float* normal) {
    const int64_t *part = scene.parts + 4 * hit.part, n = part[2];
    const float* data = scene.data + part[3];
    if (!part[0]) {
        for (int k = 0; k < 3; ++k) normal[k] = data[k * n + hit.surface - part[1]];
        return;
    }
    const float *r0 = data + 12 + 8 * n + hit.cone, *z0 = r0 + n, *r1 = z0 + n, *z1 = r1 + n;
    const float radial = *r0 + hit.share * (*r1 - *r0), axial = *z0 + hit.share * (*z1 - *z0);
    const float scale = 1 / std::sqrt(radial * radial + axial * axial);
    const float x = std::cos(6.2831853f * hit.u) * radial, y = std::sin(6.2831853f * hit.u) * radial;
    for (int k = 0; k < 3; ++k) normal[k] = scale * (data[3 * k] * x + data[3 * k + 1] * y + data[3 * k + 2] * axial);
}

// Bilinear between texels.
inline void look_up(const Textures& textures, const Hit& hit, float* color) {
    const int64_t* layout = textures.layout + 4 * hit.surface;
    const int64_t width = layout[1], height = layout[2];
    const float x = hit.u * width - 0.5f, y = hit.v * height - 0.5f, x0 = std::floor(x), y0 = std::floor(y);
    const float fx = x - x0, fy = y - y0;
    auto column = [&](int64_t c) { return layout[3] ? (c + width) % width : std::min(std::max(c, int64_t(0)), width - 1); };
    auto row = [&](int64_t r) { return layout[0] + std::min(std::max(r, int64_t(0)), height - 1) * width; };
    const int64_t left = column(int64_t(x0)), right = column(int64_t(x0) + 1), low = row(int64_t(y0)), high = row(int64_t(y0) + 1);
    for (int k = 0; k < 3; ++k) {
        auto texel = [&](int64_t index) { return textures.radiance[3 * index + k]; };
        const float a = texel(low + left) + fx * (texel(low + right) - texel(low + left));
        const float b = texel(high + left) + fx * (texel(high + right) - texel(high + left));
        color[k] = a + fy * (b - a);
    }
}

// Adds what a mirror at the hit shows, by Schlick's approximation to Fresnel's equations.
inline void add_reflection(const Scene& scene, const Textures& textures, const Hit& hit, const float* o, const float* d, float* color) {
    const float* f0 = textures.reflect + 3 * hit.surface;
    if (f0[0] <= 0) return;
    float normal[3], point[3], out[3], mirrored[3], cosine = 0;
    normal_at(scene, hit, normal);
    const float length = std::sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]);
    for (int k = 0; k < 3; ++k) cosine += normal[k] * d[k] / length;
    for (int k = 0; k < 3; ++k) {
        out[k] = d[k] / length - 2 * cosine * normal[k];
        point[k] = o[k] + hit.t * d[k] - std::copysign(2e-3f, cosine) * normal[k];
    }
    const Hit other = trace(scene, point, out, 0);
    look_up(textures, other, mirrored);
    const float grazing = std::max(1 - std::fabs(cosine), 0.f), g2 = grazing * grazing;
    for (int k = 0; k < 3; ++k) color[k] += (f0[k] + (1 - f0[k]) * g2 * g2 * grazing) * mirrored[k];
}

// Calls f(ray) for all rays, some hundred on a thread at once.
template <class F> void each_ray(int64_t rays, int64_t threads, F f) {
    constexpr int64_t BATCH = 256;
    parallel_for((rays + BATCH - 1) / BATCH, threads, [&](int64_t batch) {
        for (int64_t r = batch * BATCH; r < std::min(rays, (batch + 1) * BATCH); ++r) f(r);
    });
}

}  // namespace

// Rays o + t d: o [rays,3] or, with shared_origin, [1,3]; d [rays,3].

// The nearest surface along each ray. With any > 0, a ray is done once something is met before that t.
// Nothing met: t = 1e30, the rest 0.
extern "C" void ray_trace(const float* o, const float* d, int64_t rays, int64_t shared_origin, const float* spheres,
                          const int64_t* parts, int64_t n_parts, const float* data, float any, int64_t threads, float* t,
                          int64_t* surface, float* u, float* v) {
    const Scene scene{spheres, parts, n_parts, data};
    each_ray(rays, threads, [&](int64_t r) {
        const Hit hit = trace(scene, shared_origin ? o : o + 3 * r, d + 3 * r, any);
        t[r] = hit.t, surface[r] = hit.surface, u[r] = hit.u, v[r] = hit.v;
    });
}

// The light that comes back along each ray, and where it comes from.
extern "C" void ray_cast(const float* o, const float* d, int64_t rays, int64_t shared_origin, const float* spheres,
                         const int64_t* parts, int64_t n_parts, const float* data, const float* radiance, const int64_t* layout,
                         const float* reflect, int64_t threads, float* color, float* t) {
    const Scene scene{spheres, parts, n_parts, data};
    const Textures textures{radiance, layout, reflect};
    each_ray(rays, threads, [&](int64_t r) {
        const float *from = shared_origin ? o : o + 3 * r, *to = d + 3 * r;
        const Hit hit = trace(scene, from, to, 0);
        look_up(textures, hit, color + 3 * r);
        add_reflection(scene, textures, hit, from, to, color + 3 * r);
        t[r] = hit.t;
    });
}
