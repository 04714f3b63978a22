"""docs/cluster.md: its commands are run, by stand-ins where they need a cluster."""

import configparser
import re
import subprocess
import textwrap

import pytest
import yaml

from tests.launch.conftest import ROOT

PAGE = (ROOT / "docs" / "cluster.md").read_text()
BLOCKS = [
    textwrap.dedent(block)
    for _, block in re.findall(
        r"^( *)```sh\n(.*?)^\1```$", PAGE, re.MULTILINE | re.DOTALL
    )
]
FILES = sorted(path.name for path in (ROOT / "launch").iterdir())
SCRIPTS = ("local.sh", "slurm.sbatch", "tpu_vm.sh")
ELSEWHERE = (
    *("sbatch", "scancel", "scontrol", "squeue", "tail"),
    *("docker", "gcloud", "kubectl"),
)
RECORDER = r"""#!/usr/bin/env bash
printf '%s|' "$(basename "$0")" "${@//$'\n'/ }" >>"$RECORDS/calls"
echo >>"$RECORDS/calls"
"""


@pytest.fixture
def run_block(commands):
    """Return a function that runs a block of the page and gives the calls it made."""
    for name in ELSEWHERE:
        commands.write(name, RECORDER)
    named = {"TPU_NAME": "unet", "ZONE": "us-west4-a", "CODES": "0 0"}

    def run(block):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=ROOT,
            env=commands.environment | named,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [line.split("|")[:-1] for line in commands.record("calls")]

    return run


def _options(words: list[str]) -> dict[str, str]:
    return dict(w[2:].partition("=")[::2] for w in words if w.startswith("--"))


def _value(words: list[str], *names: str) -> str:
    """Return the value of an option in the form ``--name value``."""
    (at,) = (i for i, word in enumerate(words) if word in names)
    return words[at + 1]


def _check_sbatch(words):
    at = words.index("launch/slurm.sbatch")
    known = {"partition", "nodes", "ntasks-per-node", "gpus-per-node"}
    assert set(_options(words[:at])) <= known
    assert (ROOT / _options(words[at:])["config"]).is_file()


def _check_kubectl(words):
    text = (ROOT / "launch" / "gke_jobset.yaml").read_text()
    jobsets = {j["metadata"]["name"]: j for j in yaml.safe_load_all(text)}
    match words[1:3]:
        case ["apply" | "delete", "-f"]:
            assert words[3] == "launch/gke_jobset.yaml"
            key, _, value = _value(words, "-l").partition("=")
            chosen = [j["metadata"]["labels"][key] == value for j in jobsets.values()]
            assert sum(chosen) == 1
        case ["get", "jobset"]:
            assert words[3] in jobsets
        case ["get", "pods"]:
            assert _value(words, "-l").partition("=")[2] in jobsets
        case ["logs", "-f"]:
            first = {n: j["spec"]["replicatedJobs"][0] for n, j in jobsets.items()}
            assert words[3] in {f"job/{n}-{j['name']}-0" for n, j in first.items()}
        case _:
            pytest.fail(f"unexpected: {words}")


def _check_docker(words):
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    if words[1] == "build":
        assert words[-1] == "."  # COPY reads from the project's folder
        assert _value(words, "--file") == "launch/Dockerfile"
        extra = _value(words, "--build-arg") if "--build-arg" in words else "EXTRA="
        name, _, value = extra.partition("=")
        assert name == "EXTRA"
        assert value in ("", *setup["options.extras_require"])
    else:
        assert words[1] == "run"
        inside = _value(words, "--volume").partition(":")[2]
        assert inside == "/unet_jax/runs"  # where the default workdir lies
        assert (ROOT / _options(words)["config"]).is_file()


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("\n")[0][:40])
def test_the_commands_of_the_page_run(run_block, block):
    for words in run_block(block):
        match words[0]:
            case "sbatch":
                _check_sbatch(words)
            case "kubectl":
                _check_kubectl(words)
            case "docker":
                _check_docker(words)
            case "tail":
                output = (ROOT / "launch" / "slurm.sbatch").read_text()
                pattern = re.search(r"--output=(\S+)", output)[1]
                assert words[-1] == pattern.replace("%j", "1234")
            case "scancel":
                assert words[1:] == ["--batch", "--signal=USR1", "1234"]


def test_the_page_has_commands_for_every_file():
    assert len(BLOCKS) == PAGE.count("```sh")
    commands = "\n".join(BLOCKS)
    for name in FILES:
        assert f"| `launch/{name}` |" in PAGE
        assert f"launch/{name}" in commands


def test_the_local_commands_reach_the_program(run_block, commands):
    (block,) = (block for block in BLOCKS if "PROCESSES=2" in block)
    run_block(block)
    flags = ["-m", "unet_jax.main", "--config=configs/smoke.py"]
    first, second = commands.starts(0)
    assert first[3:] == flags
    assert second[3:7] == [*flags, "--workdir=runs/two"]
    assert commands.starts(1)[0][-1] == "--process_id=1"


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_variable_that_a_script_reads_is_explained(name):
    text = (ROOT / "launch" / name).read_text()
    read = set(re.findall(r"\$\{([A-Z_]+):?[-?]", text)) - {
        *("SLURM_CPUS_PER_TASK", "SLURM_RESTART_COUNT")
    }
    assert read
    assert {v for v in read if not re.search(rf"\b{v}\b", PAGE)} == set()


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_names_what_it_defaults_to_as_the_page_does(name):
    text = (ROOT / "launch" / name).read_text()
    for default in re.findall(r"\$\{(?!SLURM)[A-Z_]+:-([^}]+)\}", text):
        assert default in PAGE, default
