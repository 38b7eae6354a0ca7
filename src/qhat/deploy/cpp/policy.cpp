// @NAME@, in C++ with onnxruntime. Written by qhat @VERSION@.
// Reads observations of @SIZE@ numbers from standard input; writes an action of @COUNT@ for each.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <iostream>
#include <stdexcept>
#include <vector>

#include <onnxruntime_cxx_api.h>

class Policy {
 public:
  static constexpr std::array<int64_t, @RANK@> kShape{@SHAPE@};
  using Observation = std::array<@NUMBER@, @SIZE@>;
  using Action = std::array<@ACTION@, @COUNT@>;

  explicit Policy(const char* graph) : session_(env_, graph, Options()) {}
@RESET@
  Action Act(Observation observation) {
    for (auto number : observation)
      if (!std::isfinite(static_cast<double>(number))) throw std::invalid_argument("a number is not finite");
    const auto cpu = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    std::vector<Ort::Value> in;
    in.push_back(Ort::Value::CreateTensor<@NUMBER@>(cpu, observation.data(), observation.size(), kShape.data(), kShape.size()));
@STATE@
    auto out = session_.Run(Ort::RunOptions{nullptr}, kInputs.data(), in.data(), in.size(), kOutputs.data(), kOutputs.size());
@KEEP@
    Action action;
    std::copy_n(out[0].GetTensorData<@ACTION@>(), action.size(), action.begin());
    return action;
  }

 private:
  static Ort::SessionOptions Options() {
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(1);  // a small network is slower on several threads
    return options;
  }

  static constexpr std::array<const char*, @INPUTS@> kInputs{@INPUTNAMES@};
  static constexpr std::array<const char*, @OUTPUTS@> kOutputs{@OUTPUTNAMES@};
@MEMBERS@
  Ort::Env env_{ORT_LOGGING_LEVEL_WARNING, "policy"};
  Ort::Session session_;
};

int main(int count, char** words) {
  Policy policy(count > 1 ? words[1] : "policy.onnx");
  Policy::Observation observation;
  std::cout.precision(9);
  for (double number; std::cin;) {
    for (auto& place : observation)
      if (std::cin >> number) place = static_cast<@NUMBER@>(number);
    if (!std::cin) break;
    for (auto number : policy.Act(observation)) std::cout << +number << ' ';
    std::cout << std::endl;
  }
}
