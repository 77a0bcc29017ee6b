// Images resampled bilinearly, each by a matrix of its own, without a grid of coordinates in memory.
//
// An image is copied first, with a border of `fill` around it, and a point farther out moves to the border's outer
// edge: whatever the matrix, all taps are there, and none needs a mask. Bytes are packed meanwhile, so that one load
// fetches a pixel and its right neighbour in up to four channels.
//
// A value comes from its image and its matrix alone, and this file is compiled without contractions: its bits depend
// neither on the number of threads nor on the rest of the batch.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>

namespace {

constexpr int64_t BORDER = 2;  // one tap of a point in the border may lie in the image, none of one at its outer edge
constexpr int64_t BLOCK = 256;  // pixels whose places stay in the first cache for all channels

}  // namespace

// As in `warp.py`.
struct Warp {
    int64_t images, channels, height, width, is_bytes, projective, threads;
    double fill;

    int64_t size() const { return channels * height * width; }
    int64_t stride() const { return width + 2 * BORDER; }
    int64_t plane() const { return (height + 2 * BORDER) * stride(); }
};

namespace {

// The kinds of images: each says how many channels a texel holds, and how it holds them.

struct OfBytes {
    typedef uint8_t Number;
    typedef uint32_t Texel;
    static constexpr int64_t CHANNELS = 4;
    static Texel with(Texel texel, Number value, int channel) { return texel | Texel(value) << 8 * channel; }
    static float value(Texel texel, int channel) { return float(int32_t(texel >> 8 * channel & 255)); }
};

struct OfFloats {
    typedef float Number;
    typedef float Texel;
    static constexpr int64_t CHANNELS = 1;
    static Texel with(Texel, Number value, int) { return value; }
    static float value(Texel texel, int) { return texel; }
};

template <typename Texel>
struct Pair {
    Texel left, right;
};

// Where pixels of the output come from: the texel above and left of that point, and how far it lies from the texel.
struct Places {
    alignas(64) int32_t texel[BLOCK];
    alignas(64) float right[BLOCK], down[BLOCK];
};

template <typename Kind>
int64_t planes(const Warp& warp) { return (warp.channels + Kind::CHANNELS - 1) / Kind::CHANNELS; }

// An image with its border.
template <typename Kind>
void pad(const Warp& warp, const typename Kind::Number* image, typename Kind::Texel* texels) {
    typedef typename Kind::Texel Texel;
    Texel border = {};
    for (int channel = 0; channel < Kind::CHANNELS; ++channel)
        border = Kind::with(border, typename Kind::Number(warp.fill), channel);
    std::fill_n(texels, planes<Kind>(warp) * warp.plane(), border);
    for (int64_t channel = 0; channel < warp.channels; ++channel)
        for (int64_t row = 0; row < warp.height; ++row) {
            const int inside = channel % Kind::CHANNELS;
            const auto* from = image + (channel * warp.height + row) * warp.width;
            Texel* to = texels + channel / Kind::CHANNELS * warp.plane() + (row + BORDER) * warp.stride() + BORDER;
#pragma omp simd
            for (int64_t column = 0; column < warp.width; ++column)
                to[column] = Kind::with(inside ? to[column] : Texel{}, from[column], inside);
        }
}

// As a coordinate of texels; what is not a number comes to the border, too.
inline float clamped(float place, float last) {
    place = place > 0 ? place : 0;
    return place < last ? place : last;
}

// The places of pixels in one row of the output, from `column` on, behind those of the `first` pixels of the block.
template <bool PROJECTIVE>
void find(const Warp& warp, const float* matrix, int64_t row, int64_t column, int32_t first, int32_t behind,
          Places& places) {
    const float middle_x = (warp.width - 1) * 0.5f, middle_y = (warp.height - 1) * 0.5f, y = row - middle_y;
    const float origin_x = middle_x + BORDER, origin_y = middle_y + BORDER;
    const float last_x = warp.width + BORDER, last_y = warp.height + BORDER;
    const float row_x = matrix[1] * y + matrix[2], row_y = matrix[4] * y + matrix[5];
    const float row_scale = matrix[7] * y + matrix[8];
    const int32_t stride = warp.stride();
    const float start = column - first - middle_x;
#pragma omp simd
    for (int32_t pixel = first; pixel < behind; ++pixel) {
        const float x = start + float(pixel);
        float from_x = matrix[0] * x + row_x, from_y = matrix[3] * x + row_y;
        if (PROJECTIVE) {
            // A point behind the horizon of a homography is nowhere in the source.
            const float scale = matrix[6] * x + row_scale;
            from_x = scale > 0 ? from_x / scale : -last_x - last_x;
            from_y = from_y / scale;
        }
        from_x = clamped(from_x + origin_x, last_x);
        from_y = clamped(from_y + origin_y, last_y);
        const int32_t left = int32_t(from_x), above = int32_t(from_y);
        places.texel[pixel] = above * stride + left;
        places.right[pixel] = from_x - float(left);
        places.down[pixel] = from_y - float(above);
    }
}

inline float between(float first, float second, float share) { return first + share * (second - first); }

// The values of a block of pixels, in all channels.
template <typename Kind>
void blend(const Warp& warp, const typename Kind::Texel* texels, const Places& places, int64_t pixels, float* output) {
    typedef Pair<typename Kind::Texel> Both;
    alignas(64) Both above[BLOCK], below[BLOCK];
    for (int64_t channel = 0; channel < warp.channels; ++channel, output += warp.height * warp.width) {
        const int inside = channel % Kind::CHANNELS;
        if (inside == 0) {
            const auto* plane = texels + channel / Kind::CHANNELS * warp.plane();
            for (int64_t pixel = 0; pixel < pixels; ++pixel) {
                std::memcpy(&above[pixel], plane + places.texel[pixel], sizeof(Both));
                std::memcpy(&below[pixel], plane + places.texel[pixel] + warp.stride(), sizeof(Both));
            }
        }
#pragma omp simd
        for (int64_t pixel = 0; pixel < pixels; ++pixel) {
            const Both up = above[pixel], low = below[pixel];
            const float down = places.down[pixel];
            const float left = between(Kind::value(up.left, inside), Kind::value(low.left, inside), down);
            const float right = between(Kind::value(up.right, inside), Kind::value(low.right, inside), down);
            output[pixel] = between(left, right, places.right[pixel]);
        }
    }
}

template <typename Kind, bool PROJECTIVE>
void resample(const Warp& warp, const typename Kind::Number* image, const float* matrix, typename Kind::Texel* texels,
              float* output) {
    Places places;
    pad<Kind>(warp, image, texels);
    for (int64_t start = 0; start < warp.height * warp.width; start += BLOCK) {  // a block may hold several rows
        const int64_t pixels = std::min(BLOCK, warp.height * warp.width - start);
        for (int64_t first = 0, behind; first < pixels; first = behind) {
            const int64_t row = (start + first) / warp.width, column = (start + first) % warp.width;
            behind = std::min(first + warp.width - column, pixels);
            find<PROJECTIVE>(warp, matrix, row, column, first, behind, places);
        }
        blend<Kind>(warp, texels, places, pixels, output + start);
    }
}

template <typename Kind>
void warp_each(const Warp& warp, const void* images, const float* matrices, void* scratch, float* output) {
    constexpr float SAME[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1};
    const int64_t parts = std::max<int64_t>(1, std::min(warp.threads, warp.images));
    std::atomic<int64_t> next{0};  // images that stay as they are take less time, so none is a thread's beforehand
#pragma omp parallel for schedule(static, 1) num_threads(parts)
    for (int64_t part = 0; part < parts; ++part) {
        auto* texels = static_cast<typename Kind::Texel*>(scratch) + part * planes<Kind>(warp) * warp.plane();
        for (int64_t number = next++; number < warp.images; number = next++) {
            const auto* image = static_cast<const typename Kind::Number*>(images) + number * warp.size();
            const float* matrix = matrices + 9 * number;
            float* to = output + number * warp.size();
            if (std::equal(matrix, matrix + (warp.projective ? 9 : 6), SAME)) std::copy_n(image, warp.size(), to);
            else if (warp.projective) resample<Kind, true>(warp, image, matrix, texels, to);
            else resample<Kind, false>(warp, image, matrix, texels, to);
        }
    }
}

}  // namespace

extern "C" {

// How many texels, of four bytes, each thread has in `scratch`.
int64_t warp_scratch(const Warp* warp) {
    return (warp->is_bytes ? planes<OfBytes>(*warp) : planes<OfFloats>(*warp)) * warp->plane();
}

// `images` are bytes or floats, `matrices` (images, 3, 3), and `output` is of the shape of `images`.
void warp_images(const Warp* warp, const void* images, const float* matrices, void* scratch, float* output) {
    (warp->is_bytes ? warp_each<OfBytes> : warp_each<OfFloats>)(*warp, images, matrices, scratch, output);
}
}
