"""What would stop a run is said in one line before any work: models, tokenizers, names, places. Advice is followed."""

from __future__ import annotations

import json
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    MptConfig,
    OPTConfig,
    PretrainedConfig,
    T5Config,
)

from replication.__main__ import main
from replication.data.corpus import open_corpus
from replication.data.tokenizer import Tokenizer, given_tokenizer, open_tokenizer
from replication.experiment.recipe import parse
from replication.experiment.run import Run
from replication.experiment.scale import load_scale
from replication.machine import hub
from replication.machine.device import this_machine
from replication.model.outline import outline
from replication.model.reach import reach_of
from replication.planning import inspection
from replication.training.before import CHECKS, refusals
from tests.small import write_scale

TOKENS = 320
SIZE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
CONFIGS: dict[str, Callable[[int, int], PretrainedConfig]] = {
    "llama": lambda classes, rows: LlamaConfig(vocab_size=classes, max_position_embeddings=rows, **SIZE),
    "gpt2": lambda classes, rows: GPT2Config(vocab_size=classes, n_positions=rows, n_embd=16, n_layer=1, n_head=2),
    "opt": lambda classes, rows: OPTConfig(
        vocab_size=classes, max_position_embeddings=rows, hidden_size=16, ffn_dim=32, num_hidden_layers=1,
        num_attention_heads=2, word_embed_proj_dim=16,
    ),
    "mpt": lambda classes, rows: MptConfig(vocab_size=classes, max_seq_len=rows, d_model=16, n_heads=2, n_layers=1),
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A folder with a small scale and its text, where models are put; `run` runs a recipe there."""

    folder: Path
    tokenizer: Tokenizer

    def model(self, name: str, config: PretrainedConfig, **saving: object) -> Path:
        """A checkpoint with random weights, beside the tokenizer."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder, **saving)
        self.tokenizer.save(folder)
        return folder

    def main(self, command: str, scale: str = "small.toml", **stated: object) -> int:
        recipe = {"teacher": "none", "target": "OneHot", "tokens": "96"} | stated
        path = self.folder / "recipe.toml"
        path.write_text("".join(f"{key} = {toml(value)}\n" for key, value in recipe.items()))
        return main([*command.split(), str(path), "--scale", str(self.folder / scale)])

    @property
    def worked(self) -> list[str]:
        """What any work has left: records, caches, models."""
        made = [*self.folder.glob("results/*/*"), *self.folder.glob("artifacts/small/*/*")]
        return sorted(str(path.relative_to(self.folder)) for path in made)

    def shorter(self, rows: int) -> str:
        """The advice: a copy of the scale with shorter rows."""
        text = (self.folder / "small.toml").read_text()
        assert '"4096" = 24' in text
        (self.folder / "short.toml").write_text(text.replace('"4096" = 24', f'"4096" = {rows}'))
        return "short.toml"


def toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(entry)}" for key, entry in value.items()) + " }"
    return json.dumps(value)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("text")
    write_scale(folder)
    return open_tokenizer(f"bpe:{TOKENS}", open_corpus(f"path:{folder / 'text'}"), folder)


