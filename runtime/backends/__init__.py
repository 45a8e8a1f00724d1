"""The session protocol and who keeps it: ONNX Runtime, TensorRT, fakes. No raster lives here."""
