import torch

from fopro_lab.fourier import FourierPrompt
from fopro_lab.training import PromptedTeacher
from tests.models.toys import norm_teacher, toy_images


def test_it_answers_as_its_teacher_on_prompted_images():
    prompt, teacher = FourierPrompt("generator", size=16), norm_teacher()
    with torch.no_grad():
        prompt.network.last.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    behind = PromptedTeacher(teacher, prompt)
    images = toy_images(6)
    with torch.no_grad():
        expected = teacher.encode(prompt(images, torch.Generator().manual_seed(0)))
        assert torch.equal(behind.encode(images), expected)
        assert torch.equal(behind.encode(images), expected)  # the noise is the same every time
        assert not torch.allclose(expected, teacher.encode(images), atol=1e-3)
    assert behind.card["prompt"]["form"] == "generator" and "prompt" not in teacher.card
