// What compares images: SSIM, and the training loss, which takes SSIM and the absolute difference in one pass; forward and
// backward. The readable twins are ssim_twin in difix3d/ssim.py, and l1 and dssim in difix3d/losses.py.
//
// Images are worked through in bands of rows, each by one thread. Sums are taken by band and added in order, so that results
// do not depend on the number of threads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "threads.h"

namespace {

// The 11 x 11 Gaussian window of SSIM is separable and symmetric: its blur is its own adjoint. Images are [height, width, 3],
// rows of 3 * width floats; what lies outside counts as zero.
constexpr int RADIUS = 5, TAPS = 2 * RADIUS + 1, PAD = 3 * RADIUS, BAND = 32;
constexpr float C1 = 0.01f * 0.01f, C2 = 0.03f * 0.03f;

struct Window {
    float w[TAPS];
    Window() {
        float total = 0;
        for (int i = 0; i < TAPS; i++) total += w[i] = std::exp(-float((i - RADIUS) * (i - RADIUS)) / (2 * 1.5f * 1.5f));
        for (float& x : w) x /= total;
    }
};

// Blurs Q quantities over the rows first..last-1. produce(y, rows) writes row y of each; consume(y, rows) gets them blurred.
template <int Q, class Produce, class Consume> void blur(int n, int height, int first, int last, Produce produce, Consume consume) {
    static const Window window;
    const float* w = window.w;
    int stride = n + 2 * PAD;
    std::vector<float> input(Q * stride, 0.f), ring(size_t(TAPS) * Q * n, 0.f), output(Q * n);
    float *rows[Q], *results[Q];
    for (int q = 0; q < Q; q++) rows[q] = &input[q * stride + PAD], results[q] = &output[q * n];
    for (int y = first - RADIUS; y < last + RADIUS; y++) {
        float* line = &ring[size_t((y + TAPS) % TAPS) * Q * n];
        if (y < 0 || y >= height) {
            std::fill(line, line + Q * n, 0.f);
        } else {
            produce(y, rows);
            for (int q = 0; q < Q; q++)
                for (int i = 0; i < n; i++) {
                    const float* x = rows[q] + i - PAD;
                    float total = 0;
                    for (int k = 0; k < TAPS; k++) total += w[k] * x[3 * k];
                    line[q * n + i] = total;
                }
        }
        int done = y - RADIUS;  // the row that has all of its neighbours now
        if (done < first) continue;
        const float* lines[TAPS];
        for (int k = 0; k < TAPS; k++) lines[k] = &ring[size_t((done - RADIUS + k + TAPS) % TAPS) * Q * n];
        for (int i = 0; i < Q * n; i++) {
            float total = 0;
            for (int k = 0; k < TAPS; k++) total += w[k] * lines[k][i];
            output[i] = total;
        }
        consume(done, results);
    }
}

// Two images, and how much each pixel counts; where it counts nothing, the second image is as the first.
struct Pair {
    const float *a, *b;
    const uint8_t* mask;      // [height,width], or null
    const float* confidence;  // [height,width], or null
    int height, width;

    bool weighted() const { return mask || confidence; }
    float weight(int64_t pixel) const { return (mask ? float(mask[pixel]) : 1.f) * (confidence ? confidence[pixel] : 1.f); }

