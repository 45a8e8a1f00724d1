"""The lean runtime: a model and its contract, scenes cut into tiles, and the command `sfiin`.

Imports neither torch nor onnx, at any depth; a backend (onnxruntime, TensorRT) only when a model is opened.
"""
