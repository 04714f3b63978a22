"""launch/gke_jobset.yaml against the fields of the API, and against itself.

The schema is written after the reference of jobset.x-k8s.io/v1alpha2 and of batch/v1,
as far as the file uses them; it knows no other field, so a mistyped one is refused.
"""

import copy
import math
import re

import jsonschema
import pytest
import yaml

from tests.launch.conftest import ROOT

JOBSETS = list(yaml.safe_load_all((ROOT / "launch" / "gke_jobset.yaml").read_text()))
KINDS = [jobset["metadata"]["labels"]["accelerator"] for jobset in JOBSETS]


def _object(required: str, **properties) -> dict:
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def _list(items: dict) -> dict:
    return {"type": "array", "items": items, "minItems": 1}


TEXT = {"type": "string", "minLength": 1}
NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"}
COUNT = {"type": "integer", "minimum": 0}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
TEXTS = {"type": "object", "additionalProperties": TEXT}
QUANTITIES = {"type": "object", "additionalProperties": {"type": ["integer", "string"]}}
POD = _object(
    "containers restartPolicy",
    restartPolicy={"enum": ["Never", "OnFailure"]},
    terminationGracePeriodSeconds=COUNT,
    nodeSelector=TEXTS,
    securityContext=_object(
        "", runAsNonRoot={"type": "boolean"}, runAsUser=COUNT, fsGroup=COUNT
    ),
    containers=_list(
        _object(
            "name image",
            name=NAME,
            image=TEXT,
            args=_list(TEXT),
            env=_list(
                _object(
                    "name",
                    name={"type": "string", "pattern": "^[A-Z_]+$"},
                    value=TEXT,
                    valueFrom=_object(
                        "fieldRef", fieldRef=_object("fieldPath", fieldPath=TEXT)
                    ),
                )
            ),
            ports=_list(_object("containerPort", containerPort=PORT)),
            resources=_object("", requests=QUANTITIES, limits=QUANTITIES),
            volumeMounts=_list(_object("name mountPath", name=NAME, mountPath=TEXT)),
        )
    ),
    volumes=_list(
        _object(
            "name",
            name=NAME,
            persistentVolumeClaim=_object("claimName", claimName=NAME),
            emptyDir=_object("", medium={"enum": ["", "Memory"]}),
        )
    ),
)
JOB = _object(
    "template",
    completionMode={"enum": ["Indexed", "NonIndexed"]},
    parallelism=COUNT,
    completions=COUNT,
    backoffLimit=COUNT,
    podFailurePolicy=_object(
        "rules",
        rules=_list(
            _object(
                "action",
                action={"enum": ["FailJob", "FailIndex", "Ignore", "Count"]},
                onExitCodes=_object(
                    "operator values",
                    containerName=NAME,
                    operator={"enum": ["In", "NotIn"]},
                    # 0 is refused with In.
                    values=_list({"type": "integer", "minimum": 1}),
                ),
            )
        ),
    ),
    template=_object("spec", spec=POD),
)
JOBSET = _object(
    "apiVersion kind metadata spec",
    apiVersion={"const": "jobset.x-k8s.io/v1alpha2"},
    kind={"const": "JobSet"},
    metadata=_object("name", name=NAME, labels=TEXTS, annotations=TEXTS),
    spec=_object(
        "replicatedJobs",
        failurePolicy=_object(
            "",
            maxRestarts=COUNT,
            rules=_list(
                _object(
                    "action",
                    name={
                        "type": "string",
                        "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                    },
                    action={
                        "enum": [
                            "FailJobSet",
                            "RestartJobSet",
                            "RestartJobSetAndIgnoreMaxRestarts",
                        ]
                    },
                    onJobFailureReasons=_list(
                        {
                            "enum": [
                                "BackoffLimitExceeded",
                                "DeadlineExceeded",
                                "FailedIndexes",
                                "MaxFailedIndexesExceeded",
                                "PodFailurePolicy",
                            ]
                        }
                    ),
                    targetReplicatedJobs=_list(NAME),
                )
            ),
        ),
        coordinator=_object(
            "replicatedJob", replicatedJob=NAME, jobIndex=COUNT, podIndex=COUNT
        ),
        replicatedJobs=_list(
            _object(
                "name template",
                name=NAME,
                replicas=COUNT,
                template=_object("spec", spec=JOB),
            )
        ),
    ),
)


def _job(jobset: dict) -> dict:
    (replicated,) = jobset["spec"]["replicatedJobs"]
    return replicated["template"]["spec"]


def _pod(jobset: dict) -> dict:
    return _job(jobset)["template"]["spec"]


def _container(jobset: dict) -> dict:
    (container,) = _pod(jobset)["containers"]
    return container


def test_there_is_one_for_each_kind_of_accelerator():
    assert KINDS == ["tpu", "gpu"]
    assert len({jobset["metadata"]["name"] for jobset in JOBSETS}) == 2


@pytest.mark.parametrize("jobset", JOBSETS, ids=KINDS)
def test_every_field_is_one_of_the_api(jobset):
    jsonschema.Draft202012Validator.check_schema(JOBSET)
    jsonschema.validate(jobset, JOBSET)


@pytest.mark.parametrize("field", ["failurPolicy", "backofLimit", "onExitCode"])
def test_a_mistyped_field_is_refused(field):
    right = {"failurPolicy": "failurePolicy", "backofLimit": "backoffLimit"}
    jobset = copy.deepcopy(JOBSETS[0])
    owner = {
        "failurPolicy": jobset["spec"],
        "backofLimit": _job(jobset),
        "onExitCode": _job(jobset)["podFailurePolicy"]["rules"][0],
    }[field]
    owner[field] = owner.pop(right.get(field, "onExitCodes"))
    with pytest.raises(jsonschema.ValidationError, match=field):
        jsonschema.validate(jobset, JOBSET)


@pytest.mark.parametrize("jobset", JOBSETS, ids=KINDS)
def test_codes_that_ask_for_it_restart_the_set_and_no_others(jobset):
    job = _job(jobset)
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    codes = rule["onExitCodes"]
    assert codes["operator"] == "In"
    assert codes["values"] == [1, 2, 130]  # the API wants them in order
    assert codes["containerName"] == _container(jobset)["name"]
    # Any other end of a pod fails the Job for another reason: the default, a restart.
    assert job["backoffLimit"] == 0
    assert _pod(jobset)["restartPolicy"] == "Never"  # the policy asks for it
    (rule,) = jobset["spec"]["failurePolicy"]["rules"]
    assert rule["action"] == "FailJobSet"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] > 0
    assert _pod(jobset)["terminationGracePeriodSeconds"] >= 60


