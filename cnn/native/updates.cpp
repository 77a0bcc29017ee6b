// What optimizers do to weights and their states, in one pass through memory over all tensors of a network, and what
// two regularizers do to gradients and weights.
//
// A number comes from those in its place alone, by the precision of the weights, and this file is compiled without
// contractions: its bits are those that IEEE 754 demands of the formula, whatever its place, the vectors and threads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

constexpr int64_t OPERANDS = 5, COEFFICIENTS = 8;  // as in `updates.py`
constexpr int64_t WORTH_THREADS = 32768;           // numbers; waking threads for less takes longer than it saves
constexpr int LANES = 32;                          // sums side by side: more than a vector, for each waits for its last

}  // namespace

// As in `updates.py`.
struct Update {
    int64_t rule, is_double, num_tensors, threads;
    double coefficients[COEFFICIENTS];
};

namespace {

// The rules: the coefficients of each in the order in which `cnn/optim` gives them, then what it does to a weight w,
// its gradient g and its states, by the equation of its class there.

template <typename N>
struct SGD {
    N lr;
    void operator()(N& w, N& g, N&, N&, N&) const { w -= lr * g; }
};

template <typename N>
struct Momentum {
    N momentum, lr;
    void operator()(N& w, N& g, N& v, N&, N&) const {
        v = momentum * v - lr * g;
        w += v;
    }
};

template <typename N>
struct Lookahead {
    N momentum;
    void operator()(N& ahead, N& w, N& v, N&, N&) const { ahead = w + momentum * v; }
};

template <typename N>
struct AdaGrad {
    N lr, eps;
    void operator()(N& w, N& g, N& sum, N&, N&) const {
        sum += g * g;
        w -= lr * g / (std::sqrt(sum) + eps);
    }
};

template <typename N>
struct RMSProp {
    N lr, keep, gain, eps;
    void operator()(N& w, N& g, N& square, N&, N&) const {
        square = keep * square + gain * g * g;
        w -= lr * g / (std::sqrt(square) + eps);
    }
};

template <typename N>
struct Adam {
    N decay, lr, keep1, gain1, keep2, gain2, root, eps;
    void operator()(N& w, N& g, N& v, N& square, N&) const {
        v = keep1 * v + gain1 * g;
        square = keep2 * square + gain2 * g * g;
        w -= decay * w;
        w -= lr * v / (std::sqrt(square) * root + eps);
    }
};

template <typename N>
struct AMSGrad {
    N decay, lr, keep1, gain1, keep2, gain2, root, eps;
    void operator()(N& w, N& g, N& v, N& square, N& largest) const {
        v = keep1 * v + gain1 * g;
        square = keep2 * square + gain2 * g * g;
        largest = square > largest ? square : largest;
        w -= decay * w;
        w -= lr * v / (std::sqrt(largest) * root + eps);
    }
};

template <typename N>
struct NAdam {
    N of_momentum, of_gradient, keep1, gain1, keep2, gain2, root, eps;
    void operator()(N& w, N& g, N& v, N& square, N&) const {
        v = keep1 * v + gain1 * g;
        square = keep2 * square + gain2 * g * g;
        w -= (of_momentum * v + of_gradient * g) / (std::sqrt(square) * root + eps);
    }
};

template <typename N>
struct Adadelta {
    N lr, keep, gain, eps;
    void operator()(N& w, N& g, N& square, N& moved, N&) const {
        square = keep * square + gain * g * g;
        const N delta = std::sqrt((moved + eps) / (square + eps)) * g;
        moved = keep * moved + gain * delta * delta;
        w -= lr * delta;
    }
};

template <typename N>
N sign(N x) { return x > 0 ? N(1) : x < 0 ? N(-1) : N(0); }

template <typename N>
struct Lion {
    N lr, decay, keep1, gain1, keep2, gain2;
    void operator()(N& w, N& g, N& v, N&, N&) const {
        w -= decay * w + lr * sign(keep1 * v + gain1 * g);
        v = keep2 * v + gain2 * g;
    }
};

template <typename N>
struct L1 {
    N weight;
    void operator()(N& g, N& w, N&, N&, N&) const { g += weight * sign(w); }
};

// Calls `work` with a tensor's number and the places in it that are a thread's, of all numbers dealt in equal shares.
template <typename Work>
void for_each_span(int64_t num_tensors, const int64_t* sizes, int64_t threads, Work work) {
    int64_t total = 0;
    for (int64_t tensor = 0; tensor < num_tensors; ++tensor) total += sizes[tensor];
    const int64_t parts = total < WORTH_THREADS ? 1 : threads;
#pragma omp parallel for schedule(static, 1) num_threads(parts)
    for (int64_t part = 0; part < parts; ++part) {
        const int64_t first = total * part / parts, last = total * (part + 1) / parts;
        for (int64_t tensor = 0, start = 0; tensor < num_tensors; start += sizes[tensor++]) {
            const int64_t from = std::max<int64_t>(first - start, 0), to = std::min(last - start, sizes[tensor]);
            if (from < to) work(tensor, from, to);
        }
    }
}

template <template <typename> class Rule, typename N>
bool apply(const Update& update, void* const* operands, const int64_t* sizes) {
    Rule<N> rule;
    N coefficients[COEFFICIENTS];
    std::copy_n(update.coefficients, COEFFICIENTS, coefficients);
    static_assert(sizeof rule <= sizeof coefficients);
    std::memcpy(&rule, coefficients, sizeof rule);
    for_each_span(update.num_tensors, sizes, update.threads, [=](int64_t tensor, int64_t from, int64_t to) {
        const Rule<N> here = rule;  // in registers: for all that the compiler knows, weights might lie over the other
        N* of[OPERANDS];
        for (int64_t i = 0; i < OPERANDS; ++i) of[i] = static_cast<N*>(operands[tensor * OPERANDS + i]);
        N *const a = of[0], *const b = of[1], *const c = of[2], *const d = of[3], *const e = of[4];
#pragma omp simd
        for (int64_t i = from; i < to; ++i) here(a[i], b[i], c[i], d[i], e[i]);
    });
    return true;
}

template <typename N>
bool dispatch(const Update& update, void* const* operands, const int64_t* sizes) {
    switch (update.rule) {
        case 0: return apply<SGD, N>(update, operands, sizes);
        case 1: return apply<Momentum, N>(update, operands, sizes);
        case 2: return apply<Lookahead, N>(update, operands, sizes);
        case 3: return apply<AdaGrad, N>(update, operands, sizes);
        case 4: return apply<RMSProp, N>(update, operands, sizes);
        case 5: return apply<Adam, N>(update, operands, sizes);
        case 6: return apply<AMSGrad, N>(update, operands, sizes);
        case 7: return apply<NAdam, N>(update, operands, sizes);
        case 8: return apply<Adadelta, N>(update, operands, sizes);
        case 9: return apply<Lion, N>(update, operands, sizes);
        case 10: return apply<L1, N>(update, operands, sizes);
        default: return false;
    }
}

// w <- w min(1, limit / ||w||) for each row of the weights; the sum of the squares has a fixed order.
template <typename N>
void limit_row(N* row, int64_t length, N limit) {
    N sums[LANES] = {};
    int64_t i = 0;
    for (; i + LANES <= length; i += LANES)
        for (int lane = 0; lane < LANES; ++lane) sums[lane] += row[i + lane] * row[i + lane];
    for (; i < length; ++i) sums[i % LANES] += row[i] * row[i];
    N sum = 0;
    for (const N part : sums) sum += part;
    const N norm = std::sqrt(sum);
    if (norm <= limit) return;
    const N factor = limit / norm;
    for (i = 0; i < length; ++i) row[i] *= factor;
}

template <typename N>
void limit_rows(const Update& update, void* const* weights, const int64_t* sizes, const int64_t* lengths) {
    const N limit = N(update.coefficients[0]);
    for_each_span(update.num_tensors, sizes, update.threads, [=](int64_t tensor, int64_t from, int64_t to) {
        const int64_t length = lengths[tensor];  // a row is the thread's in whose share it begins
        for (int64_t row = (from + length - 1) / length; row * length < to; ++row)
            limit_row(static_cast<N*>(weights[tensor]) + row * length, length, limit);
    });
}

}  // namespace

extern "C" {

// `operands` holds OPERANDS pointers for each tensor, of which the rule takes the first, and `sizes` their numbers.
bool update_tensors(const Update* update, void* const* operands, const int64_t* sizes) {
    return (update->is_double ? dispatch<double> : dispatch<float>)(*update, operands, sizes);
}

// `lengths` are those of the rows, of which each tensor is made up.
void limit_norms(const Update* update, void* const* weights, const int64_t* sizes, const int64_t* lengths) {
    (update->is_double ? limit_rows<double> : limit_rows<float>)(*update, weights, sizes, lengths);
}
}
