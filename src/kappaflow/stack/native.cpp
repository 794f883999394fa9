// The operations of operations.py without the interpreter: the same names, operands and results.
//
// Each operation makes the ATen calls of Python, so its results are bit-identical. Some that would
// pass over memory several times have a loop for float32 instead, which passes over it once; its
// results are equal up to rounding, and `exact` disables it.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/ScalarOps.h>
#include <ATen/core/grad_mode.h>
#include <ATen/cpu/vec/vec.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace py = pybind11;
using at::Tensor;
using Vec = at::vec::Vectorized<float>;

namespace {

// The operands of an operation, in the order of its definition, separated by kind. None is an
// undefined tensor.
struct Operands {
  c10::SmallVector<Tensor, 8> tensors;
  c10::SmallVector<double, 4> numbers;
  std::optional<at::Generator> generator;
  bool exact = false;

  const Tensor& operator[](size_t i) const { return tensors.at(i); }
  double number(size_t i) const { return numbers.at(i); }
};

// Whether all tensors from index `first` are float32 and contiguous.
bool plain(const Operands& o, size_t first = 0) {
  if (o.exact) return false;
  for (size_t i = first; i < o.tensors.size(); ++i) {
    const Tensor& t = o.tensors[i];
    if (t.defined() && !(t.scalar_type() == at::kFloat && t.is_contiguous())) return false;
  }
  return true;
}

float* data(const Tensor& t) { return t.defined() ? t.data_ptr<float>() : nullptr; }

// Calls `pass(i, n)` for chunks of n numbers that start at i; n is the size of a register or less.
template <typename Pass>
void each(int64_t count, const Pass& pass) {
  int64_t i = 0;
  for (; i + Vec::size() <= count; i += Vec::size()) pass(i, Vec::size());
  if (i < count) pass(i, count - i);
}

Vec load(const float* p, int64_t n) {
  return n == Vec::size() ? Vec::loadu(p) : Vec::loadu(p, n);
}

void store(const Vec& v, float* p, int64_t n) {
  n == Vec::size() ? v.store(p) : v.store(p, static_cast<int>(n));
}

Tensor upper(const Tensor& t, const Tensor& like) { return t.narrow(0, 0, like.size(0)); }

Tensor lower(const Tensor& t, int64_t first) { return t.narrow(0, first, t.size(0) - first); }

// Multiplies as Python does; at::mul would first round the number to the dtype of the tensor.
void multiply(const Tensor& x, double number, Tensor target) {
  const Tensor factor = c10::scalar_to_tensor(number);
  factor.unsafeGetTensorImpl()->set_wrapped_number(true);
  at::mul_out(target, x, factor);
}

void copy(const Operands& o) { o[1].copy_(o[0]); }

void add(const Operands& o) { o[1].add_(o[0]); }

void negate(const Operands& o) { o[0].neg_(); }

void move(const Operands& o) {
  const Tensor &index = o[0], &below = o[2], &target = o[3], &target_below = o[4];
  Tensor rows = below.defined() ? at::cat({o[1], below}) : o[1];
  if (index.defined()) rows = rows.index_select(0, index);
  target.copy_(upper(rows, target));
  if (target_below.defined()) target_below.copy_(lower(rows, target.size(0)));
}

void project(const Operands& o) {
  Tensor target = o[2];
  at::mv_out(target, o[0].t(), o[1]);
}

void linear(const Operands& o) {
  const Tensor &bias = o[0], &weight = o[1], &h = o[2], &context_weight = o[3], &context = o[4];
  Tensor target = o[5];
  at::addmm_out(target, bias, weight, h);
  if (context.defined()) at::addmm_out(target, target, context_weight, context);
  if (o.number(0) != 0) target.relu_();
}

void seed(const Operands& o) {
  at::Generator generator = o.generator.value();
  std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_current_seed(static_cast<uint64_t>(o.number(0)));
}

void drop(const Operands& o) {
  const Tensor &words = o[0], &levels = o[1], &h = o[3];
  Tensor dropped = o[2];
  const double left_out = o.number(0), scale = o.number(1);
  words.random_(std::numeric_limits<int64_t>::min(), std::nullopt, o.generator);
  if (!o.exact && h.scalar_type() == at::kFloat && h.is_contiguous()) {
    const auto* level = levels.data_ptr<uint8_t>();
    const auto least = static_cast<uint8_t>(left_out);
    const auto factor = static_cast<float>(scale);
    float* unit = data(h);
    const int64_t count = h.numel();
    for (int64_t i = 0; i < count; ++i) unit[i] = level[i] < least ? 0.0f : unit[i] * factor;
    return;
  }
  at::lt_out(dropped, levels, left_out);
  multiply(h, scale, h);
  h.masked_fill_(dropped, 0.0);
}

void residual(const Operands& o) {
  Tensor target = o[3];
  at::add_out(target, o[1].defined() ? at::cat({o[0], o[1]}) : o[0], o[2]);
}

// Calls `pass(i, n, sigmoid, bits)` with the values that `write_bits` writes.
template <typename Pass>
void each_bits(const Tensor& answer, const Operands& o, size_t first, const Tensor& factor,
               const Pass& pass) {
  const Vec offset(o[first].item<float>()), steepness(o.number(0)), width(o.number(1));
  const float* raw = data(answer);
  each(factor.numel(), [&](int64_t i, int64_t n) {
    const Vec sigmoid = Vec(1.0f) / (Vec(1.0f) + (load(raw + i, n) * steepness).neg().exp());
    pass(i, n, sigmoid, offset + width * sigmoid);
  });
}

void write_bits(const Operands& o, size_t first, const Tensor& answer, Tensor sigmoid,
                Tensor bits) {
  multiply(upper(answer, bits), o.number(0), sigmoid);
  sigmoid.sigmoid_();
  at::add_out(bits, o[first], sigmoid, o.number(1));
}

void scale(const Operands& o) {
  const Tensor &answer = o[0], &sigmoid = o[2], &factor = o[3];
  if (plain(o)) {
    float *s = data(sigmoid), *f = data(factor);
    return each_bits(answer, o, 1, factor, [&](int64_t i, int64_t n, Vec at, Vec bits) {
      store(at, s + i, n);
      store(bits.exp2(), f + i, n);
    });
  }
  write_bits(o, 1, answer, sigmoid, factor);
  o[3].exp2_();
}

void affine(const Operands& o) {
  const Tensor &x = o[0], &answer = o[1], &sigmoid = o[3], &factor = o[4], &log_scales = o[5];
  Tensor target = o[6];
  const bool inverse = o.number(1) < 0;
  if (plain(o)) {
    const float *from = data(x), *shift = data(answer) + factor.numel();
    float *s = data(sigmoid), *f = data(factor), *sum = data(log_scales), *to = data(target);
    return each_bits(answer, o, 2, factor, [&](int64_t i, int64_t n, Vec at, Vec bits) {
      const Vec by = bits.exp2(), v = load(from + i, n), t = load(shift + i, n);
      store(at, s + i, n);
      store(by, f + i, n);
      store(load(sum + i, n) + bits, sum + i, n);
      store(inverse ? (v - t) * by : v * by + t, to + i, n);
    });
  }
  write_bits(o, 2, answer, sigmoid, factor);
  log_scales.add_(factor);
  factor.exp2_();
  const Tensor shift = lower(answer, factor.size(0));
  if (inverse) {
    at::sub_out(target, x, shift).mul_(factor);
  } else {
    at::addcmul_out(target, shift, x, factor);
  }
}

void affine_back(const Operands& o) {
  const Tensor &factor = o[0], &answer = o[1], &y = o[2];
  const Tensor shift = lower(answer, factor.size(0));
  if (o.number(0) > 0) {
    y.sub_(shift).div_(factor);
  } else {
    y.div_(factor).add_(shift);
  }
}

void affine_pull_loop(const Operands& o) {
  const Tensor &answer = o[3], &back = o[5], &slope = o[6];
  const int64_t columns = back.size(1), changed = back.size(0), half = back.numel();
  const bool inverse = o.number(0) < 0;
  const Vec weight(static_cast<float>(o.number(0))), one(1.0f);
  const Tensor of_log_det = o[4].contiguous();
  for (int64_t row = 0; row < changed; ++row) {
    const int64_t start = row * columns;
    const float *x = data(o[0]) + start, *factor = data(o[1]) + start, *s = data(o[2]) + start;
    const float *shift = data(answer) + half + start, *log_det = data(of_log_det);
    float *to_x = data(back) + start, *raw = data(slope) + start, *of_y = raw + half;
    each(columns, [&](int64_t i, int64_t n) {
      const Vec of_x = load(of_y + i, n) * load(factor + i, n), at = load(s + i, n);
      Vec moved = load(x + i, n);
      if (inverse) {
        moved = moved - load(shift + i, n);
        store(of_x.neg(), of_y + i, n);
      }
      store(of_x, to_x + i, n);
      store((load(log_det + i, n) + weight * of_x * moved) * ((one - at) * at), raw + i, n);
    });
  }
}

void affine_pull(const Operands& o) {
  const Tensor &factor = o[1], &sigmoid = o[2], &answer = o[3], &log_det = o[4], &slope = o[6];
  Tensor x = o[0], back = o[5];
  if (plain(o)) return affine_pull_loop(o);
  const int64_t changed = back.size(0);
  Tensor raw = upper(slope, back), shift = lower(slope, changed);
  at::mul_out(back, shift, factor);
  if (o.number(0) < 0) {
    at::neg_out(shift, back);
    x = at::sub_out(raw, x, lower(answer, changed));
  }
  at::addcmul_out(raw, log_det, back, x, o.number(0));
  at::sigmoid_backward_out(raw, raw, sigmoid);
}

// The curves of `write_curve` in operations.py, by the same numbers.
void write_curve(const Operands& o, const Tensor& answer, Tensor slope, Tensor bits) {
  const auto number = static_cast<int>(o.number(0));
  const double bound = o.number(1), unit = o.number(2) * (1 / std::log(2.0));
  const Tensor raw = upper(answer, bits);
  const auto softplus = [&](const Tensor& of, double by) {
    at::logaddexp_out(bits, of, at::zeros({}, of.options()));
    multiply(bits, by, bits);
    at::sigmoid_out(slope, of);
  };
  if (number == 0) {
    at::abs_out(slope, raw);
    multiply(slope, 1 / bound, slope);
    slope.add_(1).reciprocal_();
    at::mul_out(bits, raw, slope);
    multiply(bits, unit, bits);
    slope.square_();
  } else if (number == 1) {
    const double steepness = std::acos(-1.0) / (2 * bound);
    multiply(raw, steepness, slope);
    at::atan_out(bits, slope);
    multiply(bits, unit / steepness, bits);
    slope.square_().add_(1).reciprocal_();
  } else if (number == 2) {
    multiply(raw, unit, bits);
    slope.fill_(1);
  } else if (number == 3) {
    at::sigmoid_out(slope, raw);
    at::add_out(bits, slope, c10::scalar_to_tensor(std::exp(-bound)).to(slope.scalar_type()));
    at::addcmul_out(slope, slope, slope, slope, -1).div_(bits);
    bits.log_();
    multiply(bits, unit, bits);
  } else if (number == 4) {
    at::neg_out(slope, raw);
    softplus(slope, -unit);
  } else {
    softplus(raw, unit);
  }
}

void curve(const Operands& o) {
  write_curve(o, o[0], o[1], o[2]);
  Tensor factor = o[2];
  factor.exp2_();
}

void curve_affine(const Operands& o) {
  const Tensor &x = o[0], &answer = o[1], &factor = o[3], &log_scales = o[4];
  Tensor target = o[5];
  write_curve(o, answer, o[2], factor);
  log_scales.add_(factor);
  factor.exp2_();
  const Tensor shift = lower(answer, factor.size(0));
  if (o.number(2) < 0) {
    at::sub_out(target, x, shift).mul_(factor);
  } else {
    at::addcmul_out(target, shift, x, factor);
  }
}

void curve_pull(const Operands& o) {
  const Tensor &factor = o[1], &curve = o[2], &answer = o[3], &log_det = o[4], &slope = o[6];
  Tensor x = o[0], back = o[5];
  const int64_t changed = back.size(0);
  Tensor raw = upper(slope, back), shift = lower(slope, changed);
  at::mul_out(back, shift, factor);
  if (o.number(0) < 0) {
    at::neg_out(shift, back);
    x = at::sub_out(raw, x, lower(answer, changed));
  }
  at::addcmul_out(raw, log_det, back, x, o.number(0));
  raw.mul_(curve);
}

void relu(const Operands& o) {
  Tensor target = o[1];
  at::clamp_min_out(target, o[0], 0);
}

void shift(const Operands& o) {
  Tensor target = o[2];
  at::add_out(target, o[0], o[1], o.number(0));
}

void layer_pull(const Operands& o) {
  const Tensor &active = o[2], &carried = o[3], &carried_on = o[4];
  Tensor back = o[5];
  const double scale = o.number(0);
  at::mm_out(back, o[0], o[1]);
  if (plain(o, 2)) {
    const Vec factor(static_cast<float>(scale)), zero(0.0f);
    const float *unit = data(active), *by = data(carried);
    float *slope = data(back), *by_on = data(carried_on);
    each(back.numel(), [&](int64_t i, int64_t n) {
      Vec g = load(slope + i, n);
      if (by != nullptr) g = g + load(by + i, n);
      if (by_on != nullptr) store(g, by_on + i, n);
      store(Vec::blendv(g * factor, zero, load(unit + i, n) <= zero), slope + i, n);
    });
    return;
  }
  if (carried.defined()) back.add_(carried);
  if (carried_on.defined()) carried_on.copy_(back);
  at::threshold_backward_out(back, back, active, 0);
  if (scale != 1.0) multiply(back, scale, back);
}

void product(const Tensor& a, const Tensor& b, double beta, Tensor target) {
  if (a.scalar_type() == target.scalar_type()) {
    at::addmm_out(target, target, a, b, beta);
  } else if (beta != 0) {
    target.add_(at::mm(a, b));
  } else {
    target.copy_(at::mm(a, b));
  }
}

void add_product(const Operands& o) { product(o[0], o[1], o.number(0), o[2]); }

void add_outer(const Operands& o) { product(o[0], o[1].t(), o.number(0), o[2]); }

void add_columns(const Operands& o) {
  Tensor target = o[2];
  at::addmv_out(target, target, o[0].to(o[1].scalar_type()), o[1], o.number(0));
}

const std::vector<std::pair<std::string, void (*)(const Operands&)>> OPERATIONS = {
    {"copy", copy},           {"add", add},
    {"negate", negate},       {"move", move},
    {"project", project},     {"linear", linear},
    {"seed", seed},           {"drop", drop},
    {"residual", residual},   {"scale", scale},
    {"affine", affine},       {"affine_back", affine_back},
    {"affine_pull", affine_pull}, {"shift", shift},
    {"layer_pull", layer_pull},   {"add_product", add_product},
    {"add_outer", add_outer}, {"add_columns", add_columns},
    {"curve", curve},         {"curve_affine", curve_affine},
    {"curve_pull", curve_pull}, {"relu", relu},
};

std::pair<size_t, Operands> read(const py::handle& entry, bool exact) {
  const auto parts = py::cast<py::tuple>(entry);
  std::pair<size_t, Operands> found;
  found.first = py::cast<size_t>(parts[0]);
  Operands& o = found.second;
  o.exact = exact;
  for (size_t i = 1; i < parts.size(); ++i) {
    PyObject* part = PyTuple_GET_ITEM(parts.ptr(), static_cast<Py_ssize_t>(i));
    if (THPVariable_Check(part)) {
      o.tensors.push_back(THPVariable_Unpack(part));
    } else if (part == Py_None) {
      o.tensors.emplace_back();
    } else if (PyFloat_Check(part) || PyLong_Check(part)) {
      o.numbers.push_back(PyFloat_AsDouble(part));
    } else {
      o.generator = py::cast<at::Generator>(py::handle(part));
    }
  }
  return found;
}

class Tape {
 public:
  Tape(const py::list& entries, bool exact) {
    steps_.reserve(entries.size());
    for (const py::handle entry : entries) steps_.push_back(read(entry, exact));
  }

