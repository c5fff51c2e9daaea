// Projection with spherical harmonics, forward and backward.

#include "projection.h"

namespace {

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

}  // namespace

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

}  // extern "C"
