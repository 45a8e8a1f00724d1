"""sfiin: a trained pan-sharpening network from PyTorch to ONNX, TensorRT and GeoTIFF."""

__version__ = "0.1.0"
