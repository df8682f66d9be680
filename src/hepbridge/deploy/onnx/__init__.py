"""Models as ONNX files: from torch to a graph, checked, and run without torch."""
