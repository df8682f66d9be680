// Refine showers from one raw file into another, and say how long one shower takes.
//
//   refine model.onnx input.bin output.bin
//
// input.bin: a 64-bit number n, then as 32-bit floats the cells of n showers (MeV), their n incident
// energies (MeV), each further condition (n), and the noise. output.bin: the refined cells, as floats.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <fstream>

#include "hepbridge.hpp"

namespace {

std::vector<float> take(std::ifstream& file, std::size_t count) {
  std::vector<float> out(count);
  if (!file.read(reinterpret_cast<char*>(out.data()), static_cast<std::streamsize>(count * sizeof(float))))
    throw hepbridge::Error("the input file is too short for this model");
  return out;
}

double median_us(const hepbridge::Refiner& refiner, std::size_t n, const std::vector<float>& cells,
                 const std::vector<float>& energy, const std::vector<float>& noise,
                 const std::vector<std::vector<float>>& conditions) {
  std::vector<double> spent;
  std::vector<const float*> named(conditions.size());
  for (std::size_t k = 0; k < 2000; ++k) {
    const std::size_t row = k % n;
    for (std::size_t c = 0; c < named.size(); ++c) named[c] = &conditions[c][row];
    const auto began = std::chrono::steady_clock::now();
    refiner.refine(1, &cells[row * refiner.n_cells()], &energy[row], noise.data() + row * refiner.noise_width(), named);
    spent.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - began).count());
  }
  std::nth_element(spent.begin(), spent.begin() + 1000, spent.end());
  return spent[1000];
}

}  // namespace

int main(int count, char** words) try {
  if (count != 4) throw hepbridge::Error("usage: refine MODEL.onnx INPUT.bin OUTPUT.bin");
  const hepbridge::Refiner refiner(words[1]);
  std::ifstream file(words[2], std::ios::binary);
  std::int64_t n = 0;
  if (!file.read(reinterpret_cast<char*>(&n), sizeof n) || n < 1) throw hepbridge::Error("no showers in the input file");
  const auto rows = static_cast<std::size_t>(n);
  const std::size_t numbers = refiner.n_cells() + 1 + refiner.conditions().size() + refiner.noise_width();
  const auto there = file.seekg(0, std::ios::end).tellg() - std::streamoff{sizeof n};
  if (static_cast<std::uint64_t>(there) / sizeof(float) / numbers < rows)  // before memory is asked for
    throw hepbridge::Error("the input file is too short for this model: it says " + std::to_string(n) + " showers, and has room for "
                           + std::to_string(static_cast<std::uint64_t>(there) / sizeof(float) / numbers));
  file.seekg(sizeof n);
  const auto cells = take(file, rows * refiner.n_cells());
  const auto energy = take(file, rows);
  std::vector<std::vector<float>> conditions;
  std::vector<const float*> named;
  for (std::size_t k = 0; k < refiner.conditions().size(); ++k) conditions.push_back(take(file, rows));
  for (const auto& values : conditions) named.push_back(values.data());
  const auto noise = take(file, rows * refiner.noise_width());

  const auto out = refiner.refine(rows, cells.data(), energy.data(), noise.data(), named);
  std::ofstream result(words[3], std::ios::binary);
  result.write(reinterpret_cast<const char*>(out.cells.data()), static_cast<std::streamsize>(out.cells.size() * sizeof(float)));
  if (!result.flush()) throw hepbridge::Error(std::string("cannot write ") + words[3]);
  std::printf("showers %zu\noutside %td\nmedian_us %.1f\n", rows, std::count(out.outside.get(), out.outside.get() + rows, true),
              median_us(refiner, rows, cells, energy, noise, conditions));
} catch (const std::exception& error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return 1;
}