@pytest.fixture
def place(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> Place:
    write_scale(tmp_path)
    monkeypatch.setenv("RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("ARTIFACTS", str(tmp_path / "artifacts"))
    return Place(tmp_path, tokenizer)


CACHED = {"name": "RandomSampling", "draws": 5}


def refused(place: Place, capfd: pytest.CaptureFixture[str], command: str = "run", **stated: object) -> str:
    """The one line in which a command refuses a recipe, before anything was made."""
    before = place.worked
    assert place.main(command, **stated) == 2  # type: ignore[arg-type]
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and place.worked == before
    return said[0]


# Rows


@pytest.mark.parametrize("family", CONFIGS)
def test_a_row_longer_than_a_model_reads_is_refused_and_the_advice_works(
    place: Place, capfd: pytest.CaptureFixture[str], family: str
) -> None:
    model = place.model("model", CONFIGS[family](TOKENS, 16))
    for command in ("run", "cache build", "plan"):
        said = refused(place, capfd, command, teacher=str(model), target=CACHED)
        assert f"({family}) reads at most 16 tokens, and rows of scale 'small' have 24" in said and "--scale" in said
    assert "The student" in refused(place, capfd, student=str(model))
    assert place.main("run", place.shorter(16), student=str(model)) == 0
    assert place.main("cache build", place.shorter(16), teacher=str(model), target=CACHED) == 0


def test_a_teacher_of_the_suite_reads_no_further_than_it_is_trained(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    path = place.folder / "small.toml"
    student, marker, teacher = path.read_text().partition('[roles."3B"]')
    path.write_text(student + marker + teacher.replace('length = "4096"', 'length = "1024"'))
    said = refused(place, capfd, teacher="3B", target="Full")
    assert "teacher '3B' (llama) reads at most 8 tokens, and rows of scale 'small' have 24" in said
    assert place.main("run", place.shorter(8), teacher="3B", target="Full", tokens="32") == 0


def test_a_model_reads_as_far_as_its_family_says() -> None:
    for make in CONFIGS.values():
        assert reach_of(make(TOKENS, 48)) == 48


# Width


def test_a_model_narrower_than_its_tokenizer_is_refused_and_the_advice_works(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = place.model("model", CONFIGS["llama"](TOKENS - 20, 24))
    for command in ("run", "cache build"):
        said = refused(place, capfd, command, teacher=str(folder), target=CACHED)
        assert "has 300 output classes" in said and "320 tokens: it cannot predict 20 of them" in said
    assert "resize_token_embeddings" in said
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(TOKENS)
    model.save_pretrained(folder)
    assert place.main("run", teacher=str(folder), target=CACHED) == 0


def test_a_student_narrower_than_its_teacher_is_refused_before_the_teacher_reads(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    teacher = place.model("teacher", CONFIGS["llama"](TOKENS, 24))
    student = place.model("student", CONFIGS["llama"](TOKENS - 20, 24))
    said = refused(place, capfd, teacher=str(teacher), student=str(student), target=CACHED)
    assert "The student" in said and "cannot predict 20" in said and "a role of the scale" in said
    assert place.main("run", teacher=str(teacher), student="300M", target=CACHED) == 0


# Students that are not there, or cannot be read


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def without(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink() for name in names] and None  # type: ignore[return-value]


def without_a_shard(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def of_another_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 8}))


DAMAGES = {
    "cut short": (cut_short, r"Cannot read .*model\.safetensors: .*Copy or write it again"),
    "no weights": (without("model.safetensors"), r"has no weights \(model\.safetensors\) but config\.json, .*Give a "),
    "no configuration": (without("config.json"), r"has no config\.json but generation_config\.json.*Give a folder"),
    "a shard is missing": (without_a_shard, r"lacks model-00002-of-00002\.safetensors, .*Copy the whole model"),
    "other shapes": (of_another_shape, r"does not fit its config\.json: .* should be .*Give the config\.json"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_student_that_cannot_be_read_is_refused_before_the_teacher_reads(
    place: Place, capfd: pytest.CaptureFixture[str], damage: str
) -> None:
    teacher = place.model("teacher", CONFIGS["llama"](TOKENS, 24))
    student = place.model("student", CONFIGS["llama"](TOKENS, 24))
    harm, wanted = DAMAGES[damage]
    harm(student)
    said = refused(place, capfd, teacher=str(teacher), student=str(student), target=CACHED)
    assert re.search(wanted, said), said
    place.model("student", CONFIGS["llama"](TOKENS, 24))
    assert place.main("run", teacher=str(teacher), student=str(student), target=CACHED) == 0


# Code of its own


def test_a_model_with_code_of_its_own_is_refused_until_it_is_converted(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    teacher = place.model("teacher", CONFIGS["llama"](TOKENS, 24))
    plain = (teacher / "config.json").read_text()
    mapped = {"AutoConfig": "configuration_own.Own", "AutoModelForCausalLM": "modeling_own.Own"}
    (teacher / "config.json").write_text(json.dumps({**json.loads(plain), "model_type": "own", "auto_map": mapped}))
    said = refused(place, capfd, teacher=str(teacher), target=CACHED)
    assert "code of its own (configuration_own.py, modeling_own.py)" in said and "Convert it" in said
    (teacher / "config.json").write_text(plain)
    assert place.main("cache build", teacher=str(teacher), target=CACHED) == 0


@pytest.mark.parametrize(
    "config",
    [T5Config(vocab_size=TOKENS), PretrainedConfig(model_type="nowhere")],
    ids=["t5", "nowhere"],
)
def test_what_is_no_causal_language_model_is_refused(
    place: Place, capfd: pytest.CaptureFixture[str], config: PretrainedConfig
) -> None:
    config.save_pretrained(place.folder / "teacher")
    stated = json.loads((place.folder / "teacher/config.json").read_text())
    (place.folder / "teacher/config.json").write_text(json.dumps({**stated, "model_type": config.model_type}))
    said = refused(place, capfd, teacher=str(place.folder / "teacher"), target=CACHED)
    assert f"is of family {config.model_type!r}" in said and "no causal language model" in said


# Tokenizers


def rewritten(path: Path, **changed: object) -> None:
    stated = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({key: value for key, value in {**stated, **changed}.items() if value is not None}))


@pytest.mark.parametrize("name", ["generation_config.json", "config.json"])
@pytest.mark.parametrize("several", [False, True])
def test_an_end_of_text_that_only_a_configuration_names_is_used(place: Place, name: str, several: bool) -> None:
    folder = place.model("model", CONFIGS["llama"](TOKENS, 24))
    rewritten(folder / "tokenizer_config.json", eos_token=None, pad_token=None)
    for other in ("generation_config.json", "config.json"):
        rewritten(folder / other, eos_token_id=None)
    with pytest.raises(ValueError, match="names no end-of-text token"):
        given_tokenizer(str(folder))
    rewritten(folder / name, eos_token_id=[7, 9] if several else 7)
    assert given_tokenizer(str(folder)).end_of_text == 7


def test_the_package_that_reads_a_slow_tokenizer_is_named(
    place: Place, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = place.model("model", CONFIGS["llama"](TOKENS, 24))
    fast = folder / "tokenizer.json"
    fast.rename(folder / "kept.json")
    monkeypatch.setattr("replication.data.pretrained.find_spec", lambda name: None)
    for content, package in ((b"\x0a\x0e\x0a\x05<unk>", "sentencepiece"), (b"IQ== 0\nIg== 1\n", "tiktoken")):
        (folder / "tokenizer.model").write_bytes(content)
        said = refused(place, capfd, teacher=str(folder), target=CACHED)
        assert f"the package {package} reads" in said and f"pip install {package}" in said
    (folder / "kept.json").rename(fast)
    assert place.main("cache build", teacher=str(folder), target=CACHED) == 0


def test_a_slow_tokenizer_is_made_fast(tmp_path: Path) -> None:
    from replication.data.pretrained import fast

    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b"]))

    class BertTokenizer:  # as transformers' converters know it
        vocab = {word: place for place, word in enumerate((tmp_path / "vocab.txt").read_text().split())}
        unk_token, cls_token, sep_token, cls_token_id, sep_token_id = "[UNK]", "[CLS]", "[SEP]", 2, 3

        class basic_tokenizer:  # noqa: N801
            tokenize_chinese_chars, strip_accents, do_lower_case = True, None, True

    assert fast(BertTokenizer(), "slow").encode("ab", add_special_tokens=False).ids == [5, 6]
    with pytest.raises(ValueError, match=r"'odd' \(object\) has no fast version.*Convert it to a tokenizer\.json"):
        fast(object(), "odd")


# Names


@pytest.mark.parametrize(
    ("stated", "wanted"),
    [
        ({"student": "300m"}, "did you mean '300M'?"),
        ({"teacher": "3b", "target": "Full"}, "did you mean '3B'?"),
        ({"student": "7B"}, "Known: 300M, 3B; or give a checkpoint: a folder, or a Hugging Face name (owner/model)"),
        ({"tokens": "many"}, "Known: 10B, teacher; or give a plain number of tokens"),
        ({"tokens": "10b"}, "did you mean '10B'?"),
    ],
)
def test_the_nearest_known_word_is_suggested(
    place: Place, capfd: pytest.CaptureFixture[str], stated: dict[str, object], wanted: str
) -> None:
    assert wanted in refused(place, capfd, **stated)


def test_a_folder_that_is_not_there_is_named_with_the_nearest(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    teacher = place.model("teacher", CONFIGS["llama"](TOKENS, 24))
    said = refused(place, capfd, teacher=str(place.folder / "techer"), target=CACHED)
    assert f"no folder {place.folder / 'techer'} (did you mean {str(teacher)!r}?)" in said and "Repo id" not in said
    said = refused(place, capfd, teacher=str(teacher / "model.safetensors"), target=CACHED)
    assert "is a file; a model is a folder" in said
    assert "there is no folder" in refused(place, capfd, teacher="no/such-model", target=CACHED)


@pytest.fixture
def silent_hub(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    """An address that refuses at once, or one that takes calls and never answers."""
    from huggingface_hub import constants

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if request.param == "never answers":
            listening.listen()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(hub, "PATIENCE", 0.5)
        monkeypatch.setenv("HF_HUB_OFFLINE", "")
        hub.silence.cache_clear()
        yield address
        hub.silence.cache_clear()


@pytest.mark.parametrize("silent_hub", ["refuses", "never answers"], indirect=True)
def test_a_hub_that_does_not_answer_is_asked_once(
    place: Place, capfd: pytest.CaptureFixture[str], silent_hub: str
) -> None:
    began = time.perf_counter()
    said = refused(place, capfd, teacher="owner/model", target=CACHED)
    assert time.perf_counter() - began < 5
    assert silent_hub in said and "hf download owner/model" in said and str(Path("owner/model").absolute()) in said
    with pytest.raises(ValueError, match=f"Cannot load data set 'org/set' from the hub: {silent_hub} does not answer"):
        open_corpus("hub:org/set")
    assert time.perf_counter() - began < 10
    teacher = place.model("teacher", CONFIGS["llama"](TOKENS, 24))
    assert place.main("cache build", teacher=str(teacher), target=CACHED) == 0


def test_a_model_in_the_hubs_cache_needs_no_hub(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    teacher = place.model("teacher", CONFIGS["llama"](TOKENS, 24))
    snapshot = place.folder / "hub/models--owner--model/snapshots/c0ffee"
    shutil.copytree(teacher, snapshot)
    refs = place.folder / "hub/models--owner--model/refs"
    refs.mkdir()
    (refs / "main").write_text("c0ffee")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(place.folder / "hub"))
    assert outline("owner/model").precision == "float32"
    assert given_tokenizer("owner/model").fingerprint == place.tokenizer.fingerprint
    with pytest.raises(ValueError, match="its cache .* does not hold it"):
        hub.located("owner/other")


# Places


def test_a_tilde_is_the_home_folder_wherever_a_path_stands(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = place.model("teacher", CONFIGS["llama"](TOKENS, 24))
    monkeypatch.setenv("HOME", str(place.folder))
    monkeypatch.setenv("RESULTS", "~/results")
    monkeypatch.setenv("ARTIFACTS", "~/artifacts")
    recipe = place.folder / "recipe.toml"
    stated = {"teacher": "~/teacher", "student": "~/teacher", "text": "path:~/text", "tokens": "96", "target": CACHED}
    recipe.write_text("".join(f"{key} = {toml(value)}\n" for key, value in stated.items()))
    assert main(["run", "~/recipe.toml", "--scale", "~/small.toml"]) == 0
    assert any("models" in name for name in place.worked) and any("caches" in name for name in place.worked)
    (cache,) = (place.folder / "artifacts/small/caches").iterdir()
    assert main(["cache", "verify", f"~/{cache.relative_to(place.folder)}"]) == 0
    assert parse({"teacher": "~/teacher"}) == parse({"teacher": str(teacher)})
    assert this_machine().results == place.folder / "results"


@pytest.mark.parametrize("variable", ["RESULTS", "ARTIFACTS"])
def test_a_folder_that_cannot_be_written_is_named_before_any_work(
    place: Place, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    (place.folder / "file").write_text("")
    monkeypatch.setenv(variable, str(place.folder / "file" / "below"))
    said = refused(place, capfd)
    assert f"{place.folder / 'file' / 'below'}: there is a file where a folder has to be" in said and variable in said
    monkeypatch.setenv(variable, str(place.folder / "elsewhere"))
    assert place.main("run") == 0


def test_what_the_system_refuses_is_said_with_its_file(
    place: Place, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *given: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("replication.data.tokenizer.replace_text", full)
    assert place.main("run") == 2
    said = capfd.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: {place.folder / 'artifacts' / 'text'}") and "the disk is full. Free some" in said


def test_text_that_a_run_reads_last_is_looked_at_first(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    tuning = {"name": "Instructed", "text": f"path:{place.folder / 'chats.jsonl'}", "tokens": "96"}
    with (place.folder / "small.toml").open() as file:
        text = file.read()
    tuner = "tuning = { peak_rate = 3e-4, final_rate = 3e-5, warmup = 0.03, batch = 4 }\n"
    (place.folder / "tuned.toml").write_text(tuner + text)
    assert place.main("run", "tuned.toml", tuning=tuning) == 2
    assert "chats.jsonl" in capfd.readouterr().err and place.worked == []
    assert "No file or folder" in refused(place, capfd, text="path:no/such/folder")


def test_a_step_that_surely_does_not_fit_is_refused(
    place: Place, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(parse({"teacher": "none", "target": "OneHot"}), load_scale(str(place.folder / "small.toml")), 0)
    least = inspection.least_bytes(run, this_machine())
    parameters = 2 * TOKENS * 16 + 4 * 16 * 16 + 3 * 16 * 32 + 3 * 16
    assert least == 16 * parameters
    monkeypatch.setattr(inspection, "total_memory", lambda: least - 1)
    assert "of memory at least" in refused(place, capfd)
    assert place.main("plan") == 0  # which may be of another machine
    monkeypatch.setattr(inspection, "total_memory", lambda: least)
    assert place.main("run") == 0


# Models that do not fit each other


def test_what_two_models_do_not_share_is_found_before_either_is_trained(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    begun = {"teacher": "3B", "target": "Full", "initial": "FromTeacherLayers"}
    assert "does not fit in key and value heads" in refused(place, capfd, **begun)
    teacher = place.model("teacher", CONFIGS["gpt2"](TOKENS, 24))
    assert "does not fit in family" in refused(place, capfd, **{**begun, "teacher": str(teacher)})
    assert "both say where the student begins" in refused(
        place, capfd, **{**begun, "teacher": str(teacher), "student": str(teacher)}
    )
    frozen = {**begun, "initial": {"name": "FromTeacherLayers", "embeddings": "frozen"}}
    assert "width (16 of the student, 32 of the teacher)" in refused(place, capfd, **frozen)
    compared = {"teacher": "3B", "target": "Full", "hidden": "Cosine"}
    assert "the student's is 16, its teacher's 32" in refused(place, capfd, **compared)


def test_a_new_check_joins_the_others(place: Place) -> None:
    run = Run(parse({"target": "OneHot"}), load_scale(str(place.folder / "small.toml")), 0)
    assert list(refusals(run)) == []
    assert list(refusals(run, (*CHECKS, lambda seen: f"not {seen.run.recipe.student}"))) == ["not 300M"]


# Outlines, and what `inspect` says


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        (LlamaConfig(tie_word_embeddings=False), "product"),
        (GPT2Config(), "product, tied to the embeddings"),
        (GraniteConfig(logits_scaling=8.0, tie_word_embeddings=False), "product, divided by 8.0 (logits_scaling)"),
        (CohereConfig(logit_scale=0.0625, tie_word_embeddings=False), "product, multiplied by 0.0625 (logit_scale)"),
        (Gemma2Config(tie_word_embeddings=False), "product, capped at 30.0 (final_logit_softcapping)"),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_an_outline_says_how_logits_come_about(tmp_path: Path, config: PretrainedConfig, wanted: str) -> None:
    config.save_pretrained(tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    assert outline(str(tmp_path)).head == wanted


def test_a_head_with_a_bias_and_the_precision_of_the_file_are_read_from_headers(tmp_path: Path) -> None:
    config = BertConfig(vocab_size=50, is_decoder=True, **SIZE)
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(tmp_path)
    assert outline(str(tmp_path)).precision == "bfloat16"


def test_inspect_says_what_is_seen_in_a_model(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    folder = place.model("model", CONFIGS["gpt2"](TOKENS + 8, 16))
    assert main(["inspect", str(folder), "--scale", str(place.folder / "small.toml")]) == 0
    said = " ".join(capfd.readouterr().out.split())
    for wanted in (
        "family gpt2, 1 layers, width 16,", "head product, tied to the embeddings",
        "positions rows of up to 16 tokens; rows of scale small have 24", "precision float32",
        "width 328 classes; 320 tokens, a text ends with '<|endoftext|>'; special: eos '<|endoftext|>'",
        "memory a step of 4 rows takes about", "as teacher refused", "as student refused", "reads at most 16 tokens",
        "fingerprint",
    ):  # fmt: skip
        assert wanted in said, (wanted, said)
    assert main(["inspect", "300M", "--scale", str(place.folder / "small.toml")]) == 0
    assert "role 300M: llama, 1 layers, width 16" in " ".join(capfd.readouterr().out.split())


def test_inspect_says_what_a_recipe_would_do(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    teacher = place.model("teacher", CONFIGS["llama"](TOKENS, 24))
    assert place.main("inspect", teacher=str(teacher), target=CACHED) == 0
    said = " ".join(capfd.readouterr().out.split())
    for wanted in ("student 300M: llama", "rows 24 tokens; 4 rows a step, 1 steps", "pass to do:", "cache to do:",
                   "run to do:", "run nothing stands in the way"):  # fmt: skip
        assert wanted in said, (wanted, said)
    assert place.worked == []
    assert place.main("inspect", teacher=str(place.folder / "none"), target=CACHED) == 0
    assert "run refused" in " ".join(capfd.readouterr().out.split())


@pytest.mark.parametrize("name", ["no/such-model", "3b", "300m"])
def test_inspect_refuses_what_is_no_model_in_one_line(
    place: Place, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(["inspect", name, "--scale", str(place.folder / "small.toml")]) == 2
    said = capfd.readouterr()
    assert not said.out and said.err.count("\n") == 1
    assert ("did you mean '3" if "/" not in name else "there is no folder") in said.err


def test_a_tokenizer_without_its_vocabulary_is_refused(place: Place, tmp_path: Path) -> None:
    """transformers gives an empty one, in silence, which reads megabytes of text as a few tokens."""
    from transformers import GPT2TokenizerFast

    folder = tmp_path / "empty"
    GPT2TokenizerFast().save_pretrained(folder)
    with pytest.raises(ValueError, match=r"spells no text: its folder lacks its vocabulary. Add its tokenizer\.json"):
        given_tokenizer(str(folder))
    assert place.tokenizer.came is None
    place.tokenizer.save(folder)  # which adds it
    assert given_tokenizer(str(folder)).fingerprint == place.tokenizer.fingerprint
