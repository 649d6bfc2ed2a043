"""Says in English what a scene shows and sounds like."""

import random
import re
from collections.abc import Iterator, Sequence

from training.world.scenes import (
    BACKGROUNDS,
    CAMERAS,
    COLOURS,
    FINISHES,
    MOTIONS,
    OBJECTS,
    ORBIT,
    ROLL,
    SIZES,
    SLIDE,
    Scenes,
)

NOUNS = {
    "ball": ("ball", "ball", "sphere"),
    "cube": ("cube", "cube", "box"),
    "star": ("star",),
    "ring": ("ring", "ring", "hoop"),
    "heart": ("heart",),
    "diamond": ("diamond", "diamond", "gem"),
}
SHADES = {
    "red": ("red",),
    "orange": ("orange",),
    "yellow": ("yellow",),
    "green": ("green",),
    "blue": ("blue",),
    "purple": ("purple", "purple", "violet"),
    "pink": ("pink",),
    "white": ("white",),
}
GRADES = {
    "small": ("small", "small", "little", "tiny"),
    "medium": ("", "", "medium-sized"),
    "large": ("big", "large", "large", "huge"),
}
TEXTURES = {"matte": ("", "matte", "dull"), "shiny": ("shiny", "glossy", "polished")}

# Motions, in the present and as participles.
VERBS = {
    "bounce": (
        ("bounces", "bouncing"),
        ("bounces up and down", "bouncing up and down"),
        ("jumps up and down", "jumping up and down"),
        ("hops up and down", "hopping up and down"),
    ),
    "roll": (
        ("rolls {way}", "rolling {way}"),
        ("rolls along {way}", "rolling along {way}"),
        ("tumbles {way}", "tumbling {way}"),
    ),
    "orbit": (
        ("flies in circles", "flying in circles"),
        ("moves in a circle", "moving in a circle"),
        ("goes round and round in a circle", "going round and round in a circle"),
    ),
    "spin": (
        ("spins", "spinning"),
        ("spins in the air", "spinning in the air"),
        ("rotates in place", "rotating in place"),
        ("whirls", "whirling"),
    ),
    "slide": (
        ("slides {way}", "sliding {way}"),
        ("glides {way}", "gliding {way}"),
        ("slides along {way}", "sliding along {way}"),
    ),
    "grow": (
        ("grows", "growing"),
        ("grows bigger", "growing bigger"),
        ("gets bigger and bigger", "getting bigger and bigger"),
        ("swells up", "swelling up"),
    ),
    "swing": (
        ("swings back and forth", "swinging back and forth"),
        ("swings on a rope", "swinging on a rope"),
        ("swings from side to side", "swinging from side to side"),
    ),
}
WAYS = {-1: ("to the left", "from right to left"), 1: ("to the right", "from left to right")}
CIRCLING = (
    ("orbits {other}", "orbiting {other}"),
    ("circles around {other}", "circling around {other}"),
    ("flies around {other}", "flying around {other}"),
)
PASSING = ("past {other}", "in front of {other}")

PLACES = {
    "meadow": (
        "in a green meadow",
        "on the grass",
        "in a grassy field",
        "in a meadow under a blue sky",
    ),
    "beach": ("on the beach", "on a sandy beach", "by the sea", "on the sand by the sea"),
    "dusk": ("at dusk", "at sunset", "in the evening light", "in front of a setting sun"),
    "night": ("at night", "under the stars", "in the moonlight", "under a starry sky"),
    "checkerboard": (
        "on a checkerboard floor",
        "on a checkered floor",
        "in a room with a checkerboard floor",
        "on a tiled floor",
    ),
    "snow": ("in the snow", "on snowy ground", "in a snowy landscape", "on a winter day"),
}

ALONE = (
    "{first} {does} {place}.",
    "{first} {does} {place}.",
    "{Place}, {first} {does}.",
    "{first} {doing} {place}.",
)
BESIDE = (
    "{first} {does} on the {side} and {second} {also} on the {opposite}, {place}.",
    "{Place}, {first} {does} on the {side} while {second} {also} on the {opposite}.",
    "{Place}, {first} {does} to the {side} of {second} that {also}.",
    "{first} {doing} on the {side} and {second} {also_doing} on the {opposite}, {place}.",
)
CAMERA = {
    "still": ("", "", "", "The camera is still.", "The camera does not move."),
    "left": ("The camera pans to the left.", "The camera moves slowly to the left."),
    "right": ("The camera pans to the right.", "The camera moves slowly to the right."),
}

