"""Whole commands on a small run: what train leaves, and what the other commands make of it."""

import json
import math
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file

from poise.configs.fields import from_dict
from poise.configs.language import LanguageConfig
from poise.models import DEQTransformer
from poise.tasks.run_folder import RunFolder
from tests.cli.tiny_runs import TINY


def test_a_run_holds_what_inference_and_a_replay_need(trained):
    names = {path.name for path in trained.iterdir()}
    assert names == {
        *("config.yaml", "metrics.csv", "checkpoints", "summary.json", "analysis.json", "report.html"),
        *("model.safetensors", "tokenizer"),
    }
    settings = yaml.safe_load((trained / "config.yaml").read_text())
    assert settings.pop("task") == "language"
    assert from_dict(LanguageConfig, settings).trainer.max_steps == 12


def test_the_summary_has_every_key_of_the_schema(trained):
    summary = json.loads((trained / "summary.json").read_text())
    weights = load_file(trained / "model.safetensors")
    assert summary["task"] == "language" and summary["recipe"] is None and summary["seed"] == 0
    assert summary["parameters"] == sum(weight.numel() for weight in weights.values())
    assert summary["val_perplexity"] == pytest.approx(math.exp(summary["val_loss"]))
    assert summary["mean_forward_evaluations"] == 3.0 and summary["mean_backward_evaluations"] == 2.0
    assert summary["statuses"] == {"BUDGET": 12 * 4}  # steps times windows; the budget is fixed
    assert set(summary["validation_statuses"]) == {"CONVERGED"}
    assert summary["activation_bytes"] > summary["block_activation_bytes"] > 0
    assert summary["train_seconds"] > 0 and summary["train_cpu_seconds"] > 0
    assert summary["versions"]["torch"] == torch.__version__


def test_metrics_have_the_first_step_every_fourth_and_the_validations(trained):
    rows = RunFolder(trained).read_metrics()
    assert [row["step"] for row in rows if "loss" in row] == [1, 4, 8, 12]
    assert [row["step"] for row in rows if "val_loss" in row] == [6, 12]
    assert {"residual", "forward_evaluations", "backward_evaluations", "lr", "train_cpu_seconds"} <= set(rows[0])


def test_the_last_two_checkpoints_are_kept_and_load_without_code(trained):
    found = sorted((trained / "checkpoints").iterdir())
    assert [path.name for path in found] == ["step-00000010.ckpt", "step-00000012.ckpt"]
    content = torch.load(found[-1], weights_only=True)
    assert content["poise"]["config"]["seed"] == 0 and content["global_step"] == 12


def test_evaluate_repeats_the_validation_of_training(poise, trained):
    code, out, _ = poise("evaluate", trained)
    summary, found = (json.loads((trained / f"{name}.json").read_text()) for name in ("summary", "evaluation"))
    assert code == 0 and f"{summary['val_loss']:.4f}" in out
    assert found["val_loss"] == summary["val_loss"]
    assert found["solver"]["rtol"] == 1e-2


def test_evaluate_and_generate_take_another_solver(poise, trained):
    poise("evaluate", trained, "--solver.rtol", "1e-5")
    tight = json.loads((trained / "evaluation.json").read_text())
    poise("evaluate", trained, "--solver.rtol", "null", "--solver.max_steps", "1")
    loose = json.loads((trained / "evaluation.json").read_text())
    assert tight["solver"]["rtol"] == 1e-5 and tight["mean_evaluations"] > loose["mean_evaluations"] == 1.0
    assert tight["val_loss"] != loose["val_loss"]
    code, _, _ = poise("generate", trained, "--prompt", "the ", "--tokens", 3, "--solver.max_steps", 2)
    assert code == 0


@pytest.mark.filterwarnings("default::poise.ConvergenceWarning")
def test_solves_that_miss_their_tolerance_are_told_once(poise, trained, tmp_path):
    code, out, err = poise("evaluate", trained, "--solver.rtol", "1e-6", "--solver.max_steps", 2)
    assert code == 0 and " BUDGET" in out
    assert len(err.splitlines()) == 1 and err.startswith("poise: warning: the forward solve ended BUDGET for ")
    assert "2.0, for the slowest sample of each batch" in out
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    poise("report", folder)
    evaluation = (folder / "report.html").read_text().partition(">Evaluation<")[2].partition(">Settings<")[0]
    assert "all allowed evaluations were spent" in evaluation and "slowest window of a batch" in evaluation


