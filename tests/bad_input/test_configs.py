"""Tests unusable configs and files of splits."""

import pytest

from tests.bad_input.given import train_command

pytestmark = pytest.mark.slow  # some 300 commands in all

_BATCH = "train.batch_size: found -4, expected at least 1"
CONFIGS = {
    "--config=configs/no.py": "--config: no file 'configs/no.py', and no "
    "shipped config of that name; expected <any>",
    "--config={here}": "--config: no file '{here}', and no shipped config of that "
    "name; expected <any>",
    "--config={here}/syntax.py": "--config: {here}/syntax.py cannot be loaded: "
    "SyntaxError: <any>",
    "--config={here}/raises.py": "--config: {here}/raises.py cannot be loaded: "
    "ZeroDivisionError: division by zero; <any>",
    "--config={here}/nothing.py": "--config: {here}/nothing.py cannot be loaded: "
    "AttributeError: <any>",
    "--config.train.stepz=1": "--config.train.stepz=1: the config has no key 'stepz'; "
    "did you mean 'steps'?",
    "--config.trian.steps=1": "--config.trian.steps=1: the config has no key 'trian'; "
    "did you mean 'train'?",
    "--config.train.steps=many": "flag --config.train.steps=many: <any>",
    "--config.train.steps=1.5": "flag --config.train.steps=1.5: <any>",
    "--config.train.steps=0": "train.steps: found 0, expected at least 1",
    "--config.train.batch_size=-4": _BATCH,
    "--config.eval.metrics=None": "eval.metrics: found None, expected names such "
    "as 'dice'",
    "--config.seed=-1": "seed: found -1, expected 0 to 2147483647",
    "--config.eval.overlap=1.0": "eval.overlap: found 1.0, expected 0 to 0.99",
    "--config.optimizer.learning_rate=nan": "optimizer.learning_rate: found nan, "
    "expected at least 0",
    # Given twice, a tuple grows: these four follow the (16, 16) of every command.
    "--config.train.patch_size=(16,)": "train.patch_size: found (16, 16, 16) for "
    "pictures, which have two axes; expected 2-D",
    "--config.train.patch_size=(16,16)": "train.patch_size: found (16, 16, 16, 16), "
    "expected two sizes (2-D network) or three (3-D)",
    "--config.train.patch_size=(-1,)": "train.patch_size: found (16, 16, -1), expected "
    "3 whole numbers above 0",
    "--config.train.patch_size=('a',)": "train.patch_size: found (16, 16, 'a'), "
    "expected 3 whole numbers above 0",
    "--config.data.size=(16,16,16)": "data.size: found (16, 16, 16), expected 2 whole "
    "numbers above 0",
    "--config.data.class_names=('a',)": "data.class_names: found ('a',), expected at "
    "least two different names, the background's first",
    "--config.data.class_names=('a','a')": "data.class_names: found ('a', 'a'), "
    "expected at least two different names, the background's first",
    "--config.data.known_spacing=(1.0,)": "{here}/data/images/0.png, "
    "{here}/data/images/1.png, {here}/data/images/2.png and 3 more: data.known_spacing "
    "is (1.0,); expected 2 sizes above 0 in mm, one per axis",
    "--config.augment.flip_axes=(7,)": "augment: Option flip_axes is "
    "(7,); expected axes out of 0, 1, 2",
    "--config.augment.scaling_factor=(0.5,)": "augment: Option scaling_factor is "
    "<any>; expected a lower and an upper limit between <any>",
    "--config.augment.extra=('a:b',)": "augment.extra: found 'a:b', expected "
    "('package.module:function', {options}), each function once",
    "--config.augment.extra=(('nowhere:shift',{}),)": "augment.extra: nowhere:shift: "
    "'nowhere:shift': no module 'nowhere'; <any>",
    "--config.augment.extra=(('math:hypot',{'most':1}),)": "augment.extra: math:hypot: "
    "<any>",
    "--config.loss=()": "loss: <any>",
    "--config.loss=('dice',)": "loss<any>",
    "--config.loss=(('dice',1.0,3),)": "loss<any>",
    "--config.loss=(('dyce',1.0,{}),)": "<any>unknown loss 'dyce'; expected one <any>",
    "--config.loss=(('dice',-1.0,{}),)": "loss: weight of 'dice': found -1.0, "
    "expected a number from 0 on",
    "--config.model.name=vnet": "model.name: unknown network 'vnet'; expected one "
    "of <any>",
    "--config.model.head=tree": "model.head: found 'tree', expected one of "
    "'softmax', 'sigmoid'",
    "--config.model.options.features=(2,-4)": "model.options: features is (2, -4); "
    "expected whole numbers above 0",
    "--config.model.options.dropout=2.0": "model.options: dropout is 2.0; expected "
    "a fraction from 0 to below 1, or one for each stage",
    "--config.model.options.atention=True": "model.options.atention: network "
    "'unet' has no such option; did you mean 'attention'? It has <any>",
    "--config.model.dtype=float13": "model.dtype: found 'float13', expected "
    "'float32' or 'bfloat16'",
    "--config.eval.metrics=('dize',)": "eval.metrics: <any>",
    "--config.eval.metrics=(1,)": "eval.metrics: <any>",
    "--config.eval.postprocess=(('melt',1,1),)": "eval.postprocess: <any>; expected "
    "'auto', or steps such as (('largest_component', 1, None), ('min_size', 1, 20))",
    "--config.data.source=cloud": "data.source: found 'cloud', expected one "
    "of 'tfds', 'folder', 'path_or_tfds'",
    "--config.data.fold=5": "data.fold: found 5, expected 0 to 4",
    "--config.data.fold=-7": "data.fold: found -7, expected -1 to 999",
    "--config.data.group_regex=(": "data.group_regex: '(' is no regular expression "
    "(<any>); fix it",
    "--config.data.label_map=((0,0),(0,1))": "data.label_map: ((0, 0), (0, 1)) has a "
    "value twice, expected every stored value once",
    "--config.data.label_map=(1,2)": "data.label_map: found 1, expected (stored value, "
    "class) or ((first, last), class)",
    "--config.data.palette=((0,0),)": "data.palette[0]: found (0, 0), expected (red, "
    "green, blue), whole numbers from 0 to 255",
    "--config.data.channels=('_t1','_t1')": "data.channels: found ('_t1', '_t1'), "
    "expected a different ending for each channel; write --config.data.channels="
    '\'("_t1", "_t2")\'',
    "--config.data.channels=(0,1)": "data.channels: found (0, 1), expected a different "
    "ending<any>",
    "--config.data.dims=7": "data.dims: found 7, expected 2 to 3",
    "--config.optimizer.name=lion": "<any>unknown optimizer 'lion'<any>",
    "--config.optimizer.schedule=stairs": "<any>'stairs'<any>",
    "--config.optimizer.warmup_steps=9": "optimizer.warmup_steps: found 9, expected "
    "<any>",
    "--config.data.intensity=dark": "data.intensity: found 'dark', "
    "expected one of 'zscore', 'percentile', 'full_range', or a tuple <any>",
    "--config.data.spacing=(1.0,2.0)": "data.spacing: found (1.0, 2.0), expected 3 "
    "numbers above 0",
    "--mode=fly": "flag --mode=fly: value should be one of <any>",
    "--profile=1": "--profile: found '1', expected START:STOP, two steps such as 10:20",
    "stray": "found the argument 'stray', expected flags only",
}