SOUNDS = {
    "bounce": ("Each bounce makes a knock.", "A knock is heard at every bounce."),
    "roll": ("A low rumble is heard.", "It rumbles over the ground."),
    "orbit": ("A clear tone sings.", "A clear wavering tone is heard."),
    "spin": ("A steady hum is heard.", "It hums."),
    "slide": ("It hisses over the ground.", "A hiss is heard."),
    "grow": ("A tone rises and ends with a ding.", "A rising tone ends with a ding."),
    "swing": ("It whooshes through the air.", "A whoosh is heard at every swing."),
}
SOUNDSCAPES = {
    "meadow": ("Birds sing.", "Birds are singing."),
    "beach": ("Waves wash ashore.", "The sea is heard."),
    "dusk": ("A soft breeze blows.", "A low breeze is heard."),
    "night": ("Crickets chirp.", "Crickets are chirping."),
    "checkerboard": ("The room is quiet.",),
    "snow": ("The wind howls.", "A cold wind blows."),
}


def captions(scenes: Scenes, seed: int) -> list[str]:
    """Caption scenes; what a caption says of a scene depends on both and the seed alone."""
    return [caption(scenes, row, seed) for row in range(len(scenes))]


def caption(scenes: Scenes, row: int, seed: int) -> str:
    chance = random.Random(f"{seed} {int(scenes.seed[row])}")
    first, second = named(scenes, row, 0, chance), named(scenes, row, 1, chance)
    motion = int(scenes.motion[row, 0])
    way = WAYS[int(scenes.direction[row, 0])]
    two = int(scenes.objects[row]) == 2
    does, doing = chance.choice(VERBS[MOTIONS[motion]])
    if two and motion == ORBIT:
        does, doing = chance.choice(CIRCLING)
    elif two and motion in (ROLL, SLIDE):
        past = chance.choice(PASSING)
        does, doing = f"{does} {past}", f"{doing} {past}"
    beside = two and motion not in (ORBIT, ROLL, SLIDE)
    place = chance.choice(PLACES[BACKGROUNDS[int(scenes.background[row])]])
    words = {"way": chance.choice(way), "other": second}
    words |= {"does": does.format(**words), "doing": doing.format(**words)}
    words |= {"first": first, "second": second, "place": place, "Place": place}
    if beside:
        also, also_doing = chance.choice(VERBS[MOTIONS[int(scenes.motion[row, 1])]])
        left = int(scenes.side[row]) == -1
        words |= {"also": also, "also_doing": also_doing}
        words |= (
            {"side": "left", "opposite": "right"} if left else {"side": "right", "opposite": "left"}
        )
    sentences = [chance.choice(BESIDE if beside else ALONE).format(**words)]
    sentences.append(chance.choice(CAMERA[CAMERAS[int(scenes.camera[row])]]))
    if chance.random() < 0.4:
        told = chance.choice(SOUNDS[MOTIONS[motion]])
        # Of two objects "it" would say too little.
        sentences.append("" if two and told.startswith("It ") else told)
    if chance.random() < 0.3:
        sentences.append(chance.choice(SOUNDSCAPES[BACKGROUNDS[int(scenes.background[row])]]))
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences if sentence)


def named(scenes: Scenes, row: int, column: int, chance: random.Random) -> str:
    """An object with its article: "a small shiny red ball"."""
    grade = chance.choice(GRADES[SIZES[int(scenes.size[row, column])]])
    texture = chance.choice(TEXTURES[FINISHES[int(scenes.finish[row, column])]])
    grade = "" if chance.random() < 0.1 else grade
    texture = "" if chance.random() < 0.25 else texture
    shade = chance.choice(SHADES[COLOURS[int(scenes.colour[row, column])]])
    noun = chance.choice(NOUNS[OBJECTS[int(scenes.shape[row, column])]])
    words = " ".join(word for word in (grade, texture, shade, noun) if word)
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def phrases(told: object) -> Iterator[str]:
    """All texts within nested tables."""
    if isinstance(told, str):
        yield told
    elif isinstance(told, dict):
        yield from phrases(list(told.values()))
    elif isinstance(told, Sequence):
        for each in told:
            yield from phrases(each)


def vocabulary() -> list[str]:
    """Every word, in lower case, that a caption can have."""
    tables = (
        *(NOUNS, SHADES, GRADES, TEXTURES, VERBS, WAYS, CIRCLING, PASSING, PLACES),
        *(ALONE, BESIDE, CAMERA, SOUNDS, SOUNDSCAPES),
    )
    found = {"a", "an", "left", "right"}
    for text in phrases(tables):
        found.update(re.findall(r"[a-z]+(?:-[a-z]+)*", re.sub(r"\{\w+\}", "", text).lower()))
    return sorted(found)
