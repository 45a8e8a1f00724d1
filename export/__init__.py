"""From a checkpoint to a checked ONNX graph: Fourier lowerings, graph building, parity."""
