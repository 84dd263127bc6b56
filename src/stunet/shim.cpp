// What tch does not reach in libtorch: its thread pool, convolutions with prepacked weights, TF32, page-locked memory and
// the device cache.
// ATen headers only; none of CUDA's. Every function that can fail returns null, or a message that the caller frees.

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/empty.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace {

template <typename Body>
char* guarded(Body body) {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& e) {
    return strdup(e.what_without_backtrace());
  } catch (const std::exception& e) {
    return strdup(e.what());
  } catch (...) {
    return strdup("an exception of unknown type");
  }
}

at::IntArrayRef three(const int64_t* values) { return {values, 3}; }

std::optional<at::Tensor> optional(const at::Tensor* tensor) { return tensor ? std::make_optional(*tensor) : std::nullopt; }

using Scalars = c10::List<std::optional<at::Scalar>>;

// Of this thread: which allocations fail. What is seen and not counted by `least` is left alone.
struct Shortage {
  bool armed = false;
  int64_t least = 0, spared = 0, failures = 0, seen = 0;
};
thread_local Shortage shortage;

// libtorch's own allocator of host memory, but for threads that are short of it.
struct ShortAllocator final : c10::Allocator {
  explicit ShortAllocator(c10::Allocator* real) : real(real) {}
  c10::DataPtr allocate(size_t n) override {
    if (shortage.armed && static_cast<int64_t>(n) >= shortage.least) {
      const bool fails = shortage.seen >= shortage.spared && shortage.seen - shortage.spared < shortage.failures;
      shortage.seen += 1;
      TORCH_CHECK(!fails, "DefaultCPUAllocator: can't allocate memory: you tried to allocate ", n, " bytes.");
    }
    return real->allocate(n);
  }
  c10::DeleterFnPtr raw_deleter() const override { return real->raw_deleter(); }
  void copy_data(void* to, const void* from, size_t n) const override { real->copy_data(to, from, n); }
  c10::Allocator* real;
};

}  // namespace

extern "C" {

void stunetd_free(char* message) { free(message); }

// Runs body(context, begin, end) over parts of 0..n on libtorch's own threads, so that no second pool competes with it.
void stunetd_parallel(int64_t n, void (*body)(void*, int64_t, int64_t), void* context) {
  at::parallel_for(0, n, 1, [&](int64_t begin, int64_t end) { body(context, begin, end); });
}

// A convolution weight in the layout that oneDNN wants for channels-last inputs of `input` = [N, C, X, Y, Z].
char* stunetd_pack_conv3d(const at::Tensor* weight, const int64_t* padding, const int64_t* stride, const int64_t* input, at::Tensor** out) {
  return guarded([&] {
    static auto pack = c10::Dispatcher::singleton()
                           .findSchemaOrThrow("mkldnn::_reorder_convolution_weight", "")
                           .typed<at::Tensor(const at::Tensor&, at::IntArrayRef, at::IntArrayRef, at::IntArrayRef, int64_t, at::OptionalIntArrayRef)>();
    const int64_t ones[3] = {1, 1, 1};
    *out = new at::Tensor(pack.call(*weight, three(padding), three(stride), three(ones), 1, at::IntArrayRef(input, 5)));
  });
}

// A convolution of a channels-last input with a packed weight; the output is channels-last. With `sum`, the result is
// added to that tensor in place and returned as it.
char* stunetd_conv3d(const at::Tensor* x, const at::Tensor* weight, const at::Tensor* bias, const int64_t* padding, const int64_t* stride,
                     at::Tensor* sum, at::Tensor** out) {
  return guarded([&] {
    const int64_t ones[3] = {1, 1, 1};
    if (sum) {
      static auto add = c10::Dispatcher::singleton()
                            .findSchemaOrThrow("mkldnn::_convolution_pointwise_", "binary")
                            .typed<at::Tensor&(at::Tensor&, const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                                               at::IntArrayRef, at::IntArrayRef, at::IntArrayRef, int64_t, std::string_view,
                                               std::optional<at::Scalar>, std::optional<std::string_view>, Scalars,
                                               std::optional<std::string_view>)>();
      at::Tensor& y = add.call(*sum, *x, *weight, optional(bias), three(padding), three(stride), three(ones), 1, "add", at::Scalar(1.0),
                               std::nullopt, Scalars(), std::nullopt);
      *out = new at::Tensor(y);
    } else {
      static auto conv = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mkldnn::_convolution_pointwise", "")
                             .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, at::IntArrayRef,
                                               at::IntArrayRef, at::IntArrayRef, int64_t, std::string_view, Scalars,
                                               std::optional<std::string_view>)>();
      *out = new at::Tensor(
          conv.call(*x, *weight, optional(bias), three(padding), three(stride), three(ones), 1, "none", Scalars(), std::nullopt));
    }
  });
}

