// What the first layers of image networks cost most, in one pass over the images, and their gradients in another:
// a convolution with few input channels, its bias, 2 x 2 max-pooling and, if asked for, ReLU; and the last two alone.
//
// Written in the vector types of GCC and Clang: the filters lie along a vector, so that no lane needs a neighbour.
// Work is dealt to the threads in fixed shares and every sum has a fixed order: bits depend on their number alone.

#include <cstdint>
#include <cstring>

namespace {

#if defined(__AVX512F__)
constexpr int64_t LANES = 16, ACCUMULATORS = 27;
#elif defined(__AVX__)
constexpr int64_t LANES = 8, ACCUMULATORS = 10;
#else
constexpr int64_t LANES = 4, ACCUMULATORS = 18;
#endif

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint8_t Bytes __attribute__((vector_size(LANES)));

constexpr int32_t CLOSED = 4;  // in the place of a winner 0..3: ReLU made 0 of the largest value

}  // namespace

// As in `library.py`. Taps are the kernel_size^2 * channels weights of a filter, ordered by row, column, channel.
struct Block {
    int64_t images, channels, height, width, filters, kernel_size, padding, relu, threads;
    int64_t image_stride, channel_stride, row_stride, column_stride;  // of the images, in floats

    int64_t pooled_height() const { return (height + 2 * padding - kernel_size + 1) / 2; }
    int64_t pooled_width() const { return (width + 2 * padding - kernel_size + 1) / 2; }
    int64_t padded_row() const { return (width + 2 * padding) * channels; }
    int64_t padded_size() const { return (height + 2 * padding) * padded_row(); }
    int64_t taps() const { return kernel_size * kernel_size * channels; }
    int64_t vectors() const { return (filters + LANES - 1) / LANES; }
    int64_t weights() const { return (taps() + 1) * vectors() * LANES; }  // with the biases behind the last tap
    int64_t first_of(int64_t part) const { return images * part / threads; }
};

// As in `library.py`.
struct Pooling {
    int64_t images, channels, height, width, relu, threads;

    int64_t to(int place) const { return (place / 2 * width + place % 2) * channels; }
};

