// The example of arrays, c_examples/array_histogram.cpp, with its kernels on the GPU.

#include "../c_examples/array_histogram.cpp"
