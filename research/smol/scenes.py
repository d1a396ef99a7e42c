"""Pictures of one to four emoji and coloured shapes on a plain background, and what can be asked about them.

Emoji are drawn with Noto Color Emoji (Debian: `fonts-noto-color-emoji`). A scene is a background and the objects from left to
right; its hash decides once and for all whether it belongs to training, validation or test (`split_of`), so no combination of
objects and background of one is seen in another. Places, sizes and shades are drawn anew for each picture.
"""

from __future__ import annotations

import functools
import math
import random
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

Split = Literal["train", "validation", "test"]
Box = tuple[int, int, int, int]

SIZE = 120
"""Width and height of a picture in pixels."""
FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
COLORS = {
    "red": (215, 35, 35), "green": (45, 165, 60), "blue": (45, 85, 225), "yellow": (245, 220, 45),
    "purple": (150, 50, 190), "orange": (245, 135, 25), "gray": (130, 130, 130), "white": (245, 245, 245),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross")
EMOJI = {
    "dog": "🐶", "cat": "🐱", "horse": "🐴", "cow": "🐮", "pig": "🐷", "rabbit": "🐰", "panda": "🐼",
    "tiger": "🐯", "frog": "🐸", "monkey": "🐵", "penguin": "🐧", "butterfly": "🦋", "spider": "🕷", "snake": "🐍",
    "crab": "🦀", "fish": "🐟", "elephant": "🐘", "apple": "🍎", "banana": "🍌", "grapes": "🍇", "strawberry": "🍓",
    "pineapple": "🍍", "carrot": "🥕", "mushroom": "🍄", "pizza": "🍕", "cake": "🎂", "car": "🚗", "bicycle": "🚲",
    "airplane": "✈", "rocket": "🚀", "boat": "⛵", "house": "🏠", "tree": "🌳", "flower": "🌻", "sun": "☀",
    "fire": "🔥", "key": "🔑", "bell": "🔔", "book": "📕", "guitar": "🎸", "trumpet": "🎺", "shoe": "👟",
    "hat": "🎩", "crown": "👑", "scissors": "✂", "gift": "🎁", "camera": "📷", "football": "⚽", "phone": "📞",
}  # fmt: skip
COLORED = tuple(f"{color} {shape}" for color in COLORS for shape in SHAPES)
OBJECTS = (*EMOJI, *COLORED)
NUMBERS = ("one", "two", "three", "four")
_PLURAL = ("grapes", "scissors")


@dataclass(frozen=True)
class Scene:
    background: str
    objects: tuple[str, ...]
    """From left to right; four stand two above two, and are asked neither left nor right."""


@dataclass(frozen=True)
class Picture:
    image: Image.Image
    scene: Scene
    boxes: tuple[Box, ...]
    """Of the objects, in pixels."""
    inside: Box
    """Where the scene lies: all of the picture, or a part of a plain frame."""


@dataclass(frozen=True)
class Question:
    kind: str
    text: str
    value: str
    answers: tuple[str, ...]
    """The same answer in several wordings."""


def split_of(scene: Scene) -> Split:
    """Which split a scene belongs to, whatever its objects' order: 8 : 1 : 1, fixed."""
    bucket = zlib.crc32("|".join([scene.background, *sorted(scene.objects)]).encode()) % 10
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"


def draw_scene(rng: random.Random, split: Split, number: int | None = None) -> Scene:
    """A random scene of a split; a shape differs from the background in colour, and no form comes twice."""
    while True:
        background = rng.choice(list(COLORS))
        count = number or rng.choices((1, 2, 3, 4), (0.36, 0.3, 0.2, 0.14))[0]
        pool = [rng.choice(COLORED) if rng.random() < 0.25 else rng.choice(list(EMOJI)) for _ in range(count)]
        forms = [name.split()[-1] for name in pool]
        scene = Scene(background, tuple(pool))
        if len(set(forms)) == count and not any(name.startswith(background) for name in pool) and split_of(scene) == split:
            return scene


@functools.cache
def _glyph(name: str) -> Image.Image:
    font = ImageFont.truetype(str(FONT), 109)
    canvas = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((8, 8), EMOJI[name], font=font, embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        raise ValueError(f"{FONT} has no picture of {name}")
    side = max(box[2] - box[0], box[3] - box[1])
    square = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    square.paste(canvas.crop(box), ((side - box[2] + box[0]) // 2, (side - box[3] + box[1]) // 2))
    return square


def _outline(shape: str, side: int) -> list[tuple[float, float]]:
    def around(count: int, radii: tuple[float, ...], start: float = -math.pi / 2) -> list[tuple[float, float]]:
        angles = [start + 2 * math.pi * i / count for i in range(count)]
        return [(radii[i % len(radii)] * math.cos(a), radii[i % len(radii)] * math.sin(a)) for i, a in enumerate(angles)]

    if shape == "heart":
        turns = [2 * math.pi * i / 40 for i in range(40)]
        points = [
            (math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16)
            for t in turns
        ]
    elif shape == "cross":
        a = 0.33
        points = [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a)]
    else:
        points = {
            "circle": lambda: around(40, (1.0,)),
            "square": lambda: around(4, (1.3,), math.pi / 4),
            "triangle": lambda: around(3, (1.1,)),
            "star": lambda: around(10, (1.1, 0.45)),
        }[shape]()
    return [(side * (0.5 + 0.45 * x), side * (0.5 + 0.45 * y)) for x, y in points]


@functools.lru_cache(maxsize=20000)
def _object(name: str, side: int) -> Image.Image:
    if name in EMOJI:
        return _glyph(name).resize((side, side), Image.Resampling.BICUBIC)
    color, shape = name.split()
    big = Image.new("RGBA", (3 * side, 3 * side), (*COLORS[color], 0))
    ImageDraw.Draw(big).polygon(_outline(shape, 3 * side), fill=(*COLORS[color], 255))
    return big.resize((side, side), Image.Resampling.BICUBIC)


def _places(count: int, rng: random.Random) -> list[tuple[int, int, int]]:
    """(left, top, side) of each object; none overlaps another."""
    columns = 2 if count == 4 else count
    width, height = SIZE // columns, SIZE // 2 if count == 4 else SIZE
    places = []
    for index in range(count):
        side = rng.randrange(34, min(width, height, 84) - 1, 2)
        left = (index % columns) * width + rng.randint(0, width - side)
        places.append((left, (index // columns) * height + rng.randint(0, height - side), side))
    return places


def paint(scene: Scene, rng: random.Random) -> Picture:
    shade = tuple(max(0, min(255, level + rng.randint(-12, 12))) for level in COLORS[scene.background])
    image = Image.new("RGB", (SIZE, SIZE), shade)
    boxes = []
    for name, (left, top, side) in zip(scene.objects, _places(len(scene.objects), rng), strict=True):
        thing = _object(name, side)
        image.paste(thing, (left, top), thing)
        boxes.append((left, top, left + side, top + side))
    return Picture(image, scene, tuple(boxes), (0, 0, SIZE, SIZE))


def shrink(picture: Picture, rng: random.Random, smallest: float = 0.45) -> Picture:
    """The picture smaller, somewhere on a plain frame."""
    side = round(SIZE * rng.uniform(smallest, 1))
    left, top = rng.randint(0, SIZE - side), rng.randint(0, SIZE - side)
    frame = Image.new("RGB", (SIZE, SIZE), tuple(rng.randint(0, 255) for _ in range(3)))
    frame.paste(picture.image.resize((side, side), Image.Resampling.BICUBIC), (left, top))
    scale = side / SIZE
    boxes = tuple(
        (round(left + scale * a), round(top + scale * b), round(left + scale * c), round(top + scale * d))
        for a, b, c, d in picture.boxes
    )
    return Picture(frame, picture.scene, boxes, (left, top, left + side, top + side))


def named(name: str) -> str:
    """With its article."""
    if name in _PLURAL:
        return name
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _thing(kind: str, text: str, name: str, wordings: tuple[str, ...]) -> Question:
    return Question(kind, text, name, tuple(w.format(a=named(name), the=f"the {name}") for w in wordings))


def questions(scene: Scene, rng: random.Random) -> list[Question]:
    """Every kind of question the scene admits, each in one of its wordings."""
    color, count = scene.background, len(scene.objects)
    asked = [
        Question(
            "background",
            rng.choice(("What color is the background?", "Which color does the background have?")),
            color,
            (f"The background is {color}.", f"It is {color}.", f"The color of the background is {color}."),
        ),
        Question(
            "count",
            rng.choice(("How many objects are there?", "How many things can you see?")),
            NUMBERS[count - 1],
            (
                f"There {'is' if count == 1 else 'are'} {NUMBERS[count - 1]}.",
                f"I can see {NUMBERS[count - 1]}.",
                f"The picture shows {NUMBERS[count - 1]} object{'s' * (count > 1)}.",
            ),
        ),
    ]
    if count == 1:
        text = rng.choice(("What is shown in the picture?", "What do you see?", "What is this?"))
        asked.append(
            _thing("name", text, scene.objects[0], ("It is {a}.", "The picture shows {a}.", "I can see {a}.", "This is {a}."))
        )
    if count in (2, 3):
        asked += _sides(scene, rng)
    for name in scene.objects:
        if " " in name:
            value, form = name.split()
            wordings = (f"The {form} is {value}.", f"It is {value}.", f"Its color is {value}.")
            asked.append(Question("color", f"What color is the {form}?", value, wordings))
    return asked


def _sides(scene: Scene, rng: random.Random) -> list[Question]:
    left, right = scene.objects[0], scene.objects[-1]
    wordings = ("It is {a}.", "There is {a}.", "You can see {a} there.")
    asked = [
        _thing("left", rng.choice(("What is on the left?", "What do you see on the left side?")), left, wordings),
        _thing("right", rng.choice(("What is on the right?", "What do you see on the right side?")), right, wordings),
    ]
    index = rng.randrange(len(scene.objects) - 1)
    one, other = scene.objects[index], scene.objects[index + 1]
    if rng.random() < 0.5:
        asked.append(_thing("beside", f"What is to the right of the {one}?", other, wordings))
    else:
        asked.append(_thing("beside", f"What is to the left of the {other}?", one, wordings))
    return asked


VALUES = {"background": tuple(COLORS), "color": tuple(COLORS), "count": NUMBERS}


def values_named(kind: str, answer: str) -> set[str]:
    """Which values an answer to a question of this kind names."""
    text = answer.lower()
    return {value for value in VALUES.get(kind, OBJECTS) if re.search(rf"\b{value}\b", text)}


def right(kind: str, value: str, answer: str) -> bool:
    """Whether the answer names this value and no other."""
    return values_named(kind, answer) == {value}


def caption(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """A request for a description, and one."""
    things = [named(name) for name in scene.objects]
    listed = things[0] if len(things) == 1 else f"{', '.join(things[:-1])} and {things[-1]}"
    request = rng.choice(("Describe the picture.", "What does the picture show?", "Give a short description."))
    forms = ("The picture shows {0} on {1} background.", "On {1} background there {2} {0}.", "I see {0} before {1} background.")
    return request, rng.choice(forms).format(listed, named(scene.background), "is" if len(things) == 1 else "are")
