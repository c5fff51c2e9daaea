// How well the neighbourhood of each pixel matches another photo, plane by plane. What is computed is said by the readable twin
// of this file, match_twin in difix3d/stereo/match.py.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "threads.h"

namespace {

// Three channels of another photo as they lie on a plane, and what their windows are summed over: the channels, the sum of their
// squares and that of their products with the photo.
constexpr int channels = 3, quantities = channels + 2;

}  // namespace

// Writes scores [planes,height,width] of a photo [height,width,3] whose windows have means [height,width,3] and variances
// [height,width]; other is [other_height,other_width,3]. turn [3,3] and shift [3] take a pixel (x, y, 1) and its inverse depth to
// the other photo's pixel, by turn p + shift / depth. noise is added to the variances.
extern "C" void difix3d_match(
    const float* photo, const float* means, const float* variances, int64_t height, int64_t width, const float* other,
    int64_t other_height, int64_t other_width, const float* turn, const float* shift, const float* inverse, int64_t planes,
    int64_t radius, float noise, int64_t threads, float* scores) {
    const float right = float(other_width - 1), bottom = float(other_height - 1);
    const int64_t stride = width + 2 * radius;  // of a row of sums, with zeros beyond its ends
    parallel_for(planes, threads, [&](int64_t plane) {
        std::vector<float> values(height * width * quantities), columns(quantities * stride), sums(quantities * width);
        float* score = scores + plane * height * width;
        for (int64_t row = 0; row < height; ++row) {
            const float y = row + 0.5f, k = inverse[plane];
            float* to[quantities];
            for (int q = 0; q < quantities; ++q) to[q] = values.data() + (row * quantities + q) * width;
            for (int64_t column = 0; column < width; ++column) {
                const float x = column + 0.5f;
                const float z = turn[6] * x + turn[7] * y + turn[8] + shift[2] * k;
                const float u = (turn[0] * x + turn[1] * y + turn[2] + shift[0] * k) / z;
                const float v = (turn[3] * x + turn[4] * y + turn[5] + shift[1] * k) / z;
                const bool inside = (z > 0) & (u >= 0) & (v >= 0) & (u < other_width) & (v < other_height);
                score[row * width + column] = inside ? 0.f : -1.f;
                // beyond the edge the last one goes on, in the windows of pixels that are inside
                const float left = z > 0 ? std::min(right, std::max(0.f, u - 0.5f)) : 0.f;
                const float top = z > 0 ? std::min(bottom, std::max(0.f, v - 0.5f)) : 0.f;
                const int64_t x0 = int64_t(left), y0 = int64_t(top);
                const int64_t x1 = std::min(x0 + 1, other_width - 1), y1 = std::min(y0 + 1, other_height - 1);
                const float a = left - x0, b = top - y0;
                const float* pixel = photo + channels * (row * width + column);
                float squares = 0, products = 0;
                for (int c = 0; c < channels; ++c) {
                    const float above = (1 - a) * other[channels * (y0 * other_width + x0) + c] + a * other[channels * (y0 * other_width + x1) + c];
                    const float below = (1 - a) * other[channels * (y1 * other_width + x0) + c] + a * other[channels * (y1 * other_width + x1) + c];
                    const float value = (1 - b) * above + b * below;
                    to[c][column] = value;
                    squares += value * value;
                    products += value * pixel[c];
                }
                to[channels][column] = squares;
                to[channels + 1][column] = products;
            }
        }
        for (int64_t row = 0; row < height; ++row) {
            const int64_t first = std::max<int64_t>(0, row - radius), last = std::min(height - 1, row + radius);
            std::fill(columns.begin(), columns.end(), 0.f);
            std::fill(sums.begin(), sums.end(), 0.f);
            for (int64_t r = first; r <= last; ++r)
                for (int q = 0; q < quantities; ++q) {
                    const float* from = values.data() + (r * quantities + q) * width;
                    float* column = columns.data() + q * stride + radius;
                    for (int64_t x = 0; x < width; ++x) column[x] += from[x];
                }
            for (int q = 0; q < quantities; ++q)
                for (int64_t offset = 0; offset <= 2 * radius; ++offset) {
                    const float* column = columns.data() + q * stride + offset;
                    float* sum = sums.data() + q * width;
                    for (int64_t x = 0; x < width; ++x) sum[x] += column[x];
                }
            for (int64_t x = 0; x < width; ++x) {
                const int64_t pixel = row * width + x;
                if (score[pixel] < 0) continue;
                const int64_t across = std::min(width - 1, x + radius) - std::max<int64_t>(0, x - radius) + 1;
                const float share = 1.f / float((last - first + 1) * across);
                float variance = share * sums[channels * width + x], covariance = share * sums[(channels + 1) * width + x];
                for (int c = 0; c < channels; ++c) {
                    const float mean = share * sums[c * width + x];
                    variance -= mean * mean;
                    covariance -= mean * means[channels * pixel + c];
                }
                score[pixel] = covariance / std::sqrt((variances[pixel] + noise) * (std::max(variance, 0.f) + noise));
            }
        }
    });
}
