// Rasterisation of the tiles' lists, forward and backward.

#include "splat.h"

namespace {

constexpr float MAX_ALPHA = 0.999f;
constexpr float MIN_TRANSMITTANCE = 1e-4f;
constexpr float LOG2_MIN_ALPHA = -7.99435344f;
constexpr int BATCH = 256;  // Gaussians whose slots a thread adds up at once

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

extern "C" {

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