// Whether CUDA may compute f32 in TF32 (10 bits of mantissa).
char* stunetd_allow_tf32(bool allow) {
  return guarded([&] {
    at::globalContext().setAllowTF32CuDNN(allow);
    at::globalContext().setAllowTF32CuBLAS(allow);
  });
}

// Whether the CUDA device convolves bf16 in hardware (compute capability 8 or later).
char* stunetd_cuda_has_bf16(bool* out) {
  return guarded([&] { *out = at::globalContext().hasCUDA() && at::detail::getCUDAHooks().supportsBFloat16ConvolutionWithCuDNNv8(); });
}

// Bytes of page-locked host memory, uninitialised; an error without an accelerator. Freed ones are kept for the next call.
char* stunetd_pinned(int64_t bytes, at::Tensor** out) {
  return guarded([&] { *out = new at::Tensor(at::empty({bytes}, at::TensorOptions().dtype(at::kByte).pinned_memory(true))); });
}

// Gives cached memory that no tensor uses back to the CUDA driver.
char* stunetd_empty_cuda_cache() {
  return guarded([&] {
    if (at::globalContext().hasCUDA()) c10::getDeviceAllocator(c10::DeviceType::CUDA)->emptyCache();
  });
}

// Bytes on a CUDA device: free and total as the driver sees them, in tensors now, the most in tensors so far, and taken from
// the driver for tensors and for the cache.
char* stunetd_cuda_memory(int device, int64_t* out) {
  return guarded([&] {
    auto* allocator = c10::getDeviceAllocator(c10::DeviceType::CUDA);
    const auto index = static_cast<c10::DeviceIndex>(device);
    const auto [free, total] = allocator->getMemoryInfo(index);
    const auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    const auto stats = allocator->getDeviceStats(index);
    const auto bytes = stats.allocated_bytes[all];
    out[0] = static_cast<int64_t>(free);
    out[1] = static_cast<int64_t>(total);
    out[2] = bytes.current;
    out[3] = bytes.peak;
    out[4] = stats.reserved_bytes[all].current;
  });
}

// Counts the most bytes in tensors from now on.
char* stunetd_reset_cuda_peak(int device) {
  return guarded([&] { c10::getDeviceAllocator(c10::DeviceType::CUDA)->resetPeakStats(static_cast<c10::DeviceIndex>(device)); });
}

// On this thread, of the allocations of at least `least` bytes of host memory, the first `spared` succeed and the next `failures` fail.
// With `least` below zero all succeed again. Answers how many there were since the last call.
char* stunetd_run_short(int64_t least, int64_t spared, int64_t failures, int64_t* seen) {
  return guarded([&] {
    // Put in place by the first call, so that a process that never asks has libtorch's own.
    static ShortAllocator* allocator = [] {
      auto* made = new ShortAllocator(c10::GetCPUAllocator());
      c10::SetCPUAllocator(made, 1);
      return made;
    }();
    (void)allocator;
    *seen = shortage.seen;
    shortage = Shortage{least >= 0, least, spared, failures, 0};
  });
}

}  // extern "C"
