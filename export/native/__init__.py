"""What runs a network on a CPU? The native kernels, in C++."""
