"""ray.serve.llm is not part of rserve; importing it says what to use instead."""

raise ImportError(
    "ray.serve.llm is not available in rserve: it is vLLM wrapped in Ray actors. Run the model "
    "server itself: rserve starts, watches and scales any program that speaks HTTP. In the "
    "configuration file, give the application a deployment of kind http with the command "
    "`vllm serve MODEL` and its port (see `rserve help config`); its OpenAI-compatible API is then "
    "served under the application's route_prefix."
)
