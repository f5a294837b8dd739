"""ONNX Runtime and OpenVINO behind the line protocol of the runners: `TOKENS RUNS` in, the milliseconds
of each run out, one thread."""

import sys
import time

import numpy as np


def onnx_runtime(path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda ids: session.run(None, {"input_ids": ids})[0]


def openvino(path):
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    compiled = {}

    def run(ids):
        length = ids.shape[1]
        # OpenVINO is at its best with the shape fixed when it compiles.
        if length not in compiled:
            model = core.read_model(path)
            model.reshape({"input_ids": [1, length]})
            compiled[length] = core.compile_model(model, "CPU", settings).create_infer_request()
        return compiled[length].infer({"input_ids": ids})

    return run


def main():
    run = {"onnxruntime": onnx_runtime, "openvino": openvino}[sys.argv[1]](sys.argv[2])
    for line in sys.stdin:
        tokens, runs = map(int, line.split())
        ids = (np.arange(tokens) * 7919 % 30522).astype(np.int64)[None]
        run(ids)
        times = []
        for _ in range(runs):
            start = time.perf_counter()
            run(ids)
            times.append((time.perf_counter() - start) * 1e3)
        print(*times, flush=True)


main()
