"""The model server: ONNX behind the Open Inference Protocol. It runs in the model's own environment, with
numpy, onnxruntime and uvicorn of that, and imports nothing else of Quarterdeck.

    python -m quarterdeck_serve --name digits --version 3 model.onnx

It listens on $HOST:$PORT.
"""
