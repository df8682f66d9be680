// Refining or generating showers with a model that `hepbridge export` wrote: load, check, run.
//
//   hepbridge::Refiner refiner("model.onnx");              // reads model.json beside it
//   auto out = refiner.refine(n, cells, energy, noise);    // MeV in, MeV out
//
//   hepbridge::Generator generator("model.onnx");
//   auto out = generator.generate(n, energy, noise);
//
// One object may be used by several threads at once: a call changes nothing in it.
#pragma once

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <memory>
#include <new>
#include <sstream>
#include <string>
#include <vector>

#include "json.hpp"

#ifndef ORT_API_VERSION
#include "onnxruntime_v1.h"
#endif

namespace hepbridge {

// What refiners and generators have in common: the file, its contract, a session.
class Exported {
 public:
  struct Result {
    std::vector<float> cells;           // (n, n_cells), MeV
    std::unique_ptr<bool[]> outside;    // (n): outside the trained range
  };

  std::size_t n_cells() const { return n_cells_; }
  std::size_t noise_width() const { return noise_; }                              // normal numbers per shower
  const std::vector<std::string>& conditions() const { return conditions_; }      // further ones, in order
  const Json& contract() const { return contract_; }

 protected:
  Exported(const std::string& path, const std::string& format, int threads) {
    const std::string base = path.substr(0, path.rfind('.'));
    std::ifstream file(base + ".json");
    if (!file) throw Error("cannot read " + base + ".json, the contract of " + path);
    std::stringstream words;
    words << file.rdbuf();
    contract_ = JsonReader(words.str()).read();
    if (contract_["format"].str() != format || contract_["version"].value != 1)
      throw Error(base + ".json is no contract of version 1 of hepbridge (" + format + ")");
    if (contract_.members.count("host") && !contract_["host"].str().empty())
      throw Error(path + " was exported for " + contract_["host"].str());
    std::ifstream model(path, std::ios::binary | std::ios::ate);
    if (!model || static_cast<double>(model.tellg()) != contract_["bytes"].value)
      throw Error(path + " is missing, or not the file of its contract");
    for (const Json& tensor : contract_["inputs"].items) {
      const auto& shape = tensor["shape"].items;
      Input input{tensor["name"].str(), shape.size() > 1 ? static_cast<std::size_t>(shape[1].value) : 0};
      if (input.name == "cells" || input.name == "incident_energy") require(tensor, "MeV");
      if (shape[0].kind == Json::number) rows_ = static_cast<std::size_t>(shape[0].value);
      if (input.name == "noise") noise_ = input.columns;
      else if (input.name != "cells" && input.name != "incident_energy") conditions_.push_back(input.name);
      inputs_.push_back(input);
    }
    const auto& outputs = contract_["outputs"].items;
    require(outputs.at(0), "MeV");
    n_cells_ = static_cast<std::size_t>(outputs[0]["shape"].items.at(1).value);
    for (const Json& output : outputs) outputs_.push_back(output["name"].str());

    api_ = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    if (!api_) throw Error("this ONNX Runtime does not serve version " + std::to_string(ORT_API_VERSION) + " of its interface");
    env_ = owned<OrtEnv>(api_->ReleaseEnv, api_->CreateEnv, ORT_LOGGING_LEVEL_ERROR, "hepbridge");
    auto options = owned<OrtSessionOptions>(api_->ReleaseSessionOptions, api_->CreateSessionOptions);
    check(api_->SetIntraOpNumThreads(options.get(), threads));
    check(api_->SetSessionGraphOptimizationLevel(options.get(), ORT_ENABLE_ALL));
    session_ = owned<OrtSession>(api_->ReleaseSession, api_->CreateSession, env_.get(), path.c_str(), options.get());
    memory_ = owned<OrtMemoryInfo>(api_->ReleaseMemoryInfo, api_->CreateCpuMemoryInfo, OrtArenaAllocator, OrtMemTypeDefault);
    std::size_t count = 0;
    check(api_->SessionGetInputCount(session_.get(), &count));
    if (count != inputs_.size() || outputs_.size() != 2) throw Error(path + " has other inputs or outputs than its contract");
  }

  void require_calls(std::size_t n, const std::vector<const float*>& conditions) const {
    if (conditions.size() != conditions_.size())
      throw Error("the model takes " + std::to_string(conditions_.size()) + " further conditions");
    if (n > most()) throw Error(std::to_string(n) + " showers in one call are too many; hand in at most " + std::to_string(most()));
    if (rows_ && n != rows_) throw Error("the file was exported for another number of showers in a call");
  }
  Result run(std::size_t n, const float* cells, const float* energy, const float* noise, const std::vector<const float*>& conditions) const {
    Result out = room(n);
    Values values(api_);
    std::vector<const char*> names;
    std::size_t next = 0;
    for (const Input& input : inputs_) {
      const float* data = input.name == "cells" ? cells : input.name == "incident_energy" ? energy
                        : input.name == "noise" ? noise : conditions[next++];
      values.add(*this, const_cast<float*>(data), ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, sizeof(float), n, input.columns);
      names.push_back(input.name.c_str());
    }
    values.add(*this, out.cells.data(), ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, sizeof(float), n, n_cells_);
    values.add(*this, out.outside.get(), ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, sizeof(bool), n, 0);
    const char* outputs[] = {outputs_[0].c_str(), outputs_[1].c_str()};
    check(api_->Run(session_.get(), nullptr, names.data(), values.all.data(), names.size(), outputs, 2, &values.all[names.size()]));
    return out;
  }