  void execute() const {
    const at::NoGradGuard nothing_is_recorded;
    const at::AutoDispatchBelowADInplaceOrView straight_to_the_kernels;
    for (const auto& [code, operands] : steps_) OPERATIONS.at(code).second(operands);
  }

 private:
  std::vector<std::pair<size_t, Operands>> steps_;
};

// Sets the number of torch's threads for the calling thread, and restores it at the end.
class Threads {
 public:
  explicit Threads(int number, int before) : before_(before) { at::set_num_threads(number); }
  ~Threads() { at::set_num_threads(before_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

// Executes each tape on its own thread, with single-threaded products.
void execute(const std::vector<const Tape*>& tapes) {
  const py::gil_scoped_release others_may_run;
  const int before = at::get_num_threads(), count = static_cast<int>(tapes.size());
  const Threads enough(std::max(before, count), before);
  at::parallel_for(0, count, 1, [&](int64_t first, int64_t end) {
    const Threads one(1, before);
    for (int64_t i = first; i < end; ++i) tapes[i]->execute();
  });
}

std::vector<std::string> names() {
  std::vector<std::string> found;
  for (const auto& operation : OPERATIONS) found.push_back(operation.first);
  return found;
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
  py::class_<Tape>(module, "Tape")
      .def(py::init<const py::list&, bool>(), py::arg("entries"), py::arg("exact") = false);
  module.def("execute", &execute);
  module.def("names", &names);
}
