// Tile lists: which Gaussians each tile shows, front to back.

#include "splat.h"

namespace {

constexpr int64_t SMALLEST_RUN = 1024;  // Gaussians whose tile lists are worth a helper

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

}  // namespace

extern "C" {

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

}  // extern "C"