@pytest.mark.parametrize("argument", CONFIGS)
def test_a_config_that_no_run_can_be_made_of(place, refused, argument):
    (place / "syntax.py").write_text("def get_config(:\n")
    (place / "raises.py").write_text("def get_config():\n    return 1 / 0\n")
    (place / "nothing.py").write_text("")
    line, argument = CONFIGS[argument], argument.replace("{here}", str(place))
    command = train_command(place)
    if argument.startswith("--config="):
        command = [f"--workdir={place / 'new'}"]
    refused(line, *command, argument, workdir=place / "new")


SPLITS = {
    "missing": ("no.json", None, "data.splits: {here}/no.json: No such file or <any>"),
    "a folder": (
        ".",
        None,
        "data.splits: {here}/splits_final.json: No such file or <any>",
    ),
    "no JSON": (
        "s.json",
        '{"train": [',
        "data.splits: {here}/s.json is not JSON (<any>); expected <any>",
    ),
    "no text": (
        "s.json",
        b"\xff\xfe\x00",
        "data.splits: {here}/s.json: is not text (<any>); expected JSON or CSV in "
        "UTF-8",
    ),
    "no text, CSV": (
        "s.csv",
        b"\xff\xfe\x00",
        "data.splits: {here}/s.csv: is not text (<any>); expected JSON or CSV in UTF-8",
    ),
    "no lists": (
        "s.json",
        '{"train": "0"}',
        "data.splits: {here}/s.json has 'train'; expected lists of ids under 'train', "
        "'validation' and 'test'",
    ),
    "no train": (
        "s.json",
        '{"test": ["0"]}',
        "data.splits: {here}/s.json has no ids under 'train'; expected one or more",
    ),
    "a number": (
        "s.json",
        "7",
        "data.splits: {here}/s.json has no ids under 'train'; expected one or more",
    ),
    "unknown ids": (
        "s.json",
        '{"train": ["0", "x"]}',
        "{here}/s.json: 'x' under train matches no file; expected ids such as '0'",
    ),
    "a case in two": (
        "s.json",
        '{"train": ["0", "1"], "test": ["1"]}',
        "{here}/s.json: "
        "case '1' is in train (1) and in test (1); expected each group in one split; "
        "move it",
    ),
    "folds that are no dicts": (
        "s.json",
        "[1, 2]",
        "data.fold: found -1, expected 0 to 1: {here}/s.json has 2 folds",
    ),
    "other columns": (
        "s.csv",
        "name;split\n0;train\n",
        "data.splits: {here}/s.csv has the columns ['name;split'], expected id, and "
        "split or group (the patient) or both, separated by commas",
    ),
    "an empty table": (
        "s.csv",
        "",
        "data.splits: {here}/s.csv has the columns [], <any>",
    ),
    "an unknown split": (
        "s.csv",
        "id,split\n0,train\n1,exam\n",
        "data.splits: {here}/s.csv line 3: split 'exam', expected train, validation or "
        "test",
    ),
    "a short row": (
        "s.csv",
        "id,split\n0,train\n1\n",
        "data.splits: {here}/s.csv line 3: split None, expected train, validation or "
        "test",
    ),
}


@pytest.mark.parametrize("name", SPLITS)
def test_a_file_of_splits_that_is_none(place, refused, name):
    file, content, line = SPLITS[name]
    if content is not None:
        content = content if isinstance(content, bytes) else content.encode()
        (place / file).write_bytes(content)
    command = train_command(place, f"--config.data.splits={place / file}")
    refused(line, *command, workdir=place / "new")
