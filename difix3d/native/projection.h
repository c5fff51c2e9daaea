// 16 Gaussians in front of a camera: their projection and colours, and what these need of the model.

#pragma once

#include "splat.h"

namespace {

constexpr int BASES = 16;         // spherical harmonics of degrees 0..3
constexpr float DILATION = 0.3f;  // added to the projected covariance, in square pixels
constexpr int CHUNK = 16;         // blocks that a thread takes at once, and whose pose gradients are summed together

int blocks(int64_t n) { return int((n + TILE - 1) / TILE); }
int chunks_of(int64_t n) { return (blocks(n) + CHUNK - 1) / CHUNK; }

// Calls f(chunk, block) for all blocks of n Gaussians.
template <class F> void each_block(int64_t n, int threads, F f) {
    parallel_for(chunks_of(n), threads, [&](int64_t chunk) {
        int last = std::min(int(chunk + 1) * CHUNK, blocks(n));
        for (int block = int(chunk) * CHUNK; block < last; block++) f(int(chunk), block);
    });
}

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

std::vector<Camera> read_cameras(const float* w2c, const float* centers, const float* K, int n, int width, int height) {
    std::vector<Camera> cams;
    for (int i = 0; i < n; i++) cams.emplace_back(w2c + 16 * i, centers + 3 * i, K + 9 * i, width, height);
    return cams;
}

}  // namespace
