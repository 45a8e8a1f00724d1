"""The CUDA kernels of `sfiin::SpectralFusion`, and ways to compile and call them."""
