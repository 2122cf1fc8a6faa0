"""A shallower copy of the teacher."""

import pytest
import torch

import tiny
from compressor.errors import UsageError
from compressor.methods.students import copy_layers
from compressor.model.load import Loaded


def teacher(layers=4):
    return Loaded(tiny.model(num_hidden_layers=layers), None, None, "text-classification")


def test_the_student_is_a_copy_and_the_teacher_is_untouched():
    origin = teacher()
    before = {name: value.clone() for name, value in origin.model.state_dict().items()}
    student = copy_layers.build(origin, copy_layers.Options(layers=2)).model
    assert student.config.num_hidden_layers == 2
    for mine, theirs in enumerate([0, 3]):
        for name, value in student.bert.encoder.layer[mine].state_dict().items():
            assert torch.equal(value, before[f"bert.encoder.layer.{theirs}.{name}"])
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(v, before[n]) for n, v in origin.model.state_dict().items())
    assert origin.model.config.num_hidden_layers == 4


def test_half_of_the_layers_by_default_and_no_more_than_the_teacher_has():
    assert copy_layers.build(teacher(), copy_layers.Options()).model.config.num_hidden_layers == 2
    with pytest.raises(UsageError, match="4 layers"):
        copy_layers.build(teacher(), copy_layers.Options(layers=5))