namespace {

template <typename Vector, typename Number>
Vector load(const Number* from, int64_t lanes) {
    Vector vector = {};
    if (lanes >= LANES) std::memcpy(&vector, from, sizeof vector);
    else std::memcpy(&vector, from, lanes * sizeof(Number));
    return vector;
}

template <typename Vector, typename Number>
void store(Number* to, Vector vector, int64_t lanes) {
    if (lanes >= LANES) std::memcpy(to, &vector, sizeof vector);
    else std::memcpy(to, &vector, lanes * sizeof(Number));
}

struct Largest {
    Floats value;
    Bytes winner;
};

// Ties go to the first value, NaN wins and passes, as in torch.
inline Largest largest_of(const Floats (&values)[4], bool relu) {
    Floats largest = values[0];
    Ints winner = {};
    for (int place = 1; place < 4; ++place) {
        const Ints wins = (values[place] > largest) | (values[place] != values[place]);
        largest = wins ? values[place] : largest;
        winner = wins ? Ints{} + place : winner;
    }
    if (relu) {
        const Ints closed = largest <= 0;
        largest = closed ? Floats{} : largest;
        winner = closed ? Ints{} + CLOSED : winner;
    }
    return {largest, __builtin_convertvector(winner, Bytes)};
}

// An image with zeros around it, channels last; the zeros are there already.
void pad(const Block& block, const float* image, float* padded) {
    for (int64_t row = 0; row < block.height; ++row) {
        float* to = padded + (row + block.padding) * block.padded_row() + block.padding * block.channels;
        for (int64_t column = 0; column < block.width; ++column)
            for (int64_t channel = 0; channel < block.channels; ++channel)
                *to++ = image[row * block.row_stride + column * block.column_stride + channel * block.channel_stride];
    }
}

// A row of the output, for the filters of one vector.
template <int K, int C>
void forward_row(const Block& block, const float* padded, const float* weights, float* output, uint8_t* winners,
                 int64_t lanes) {
    const int64_t stride = block.padded_row(), next_tap = block.vectors() * LANES;
    Floats filter[K * K * C];
    for (int tap = 0; tap < K * K * C; ++tap) filter[tap] = load<Floats>(weights + tap * next_tap, LANES);
    const Floats bias = load<Floats>(weights + block.taps() * next_tap, LANES);
    for (int64_t column = 0; column < block.pooled_width(); ++column) {
        Floats values[4] = {bias, bias, bias, bias};
        const float* corner = padded + 2 * column * C;
#pragma GCC unroll 6
        for (int row = 0; row <= K; ++row)
#pragma GCC unroll 12
            for (int along = 0; along < (K + 1) * C; ++along) {
                const Floats pixel = corner[row * stride + along] - Floats{};
#pragma GCC unroll 4
                for (int place = 0; place < 4; ++place) {
                    const int filter_row = row - place / 2, tap = along - place % 2 * C;
                    if (filter_row >= 0 && filter_row < K && tap >= 0 && tap < K * C)
                        values[place] += filter[filter_row * K * C + tap] * pixel;
                }
            }
        const Largest largest = largest_of(values, block.relu);
        store(output + column * block.filters, largest.value, lanes);
        if (winners) store(winners + column * block.filters, largest.winner, lanes);
    }
}

// Adds to `gradient` what a row of the output gives for the kernel's rows from FIRST on, as many as registers hold.
template <int K, int C, int FIRST>
void backward_row(const Block& block, const float* padded, const uint8_t* winners, const float* output_gradient,
                  float* gradient, int64_t lanes) {
    constexpr int FIT = ACCUMULATORS / (K * C), ROWS = FIT < 1 ? 1 : FIT < K - FIRST ? FIT : K - FIRST;
    const int64_t stride = block.padded_row(), next_tap = block.vectors() * LANES;
    Floats sums[ROWS * K * C] = {};
    Floats bias = {};
    for (int64_t column = 0; column < block.pooled_width(); ++column) {
        const Floats slope = load<Floats>(output_gradient + column * block.filters, lanes);
        const Bytes bytes = load<Bytes>(winners + column * block.filters, lanes);
        const Ints winner = __builtin_convertvector(bytes, Ints);
        const float* corner = padded + FIRST * stride + 2 * column * C;
        Floats shares[4];
        for (int place = 0; place < 4; ++place) {
            shares[place] = winner == place ? slope : Floats{};
            bias += shares[place];
        }
#pragma GCC unroll 6
        for (int row = 0; row <= ROWS; ++row)
#pragma GCC unroll 12
            for (int along = 0; along < (K + 1) * C; ++along) {
                const Floats pixel = corner[row * stride + along] - Floats{};
#pragma GCC unroll 4
                for (int place = 0; place < 4; ++place) {
                    const int filter_row = row - place / 2, tap = along - place % 2 * C;
                    if (filter_row >= 0 && filter_row < ROWS && tap >= 0 && tap < K * C)
                        sums[filter_row * K * C + tap] += shares[place] * pixel;
                }
            }
    }
    for (int tap = 0; tap < ROWS * K * C; ++tap) {
        float* to = gradient + (FIRST * K * C + tap) * next_tap;
        store(to, load<Floats>(to, LANES) + sums[tap], LANES);
    }
    if constexpr (FIRST == 0) {
        float* to = gradient + block.taps() * next_tap;
        store(to, load<Floats>(to, LANES) + bias, LANES);
    }
    if constexpr (FIRST + ROWS < K)
        backward_row<K, C, FIRST + ROWS>(block, padded, winners, output_gradient, gradient, lanes);
}

// Calls `work` with each image padded, its number, and the part of the images in which it lies: a thread for each part.
template <typename Work>
void for_each_image(const Block& block, const float* images, float* scratch, Work work) {
#pragma omp parallel for schedule(static, 1) num_threads(block.threads)
    for (int64_t part = 0; part < block.threads; ++part) {
        float* padded = scratch + part * block.padded_size();
        std::memset(padded, 0, block.padded_size() * sizeof(float));
        for (int64_t image = block.first_of(part); image < block.first_of(part + 1); ++image) {
            pad(block, images + image * block.image_stride, padded);
            work(padded, image, part);
        }
    }
}

// Calls `work` with each row of an image's output, the first filter of each vector, and how many its lanes hold.
template <typename Work>
void for_each_row(const Block& block, int64_t image, Work work) {
    for (int64_t filter = 0; filter < block.filters; filter += LANES)
        for (int64_t row = 0; row < block.pooled_height(); ++row) {
            const int64_t place = (image * block.pooled_height() + row) * block.pooled_width() * block.filters + filter;
            work(2 * row * block.padded_row(), place, filter, block.filters - filter);
        }
}

template <int K, int C>
void forward(const Block& block, const float* images, const float* weights, float* output, uint8_t* winners,
             float* scratch) {
    for_each_image(block, images, scratch, [&](const float* padded, int64_t image, int64_t) {
        for_each_row(block, image, [&](int64_t start, int64_t place, int64_t filter, int64_t lanes) {
            forward_row<K, C>(block, padded + start, weights + filter, output + place,
                              winners ? winners + place : nullptr, lanes);
        });
    });
}

template <int K, int C>
void backward(const Block& block, const float* images, const uint8_t* winners, const float* output_gradient,
              float* gradients, float* scratch) {
    for_each_image(block, images, scratch, [&](const float* padded, int64_t image, int64_t part) {
        float* gradient = gradients + part * block.weights();
        for_each_row(block, image, [&](int64_t start, int64_t place, int64_t filter, int64_t lanes) {
            backward_row<K, C, 0>(block, padded + start, winners + place, output_gradient + place, gradient + filter,
                                  lanes);
        });
    });
}

// Those that are at least as fast as torch's, also with few filters.
template <template <int, int> class Function, typename... Arguments>
bool dispatch(const Block& block, Arguments... arguments) {
    switch (10 * block.kernel_size + block.channels) {
        case 31: return Function<3, 1>::call(block, arguments...), true;
        case 32: return Function<3, 2>::call(block, arguments...), true;
        case 33: return Function<3, 3>::call(block, arguments...), true;
        case 51: return Function<5, 1>::call(block, arguments...), true;
        case 52: return Function<5, 2>::call(block, arguments...), true;
        default: return false;
    }
}

template <int K, int C>
struct Forward {
    template <typename... Arguments>
    static void call(Arguments... arguments) { forward<K, C>(arguments...); }
};

template <int K, int C>
struct Backward {
    template <typename... Arguments>
    static void call(Arguments... arguments) { backward<K, C>(arguments...); }
};

// Calls `work` with the place of each vector of the pooled values, that of the first of its four values, and its lanes.
template <typename Work>
void for_each_window(const Pooling& pooling, Work work) {
    const int64_t height = pooling.height / 2, width = pooling.width / 2, channels = pooling.channels;
#pragma omp parallel for schedule(static) num_threads(pooling.threads)
    for (int64_t line = 0; line < pooling.images * height; ++line) {
        const int64_t row = line / height * pooling.height + line % height * 2;
        for (int64_t column = 0; column < width; ++column)
            for (int64_t channel = 0; channel < channels; channel += LANES)
                work((line * width + column) * channels + channel,
                     (row * pooling.width + 2 * column) * channels + channel, channels - channel);
    }
}

}  // namespace

