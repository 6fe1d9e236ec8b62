"""What the engine's output means: a table of texts, what each says about the cause, and whether a retry can mend it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field


@dataclass(frozen=True, eq=False)
class Rule:
    """A line with `needle` that `pattern` matches is evidence for `reason`.

    `says` and `then` are format strings over the pattern's groups, `{line}` the line itself, and `otherwise` stands
    in for one whose groups the line lacks. `running`: it can happen to
    an engine that has served. `consequence`: others' deaths bring it about, so that a signal as exit code tells more.
    """

    reason: str
    needle: bytes
    says: str = "{line}"
    then: str = ""
    otherwise: str = ""
    retryable: bool = False
    running: bool = False
    consequence: bool = False
    pattern: str = ""
    exit_codes: tuple[int, ...] = ()
    _compiled: list[re.Pattern[str]] = field(default_factory=list, repr=False)

    def _match(self, text: str) -> re.Match[str] | None:
        if not self._compiled:
            self._compiled.append(re.compile(self.pattern or re.escape(self.needle.decode()), re.IGNORECASE))
        return self._compiled[0].search(text)

    def matches(self, text: str) -> bool:
        return self._match(text) is not None

    def message(self, text: str) -> str:
        return self._fill(self.says, text)

    def advice(self, text: str) -> str:
        return self._fill(self.then, text)

    def _fill(self, template: str, text: str) -> str:
        match = self._match(text)
        known = {"line": text.strip(), **({k: v for k, v in match.groupdict().items() if v} if match else {})}
        if self.otherwise and any(name not in known for name in _FIELD.findall(template)):
            template = self.otherwise
        return _FIELD.sub(lambda field: known.get(field[1], "?"), template)


_FIELD = re.compile(r"\{(\w+)\}")
_LESS_MEMORY = (
    "lower --max-model-len, raise --gpu-memory-utilization, or spread the model with --tensor-parallel-size"
)
_BEFORE_IT = (
    "the first error in the engine's output says why; "
    "if there is none before this, look for the out-of-memory killer or a GPU error in the kernel's log"
)
"""These lines are read on a phone as well, where no output stands above them."""

RULES: tuple[Rule, ...] = (
    # the start of the command itself
    Rule(
        "command_not_found", b"vllm-exporter: cannot start the engine",
        pattern=r"cannot start the engine: (?P<what>.*: (?:no such command|the interpreter .*))$",
        says="cannot start the engine: {what}", then="correct the command, or install what it names", exit_codes=(127,),
    ),
    Rule(
        "permission_denied", b"vllm-exporter: cannot start the engine",
        pattern=r"cannot start the engine: (?P<what>.*)$", says="cannot start the engine: {what}",
        then="make the file executable for this user", exit_codes=(126,),
    ),
    Rule(
        "command_not_found", b"not found", pattern=r"^\S+: (?:line \d+: |\d+: )?(?P<what>\S+): (?:command )?not found$",
        says="the shell knows no command {what}", then="correct the command, or install {what}", exit_codes=(127,),
    ),
    Rule(
        "command_not_found", b"Failed to spawn", pattern=r"^error: Failed to spawn: `(?P<what>[^`]*)`",
        says="uv finds no command {what}", then="correct the command, or install {what} into uv's environment", exit_codes=(2,),
    ),
    # flags
    Rule(
        "bad_arguments", b"unrecognized arguments", pattern=r"error: unrecognized arguments: (?P<what>.*)",
        says="vLLM does not know {what}", then="remove or correct it; `vllm serve --help=all` lists the flags",
    ),
    Rule(
        "bad_arguments", b": error: ", pattern=r"^\S.{0,80}?: error: (?P<what>.*)", says="wrong flags: {what}",
        then="correct the command; `vllm serve --help=all` lists the flags", exit_codes=(2,),
    ),
    Rule(
        "bad_arguments", b"rror", pattern=r"^No such option|^Error: (?P<what>No such option.*)", says="{line}",
        then="correct the command", exit_codes=(2,),
    ),
    # the sizes
    Rule(
        "kv_cache_too_small", b"larger than the available",
        pattern=r"max seq len \((?P<length>\d+)\).*?\(?(?P<needed>[\d.]+) Gi?B KV\s+cache is needed.*?\((?P<available>[\d.]+) Gi?B\)(?:.*?estimated maximum model length is (?P<estimate>\d+))?",
        says="a sequence of {length} tokens needs {needed} GiB of KV cache and {available} GiB are there",
        then="set --max-model-len to {estimate} or less, or raise --gpu-memory-utilization (on a CPU, VLLM_CPU_KVCACHE_SPACE)",
        otherwise=_LESS_MEMORY,
    ),
    Rule(
        "kv_cache_too_small", b"larger than the maximum number of tokens",
        pattern=r"max seq len \((?P<length>\d+)\) is larger than the maximum number of tokens .*?\((?P<room>\d+)\)",
        says="the model's length of {length} tokens does not fit into the {room} tokens of KV cache",
        then="set --max-model-len to {room} or less, or raise --gpu-memory-utilization",
    ),
    Rule(
        "kv_cache_too_small", b"No available memory for the cache blocks",
        says="no memory is left for the KV cache once the model is loaded", then=_LESS_MEMORY,
    ),
    Rule(
        "max_model_len_too_large", b"User-specified max_model_len",
        pattern=r"max_model_len \((?P<asked>\d+)\) is greater than the derived max_model_len \((?P<derived>[^)]*?)(?: or model_max_length=[^)]*)?(?: in model's config\.json)?\)",
        says="--max-model-len {asked} is more than the model was made for ({derived})",
        then="lower --max-model-len, or set VLLM_ALLOW_LONG_MAX_MODEL_LEN=1 if you are sure",
    ),
    Rule(
        "parallel_size_mismatch", b"divisible by tensor parallel size",
        pattern=r"attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size \((?P<size>\d+)\)",
        says="{heads} attention heads cannot be split over --tensor-parallel-size {size}",
        then="choose a --tensor-parallel-size that divides {heads}",
    ),
    Rule(
        "parallel_size_mismatch", b"is not divisible by", pattern=r"(?P<what>\d+ is not divisible by \d+)",
        says="a layer of the model cannot be split over the GPUs: {what}", then="choose another --tensor-parallel-size",
    ),
    Rule(
        "too_few_gpus", b"World size", pattern=r"World size \((?P<world>\d+)\) is larger than the number of available GPUs \((?P<gpus>\d+)\)",
        says="{world} GPUs are asked for and {gpus} are there",
        then="lower --tensor-parallel-size or --pipeline-parallel-size, or make more GPUs visible",
    ),
    # the model
    Rule(
        "model_not_found", b"HFValidationError", pattern=r"Repo id must .*?: '(?P<model>[^']*)'",
        says="no model at {model}: the path does not exist, and it is no repository name",
        then="correct the path of the model",
    ),
    Rule(
        "download_failed", b"LocalEntryNotFoundError",
        pattern=r"LocalEntryNotFoundError: .*check your (?:internet )?connection",
        says="the model is not in the local cache, and the download failed",
        then="check the network, the proxy settings and HF_ENDPOINT", retryable=True,
    ),
    Rule(
        "model_not_found", b"LocalEntryNotFoundError", pattern=r"LocalEntryNotFoundError: (?P<what>[^.]*)",
        says="the model is not in the local cache, and downloads are off or failed ({what})",
        then="correct the model's name, download it, or let it be downloaded (HF_HUB_OFFLINE, network)",
    ),
    Rule(
        "model_access_denied", b"GatedRepoError", pattern=r"GatedRepoError", says="the model's repository is gated",
        then="accept its terms on Hugging Face, and set HF_TOKEN to a token with access",
    ),
    Rule(
        "model_access_denied", b"You are trying to access a gated repo", says="the model's repository is gated",
        then="accept its terms on Hugging Face, and set HF_TOKEN to a token with access",
    ),
    Rule(
        "model_not_found", b"RepositoryNotFoundError", says="the model's repository does not exist, or this token may not see it",
        then="correct the model's name, or set HF_TOKEN to a token with access",
    ),
    Rule(
        "model_not_found", b"RevisionNotFoundError", says="the model has no such revision", then="correct --revision",
    ),
    Rule(
        "model_not_found", b"is not a local folder and is not a valid model identifier",
        pattern=r"(?P<model>\S+) is not a local folder and is not a valid model identifier",
        says="no model called {model}", then="correct the model's name or path",
    ),
    Rule(
        "model_not_found", b"Cannot find any model weights", says="{line}",
        then="put the weights into the model's folder, or set --load-format",
    ),
    Rule(
        "model_not_found", b"Invalid repository ID or local directory specified",
        pattern=r"specified:\s*'(?P<model>[^']*)'", says="{model} is neither a model's folder nor a repository",
        then="correct the model's name or path",
    ),
    Rule(
        "model_not_found", b"config.json", pattern=r"does not appear to have a file named config\.json|no such file or directory: '[^']*config\.json'",
        says="the model's folder has no config.json", then="correct the model's path",
    ),
    Rule(
        "remote_code_refused", b"trust_remote_code", pattern=r"(?:requires? you to execute|contains custom code|trust_remote_code=True)",
        says="the model brings code of its own, which vLLM does not run unasked",
        then="add --trust-remote-code if you trust its authors",
    ),
    Rule(
        "unsupported_model", b"are not supported for now", pattern=r"Model architectures (?P<what>\[[^\]]*\])",
        says="this vLLM does not support the architecture {what}", then="upgrade vLLM, or choose another model",
    ),
    Rule(
        "unsupported_model", b"but Transformers does not recognize this architecture",
        says="the installed transformers does not know the model's architecture", then="upgrade transformers and vLLM",
    ),
    # the port, before anything was loaded
    Rule("port_in_use", b"ddress already in use", pattern=r"address already in use|EADDRINUSE"),
    # the machine
    Rule(
        "gpu_memory_taken", b"less than desired GPU memory utilization",
        pattern=r"Free memory on device \S+ \((?P<free>[\d.]+)/(?P<total>[\d.]+) Gi?B\)",
        says="only {free} of {total} GiB of the GPU's memory are free",
        then="end the other processes on the GPU, or lower --gpu-memory-utilization", retryable=True,
    ),
    Rule(
        "gpu_out_of_memory", b"out of memory", running=True, retryable=True,
        pattern=r"CUDA out of memory.*?Process \d+ has (?P<other>[\d.]+ [GM]iB) memory in use",
        says="the GPU ran out of memory beside another process that holds {other}",
        then="end the other processes on the GPU, or lower --gpu-memory-utilization",
    ),
    Rule(
        "gpu_out_of_memory", b"out of memory", running=True, pattern=r"CUDA out of memory|CUDA error: out of memory|HIP out of memory",
        says="the GPU ran out of memory", then="use a smaller or quantized model, more GPUs, or lower --gpu-memory-utilization and --max-num-seqs",
    ),
    Rule(
        "no_device", b"Failed to infer device type", says="vLLM finds no GPU, and is no CPU build",
        then="check `nvidia-smi`, the driver, and that the container or service may see the GPU; or install a CPU build",
    ),
    Rule("no_device", b"No CUDA GPUs are available", says="no GPU is visible", then="check CUDA_VISIBLE_DEVICES, `nvidia-smi`, and that the container or service may see the GPU"),
    Rule("no_device", b"Found no NVIDIA driver", says="no NVIDIA driver is loaded", then="install or load the driver; `nvidia-smi` must work first"),
    Rule("no_device", b"CUDA-capable device is detected", says="no GPU is visible", then="check CUDA_VISIBLE_DEVICES and `nvidia-smi`"),
    Rule("no_device", b"invalid device ordinal", says="a GPU is asked for that is not visible", then="check CUDA_VISIBLE_DEVICES and --tensor-parallel-size"),
    Rule("driver_mismatch", b"CUDA driver version is insufficient", says="the driver is too old for this build's CUDA", then="upgrade the NVIDIA driver"),
    Rule("driver_mismatch", b"NVIDIA driver on your system is too old", says="the driver is too old for this build's CUDA", then="upgrade the NVIDIA driver, or install a build for an older CUDA"),
    Rule("driver_mismatch", b"no kernel image is available", says="this build has no code for this GPU", then="install a vLLM build for this GPU's compute capability"),
    Rule(
        "driver_mismatch", b"cannot open shared object file", pattern=r"(?P<library>lib[\w.+-]+): cannot open shared object file",
        says="the library {library} is missing", then="install it, or a vLLM build for the installed driver and CUDA",
    ),
    Rule("unsupported_precision", b"is only supported on GPUs with compute capability", says="{line}", then="set --dtype to half (float16)"),
    Rule(
        "disk_full", b"No space left on device", running=True, retryable=True,
        pattern=r"No space left on device(?:: '(?P<what>[^']+)')?", says="no space is left for {what}",
        then="free some space there (model cache, data_dir, /tmp, /dev/shm)", otherwise="no space is left on a device",
    ),
    Rule(
        "missing_dependency", b"ModuleNotFoundError", pattern=r"ModuleNotFoundError: No module named '(?P<module>[^']*)'",
        says="the Python module {module} is missing", then="install it into the engine's environment",
    ),
    Rule(
        "missing_dependency", b"No module named", pattern=r"^\S*python\S*: No module named '?(?P<module>[\w.]+)",
        says="the Python module {module} is missing", then="install it into the engine's environment, or use that environment's python",
    ),
    Rule(
        "missing_dependency", b"can't open file", pattern=r"can't open file '(?P<file>[^']*)': (?P<why>.*)",
        says="python cannot open {file}", then="correct the command",
    ),
    Rule(
        "permission_denied", b"Permission denied", pattern=r"PermissionError: \[Errno 13\] Permission denied: (?P<what>.*)|^\S+: (?:line \d+: )?(?P<file>\S+): Permission denied$",
        says="{line}", then="give this user access to it",
    ),
    Rule(
        "invalid_config", b"Value error, ", pattern=r"Value error, (?P<what>.*?)(?: \[type=\w+, .*)?$",
        says="vLLM refuses its configuration: {what}", then="correct the flag that it names",
    ),
    Rule(
        "invalid_config", b"validation error", pattern=r"ValidationError: \d+ validation errors? for (?P<what>\w+)",
        says="vLLM refuses its configuration ({what})", then="the first error in the engine's output names the value",
    ),
    # what happens to a running engine; a retry is the right thing
    Rule("rpc_timeout", b"RPC call to", running=True, retryable=True, pattern=r"RPC call to (?P<call>\w+) timed out", says="a worker did not answer {call} in time", then="the worker's output may say why; VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS sets the time"),
    Rule("cuda_error", b"CUDA error", running=True, retryable=True, pattern=r"CUDA error: (?P<what>.*)", says="CUDA error: {what}", then="if it repeats, look for Xid errors in the kernel's log"),
    Rule("nccl_error", b"NCCL error", running=True, retryable=True, says="{line}", then="check the links between the GPUs; NCCL_DEBUG=INFO tells more"),
    Rule("worker_died", b"died unexpectedly", running=True, retryable=True, consequence=True, pattern=r"(?P<who>Worker proc \S+|Engine core proc \S+|\S+) died unexpectedly", says="{who} died unexpectedly", then="look for the out-of-memory killer or a GPU error in the kernel's log"),
    Rule("engine_died", b"EngineDeadError", running=True, retryable=True, consequence=True, says="vLLM's engine process died", then=_BEFORE_IT),
    Rule("engine_died", b"Engine core initialization failed", retryable=True, consequence=True, says="vLLM's engine process died while loading", then=_BEFORE_IT),
)  # fmt: skip
"""In the order in which they count: a cause before its consequences. `Address already in use` may also come from a port
inside vLLM, which a retry mends; whether somebody holds the engine's own port decides."""
