// Gaussian splatting on a CPU: projection with spherical harmonics, tile lists, rasterisation; each forward and backward.
//
// Plain C functions over contiguous float32 arrays. The readable twin of everything here is difix3d/render/torch_twin.py;
// it says what is computed, this file how to do it fast:
//   * Everything is 16 lanes wide: 16 Gaussians at a time in the projection, one row of a 16 x 16 tile in the rasteriser.
//     GCC and clang lower the 64-byte vectors to whatever the machine has (AVX-512, AVX2, NEON).
//   * Inner loops have no branches; a pixel that is finished has the sign bit of its transmittance set.
//   * No atomics: each intersection of a Gaussian and a tile owns a slot for its gradient, and the slots of a Gaussian are
//     summed in a fixed order. Results do not depend on the number of threads.
//   * -ffast-math assumes that there is no NaN, so that non-finite values are recognised by their bits.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "threads.h"

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, I{__VA_ARGS__})
#endif

namespace {

constexpr int TILE = 16;             // pixels along the edge of a tile = lanes of a vector
constexpr int FIELDS = 16;           // floats of a packed Gaussian: one cache line
constexpr int BASES = 16;            // spherical harmonics of degrees 0..3
constexpr float DILATION = 0.3f;     // added to the projected covariance, in square pixels
constexpr float MIN_ALPHA = 1.f / 255.f;
constexpr float MAX_ALPHA = 0.999f;
constexpr float MIN_TRANSMITTANCE = 1e-4f;
constexpr float LOG2E = 1.44269504f;
constexpr float LOG2_MIN_ALPHA = -7.99435344f;

typedef float V __attribute__((vector_size(64), may_alias));
typedef int32_t I __attribute__((vector_size(64), may_alias));
typedef float VU __attribute__((vector_size(64), may_alias, aligned(4)));  // at any address

// A packed Gaussian. The last five fields describe the ellipse where alpha >= 1/255: its half width, and for a column x
// (from the centre) the rows slope * x +- half_height * sqrt(1 - (x / half_width)^2); top_x is the column of its highest row.
enum Field { X, Y, CONIC_A, CONIC_B, CONIC_C, OPACITY, RED, GREEN, BLUE, DEPTH, LOG2_OPACITY, SLOPE, HALF_HEIGHT, INV_HALF_WIDTH, TOP_X };

constexpr int64_t SMALLEST_RUN = 1024;  // Gaussians whose tile lists are worth a helper

struct Box { int16_t x0, x1, y0, y1; };  // tiles, end excluded

INLINE V fill(float x) { return x - V{}; }
INLINE I fill_int(int x) { return x - I{}; }
INLINE V max(V a, V b) { return a > b ? a : b; }
INLINE V min(V a, V b) { return a < b ? a : b; }
INLINE V clamp(V x, V low, V high) { return min(max(x, low), high); }
INLINE I to_int(V x) { return __builtin_convertvector(x, I); }
INLINE V to_float(I x) { return __builtin_convertvector(x, V); }
INLINE I finite(V x) { return ((I)x & 0x7f800000) != 0x7f800000; }
INLINE V keep(I mask, V x) { return mask ? x : V{}; }
template <class F> INLINE V each_lane(V x, F f) {
    alignas(64) float y[TILE];
    *(V*)y = x;
    for (int l = 0; l < TILE; l++) y[l] = f(y[l]);
    return *(V*)y;
}
INLINE V sqrt(V x) { return each_lane(x, [](float y) { return std::sqrt(y); }); }
INLINE V exp(V x) { return each_lane(x, [](float y) { return std::exp(y); }); }
INLINE V log(V x) { return each_lane(x, [](float y) { return std::log(y); }); }
INLINE float sum(V x) { float s = 0; for (int l = 0; l < TILE; l++) s += x[l]; return s; }

// Transposes 16 x 16 floats.
__attribute__((noinline)) void transpose(V* r) {
    for (int i = 0; i < 8; i++) {
        V a = r[i], b = r[i + 8];
        r[i] = SHUFFLE(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
        r[i + 8] = SHUFFLE(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    }
    for (int i = 0; i < TILE; i++) {
        if (i & 4) continue;
        V a = r[i], b = r[i + 4];
        r[i] = SHUFFLE(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27);
        r[i + 4] = SHUFFLE(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
    }
    for (int i = 0; i < TILE; i++) {
        if (i & 2) continue;
        V a = r[i], b = r[i + 2];
        r[i] = SHUFFLE(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
        r[i + 2] = SHUFFLE(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    }
    for (int i = 0; i < TILE; i += 2) {
        V a = r[i], b = r[i + 1];
        r[i] = SHUFFLE(a, b, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30);
        r[i + 1] = SHUFFLE(a, b, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
    }
}

// 2^x for x <= 0 to 1e-7 relative. Below -126 the result is garbage, but finite work: the caller masks it.
INLINE V exp2_negative(V x) {
    I whole = to_int(x);
    V f = x - to_float(whole);
    V p = 0.000938788231f * f + 0.00918861106f;
    p = p * f + 0.0552797206f;
    p = p * f + 0.240172192f;
    p = p * f + 0.693142235f;
    p = p * f + 0.99999994f;
    return (V)((I)p + (whole << 23));
}

constexpr int CHUNK = 16;            // blocks that a thread takes at once, and whose pose gradients are summed together
constexpr int BATCH = TILE * CHUNK;  // Gaussians that a thread takes at once

int blocks(int64_t n) { return int((n + TILE - 1) / TILE); }
int chunks_of(int64_t n) { return (blocks(n) + CHUNK - 1) / CHUNK; }

// Calls f(chunk, block) for all blocks of n Gaussians.
template <class F> void each_block(int64_t n, int threads, F f) {
    parallel_for(chunks_of(n), threads, [&](int64_t chunk) {
        int last = std::min(int(chunk + 1) * CHUNK, blocks(n));
        for (int block = int(chunk) * CHUNK; block < last; block++) f(int(chunk), block);
    });
}

// ---------------------------------------------------------------------------------------------- projection

INLINE V load(const float* p, int stride, int count) {
    alignas(64) float v[TILE];
    if (count == TILE)
        for (int l = 0; l < TILE; l++) v[l] = p[l * stride];
    else
        for (int l = 0; l < TILE; l++) v[l] = p[std::min(l, count - 1) * stride];
    return *(V*)v;
}

INLINE void store(float* p, int stride, int count, V v) {
    for (int l = 0; l < count; l++) p[int64_t(l) * stride] = v[l];
}

// 16 rows of `length` floats to one vector per column, and back. Rows of 16 or more go through transposed squares; the last
// square overlaps the one before.
INLINE void load_rows(const float* p, int length, int wanted, int count, V* columns) {
    if (length < TILE) {
        for (int i = 0; i < wanted; i++) columns[i] = load(p + i, length, count);
        return;
    }
    for (int done = 0; done < wanted; done += TILE) {
        int at = std::min(done, length - TILE);
        V square[TILE];
        for (int l = 0; l < TILE; l++) square[l] = *(const VU*)(p + int64_t(std::min(l, count - 1)) * length + at);
        transpose(square);
        for (int i = 0; i < TILE; i++) columns[at + i] = square[i];
    }
}

INLINE void store_rows(float* p, int length, int count, const V* columns) {
    if (length < TILE) {
        for (int i = 0; i < length; i++) store(p + i, length, count, columns[i]);
        return;
    }
    for (int done = 0; done < length; done += TILE) {
        int at = std::min(done, length - TILE);
        V square[TILE];
        for (int i = 0; i < TILE; i++) square[i] = columns[at + i];
        transpose(square);
        for (int l = 0; l < count; l++) *(VU*)(p + int64_t(l) * length + at) = square[l];
    }
}

INLINE V dot(const V* a, const V* b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

INLINE void cross(const V* a, const V* b, V* out) {
    for (int i = 0; i < 3; i++) out[i] = a[(i + 1) % 3] * b[(i + 2) % 3] - a[(i + 2) % 3] * b[(i + 1) % 3];
}

struct Camera {
    float R[3][3], t[3], center[3], fx, fy, cx, cy, right, left, bottom, top;
    Camera(const float* w2c, const float* c, const float* K, int width, int height) {
        for (int i = 0; i < 3; i++) {
            for (int j = 0; j < 3; j++) R[i][j] = w2c[4 * i + j];
            t[i] = w2c[4 * i + 3];
            center[i] = c[i];
        }
        fx = K[0], cx = K[2], fy = K[4], cy = K[5];
        // Outside of this frustum (15 % larger than the image on each side) the projection's linearisation is held.
        float guard_x = 0.15f * width / fx, guard_y = 0.15f * height / fy;
        right = (width - cx) / fx + guard_x, left = -cx / fx - guard_x;
        bottom = (height - cy) / fy + guard_y, top = -cy / fy - guard_y;
    }
};

// 16 Gaussians and what of them does not depend on the camera.
struct Block {
    V mean[3], quat[4], inv_norm, scale[3], rotation[3][3], opacity;
    I valid;
    __attribute__((noinline)) void read(const float* means, const float* quats, const float* scales, const float* opacities, int n) {
        valid = fill_int(-1);
        V logit = load(opacities, 1, n), square = V{};
        valid &= finite(logit);
        opacity = 1.f / (1.f + exp(-clamp(logit, fill(-80.f), fill(80.f))));
        for (int i = 0; i < 3; i++) {
            mean[i] = load(means + i, 3, n);
            V s = load(scales + i, 3, n);
            valid &= finite(mean[i]) & finite(s);
            scale[i] = exp(clamp(s, fill(-80.f), fill(80.f)));
        }
        for (int i = 0; i < 4; i++) {
            quat[i] = load(quats + i, 4, n);
            valid &= finite(quat[i]);
            square += quat[i] * quat[i];
        }
        valid &= finite(square) & (square > fill(1e-24f));
        inv_norm = 1.f / sqrt(max(square, fill(1e-24f)));
        for (int i = 0; i < 4; i++) quat[i] *= inv_norm;
        V w = quat[0], x = quat[1], y = quat[2], z = quat[3];
        rotation[0][0] = 1.f - 2.f * (y * y + z * z), rotation[0][1] = 2.f * (x * y - w * z), rotation[0][2] = 2.f * (x * z + w * y);
        rotation[1][0] = 2.f * (x * y + w * z), rotation[1][1] = 1.f - 2.f * (x * x + z * z), rotation[1][2] = 2.f * (y * z - w * x);
        rotation[2][0] = 2.f * (x * z - w * y), rotation[2][1] = 2.f * (y * z + w * x), rotation[2][2] = 1.f - 2.f * (x * x + y * y);
    }
};

// One block seen by one camera.
struct View {
    V p[3], rz, ux, uy;     // position in the camera; 1 / z; x / z and y / z within the guard
    V J00, J02, J11, J12;   // Jacobian of the projection
    V T[2][3], U[2][3], S[2][3];  // J R; J R rotation; the same times the scales: covariance = S S^T
    V mx, my, normal[3], c00, c01, c11, det0, det, compensation, opacity;  // c: before the dilation, like det0; det: after
    I in_range;
    View(const Camera& cam, const Block& g, float near, float far, bool antialiased) {
        for (int i = 0; i < 3; i++) p[i] = cam.R[i][0] * g.mean[0] + cam.R[i][1] * g.mean[1] + cam.R[i][2] * g.mean[2] + cam.t[i];
        in_range = (p[2] >= fill(near)) & (p[2] <= fill(far));
        rz = 1.f / (in_range ? p[2] : fill(1.f));
        ux = clamp(p[0] * rz, fill(cam.left), fill(cam.right));
        uy = clamp(p[1] * rz, fill(cam.top), fill(cam.bottom));
        J00 = cam.fx * rz, J02 = -J00 * ux;
        J11 = cam.fy * rz, J12 = -J11 * uy;
        for (int j = 0; j < 3; j++) T[0][j] = J00 * cam.R[0][j] + J02 * cam.R[2][j], T[1][j] = J11 * cam.R[1][j] + J12 * cam.R[2][j];
        for (int i = 0; i < 2; i++)
            for (int j = 0; j < 3; j++) {
                U[i][j] = T[i][0] * g.rotation[0][j] + T[i][1] * g.rotation[1][j] + T[i][2] * g.rotation[2][j];
                S[i][j] = U[i][j] * g.scale[j];
            }
        mx = cam.fx * p[0] * rz + cam.cx, my = cam.fy * p[1] * rz + cam.cy;
        c00 = dot(S[0], S[0]), c01 = dot(S[0], S[1]), c11 = dot(S[1], S[1]);
        // The determinant of S S^T as the squared cross product of its rows: nothing cancels.
        cross(S[0], S[1], normal);
        det0 = dot(normal, normal);
        det = det0 + DILATION * (c00 + c11) + DILATION * DILATION;
        compensation = antialiased ? sqrt(det0 / det) : fill(1.f);
        opacity = g.opacity * compensation;
    }
};

// Real spherical harmonics of degrees 0..degree at the unit direction n.
INLINE void harmonics(int degree, const V* n, V* Y) {
    V x = n[0], y = n[1], z = n[2];
    Y[0] = fill(0.2820947918f);
    if (degree >= 1) Y[1] = -0.4886025119f * y, Y[2] = 0.4886025119f * z, Y[3] = -0.4886025119f * x;
    if (degree >= 2) {
        Y[4] = 1.092548431f * x * y, Y[5] = -1.092548431f * y * z, Y[6] = 0.9461746958f * z * z - 0.3153915653f;
        Y[7] = -1.092548431f * x * z, Y[8] = 0.5462742153f * (x * x - y * y);
    }
    if (degree >= 3) {
        V xx = x * x, yy = y * y, zz = z * z;
        Y[9] = -0.5900435899f * y * (3.f * xx - yy), Y[10] = 2.890611443f * x * y * z;
        Y[11] = -0.4570457995f * y * (5.f * zz - 1.f), Y[12] = 0.3731763326f * z * (5.f * zz - 3.f);
        Y[13] = -0.4570457995f * x * (5.f * zz - 1.f), Y[14] = 1.445305721f * z * (xx - yy);
        Y[15] = -0.5900435899f * x * (xx - 3.f * yy);
    }
}

// Gradient to the direction, given the gradient v to the basis.
INLINE void harmonics_backward(int degree, const V* n, const V* v, V* vn) {
    V x = n[0], y = n[1], z = n[2];
    vn[0] = vn[1] = vn[2] = V{};
    if (degree >= 1) vn[0] -= 0.4886025119f * v[3], vn[1] -= 0.4886025119f * v[1], vn[2] += 0.4886025119f * v[2];
    if (degree >= 2) {
        vn[0] += 1.092548431f * (y * v[4] - z * v[7] + x * v[8]);
        vn[1] += 1.092548431f * (x * v[4] - z * v[5] - y * v[8]);
        vn[2] += 1.892349392f * z * v[6] - 1.092548431f * (y * v[5] + x * v[7]);
    }
    if (degree >= 3) {
        V xx = x * x, yy = y * y, zz = z * z, a = 0.4570457995f * (5.f * zz - 1.f);
        vn[0] += -3.540261539f * x * y * v[9] + 2.890611443f * (y * z * v[10] + x * z * v[14]) - a * v[13] - 1.77013077f * (xx - yy) * v[15];
        vn[1] += -1.77013077f * (xx - yy) * v[9] + 2.890611443f * (x * z * v[10] - y * z * v[14]) - a * v[11] + 3.540261539f * x * y * v[15];
        vn[2] += 2.890611443f * x * y * v[10] - 4.570457995f * z * (y * v[11] + x * v[13]) + 1.119528998f * (5.f * zz - 1.f) * v[12] + 1.445305721f * (xx - yy) * v[14];
    }
}

INLINE void direction(const Camera& cam, const Block& g, V* n, V& inv_length) {
    for (int i = 0; i < 3; i++) n[i] = g.mean[i] - cam.center[i];
    inv_length = 1.f / sqrt(max(dot(n, n), fill(1e-24f)));
    for (int i = 0; i < 3; i++) n[i] *= inv_length;
}

INLINE bool any(I mask) {
    int32_t bits = 0;
    for (int l = 0; l < TILE; l++) bits |= mask[l];
    return bits;
}

struct Model {
    const float *means, *quats, *scales, *opacities, *sh0, *shN;
    int64_t n;
    int rest;    // coefficients per channel in shN
    int degree;  // of the harmonics in use
    int bases() const { return (degree + 1) * (degree + 1); }
};

void load_colors(const Model& m, int64_t first, int count, V (*coefficients)[3]) {
    load_rows(m.sh0 + 3 * first, 3, 3, count, coefficients[0]);
    load_rows(m.shN + 3 * first * m.rest, 3 * m.rest, 3 * (m.bases() - 1), count, coefficients[1]);
}

INLINE V half_extent(V variance, V s) { return sqrt(max(variance * s, fill(0.f))); }

// First and last-but-one tile that the interval of pixel centres touches.
INLINE void tiles(V center, V extent, int size, I& first, I& end) {
    V low = clamp(center - extent + 0.5f, fill(0.f), fill(float(size)));   // ceil(center - extent - 0.5), rounded outwards
    V high = clamp(center + extent + 0.5f, fill(0.f), fill(float(size)));
    first = to_int(low) / TILE;
    end = (to_int(high) + TILE - 1) / TILE;
    end = to_int(high) > to_int(low) ? end : first;
}

int64_t project_forward(const Model& m, const Camera* cams, int n_cams, int width, int height, bool antialiased, float near, float far,
                        int threads, float* means2d, float* splats, int32_t* radii, Box* boxes) {
    const int K = m.bases();
    std::atomic<int64_t> total{0};
    each_block(m.n, threads, [&](int, int block) {
        int64_t bound = 0;
        int64_t first = int64_t(block) * TILE;
        int count = int(std::min<int64_t>(TILE, m.n - first));
        Block g;
        g.read(m.means + 3 * first, m.quats + 4 * first, m.scales + 3 * first, m.opacities + first, count);
        V coefficients[BASES + 1][3];
        bool loaded = false;
        for (int b = 0; b < n_cams; b++) {
            const Camera& cam = cams[b];
            View v(cam, g, near, far, antialiased);
            I visible = g.valid & v.in_range & finite(v.det) & finite(v.c00) & finite(v.c11) & finite(v.mx) & finite(v.my) & finite(v.opacity)
                        & (v.opacity >= fill(MIN_ALPHA));
            V inv_det = 1.f / v.det, c00 = v.c00 + DILATION, c11 = v.c11 + DILATION;
            V opacity = visible ? v.opacity : fill(MIN_ALPHA), log_opacity = log(opacity);
            V s = max(2.f * (log_opacity - std::log(MIN_ALPHA)), fill(0.f));  // squared Mahalanobis radius where alpha = 1/255
            V half_width = half_extent(c00, s), half_height = half_extent(c11, s);
            V reach = min(sqrt(s), fill(3.33f));
            V rx = min(reach * sqrt(c00), fill(1e9f)), ry = min(reach * sqrt(c11), fill(1e9f));
            I radius_x = to_int(rx), radius_y = to_int(ry);
            radius_x += to_float(radius_x) < rx ? fill_int(1) : I{};
            radius_y += to_float(radius_y) < ry ? fill_int(1) : I{};
            visible &= (v.mx + to_float(radius_x) > 0.f) & (v.mx - to_float(radius_x) < float(width)) & (v.my + to_float(radius_y) > 0.f)
                       & (v.my - to_float(radius_y) < float(height));
            V rgb[3] = {V{}, V{}, V{}};
            if (any(visible)) {
                if (!loaded) load_colors(m, first, count, coefficients), loaded = true;
                V n[3], inv_length, Y[BASES];
                direction(cam, g, n, inv_length);
                harmonics(m.degree, n, Y);
                for (int c = 0; c < 3; c++) {
                    for (int k = 0; k < K; k++) rgb[c] += Y[k] * coefficients[k][c];
                    visible &= finite(rgb[c]);
                    rgb[c] = max(rgb[c] + 0.5f, V{});
                }
            }
            I x0, x1, y0, y1;
            tiles(v.mx, half_width, width, x0, x1);
            tiles(v.my, half_height, height, y0, y1);
            V fields[FIELDS] = {v.mx, v.my, c11 * inv_det, -v.c01 * inv_det, c00 * inv_det, opacity, rgb[0], rgb[1], rgb[2], v.p[2],
                                log_opacity * LOG2E, v.c01 / c00, sqrt(v.det / c00 * s), 1.f / max(half_width, fill(1e-6f)),
                                v.c01 * sqrt(s / c11), V{}};
            for (int f = 0; f < FIELDS; f++) fields[f] = keep(visible, fields[f]);
            store_rows(splats + FIELDS * (b * m.n + first), FIELDS, count, fields);
            for (int l = 0; l < count; l++) {
                int64_t at = b * m.n + first + l;
                means2d[2 * at] = fields[X][l], means2d[2 * at + 1] = fields[Y][l];
                radii[2 * at] = visible[l] ? radius_x[l] : 0, radii[2 * at + 1] = visible[l] ? radius_y[l] : 0;
                boxes[at] = visible[l] ? Box{int16_t(x0[l]), int16_t(x1[l]), int16_t(y0[l]), int16_t(y1[l])} : Box{};
                bound += int64_t(boxes[at].x1 - boxes[at].x0) * (boxes[at].y1 - boxes[at].y0);
            }
        }
        total += bound;
    });
    return total;
}

struct ModelGradient {
    float *means, *quats, *scales, *opacities, *sh0, *shN;
};

constexpr int POSE = 15;  // gradient of a camera: 3 x 4 of the world-to-camera matrix, 3 of the centre

void project_backward(const Model& m, const Camera* cams, int n_cams, bool antialiased, int threads, const float* splats,
                      const int32_t* radii, const float* v_means2d, const float* v_splats, const ModelGradient& out, float* v_pose) {
    const int K = m.bases();
    int chunks = chunks_of(m.n);
    std::vector<double> partial(size_t(chunks) * n_cams * POSE, 0.0);
    each_block(m.n, threads, [&](int chunk, int block) {
        int64_t first = int64_t(block) * TILE;
        int count = int(std::min<int64_t>(TILE, m.n - first));
        Block g;
        g.read(m.means + 3 * first, m.quats + 4 * first, m.scales + 3 * first, m.opacities + first, count);
        V coefficients[BASES + 1][3], v_coefficients[BASES + 1][3] = {}, v_mean[3] = {}, v_scale[3] = {}, v_rotation[3][3] = {}, v_opacity = V{};
        bool loaded = false;
        for (int b = 0; b < n_cams; b++) {
            const Camera& cam = cams[b];
            int64_t at = b * m.n + first;
            alignas(64) int32_t seen[TILE] = {};
            for (int l = 0; l < count; l++) seen[l] = radii[2 * (at + l)] > 0 ? -1 : 0;
            I visible = *(I*)seen;
            if (!any(visible)) continue;
            if (!loaded) load_colors(m, first, count, coefficients), loaded = true;
            V values[FIELDS], gradients[FIELDS];
            load_rows(splats + FIELDS * at, FIELDS, FIELDS, count, values);
            load_rows(v_splats + FIELDS * at, FIELDS, FIELDS, count, gradients);
            auto gradient = [&](int f) { return keep(visible, gradients[f]); };
            auto value = [&](int f) { return values[f]; };
            View v(cam, g, -1e30f, 1e30f, antialiased);

            // conic = (c11, -c01, c00) / det of the dilated covariance. By way of the determinant: multiplying by the conic on
            // both sides would lose the long axis of needles to rounding.
            V inv_det = 1.f / v.det, va = gradient(CONIC_A), vb = gradient(CONIC_B), vc = gradient(CONIC_C), vo = gradient(OPACITY);
            V v_det = -(va * value(CONIC_A) + vb * value(CONIC_B) + vc * value(CONIC_C)) * inv_det, v_det0 = V{};
            if (antialiased) {  // opacity *= sqrt(det0 / det)
                V half = 0.5f * vo * g.opacity * inv_det;
                v_det0 = half / max(v.compensation, fill(1e-12f));
                v_det -= half * v.compensation;
                vo *= v.compensation;
            }
            v_det0 += v_det;
            V v00 = vc * inv_det + DILATION * v_det, v11 = va * inv_det + DILATION * v_det, v01 = -vb * inv_det;
            v_opacity += keep(visible, vo * g.opacity * (1.f - g.opacity));

            // covariance = S S^T, det0 = |S0 x S1|^2, S = U diag(scale), U = T rotation, T = J R
            V v_normal[3], by_cross[2][3], vU[2][3], vT[2][3], vp[3];
            for (int j = 0; j < 3; j++) v_normal[j] = 2.f * v_det0 * v.normal[j];
            cross(v.S[1], v_normal, by_cross[0]), cross(v_normal, v.S[0], by_cross[1]);
            for (int j = 0; j < 3; j++) {
                V vS0 = 2.f * v00 * v.S[0][j] + v01 * v.S[1][j] + by_cross[0][j], vS1 = v01 * v.S[0][j] + 2.f * v11 * v.S[1][j] + by_cross[1][j];
                v_scale[j] += keep(visible, vS0 * v.S[0][j] + vS1 * v.S[1][j]);
                vU[0][j] = vS0 * g.scale[j], vU[1][j] = vS1 * g.scale[j];
            }
            for (int i = 0; i < 2; i++)
                for (int j = 0; j < 3; j++) vT[i][j] = dot(vU[i], g.rotation[j]);
            for (int i = 0; i < 3; i++)
                for (int j = 0; j < 3; j++) v_rotation[i][j] += keep(visible, v.T[0][i] * vU[0][j] + v.T[1][i] * vU[1][j]);
            V vJ00 = V{}, vJ02 = V{}, vJ11 = V{}, vJ12 = V{};
            for (int j = 0; j < 3; j++)
                vJ00 += vT[0][j] * cam.R[0][j], vJ02 += vT[0][j] * cam.R[2][j], vJ11 += vT[1][j] * cam.R[1][j], vJ12 += vT[1][j] * cam.R[2][j];

            // the projection and its Jacobian
            V vmx = keep(visible, load(v_means2d + 2 * at, 2, count)), vmy = keep(visible, load(v_means2d + 2 * at + 1, 2, count));
            V vux = -v.J00 * vJ02, vuy = -v.J11 * vJ12;
            I free_x = v.ux == v.p[0] * v.rz, free_y = v.uy == v.p[1] * v.rz;
            vux = cam.fx * vmx + keep(free_x, vux), vuy = cam.fy * vmy + keep(free_y, vuy);
            V vrz = cam.fx * (vJ00 - v.ux * vJ02) + cam.fy * (vJ11 - v.uy * vJ12) + vux * v.p[0] + vuy * v.p[1];
            vp[0] = keep(visible, vux * v.rz), vp[1] = keep(visible, vuy * v.rz);
            vp[2] = keep(visible, gradient(DEPTH) - vrz * v.rz * v.rz);

            // the colour
            V n[3], inv_length, Y[BASES], vY[BASES], vn[3], rgb[3], v_dir[3];
            direction(cam, g, n, inv_length);
            harmonics(m.degree, n, Y);
            for (int ch = 0; ch < 3; ch++) rgb[ch] = keep(value(RED + ch) > 0.f, gradient(RED + ch));
            for (int k = 0; k < K; k++) {
                vY[k] = dot(rgb, coefficients[k]);
                for (int ch = 0; ch < 3; ch++) v_coefficients[k][ch] += keep(visible, Y[k] * rgb[ch]);
            }
            harmonics_backward(m.degree, n, vY, vn);
            V along = dot(n, vn);
            for (int i = 0; i < 3; i++) {
                v_dir[i] = keep(visible, (vn[i] - n[i] * along) * inv_length);
                v_mean[i] += v_dir[i] + cam.R[0][i] * vp[0] + cam.R[1][i] * vp[1] + cam.R[2][i] * vp[2];
            }

            // the pose
            if (v_pose) {
                double* pose = partial.data() + (size_t(chunk) * n_cams + b) * POSE;
                float add[POSE];
                for (int i = 0; i < 3; i++) {
                    V J0 = i == 0 ? v.J00 : i == 2 ? v.J02 : V{}, J1 = i == 1 ? v.J11 : i == 2 ? v.J12 : V{};
                    for (int j = 0; j < 3; j++) add[4 * i + j] = sum(keep(visible, J0 * vT[0][j] + J1 * vT[1][j] + vp[i] * g.mean[j]));
                    add[4 * i + 3] = sum(vp[i]);
                    add[12 + i] = -sum(v_dir[i]);
                }
                for (int i = 0; i < POSE; i++) pose[i] += add[i];
            }
        }
        // rotation matrix -> unit quaternion -> quaternion
        V w = g.quat[0], x = g.quat[1], y = g.quat[2], z = g.quat[3];
        auto& r = v_rotation;
        V vq[4] = {2.f * (x * (r[2][1] - r[1][2]) + y * (r[0][2] - r[2][0]) + z * (r[1][0] - r[0][1])),
                   2.f * (-2.f * x * (r[1][1] + r[2][2]) + y * (r[1][0] + r[0][1]) + z * (r[2][0] + r[0][2]) + w * (r[2][1] - r[1][2])),
                   2.f * (x * (r[1][0] + r[0][1]) - 2.f * y * (r[0][0] + r[2][2]) + z * (r[2][1] + r[1][2]) + w * (r[0][2] - r[2][0])),
                   2.f * (x * (r[2][0] + r[0][2]) + y * (r[2][1] + r[1][2]) - 2.f * z * (r[0][0] + r[1][1]) + w * (r[1][0] - r[0][1]))};
        V along = w * vq[0] + x * vq[1] + y * vq[2] + z * vq[3];
        for (int i = 0; i < 4; i++) store(out.quats + 4 * first + i, 4, count, keep(g.valid, (vq[i] - g.quat[i] * along) * g.inv_norm));
        for (int i = 0; i < 3; i++) {
            store(out.means + 3 * first + i, 3, count, v_mean[i]);
            store(out.scales + 3 * first + i, 3, count, v_scale[i]);
        }
        store_rows(out.sh0 + 3 * first, 3, count, v_coefficients[0]);
        store_rows(out.shN + 3 * first * m.rest, 3 * m.rest, count, v_coefficients[1]);
        store(out.opacities + first, 1, count, v_opacity);
    });
    if (v_pose)
        for (int i = 0; i < n_cams * POSE; i++) {
            double total = 0;
            for (int chunk = 0; chunk < chunks; chunk++) total += partial[size_t(chunk) * n_cams * POSE + i];
            v_pose[i] = float(total);
        }
}

std::vector<Camera> read_cameras(const float* w2c, const float* centers, const float* K, int n, int width, int height) {
    std::vector<Camera> cams;
    for (int i = 0; i < n; i++) cams.emplace_back(w2c + 16 * i, centers + 3 * i, K + 9 * i, width, height);
    return cams;
}

// ---------------------------------------------------------------------------------------------- tile lists

// Rows of pixel centres that the ellipse of a Gaussian touches between two columns, relative to its centre.
INLINE void rows_between(float left, float right, const float* s, float& low, float& high) {
    float top = std::min(std::max(s[TOP_X], left), right), bottom = std::min(std::max(-s[TOP_X], left), right);
    float t = top * s[INV_HALF_WIDTH], u = bottom * s[INV_HALF_WIDTH];
    high = s[SLOPE] * top + s[HALF_HEIGHT] * std::sqrt(std::max(0.f, 1.f - t * t));
    low = s[SLOPE] * bottom - s[HALF_HEIGHT] * std::sqrt(std::max(0.f, 1.f - u * u));
    float margin = 0.05f + 2e-6f * (std::fabs(s[HALF_HEIGHT]) + std::fabs(s[SLOPE] * top));
    low -= margin, high += margin;
}

// Calls visit(tile) for each tile that the Gaussian touches, in a fixed order.
template <class F> INLINE void each_tile(const Box& box, const float* s, int tiles_x, F visit) {
    if (box.x1 - box.x0 < 2 || box.y1 - box.y0 < 2) {
        for (int x = box.x0; x < box.x1; x++)
            for (int y = box.y0; y < box.y1; y++) visit(y * tiles_x + x);
        return;
    }
    for (int x = box.x0; x < box.x1; x++) {
        float low, high, left = x * TILE + 0.5f - s[X];
        rows_between(left, left + (TILE - 1), s, low, high);
        int y0 = std::max<int>(box.y0, int(std::floor((s[Y] + low + 0.5f) / TILE)));  // outwards, as the rows are cut exactly later
        int y1 = std::min<int>(box.y1, int(std::floor((s[Y] + high - 0.5f) / TILE)) + 1);
        for (int y = y0; y < y1; y++) visit(y * tiles_x + x);
    }
}

// Stable sort of the visible Gaussians of one camera by depth, to order[0..]; returns their number. The others go before
// hidden, which is moved. All are counted from base.
int sort_by_depth(const Box* boxes, const float* splats, int n, uint32_t base, uint32_t* order, uint32_t*& hidden) {
    constexpr int BITS = 11, SIZE = 1 << BITS;
    std::vector<uint32_t> keys, other_keys, other;
    keys.reserve(n);
    std::vector<uint32_t> histogram(3 * SIZE, 0);
    int count = 0;
    for (int i = 0; i < n; i++) {
        if (boxes[i].x1 <= boxes[i].x0 || boxes[i].y1 <= boxes[i].y0) {
            *--hidden = base + i;
            continue;
        }
        uint32_t key;
        std::memcpy(&key, splats + int64_t(FIELDS) * i + DEPTH, 4);  // a positive float's bits sort as the float does
        for (int pass = 0; pass < 3; pass++) histogram[pass * SIZE + ((key >> (BITS * pass)) & (SIZE - 1))]++;
        keys.push_back(key);
        order[count++] = base + i;
    }
    other_keys.resize(count), other.resize(count);
    uint32_t *k = keys.data(), *o = order, *k2 = other_keys.data(), *o2 = other.data();
    for (int pass = 0; pass < 3; pass++) {
        uint32_t* h = histogram.data() + pass * SIZE;
        for (uint32_t i = 0, total = 0; i < SIZE; i++) {
            uint32_t size = h[i];
            h[i] = total, total += size;
        }
        for (int i = 0; i < count; i++) {
            uint32_t to = h[(k[i] >> (BITS * pass)) & (SIZE - 1)]++;
            k2[to] = k[i], o2[to] = o[i];
        }
        std::swap(k, k2), std::swap(o, o2);
    }
    if (o != order) std::copy(o, o + count, order);
    return count;
}

// ---------------------------------------------------------------------------------------------- rasterisation

// Up to 16 Gaussians of a tile's list, with the rows of the tile that each touches.
struct Batch {
    const float* s[TILE];
    alignas(64) float A[TILE], B[TILE], C[TILE], x[TILE], y[TILE];  // log2 alpha = A dx^2 + B dx dy + C dy^2 + log2 opacity
    alignas(64) int32_t row0[TILE], row1[TILE];
    int count;

    static inline void read(Batch& t, const float* splats, const int32_t* ids, int left_over, float left, float top, int row0, int row1) {
        int count = std::min(TILE, left_over);
        V fields[FIELDS];
        t.count = count;
        for (int j = 0; j < TILE; j++) {
            t.s[j] = splats + int64_t(FIELDS) * ids[std::min(j, count - 1)];
            fields[j] = *(const V*)t.s[j];
        }
        for (int j = TILE; j < std::min(2 * TILE, left_over); j++) __builtin_prefetch(splats + int64_t(FIELDS) * ids[j]);
        transpose(fields);
        V x = fields[X] - left, y = fields[Y] - top, k = fields[SLOPE], h = fields[HALF_HEIGHT], iw = fields[INV_HALF_WIDTH];
        V tx = fields[TOP_X];
        *(V*)t.x = x, *(V*)t.y = y;
        *(V*)t.A = fields[CONIC_A] * (-0.5f * LOG2E), *(V*)t.B = fields[CONIC_B] * -LOG2E, *(V*)t.C = fields[CONIC_C] * (-0.5f * LOG2E);
        V first = 0.5f - x, last = first + float(TILE - 1);
        V high_x = clamp(tx, first, last), low_x = clamp(-tx, first, last);
        V margin = 0.05f + 2e-6f * (h + max(k * high_x, -k * high_x));
        V high = k * high_x + h * sqrt(max(1.f - high_x * high_x * iw * iw, V{})) + y + margin;
        V low = k * low_x - h * sqrt(max(1.f - low_x * low_x * iw * iw, V{})) + y - margin;
        // rows r with low <= r + 0.5 <= high
        I begin = TILE - to_int(float(TILE) - clamp(low - 0.5f, V{}, fill(float(TILE))));
        I end = to_int(clamp(high + 0.5f, V{}, fill(float(TILE))));
        *(I*)t.row0 = begin > row0 ? begin : fill_int(row0);
        *(I*)t.row1 = end < row1 ? end : fill_int(row1);
    }
};

const V COLUMN = {0.5f, 1.5f, 2.5f, 3.5f, 4.5f, 5.5f, 6.5f, 7.5f, 8.5f, 9.5f, 10.5f, 11.5f, 12.5f, 13.5f, 14.5f, 15.5f};

struct Image {
    int width, height, tiles_x, tiles_y;
    Image(int w, int h) : width(w), height(h), tiles_x((w + TILE - 1) / TILE), tiles_y((h + TILE - 1) / TILE) {}
    int tiles() const { return tiles_x * tiles_y; }
};

struct Tile {
    int camera, x, y, rows, columns;
    int64_t pixel;  // its first
    Tile(const Image& im, int index) {
        camera = index / im.tiles();
        int in_image = index % im.tiles();
        x = in_image % im.tiles_x * TILE, y = in_image / im.tiles_x * TILE;
        rows = std::min(TILE, im.height - y), columns = std::min(TILE, im.width - x);
        pixel = (int64_t(camera) * im.height + y) * im.width + x;
    }
    // Transmittance before the first Gaussian: 1 within the image, finished outside.
    V start() const { return to_float(I{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}) < float(columns) ? fill(1.f) : fill(-1.f); }
};

// Narrows the rows to those with an unfinished pixel.
INLINE void narrow(const V* T, int& row0, int& row1) {
    while (row0 < row1 && !any(T[row0] > 0.f)) row0++;
    while (row0 < row1 && !any(T[row1 - 1] > 0.f)) row1--;
}

INLINE V blended_alpha(V exponent) {
    V alpha = exp2_negative(exponent);
    return exponent >= LOG2_MIN_ALPHA ? alpha : V{};
}

void tile_forward(const Image& im, const Tile& t, const float* splats, const int32_t* ids, int count, const float* background, float* rgb,
                  float* alpha, float* depth) {
    V T[TILE], red[TILE] = {}, green[TILE] = {}, blue[TILE] = {}, z[TILE] = {};
    for (int r = 0; r < TILE; r++) T[r] = t.start();
    int row0 = 0, row1 = t.rows;
    Batch batch;
    for (int i = 0; i < count && row0 < row1; i += TILE) {
        Batch::read(batch, splats, ids + i, count - i, t.x, t.y, row0, row1);
        for (int j = 0; j < batch.count; j++) {
            const float* s = batch.s[j];
            V dx = COLUMN - batch.x[j], q = dx * dx * batch.A[j] + s[LOG2_OPACITY], bdx = dx * batch.B[j];
            V r0 = fill(s[RED]), g0 = fill(s[GREEN]), b0 = fill(s[BLUE]), z0 = fill(s[DEPTH]);
            float dy = batch.row0[j] + 0.5f - batch.y[j];
            for (int r = batch.row0[j]; r < batch.row1[j]; r++, dy += 1.f) {
                V a = min(blended_alpha(q + dy * (bdx + dy * batch.C[j])), fill(MAX_ALPHA));
                V w = a * T[r], next = T[r] - w;
                I live = next > MIN_TRANSMITTANCE;
                w = keep(live, w);
                T[r] = live ? next : (V)((I)T[r] | fill_int(INT32_MIN));
                red[r] += w * r0, green[r] += w * g0, blue[r] += w * b0, z[r] += w * z0;
            }
        }
        narrow(T, row0, row1);
    }
    for (int r = 0; r < t.rows; r++) {
        V left = max(T[r], -T[r]), a = 1.f - left;
        V c[3] = {red[r] + left * background[0], green[r] + left * background[1], blue[r] + left * background[2]};
        V d = z[r] / max(a, fill(1e-10f));
        int64_t at = t.pixel + int64_t(r) * im.width;
        for (int l = 0; l < t.columns; l++) {
            for (int ch = 0; ch < 3; ch++) rgb[3 * (at + l) + ch] = c[ch][l];
            alpha[at + l] = a[l], depth[at + l] = d[l];
        }
    }
}

// Sums each of 16 vectors over its lanes; the sum of v[4 * j + q] lands in lane 4 * q + j.
INLINE V sums(const V* v) {
    V a[8], b[4], c[2];
    for (int i = 0; i < 8; i++)
        a[i] = SHUFFLE(v[2 * i], v[2 * i + 1], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)
               + SHUFFLE(v[2 * i], v[2 * i + 1], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    for (int i = 0; i < 4; i++)
        b[i] = SHUFFLE(a[2 * i], a[2 * i + 1], 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27)
               + SHUFFLE(a[2 * i], a[2 * i + 1], 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    for (int i = 0; i < 2; i++)
        c[i] = SHUFFLE(b[2 * i], b[2 * i + 1], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
               + SHUFFLE(b[2 * i], b[2 * i + 1], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    return SHUFFLE(c[0], c[1], 0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30)
           + SHUFFLE(c[0], c[1], 1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31);
}

// What a slot holds: moments of h = alpha dL/dalpha about the Gaussian's centre, colour gradients, and absolute mean gradients.
enum Slot { H, HX, HXX, HY, HXY, HYY, V_RED, V_GREEN, V_BLUE, V_DEPTH, ABS_X, ABS_Y, SLOT_FIELDS };
constexpr int lane_of(int v) { return 4 * (v % 4) + v / 4; }

struct PixelGradient {
    const float *rgb, *alpha, *depth, *v_rgb, *v_alpha, *v_depth;  // v_alpha and v_depth may be null
};

// ALL: also what only some callers ask for, the gradients by depth and the absolute ones.
template <bool ALL>
void tile_backward(const Image& im, const Tile& t, const float* splats, const int32_t* ids, const int32_t* slots, int count,
                   const PixelGradient& px, float* slot_values) {
    // R: what the pixel still gets from here on, times its gradient.
    V T[TILE], R[TILE], red[TILE], green[TILE], blue[TILE], z[TILE];
    for (int r = 0; r < t.rows; r++) {
        T[r] = t.start();
        V v[3] = {}, c[3] = {}, va = {}, a = {}, vd = {}, d = {};
        int64_t at = t.pixel + int64_t(r) * im.width;
        for (int l = 0; l < t.columns; l++) {
            for (int ch = 0; ch < 3; ch++) v[ch][l] = px.v_rgb[3 * (at + l) + ch], c[ch][l] = px.rgb[3 * (at + l) + ch];
            a[l] = px.alpha[at + l];
            if (px.v_alpha) va[l] = px.v_alpha[at + l];
            if (px.v_depth) vd[l] = px.v_depth[at + l], d[l] = px.depth[at + l];
        }
        red[r] = v[0], green[r] = v[1], blue[r] = v[2];
        R[r] = dot(v, c) - (1.f - a) * va;
        if (ALL) {  // depth = (sum of w z) / a
            z[r] = vd / max(a, fill(1e-10f));
            va = -z[r] * d;
            R[r] += z[r] * d * a - (1.f - a) * va;
        }
    }
    int row0 = 0, row1 = t.rows, i = 0;
    Batch batch;
    for (; i < count && row0 < row1; i += TILE) {
        Batch::read(batch, splats, ids + i, count - i, t.x, t.y, row0, row1);
        for (int j = 0; j < batch.count; j++) {
            const float* s = batch.s[j];
            V dx = COLUMN - batch.x[j], q = dx * dx * batch.A[j] + s[LOG2_OPACITY], bdx = dx * batch.B[j];
            V r0 = fill(s[RED]), g0 = fill(s[GREEN]), b0 = fill(s[BLUE]), z0 = fill(s[DEPTH]);
            V h0 = {}, h1 = {}, h2 = {}, v_red = {}, v_green = {}, v_blue = {}, v_z = {}, abs_x = {}, abs_y = {};
            V grad_x, grad_y;
            if (ALL) grad_x = dx * s[CONIC_A], grad_y = dx * s[CONIC_B];
            float dy = batch.row0[j] + 0.5f - batch.y[j];
            for (int r = batch.row0[j]; r < batch.row1[j]; r++, dy += 1.f) {
                V raw = blended_alpha(q + dy * (bdx + dy * batch.C[j])), a = min(raw, fill(MAX_ALPHA));
                V before = T[r], w = a * before, next = before - w;
                I live = next > MIN_TRANSMITTANCE;
                w = keep(live, w);
                T[r] = live ? next : (V)((I)before | fill_int(INT32_MIN));
                V color = r0 * red[r] + g0 * green[r] + b0 * blue[r];
                if (ALL) color += z0 * z[r];
                V rest = R[r] - w * color;
                R[r] = rest;
                V h = a * (before * color - rest / (1.f - a));
                h = keep(live, h);
                h = raw <= MAX_ALPHA ? h : V{};
                h0 += h, h1 += h * dy, h2 += h * (dy * dy);
                v_red += w * red[r], v_green += w * green[r], v_blue += w * blue[r];
                if (ALL) v_z += w * z[r];
                if (ALL) {
                    V gx = h * (grad_x + s[CONIC_B] * dy), gy = h * (grad_y + s[CONIC_C] * dy);
                    abs_x += max(gx, -gx), abs_y += max(gy, -gy);
                }
            }
            V parts[TILE] = {h0, h0 * dx, h0 * dx * dx, h1, h1 * dx, h2, v_red, v_green, v_blue, v_z, abs_x, abs_y};
            *(V*)(slot_values + int64_t(TILE) * slots[i + j]) = sums(parts);
        }
        narrow(T, row0, row1);
    }
    for (; i < count; i++) *(V*)(slot_values + int64_t(TILE) * slots[i]) = V{};
}

// Adds up the slots of one Gaussian and turns the moments into gradients of its fields.
INLINE void gather(const float* s, const V* slots, int count, float* v_mean, float* v_abs, float* v) {
    V total = {};
    for (int i = 0; i < count; i++) total += slots[i];
    *(V*)v = V{}, v_mean[0] = v_mean[1] = 0;
    if (v_abs) v_abs[0] = v_abs[1] = 0;
    if (count == 0) return;  // an invisible one, say, whose fields are all zero
    auto at = [&](int field) { return total[lane_of(field)]; };
    float a = s[CONIC_A], b = s[CONIC_B], c = s[CONIC_C];
    v_mean[0] = a * at(HX) + b * at(HY), v_mean[1] = b * at(HX) + c * at(HY);
    if (v_abs) v_abs[0] = at(ABS_X), v_abs[1] = at(ABS_Y);
    v[CONIC_A] = -0.5f * at(HXX), v[CONIC_B] = -at(HXY), v[CONIC_C] = -0.5f * at(HYY);
    v[OPACITY] = at(H) / s[OPACITY];
    v[RED] = at(V_RED), v[GREEN] = at(V_GREEN), v[BLUE] = at(V_BLUE), v[DEPTH] = at(V_DEPTH);
}

}  // namespace

// ---------------------------------------------------------------------------------------------- C interface

extern "C" {

int64_t difix3d_project(const float* means, const float* quats, const float* scales, const float* opacities, const float* sh0,
                        const float* shN, int64_t n, int64_t rest, const float* w2c, const float* centers, const float* K, int64_t n_cams,
                        int64_t width, int64_t height, int64_t degree, int64_t antialiased, float near, float far, int64_t threads, float* means2d,
                        float* splats, int32_t* radii, int16_t* boxes) {
    Model m{means, quats, scales, opacities, sh0, shN, n, int(rest), int(degree)};
    auto cams = read_cameras(w2c, centers, K, n_cams, width, height);
    return project_forward(m, cams.data(), n_cams, width, height, antialiased, near, far, threads, means2d, splats, radii, (Box*)boxes);
}

void difix3d_project_backward(const float* means, const float* quats, const float* scales, const float* opacities, const float* sh0,
                              const float* shN, int64_t n, int64_t rest, const float* w2c, const float* centers, const float* K, int64_t n_cams,
                              int64_t width, int64_t height, int64_t degree, int64_t antialiased, int64_t threads, const float* splats, const int32_t* radii,
                              const float* v_means2d, const float* v_splats, float* v_means, float* v_quats, float* v_scales,
                              float* v_opacities, float* v_sh0, float* v_shN, float* v_pose) {
    Model m{means, quats, scales, opacities, sh0, shN, n, int(rest), int(degree)};
    ModelGradient out{v_means, v_quats, v_scales, v_opacities, v_sh0, v_shN};
    auto cams = read_cameras(w2c, centers, K, n_cams, width, height);
    project_backward(m, cams.data(), n_cams, antialiased, threads, splats, radii, v_means2d, v_splats, out, v_pose);
}

// Lists the Gaussians of each tile, front to back. order [B*n]: visible Gaussians by depth, then the others; starts [B*n+1]: first slot of each;
// offsets [B*tiles+1]: first entry of each tile's list; ids, slots: the lists. Returns the number of visible Gaussians.
int64_t difix3d_tile_lists(const float* splats, const int16_t* boxes_, int64_t n_cams, int64_t n, int64_t width, int64_t height, int64_t threads,
                           int32_t* order, int32_t* starts, int32_t* offsets, int32_t* ids, int32_t* slots) {
    const Box* boxes = (const Box*)boxes_;
    Image im{int(width), int(height)};
    int64_t visible = 0;
    uint32_t* hidden = (uint32_t*)order + n_cams * n;
    for (int64_t b = 0; b < n_cams; b++) {
        visible += sort_by_depth(boxes + b * n, splats + FIELDS * b * n, int(n), uint32_t(b * n), (uint32_t*)order + visible, hidden);
    }
    // For each of several runs of the sorted Gaussians, their tiles are noted. The first place of a run in each tile's list
    // follows from what all have noted.
    int64_t all_tiles = n_cams * im.tiles(), runs = std::min(std::max<int64_t>(visible / SMALLEST_RUN, 1), 4 * threads);
    std::vector<int32_t> table(runs * all_tiles, 0);
    std::vector<std::vector<int32_t>> noted(runs);
    auto first_of = [&](int64_t run) { return visible * run / runs; };
    parallel_for(runs, threads, [&](int64_t run) {
        int32_t* counts = table.data() + run * all_tiles;
        auto& tiles = noted[run];
        tiles.reserve(8 * (first_of(run + 1) - first_of(run)));
        int64_t camera = 0;
        for (int64_t p = first_of(run); p < first_of(run + 1); p++) {
            int64_t id = order[p], ahead = order[std::min(p + 12, visible - 1)];
            __builtin_prefetch(splats + FIELDS * ahead), __builtin_prefetch(boxes + ahead);
            while (id >= (camera + 1) * n) camera++;
            starts[p] = int32_t(tiles.size());
            each_tile(boxes[id], splats + FIELDS * id, im.tiles_x, [&](int tile) {
                tile += int(camera) * im.tiles();
                counts[tile]++, tiles.push_back(tile);
            });
        }
    });
    int32_t total = 0;
    for (int64_t tile = 0; tile < all_tiles; tile++) {
        offsets[tile] = total;
        for (int64_t run = 0; run < runs; run++) {
            int32_t& count = table[run * all_tiles + tile];
            int32_t size = count;
            count = total, total += size;
        }
    }
    offsets[all_tiles] = starts[visible] = total;
    parallel_for(runs, threads, [&](int64_t run) {
        int32_t *places = table.data() + run * all_tiles, first_slot = 0;
        for (int64_t before = 0; before < run; before++) first_slot += int32_t(noted[before].size());
        int64_t end = first_of(run + 1);
        for (int64_t p = first_of(run); p < end; p++) {
            int32_t last = p + 1 < end ? starts[p + 1] : int32_t(noted[run].size());
            for (int32_t i = starts[p]; i < last; i++) {
                int32_t place = places[noted[run][i]]++;
                ids[place] = order[p], slots[place] = first_slot + i;
            }
            starts[p] += first_slot;
        }
    });
    return visible;
}

void difix3d_rasterize(const float* splats, int64_t n_cams, int64_t width, int64_t height, const float* background, const int32_t* offsets,
                       const int32_t* ids, int64_t threads, float* rgb, float* alpha, float* depth) {
    Image im{int(width), int(height)};
    parallel_for(n_cams * im.tiles(), threads, [&](int64_t i) {
        tile_forward(im, Tile(im, int(i)), splats, ids + offsets[i], offsets[i + 1] - offsets[i], background, rgb, alpha, depth);
    });
}

// v_abs may be null.
void difix3d_rasterize_backward(const float* splats, int64_t n_cams, int64_t n, int64_t width, int64_t height, const int32_t* offsets, const int32_t* ids,
                                const int32_t* slots, const int32_t* order, const int32_t* starts, int64_t visible, int64_t threads,
                                const float* rgb, const float* alpha, const float* depth, const float* v_rgb, const float* v_alpha,
                                const float* v_depth, float* slot_values, float* v_means2d, float* v_abs, float* v_splats) {
    Image im{int(width), int(height)};
    PixelGradient px{rgb, alpha, depth, v_rgb, v_alpha, v_depth};
    auto run = v_depth || v_abs ? tile_backward<true> : tile_backward<false>;
    parallel_for(n_cams * im.tiles(), threads, [&](int64_t i) {
        run(im, Tile(im, int(i)), splats, ids + offsets[i], slots + offsets[i], offsets[i + 1] - offsets[i], px, slot_values);
    });
    int64_t all = n_cams * n;
    parallel_for((all + BATCH - 1) / BATCH, threads, [&](int64_t batch) {
        for (int64_t p = batch * BATCH; p < std::min(all, (batch + 1) * BATCH); p++) {
            int64_t id = order[p];
            const V* own = (const V*)slot_values + (p < visible ? starts[p] : 0);
            gather(splats + FIELDS * id, own, p < visible ? starts[p + 1] - starts[p] : 0, v_means2d + 2 * id,
                   v_abs ? v_abs + 2 * id : nullptr, v_splats + FIELDS * id);
        }
    });
}

}  // extern "C"
