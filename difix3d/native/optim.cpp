// What a training step does to all parameters: Adam, and the statistics that densification reads. The readable twins are
// torch.optim.Adam and DefaultStrategy._update_state of gsplat.

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>

#include "threads.h"

namespace {

constexpr int64_t BATCH = 1 << 14;  // elements that a thread takes at once
int64_t batches(int64_t n) { return (n + BATCH - 1) / BATCH; }

// A parameter with its Adam, as the caller lays them out: addresses and a size; numbers.
struct Group { float *param, *grad, *mean, *square, *step; int64_t size; };
struct Rates { double rate, beta1, beta2, eps; };

void adam(const Group& g, const Rates& r, int64_t first, int64_t last) {
    double step = *g.step, correction = std::sqrt(1 - std::pow(r.beta2, step));
    float rate = float(r.rate / (1 - std::pow(r.beta1, step))), scale = float(1 / correction), eps = float(r.eps);
    float fresh1 = float(1 - r.beta1), fresh2 = float(1 - r.beta2), old2 = float(r.beta2);
    for (int64_t i = first; i < last; i++) {
        float grad = g.grad[i], mean = g.mean[i] + fresh1 * (grad - g.mean[i]), square = old2 * g.square[i] + fresh2 * grad * grad;
        g.mean[i] = mean, g.square[i] = square;
        // fast reciprocal roots do not know denormals; these are far below eps
        g.param[i] -= rate * mean / (std::sqrt(std::max(square, FLT_MIN)) * scale + eps);
    }
}

}  // namespace

extern "C" {

// One step of Adam (Kingma and Ba 2015) for each of some parameters.
void difix3d_adam(const int64_t* groups_, const double* rates_, int64_t count, int64_t threads) {
    const Group* groups = (const Group*)groups_;
    const Rates* rates = (const Rates*)rates_;
    int64_t total = 0;
    for (int64_t k = 0; k < count; k++) *groups[k].step += 1, total += batches(groups[k].size);
    parallel_for(total, threads, [&](int64_t batch) {
        int64_t k = 0;
        for (; batch >= batches(groups[k].size); k++) batch -= batches(groups[k].size);
        adam(groups[k], rates[k], batch * BATCH, std::min(groups[k].size, (batch + 1) * BATCH));
    });
}

// Adds to total [n] the lengths of the gradients [cameras,n,2] of the projected means, in units of the scales, and to count [n]
// the cameras that see each Gaussian: those with radii [cameras,n,2] above 0.
void difix3d_screen_gradients(const float* grads, const int32_t* radii, int64_t cameras, int64_t n, float scale_x, float scale_y,
                              int64_t threads, float* total, float* count) {
    parallel_for(batches(n), threads, [&](int64_t batch) {
        for (int64_t i = batch * BATCH; i < std::min(n, (batch + 1) * BATCH); i++)
            for (int64_t at = i; at < cameras * n; at += n) {
                if (radii[2 * at] <= 0 || radii[2 * at + 1] <= 0) continue;
                float x = grads[2 * at] * scale_x, y = grads[2 * at + 1] * scale_y;
                total[i] += std::sqrt(x * x + y * y), count[i] += 1;
            }
    });
}

}  // extern "C"