    // Row y of the second image, and through `weights`, if they are there, its weights.
    const float* target(int y, float* row, float* weights) const {
        int64_t at = int64_t(y) * width;
        if (!weighted()) return b + 3 * at;
        for (int x = 0; x < width; x++) {
            float w = weights[x] = weight(at + x);
            for (int c = 0; c < 3; c++) row[3 * x + c] = (w > 0 ? b : a)[3 * (at + x) + c];
        }
        return row;
    }
};

// Calls consume(y, similarity, target, weights) for the rows of a band; keeps the partial derivatives of SSIM, if they are wanted.
template <class Consume> void similarity(const Pair& pair, int first, int last, float* const* partials, Consume consume) {
    int n = 3 * pair.width;
    std::vector<float> row(n), weights(pair.width, 1.f), s(n);
    auto produce = [&](int y, float** rows) {
        const float *x = pair.a + int64_t(y) * n, *z = pair.target(y, row.data(), weights.data());
        for (int i = 0; i < n; i++)
            rows[0][i] = x[i], rows[1][i] = z[i], rows[2][i] = x[i] * x[i], rows[3][i] = z[i] * z[i], rows[4][i] = x[i] * z[i];
    };
    blur<5>(n, pair.height, first, last, produce, [&](int y, float** blurred) {
        int64_t at = int64_t(y) * n;
        for (int i = 0; i < n; i++) {
            float ma = blurred[0][i], mb = blurred[1][i];
            float A1 = 2 * ma * mb + C1, A2 = 2 * (blurred[4][i] - ma * mb) + C2;
            float B1 = ma * ma + mb * mb + C1, B2 = blurred[2][i] - ma * ma + blurred[3][i] - mb * mb + C2;
            float inv = 1 / (B1 * B2);
            s[i] = A1 * A2 * inv;
            if (!partials[0]) continue;
            partials[0][at + i] = 2 * (mb * (A2 - A1) * inv + ma * s[i] * inv * (B1 - B2));  // by the blurred a
            partials[1][at + i] = -s[i] * inv * B1;                                          // by the blurred a^2
            partials[2][at + i] = 2 * A1 * inv;                                              // by the blurred ab
        }
        const float* target = pair.target(y, row.data(), weights.data());
        consume(y, s.data(), target, weights.data());
    });
}

// Calls consume(y, gradient, target, weights) for the rows of a band; gradient(y, i) is that of the similarity's element i.
template <class Gradient, class Consume>
void similarity_backward(const Pair& pair, int first, int last, const float* const* partials, Gradient gradient, Consume consume) {
    int n = 3 * pair.width;
    std::vector<float> row(n), weights(pair.width, 1.f), v_a(n);
    auto produce = [&](int y, float** rows) {
        int64_t at = int64_t(y) * n;
        for (int i = 0; i < n; i++) {
            float v = gradient(y, i);
            for (int q = 0; q < 3; q++) rows[q][i] = v * partials[q][at + i];
        }
    };
    blur<3>(n, pair.height, first, last, produce, [&](int y, float** blurred) {
        const float *a = pair.a + int64_t(y) * n, *target = pair.target(y, row.data(), weights.data());
        for (int i = 0; i < n; i++) v_a[i] = blurred[0][i] + 2 * a[i] * blurred[1][i] + target[i] * blurred[2][i];
        consume(y, v_a.data(), target, weights.data());
    });
}

// The same without similarities: calls consume(y, target, weights) for the rows of a band.
template <class Consume> void each_row(const Pair& pair, int first, int last, Consume consume) {
    std::vector<float> row(3 * pair.width), weights(pair.width, 1.f);
    for (int y = first; y < last; y++) {
        const float* target = pair.target(y, row.data(), weights.data());
        consume(y, target, weights.data());
    }
}

// Calls f(band, first row, last row) for all bands of rows.
int bands(int64_t height) { return int((height + BAND - 1) / BAND); }
template <class F> void each_band(int64_t height, int64_t threads, F f) {
    parallel_for(bands(height), threads, [&](int64_t band) {
        f(int(band), int(band) * BAND, int(std::min<int64_t>((band + 1) * BAND, height)));
    });
}

}  // namespace

