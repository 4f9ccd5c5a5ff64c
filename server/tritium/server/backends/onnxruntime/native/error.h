// One exception inside, one error object outside: nothing is thrown across the C boundary.
#pragma once

#include <exception>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#include "triton_api.h"

namespace tritium {

// What is wrong, what would be right, and Triton's code for it.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code(code) {}
  const ErrorCode code;
};

// For what the user has to mend: a request, a config.
inline Error Invalid(const std::string& message) { return Error(ErrorCode::kInvalidArg, message); }

// Throws what a call into Triton reports.
inline void Check(TRITONSERVER_Error* error) {
  if (error == nullptr) return;
  const std::unique_ptr<TRITONSERVER_Error, void (*)(TRITONSERVER_Error*)> owner(error, TRITONSERVER_ErrorDelete);
  throw Error(TRITONSERVER_ErrorCode(error), TRITONSERVER_ErrorMessage(error));
}

// A line in Triton's log, if that level is on; there is nothing to be done where it cannot be written.
inline void Log(LogLevel level, const char* message) noexcept {
  if (!TRITONSERVER_LogIsEnabled(level)) return;
  if (auto* error = TRITONSERVER_LogMessage(level, "tritium", 0, message)) TRITONSERVER_ErrorDelete(error);
}

inline void Log(LogLevel level, const std::string& message) noexcept { Log(level, message.c_str()); }

// For calls whose failure changes nothing any more: it is logged.
inline void Report(TRITONSERVER_Error* error, const char* what) noexcept {
  if (error == nullptr) return;
  Log(LogLevel::kError, what);
  Log(LogLevel::kError, TRITONSERVER_ErrorMessage(error));
  TRITONSERVER_ErrorDelete(error);
}

// Runs a function and turns whatever it throws into Triton's error object.
template <class Function>
TRITONSERVER_Error* Guarded(Function&& function) noexcept {
  try {
    function();
    return nullptr;
  } catch (const Error& error) {
    return TRITONSERVER_ErrorNew(error.code, error.what());
  } catch (const std::bad_alloc&) {
    return TRITONSERVER_ErrorNew(ErrorCode::kUnavailable, "there is not enough memory");
  } catch (const std::exception& error) {
    return TRITONSERVER_ErrorNew(ErrorCode::kInternal, error.what());
  } catch (...) {
    return TRITONSERVER_ErrorNew(ErrorCode::kInternal, "an unknown exception");
  }
}

}  // namespace tritium