  static void require_energies(const float* values, std::size_t n, const std::string& name) {
    for (std::size_t k = 0; k < n; ++k)
      if (!(values[k] >= 0 && values[k] <= std::numeric_limits<float>::max())) throw Error(name + " holds values that are negative, infinite or no number");
  }

  Json contract_;

 private:
  struct Input { std::string name; std::size_t columns; };  // 0 columns: one number per shower
  struct Values {                                           // released whatever happens
    explicit Values(const OrtApi* api) : api(api) {}
    ~Values() { for (OrtValue* value : all) api->ReleaseValue(value); }
    void add(const Exported& r, void* data, ONNXTensorElementDataType type, std::size_t size, std::size_t n, std::size_t columns) {
      const std::int64_t shape[] = {static_cast<std::int64_t>(n), static_cast<std::int64_t>(columns)};
      OrtValue* value = nullptr;
      r.check(api->CreateTensorWithDataAsOrtValue(r.memory_.get(), data, size * n * (columns ? columns : 1), shape, columns ? 2 : 1, type, &value));
      all.push_back(value);
    }
    const OrtApi* api;
    std::vector<OrtValue*> all;
  };

  void check(OrtStatus* status) const {
    if (!status) return;
    const std::string message = api_->GetErrorMessage(status);
    api_->ReleaseStatus(status);
    throw Error("ONNX Runtime: " + message);
  }
  template <class T, class Make, class... Arguments>
  std::shared_ptr<T> owned(void (*release)(T*), Make make, Arguments... arguments) const {
    T* made = nullptr;
    check(make(arguments..., &made));
    return {made, release};
  }
  static void require(const Json& tensor, const std::string& unit) {
    if (tensor["unit"].str() != unit) throw Error(tensor["name"].str() + " is in " + tensor["unit"].str() + ", this program gives " + unit);
  }

  std::size_t most() const { return (std::size_t{1} << 31) / std::max({n_cells_, noise_, std::size_t{1}}); }  // 8 GiB of floats
  Result room(std::size_t n) const {
    try {
      return {std::vector<float>(n * n_cells_), std::make_unique<bool[]>(n)};
    } catch (const std::bad_alloc&) {
      throw Error("no memory for " + std::to_string(n) + " showers in one call; hand in fewer at a time");
    }
  }

  std::vector<Input> inputs_;
  std::vector<std::string> conditions_, outputs_;
  std::size_t n_cells_ = 0, noise_ = 0, rows_ = 0;
  const OrtApi* api_ = nullptr;
  std::shared_ptr<OrtEnv> env_;  // released after the session
  std::shared_ptr<OrtMemoryInfo> memory_;
  std::shared_ptr<OrtSession> session_;
};

class Refiner : public Exported {
 public:
  explicit Refiner(const std::string& path, int threads = 1) : Exported(path, "hepbridge-onnx", threads) {
    for (const char* name : {"min", "max", "refused_below", "refused_above"})
      if (contract_["response"][name].kind != Json::number) throw Error("response of the contract holds no numbers");
    low_ = contract_["response"]["refused_below"].value;
    high_ = contract_["response"]["refused_above"].value;
  }

  // cells (n, n_cells) and energy (n) in MeV, noise (n, noise_width), conditions (n) each, in order
  Result refine(std::size_t n, const float* cells, const float* energy, const float* noise,
                const std::vector<const float*>& conditions = {}) const {
    require_calls(n, conditions);
    require_energies(cells, n * n_cells(), "cells");
    require_energies(energy, n, "incident_energy");
    for (std::size_t row = 0; row < n; ++row) require_response(row, cells + row * n_cells(), energy[row]);
    return run(n, cells, energy, noise, conditions);
  }

 private:
  // A shower that holds much less or more of the incident energy than any in the training: empty, or in other units.
  void require_response(std::size_t row, const float* cells, double energy) const {
    double sum = 0;
    for (std::size_t k = 0; k < n_cells(); ++k) sum += cells[k];
    if (energy > 0 && sum >= low_ * energy && sum <= high_ * energy) return;
    const Json& allowed = contract_["response"];
    std::ostringstream words;
    words << "shower " << row << " holds " << sum << " MeV in its cells at an incident energy of " << energy
          << " MeV; showers of this model hold " << allowed["min"].value << " to " << allowed["max"].value << " of it, and "
          << low_ << " to " << high_ << " is allowed: cells and incident energies must be in MeV, and empty showers must be left out";
    throw Error(words.str());
  }

  double low_ = 0, high_ = 0;  // energy in the cells over incident energy: what is refused
};

class Generator : public Exported {
 public:
  explicit Generator(const std::string& path, int threads = 1) : Exported(path, "hepbridge-onnx-generator", threads) {
    for (const Json& tensor : contract_["inputs"].items)
      if (tensor["name"].str() == "cells") throw Error("a generator takes no cells");
  }

  // energy (n) in MeV, noise (n, noise_width) standard normal, conditions (n) each, in order
  Result generate(std::size_t n, const float* energy, const float* noise, const std::vector<const float*>& conditions = {}) const {
    require_calls(n, conditions);
    require_energies(energy, n, "incident_energy");
    if (std::find(energy, energy + n, 0.0f) != energy + n) throw Error("incident_energy holds a zero");
    require_numbers(noise, n * noise_width(), "noise");
    for (std::size_t k = 0; k < conditions.size(); ++k) require_numbers(conditions[k], n, this->conditions()[k]);
    return run(n, nullptr, energy, noise, conditions);
  }

 private:
  static void require_numbers(const float* values, std::size_t n, const std::string& name) {
    for (std::size_t k = 0; k < n; ++k)
      if (!(std::abs(values[k]) <= std::numeric_limits<float>::max())) throw Error(name + " holds values that are infinite or no number");
  }
};

}  // namespace hepbridge
