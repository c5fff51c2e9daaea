// What a fixer changed in a key frame, carried to a frame near it by rendered depth. What is computed is said by the readable
// twin of this file, carry_twin in difix3d/geometry/carry.py.

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "threads.h"

// Adds to each pixel of sums [height,width,4] the change [key_height,key_width,3] of one key frame times its weight, and the
// weight. turn [3,3] and shift [3] take a pixel (x, y, 1) times its depth to the key frame's pixel times its depth.
extern "C" void difix3d_carry(
    const float* depth, int64_t height, int64_t width, const float* turn, const float* shift, const float* key_depth,
    const float* change, int64_t key_height, int64_t key_width, float weight, float guessed, float margin, float tolerance, float far,
    int64_t threads, float* sums) {
    const float right = float(key_width - 1), bottom = float(key_height - 1);
    parallel_for(height, threads, [&](int64_t row) {
        const float y = row + 0.5f;
        for (int64_t column = 0; column < width; ++column) {
            const int64_t pixel = row * width + column;
            const float x = column + 0.5f, d = depth[pixel] > 0 ? depth[pixel] : far;
            const float z = (turn[6] * x + turn[7] * y + turn[8]) * d + shift[2];
            if (!(z > 0)) continue;
            const float u = ((turn[0] * x + turn[1] * y + turn[2]) * d + shift[0]) / z;
            const float v = ((turn[3] * x + turn[4] * y + turn[5]) * d + shift[1]) / z;
            const bool inside = (u >= 0) & (v >= 0) & (u < key_width) & (v < key_height);
            const float there = inside ? key_depth[int64_t(v) * key_width + int64_t(u)] : -1;
            const bool same = inside & (depth[pixel] > 0 ? std::fabs(there - z) <= tolerance * z : there == 0);
            const float share = weight * (same ? 1 : inside ? guessed : guessed * guessed);
            const float beyond = std::max(std::max(-u, u - key_width) / key_width, std::max(-v, v - key_height) / key_height);
            const float fading = std::min(1.f, std::max(0.f, 1 - beyond / margin));
            // the four pixels around it; beyond the edge the last one goes on
            const float left = std::min(right, std::max(0.f, u - 0.5f)), top = std::min(bottom, std::max(0.f, v - 0.5f));
            const int64_t x0 = int64_t(left), y0 = int64_t(top);
            const int64_t x1 = std::min(x0 + 1, key_width - 1), y1 = std::min(y0 + 1, key_height - 1);
            const float a = left - x0, b = top - y0;
            const float* upper = change + 3 * y0 * key_width;
            const float* lower = change + 3 * y1 * key_width;
            for (int c = 0; c < 3; ++c) {
                const float above = (1 - a) * upper[3 * x0 + c] + a * upper[3 * x1 + c];
                const float below = (1 - a) * lower[3 * x0 + c] + a * lower[3 * x1 + c];
                sums[4 * pixel + c] += share * fading * ((1 - b) * above + b * below);
            }
            sums[4 * pixel + 3] += share;
        }
    });
}
