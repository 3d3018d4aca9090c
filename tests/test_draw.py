"""Classes can be told apart: the colours' distances for viewers of all kinds."""
import numpy as np
import pytest

from segnb.core import VOID
from segnb.draw import class_colors

# what is seen without red, green or blue receptors: Machado, Oliveira, Fernandes 2009, severity 1, on linear RGB
VISIONS = dict(
    usual=np.eye(3),
    protan=[[.152286, 1.052583, -.204868], [.114503, .786281, .099216], [-.003882, -.048116, 1.051998]],
    deutan=[[.367322, .860646, -.227968], [.280085, .672501, .047413], [-.011820, .042940, .968881]],
    tritan=[[1.255528, -.076749, -.178779], [-.078411, .930809, .147602], [.004733, .691367, .303900]])

# Ottosson 2020, "A perceptual color space for image processing"
CONES = np.array([[.4122214708, .5363325363, .0514459929], [.2119034982, .6806995451, .1073969566],
                  [.0883024619, .2817188376, .6299787005]])
LAB = np.array([[.2104542553, .7936177850, -.0040720468], [1.9779984951, -2.4285922050, .4505937099],
                [.0259040371, .7827717662, -.8086757660]])


def oklab(rgb, vision):
    c = np.asarray(rgb) / 255
    linear = np.where(c <= .04045, c / 12.92, ((c + .055) / 1.055)**2.4)
    return np.cbrt((linear @ np.array(VISIONS[vision]).T).clip(0, 1) @ CONES.T) @ LAB.T


def gaps(colors, vision):
    lab = oklab(colors, vision)
    far = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    return far[np.triu_indices(len(lab), 1)]


def test_oklab_of_white_and_red():
    assert np.allclose(oklab([255, 255, 255], "usual"), [1, 0, 0], atol=1e-3)
    assert np.allclose(oklab([255, 0, 0], "usual"), [.628, .225, .126], atol=1e-3)


@pytest.mark.parametrize("vision", VISIONS)
def test_eleven_classes_and_void_are_told_apart(vision):
    assert gaps([*class_colors(11)[:11], (0, 0, 0)], vision).min() > .1


def test_all_colours_differ():
    colors = class_colors(255)
    assert len({tuple(c) for c in colors[:255]}) == 255 and not colors[VOID].any()
    assert gaps([*colors[:20], (0, 0, 0)], "usual").min() > .05
    assert not class_colors(3)[3:].any()
