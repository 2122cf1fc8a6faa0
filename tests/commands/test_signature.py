"""Flags from dataclasses: what a command line takes, and what it says when it does not."""

import dataclasses
import importlib
import inspect
import typing

import pytest

import tiny
from compressor.cli import run
from compressor.commands.signature import known_flags
from compressor.commands.slots import values_of
from compressor.methods.find import every

VERBS = (
    "finetune",
    "distill",
    "prune",
    "quantize",
    "export",
    "benchmark",
    "generate",
    "inspect",
    "methods",
)


@pytest.mark.parametrize("verb", [*VERBS, "run"])
def test_help_of_every_verb_names_its_flags(verb, capsys):
    assert run([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Usage: compressor" in shown
    for flag in known_flags(verb, []):
        assert flag in shown


@pytest.mark.parametrize(
    ("verb", "flag", "kind"),
    [
        ("prune", "--method", "transforms"),
        ("prune", "--with", "modifiers"),
        ("quantize", "--method", "transforms"),
        ("distill", "--method", "objectives"),
        ("distill", "--student", "students"),
    ],
)
def test_help_lists_the_methods(verb, flag, kind, capsys):
    assert run([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    shown = " ".join(shown[shown.index(flag) :].split())
    for method in every():
        if method.kind == kind and (flag == "--with" or verb in method.verbs):
            assert method.name in shown


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        ("prune m --method magnitude --pattern 2:4 --sparsity 0.9", "--sparsity does nothing"),
        ("prune m --method magnitude --pattern 2:4 --scope global", "--scope does nothing"),
        ("prune m --method wanda --pattern 2:4 --sparsity 0.9", "--sparsity does nothing"),
        ("prune m --method sparsegpt --pattern 2:4 --sparsity 0.9", "--sparsity does nothing"),
        ("prune m --method obert --pattern 2:4 --scope uniform", "--scope does nothing"),
        ("prune m --method layer_drop --drop-layers 0 --drop 1", "--drop does nothing"),
        (
            "prune m --method layer_drop --strategy contribution --similarity-threshold 0.9 "
            "--drop 1",
            "--drop does nothing",
        ),
        ("benchmark m --landscape-rows 9", "--landscape-rows does nothing"),
        ("benchmark m --label-column answer", "--label-column does nothing without --data"),
        ("quantize m --domain books", "--domain does nothing without --data"),
        ("prune m --method magnitude --no-overlap", "--no-overlap does nothing without --data"),
        ("export m --no-overlap", "--no-overlap does nothing without --data"),
        ("export m --no-cache", "--no-cache does nothing here"),
        ("export m --device cpu", "No such option: --device"),
        ("finetune m --with swa --with alrs", "swa and alrs each set the learning rate"),
        ("prune m --method cofi --with gmp", "gmp counts the zeros of what cofi cuts"),
        ("finetune m --with alrs --schedule cosine", "--schedule does nothing"),
        ("finetune m --with swa --schedule linear", "--schedule does nothing"),
        ("finetune m --with swa --swa-schedule planned --with swad", "swa and swad would each"),
        ("finetune m --with swa --cycle-epochs 1", "--cycle-epochs does nothing"),
        ("prune m --method gmp --rewind --schedule cosine", "--schedule does nothing"),
        ("prune m --method gmp --rewind --with swa", "gmp and swa each set the learning rate"),
    ],
)
def test_a_flag_that_would_do_nothing_is_refused(words, refusal, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny.checkpoint(tmp_path / "m")
    assert run(words.split()) == 2
    assert refusal in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        ("prune --method gmp --help", "--prunes-per-epoch"),
        ("prune --method=layer-drop --help", "--strategy"),
        ("distill --help", "--layers"),
        ("finetune --with gmp --help", "--sparsity"),
        ("finetune --teacher t --help", "--temperature"),
    ],
)
def test_a_method_brings_its_options(words, flag, capsys):
    assert run(words.split()) == 0
    assert flag in capsys.readouterr().out


def test_an_option_of_another_method_is_named(capsys):
    assert run(["prune", "m", "--method", "magnitude", "--prunes-per-epoch", "3"]) == 2
    said = capsys.readouterr().err
    assert "--prunes-per-epoch is an option of gmp" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("prun m", "prun"),
        ("prune m --method gpm", "gmp"),
        ("prune m --sparsity 1.0", "0.0 to 0.9999"),
        ("prune m --sparsity -0.1", "0.0 to 0.9999"),
        ("prune m --sparsity much", "valid number"),
        ("finetune m --epochs -1", "at least 0"),
        ("finetune m --batch-size 0", "at least 1"),
        ("finetune m --schedule square", "linear, cosine, constant"),
        ("finetune m --nonsense", "--nonsense"),
        ("finetune", "MODEL"),
        ("finetune m --with swa_ghost", "no such method"),
        ("distill m --student smaller --student copy_layers", "one method"),
        ("distill m --method rkd --method rkd", "names rkd 2 times"),
        ("benchmark m --shapes 1by2", "1x32"),
        ("benchmark m --min-speedup 0", "--min-speedup"),
    ],
)
def test_usage_errors_exit_2_in_words(words, said, capsys):
    assert run(words.split()) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""


def test_a_method_never_hides_a_flag_of_its_verb():
    for method in every():
        for verb in method.verbs:
            plain = inspect.signature(importlib.import_module(f"compressor.commands.{verb}").run)
            groups = typing.get_type_hints(
                importlib.import_module(f"compressor.commands.{verb}").run
            )
            own = set(plain.parameters)
            for name, group in groups.items():
                if name in plain.parameters and dataclasses.is_dataclass(group):
                    own |= {field.name for field in dataclasses.fields(group)}
            assert not own & {field.name for field in dataclasses.fields(method.options)}


def test_values_are_read_in_both_spellings():
    words = ["--with", "a", "--with=b", "--without", "c"]
    assert values_of("--with", words) == ["a", "b"]