extern "C" {

// a, b [height, width, 3] -> map; and, unless null, three partial derivatives [3, height, width, 3] for the way back.
void difix3d_ssim(const float* a, const float* b, int64_t height, int64_t width, int64_t threads, float* map, float* partials) {
    int64_t n = 3 * width;
    Pair pair{a, b, nullptr, nullptr, int(height), int(width)};
    float* kept[3] = {partials, partials + n * height, partials + 2 * n * height};
    each_band(height, threads, [&](int, int first, int last) {
        similarity(pair, first, last, kept, [&](int y, const float* s, const float*, const float*) { std::copy(s, s + n, map + y * n); });
    });
}

void difix3d_ssim_backward(const float* a, const float* b, int64_t height, int64_t width, int64_t threads, const float* partials,
                           const float* v, float* v_a) {
    int64_t n = 3 * width;
    Pair pair{a, b, nullptr, nullptr, int(height), int(width)};
    const float* kept[3] = {partials, partials + n * height, partials + 2 * n * height};
    each_band(height, threads, [&](int, int first, int last) {
        similarity_backward(pair, first, last, kept, [&](int y, int i) { return v[y * n + i]; },
                            [&](int y, const float* grad, const float*, const float*) { std::copy(grad, grad + n, v_a + y * n); });
    });
}

// Means over all pixels and channels of weight * |a - b| and, if partials are given, of weight * (1 - SSIM): terms [2].
void difix3d_compare(const float* a, const float* b, const uint8_t* mask, const float* confidence, int64_t height, int64_t width,
                     int64_t threads, float* partials, float* terms) {
    int64_t n = 3 * width;
    Pair pair{a, b, mask, confidence, int(height), int(width)};
    float* kept[3] = {partials, partials + n * height, partials + 2 * n * height};
    std::vector<double> sums(2 * bands(height), 0.0);
    each_band(height, threads, [&](int band, int first, int last) {
        double *own = &sums[2 * band];
        auto difference = [&](int y, const float* target, const float* weights) {
            const float* x = a + y * n;
            float total = 0;
            for (int i = 0; i < n; i++) total += weights[i / 3] * std::fabs(x[i] - target[i]);
            own[0] += total;
        };
        if (!partials) return each_row(pair, first, last, difference);
        similarity(pair, first, last, kept, [&](int y, const float* s, const float* target, const float* weights) {
            difference(y, target, weights);
            float total = 0;
            for (int i = 0; i < n; i++) total += weights[i / 3] * (1 - s[i]);
            own[1] += total;
        });
    });
    for (int term = 0; term < 2; term++) {
        double total = 0;
        for (int band = 0; band < bands(height); band++) total += sums[2 * band + term];
        terms[term] = float(total / double(n * height));
    }
}

// Gradient to a, given those to the two terms.
void difix3d_compare_backward(const float* a, const float* b, const uint8_t* mask, const float* confidence, int64_t height,
                              int64_t width, int64_t threads, const float* partials, float v_difference, float v_dissimilarity,
                              float* v_a) {
    int64_t n = 3 * width;
    Pair pair{a, b, mask, confidence, int(height), int(width)};
    const float* kept[3] = {partials, partials + n * height, partials + 2 * n * height};
    float share = 1.f / float(n * height);
    each_band(height, threads, [&](int, int first, int last) {
        auto difference = [&](int y, const float* target, const float* weights) {
            const float* x = a + y * n;
            for (int i = 0; i < n; i++) {
                float d = x[i] - target[i];
                v_a[y * n + i] = weights[i / 3] * v_difference * share * (d > 0 ? 1.f : d < 0 ? -1.f : 0.f);
            }
        };
        if (!partials) return each_row(pair, first, last, difference);
        auto gradient = [&](int y, int i) { return -v_dissimilarity * share * pair.weight(y * width + i / 3); };
        similarity_backward(pair, first, last, kept, gradient, [&](int y, const float* grad, const float* target, const float* weights) {
            difference(y, target, weights);
            for (int i = 0; i < n; i++) v_a[y * n + i] += grad[i];
        });
    });
}

// The sum of squared differences of two arrays.
void difix3d_squared_error(const float* a, const float* b, int64_t n, int64_t threads, double* total) {
    constexpr int64_t BATCH = 1 << 15;
    std::vector<double> sums((n + BATCH - 1) / BATCH, 0.0);
    parallel_for(int64_t(sums.size()), threads, [&](int64_t batch) {
        float own = 0;
        for (int64_t i = batch * BATCH; i < std::min(n, (batch + 1) * BATCH); i++) own += (a[i] - b[i]) * (a[i] - b[i]);
        sums[batch] = own;
    });
    *total = 0;
    for (double sum : sums) *total += sum;
}

}  // extern "C"
