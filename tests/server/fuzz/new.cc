// Goes before the sanitizer's own operator new, which ends the process where it should throw: a request for more memory
// than there is has to get an error. What it gives is still malloc's, and so is watched.
#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

void* OrNull(std::size_t size, std::align_val_t alignment = std::align_val_t(alignof(std::max_align_t))) {
  void* memory = nullptr;
  return posix_memalign(&memory, static_cast<std::size_t>(alignment), size) == 0 ? memory : nullptr;
}

void* OrThrow(void* memory) {
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

using std::align_val_t;
using std::nothrow_t;
using std::size_t;

void* operator new(size_t n) { return OrThrow(OrNull(n)); }
void* operator new[](size_t n) { return OrThrow(OrNull(n)); }
void* operator new(size_t n, align_val_t a) { return OrThrow(OrNull(n, a)); }
void* operator new[](size_t n, align_val_t a) { return OrThrow(OrNull(n, a)); }
void* operator new(size_t n, const nothrow_t&) noexcept { return OrNull(n); }
void* operator new[](size_t n, const nothrow_t&) noexcept { return OrNull(n); }
void* operator new(size_t n, align_val_t a, const nothrow_t&) noexcept { return OrNull(n, a); }
void* operator new[](size_t n, align_val_t a, const nothrow_t&) noexcept { return OrNull(n, a); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t) noexcept { std::free(p); }
void operator delete(void* p, align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, align_val_t) noexcept { std::free(p); }
void operator delete(void* p, size_t, align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t, align_val_t) noexcept { std::free(p); }
void operator delete(void* p, const nothrow_t&) noexcept { std::free(p); }
void operator delete[](void* p, const nothrow_t&) noexcept { std::free(p); }