@pytest.mark.parametrize("jobset", JOBSETS, ids=KINDS)
def test_what_stands_twice_is_equal(jobset):
    job, container = _job(jobset), _container(jobset)
    assert job["completionMode"] == "Indexed"
    assert job["parallelism"] == job["completions"]
    resources = container["resources"]
    assert resources["requests"] == resources["limits"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in _pod(jobset)["volumes"]}
    flags = dict(flag.partition("=")[::2] for flag in container["args"])
    assert (ROOT / flags["--config"]).is_file()
    # The workdir lies in the volume that all pods write.
    volumes = {volume["name"]: volume for volume in _pod(jobset)["volumes"]}
    inside = [
        "persistentVolumeClaim" in volumes[mount["name"]]
        for mount in container["volumeMounts"]
        if flags["--workdir"].startswith(mount["mountPath"] + "/")
    ]
    assert inside == [True]


def test_the_slice_has_the_chips_of_its_hosts():
    (jobset,) = (j for j in JOBSETS if j["metadata"]["labels"]["accelerator"] == "tpu")
    topology = _pod(jobset)["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    chips = math.prod(int(side) for side in topology.split("x"))
    limits = _container(jobset)["resources"]["limits"]
    assert chips == _job(jobset)["completions"] * limits["google.com/tpu"]
    # JAX finds the other hosts by what GKE tells the pods of a slice.
    assert not any("process" in flag for flag in _container(jobset)["args"])


def test_the_gpu_pods_are_told_who_they_are():
    (jobset,) = (j for j in JOBSETS if j["metadata"]["labels"]["accelerator"] == "gpu")
    container = _container(jobset)
    flags = dict(flag.partition("=")[::2] for flag in container["args"])
    assert int(flags["--num_processes"]) == _job(jobset)["completions"]
    sources = {
        entry["name"]: entry["valueFrom"]["fieldRef"]["fieldPath"]
        for entry in container["env"]
        if "valueFrom" in entry
    }
    used = re.findall(r"\$\((\w+)\)", " ".join(container["args"]))
    assert sorted(used) == sorted(sources)
    annotation = "metadata.annotations['{}']".format
    assert sources == {
        "COORDINATOR": annotation("jobset.sigs.k8s.io/coordinator"),
        "PROCESS_ID": annotation("batch.kubernetes.io/job-completion-index"),
    }
    host, _, port = flags["--coordinator"].partition(":")
    assert host == "$(COORDINATOR)"
    assert flags["--process_id"] == "$(PROCESS_ID)"
    assert {"containerPort": int(port)} in container["ports"]
    # Process 0 is the pod that the others are sent to.
    names = [job["name"] for job in jobset["spec"]["replicatedJobs"]]
    expected = {"replicatedJob": names[0], "jobIndex": 0, "podIndex": 0}
    assert jobset["spec"]["coordinator"] == expected


@pytest.mark.parametrize("jobset", JOBSETS, ids=KINDS)
def test_an_image_that_is_not_filled_in_is_refused(jobset):
    # No cluster takes upper case for the name of an image.
    assert _container(jobset)["image"] == "YOUR_IMAGE"
