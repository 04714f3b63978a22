"""Before jax starts: four CPU devices, and shape checks on what users call."""

import contextlib
import importlib.metadata
import importlib.util
import io
import os
import shutil
import signal
import sys
import tempfile
from typing import NamedTuple

import pytest

if importlib.util.find_spec("unet_jax.configs") is None:
    raise pytest.UsageError("unet_jax is not installed; run: pip install -e '.[test]'")

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "4")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")
# Shells let what they start in the background ignore Ctrl-C, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from jaxtyping import install_import_hook

install_import_hook(
    [
        f"unet_jax.{room}"
        for room in (
            *("augment", "losses", "metrics", "models"),
            *("inference.postprocess", "inference.sliding_window"),
            *("evaluation.case_scores", "evaluation.summary"),
        )
    ],
    "beartype.beartype",
)

# Compiling is most of the time of the tests. Without LLVM's optimisations, which change
# no meaning, it is half; set XLA_FLAGS to anything else to test optimised programs.
# The emitters of fused operations cost another third; jaxlib 0.12 has no others.
_XLA_FLAGS = "--xla_backend_optimization_level=0"
if importlib.metadata.version("jaxlib").startswith("0.10."):
    _XLA_FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", _XLA_FLAGS)


def pytest_configure(config):
    """Let the tests of a worker and their processes use one compilation cache.

    Many compile what another has compiled: it is a third of their time. Each worker has
    a folder of its own, for jax may read what another process has half written.
    """
    if config.getoption("numprocesses", None):
        return  # the workers do the work
    import jax

    folder = tempfile.mkdtemp(prefix="compiled_by_tests_")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    for name, value in {
        "jax_compilation_cache_dir": folder,
        "jax_persistent_cache_min_compile_time_secs": 0.1,
    }.items():
        os.environ[name.upper()] = str(value)
        jax.config.update(name, value)


class Answer(NamedTuple):
    """What a command left behind: its exit code and what it printed."""

    code: int
    stdout: str
    stderr: str


@pytest.fixture(autouse=True, scope="session")
def memory_is_given_back():
    """Leave the C library as it is in the process of the tests: some measure memory.

    The commands that they start keep freed memory, as a user's do.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unet_jax.runtime.allocator.keep_freed_memory", lambda: False)
        yield


@pytest.fixture(scope="module")
def one_device():
    """Let runs in this process see one device alone: four cost twice as much.

    For tests whose promise is not about devices.
    """
    import jax

    first = jax.devices()[:1]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("devices", "local_devices"):
            patch.setattr(jax, name, lambda *args, **options: first)
        for name in ("device_count", "local_device_count"):
            patch.setattr(jax, name, lambda *args, **options: 1)
        # What processes of one device may take, and threads of four may not.
        patch.setattr("unet_jax.runtime.compilation.onednn_options", lambda: None)
        yield


@pytest.fixture(scope="module")
def no_figures():
    """Let runs in this process draw nothing: it is a fifth of their time."""
    with pytest.MonkeyPatch.context() as patch:
        for command in ("draw_cases", "evaluate", "train"):
            place = f"unet_jax.commands.{command}.problem_of_drawing"
            patch.setattr(place, lambda *arguments: "")
        yield


@pytest.fixture(scope="session")
def command_line():
    """Give a function that runs a command of ``unet_jax.main`` in this process."""
    from absl import flags
    from absl.testing import flagsaver

    from unet_jax import main
    from unet_jax.commands import train

    assert train  # libraries define flags, which would be taken back after the call

    def call(*arguments: object) -> Answer:
        command = ["unet_jax.main", *map(str, arguments)]
        before, argv = flagsaver.save_flag_values(flags.FLAGS), sys.argv
        out, error, code = io.StringIO(), io.StringIO(), 0
        sys.argv = command  # what the hint on how to resume repeats
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
                main.main(main.parse_flags(command))
        except SystemExit as leaving:
            code = leaving.code
        finally:
            sys.argv = argv
            flagsaver.restore_flag_values(before, flags.FLAGS)
        return Answer(code, out.getvalue(), error.getvalue())

    return call
