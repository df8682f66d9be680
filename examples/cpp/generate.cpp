// Generate showers: conditions and noise from one raw file, cells into another.
//
//   generate model.onnx input.bin output.bin
//
// input.bin: a 64-bit number n, then as 32-bit floats n incident energies (MeV), each further condition
// (n), and the noise (n, noise_width). output.bin: the cells, as floats.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>

#include "hepbridge.hpp"

int main(int count, char** words) try {
  if (count != 4) throw hepbridge::Error("usage: generate MODEL.onnx INPUT.bin OUTPUT.bin");
  const hepbridge::Generator generator(words[1]);
  std::ifstream file(words[2], std::ios::binary);
  std::int64_t n = 0;
  if (!file.read(reinterpret_cast<char*>(&n), sizeof n) || n < 1) throw hepbridge::Error("no showers in the input file");
  const auto rows = static_cast<std::size_t>(n);
  const std::size_t numbers = 1 + generator.conditions().size() + generator.noise_width();
  const auto there = static_cast<std::uint64_t>(file.seekg(0, std::ios::end).tellg() - std::streamoff{sizeof n});
  if (there / sizeof(float) / numbers < rows)  // before memory is asked for
    throw hepbridge::Error("the input file is too short for " + std::to_string(n) + " showers of this model");
  std::vector<float> all(rows * numbers);
  file.seekg(sizeof n);
  if (!file.read(reinterpret_cast<char*>(all.data()), static_cast<std::streamsize>(all.size() * sizeof(float))))
    throw hepbridge::Error("the input file cannot be read");
  std::vector<const float*> conditions;
  for (std::size_t k = 0; k < generator.conditions().size(); ++k) conditions.push_back(&all[(k + 1) * rows]);

  const auto out = generator.generate(rows, all.data(), &all[(conditions.size() + 1) * rows], conditions);
  std::ofstream result(words[3], std::ios::binary);
  result.write(reinterpret_cast<const char*>(out.cells.data()), static_cast<std::streamsize>(out.cells.size() * sizeof(float)));
  if (!result.flush()) throw hepbridge::Error(std::string("cannot write ") + words[3]);
  std::printf("showers %zu\noutside %td\n", rows, std::count(out.outside.get(), out.outside.get() + rows, true));
} catch (const std::exception& error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return 1;
}
