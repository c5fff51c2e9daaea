// Gaussian splatting on a CPU: what projection.cpp, tile_lists.cpp and rasterize.cpp share.
//
// Plain C functions over contiguous float32 arrays. The readable twin of everything here is difix3d/render/torch_twin.py;
// it says what is computed, these files how to do it fast:
//   * Everything is 16 lanes wide: 16 Gaussians at a time in the projection, one row of a 16 x 16 tile in the rasteriser.
//     GCC and clang lower the 64-byte vectors to whatever the machine has (AVX-512, AVX2, NEON).
//   * Inner loops have no branches; a pixel that is finished has the sign bit of its transmittance set.
//   * No atomics: each intersection of a Gaussian and a tile owns a slot for its gradient, and the slots of a Gaussian are
//     summed in a fixed order. Results do not depend on the number of threads.
//   * -ffast-math assumes that there is no NaN, so that non-finite values are recognised by their bits.

#pragma once

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
constexpr float MIN_ALPHA = 1.f / 255.f;
constexpr float LOG2E = 1.44269504f;

typedef float V __attribute__((vector_size(64), may_alias));
typedef int32_t I __attribute__((vector_size(64), may_alias));
typedef float VU __attribute__((vector_size(64), may_alias, aligned(4)));  // at any address

// A packed Gaussian. The last five fields describe the ellipse where alpha >= 1/255: its half width, and for a column x
// (from the centre) the rows slope * x +- half_height * sqrt(1 - (x / half_width)^2); top_x is the column of its highest row.
enum Field { X, Y, CONIC_A, CONIC_B, CONIC_C, OPACITY, RED, GREEN, BLUE, DEPTH, LOG2_OPACITY, SLOPE, HALF_HEIGHT, INV_HALF_WIDTH, TOP_X };

struct Box { int16_t x0, x1, y0, y1; };  // tiles, end excluded

struct Image {
    int width, height, tiles_x, tiles_y;
    Image(int w, int h) : width(w), height(h), tiles_x((w + TILE - 1) / TILE), tiles_y((h + TILE - 1) / TILE) {}
    int tiles() const { return tiles_x * tiles_y; }
};

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

INLINE V dot(const V* a, const V* b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

INLINE bool any(I mask) {
    int32_t bits = 0;
    for (int l = 0; l < TILE; l++) bits |= mask[l];
    return bits;
}

}  // namespace