extern "C" {

int lanes() { return LANES; }

// Gives (images, pooled_height, pooled_width, filters), and where the largest values were unless `winners` is null.
// `weights` is (taps + 1, filters up to a multiple of `lanes`); `scratch` holds a padded image for each thread.
bool forward_block(const Block* block, const float* images, const float* weights, float* output, uint8_t* winners,
                   float* scratch) {
    return dispatch<Forward>(*block, images, weights, output, winners, scratch);
}

// Adds to `gradients`, one of the shape of `weights` for each thread, which are to be added up in their order.
bool backward_block(const Block* block, const float* images, const uint8_t* winners, const float* output_gradient,
                    float* gradients, float* scratch) {
    return dispatch<Backward>(*block, images, winners, output_gradient, gradients, scratch);
}

// All are channels last: `input` (images, height, width, channels), `output` and `winners` of half the sides.
void pool(const Pooling* pooling, const float* input, float* output, uint8_t* winners) {
    for_each_window(*pooling, [=](int64_t pooled, int64_t first, int64_t lanes) {
        Floats values[4];
        for (int place = 0; place < 4; ++place) values[place] = load<Floats>(input + first + pooling->to(place), lanes);
        const Largest largest = largest_of(values, pooling->relu);
        store(output + pooled, largest.value, lanes);
        if (winners) store(winners + pooled, largest.winner, lanes);
    });
}

// Writes `input_gradient`, except for a last row or column that lies in no window.
void unpool(const Pooling* pooling, const uint8_t* winners, const float* output_gradient, float* input_gradient) {
    for_each_window(*pooling, [=](int64_t pooled, int64_t first, int64_t lanes) {
        const Floats slope = load<Floats>(output_gradient + pooled, lanes);
        const Ints winner = __builtin_convertvector(load<Bytes>(winners + pooled, lanes), Ints);
        for (int place = 0; place < 4; ++place)
            store(input_gradient + first + pooling->to(place), winner == place ? slope : Floats{}, lanes);
    });
}
}