def test_evaluate_measures_the_test_split_of_a_folder(poise, trained, text_file, tmp_path):
    text = text_file.read_text()
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.txt").write_text(text if name == "test" else text[len(text) * 9 // 10 :])
    code, out, _ = poise("evaluate", trained, "--data", tmp_path)
    found = json.loads((trained / "evaluation.json").read_text())
    assert code == 0 and "test loss" in out
    assert found["test_loss"] != found["val_loss"] == json.loads((trained / "summary.json").read_text())["val_loss"]


def test_generate_writes_the_same_text_for_a_seed(poise, trained):
    texts = [poise("generate", trained, "--prompt", "the cat", "--tokens", 20, "--seed", seed)[1] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert all(text.startswith("the cat") and len(text) == len("the cat") + 20 + 1 for text in texts)
    assert poise("generate", trained, "--prompt", "the", "--tokens", 0)[1] == "the\n"


def test_several_prompts_are_continued_as_each_alone(poise, trained):
    prompts, options = ("the cat", "a", "on the mat"), ("--tokens", 12, "--temperature", 0)
    alone = [poise("generate", trained, "--prompt", prompt, *options)[1] for prompt in prompts]
    asked = [argument for prompt in prompts for argument in ("--prompt", prompt)]
    assert poise("generate", trained, *asked, *options)[1] == "\n".join(alone)


@pytest.mark.parametrize(
    ("prompt", "part"), [("the @cat", "'@'"), ("", "the prompt is empty; pass at least one character.")]
)
def test_a_prompt_that_cannot_be_encoded_is_refused(poise, trained, prompt, part):
    code, out, err = poise("generate", trained, "--prompt", prompt)
    assert code == 2 and out == "" and part in err and len(err.splitlines()) == 1


def test_report_is_rebuilt_from_the_folder_alone(poise, trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    before = (folder / "report.html").read_text()
    (folder / "report.html").unlink()
    (folder / "evaluation.json").unlink(missing_ok=True)
    code, out, _ = poise("report", folder)
    assert code == 0 and out.strip() == str(folder / "report.html")
    assert (folder / "report.html").read_text() == before
    for name in ("summary.json", "analysis.json", "metrics.csv", "evaluation.json"):  # a run cut short
        (folder / name).unlink(missing_ok=True)
        assert poise("report", folder)[0] == 0


def test_the_report_shows_what_a_language_run_is_asked_for(trained):
    page = (trained / "report.html").read_text()
    for heading in (
        *("Loss", "Residual against evaluations", "Evaluations a window", "Held for the backward, one window"),
        *("temperature 0.8", "converged", "model", "d_model"),
    ):
        assert heading in page
    assert "http://" not in page and "https://" not in page and "<script" not in page


def test_an_occupied_folder_is_refused_and_overwrite_removes_only_the_run(poise, trained, text_file, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    (folder / "notes.txt").write_text("mine")
    flags = ["--data", text_file, "--out", folder, *TINY, "--max_steps", 2]
    code, _, err = poise("train", "language", *flags)
    assert code == 2 and err == (
        f"poise: the folder {folder} is not empty; pass --resume to go on, --overwrite, or another --out.\n"
    )
    for wrong in (["--data", "no.txt"], ["--accelerator", "nonesuch"]):
        code, _, err = poise("train", "language", *flags, *wrong, "--overwrite")
        assert code == 2 and len(err.splitlines()) == 1
        assert (folder / "summary.json").exists()  # a run is removed only when the new one can begin
    assert poise("train", "language", *flags, "--overwrite")[0] == 0
    assert json.loads((folder / "summary.json").read_text())["steps"] == 2
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-00000002.ckpt"]
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_logger_that_is_not_installed_is_told(poise, text_file, tmp_path, monkeypatch):
    monkeypatch.setattr("poise.tasks.training.find_spec", lambda name: None)
    flags = ["--data", text_file, *TINY, "--logger", "tensorboard", "--out", tmp_path / "run"]
    code, _, err = poise("train", "language", *flags)
    assert code == 2 and "pip install 'poise[tb]'" in err and not (tmp_path / "run").exists()


def test_the_last_validation_is_whole_whatever_the_limit(poise, text_file, tmp_path):
    limits = {"whole": "1.0", "limited": "1"}
    losses = {}
    for name, limit in limits.items():
        flags = ["--max_steps", 2, "--val_check_interval", 2, "--data.eval_batch_size", 2, "--limit_val_batches", limit]
        assert poise("train", "language", "--data", text_file, *TINY, *flags, "--out", tmp_path / name)[0] == 0
        losses[name] = json.loads((tmp_path / name / "summary.json").read_text())["val_loss"]
    assert losses["limited"] == losses["whole"]
    in_training, at_the_end = (row for row in RunFolder(tmp_path / "limited").read_metrics() if "val_loss" in row)
    assert in_training["val_loss"] != at_the_end["val_loss"]


def test_folders_are_numbered(poise, text_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        assert poise("train", "language", "--data", text_file, *TINY, "--fast_dev_run", "true")[0] == 0
        assert (tmp_path / "runs" / f"language-deq-{number}" / "summary.json").exists()
    # Without --out the last run of the name is the one to go on with.
    assert "runs/language-deq-2" in poise("train", "language", "--resume")[1]


def test_the_explicit_peer_trains_with_adamw_and_bpe(poise, text_file, tmp_path):
    folder = tmp_path / "run"
    flags = ["--model", "explicit", "--optimizer", "adamw", "--tokenizer", "bpe", "--data.vocab_size", 300]
    code, out, _ = poise("train", "language", "--data", text_file, *TINY, *flags, "--max_steps", 3, "--out", folder)
    summary = json.loads((folder / "summary.json").read_text())
    assert code == 0 and "report:" in out
    assert summary["mean_forward_evaluations"] == 0 and summary["statuses"] == {} and summary["tokenizer"] == "bpe"
    code, _, err = poise("evaluate", folder, "--solver.rtol", "1e-2")
    assert code == 2 and "solves nothing" in err
    assert poise("generate", folder, "--prompt", "anything: é", "--tokens", 5)[0] == 0  # bytes know every text


@pytest.mark.parametrize("adjoint", ["implicit", "jacobian_free", "unrolled"])
def test_every_adjoint_trains(poise, text_file, tmp_path, adjoint):
    flags = ["--adjoint", adjoint, "--solver", "anderson", "--solver.rtol", "1e-2", "--solver.max_steps", 20]
    code, _, _ = poise("train", "language", "--data", text_file, *TINY, *flags, "--max_steps", 2, "--out", tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert code == 0 and set(summary["statuses"]) == {"CONVERGED"}
    assert bool(summary["backward_statuses"]) == (adjoint == "implicit")


def test_the_weights_are_those_that_were_trained(trained):
    checkpoint = torch.load(trained / "checkpoints" / "step-00000012.ckpt", weights_only=True)
    saved = load_file(trained / "model.safetensors")
    assert saved.keys() == {name.removeprefix("model.") for name in checkpoint["state_dict"]}
    assert all(torch.equal(saved[name], checkpoint["state_dict"][f"model.{name}"]) for name in saved)
    model = DEQTransformer(vocab_size=saved["embedding.weight"].shape[0], d_model=16, n_heads=2, n_layers=1)
    model.load_state_dict(saved)


@pytest.mark.parametrize("damage", ["config.yaml", "model.safetensors", "tokenizer/tokenizer.json"])
def test_a_damaged_run_is_told_in_one_sentence(poise, trained, tmp_path, damage):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    (folder / damage).write_bytes((folder / damage).read_bytes()[:20])
    code, _, err = poise("generate", folder, "--prompt", "the")
    assert code in (1, 2) and len(err.splitlines()) == 1 and str(folder) in err


def test_settings_of_an_unfinished_run_use_its_last_checkpoint(poise, trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    whole = poise("generate", folder, "--prompt", "the", "--tokens", 9)[1]
    (folder / "model.safetensors").unlink()
    code, out, err = poise("generate", folder, "--prompt", "the", "--tokens", 9)
    assert code == 0 and out == whole and "weights after step 12" in err
    shutil.rmtree(folder / "checkpoints")
    code, _, err = poise("generate", folder, "--prompt", "the")
    assert code == 1 and "holds no weights yet" in err
